"""Generators side by side: held-out classifier two-sample test (C2ST), held-out loss, diversity; table and report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.adversarial.discriminator.train_discriminator import DiscriminatorResult
    from hf_gpt.reporting.report import Metric


REAL = "real text"
CANDIDATES, SHOWN, BATCH_SIZE, NUM_SPLITS = 8, 3, 128, 4
_MANY_TEXTS = 500


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
        log_likelihoods: Nats of each judged real completion under the generator alone.
        updates: Steps that changed the generator, and steps in all, of adversarial training.
    """

    name: str
    model: "PreTrainedModel"
    seconds: float = 0.0
    discriminator: "PreTrainedModel | None" = None
    metrics: dict[str, float] = field(default_factory=dict)
    texts: list[list[int]] = field(default_factory=list)
    log_likelihoods: list[float] = field(default_factory=list)
    updates: tuple[int, int] | None = None


def judge(
    contestants: Sequence[Contestant],
    rows: Sequence[Mapping[str, list[int]]],
    others: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> dict[str, float]:
    """Generates a completion of each row's prompt by each contestant, and fills `metrics` and `texts`.

    - `fresh_auc`: AUC of a classifier trained on half of the real and generated completions, on the other half. It is
      the mean over splits, with its 95 % interval and standard error. Compare it with that of `judge_real`, not 0.5.
    - `fresh_auc_texts`: texts of each kind.
    - `heldout_nll`: nats per token of the real completions. Of a guided generator it is that of the residual model,
      which its texts approach as the number of candidates grows (see `residual_gain`).
    - `residual_gain`, `residual_gain_low`, `residual_gain_high`: of a guided generator, nats a text that the real
      completions gain by the discriminator, with the 95 % interval.
    - `distinct_trigrams`: share of different ones among all; `real_distinct_trigrams`: the same of the real texts.

    Args:
        contestants: Who write.
        rows: Real texts, `prompt_ids` of one length and `completion_ids`.
        others: Real texts for the control, see `judge_real`.
        tokenizer: Names the special tokens.
        max_new_tokens: Most tokens of a completion.
        seed: Of the samples and the classifier.

    Returns:
        What `judge_real` gives.

    Raises:
        ValueError: there are fewer other texts than rows.
    """
    real, control = _control(rows, others)
    for contestant in contestants:
        _measure(contestant, rows, tokenizer, max_new_tokens, seed)
    samples = [*(contestant.texts for contestant in contestants), control]
    # Small networks gain nothing from a second thread. Processes take seconds to begin, which few texts are not worth.
    cores = joblib.cpu_count() if len(rows) >= _MANY_TEXTS else 1
    tests = joblib.Parallel(n_jobs=min(cores, len(samples)))(
        joblib.delayed(_told_apart)(real, texts, seed) for texts in samples
    )
    for contestant, test in zip(contestants, tests, strict=False):
        contestant.metrics |= test
    return tests[-1]


def _measure(
    contestant: Contestant,
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> None:
    """Fills the texts of a contestant, and all metrics but those of the held-out classifier."""
    from hf_gpt.adversarial.monitoring.diagnostics import distinct_ngrams

    contestant.texts, candidate_scores = write_texts(contestant, rows, tokenizer, max_new_tokens, seed)
    real = [row["completion_ids"] for row in rows]
    metrics: dict[str, float] = {}
    contestant.log_likelihoods = log_likelihoods(contestant.model, rows)
    nats = -math.fsum(contestant.log_likelihoods)
    if candidate_scores is not None:
        metrics |= _residual_gain(contestant.discriminator, rows, candidate_scores)
        nats -= metrics["residual_gain"] * len(rows)
    metrics["heldout_nll"] = nats / sum(map(len, real))
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
    return _told_apart(*_control(rows, others), seed)


def _control(
    rows: Sequence[Mapping[str, list[int]]], others: Sequence[Mapping[str, list[int]]]
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of the real texts, and of as many others."""
    if len(others) < len(rows):
        raise ValueError(
            f"a control needs as many other real texts as are judged, {len(rows)}; there are {len(others)}."
        )
    real, control = ([row["completion_ids"] for row in part] for part in (rows, others[: len(rows)]))
    return real, control


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


def _residual_gain(
    discriminator: Any, rows: Sequence[Mapping[str, list[int]]], candidate_scores: "torch.Tensor"
) -> dict[str, float]:
    import torch

    from hf_gpt.evaluation.language_model.residual import residual_gain
    from hf_gpt.generation.scoring.discriminator import sequence_scores

    real = torch.tensor([row["prompt_ids"] + row["completion_ids"] for row in rows])
    scores = sequence_scores(discriminator, real, torch.ones_like(real), BATCH_SIZE)
    found = residual_gain(scores.cpu(), candidate_scores.cpu())
    return {"residual_gain": found.gain, "residual_gain_low": found.low, "residual_gain_high": found.high}


def write_texts(
    contestant: Contestant,
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> tuple[list[list[int]], "torch.Tensor | None"]:
    """A completion of each row's prompt at temperature 1, chosen by the discriminator if there is one.

    Returns:
        The completions, and the (rows, `CANDIDATES`) float32 logits that they were chosen by, if they were.
    """
    import torch

    from hf_gpt.adversarial.monitoring.diagnostics import unpadded
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
    chosen, scores = torch.arange(len(rows)), None
    if contestant.discriminator is not None:
        scores = sequence_scores(contestant.discriminator, samples.sequences, samples.attention_mask, BATCH_SIZE)
        scores = scores.reshape(len(rows), number)
        chosen = chosen * number + resample(scores, generator=generator)[:, 0]
    return unpadded(samples.completions[chosen], samples.completion_mask[chosen]), scores


def log_likelihoods(model: "PreTrainedModel", rows: Sequence[Mapping[str, list[int]]]) -> list[float]:
    """Nats of each row's completion under a model; rows of one length."""
    import torch

    from hf_gpt.generation.scoring.log_ratio import as_texts, text_logps

    sequences = torch.tensor([row["prompt_ids"] + row["completion_ids"] for row in rows])
    texts = as_texts(sequences, torch.ones_like(sequences), len(rows[0]["prompt_ids"]))
    return text_logps(model, texts, batch_size=BATCH_SIZE).tolist()


def likelihood_gain(contestant: Contestant, baseline: Contestant) -> tuple[float, float, float]:
    """Nats a text that held-out text gains over a baseline, with its 95 % interval.

    Of a guided generator it is the gain of the residual model over that generator, which has to be the baseline's.
    """
    from statistics import fmean, stdev

    metrics = contestant.metrics
    if "residual_gain" in metrics:
        return metrics["residual_gain"], metrics["residual_gain_low"], metrics["residual_gain_high"]
    pairs = zip(contestant.log_likelihoods, baseline.log_likelihoods, strict=True)
    gains = [own - other for own, other in pairs]
    half = 1.96 * stdev(gains) / math.sqrt(len(gains))
    return fmean(gains), fmean(gains) - half, fmean(gains) + half


def results_table(
    contestants: Sequence[Contestant], control: Mapping[str, float], discriminator: "DiscriminatorResult | None" = None
) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and a row of cells for each contestant, for real texts and for the discriminator.

    Args:
        contestants: With their metrics.
        control: Of `judge_real`.
        discriminator: How well the discriminator tells the first contestant's texts from unseen real ones.
    """
    names = ["", "C2ST AUC (95 %)", "held-out loss", "gain per text (95 %)", "distinct-3", "updates", "compute"]
    rows = []
    for contestant in contestants:
        metrics, updates = contestant.metrics, contestant.updates
        gain = "" if contestant is contestants[0] else _interval_cell(*likelihood_gain(contestant, contestants[0]))
        rows.append(
            [
                contestant.name,
                _auc_cell(metrics),
                f"{metrics['heldout_nll']:.3f}",
                gain,
                f"{metrics['distinct_trigrams']:.3f}",
                "" if updates is None else f"{updates[0]:,} of {updates[1]:,}",
                f"+{contestant.seconds:.0f} s",
            ]
        )
    real = contestants[0].metrics["real_distinct_trigrams"]
    rows.append(["other real text", _auc_cell(control), "", "", f"{real:.3f}", "", ""])
    if discriminator is not None:
        interval = f"{discriminator.auc:.3f} ({discriminator.auc_low:.2f} to {discriminator.auc_high:.2f})"
        rows.append(["discriminator alone", interval, "", "", "", "", ""])
    return names, rows


def _auc_cell(metrics: Mapping[str, float]) -> str:
    return f"{metrics['fresh_auc']:.3f} ({metrics['fresh_auc_low']:.2f} to {metrics['fresh_auc_high']:.2f})"


def _interval_cell(value: float, low: float, high: float) -> str:
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _auc_card(name: str, metrics: Mapping[str, float], note: str) -> "Metric":
    from hf_gpt.reporting.report import Metric

    value, interval = _auc_cell(metrics).split(" ", 1)
    auc = metrics["fresh_auc_low"], metrics["fresh_auc"], metrics["fresh_auc_high"]
    return Metric(name, value, f"{note} {interval}", auc)


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


def likelihood_verdict(contestants: Sequence[Contestant], baseline: Contestant) -> str:
    """Sentences: what each contestant gains in held-out likelihood, who gains at all, and who most.

    The one with the most is named if its interval lies above those of all others.
    """
    gains = {contestant.name: likelihood_gain(contestant, baseline) for contestant in contestants}
    names = sorted(gains, key=lambda name: -gains[name][0])
    said = "; ".join(f"{name} {_interval_cell(*gains[name])}" for name in names)
    above_chance = [name for name in names if gains[name][1] > 0]
    found = f"More than chance allows: {', '.join(above_chance)}." if above_chance else "None is above chance."
    if above_chance and gains[names[0]][1] > max([0.0, *(gains[name][2] for name in names[1:])]):
        found += f" Most gains {names[0]}."
    return f"Gain in held-out likelihood over {baseline.name}, in nats a text (95 %): {said}. {found}"


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in columns."""
    widths = [max(len(row[column]) for row in (names, *rows)) for column in range(len(names))]
    for row in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _note(num_texts: int) -> str:
    """What the columns of the comparison are."""
    return (
        "C2ST is the held-out classifier two-sample test. A classifier is trained on half of "
        f"{num_texts:,} real and as many generated texts. Reported is its AUC on the rest: the mean of {NUM_SPLITS} "
        "splits, with a 95 % interval. Compare it with the row of other real text, which is measured the same way. All "
        "rows start from the first row's model. The held-out loss is in nats per token. The gain over the first row is "
        "in nats a text, with a 95 % interval. With a discriminator, both are of the residual model, which weights the "
        "generator's texts by the discriminator (Deng et al. 2020). Distinct-3 is the share of different trigrams. "
        "Updates are the steps that changed the generator. Compute is what each row got on top of the first. The "
        "discriminator alone judges texts of the first row that it has not seen."
    )


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
            f"and trained against the discriminator with as much compute.\n\n{conclusion}"
        ),
        metrics=[
            *(_auc_card(item.name, item.metrics, "C2ST AUC") for item in contestants),
            _auc_card("real text", control, "C2ST AUC against other real text"),
            Metric(
                "discriminator",
                f"{discriminator.auc:.3f}",
                f"AUC on unseen texts ({discriminator.auc_low:.2f} to {discriminator.auc_high:.2f})",
                (discriminator.auc_low, discriminator.auc, discriminator.auc_high),
            ),
        ],
        log_history=log_history,
        samples=[],
        settings={name: str(value) for name, value in settings.items()},
        environment=describe_environment(),
        results=[
            table_section("comparison", "Comparison", names, cells, _note(len(rows))),
            side_by_side_section("side-by-side", "Samples side by side", shown),
        ],
    )
