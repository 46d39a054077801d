"""Runs a model on a task. Metrics are computed later, from the record of its answers.

A record is JSON, so that a stopped run can be resumed.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.data.labels import label_name, label_number
from hf_gpt.data.splits import held_out_rows, same_text
from hf_gpt.errors import CorpusError, UserError
from hf_gpt.evaluation.tasks.choices import score_continuations
from hf_gpt.evaluation.tasks.generation import sampler_of, write_after, write_freely
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.evaluation.tasks.registry import WRITING, TaskSpec
from hf_gpt.evaluation.tasks.rows import fill


# Samples that log Z of a residual model is estimated by.
NUM_SAMPLES = 4096

Record = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]
Advance = Callable[[int], object]


def run_task(
    spec: TaskSpec, candidate: Candidate, rows: Rows, seeds: Sequence[int], batch_size: int, advance: Advance
) -> Record:
    """The record of a model on a task.

    Args:
        spec: The task.
        candidate: The model.
        rows: As `read_task_rows` gives them.
        seeds: Of sampled texts; without sampling, a task is run once.
        batch_size: Rows at a time.
        advance: Called with the amount of work done, `work_of` in all.

    Raises:
        UserError: the model cannot do the task, or a row cannot be used.
    """
    runs = {
        "language_modelling": _judge_texts,
        "residual_language_modelling": _judge_by_both,
        "last_word": _predict_last_words,
        "multiple_choice": _choose,
        "classification": _classify,
    }
    if spec.kind in WRITING:
        return _write(spec, candidate, rows, seeds if spec.sampled else seeds[:1], batch_size, advance)
    if spec.kind == "unconditional":
        return _write_freely(spec, candidate, rows, seeds, batch_size, advance)
    return runs[spec.kind](spec, candidate, rows, batch_size, advance)


def real_texts(spec: TaskSpec, rows: Rows) -> tuple[list[str], list[str]]:
    """Two random halves of a task's texts, the same each time: references, and real texts in the place of a model's.

    The second half shows the values of real texts. Both are equally large, and copies of a text are in one.

    Raises:
        CorpusError: there are fewer than four texts.
    """
    texts = [text.strip() for text in _texts(spec, rows)]
    if len(texts) < 4:
        raise CorpusError(f"task {spec.name} needs at least 4 texts to compare with, found {len(texts)}.")
    generator = np.random.default_rng(0)
    held_out = held_out_rows(map(same_text, texts), 0.5, 0)
    references = np.setdiff1d(np.arange(len(texts)), held_out)
    half = min(len(held_out), len(references))
    parts = (generator.permutation(part)[:half] for part in (references, held_out))
    references, held_out = ([texts[position] for position in part] for part in parts)
    return references, held_out


def sample_count(spec: TaskSpec, rows: Rows) -> int:
    """Number of unconditional samples: at most one half of the real texts, since metrics depend on it."""
    half = len(real_texts(spec, rows)[0])
    return min(spec.samples or half, half)


def work_of(spec: TaskSpec, rows: Rows, seeds: Sequence[int]) -> int:
    """The work that `run_task` reports to `advance`."""
    if spec.kind == "unconditional":
        return len(seeds) * sample_count(spec, rows)
    if spec.kind == "residual_language_modelling":
        # Windows of documents are not counted yet.
        return len(rows) + (spec.samples or NUM_SAMPLES)
    return len(rows) * (len(seeds) if spec.sampled else 1)


def _judge_texts(spec, candidate, rows, batch_size, advance) -> Record:
    from hf_gpt.evaluation.language_model.likelihood import likelihood

    _check_causal(candidate)
    texts, parts = _texts(spec, rows), {"nll": [], "tokens": [], "bytes": []}
    for first in range(0, len(texts), batch_size):
        some = texts[first : first + batch_size]
        found = likelihood(
            candidate.model, candidate.tokenizer, some, max_length=spec.max_length, batch_size=batch_size
        )
        for name, values in (("nll", found.nll), ("tokens", found.tokens), ("bytes", found.sizes)):
            parts[name] += values.tolist()
        advance(len(some))
    return parts


def _judge_by_both(spec, candidate, rows, batch_size, advance) -> Record:
    """Likelihood under a generator and its discriminator; without one, the generator's own."""
    from hf_gpt.data.windows import text_windows
    from hf_gpt.evaluation.language_model.residual import log_partition_bounds
    from hf_gpt.evaluation.language_model.residual_likelihood import own_sampling, residual_likelihood, text_rows

    _check_causal(candidate)
    texts = _texts(spec, rows)
    if spec.prompt_tokens:
        windows = text_windows(texts, candidate.tokenizer, spec.prompt_tokens, spec.max_new_tokens)
        prompts, completions = ([row[name] for row in windows] for name in ("prompt_ids", "completion_ids"))
    else:
        prompts, completions = text_rows(candidate.tokenizer, texts, spec.max_new_tokens)
    try:
        found = residual_likelihood(
            candidate.model,
            candidate.discriminator,
            prompts,
            completions,
            sampling=own_sampling(candidate.tokenizer, spec.max_new_tokens),
            num_samples=spec.samples or NUM_SAMPLES,
            batch_size=batch_size,
            advance=advance,
        )
    except ValueError as error:
        raise UserError(
            f"task {spec.name}: {error} A text file parts into texts at blank lines: for lines, give a task of your "
            "own with document_separator."
        ) from error
    below, above = log_partition_bounds(found.sample_scores)
    return {
        "nll": found.nll.tolist(),
        "tokens": found.tokens.tolist(),
        "gain_lower": (found.scores - above).tolist(),
        "gain_upper": (found.scores - below).tolist(),
        "convergence": found.convergence(),
    }


def _predict_last_words(spec, candidate, rows, batch_size, advance) -> Record:
    pairs = []
    for text in _texts(spec, rows):
        context, blank, word = text.rstrip().rpartition(" ")
        if not blank:
            raise CorpusError(f"task {spec.name}: the text {text[:60]!r} has one word only.")
        pairs.append((context, f" {word}"))
    found = score_continuations(candidate, pairs, batch_size=batch_size, max_length=spec.max_length, advance=advance)
    return {"nll": [-one.logp for one in found], "right": [int(one.greedy) for one in found]}


def _choose(spec, candidate, rows, batch_size, advance) -> Record:
    items = [_choices_of(spec, row, number) for number, row in enumerate(rows, 1)]
    return _likeliest(candidate, items, spec.max_length, batch_size, advance)


def _likeliest(candidate, items, max_length, batch_size, advance) -> Record:
    """Log-likelihoods of choices; each item is pairs of context and continuation, and the number of the right one."""
    pairs = [pair for choices, _ in items for pair in choices]
    share = len(items) / len(pairs)
    found = iter(
        score_continuations(
            candidate, pairs, batch_size=batch_size, max_length=max_length, advance=lambda n: advance(n * share)
        )
    )
    return {
        "logps": [[next(found).logp for _ in choices] for choices, _ in items],
        # A continuation that the context parts from by a blank counts without it.
        "lengths": [[len(text.removeprefix(" ")) for _, text in choices] for choices, _ in items],
        "answers": [answer for _, answer in items],
    }


def _choices_of(spec: TaskSpec, row: Mapping[str, Any], number: int) -> tuple[list[tuple[str, str]], int]:
    if spec.contexts is not None:
        contexts = row[spec.contexts]
        continuation = fill(spec.choices, row)
        pairs = [(str(context), f" {continuation}") for context in contexts]
    else:
        given = row[spec.choices] if isinstance(spec.choices, str) else [fill(each, row) for each in spec.choices]
        prompt = fill(spec.prompt, row)
        if not isinstance(given, (list, tuple)):
            raise CorpusError(f"task {spec.name}, row {number}: {spec.choices!r} must be a list of choices.")
        blank = " " if prompt and not prompt[-1].isspace() else ""
        pairs = [(prompt, f"{blank}{choice}") for choice in given]
    answer = row[spec.answer] if isinstance(spec.answer, str) else spec.answer
    if not isinstance(answer, bool) and label_number(answer) is not None:
        answer = label_number(answer)
    if not isinstance(answer, int) or not 0 <= answer < len(pairs):
        raise CorpusError(
            f"task {spec.name}, row {number}: {spec.answer!r} must be the number of the right choice, 0 to "
            f"{len(pairs) - 1}, found {answer!r}."
        )
    return pairs, answer


@torch.no_grad()
def _classify(spec, candidate, rows, batch_size, advance) -> Record:
    names, wanted = _classes(spec, candidate, rows)
    if candidate.head != "classifier":
        if not spec.prompt or not spec.labels:
            raise UserError(
                f"task {spec.name}: {candidate.name} is no classifier. To ask a language model, give the task a prompt "
                "and labels, the words that it may answer with."
            )
        items = [([(fill(spec.prompt, r), f" {name}") for name in names], w) for r, w in zip(rows, wanted, strict=True)]
        record = _likeliest(candidate, items, spec.max_length, batch_size, advance)
        found = [int(np.argmax(logps)) for logps in record["logps"]]
        return {"predictions": found, "references": wanted}
    texts, found = _texts(spec, rows), []
    limit = candidate.limit_with(spec.max_length)
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    # The library's decoders find the last token of a text by the model's padding token, and take one text at a time
    # where it has none.
    pad = getattr(candidate.model.config.get_text_config(), "pad_token_id", None)
    batch_size, pad = (1, 0) if pad is None else (batch_size, pad)
    for first in range(0, len(texts), batch_size):
        ids = [candidate.tokenizer(text, **cut)["input_ids"] for text in texts[first : first + batch_size]]
        inputs, mask = pad_rows(ids, pad)
        device = candidate.model.device
        found += candidate.model(input_ids=inputs.to(device), attention_mask=mask.to(device)).logits.argmax(-1).tolist()
        advance(len(ids))
    return {"predictions": found, "references": wanted}


def _classes(spec: TaskSpec, candidate: Candidate, rows: Rows) -> tuple[list[str], list[int]]:
    """Names of the classes, and the right one of each row by number."""
    if candidate.head == "classifier":
        held = candidate.model.config.id2label
        names = [str(held[number]) for number in sorted(held)]
        if spec.labels and all(name.startswith("LABEL_") for name in names):
            names = list(map(str, spec.labels))
    else:
        names = list(map(str, spec.labels or ()))
    wanted, known = [], {way(name): position for way in (label_name, str) for position, name in enumerate(names)}
    for number, row in enumerate(rows, 1):
        label, position = row[spec.label], label_number(row[spec.label])
        if position is not None and spec.labels and candidate.head == "classifier" and str(position) not in known:
            label = spec.labels[position] if position < len(spec.labels) and spec.labels[position] in names else label
        if label_name(label) in known:
            wanted.append(known[label_name(label)])
        elif position is not None and position < len(names):
            wanted.append(position)
        else:
            raise CorpusError(
                f"task {spec.name}, row {number}: {spec.label!r} is {label!r}, which is none of the classes of "
                f"{candidate.name}: {', '.join(names[:10])}."
            )
    return names, wanted


def _write(spec, candidate, rows, seeds, batch_size, advance) -> Record:
    references = [_references(spec, row, number) for number, row in enumerate(rows, 1)]
    if candidate.head == "extractive" and spec.kind == "question_answering":
        from hf_gpt.evaluation.tasks.extraction import extract_answers

        found = extract_answers(candidate, rows, spec, batch_size, advance)
        return {"predictions": [found], "references": references, "seeds": []}
    prompts = [fill(spec.prompt, row) for row in rows]
    options = {"stop": spec.stop, "batch_size": batch_size, "max_length": spec.max_length, "advance": advance}
    written = [
        [text.strip() for text in write_after(candidate, prompts, seed=seed, **options, **sampler_of(spec))]
        for seed in seeds
    ]
    return {"predictions": written, "references": references, "seeds": list(seeds) if spec.sampled else []}


def _write_freely(spec, candidate, rows, seeds, batch_size, advance) -> Record:
    count = sample_count(spec, rows)
    options = {"stop": spec.stop, "batch_size": batch_size, "max_length": spec.max_length, "advance": advance}
    texts = [write_freely(candidate, count, seed=seed, **options, **sampler_of(spec)) for seed in seeds]
    return {"texts": texts, "seeds": list(seeds)}


def _references(spec: TaskSpec, row: Mapping[str, Any], number: int) -> list[str]:
    if not isinstance(spec.target, str):
        return [str(row[column]) for column in spec.target]
    value = row[spec.target]
    if isinstance(value, str) and value.startswith(("[", "{")):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping) and "text" in value:
        value = value["text"]
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise CorpusError(f"task {spec.name}, row {number}: {spec.target!r} must be a text or a list of texts.")
    return list(value)


def _texts(spec: TaskSpec, rows: Rows) -> list[str]:
    return [row[spec.text] for row in rows]


def _check_causal(candidate: Candidate) -> None:
    if candidate.head != "causal":
        raise UserError(f"{candidate.name} is a {candidate.head} model; this task needs a causal language model.")
