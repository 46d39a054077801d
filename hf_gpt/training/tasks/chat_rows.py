"""Rows of a conversation by a model's own chat template, with labels on what the assistant writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_gpt.data.chat_tokens import TemplateError, encode, marks_answers, render
from hf_gpt.data.packing import IGNORE_INDEX


Row = tuple[list[int], list[int]]
Messages = Sequence[Mapping[str, Any]]


def template_rows(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Sequence[Any] | None) -> list[Row]:
    """Token ids and labels of a conversation: one row, or one for each of the assistant's turns.

    A template with `{% generation %}` says what the assistant writes. Of another, a turn is what stands between the
    conversation up to it, with a generation prompt, and the conversation with it. That is one row if each of these is
    a prefix of the next, as text and as tokens. A template that rewrites what was said before, such as one that
    leaves out earlier thoughts, gives a row for each turn: what the model reads when it writes that turn.

    Raises:
        TemplateError: the template refuses the conversation, or does not go on from its own generation prompt.
    """
    if marks_answers(tokenizer, tools):
        return [_marked_row(tokenizer, messages, tools)]
    return _rows_by_prefix(tokenizer, messages, tools)


def last_turn(ids: list[int], labels: list[int]) -> Row:
    """A row whose labels are those of the assistant's last turn alone: the last ones without a gap."""
    last = max((position for position, label in enumerate(labels) if label != IGNORE_INDEX), default=0)
    start = max((position + 1 for position in range(last) if labels[position] == IGNORE_INDEX), default=0)
    return ids, [*[IGNORE_INDEX] * start, *labels[start:]]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Sequence[Any] | None) -> list[int]:
    """What a model reads before it answers; raises `TemplateError` where the template refuses the conversation."""
    return encode(tokenizer, render(tokenizer, messages, tools, add_generation_prompt=True)[0])


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the special tokens."""
    return {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def _marked_row(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Sequence[Any] | None) -> Row:
    text, spans = render(tokenizer, messages, tools, with_spans=True)
    ids = encode(tokenizer, text)
    labels = [IGNORE_INDEX] * len(ids)
    token_spans = [_token_span(tokenizer, text, ids, span) for span in spans if span[1] > span[0]]
    special = special_ids(tokenizer)
    # A template may close its block before the token that ends a turn, which has to be learnt too.
    ends = {tokenizer.eos_token_id} & special
    if token_spans and messages[-1]["role"] == "assistant":
        ends |= set(ids[token_spans[-1][1] : token_spans[-1][1] + 1]) & special
    for start, stop in token_spans:
        if ids[stop - 1] not in special and stop < len(ids) and ids[stop] in ends:
            stop += 1
        labels[start:stop] = ids[start:stop]
    return ids, labels


def _token_span(
    tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], span: tuple[int, int]
) -> tuple[int, int]:
    """First and past-the-last token of some characters; a token that only reaches into them counts."""
    before, within = encode(tokenizer, text[: span[0]]), encode(tokenizer, text[: span[1]])
    start, stop = _common(before, ids), _common(within, ids)
    # Tokens that a cut in the middle of them changes belong to what comes after the cut.
    return start, stop if stop == len(within) else min(len(ids), stop + 1)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shorter = min(len(one), len(other))
    return next((position for position in range(shorter) if one[position] != other[position]), shorter)


def _rows_by_prefix(tokenizer: PreTrainedTokenizerBase, messages: Messages, tools: Sequence[Any] | None) -> list[Row]:
    whole, _ = render(tokenizer, messages, tools)
    turns = []
    for position, message in enumerate(messages):
        if position and message["role"] == "assistant":
            prompt, _ = render(tokenizer, messages[:position], tools, add_generation_prompt=True)
            turn, _ = render(tokenizer, messages[: position + 1], tools)
            if not turn.startswith(prompt):
                raise TemplateError(
                    "the assistant's turn does not go on from the template's generation prompt, so what the assistant "
                    "writes cannot be told. Mark it in the template by {% generation %} and {% endgeneration %}."
                )
            turns.append((prompt, turn))
    ids, special = encode(tokenizer, whole), special_ids(tokenizer)
    labels = [IGNORE_INDEX] * len(ids)
    parts = [(encode(tokenizer, prompt), encode(tokenizer, turn)) for prompt, turn in turns]
    for (prompt, turn), (before, within) in zip(turns, parts, strict=True):
        texts_agree = whole.startswith(prompt) and whole.startswith(turn)
        if not texts_agree or ids[: len(before)] != before or ids[: len(within)] != within:
            return [_turn_row(tokenizer, *texts, *tokens, special) for texts, tokens in zip(turns, parts, strict=True)]
        stop = _end_of_turn(tokenizer, ids, len(before), len(within), special)
        labels[len(before) : stop] = ids[len(before) : stop]
    return [(ids, labels)]


def _turn_row(
    tokenizer: PreTrainedTokenizerBase, prompt: str, turn: str, before: list[int], ids: list[int], special: set[int]
) -> Row:
    if ids[: len(before)] != before:
        # A token would reach over the end of the prompt, which the model reads as it is.
        ids = [*before, *encode(tokenizer, turn[len(prompt) :])]
    stop = _end_of_turn(tokenizer, ids, len(before), len(ids), special)
    return ids[:stop], [*[IGNORE_INDEX] * len(before), *ids[len(before) : stop]]


def _end_of_turn(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int, stop: int, special: set[int]
) -> int:
    """Where a turn ends: after its last special token, if only blanks follow, which nobody generates."""
    last = max((position for position in range(start, stop) if ids[position] in special), default=stop - 1)
    return last + 1 if not tokenizer.decode(ids[last + 1 : stop]).strip() else stop
