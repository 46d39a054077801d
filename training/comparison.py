"""Ways of writing side by side: what a fresh classifier, the likelihood and counts say of each; table and report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.training.critic import CriticResult


CANDIDATES, SHOWN, BATCH_SIZE = 8, 3, 128


@dataclass
class Contestant:
    """A way of writing, and what was found about it.

    Attributes:
        name: In the table.
        model: The generator.
        seconds: Computing time spent on it after the training that all share.
        critic: The discriminator that chooses one of `CANDIDATES` texts by importance resampling, if one does.
        figures: By name, see `judge`.
        texts: Completions of the judged prompts, as token ids.
    """

    name: str
    model: "PreTrainedModel"
    seconds: float = 0.0
    critic: "PreTrainedModel | None" = None
    figures: dict[str, float] = field(default_factory=dict)
    texts: list[list[int]] = field(default_factory=list)


def judge(
    contestant: Contestant,
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> None:
    """Generates a completion for each row's prompt and fills `figures` and `texts`.

    - `fresh_auc`: AUC of a classifier trained here on half of the real and generated completions, on the other half,
      with the ends of its 95 % interval; 0.5: no difference found.
    - `heldout_nll`: nats a token of the real completions; not for a contestant with a critic, whose density is unknown.
    - `distinct_trigrams`: share of different ones among all; `real_distinct_trigrams`: the same of the real texts.

    Args:
        contestant: Who writes.
        rows: Real texts, `prompt_ids` of one length and `completion_ids`.
        tokenizer: Names the special tokens.
        max_new_tokens: Most tokens of a completion.
        seed: Of the draws and the classifier.
    """
    from hf_gpt.eval.two_sample.fresh_classifier import fresh_classifier_scores
    from hf_gpt.eval.two_sample.halves import classifier_test
    from hf_gpt.training.adversarial.figures import distinct_ngrams

    contestant.texts = write_texts(contestant, rows, tokenizer, max_new_tokens, seed)
    real = [row["completion_ids"] for row in rows]
    words = [[list(map(str, text)) for text in texts] for texts in (real, contestant.texts)]
    found = classifier_test(*words, fresh_classifier_scores, seed=seed, resamples=200)
    figures = {"fresh_auc": found["auc"], "fresh_auc_low": found["auc_low"], "fresh_auc_high": found["auc_high"]}
    if contestant.critic is None:
        figures["heldout_nll"] = held_out_nll(contestant.model, rows)
    for name, texts in (("distinct_trigrams", contestant.texts), ("real_distinct_trigrams", real)):
        figures[name] = distinct_ngrams(texts, 3) / max(1, sum(max(0, len(text) - 2) for text in texts))
    contestant.figures = figures


def write_texts(
    contestant: Contestant,
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    max_new_tokens: int,
    seed: int,
) -> list[list[int]]:
    """A completion of each row's prompt at temperature 1, chosen by the critic if there is one."""
    import torch

    from hf_gpt.generation.resampling import resample
    from hf_gpt.generation.rollout import rollout
    from hf_gpt.generation.scoring import sequence_scores

    generator = torch.Generator().manual_seed(seed)
    number = 1 if contestant.critic is None else CANDIDATES
    drawn = rollout(
        contestant.model,
        torch.tensor([row["prompt_ids"] for row in rows]),
        max_new_tokens=max_new_tokens,
        num_return_sequences=number,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generator=generator,
        batch_size=BATCH_SIZE * 2,
    )
    chosen = torch.arange(len(rows))
    if contestant.critic is not None:
        scores = sequence_scores(contestant.critic, drawn.sequences, drawn.attention_mask, BATCH_SIZE)
        places = resample(scores.reshape(len(rows), number), generator=generator)[:, 0]
        chosen = chosen * number + places
    kept = zip(drawn.completions[chosen], drawn.completion_mask[chosen].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in kept]


def held_out_nll(model: "PreTrainedModel", rows: Sequence[Mapping[str, list[int]]]) -> float:
    """Nats a token of the rows' completions under a model; rows of one length."""
    import torch

    from hf_gpt.generation.likelihood import completion_logps

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


def results_table(contestants: Sequence[Contestant]) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and a row of cells for each contestant and for the real texts."""
    names = ["", "fresh classifier's AUC", "held-out nats/token", "distinct trigrams", "computing"]
    rows = []
    for contestant in contestants:
        figures = contestant.figures
        spread = f"{figures['fresh_auc_low']:.2f} to {figures['fresh_auc_high']:.2f}"
        nll = figures.get("heldout_nll")
        rows.append(
            [
                contestant.name,
                f"{figures['fresh_auc']:.3f} ({spread})",
                "" if nll is None else f"{nll:.3f}",
                f"{figures['distinct_trigrams']:.3f}",
                f"+{contestant.seconds:.0f} s",
            ]
        )
    real = contestants[0].figures["real_distinct_trigrams"]
    return names, [*rows, ["real text", "0.5", "", f"{real:.3f}", ""]]


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in columns."""
    widths = [max(len(row[column]) for row in (names, *rows)) for column in range(len(names))]
    for row in (names, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_comparison(
    folder: Path,
    contestants: Sequence[Contestant],
    critic: "CriticResult",
    log_history: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, list[int]]],
    tokenizer: "PreTrainedTokenizerBase",
    settings: Mapping[str, Any],
) -> Path:
    """Writes `comparison.json` and `comparison.html` to a folder; returns the path of the latter."""
    from hf_gpt.eval.environment import describe_environment
    from hf_gpt.eval.report import Figure, side_by_side_section, table_section, write_report

    found = {item.name: {**item.figures, "computing_seconds": item.seconds} for item in contestants}
    (folder / "comparison.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    names, cells = results_table(contestants)
    note = (
        "The AUC is that of a classifier trained afresh on half of the real and generated texts and tried on the other "
        "half, with a 95 % interval: 0.5 says that it finds no difference. All began from the first row's model; "
        "the last column is the computing that each got on top."
    )
    shown = [
        (
            tokenizer.decode(row["prompt_ids"]),
            [(item.name, tokenizer.decode(item.texts[place], skip_special_tokens=True)) for item in contestants]
            + [("real text", tokenizer.decode(row["completion_ids"]))],
        )
        for place, row in enumerate(rows[:SHOWN])
    ]
    return write_report(
        folder / "comparison.html",
        title="A GPT and its critic",
        summary=(
            "A model trained by likelihood; the same with its critic choosing among candidates; with more likelihood "
            "training; and trained against the critic for as much computing."
        ),
        figures=[
            *(Figure(item.name, f"{item.figures['fresh_auc']:.3f}", "fresh classifier's AUC") for item in contestants),
            Figure("critic", f"{critic.auc:.3f}", "its AUC on texts that it has not seen"),
        ],
        log_history=log_history,
        samples=[],
        settings={name: str(value) for name, value in settings.items()},
        environment=describe_environment(),
        sections=[
            table_section("comparison", "Comparison", names, cells, note),
            side_by_side_section("side-by-side", "Samples side by side", shown),
        ],
    )
