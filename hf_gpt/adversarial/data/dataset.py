"""Real texts for adversarial training: rows of prompt and completion, batches, and an endless order of rows."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.chat_tokens import TemplateError, encode, render
from hf_gpt.data.collators import pad_rows
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.splits import held_out_rows
from hf_gpt.data.truncation import Cuts, Overlong, check_usable
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.generation.scoring.logprobs import join


# Share of the training texts that is held out where no others are given, and most of them.
HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 512

# Share of held-out texts up to which repeats say nothing: short texts repeat by nature.
REPEATS_SHARE = 0.01

# Not kept for reward functions, which get tokens and texts in other ways.
_TEXT_COLUMNS = ("text", "messages", "prompt_ids", "completion_ids", "input_ids")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that generated and real texts share.

    Attributes:
        bos: Begins a text without a prompt; the end token where there is no other.
        eos: Ends a text.
        pad: Fills rows.
    """

    bos: int
    eos: int
    pad: int

    @classmethod
    def of(cls, model: nn.Module, processing_class: PreTrainedTokenizerBase | None) -> "SpecialTokens":
        """The tokenizer's, or without one the model's.

        Raises:
            ConfigError: there is no end token.
        """
        source = model.config.get_text_config() if processing_class is None else processing_class
        eos = getattr(source, "eos_token_id", None)
        if isinstance(eos, (list, tuple)):
            eos = eos[0]
        if eos is None:
            where = "the tokenizer" if processing_class is not None else "the generator's config"
            raise ConfigError(
                f"{where} has no end-of-text token: the generator could not end a text, and the discriminator would "
                "tell generated texts by that alone. Set eos_token."
            )
        # Not every config has them.
        bos, pad = (getattr(source, name, None) for name in ("bos_token_id", "pad_token_id"))
        return cls(bos=eos if bos is None else bos, eos=eos, pad=eos if pad is None else pad)


class TextRows(Dataset):
    """Rows of `prompt_ids`, `completion_ids` and their `index`, tokenised once.

    Columns of the dataset, the first that is there:

    - `prompt` and `completion`: texts, or lists of messages, which the tokenizer's chat template turns into text.
    - `messages`: a conversation, whose last message is the completion.
    - `text`: completions of the begin token.
    - `prompt_ids` and `completion_ids`, or `input_ids`: tokens, taken as they are.

    A list of strings counts as a column `text`. Further columns are kept for reward functions.

    The first row decides for all rows. Like generated ones, real completions end with the end token, unless they are
    cut at `max_new_tokens`.

    Args:
        dataset: Rows with these columns; a `datasets.Dataset` or a list.
        tokens: The special tokens.
        processing_class: Tokenizer, for columns of text.
        max_new_tokens: Most tokens of a completion.
        max_prompt_length: Most tokens of a prompt, whose last ones are kept; None: all.
        overlong: What is done about a row with a longer prompt or completion: it is cut, left out, or an error. Tokens
            that are given are cut in any case.

    Attributes:
        cuts: What was cut or left out.

    Raises:
        CorpusError: no such columns, a row without, no rows, an empty completion, or none that is short enough.
        ConfigError: columns of text without a tokenizer.
    """

    def __init__(
        self,
        dataset: Any,
        tokens: SpecialTokens,
        processing_class: PreTrainedTokenizerBase | None,
        max_new_tokens: int,
        max_prompt_length: int | None = None,
        overlong: Overlong = "truncate",
    ):
        if not hasattr(dataset, "__len__"):
            raise CorpusError(
                "adversarial training takes rows by number, so it needs a dataset with a length, not a stream. Use a "
                "part of it: list(dataset.take(n))."
            )
        if len(dataset) == 0:
            raise CorpusError("the dataset is empty. Give at least one batch of texts.")
        columns = _columns_of(_as_row(dataset[0], 0))
        self.has_prompts = columns[0] in ("prompt", "messages", "prompt_ids")
        if columns[0] in ("prompt", "messages", "text") and processing_class is None:
            raise ConfigError("a dataset of texts needs processing_class, the tokenizer. Or give prompt_ids and so on.")
        self.rows: list[dict[str, Any]] = []
        self.cuts = Cuts("rows", "max_new_tokens", max_new_tokens)
        for index, given in enumerate(dataset):
            row = _as_row(given, index)
            for column in columns:
                # `datasets` fills what a row lacks with None.
                if row.get(column) is None:
                    raise CorpusError(f"row {index} of the dataset has no {column}, as row 0 has. Mend or remove it.")
            if columns[0] == "messages":
                row = _split_messages(row, index)
            prompt, completion = _tokens_of(row, columns[0], tokens, processing_class)
            if not self._keeps(index, prompt, completion, max_prompt_length, overlong):
                continue
            if max_prompt_length is not None and len(prompt) > max_prompt_length:
                prompt = prompt[-max_prompt_length:]
            completion = completion[:max_new_tokens]
            if not prompt or not completion:
                raise CorpusError(f"row {index} of the dataset has an empty {'completion' if prompt else 'prompt'}.")
            kept = {name: value for name, value in row.items() if name not in _TEXT_COLUMNS}
            columns_of_row = {"columns": kept} if kept else {}
            self.rows.append(
                {"prompt_ids": prompt, "completion_ids": completion, "index": len(self.rows), **columns_of_row}
            )
        check_usable(len(self.rows), self.cuts, "of the dataset")

    def _keeps(
        self, index: int, prompt: list[int], completion: list[int], max_prompt_length: int | None, overlong: Overlong
    ) -> bool:
        """Whether a row is used; counts what is cut of it."""
        cuts, where = self.cuts, f"row {index} of the dataset"
        cuts.total += 1
        limits = {
            "prompts_cut": ("max_prompt_length", max_prompt_length, len(prompt)),
            "targets_cut": (cuts.option, cuts.limit, len(completion)),
        }
        lost = {
            cause: (option, limit, length)
            for cause, (option, limit, length) in limits.items()
            if limit is not None and length > limit
        }
        for option, limit, length in lost.values():
            if not cuts.keeps(overlong, where, length, option=option, limit=limit):
                return False
        for cause, (option, limit, length) in lost.items():
            cuts.add(cause, option=option, limit=limit)
            cuts.add("tokens_cut", length - limit)
        return True

    def select(self, numbers: Sequence[int]) -> "TextRows":
        """Some of the rows, numbered anew."""
        part = copy.copy(self)
        part.rows = [{**self.rows[number], "index": index} for index, number in enumerate(numbers)]
        return part

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(row["prompt_ids"]) for row in self.rows)

    @property
    def largest_token(self) -> int:
        """The largest token id."""
        return max(max(*row["prompt_ids"], *row["completion_ids"]) for row in self.rows)


def hold_out(rows: TextRows, seed: int) -> tuple[TextRows, TextRows]:
    """Splits off a tenth of the rows, at most 512, as held-out texts; copies are on one side.

    Raises:
        CorpusError: there is one row only.
    """
    if len(rows) < 2:
        raise CorpusError("one text cannot be split: give more, or eval_dataset.")
    fraction = min(HELD_OUT_SHARE, MOST_HELD_OUT / len(rows))
    held_out = held_out_rows(map(_text_of, rows.rows), fraction, seed).tolist()
    return rows.select(sorted(set(range(len(rows))) - set(held_out))), rows.select(held_out)


def _text_of(row: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(row["prompt_ids"]), tuple(row["completion_ids"])


def warn_of_repeats(rows: TextRows, held_out: TextRows) -> None:
    """Logs a warning if more than 1 % of the held-out texts are copies of training texts."""
    known, asked = set(map(_text_of, rows.rows)), list(map(_text_of, held_out.rows))
    count = sum(text in known for text in asked)
    if count > REPEATS_SHARE * len(asked):
        logger.warning(
            "%d of %d held-out texts (%.1f%%) are among the training texts too: AUC, held-out loss and copy rate look "
            "better than they are for new texts. Remove repeats from the data, or hold other texts out.",
            count,
            len(asked),
            100 * count / len(asked),
        )


class TextCollator:
    """Rows to a batch: int64 tensors, padded to the longest row.

    - `input_ids`, `attention_mask` (B, T): prompt then completion, padded at the right.
    - `labels` (B, T): the completion's tokens, -100 elsewhere.
    - `completions`, `completion_mask` (B, C), `prompt_length`, `index` (B,).
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        prompts, prompt_mask = pad_rows([row["prompt_ids"] for row in rows], self.pad_token_id)
        completions, completion_mask = pad_rows([row["completion_ids"] for row in rows], self.pad_token_id)
        input_ids, attention_mask = join(prompts, prompt_mask, completions, completion_mask, self.pad_token_id)
        prompt_length = prompt_mask.sum(-1)
        in_prompt = torch.arange(input_ids.shape[1]) < prompt_length[:, None]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": input_ids.masked_fill(in_prompt | (attention_mask == 0), IGNORE_INDEX),
            "completions": completions,
            "completion_mask": completion_mask,
            "prompt_length": prompt_length,
            "index": torch.tensor([row["index"] for row in rows]),
        }


class RowNumbers:
    """Endless row numbers, each epoch in a new order, resumable from a saved position.

    Args:
        num_rows: Rows of the dataset.
        seed: Of the orders.
    """

    def __init__(self, num_rows: int, seed: int):
        self.num_rows, self.seed, self.position = num_rows, seed, 0
        self._epoch, self._order = -1, []

    def take(self, count: int) -> list[int]:
        """The next row numbers."""
        taken = []
        for position in range(self.position, self.position + count):
            epoch, index = divmod(position, self.num_rows)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(self.seed + epoch)
                self._epoch, self._order = epoch, torch.randperm(self.num_rows, generator=generator).tolist()
            taken.append(self._order[index])
        self.position += count
        return taken


def _columns_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    if "prompt" in row and "completion" not in row:
        raise CorpusError("the dataset has prompts but no column completion, the real texts that answer them.")
    for columns in (
        ("prompt", "completion"),
        ("messages",),
        ("text",),
        ("prompt_ids", "completion_ids"),
        ("input_ids",),
    ):
        if set(columns) <= set(row):
            return columns
    raise CorpusError(
        f"row 0 of the dataset has the columns {', '.join(sorted(row))}. Needed are prompt and completion, or "
        "messages, or text, or tokens as prompt_ids and completion_ids or input_ids."
    )


def _as_row(given: Any, index: int) -> Mapping[str, Any]:
    if isinstance(given, str):
        return {"text": given}
    if isinstance(given, Mapping):
        return given
    raise CorpusError(
        f"row {index} of the dataset is a {type(given).__name__}. Give strings, or rows as dicts with a column text, "
        "messages, or prompt and completion."
    )


def _split_messages(row: Mapping[str, Any], index: int) -> dict[str, Any]:
    messages = list(row["messages"])
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise CorpusError(
            f"row {index} of the dataset: messages must end with a message of the assistant, after at least one other. "
            "Mend or remove the row."
        )
    others = {name: value for name, value in row.items() if name != "messages"}
    return {**others, "prompt": messages[:-1], "completion": messages[-1:]}


def _tokens_of(row, first_column, tokens, tokenizer) -> tuple[list[int], list[int]]:
    if first_column in ("prompt", "messages"):
        prompt, completion = _prompt_and_completion(row, tokenizer)
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        if prompt[:1] == start:
            start = []
        return start + prompt, completion + [tokens.eos] * (completion[-1:] != [tokens.eos])
    if first_column == "text":
        return [tokens.bos], [*_encode(tokenizer, row["text"]), tokens.eos]
    if first_column == "prompt_ids":
        return list(row["prompt_ids"]), list(row["completion_ids"])
    ids = list(row["input_ids"])
    return [tokens.bos], ids[1:] if ids[:1] == [tokens.bos] else ids


def _prompt_and_completion(row, tokenizer) -> tuple[list[int], list[int]]:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        return _encode(tokenizer, prompt), _encode(tokenizer, completion)
    try:
        ids = encode(tokenizer, render(tokenizer, prompt, add_generation_prompt=True)[0])
    except TemplateError as error:
        raise CorpusError(f"the chat template refuses a prompt: {error}. Mend or remove the row.") from error
    answer = completion if isinstance(completion, str) else completion[-1]["content"]
    return list(ids), _encode(tokenizer, answer)


def _encode(tokenizer, text: str) -> list[int]:
    # A special token that is spelled out in a text stays text, as in `packed_dataset.tokenize_documents`.
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
