import html as entities
import json
import re
import threading

import pytest
import torch
from transformers import AutoTokenizer

from hf_gpt.adversarial.discriminator.held_out_auc import FILE, HeldOutAuc, read_held_out_auc
from hf_gpt.app.judge import Judge, open_judge
from hf_gpt.app.settings import MOST_CHARACTERS
from hf_gpt.app.stopping import StoppedError, stoppable
from hf_gpt.cli.score import score_texts
from hf_gpt.errors import UserError


def lean(judge, monkeypatch, logit):
    """Makes the judge give this logit to every text."""
    monkeypatch.setattr(
        "hf_gpt.app.judge.score_texts",
        lambda *args, **kwargs: [
            {**score_texts(*args, **kwargs)[0], "logit": logit, "probability": float(torch.tensor(logit).sigmoid())}
        ],
    )
    return judge


def test_verdict_shows_the_whole_text_escaped_with_a_legend(judge):
    text = "the man <b>runs</b> & two dogs"
    html = judge.verdict(text)
    shown = re.search(r'<pre dir="auto" class="tokens">(.*)</pre>', html, re.DOTALL)[1]
    assert entities.unescape(re.sub(r"</?span[^>]*>", "", shown)) == text and "<b>runs" not in shown
    assert re.search(r"\d+% real", html) and "color-mix" in shown
    assert "more real" in html and "less real" in html and "A token is coloured by" in html


def test_a_character_of_several_tokens_is_shown_whole(judge):
    text = "the 木 and ü"
    assert len(judge.tokenizer("木")["input_ids"]) > 1
    html = judge.verdict(text)
    assert re.sub(r"<[^>]*>", "", html[html.index("<pre") :]) == text


@pytest.mark.parametrize("logit", [3.0, -3.0])
@pytest.mark.parametrize(
    ("held_out", "verdict", "said"),
    [
        (HeldOutAuc(0.8, 0.75, 0.85, 300), None, "AUC on unseen texts 0.80 (95 % interval 0.75 to 0.85, 300 texts of"),
        (HeldOutAuc(0.6, 0.49, 0.71, 30), "Cannot tell.", "no better than chance"),
        (HeldOutAuc(0.4, 0.3, 0.5, 30), "Cannot tell.", "no better than chance"),
        (HeldOutAuc(0.53, 0.51, 0.55, 9000), "Cannot tell.", "Below an AUC of 0.55"),
        (None, None, "No AUC on unseen texts is recorded"),
    ],
)
def test_the_verdict_is_no_more_than_the_auc_carries(judge, monkeypatch, held_out, verdict, said, logit):
    leaning = lean(Judge(judge.model, judge.tokenizer, held_out), monkeypatch, logit)
    html = leaning.verdict("the man")
    expected = verdict or ("Looks real." if logit > 0 else "Looks generated.")
    assert f"<b>{expected}</b>" in html and said in html
    assert held_out is None or f"{held_out.auc:.2f}" in html


def test_close_to_even_is_no_verdict(judge, monkeypatch):
    assert "<b>Cannot tell.</b> That is close to even." in lean(judge, monkeypatch, 0.2).verdict("the man")


def test_the_auc_is_read_from_where_the_commands_write_it(tmp_path):
    known = HeldOutAuc(0.7, 0.6, 0.8, 40)
    (tmp_path / "model").mkdir()
    assert read_held_out_auc(tmp_path / "model") is None and read_held_out_auc("owner/name") is None
    (tmp_path / FILE).write_text(json.dumps(known.to_dict()))
    # Of a run; beside weights, as of an adversarial run, the file is in their folder.
    assert read_held_out_auc(tmp_path / "model") == read_held_out_auc(tmp_path) == known
    (tmp_path / "residual.json").write_text(json.dumps({"format": 1, **known.to_dict()}))
    assert read_held_out_auc(tmp_path / "discriminator") == known
    for broken in ("{", "[]", '{"results": {"auc": 1}}', '{"results": null}', json.dumps(known.to_dict()) + "x"):
        (tmp_path / FILE).write_text(broken)
        assert read_held_out_auc(tmp_path) is None
    (tmp_path / FILE).write_text(json.dumps(HeldOutAuc(float("nan"), 0.1, 0.2, 3).to_dict()))
    assert read_held_out_auc(tmp_path) is None


def test_a_pretrained_discriminator_judges_by_its_own_tokenizer(text_discriminator, tmp_path):
    judge = open_judge(str(text_discriminator), "cpu")
    html = judge.verdict("the man two dogs")
    own = AutoTokenizer.from_pretrained(text_discriminator)
    with torch.no_grad():
        logit = judge.model(**own("the man two dogs", return_tensors="pt")).logits.item()
    assert f"(logit {logit:+.2f})" in html and "<pre" not in html and "more real" not in html
    assert "It read the first part of the text alone." in judge.verdict("the man " * 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  \n", "There is no text to judge"),
        (None, "There is no text to judge"),
        ("a" * (MOST_CHARACTERS + 1), "20,001 characters; at most 20,000"),
        (7, "must be text, got int"),
    ],
)
def test_what_cannot_be_judged_is_said(judge, text, message):
    with pytest.raises(ValueError, match=message):
        judge.verdict(text)


def test_judging_stops_between_layers(judge):
    stop, layers = threading.Event(), []
    hook = judge.model.model.layers[0].register_forward_hook(lambda *_: layers.append(1) or stop.set())
    with pytest.raises(StoppedError), stoppable(stop):
        judge.verdict("the man")
    hook.remove()
    assert len(layers) == 1
    # Another thread's wish is none of this one's.
    assert "% real" in judge.verdict("the man")


def test_what_is_no_discriminator_is_told(folders, tmp_path):
    for path, message in (
        ("./nowhere", "there is no folder ./nowhere"),
        (str(folders["one"]), "a classifier with one label is needed"),
    ):
        with pytest.raises(UserError, match=message):
            open_judge(path, "cpu")
