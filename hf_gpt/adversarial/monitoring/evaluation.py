"""What an evaluation measures of generated texts, beside the loss on real ones."""

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from hf_gpt.adversarial.data.dataset import TextRows
from hf_gpt.adversarial.data.rollouts import Collector, as_batch
from hf_gpt.adversarial.discriminator.trainer import DiscriminatorTrainer
from hf_gpt.adversarial.masked_reductions import mean_over_processes
from hf_gpt.adversarial.monitoring import diagnostics as metrics
from hf_gpt.errors import ConfigError
from hf_gpt.evaluation.two_sample.auc_interval import auc_interval
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import ScoreError, check_scores
from hf_gpt.installation import install_hint


if TYPE_CHECKING:
    from hf_gpt.reporting.report import Metric

logger = logging.getLogger(__name__)

# Texts of each kind below which a classifier two-sample test says nothing.
LEAST_TEXTS = 40


def sample_metrics(
    model: nn.Module,
    collector: Collector,
    rows: TextRows,
    discriminator_trainer: DiscriminatorTrainer | None,
    num_samples: int,
    seed: int,
    others: TextRows | None = None,
) -> dict[str, float]:
    """Metrics of texts generated for held-out prompts, with the same random numbers at each evaluation.

    They are sampled at temperature 1 and without truncation, whatever the settings of rollouts.

    - `entropy`: nats per token of the samples.
    - `completion_length`, `distinct_trigrams` (as a share of all), `duplicate_rate`.
    - `fresh_auc`: the held-out classifier two-sample test (C2ST). TF-IDF with logistic regression learns half of the
      real and generated texts and is measured on the rest; the mean over splits. `fresh_auc_low` and `fresh_auc_high`
      are the ends of its 95 % interval, `fresh_auc_error` is its standard error, `fresh_auc_texts` the number of texts
      of each kind. `fresh_auc_real` is the control: the same between real texts and as many of `others`. Needs
      scikit-learn.
    - `discriminator_auc`: of the discriminator in training, with the same four beside it.

    Args:
        model: The generator, without wrappers.
        collector: Samples the texts; its saved random state is left alone.
        rows: Held-out real texts.
        discriminator_trainer: The discriminator.
        num_samples: Texts, over all processes.
        seed: Of the texts.
        others: Further real texts, such as those trained on.
    """
    world, rank = collector.accelerator.num_processes, collector.accelerator.process_index
    share = max(1, num_samples // world)
    # Held-out texts may be sorted. The order is the same at each evaluation and in every process.
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    own = [rows[order[number % len(rows)]] for number in range(rank * share, (rank + 1) * share)]
    generator = torch.Generator().manual_seed(seed)
    samples = collector.sample(model, own, generator=generator, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
    generated, _ = collector.gather(samples, [row["index"] for row in own])
    texts = [text.completion for text in generated]
    found = {
        "entropy": mean_over_processes(
            collector.accelerator, -(samples.logps * samples.completion_mask).sum(), samples.completion_mask.sum()
        ).item(),
        "completion_length": sum(map(len, texts)) / len(texts),
        "distinct_trigrams": metrics.distinct_ngrams(texts, 3) / max(1, sum(max(0, len(text) - 2) for text in texts)),
        "duplicate_rate": metrics.duplicate_rate(texts),
    }
    real = [rows[number]["completion_ids"] for number in order[: len(texts)]]
    found |= fresh_auc(real, texts, seed)
    if others is not None and "fresh_auc" in found:
        positions = np.random.default_rng(seed).permutation(len(others))[: len(real)].tolist()
        control = fresh_auc(real, [others[position]["completion_ids"] for position in positions], seed)
        found |= {f"fresh_auc_real{name.removeprefix('fresh_auc')}": value for name, value in control.items()}
    if discriminator_trainer is not None and not discriminator_trainer.args.has_language_model:
        found |= _discriminator_auc(collector, own, samples, discriminator_trainer)
    return found


def fresh_auc(real: Sequence[Sequence[int]], generated: Sequence[Sequence[int]], seed: int) -> dict[str, float]:
    """AUC of C2ST, see `sample_metrics`; empty with too few texts or without scikit-learn."""
    if min(len(real), len(generated)) < LEAST_TEXTS:
        return {}
    if importlib.util.find_spec("sklearn") is None:
        logger.warning("fresh_auc needs scikit-learn: %s", install_hint("eval"))
        return {}
    from hf_gpt.evaluation.two_sample.classifier_test import classifier_test
    from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores

    # Tokens serve as words: different tokens may decode to the same text.
    words = [[list(map(str, text)) for text in texts] for texts in (real, generated)]
    found = classifier_test(*words, tfidf_scores, seed=seed, resamples=200)
    number = min(len(real), len(generated))
    measured = {f"fresh_{name}": found[name] for name in ("auc", "auc_low", "auc_high", "auc_error")}
    return {**measured, "fresh_auc_texts": number}


def headline_metrics(metrics: Mapping[str, float]) -> "list[Metric]":
    """Cards of an evaluation for the head of a page; the AUC of the two-sample test beside that of real texts."""
    from hf_gpt.reporting.report import Metric

    tiles = [Metric("Held-out loss", f"{metrics['eval_loss']:.4f}", "nats per token of real text")]
    beside = "compare with the control" if "eval_fresh_auc_real" in metrics else "too few real texts for a control"
    for name, label, note, advice in (
        ("eval_fresh_auc", "Two-sample AUC (C2ST)", "real and generated text", f"; {beside}"),
        ("eval_fresh_auc_real", "C2ST AUC, control", "real text compared with real text", ""),
        ("eval_discriminator_auc", "Discriminator AUC", "held-out texts", ""),
        ("eval_entropy", "Entropy", "nats per token of generated text", ""),
    ):
        if name in metrics:
            error, texts, low = (metrics.get(f"{name}_{part}") for part in ("error", "texts", "low"))
            sizes = f", {texts:,.0f} of each" if texts else ""
            spread = f"± {error:.3f}" if error else ""
            if low is not None:
                spread = f"{low:.2f} to {metrics[f'{name}_high']:.2f}"
            found = f" ({spread}{sizes})" if spread else ""
            auc = None if low is None else (low, metrics[name], metrics[f"{name}_high"])
            tiles.append(Metric(label, f"{metrics[name]:.4f}", note + found + advice, auc))
    return tiles


def check_fresh_auc(num_texts: int) -> None:
    """Refuses C2ST as the metric of the best model where it cannot be measured on `num_texts` texts of each kind.

    Raises:
        ConfigError: there are too few texts, or no scikit-learn.
    """
    if num_texts < LEAST_TEXTS:
        raise ConfigError(
            f"--metric_for_best_model fresh_auc needs {LEAST_TEXTS} held-out and generated texts, and there are "
            f"{num_texts}: give more, raise --num_eval_samples, or choose another metric, such as loss."
        )
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError(f"--metric_for_best_model fresh_auc needs scikit-learn: {install_hint('eval')}")


def _discriminator_auc(collector, own, samples: Rollout, discriminator_trainer) -> dict[str, float]:
    from hf_gpt.adversarial.data.dataset import TextCollator

    real = as_batch(TextCollator(collector.tokens.pad)(own)).to(samples.sequences.device)
    gather = collector.accelerator.gather if collector.accelerator.num_processes > 1 else (lambda scores: scores)
    scores = [gather(discriminator_trainer.scores(batch)) for batch in (real, as_batch(samples))]
    try:
        for each in scores:
            check_scores(each, discriminator_trainer.model)
    except ScoreError as error:
        logger.warning("no discriminator_auc: %s", error)
        return {}
    real, generated = (each.float().cpu().numpy() for each in scores)
    found = auc_interval(real, generated)
    measured = {"": found.auc, "_low": found.low, "_high": found.high, "_error": found.standard_error}
    measured["_texts"] = min(len(real), len(generated))
    return {f"discriminator_auc{name}": value for name, value in measured.items()}
