"""The experiment on real text: what the discriminator chooses by, and gains at equal diversity."""

import pytest
import torch

from hf_gpt.eval.curves import Plane
from hf_gpt.eval.experiments.real_text import AUC, LIKELIHOOD, OURS, gains, method
from hf_gpt.eval.language_model.word_model import WordModel
from hf_gpt.eval.vocabulary import BOS, EOS, PAD, WordVocabulary
from hf_gpt.generation.log_ratio import log_ratio
from hf_gpt.generation.rollout import rollout


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_log_ratio_is_that_of_the_tempered_models(temperature):
    vocabulary = WordVocabulary([["a", "man", "rides", "a", "horse"], ["two", "dogs"]])
    judge, model = (WordModel(vocabulary, 6, 8, 1, seed=seed).model.eval() for seed in (0, 1))
    texts = rollout(
        model,
        num_samples=20,
        max_new_tokens=7,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        temperature=temperature,
        generator=torch.Generator().manual_seed(0),
    )
    found = log_ratio(judge, model, texts, temperature, temperature, batch_size=3)
    for row in range(len(texts)):
        tokens = texts.completions[row][texts.completion_mask[row].bool()]
        ids = torch.cat([torch.tensor([BOS]), tokens])[None]
        expected = 0.0
        for sign, network in ((1, judge), (-1, model)):
            with torch.no_grad():
                logps = (network(ids).logits[0, :-1].float() / temperature).log_softmax(-1)
            expected += sign * logps.gather(-1, tokens[:, None]).sum().item()
        assert found[row].item() == pytest.approx(expected, abs=1e-4)


def test_gains_are_taken_at_equal_diversity():
    def row(model, setting, diversity, quality):
        return {"model": model, "setting": setting, "self_bleu5": diversity, "bleu5": quality, "auc": quality}

    rows = [
        row(LIKELIHOOD, "temperature 1", 0.2, 0.1),
        row(LIKELIHOOD, "temperature 0.5", 0.6, 0.5),
        row(LIKELIHOOD, "top_p 0.9", 0.4, 0.9),
        row(OURS, "temperature 1", 0.4, 0.35),
        row(OURS, "temperature 0.5", 0.7, 0.9),
    ]
    assert gains(rows, OURS, "bleu5", Plane()) == [pytest.approx(0.05)]
    assert gains(rows, OURS, "auc", AUC) == [pytest.approx(-0.05)]


def test_the_method_is_that_of_the_recipe():
    chosen = method()
    assert (chosen["discriminator_loss"], chosen["estimator"]) == ("density", "exact_token")
    assert chosen["discriminator_warmup_steps"] == 0
