"""The experiment on real text: what the discriminator chooses by, and gains at equal diversity."""

import pytest
import torch

from eval.experiments.real_text.report import DISTILLED, LIKELIHOOD, OURS, REAL, gain, plot, report
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD, WordVocabulary
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.log_ratio import log_ratio
from tests.sampling_options import rollout


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_log_ratio_is_that_of_the_tempered_models(temperature):
    vocabulary = WordVocabulary([["a", "man", "rides", "a", "horse"], ["two", "dogs"]])
    judge, model = (WordModel(vocabulary, 6, 8, 1, seed=seed).model.eval() for seed in (0, 1))
    texts = rollout(
        model,
        num_return_sequences=20,
        max_new_tokens=7,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        temperature=temperature,
        generator=torch.Generator().manual_seed(0),
    )
    found = log_ratio(judge, model, texts, SamplingConfig(temperature), SamplingConfig(temperature), batch_size=3)
    for row in range(len(texts)):
        tokens = texts.completions[row][texts.completion_mask[row].bool()]
        ids = torch.cat([torch.tensor([BOS]), tokens])[None]
        expected = 0.0
        for sign, network in ((1, judge), (-1, model)):
            with torch.no_grad():
                logps = (network(ids).logits[0, :-1].float() / temperature).log_softmax(-1)
            expected += sign * logps.gather(-1, tokens[:, None]).sum().item()
        assert found[row].item() == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def rows():
    def row(model, setting, diversity, quality, seed=0):
        metrics = {"self_bleu5": diversity, "bleu5": quality, "auc": quality}
        return {"corpus": "coco", "seed": seed, "model": model, "setting": setting, **metrics}

    return [
        row(REAL, "", 0.3, 0.3),
        row(LIKELIHOOD, "temperature 1", 0.2, 0.1),
        row(LIKELIHOOD, "temperature 0.5", 0.6, 0.5),
        row(LIKELIHOOD, "top_p 0.9", 0.4, 0.2),
        row(LIKELIHOOD, "temperature 1", 0.2, 0.6, seed=1),
        row(OURS, "temperature 1", 0.4, 0.35),
        row(OURS, "temperature 0.5", 0.7, 0.9),
    ]


def test_gains_are_taken_at_equal_diversity_within_a_seed_over_the_better_sampler(rows):
    ours = [row for row in rows if row["model"] == OURS]
    assert [gain(row, rows, "bleu5") for row in ours] == [pytest.approx(0.05), None]
    assert [gain(row, rows, "auc") for row in ours] == [pytest.approx(-0.15), None]


def test_the_report_tells_gains_of_each_seed_and_how_many_points_gain(rows, tmp_path):
    told = report("coco", rows)
    assert "| adversarial | temperature 1 | 0.400 | 0.350 | +0.050 | 0.350 | -0.150 |" in told
    assert "| adversarial | temperature 0.5 | 0.700 | 0.900 | beyond | 0.900 | beyond |" in told
    assert "- adversarial by temperature, BLEU-5 at equal self-BLEU-5: better at 1 of 1" in told
    assert "- adversarial by temperature, two-sample test's AUC at equal self-BLEU-5: better at 0 of 1" in told
    assert (
        "- adversarial by temperature, BLEU-5, where at most as diverse as real text: better at 1 of 1, +0.050" in told
    )
    assert "beside" not in told
    distillation_steps = [
        {**row, "model": DISTILLED, "bleu5": row["bleu5"] + 0.02} for row in rows if row["model"] == LIKELIHOOD
    ]
    assert "beside distilled from its discriminator, no game, BLEU-5: better at 1 of 1, +0.030" in report(
        "coco", [*rows, *distillation_steps]
    )
    plot("coco", rows, tmp_path / "coco.png")
    assert (tmp_path / "coco.png").read_bytes().startswith(b"\x89PNG")
