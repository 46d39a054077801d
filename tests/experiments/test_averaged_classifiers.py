"""Classifiers together: the groups and their accuracy, and the command on tiny models."""

import json

import numpy as np
import torch

from eval.experiments import averaged_classifiers
from hf_gpt import HfGptConfig, HfGptForSequenceClassification
from hf_gpt.data.special_tokens import add_begin_and_end
from hf_gpt.data.tokenizer import train_tokenizer


def test_groups_average_log_probabilities():
    first = np.log([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    second = np.log([[0.4, 0.6], [0.1, 0.9], [0.3, 0.7]])
    third = np.log([[0.2, 0.8], [0.8, 0.2], [0.6, 0.4]])
    found = averaged_classifiers.accuracies_by_size([first, second, third], np.array([0, 1, 1]))
    assert {size: np.round(scores, 2).tolist() for size, scores in found.items()} == {
        1: [0.67, 0.67, 0.0],
        2: [1.0, 0.67, 0.67],
        3: [1.0],
    }


def test_command_prints_each_and_all_and_batches_change_nothing(tmp_path, capsys):
    tokenizer = train_tokenizer(["a warm film", "a dull film"], 300, model_max_length=64)
    add_begin_and_end(tokenizer)
    paths = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = HfGptConfig.preset(
            "nano", vocab_size=len(tokenizer), num_labels=2, is_causal=False, classifier_pooling="mean", pad_token_id=1
        )
        paths.append(tmp_path / str(seed))
        HfGptForSequenceClassification(config).save_pretrained(paths[-1])
        tokenizer.save_pretrained(paths[-1])
    texts = ["a warm film", "dull", "a film", "warm and dull and long"]
    alone = averaged_classifiers.log_probabilities(paths[0], texts, batch_size=1)
    np.testing.assert_allclose(averaged_classifiers.log_probabilities(paths[0], texts), alone, atol=1e-5)
    np.testing.assert_allclose(np.exp(alone).sum(-1), 1)
    file = tmp_path / "dev.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": 1}) + "\n" for text in texts))
    np.save(tmp_path / "odds.npy", [9.0, 9.0, 9.0, -1.0])
    assert averaged_classifiers.main([*map(str, paths), str(tmp_path / "odds.npy"), "--file", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith("1 together: mean") and lines[-3].endswith(" 0.7500")
    assert lines[-1].startswith("3 together: mean")


def test_scores_become_equally_sure():
    scores = averaged_classifiers.equally_sure(np.array([[-9.0, 1.0], [3.0, -1.0]]))
    np.testing.assert_allclose(scores.mean(-1), 0, atol=1e-12)
    assert np.isclose(scores.std(), 1) and np.isclose(scores[0, 1] / scores[1, 0], 2.5)
