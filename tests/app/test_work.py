import re
import threading
import time

import pytest

from hf_gpt.app.controls import UNGUIDED
from hf_gpt.app.work import Work, side_by_side


SAMPLING = (0.8, 1.0, 0, 0.0, 1.0, UNGUIDED, 8)


@pytest.fixture
def work(writer, judge):
    return Work({"one": writer}, judge)


def test_a_random_seed_is_told_and_repeats_the_text(work):
    *_, (text, status, verdict, seed) = work.write("me", "one", "the man", 20, "", SAMPLING)
    assert f"Seed {seed}, " in status and "% real" in verdict
    *_, again = work.write("me", "one", "the man", 20, str(seed), SAMPLING)
    assert (again[0], again[3]) == (text, seed)
    seeds = {list(work.write("me", "one", "a", 1, None, SAMPLING))[-1][3] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("prompt", "length", "seed", "sampling", "said"),
    [
        ("the man " * 300, 5, "", SAMPLING, "tokens, but one reads 192"),
        ("a", float("nan"), "", SAMPLING, "Most new tokens must be"),
        ("a", 5, "<b>x", SAMPLING, "Seed must be a whole number from 0 to 9.0072e+15, got &lt;b&gt;x."),
        ("a", 5, "1", (float("nan"), *SAMPLING[1:]), "Temperature must be"),
    ],
)
def test_mistakes_are_told_as_the_status(work, capsys, prompt, length, seed, sampling, said):
    ((text, status, verdict, _),) = work.write("me", "one", prompt, length, seed, sampling)
    assert said in status and 'role="alert"' in status and (text, verdict) == ("", "")
    assert capsys.readouterr() == ("", "")


def test_what_the_user_cannot_mend_is_told_in_the_terminal_too(work, judge, capsys, monkeypatch):
    monkeypatch.setattr(judge.model, "forward", lambda *args, **kwargs: 1 / 0)
    monkeypatch.setattr("hf_gpt.app.judge.score_texts", lambda *args, **kwargs: 1 / 0)
    assert "This failed: ZeroDivisionError: division by zero" in work.verdict("me", "the man")
    assert capsys.readouterr().err == "error: This failed: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize("part", ["write", "compare"])
def test_stop_ends_what_a_session_writes_and_says_so(work, writer, part, monkeypatch):
    monkeypatch.setattr(writer.candidate.model.generation_config, "eos_token_id", None)
    before = threading.active_count()
    if part == "write":
        shown = work.write("me", "one", "the man", 185, "", SAMPLING)
    else:
        shown = work.compare("me", ["one", "one"], "the man", 185, "", [SAMPLING, SAMPLING])
    next(shown)
    assert "nothing to stop" in work.stop("another", part) and "nothing to stop" in work.stop("me", "judge")
    assert "Stopping" in work.stop("me", part)
    *_, last = shown
    texts = [each for each in last if isinstance(each, str) and "Stopped." in each]
    assert len(texts) == (1 if part == "write" else 2)
    assert all(int(found) < 185 for found in re.findall(r"(\d+) tokens?", " ".join(texts)))
    assert "nothing to stop" in work.stop("me", part)
    time.sleep(0.05)
    assert threading.active_count() <= before


def test_judging_is_stopped_too(work, judge, monkeypatch):
    hook = judge.model.model.layers[0].register_forward_hook(lambda *_: work.stop("me", "judge") and None)
    assert "Stopped before it was judged." in work.verdict("me", "the man")
    hook.remove()


def test_a_reader_who_leaves_stops_it(work, writer, monkeypatch):
    monkeypatch.setattr(writer.candidate.model.generation_config, "eos_token_id", None)
    before = threading.active_count()
    shown = work.write("me", "one", "the man", 185, "", SAMPLING)
    next(shown)
    shown.close()
    assert threading.active_count() <= before and not work.running.stop("me")


def test_two_settings_stream_side_by_side(work):
    *before, last = work.compare("me", ["one", "one"], "the man", 60, "4", [SAMPLING, (0.0, *SAMPLING[1:])])
    first, _, first_verdict, second, _, second_verdict, seed = last
    assert len(before) > 1 and first != second and seed == 4
    assert "% real" in first_verdict and "% real" in second_verdict
    *_, alone = work.write("me", "one", "the man", 60, "4", SAMPLING)
    assert alone[0] == first


def test_a_slow_stream_holds_no_other_up():
    released = threading.Event()

    def slow():
        released.wait(10)
        yield "slow"

    found = side_by_side([slow(), iter("ab")])
    assert [next(found), next(found)] == [(1, "a"), (1, "b")]
    released.set()
    assert list(found) == [(0, "slow")]


def test_room_is_the_least_of_all(work, writer):
    assert work.room(["one"], "the man") == writer.room("the man") < work.room(["one"], "") == 191
    # Writing says what is wrong.
    assert work.room(["one"], "the man " * 300) == 191


def test_without_a_judge(writer):
    work = Work({"one": writer}, None)
    *_, last = work.write("me", "one", "the man", 4, "1", SAMPLING)
    assert last[2] == "" and work.verdict("me", "x") == ""
