import html
import json

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.adversarial.discriminator.held_out_auc import read_held_out_auc
from hf_gpt.adversarial.discriminator.train_discriminator import DiscriminatorResult
from hf_gpt.cli import demo
from hf_gpt.cli.comparison import (
    CANDIDATES,
    Contestant,
    judge_real,
    likelihood_gain,
    likelihood_verdict,
    log_likelihoods,
    results_table,
    verdict,
    write_texts,
)
from hf_gpt.cli.main import main
from hf_gpt.data.tokenizer import train_tokenizer


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "DISCRIMINATOR_TEXTS", 60)
    monkeypatch.setattr(demo, "JUDGED_TEXTS", 48)
    monkeypatch.setattr(demo, "NEW_TOKENS", 6)
    monkeypatch.setattr(demo, "BATCH_SIZE", 8)


def test_the_demo_compares_four_ways_and_reports(small, tmp_path, capsys):
    options = ["--output_dir", str(tmp_path / "run"), "--pretrain_steps", "2", "--seconds", "1"]
    assert main(["demo", *options]) == 0
    found = json.loads((tmp_path / "run" / "comparison.json").read_text())
    ways = ["MLE", "MLE + discriminator", "more MLE", "adversarial"]
    assert list(found) == [*ways, "real text", "discriminator"]
    for name in (*ways, "real text"):
        metrics = found[name]
        assert 0 <= metrics["fresh_auc_low"] <= metrics["fresh_auc"] <= metrics["fresh_auc_high"] <= 1
        assert metrics["fresh_auc_texts"] == 48 and metrics["fresh_auc_error"] > 0
    # Measured, with an interval, and not the constant that it should be near to.
    assert found["real text"]["fresh_auc"] != 0.5
    assert 0 <= found["adversarial"]["generator_updates"] <= found["adversarial"]["steps"]
    gain = [found["MLE + discriminator"][f"residual_gain{end}"] for end in ("_low", "", "_high")]
    assert gain == sorted(gain)
    difference = found["MLE"]["heldout_nll"] - found["MLE + discriminator"]["heldout_nll"]
    assert difference * 6 == pytest.approx(gain[1], abs=1e-6)
    # More MLE trains at a rate that is not still warming up.
    assert found["more MLE"]["heldout_nll"] < found["MLE"]["heldout_nll"]
    page = (tmp_path / "run" / "comparison.html").read_text()
    assert "Samples side by side" in page and "Discriminator’s AUC" in page.replace("&#x27;", "’")
    for name in ("model", "discriminator", "adversarial", "adversarial/discriminator", "more_likelihood"):
        assert (tmp_path / "run" / name / "config.json").is_file(), name
    assert read_held_out_auc(tmp_path / "run" / "discriminator").auc == found["discriminator"]["auc"]
    printed = capsys.readouterr().out
    assert "How far from real text?" in printed and "other real text" in printed
    updates, steps = found["adversarial"]["generator_updates"], found["adversarial"]["steps"]
    assert f"generator updated {updates} of {steps} steps" in printed and f"{updates} of {steps}" in page
    for begin in ("Gain in held-out", ("Nothing wins", "Closer to real")):
        conclusion = next(line for line in printed.splitlines() if line.startswith(begin))
        assert html.escape(conclusion) in page


def test_a_wrong_option_is_named(capsys):
    with pytest.raises(SystemExit) as error:
        main(["demo", "--secods", "3"])
    assert error.value.code == 2 and "--secods" in capsys.readouterr().err


@pytest.fixture
def tokenizer():
    return train_tokenizer(iter(["to be or not to be"]), 300, model_max_length=64)


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    return HfGptForCausalLM(HfGptConfig(vocab_size=len(tokenizer), **sizes)).eval()


def test_log_likelihoods_are_sums_over_completion_tokens(model):
    rows = [{"prompt_ids": [5, 6], "completion_ids": [7, 8, 9]}, {"prompt_ids": [9, 8], "completion_ids": [7, 6, 5]}]
    ids = torch.tensor([row["prompt_ids"] + row["completion_ids"] for row in rows])
    with torch.no_grad():
        logps = model(ids).logits.log_softmax(-1)
    expected = logps[:, 1:4].gather(-1, ids[:, 2:, None]).sum((1, 2)).tolist()
    assert log_likelihoods(model, rows) == pytest.approx(expected, rel=1e-5)


def test_the_discriminator_chooses_among_candidates(model, tokenizer):
    class LikesLowTokens(torch.nn.Module):
        """Its logit is hugely in favour of the smallest sum of tokens, so that resampling takes that candidate."""

        config = PreTrainedConfig(num_labels=1)
        device = torch.device("cpu")

        def forward(self, input_ids, attention_mask=None, **kwargs):
            scores = -1e3 * (input_ids * attention_mask).sum(-1, keepdim=True).float()
            return type("Output", (), {"logits": scores})()

    rows = [{"prompt_ids": [5, 6]}] * 4
    plain, no_scores = write_texts(Contestant("plain", model), rows, tokenizer, 4, seed=0)
    chosen, scores = write_texts(
        Contestant("chosen", model, discriminator=LikesLowTokens()), rows, tokenizer, 4, seed=0
    )
    assert len(plain) == len(chosen) == 4 and CANDIDATES > 1
    assert sum(map(sum, chosen)) < sum(map(sum, plain))
    assert no_scores is None and scores.shape == (4, CANDIDATES)


def judged(auc, error=0.015):
    """Figures of a contestant with an AUC."""
    ends = {"fresh_auc_low": auc - 2 * error, "fresh_auc_high": auc + 2 * error, "fresh_auc_error": error}
    return {"fresh_auc": auc, **ends, "fresh_auc_texts": 1400, "distinct_trigrams": 0.9, "real_distinct_trigrams": 0.95}


def test_the_table_has_a_row_for_each_and_the_measured_one_of_real_text(model):
    plain = Contestant("MLE", model, metrics={**judged(0.7), "heldout_nll": 3.0}, log_likelihoods=[-30.0, -20.0])
    trained = Contestant("adversarial", model, 20, None, {**judged(0.65), "heldout_nll": 2.9}, updates=(6, 60))
    trained.log_likelihoods = [-29.0, -18.0]
    discriminator = DiscriminatorResult(0.6, 0.55, 0.66, 0.5, 0.6, 0.5, 818, 103, 3)
    names, rows = results_table([plain, trained], judged(0.512), discriminator)
    assert [len(row) for row in rows] == [len(names)] * 4
    assert rows[0] == ["MLE", "0.700 (0.67 to 0.73)", "3.000", "", "0.900", "", "+0 s"]
    assert rows[1][2:] == ["2.900", "+1.50 (+0.52 to +2.48)", "0.900", "6 of 60", "+20 s"]
    assert rows[2][:2] == ["other real text", "0.512 (0.48 to 0.54)"]
    assert rows[3][:2] == ["discriminator alone", "0.600 (0.55 to 0.66)"]


def test_a_sentence_says_who_gains_in_likelihood(model):
    plain = Contestant("MLE", model, log_likelihoods=[-30.0, -20.0, -25.0])
    more = Contestant("more MLE", model, log_likelihoods=[-28.0, -18.1, -22.9])
    worse = Contestant("adversarial", model, log_likelihoods=[-30.0, -20.2, -25.1])
    gain = {"residual_gain": 0.5, "residual_gain_low": 0.4, "residual_gain_high": 0.6}
    guided = Contestant("MLE + discriminator", model, metrics=gain, log_likelihoods=plain.log_likelihoods)
    assert likelihood_gain(guided, plain) == (0.5, 0.4, 0.6)
    said = likelihood_verdict([guided, more, worse], plain)
    assert "more MLE +2.00 (+1.89 to +2.11); MLE + discriminator +0.50 (+0.40 to +0.60); adversarial -0.10" in said
    assert said.endswith("More than chance allows: more MLE, MLE + discriminator. Most gains more MLE.")
    assert likelihood_verdict([worse], plain).endswith("None is above chance.")
    # Two that cannot be told apart: neither is named as the best.
    gain |= {"residual_gain": 1.9, "residual_gain_low": 1.8, "residual_gain_high": 2.0}
    assert likelihood_verdict([guided, more], plain).endswith("allows: more MLE, MLE + discriminator.")


def test_a_sentence_says_whether_anything_wins(model):
    more = Contestant("more MLE", model, metrics=judged(0.70))
    close = Contestant("adversarial", model, metrics=judged(0.67))
    clear = Contestant("guided", model, metrics=judged(0.60))
    worse = Contestant("guided", model, metrics=judged(0.80))
    said = verdict([more, close, worse], more)
    # Of a difference of 0.03 the error is 0.021, and two are asked for at once: 2.24 errors.
    assert said.startswith("Nothing wins") and "adversarial by +0.030 (-0.018 to +0.078)" in said
    assert "guided by -0.100 (-0.148 to -0.052)" in said
    said = verdict([more, close, clear], more)
    assert said == "Closer to real text than more MLE, in AUC: guided by +0.100 (+0.052 to +0.148)."


def test_real_text_is_compared_with_real_text_in_equal_numbers():
    generator = np.random.default_rng(0)
    rows = [{"completion_ids": row} for row in generator.integers(0, 50, (120, 8)).tolist()]
    found = judge_real(rows[:40], rows[40:], seed=0)
    assert found["fresh_auc_texts"] == 40 and found["fresh_auc_low"] < 0.5 < found["fresh_auc_high"]
    # Real texts of another kind, as the last tenth of a book is: the control tells.
    others = [{"completion_ids": row} for row in generator.integers(30, 80, (80, 8)).tolist()]
    assert judge_real(rows[:80], others, seed=0)["fresh_auc_low"] > 0.6
    with pytest.raises(ValueError, match="as many other real texts"):
        judge_real(rows[:80], rows[80:], seed=0)
