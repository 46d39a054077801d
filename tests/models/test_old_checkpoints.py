"""Checkpoints that an older version wrote still open, and say what they said then."""

import json
from pathlib import Path

import pytest
import torch

import hf_gpt


# Written by version 0.1.0 at commit 389cece, one of each kind of model, with all its weights made random.
CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
EXPECTED = json.loads((CHECKPOINTS / "expected.json").read_text(encoding="utf-8"))
PADDING = 2
INPUT_IDS = torch.tensor([[0, 5, 9, 13, 21, 34, 7, 1], [0, 6, 3, 3, 39, 1, PADDING, PADDING]])


@pytest.mark.parametrize("name", EXPECTED)
def test_old_checkpoint_gives_its_logits(name: str):
    expected = EXPECTED[name]
    model = getattr(hf_gpt, expected["cls"]).from_pretrained(CHECKPOINTS / name).eval()
    inputs = {"input_ids": INPUT_IDS, "attention_mask": (INPUT_IDS != PADDING).long()}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = INPUT_IDS[:, :4]
    with torch.no_grad():
        output = model(**inputs)
    logits = output.start_logits if "start_logits" in output else output.logits
    assert list(logits.shape) == expected["shape"]
    some = logits.flatten()[:: max(1, logits.numel() // 24)]
    torch.testing.assert_close(some, torch.tensor(expected["logits"]), rtol=1e-5, atol=2e-6)


def test_there_is_one_of_every_model_type():
    types = {json.loads((CHECKPOINTS / name / "config.json").read_text())["model_type"] for name in EXPECTED}
    assert types == {"hf_gpt", "hf_gpt_seq2seq", "hf_lstm", "hf_ngram_cnn"}
