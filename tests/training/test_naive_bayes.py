"""Log-count ratios, and embeddings that begin with them."""

import json

import numpy as np
import pytest
import torch

from hf_gpt import HfGptConfig, HfGptForSequenceClassification
from hf_gpt.cli.finetune import main
from hf_gpt.data.examples import Example
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks import make_task
from hf_gpt.training.tasks.naive_bayes import log_count_ratios, start_embeddings_from


def test_ratios_are_those_of_the_paper():
    # Class 0: {0, 1}; class 1: {1, 2} and {2}. Presence counts, so the second 2 of the first text of class 1 does not.
    ratios = log_count_ratios([[0, 1], [1, 2, 2], [2]], [0, 1, 1], vocab_size=4, num_classes=2)
    negative, positive = np.array([2, 2, 1, 1]) / 6, np.array([1, 2, 3, 1]) / 7
    expected = np.log(positive / negative)
    expected[3] = 0
    np.testing.assert_allclose(ratios[:, 1] - ratios[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(ratios.sum(1), 0, atol=1e-12)


def test_a_text_counts_as_much_as_its_probabilities_say():
    ids = [[0, 1], [1, 2]]
    sure = log_count_ratios(ids, [[1.0, 0.0], [0.0, 1.0]], vocab_size=3, num_classes=2)
    np.testing.assert_array_equal(sure, log_count_ratios(ids, [0, 1], vocab_size=3, num_classes=2))
    unsure = log_count_ratios(ids, [[0.75, 0.25], [0.25, 0.75]], vocab_size=3, num_classes=2)
    np.testing.assert_allclose(unsure[2, 1] - unsure[2, 0], np.log(1.75 / 1.25))


def test_embeddings_move_along_a_direction_for_each_class():
    model = HfGptForSequenceClassification(
        HfGptConfig(vocab_size=20, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
    )
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone()
    ratios = np.zeros((18, 3))
    ratios[4], ratios[5] = (1, 0, -1), (2, 0, -2)
    start_embeddings_from(model, ratios)
    moved = (weight - before).detach()
    assert torch.equal(moved[[0, 1, 2, 3, *range(6, 20)]], torch.zeros(18, 64))
    torch.testing.assert_close(moved[5], 2 * moved[4])
    # Two directions, nearly at right angles, each as long as an embedding.
    assert float(moved[4].norm() / before.norm(dim=1).mean()) == pytest.approx(2**0.5, rel=0.3)


def test_a_model_begins_with_what_the_texts_say(tmp_path):
    texts = ["a good film", "good fun", "a bad film", "bad work"]
    examples = [Example({"text": text, "label": int("good" in text)}) for text in texts]
    task = make_task(TaskArguments(task="classification", start_from_counts=True, tokenizer_vocab_size=300))
    task.learn(examples, examples)
    tokenizer = task.make_processing_class(examples)
    task.prepare_tokenizer(tokenizer)
    config = HfGptConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = HfGptForSequenceClassification(config)
    before = model.get_input_embeddings().weight.detach().clone()
    task.encode(examples, tokenizer, is_training=False)
    task.prepare_model(model, tokenizer)
    assert torch.equal(model.get_input_embeddings().weight, before)
    task.encode(examples, tokenizer, is_training=True)
    task.prepare_model(model, tokenizer)
    moved = (model.get_input_embeddings().weight - before).detach()
    good, bad = (moved[tokenizer.encode(f"x {word}", add_special_tokens=False)[-1]] for word in ("good", "bad"))
    assert torch.nn.functional.cosine_similarity(good, bad, dim=0) < -0.99
    assert float(moved[tokenizer.eos_token_id].abs().max()) < 1e-6


def test_a_loaded_model_has_its_embeddings(tmp_path, capsys):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n}", "label": n % 2}) + "\n" for n in range(20)))
    words = ["--task", "classification", "--train_file", str(path), "--output_dir", str(tmp_path / "run")]
    words += ["--start_from_counts", "true", "--model_name_or_path", str(tmp_path)]
    assert main(words) == 2
    assert "start_from_counts" in capsys.readouterr().err
