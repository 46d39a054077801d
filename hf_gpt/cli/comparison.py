"""Generators side by side: held-out classifier two-sample test (C2ST), held-out loss, diversity; table and report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.adversarial.discriminator.train_discriminator import DiscriminatorResult
    from hf_gpt.reporting.report import Metric


REAL = "real text"
CANDIDATES, SHOWN, BATCH_SIZE, NUM_SPLITS = 8, 3, 128, 4


@dataclass
class Contestant:
    """A generator, guided or not, and what was measured of it.

    Attributes:
        name: In the table.
        model: The generator.
        seconds: CPU seconds spent on it after the training that all share.
        discriminator: The discriminator that chooses one of `CANDIDATES` texts by importance resampling, if one does.
        metrics: By name, see `judge`.
        texts: Completions of the judged prompts, as token ids.
        updates: Steps that changed the generator, and steps in all, of adversarial training.
    """

    name: str
    model: "PreTrainedModel"
    seconds: float = 0.0
    discriminator: "PreTrainedModel | None" = None
    metrics: dict[str, float] = field(default_factory=dict)
    texts: list[list[int]] = field(default_factory=list)
    updates: tuple[int, int] | None = None


def judge(
    contestant: Contestant,
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> None:
    """Generates a completion for each row's prompt and fills `metrics` and `texts`.

    - `fresh_auc`: AUC of a classifier trained on half of the real and generated completions, on the other half. It is
      the mean over splits, with its 95 % interval and standard error. Compare it with that of `judge_real`, not 0.5.
    - `fresh_auc_texts`: texts of each kind.
    - `heldout_nll`: nats per token of the real completions; a guided generator has none, its density is unknown.
    - `distinct_trigrams`: share of different ones among all; `real_distinct_trigrams`: the same of the real texts.

    Args:
        contestant: Who writes.
        rows: Real texts, `prompt_ids` of one length and `completion_ids`.
        tokenizer: Names the special tokens.
        max_new_tokens: Most tokens of a completion.
        seed: Of the samples and the classifier.
    """
    from hf_gpt.adversarial.monitoring.diagnostics import distinct_ngrams

    contestant.texts = write_texts(contestant, rows, tokenizer, max_new_tokens, seed)
    real = [row["completion_ids"] for row in rows]
    metrics = _told_apart(real, contestant.texts, seed)
    if contestant.discriminator is None:
        metrics["heldout_nll"] = held_out_nll(contestant.model, rows)
    for name, texts in (("distinct_trigrams", contestant.texts), ("real_distinct_trigrams", real)):
        metrics[name] = distinct_ngrams(texts, 3) / max(1, sum(max(0, len(text) - 2) for text in texts))
    contestant.metrics = metrics


def judge_real(
    rows: Sequence[Mapping[str, list[int]]], others: Sequence[Mapping[str, list[int]]], seed: int
) -> dict[str, float]:
    """The `fresh_auc` of real texts against other real texts: the best that a contestant can reach.

    Args:
        rows: Real texts that contestants are judged by.
        others: Real texts that are not among them, such as those that were learnt from; as many are taken.
        seed: Of the classifier.

    Raises:
        ValueError: there are fewer of the others.
    """
    if len(others) < len(rows):
        raise ValueError(
            f"a control needs as many other real texts as are judged, {len(rows)}; there are {len(others)}."
        )
    real, control = ([row["completion_ids"] for row in part] for part in (rows, others[: len(rows)]))
    return _told_apart(real, control, seed)


def _told_apart(real: Sequence[Sequence[int]], others: Sequence[Sequence[int]], seed: int) -> dict[str, float]:
    from hf_gpt.evaluation.two_sample.classifier_test import classifier_test
    from hf_gpt.evaluation.two_sample.neural_classifier import neural_classifier_scores

    words = [[list(map(str, text)) for text in texts] for texts in (real, others)]
    found = classifier_test(*words, neural_classifier_scores, seed=seed, resamples=200, num_splits=NUM_SPLITS)
    names = {
        "fresh_auc": "auc",
        "fresh_auc_low": "auc_low",
        "fresh_auc_high": "auc_high",
        "fresh_auc_error": "auc_error",
    }
    return {name: found[source] for name, source in names.items()} | {"fresh_auc_texts": len(real)}


def write_texts(
    contestant: Contestant,
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> list[list[int]]:
    """A completion of each row's prompt at temperature 1, chosen by the discriminator if there is one."""
    import torch

    from hf_gpt.generation.guidance.selection import resample
    from hf_gpt.generation.sampling.distribution import SamplingConfig
    from hf_gpt.generation.sampling.rollout import rollout
    from hf_gpt.generation.scoring.discriminator import sequence_scores

    generator = torch.Generator().manual_seed(seed)
    number = 1 if contestant.discriminator is None else CANDIDATES
    samples = rollout(
        contestant.model,
        torch.tensor([row["prompt_ids"] for row in rows]),
        sampling=SamplingConfig(
            max_new_tokens=max_new_tokens,
            num_return_sequences=number,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        generator=generator,
        batch_size=BATCH_SIZE * 2,
    )
    chosen = torch.arange(len(rows))
    if contestant.discriminator is not None:
        scores = sequence_scores(contestant.discriminator, samples.sequences, samples.attention_mask, BATCH_SIZE)
        positions = resample(scores.reshape(len(rows), number), generator=generator)[:, 0]
        chosen = chosen * number + positions
    kept = zip(samples.completions[chosen], samples.completion_mask[chosen].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in kept]


def held_out_nll(model: "PreTrainedModel", rows: Sequence[Mapping[str, list[int]]]) -> float:
    """Nats per token of the rows' completions under a model; rows of one length."""
    import torch

    from hf_gpt.generation.scoring.logprobs import completion_logps

    nats, count = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), BATCH_SIZE):
            part = rows[start : start + BATCH_SIZE]
            completions = torch.tensor([row["completion_ids"] for row in part])
            sequences = torch.cat([torch.tensor([row["prompt_ids"] for row in part]), completions], 1)
            lengths = torch.full((len(part),), len(part[0]["prompt_ids"]))
            logps = completion_logps(model, sequences, torch.ones_like(sequences), lengths, completions)
            nats, count = nats - float(logps.sum()), count + logps.numel()
    model.train(was_training)
    return nats / count


def results_table(
    contestants: Sequence[Contestant], control: Mapping[str, float], discriminator: "DiscriminatorResult | None" = None
) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and a row of cells for each contestant, for real texts and for the discriminator.

    Args:
        contestants: With their metrics.
        control: Of `judge_real`.
        discriminator: How well the discriminator tells the first contestant's texts from unseen real ones.
    """
    names = ["", "C2ST AUC (95 %)", "texts", "held-out loss", "distinct-3", "updates", "compute"]
    rows = []
    for contestant in contestants:
        metrics, updates = contestant.metrics, contestant.updates
        nll = metrics.get("heldout_nll")
        rows.append(
            [
                contestant.name,
                *_auc_cells(metrics),
                "" if nll is None else f"{nll:.3f}",
                f"{metrics['distinct_trigrams']:.3f}",
                "" if updates is None else f"{updates[0]:,} of {updates[1]:,}",
                f"+{contestant.seconds:.0f} s",
            ]
        )
    real = contestants[0].metrics["real_distinct_trigrams"]
    rows.append(["real text compared with real text", *_auc_cells(control), "", f"{real:.3f}", "", ""])
    if discriminator is not None:
        interval = f"{discriminator.auc:.3f} ({discriminator.auc_low:.2f} to {discriminator.auc_high:.2f})"
        rows.append(["discriminator, unseen texts", interval, _sizes(discriminator.num_test_texts), "", "", "", ""])
    return names, rows


def _auc_cells(metrics: Mapping[str, float]) -> list[str]:
    spread = f"{metrics['fresh_auc_low']:.2f} to {metrics['fresh_auc_high']:.2f}"
    return [f"{metrics['fresh_auc']:.3f} ({spread})", _sizes(metrics["fresh_auc_texts"])]


def _auc_card(name: str, metrics: Mapping[str, float], note: str) -> "Metric":
    from hf_gpt.reporting.report import Metric

    value, interval = _auc_cells(metrics)[0].split(" ", 1)
    return Metric(name, value, f"{note} {interval}")


def _sizes(number: float) -> str:
    return f"{number:,.0f} + {number:,.0f}"


def verdict(contestants: Sequence[Contestant], baseline: Contestant) -> str:
    """A sentence: whether any contestant is closer to real text than the baseline.

    Differences of AUC have 95 % intervals that hold for all of them at once (Bonferroni), from the standard errors of
    both. That both were judged by the same real texts makes them no wider.
    """
    from scipy.stats import norm

    rivals = [contestant for contestant in contestants if contestant is not baseline]
    quantile = float(norm.ppf(1 - 0.025 / max(1, len(rivals))))
    closer, others = [], []
    for rival in rivals:
        gap = baseline.metrics["fresh_auc"] - rival.metrics["fresh_auc"]
        half = quantile * math.hypot(*(one.metrics["fresh_auc_error"] for one in (baseline, rival)))
        found = f"{rival.name} by {gap:+.3f} ({gap - half:+.3f} to {gap + half:+.3f})"
        (closer if gap - half > 0 else others).append(found)
    if closer:
        return f"Closer to real text than {baseline.name}, in AUC: {'; '.join(closer)}."
    return (
        f"Nothing wins: no other row is closer to real text than {baseline.name} by more than chance. Differences in "
        f"AUC, above 0 if closer: {'; '.join(others)}."
    )


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in columns."""
    widths = [max(len(row[column]) for row in (names, *rows)) for column in range(len(names))]
    for row in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_comparison(
    folder: Path,
    contestants: Sequence[Contestant],
    control: Mapping[str, float],
    discriminator: "DiscriminatorResult",
    log_history: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    settings: Mapping[str, Any],
    conclusion: str,
) -> Path:
    """Writes `comparison.json` and `comparison.html` to a folder; returns the path of the latter.

    Args:
        folder: That is there.
        contestants: With their metrics.
        control: Of `judge_real`.
        discriminator: How its training went.
        log_history: Of the training against it.
        rows: Those that were judged.
        tokenizer: Theirs.
        settings: To be shown.
        conclusion: Of `verdict`.
    """
    from hf_gpt.files.atomic_files import write_json
    from hf_gpt.reporting.environment import describe_environment
    from hf_gpt.reporting.report import Metric, side_by_side_section, table_section, write_report

    found = {item.name: {**item.metrics, "computing_seconds": item.seconds} for item in contestants}
    for item in contestants:
        if item.updates is not None:
            found[item.name] |= {"generator_updates": item.updates[0], "steps": item.updates[1]}
    found |= {REAL: dict(control), "discriminator": discriminator.to_dict()}
    write_json(folder / "comparison.json", found)
    names, cells = results_table(contestants, control, discriminator)
    note = (
        f"{conclusion} C2ST is the held-out classifier two-sample test. A classifier is trained on half of the real "
        f"and generated texts, and its AUC on the rest is reported: the mean of {NUM_SPLITS} splits, with a 95 % "
        "interval. Compare it with the row of real text, which is measured the same way. All rows start from the first "
        "row's model. The held-out loss is in nats per token. Distinct-3 is the share of different trigrams. Updates "
        "are the steps that changed the generator. Compute is what each row got on top of the first. The "
        "discriminator judges texts of the first row."
    )
    shown = [
        (
            tokenizer.decode(row["prompt_ids"], skip_special_tokens=True),
            [(item.name, tokenizer.decode(item.texts[position], skip_special_tokens=True)) for item in contestants]
            + [("real text", tokenizer.decode(row["completion_ids"]))],
        )
        for position, row in enumerate(rows[:SHOWN])
    ]
    return write_report(
        folder / "comparison.html",
        title="A GPT and its discriminator",
        summary=(
            "Four generators: trained by maximum likelihood (MLE); the same, guided by a discriminator; with more MLE; "
            "and trained against the discriminator with as much compute."
        ),
        metrics=[
            *(_auc_card(item.name, item.metrics, "C2ST AUC") for item in contestants),
            _auc_card("real text", control, "C2ST AUC against other real text"),
            Metric("discriminator", f"{discriminator.auc:.3f}", "AUC on unseen texts"),
        ],
        log_history=log_history,
        samples=[],
        settings={name: str(value) for name, value in settings.items()},
        environment=describe_environment(),
        results=[
            table_section("comparison", "Comparison", names, cells, note),
            side_by_side_section("side-by-side", "Samples side by side", shown),
        ],
    )
