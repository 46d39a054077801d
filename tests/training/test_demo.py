import json

import pytest
import torch
from transformers import PreTrainedConfig

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.cli import main
from hf_gpt.training import demo
from hf_gpt.training.comparison import CANDIDATES, Contestant, held_out_nll, results_table, write_texts
from hf_gpt.training.tokenizer import train_tokenizer


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(demo, "CRITIC_TEXTS", 60)
    monkeypatch.setattr(demo, "JUDGED_TEXTS", 48)
    monkeypatch.setattr(demo, "NEW_TOKENS", 6)
    monkeypatch.setattr(demo, "BATCH_SIZE", 8)


def test_the_demo_compares_four_ways_and_reports(small, tmp_path, capsys):
    options = ["--output_dir", str(tmp_path / "run"), "--pretrain_steps", "2", "--seconds", "1"]
    assert main(["demo", *options]) == 0
    found = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert list(found) == ["likelihood", "likelihood, critic choosing", "more likelihood", "adversarial"]
    assert all(0 <= figures["fresh_auc"] <= 1 for figures in found.values())
    assert "heldout_nll" not in found["likelihood, critic choosing"]
    # More likelihood trains at a rate that is not still warming up.
    assert found["more likelihood"]["heldout_nll"] < found["likelihood"]["heldout_nll"]
    page = (tmp_path / "run" / "comparison.html").read_text()
    assert "Samples side by side" in page and "Discriminator’s AUC" in page.replace("&#x27;", "’")
    for name in ("model", "critic", "adversarial", "adversarial/discriminator", "more_likelihood"):
        assert (tmp_path / "run" / name / "config.json").is_file(), name
    assert "How far from real text?" in capsys.readouterr().out


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


def test_held_out_nll_is_the_mean_over_completion_tokens(model):
    rows = [{"prompt_ids": [5, 6], "completion_ids": [7, 8, 9]}, {"prompt_ids": [9, 8], "completion_ids": [7, 6, 5]}]
    ids = torch.tensor([row["prompt_ids"] + row["completion_ids"] for row in rows])
    with torch.no_grad():
        logps = model(ids).logits.log_softmax(-1)
    expected = -logps[:, 1:4].gather(-1, ids[:, 2:, None]).mean()
    assert held_out_nll(model, rows) == pytest.approx(float(expected), rel=1e-5)


def test_the_critic_chooses_among_candidates(model, tokenizer):
    class LikesLowTokens(torch.nn.Module):
        """Its logit is hugely in favour of the smallest sum of tokens, so that resampling takes that candidate."""

        config = PreTrainedConfig(num_labels=1)
        device = torch.device("cpu")

        def forward(self, input_ids, attention_mask=None, **kwargs):
            scores = -1e3 * (input_ids * attention_mask).sum(-1, keepdim=True).float()
            return type("Output", (), {"logits": scores})()

    rows = [{"prompt_ids": [5, 6]}] * 4
    plain = write_texts(Contestant("plain", model), rows, tokenizer, 4, seed=0)
    chosen = write_texts(Contestant("chosen", model, critic=LikesLowTokens()), rows, tokenizer, 4, seed=0)
    assert len(plain) == len(chosen) == 4 and CANDIDATES > 1
    assert sum(map(sum, chosen)) < sum(map(sum, plain))


def test_the_table_has_a_row_for_each_and_for_real_text(model):
    figures = {"fresh_auc": 0.7, "fresh_auc_low": 0.6, "fresh_auc_high": 0.8, "distinct_trigrams": 0.9}
    contestant = Contestant(
        "likelihood", model, figures={**figures, "real_distinct_trigrams": 0.95, "heldout_nll": 3.0}
    )
    names, rows = results_table([contestant])
    assert [len(row) for row in rows] == [len(names)] * 2
    assert rows[0] == ["likelihood", "0.700 (0.60 to 0.80)", "3.000", "0.900", "+0 s"] and rows[1][0] == "real text"
