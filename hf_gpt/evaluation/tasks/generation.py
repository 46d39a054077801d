"""Texts that a model generates: after prompts, or unconditional samples."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.errors import UserError
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.evaluation.tasks.registry import TaskSpec
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout


logger = logging.getLogger(__name__)


def sampler_of(spec: TaskSpec) -> dict[str, Any]:
    """The sampling options of a task, as fields of `SamplingConfig`."""
    return {
        "max_new_tokens": spec.max_new_tokens,
        "temperature": spec.temperature,
        "top_k": spec.top_k,
        "top_p": spec.top_p,
        "min_p": spec.min_p,
    }


def write_after(
    candidate: Candidate,
    prompts: Sequence[str],
    *,
    seed: int,
    stop: Sequence[str] = (),
    batch_size: int = 16,
    max_length: int | None = None,
    advance: Callable[[int], object] = lambda rows: None,
    **sampler: Any,
) -> list[str]:
    """What the model writes after each prompt.

    The text of a prompt depends only on the seed and its position, not on the batch. A prompt that is too long loses
    its first tokens.

    Args:
        candidate: A language model that reads prompts with its decoder, after the begin token, or its encoder.
        prompts: Texts.
        seed: Of the samples.
        stop: Strings that end a text and are not part of it.
        batch_size: Texts at a time.
        max_length: Most tokens read and written. None: the model's limit.
        advance: Called with the number of texts done.
        sampler: Fields of `SamplingConfig`.

    Raises:
        UserError: the model writes nothing, or has no room for a prompt.
    """
    candidate.check_writes()
    rows = _prompt_rows(candidate, prompts, sampler["max_new_tokens"], max_length)
    # A random generator for each row, so that neither the batch nor --limit changes the samples.
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + position) for position in range(len(rows))]
    size = sampler["max_new_tokens"]
    uniforms = torch.stack([torch.rand(size, dtype=torch.float64, generator=each) for each in generators])
    texts = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda position: -len(rows[position]))
    for first in range(0, len(order), batch_size):
        positions = order[first : first + batch_size]
        ids, mask = pad_rows([rows[position] for position in positions], side="left")
        sampling = SamplingConfig(eos_token_id=_ends(candidate), **sampler)
        samples = rollout(candidate.model, ids, mask, sampling=sampling, uniforms=uniforms[positions])
        for position, tokens, kept in zip(positions, samples.completions, samples.completion_mask.bool(), strict=True):
            texts[position] = _cut(candidate.tokenizer.decode(tokens[kept], skip_special_tokens=True), stop)
        advance(len(positions))
    return texts


def write_freely(candidate: Candidate, count: int, **options: Any) -> list[str]:
    """`count` unconditional samples; options as for `write_after`."""
    candidate.check_writes()
    if candidate.head == "encoder_decoder":
        raise UserError(f"{candidate.name} is an encoder-decoder: it writes after a prompt alone.")
    limit = candidate.limit
    if limit is not None and options["max_new_tokens"] >= limit:
        logger.warning(
            "%s reads %d tokens: texts end after %d instead of max_new_tokens = %d.",
            *(candidate.name, limit, limit - 2, options["max_new_tokens"]),
        )
        options["max_new_tokens"] = limit - 2
    return [text.strip() for text in write_after(candidate, [""] * count, **options)]


def _prompt_rows(
    candidate: Candidate, prompts: Sequence[str], new_tokens: int, max_length: int | None
) -> list[list[int]]:
    """Token ids of prompts, cut to what leaves room for `new_tokens`."""
    reads_apart = candidate.head == "encoder_decoder"
    rows = list(map(candidate.as_prompt, candidate.encode(list(prompts))))
    limit = candidate.limit_with(max_length)
    if limit is None:
        return rows
    room = limit - (0 if reads_apart else new_tokens)
    if room < min(2, max(map(len, rows))):
        raise UserError(
            f"{candidate.name} reads {limit} tokens: no room for a prompt beside max_new_tokens = {new_tokens}. "
            "Lower it with --max_new_tokens."
        )
    if reads_apart and candidate.limit is not None and new_tokens > candidate.limit:
        raise UserError(
            f"{candidate.name} writes at most {candidate.limit} tokens, fewer than max_new_tokens = {new_tokens}. "
            "Lower it with --max_new_tokens."
        )
    if cut := sum(len(row) > room for row in rows):
        logger.warning(
            "%s: %d of %d prompts lose their first tokens, to fit %d tokens.", candidate.name, cut, len(rows), room
        )
    return [row if len(row) <= room else [*row[:1], *row[1 - room :]] for row in rows]


def _ends(candidate: Candidate) -> list[int]:
    """The tokens that end a text, of the tokenizer and of the model."""
    settings = getattr(candidate.model, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    ends = [found] if found is None or isinstance(found, int) else list(found)
    return [token for token in dict.fromkeys([*ends, candidate.tokenizer.eos_token_id]) if token is not None]


def _cut(text: str, stop: Sequence[str]) -> str:
    for end in stop:
        text = text.partition(end)[0]
    return text
