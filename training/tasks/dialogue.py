"""Dialogue: a chat template, and the loss on the assistant's turns alone."""

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from hf_gpt.eval import compute
from hf_gpt.eval.text.words import UNICODE_WORDS
from hf_gpt.training.errors import ConfigError, CorpusError
from hf_gpt.training.examples import Example, texts_of
from hf_gpt.training.packing import IGNORE_INDEX
from hf_gpt.training.tasks.base import begin_and_end, to_rows, tokenize
from hf_gpt.training.tasks.writing import WritingTask


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

    A turn is an object with `role` and `content`, or a text; texts are the user's and the assistant's in turn. The
    template is our own and saved with the tokenizer. Rows are built token by token as the template would, so that a
    special token that is spelled out in a message stays text. The start of a conversation too long goes. An
    encoder-decoder reads the conversation up to each of the assistant's turns and writes that turn.
    """

    main_metric = "rougeL"
    words = UNICODE_WORDS

    @property
    def columns(self) -> dict[str, str]:
        return {"messages_column": self.args.messages_column}

    @property
    def one_row_each(self) -> bool:
        # An encoder-decoder has a row for each of the assistant's turns.
        return not self.is_encoder_decoder

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{role}|>" for role in ROLES]})
        tokenizer.chat_template = CHAT_TEMPLATE

    def texts(self, example: Example) -> Iterable[str]:
        return [message["content"] for message in self.messages(example)]

    def encode(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, is_training: bool
    ) -> datasets.Dataset:
        if self.is_encoder_decoder:
            return self._encode_turns(examples, tokenizer)
        rows = []
        for example in examples:
            tokens, labels = self._tokens(self.messages(example), tokenizer)
            tokens, labels = tokens[-self.args.max_length :], labels[-self.args.max_length :]
            rows.append({"input_ids": tokens, "labels": labels})
        return to_rows(rows)

    def prompts(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        return [self._prompt(self._history(example), tokenizer) for example in examples]

    def score(self, predictions: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        wanted = [[self.messages(example)[len(self._history(example))]["content"]] for example in examples]
        return compute("rouge", list(predictions), wanted)

    def describe(self, example: Example) -> str:
        return "\n".join(f"{message['role']}: {message['content']}" for message in self._history(example))

    def messages(self, example: Example) -> list[dict[str, str]]:
        """The turns of a conversation, checked.

        Raises:
            CorpusError: a turn is not of the form, or none is the assistant's after another's.
        """
        column = self.args.messages_column
        turns = example[column]
        if isinstance(turns, str) or (isinstance(turns, (list, tuple)) and all(isinstance(t, str) for t in turns)):
            contents = texts_of(example, column)
            turns = [{"role": ROLES[1 + place % 2], "content": text} for place, text in enumerate(contents)]
        if not isinstance(turns, (list, tuple)) or not all(_is_message(turn) for turn in turns):
            raise CorpusError(
                f"{example.place}: column {column!r} must be a list of texts, or of objects with content and a role of "
                f"{', '.join(ROLES)}. Mend or remove the row."
            )
        if not any(turn["role"] == "assistant" for turn in turns[1:]):
            raise CorpusError(f"{example.place}: the assistant never answers in {column!r}. Remove the row.")
        return [dict(turn) for turn in turns]

    def _encode_turns(self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        _, end = begin_and_end(tokenizer)
        rows = []
        for example in examples:
            messages = self.messages(example)
            for place, message in enumerate(messages):
                if place and message["role"] == "assistant":
                    (written,) = tokenize(tokenizer, [message["content"]])["input_ids"]
                    prompt = self._prompt(messages[:place], tokenizer)
                    rows.append({"input_ids": prompt, "labels": [*written, end][: self.args.max_new_tokens]})
        return to_rows(rows)

    def _prompt(self, messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[int]:
        room = self.args.max_length - (0 if self.is_encoder_decoder else self.args.max_new_tokens)
        if room < 2:
            raise ConfigError(
                f"--max_length {self.args.max_length} leaves no token for the conversation beside --max_new_tokens "
                f"{self.args.max_new_tokens}. Raise the one or lower the other."
            )
        tokens, _ = self._tokens(messages, tokenizer)
        return [*tokens, tokenizer.convert_tokens_to_ids("<|assistant|>")][-room:]

    def _history(self, example: Example) -> list[dict[str, str]]:
        messages = self.messages(example)
        last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
        return messages[:last]

    def _tokens(
        self, messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[int]]:
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


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)
