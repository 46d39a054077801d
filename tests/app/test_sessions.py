import html as entities
import itertools
import re
import socket
import sys

import pytest
import torch

from hf_gpt.app import sessions
from hf_gpt.app.sessions import Settings, Writer, open_judge
from hf_gpt.cli.main import main
from hf_gpt.evaluation.tasks.loading import open_candidate
from hf_gpt.generation.guidance.guided_generate import GUIDANCE
from hf_gpt.installation import install_hint


@pytest.fixture(scope="module")
def writer(folders):
    return Writer(open_candidate("one", str(folders["one"]), device="cpu"))


@pytest.fixture(scope="module")
def judge(folders):
    return open_judge(str(folders["discriminator"]), "cpu")


def test_a_text_grows_and_is_what_generate_gives(writer):
    settings = Settings(max_new_tokens=12, temperature=0.8, top_k=20, seed=3)
    parts = list(writer.write("the man", settings))
    assert parts[0] == "the man"
    assert all(after.startswith(before) for before, after in itertools.pairwise(parts))
    candidate = writer.candidate
    ids = torch.tensor([[candidate.begin, *candidate.encode(["the man"])[0]]])
    torch.manual_seed(3)
    drawn = candidate.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=0.8,
        top_k=20,
        top_p=1.0,
        max_new_tokens=12,
    )
    assert parts[-1] == "the man" + candidate.tokenizer.decode(drawn[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_guided_texts_repeat_with_their_seed(writer, judge, guidance):
    settings = Settings(max_new_tokens=6, seed=1, guidance=guidance, num_candidates=3)
    (text,) = writer.write("two dogs", settings, judge)
    assert text.startswith("two dogs") and [text] == list(writer.write("two dogs", settings, judge))


def test_verdict_shows_the_whole_text_escaped(judge):
    text = "the man <b>runs</b> & two dogs"
    html = judge.verdict(text)
    shown = re.search(r'<pre dir="auto" class="tokens">(.*)</pre>', html, re.DOTALL)[1]
    assert entities.unescape(re.sub(r"</?span[^>]*>", "", shown)) == text and "<b>runs" not in shown
    assert re.search(r"\d+% real", html) and "color-mix" in html
    assert "no text" in judge.verdict("  ")


def test_a_character_of_several_tokens_is_shown_whole(judge):
    text = "the 木 and ü"
    assert len(judge.tokenizer("木")["input_ids"]) > 1
    html = judge.verdict(text)
    assert re.sub(r"<[^>]*>", "", html[html.index("<pre") :]) == text


def test_a_text_that_nobody_reads_on_is_not_written_on(writer):
    calls = []
    # An end of text would end it too.
    writer.candidate.model.generation_config.eos_token_id, ends = (
        None,
        writer.candidate.model.generation_config.eos_token_id,
    )
    hook = writer.candidate.model.register_forward_hook(lambda *args: calls.append(1))
    text = writer.write("the man", Settings(max_new_tokens=180))
    next(text), next(text)
    text.close()
    with sessions._SAMPLING:
        drawn = len(calls)
    hook.remove()
    writer.candidate.model.generation_config.eos_token_id = ends
    assert 0 < drawn < 180


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(max_new_tokens=400), "but the model reads 192"),
        (Settings(guidance="resample"), "Start the app with --discriminator"),
    ],
)
def test_what_cannot_be_written_is_said(writer, settings, message):
    with pytest.raises(ValueError, match=message):
        list(writer.write("a", settings))


def test_a_failure_while_drawing_is_told_and_ends_the_text(writer):
    with pytest.raises(ValueError, match="temperature"):
        list(writer.write("a", Settings(max_new_tokens=3, temperature=-1.0)))


def test_slips_are_answered_in_one_line(folders, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="make check-app installs it")
    for argv, message in (
        (["./nowhere"], "there is no folder ./nowhere"),
        ([str(folders["discriminator"])], "writes with causal language models"),
        ([str(folders["one"]), "--discriminator", "./nowhere"], "there is no folder"),
    ):
        assert main(["app", *argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_port_that_is_taken_is_named(folders, capsys):
    pytest.importorskip("gradio", reason="make check-app installs it")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["app", str(folders["one"]), "--port", port, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1" in error and "--port" in error and error.count("\n") == 1


def test_without_the_library_it_says_what_to_install(folders, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", str(folders["one"])]) == 2
    assert install_hint("app") in capsys.readouterr().err
