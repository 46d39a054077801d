"""Dialogue: a chat template, and the loss on the assistant's turns alone."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.chat_tokens import TemplateError
from hf_gpt.data.examples import Example, texts_of
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.special_tokens import begin_and_end, tokenize
from hf_gpt.data.truncation import Cuts
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation import compute
from hf_gpt.evaluation.text.words import UNICODE_WORDS
from hf_gpt.option_values import from_json
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks.base import Examples, to_rows
from hf_gpt.training.tasks.chat_rows import Row, last_turn, prompt_ids, special_ids, template_rows
from hf_gpt.training.tasks.text_generation import WritingTask


ROLES = ("system", "user", "assistant")

# The markers {% generation %} tell which tokens the assistant writes, to `apply_chat_template` and to TRL alike.
CHAT_TEMPLATE = (
    "{{- bos_token or eos_token -}}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


class Dialogue(WritingTask):
    """Conversations; ROUGE of the last answer, given what was said before it.

    A turn is an object with `role` and `content`, or a text; texts are the user's and the assistant's in turn.

    A tokenizer with a chat template keeps it, with its vocabulary: the template writes the conversation, tools and all
    that a message holds, and tells what the assistant writes (see `chat_rows`). One without gets ours, which knows the
    roles system, user and assistant, each a new token, and is saved with the tokenizer. Either way a special token that
    is spelled out in a message stays text.

    With `--loss_on last_turn` earlier turns of the assistant are read and not learnt.

    What follows the assistant's last turn teaches nothing and goes first from a conversation too long, then its start.
    An encoder-decoder reads the conversation up to each of the assistant's turns and writes that turn.
    """

    column_options = ("messages_column", "tools_column")
    main_metric = "rougeL"
    words = UNICODE_WORDS

    def __init__(self, args: TaskArguments):
        super().__init__(args)
        # Whether conversations are written by a template that is not ours.
        self.has_template = False
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._turns_without_end = False

    @property
    def one_row_each(self) -> bool:
        # An encoder-decoder has a row for each of the assistant's turns, and so may another's template.
        if self.args.loss_on == "last_turn":
            return True
        return not self.is_encoder_decoder and not (self.has_template and _rewrites_history(self._tokenizer))

    def check_processing_class(self, processing_class: PreTrainedTokenizerBase) -> None:
        self._use(processing_class)

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        self._use(tokenizer)
        if self.has_template:
            return []
        size = len(tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{role}|>" for role in ROLES]})
        tokenizer.chat_template = CHAT_TEMPLATE
        return tokenizer.convert_ids_to_tokens(list(range(size, len(tokenizer))))

    def check(self, example: Example) -> None:
        super().check(example)
        # What is read all before is refused when it is encoded.
        if self.has_template and self.args.streaming:
            self._template_rows(example)

    def texts(self, example: Example) -> Iterable[str]:
        return [text for message in self.messages(example) for text in _texts_of_message(message)]

    def encode(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, is_training: bool) -> datasets.Dataset:
        self._use(tokenizer)
        cuts = self.start_counting(is_training, 0)
        rows = []
        for index, example in enumerate(examples):
            cuts.add("parts_unread", self._count_unread(example))
            if self.is_encoder_decoder:
                found = list(self._turns(example, cuts))
            else:
                found = [self._fit(row, example, cuts) for row in self._rows(example)]
            if any(keeps for keeps, _ in found):
                self.kept.append(index)
                if self.args.predict_with_generate and not (is_training or self.is_encoder_decoder):
                    _, lost = self._prompt(example, self._history(example))
                    room = self.args.max_length - self.args.max_new_tokens
                    cuts.add("prompts_cut", bool(lost), option="max_length minus --max_new_tokens", limit=room)
            rows += [row for _, row in found if row is not None]
        return to_rows(rows)

    def prompts(self, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        self._use(tokenizer)
        return [self._prompt(example, self._history(example))[0] for example in examples]

    def score(self, predictions: Sequence[str], examples: Examples) -> dict[str, float]:
        wanted = [[_text(self.messages(example)[len(self._history(example))])] for example in examples]
        return compute("rouge", list(predictions), wanted)

    def describe(self, example: Example) -> str:
        return "\n".join(f"{message['role']}: {_text(message)}" for message in self._history(example))

    def notes(self) -> list[str]:
        if not self._turns_without_end:
            return []
        return ["the chat template ends a turn with no special token: the model learns no end, only --max_new_tokens"]

    def messages(self, example: Example) -> list[dict[str, Any]]:
        """The turns of a conversation; raises `CorpusError` for one of another form, or without an answer."""
        column = self.args.messages_column
        turns = from_json(example[column], "[")
        if isinstance(turns, str) or (isinstance(turns, (list, tuple)) and all(isinstance(t, str) for t in turns)):
            contents = texts_of(example, column)
            turns = [{"role": ROLES[1 + position % 2], "content": text} for position, text in enumerate(contents)]
        is_message = _has_role if self.has_template else _is_message
        if not isinstance(turns, (list, tuple)) or not all(is_message(turn) for turn in turns):
            roles = "" if self.has_template else f" of {', '.join(ROLES)}"
            hint = "" if self.has_template else ", which are all that our own chat template knows"
            raise CorpusError(
                f"{example.position}: column {column!r} must be a list of texts, or of objects with content and a role"
                f"{roles}{hint}. Mend or remove the row."
            )
        if not any(turn["role"] == "assistant" for turn in turns[1:]):
            raise CorpusError(f"{example.position}: the assistant never answers in {column!r}. Remove the row.")
        return [_without_nothing(turn) for turn in turns]

    def tools(self, example: Example) -> list[Any] | None:
        """The tools of a conversation, for a template that is not ours; raises `CorpusError` where they are no list."""
        found = from_json(example.get(self.args.tools_column), "[")
        if not found:
            return None
        if not isinstance(found, (list, tuple)) or not all(isinstance(tool, Mapping) for tool in found):
            raise CorpusError(
                f"{example.position}: column {self.args.tools_column!r} must be a list of tool objects. Mend the "
                "row, or name another column with --tools_column."
            )
        if not self.has_template:
            return None
        return [_without_nothing(tool) for tool in found]

    def _use(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.has_template = tokenizer.chat_template not in (None, CHAT_TEMPLATE)

    def _rows(self, example: Example) -> list[Row]:
        rows = self._template_rows(example) if self.has_template else [self._tokens(self.messages(example))]
        if self.args.loss_on == "last_turn":
            rows = [last_turn(*rows[-1])]
        if self.has_template:
            self._learn_ends(rows)
        return rows

    def _learn_ends(self, rows: Sequence[Row]) -> None:
        special = special_ids(self._tokenizer)
        for ids, labels in rows:
            for token, label, after in zip(ids[1:], labels[1:], [*labels[2:], IGNORE_INDEX], strict=False):
                if label != IGNORE_INDEX and after == IGNORE_INDEX:
                    self.end_token_ids |= {token} & special
                    self._turns_without_end |= token not in special

    def _count_unread(self, example: Example) -> int:
        """Messages of which our own template writes but a part; tools count as one."""
        if self.has_template:
            return 0
        more = sum(len(message.keys() - {"role", "content"}) > 0 for message in self.messages(example))
        return more + bool(example.get(self.args.tools_column))

    def _template_rows(self, example: Example) -> list[Row]:
        with self._names_row(example):
            return template_rows(self._tokenizer, self.messages(example), self.tools(example))

    @contextlib.contextmanager
    def _names_row(self, example: Example) -> Iterator[None]:
        """Inside, what a template refuses is an error of the row."""
        try:
            yield
        except TemplateError as error:
            reason = f"{error}".rstrip(".")
            raise CorpusError(
                f"{example.position}: the model's chat template refuses {self.args.messages_column!r}: {reason}. Mend "
                "or remove the row."
            ) from error

    def _fit(self, row: Row, example: Example, cuts: Cuts) -> tuple[bool, dict[str, list[int]] | None]:
        """Whether a row is used, and its inputs, cut if it is too long; None if no label is left in it."""
        (tokens, labels), most = row, self.args.max_length
        cuts.total += 1
        if len(tokens) > most:
            if not cuts.keeps(self.args.overlong, example.position, len(tokens)):
                return False, None
            wanted = _num_targets(labels)
            last = max((position for position, label in enumerate(labels) if label != IGNORE_INDEX), default=most - 1)
            cuts.add("rows_cut")
            cuts.add("tokens_cut", len(tokens) - most)
            end = max(last + 1, most)
            tokens, labels = tokens[end - most : end], labels[end - most : end]
            cuts.add("labels_cut", wanted - _num_targets(labels))
            cuts.add("answers_alone", int(labels[0] != IGNORE_INDEX))
        if not _num_targets(labels):
            cuts.add("unlabelled")
            return True, None
        return True, {"input_ids": tokens, "labels": labels}

    def _turns(self, example: Example, cuts: Cuts) -> Iterator[tuple[bool, dict[str, list[int]] | None]]:
        """As `_fit`, for each of the assistant's turns, which an encoder-decoder writes."""
        _, end = begin_and_end(self._tokenizer)
        messages = self.messages(example)
        answers = [position for position, message in enumerate(messages) if position and message["role"] == "assistant"]
        for position in answers[-1:] if self.args.loss_on == "last_turn" else answers:
            message = messages[position]
            cuts.total += 1
            (written,) = tokenize(self._tokenizer, [_text(message)])["input_ids"]
            prompt, lost = self._prompt(example, messages[:position])
            keeps = self._keeps(example, len(prompt) + lost, len(prompt), len(written) + 1, cuts)
            row = {"input_ids": prompt, "labels": [*written, end][: self.args.max_new_tokens]}
            yield keeps, row if keeps else None

    def _prompt(self, example: Example, messages: list[dict[str, Any]]) -> tuple[list[int], int]:
        """What the model reads before it answers, and how many tokens of its start are cut off."""
        room = self.args.max_length - (0 if self.is_encoder_decoder else self.args.max_new_tokens)
        if room < 2:
            raise ConfigError(
                f"--max_length {self.args.max_length} leaves no token for the conversation beside --max_new_tokens "
                f"{self.args.max_new_tokens}. Raise the one or lower the other."
            )
        if self.has_template:
            with self._names_row(example):
                tokens = prompt_ids(self._tokenizer, messages, self.tools(example))
        else:
            tokens = [*self._tokens(messages)[0], self._tokenizer.convert_tokens_to_ids("<|assistant|>")]
        return tokens[-room:], max(0, len(tokens) - room)

    def _history(self, example: Example) -> list[dict[str, Any]]:
        messages = self.messages(example)
        last = max(position for position, message in enumerate(messages) if message["role"] == "assistant")
        return messages[:last]

    def _tokens(self, messages: list[dict[str, Any]]) -> Row:
        tokenizer = self._tokenizer
        begin, end = begin_and_end(tokenizer)
        tokens, labels = [begin], [IGNORE_INDEX]
        contents = tokenize(tokenizer, [message["content"] for message in messages])["input_ids"] if messages else []
        for message, ids in zip(messages, contents, strict=True):
            role = tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>")
            is_assistant = message["role"] == "assistant"
            written = [*ids, end] if is_assistant else ids
            tokens += [role, *written]
            labels += [IGNORE_INDEX, *(written if is_assistant else [IGNORE_INDEX] * len(written))]
        return tokens, labels


def _num_targets(labels: Sequence[int]) -> int:
    """Labels that are predicted, which the first is not."""
    return sum(label != IGNORE_INDEX for label in labels[1:])


def _is_message(turn: Any) -> bool:
    return _has_role(turn) and turn["role"] in ROLES and isinstance(turn.get("content"), str)


def _has_role(turn: Any) -> bool:
    return isinstance(turn, Mapping) and isinstance(turn.get("role"), str)


def _without_nothing(value: Any) -> Any:
    """The same without keys that hold None, which tables put wherever another row has such a key."""
    if isinstance(value, Mapping):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return [_without_nothing(item) for item in value] if isinstance(value, (list, tuple)) else value


def _texts_of_message(message: Mapping[str, Any]) -> list[str]:
    content = message.get("content")
    parts = content if isinstance(content, (list, tuple)) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]


def _text(message: Mapping[str, Any]) -> str:
    """What a message says; the calls of one that only calls tools."""
    said = "".join(_texts_of_message(message))
    return said or (json.dumps(message["tool_calls"], ensure_ascii=False) if message.get("tool_calls") else "")


def _rewrites_history(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a template writes an earlier answer otherwise than the last one, or refuses to say."""
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nb\n</think>\n\nc"},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": "e"},
    ]
    try:
        return len(template_rows(tokenizer, messages, None)) > 1
    except TemplateError:
        return True
