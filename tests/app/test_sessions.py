import itertools
import threading

import pytest
import torch

from hf_gpt.app.judge import open_judge
from hf_gpt.app.sessions import Writer
from hf_gpt.app.settings import MOST_CHARACTERS, Settings
from hf_gpt.evaluation.tasks.loading import open_candidate
from hf_gpt.generation.guidance.guided_generate import GUIDANCE


@pytest.fixture
def endless(writer, monkeypatch):
    """The writer, whose model never ends a text."""
    monkeypatch.setattr(writer.candidate.model.generation_config, "eos_token_id", None)
    return writer


def written(writer, prompt="the man", judge=None, **settings):
    """The last draft."""
    return list(writer.write(prompt, Settings(**settings), judge))[-1]


@pytest.mark.parametrize("is_fast", [False, True])
@pytest.mark.parametrize("settings", [{"temperature": 0.8, "top_k": 20}, {"temperature": 1.0, "min_p": 0.1}])
def test_a_text_grows_and_is_what_generate_gives(writer, settings, is_fast, monkeypatch):
    assert writer.is_fast
    monkeypatch.setattr(writer, "is_fast", is_fast)
    drafts = list(writer.write("the man", Settings(max_new_tokens=40, seed=3, **settings)))
    assert drafts[0].text == "the man" and drafts[-1].num_tokens <= 40
    assert all(after.text.startswith(before.text) for before, after in itertools.pairwise(drafts))
    assert [draft.ending for draft in drafts[:-1]] == [None] * (len(drafts) - 1)
    candidate = writer.candidate
    ids = torch.tensor([[candidate.begin, *candidate.encode(["the man"])[0]]])
    torch.manual_seed(3)
    sampled = candidate.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        **{"top_k": 0, "top_p": 1.0, **settings},
        max_new_tokens=40,
    )
    assert drafts[-1].text == "the man" + candidate.tokenizer.decode(
        sampled[0, ids.shape[1] :], skip_special_tokens=True
    )


def test_the_likeliest_text_needs_no_seed(writer):
    assert written(writer, temperature=0, seed=1).text == written(writer, temperature=0, seed=2).text
    assert written(writer, seed=1).text != written(writer, seed=2).text


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_guided_texts_repeat_with_their_seed(writer, judge, guidance):
    draft = written(writer, "two dogs", judge, max_new_tokens=6, seed=1, guidance=guidance, num_candidates=3)
    again = written(writer, "two dogs", judge, max_new_tokens=6, seed=1, guidance=guidance, num_candidates=3)
    assert draft.text.startswith("two dogs") and draft.text == again.text and 0 < draft.num_tokens <= 6


def test_a_discriminator_with_a_tokenizer_of_its_own_guides_and_refuses_prefixes(writer, text_discriminator):
    judge = open_judge(str(text_discriminator), "cpu")
    assert written(writer, "two dogs", judge, max_new_tokens=4, guidance="best_of_n").text.startswith("two dogs")
    with pytest.raises(ValueError, match="has another tokenizer"):
        written(writer, "two dogs", judge, guidance="stepwise")


@pytest.mark.parametrize("settings", [{}, {"guidance": "particles"}, {"guidance": "stepwise"}])
@pytest.mark.parametrize("how", ["event", "closed"])
def test_stopping_ends_the_thread(endless, judge, settings, how):
    before, stop = threading.active_count(), threading.Event()
    drafts = endless.write("the man", Settings(max_new_tokens=180, **settings), judge, stop)
    next(drafts)
    if how == "closed":
        drafts.close()
    else:
        stop.set()
        *_, last = drafts
        assert last.ending == "stopped" and last.num_tokens < 180
    assert threading.active_count() <= before


def test_the_end_is_told(endless, writer):
    draft = written(endless, max_new_tokens=5)
    assert (draft.ending, draft.num_tokens) == ("length", 5) and draft.seconds > 0


def test_lengths_are_what_the_model_has_room_for(endless):
    length = endless.candidate.limit - endless.room("the man")
    assert length == 1 + len(endless.candidate.encode(["the man"])[0]) and endless.most_new_tokens == 191
    draft = written(endless, max_new_tokens=5000)
    assert (draft.ending, draft.num_tokens) == ("length", 192 - length)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ("the man " * 300, {}, "The prompt has .* tokens, but one reads 192, new ones included. Shorten it."),
        ("a" * (MOST_CHARACTERS + 1), {}, "The prompt has 20,001 characters; at most 20,000 are read"),
        ("a", {"guidance": "resample"}, "Start the app with --discriminator"),
        (5, {}, "The prompt must be text, got int"),
    ],
)
def test_what_cannot_be_written_is_said(writer, prompt, settings, message):
    with pytest.raises(ValueError, match=message):
        written(writer, prompt, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": float("nan")}, "Temperature must be a number from 0 to 2, got nan"),
        ({"temperature": -1}, "Temperature must be"),
        ({"temperature": None}, "Temperature must be .* got None"),
        ({"top_p": "0.5"}, "Top-p must be"),
        ({"max_new_tokens": 0}, "Most new tokens must be a whole number at least 1, got 0"),
        ({"max_new_tokens": float("inf")}, "Most new tokens must be"),
        ({"top_k": 1.5}, "Top-k must be a whole number"),
        ({"seed": "abc"}, "Seed must be a whole number"),
        ({"seed": 2**64}, "Seed must be"),
        ({"num_candidates": True}, "Candidates must be"),
        ({"guidance": ["x"]}, "There is no guidance"),
    ],
)
def test_odd_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_damaged_weights_are_told(folders):
    damaged = Writer(open_candidate("one", str(folders["one"]), device="cpu"))
    with torch.no_grad():
        damaged.candidate.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="logits are not numbers"):
        written(damaged)


def test_half_a_character_is_no_fault(writer):
    assert written(writer, "a \ud83d b", max_new_tokens=2).text.startswith("a ? b")


def test_a_chat_model_answers(folders, tokenizer):
    chatting = Writer(open_candidate("one", str(folders["one"]), device="cpu"))
    chatting.candidate.tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}\n{% endfor %}{% if messages[0]['content'] == 'no' %}"
        "{{ raise_exception('not this') }}{% endif %}"
    )
    assert chatting.is_chat
    drafts = list(chatting.write("two dogs ?", Settings(max_new_tokens=5)))
    assert drafts[0].text == "" and not drafts[-1].text.startswith("two dogs ?")
    with pytest.raises(ValueError, match="answers questions"):
        written(chatting, " ")
    with pytest.raises(ValueError, match="refuses the message: not this"):
        written(chatting, "no")
