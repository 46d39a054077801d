"""Tokens of a conversation by a tokenizer's own chat template.

What a message says stays text: a special token that is spelled out in it is encoded as its characters.
"""

import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Private-use characters around a special token that a message spells out.
_START, _END = "\ue0f0", "\ue0f1"
# What matches a tokenizer's special tokens, with the size of its vocabulary at the time: some have thousands of them.
_patterns: "weakref.WeakKeyDictionary[Any, tuple[int, re.Pattern[str]]]" = weakref.WeakKeyDictionary()
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateError(ValueError):
    """A chat template refuses a conversation; the message is the template's own."""


def marks_answers(tokenizer: "PreTrainedTokenizerBase", tools: Sequence[Any] | None = None) -> bool:
    """Whether the template says itself, by `{% generation %}`, what the assistant writes.

    Raises:
        TemplateError: the tokenizer has several templates, and none for this.
    """
    return _GENERATION.search(_template(tokenizer, tools)) is not None


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
    *,
    add_generation_prompt: bool = False,
    with_spans: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as the template writes it, for `encode`, and where in it the assistant writes.

    Args:
        tokenizer: With a chat template.
        messages: The conversation.
        tools: Descriptions of tools, for templates that show them.
        add_generation_prompt: End with what stands before an answer.
        with_spans: Find the characters between `{% generation %}` and `{% endgeneration %}`.

    Raises:
        TemplateError: the template refuses the conversation.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    # The library does the same: templates take a key for something said, even if it holds nothing.
    chat = [{key: value for key, value in message.items() if value is not None} for message in messages]
    special = _special_tokens(tokenizer)
    try:
        rendered, spans = render_jinja_template(
            conversations=[_mark(chat, special)],
            tools=_mark(list(tools), special) if tools else None,
            chat_template=_template(tokenizer, tools),
            return_assistant_tokens_mask=with_spans,
            add_generation_prompt=add_generation_prompt,
            **tokenizer.special_tokens_map,
        )
    # Templates are programs: besides their own errors, they may stumble over what is not there.
    except Exception as error:
        raise TemplateError(f"{error}" or type(error).__name__) from error
    return rendered[0], spans[0] if spans else []


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a text from `render`, or of a part of it."""
    if _START not in text and _END not in text:
        return _ids(tokenizer, text, as_text=False)
    # Every second piece is a marked token, or None for a mark that a template or a cut has parted from the other.
    marked = re.compile(f"{_START}({_special_tokens(tokenizer).pattern}){_END}|[{_START}{_END}]")
    ids: list[int] = []
    for number, piece in enumerate(marked.split(text)):
        if piece:
            ids += _going_on(tokenizer, piece, as_text=number % 2 == 1) if ids else _ids(tokenizer, piece, number == 1)
    return ids


def _template(tokenizer: "PreTrainedTokenizerBase", tools: Sequence[Any] | None) -> str:
    try:
        return tokenizer.get_chat_template(tools=list(tools) if tools else None)
    except ValueError as error:
        raise TemplateError(str(error)) from error


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str, as_text: bool) -> list[int]:
    return list(
        tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=as_text,
            return_attention_mask=False,
            truncation=False,
            padding=False,
            verbose=False,
        )["input_ids"]
    )


def _going_on(tokenizer: "PreTrainedTokenizerBase", piece: str, as_text: bool) -> list[int]:
    """Ids of what follows on other text: some tokenizers put a space before a text that stands alone."""
    line_end = _ids(tokenizer, "\n", as_text)
    after_it = _ids(tokenizer, f"\n{piece}", as_text)
    return after_it[len(line_end) :] if after_it[: len(line_end)] == line_end else _ids(tokenizer, piece, as_text)


def _special_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str]:
    size, pattern = _patterns.get(tokenizer, (None, None))
    if size != len(tokenizer):
        found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        pattern = re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))) or "(?!)")
        _patterns[tokenizer] = len(tokenizer), pattern
    return pattern


def _mark(value: Any, special: re.Pattern[str]) -> Any:
    """The same messages, in whose texts special tokens are marked as text."""
    if isinstance(value, str):
        return special.sub(f"{_START}\\g<0>{_END}", value.replace(_START, "").replace(_END, ""))
    if isinstance(value, Mapping):
        return {key: item if key == "role" else _mark(item, special) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mark(item, special) for item in value]
    return value
