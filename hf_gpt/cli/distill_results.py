"""Students of one teacher side by side: held-out loss, what the teacher says of their texts, diversity, compute."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.evaluation.language_model.likelihood import nats_per_word
from hf_gpt.evaluation.language_model.residual_likelihood import completion_nats
from hf_gpt.evaluation.tasks.choices import score_continuations
from hf_gpt.evaluation.tasks.generation import write_after
from hf_gpt.evaluation.tasks.loading import Candidate, open_candidate
from hf_gpt.evaluation.text.diversity import distinct_ngrams
from hf_gpt.files.atomic_files import write_text
from hf_gpt.generation.teacher_texts import chat_ids


if TYPE_CHECKING:
    from hf_gpt.cli.distill import DistillOptions

# Held-out prompts that students answer.
NUM_ANSWERS = 200
UNTRAINED = "untrained student"
COLUMNS = {
    "held_out_nats": "nats per word of the teacher's held-out texts",
    "teacher_nats": "teacher's nats per word of its texts",
    "own_nats": "its own nats per word of them",
    "distinct_2": "distinct-2",
    "updates": "updates",
    "cpu_seconds": "CPU s",
}


def compare_students(options: "DistillOptions", folder: Path, held_out: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """What each student makes of the teacher's held-out texts, and the teacher of theirs.

    Args:
        options: Of the command.
        folder: Its output folder, with a student in the folder of each method.
        held_out: Rows with `prompt` and `completion`, or `text`.

    Returns:
        `rows` by student, each with the keys of `COLUMNS` and `..._low`, `..._high` of 95 % bootstrap intervals over
        texts. The teacher's columns are left out for one behind a server.
    """
    from hf_gpt.cli.distill import is_served

    loading = {"device": options.device, "trust_remote_code": options.trust_remote_code}
    teacher = None if is_served(options.teacher) else open_candidate("teacher", options.teacher, **loading)
    paths = {UNTRAINED: options.model_name_or_path} | {name: str(folder / name) for name in options.method}
    pairs = [(row.get("prompt", ""), row.get("completion") or row.get("text", "")) for row in held_out]
    pairs = [(prompt, text) for prompt, text in pairs if text.strip()]
    rows = {}
    for name, path in paths.items():
        student = open_candidate(name, path, **loading)
        rows[name] = _measure(student, teacher, pairs, options)
        if name != UNTRAINED:
            rows[name] |= _of_training(folder, name)
    return {"format": 1, "teacher": options.teacher, "held_out": len(pairs), "rows": rows}


def _of_training(folder: Path, method: str) -> dict[str, float]:
    """CPU seconds of a student's training, and the updates that it had."""
    record = json.loads((folder / f"{method}.json").read_text(encoding="utf-8"))
    metrics = json.loads((folder / method / "metrics.json").read_text(encoding="utf-8"))
    found = {"cpu_seconds": record["cpu_seconds"]}
    if "generator_updates" in metrics:
        found["updates"] = metrics["generator_updates"]
    return found


def _measure(
    student: Candidate, teacher: Candidate | None, pairs: Sequence[tuple[str, str]], options: "DistillOptions"
) -> dict[str, float]:
    prompts = [prompt for prompt, _ in pairs][:NUM_ANSWERS]
    sampling = {"max_new_tokens": options.max_new_tokens, "temperature": 1.0}
    answers = write_after(student, prompts, seed=options.seed, **sampling)
    written = [(prompt, text) for prompt, text in zip(prompts, answers, strict=True) if text.strip()]
    judged = {"held_out_nats": (student, pairs), "own_nats": (student, written)}
    if teacher is not None:
        judged["teacher_nats"] = (teacher, written)
    different, pairs_of_words = distinct_ngrams([text.split() for _, text in written], 2)[-1]
    found: dict[str, float] = {"distinct_2": different / max(1, pairs_of_words)}
    for name, (judge, texts) in judged.items():
        texts = _short_enough(judge, texts)
        if texts:
            is_asked = judge is teacher and bool(options.train_file) and options.teacher_template == "auto"
            nats = _nats(judge, texts, is_asked and judge.tokenizer.chat_template is not None)
            found |= nats_per_word(name, nats, [text for _, text in texts])
    return found


def _nats(judge: Candidate, texts: Sequence[tuple[str, str]], is_chat: bool) -> Sequence[float]:
    """Nats of texts after their prompts; a chat model reads a prompt as it did when it wrote the teacher's texts."""
    if not is_chat:
        return [-one.logp for one in score_continuations(judge, texts)]
    prompts = chat_ids(judge.tokenizer, [prompt for prompt, _ in texts])
    return completion_nats(judge.model, prompts, judge.encode([text for _, text in texts]))


def _short_enough(judge: Candidate, texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those that a model can read: in its tokens a text of another model may be longer than it was written."""
    if judge.limit is None:
        return list(texts)
    sizes = map(len, judge.encode([text for _, text in texts])) if texts else ()
    return [pair for pair, size in zip(texts, sizes, strict=True) if size + 1 < judge.limit]


def results_page(folder: Path, results: Mapping[str, Any]) -> Path:
    """Writes the table as Markdown; returns its path."""
    rows = results["rows"]
    columns = [name for name in COLUMNS if any(name in row for row in rows.values())]
    about = (
        f"{results['held_out']:,} held-out texts of the teacher; 95 % bootstrap intervals over texts. Fewer nats per "
        "word are better in the first column."
    )
    if "teacher_nats" in columns:
        about += (
            " The teacher's nats of a student's texts fall when the texts lose diversity too: read them beside the "
            "student's own nats, its entropy."
        )
    lines = [
        f"# Students of {results['teacher']}",
        "",
        about,
        "",
        "| student | " + " | ".join(COLUMNS[name] for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for student, row in rows.items():
        lines.append(f"| {student} | " + " | ".join(_cell(row, name) for name in columns) + " |")
    return write_text(folder / "results.md", "\n".join(lines) + "\n")


def _cell(row: Mapping[str, float], name: str) -> str:
    if name not in row:
        return ""
    if name in ("cpu_seconds", "updates"):
        return f"{row[name]:.0f}"
    if f"{name}_low" not in row:
        return f"{row[name]:.3f}"
    return f"{row[name]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
