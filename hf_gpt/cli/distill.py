"""`hf-gpt distill`: a teacher's texts, or its probabilities, into a student, by one way or several side by side."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from hf_gpt.cli.command import REQUIRED, DeviceOptions, add_options, exit_status, option
from hf_gpt.cli.one_line_help import OneLineHelp
from hf_gpt.cli.parser import CommandParser
from hf_gpt.errors import ConfigError
from hf_gpt.files.atomic_files import write_json
from hf_gpt.installation import as_typed
from hf_gpt.training.run import print_lines


PROG = "hf-gpt distill"
DESCRIPTION = """Trains a student on what a teacher writes, or on the teacher's probabilities.

The teacher's texts are sampled once and stored in the output folder. Each method then trains a student of its own, and
a table shows them side by side. All further options are those of hf-gpt adversarial, such as --max_steps 500.

  sequence   maximum likelihood on the teacher's texts; texts are all it needs
  token      the teacher's whole next-token distributions at its texts
  on_policy  the exact divergence from the teacher's distributions at the student's texts (GKD)
  gad, grgc  training against a discriminator of the teacher's and the student's texts; texts are all they need

token and on_policy need a teacher of the student's tokenizer."""
EXAMPLES = """examples:
  hf-gpt distill --teacher runs/large --model_name_or_path runs/small --train_file prompts.txt
  hf-gpt distill --teacher http://localhost:8000/v1 --model_name_or_path runs/small --train_file prompts.txt \\
    --method sequence gad --max_steps 400"""
Method = Literal["sequence", "token", "on_policy", "gad", "grgc"]
# Options that the short help shows.
COMMON = {"train_file", "method", "num_texts", "max_new_tokens", "teacher_temperature", "output_dir", "seed"}
# Methods that read the teacher's probabilities.
_BY_PROBABILITIES = ("token", "on_policy")
# Share of the texts that is held out, within what a held-out test of discriminators needs and what it profits from.
_HELD_OUT, _LEAST_HELD_OUT, _MOST_HELD_OUT = 0.1, 40, 500
_FEWEST_TEXTS = 100
TEXTS, HELD_OUT, RESULTS = "teacher_texts.jsonl", "held_out.jsonl", "results.json"


@dataclass(frozen=True, kw_only=True)
class DistillOptions(DeviceOptions):
    """Teacher, student and methods."""

    _argument_group_name = "distillation"
    teacher: str = option(
        REQUIRED, "folder or Hub id of a language model, or the address of a server with OpenAI's API (http://...)"
    )
    teacher_model: str | None = option(None, "name of the model at that address")
    model_name_or_path: str = option(REQUIRED, "the student: folder of a run or checkpoint, or a Hub id")
    train_file: list[str] = option(
        (), "prompts: .txt with one a line, or a table with --prompt_column; left out: unconditional samples", nargs="*"
    )
    prompt_column: str = option("prompt", "column of a table that holds the prompt")
    method: list[Method] = option(("sequence",), "ways of distillation, each with a student of its own", nargs="+")
    num_texts: int = option(
        2000, "texts of the teacher, at least 100: the first prompts, or unconditional samples; a tenth is held out"
    )
    max_new_tokens: int = option(64, "most tokens of a text")
    teacher_temperature: float = option(1.0, "of the teacher's texts; 0 takes the likeliest token")
    teacher_template: Literal["auto", "none"] = option(
        "auto", "auto: a prompt is a user's message, where the teacher has a chat template"
    )
    teacher_batch_size: int = option(32, "prompts that the teacher answers at once")
    output_dir: str = option("runs/distill", "folder of the texts, the students and the table")
    seed: int = option(0, "of the texts and of training")


def make_parser(is_whole: bool = True) -> argparse.ArgumentParser:
    """The parser of the command's own options; further ones go to `hf-gpt adversarial`."""
    more = "" if is_whole else f"\n\n{PROG} --help all explains all {len(fields(DistillOptions))} options."
    parser = CommandParser(
        prog=PROG,
        description=DESCRIPTION,
        epilog=EXAMPLES + more,
        formatter_class=argparse.RawDescriptionHelpFormatter if is_whole else OneLineHelp,
    )
    add_options(parser, DistillOptions, None if is_whole else COMMON)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "-h" in argv or "--help" in argv:
        make_parser("all" in argv).print_help()
        return 0
    known, rest = make_parser().parse_known_args(argv)
    options = DistillOptions(**vars(known))
    return exit_status(
        lambda: distill(options, rest),
        stopped=f"Stopped. The same command goes on from what is in {options.output_dir}.",
    )


def distill(options: DistillOptions, rest: Sequence[str]) -> int:
    """Samples the teacher's texts, trains a student by each method, and compares them; returns the exit status."""
    from hf_gpt.files.run_lock import claim_run, releases_runs

    check_options(options, rest)
    with releases_runs():
        check_students(options, rest)
        claim_run(Path(options.output_dir))
        return train_and_compare(options, rest)


def train_and_compare(options: DistillOptions, rest: Sequence[str]) -> int:
    """The work itself, in a folder that no other run writes into."""
    from hf_gpt.cli.distill_results import compare_students, results_page

    folder = Path(options.output_dir)
    rows = teacher_rows(options, folder / TEXTS)
    held_out = rows[-min(_MOST_HELD_OUT, max(_LEAST_HELD_OUT, int(_HELD_OUT * len(rows)))) :]
    write_rows(folder / "train.jsonl", rows[: len(rows) - len(held_out)])
    write_rows(folder / HELD_OUT, held_out)
    for method in options.method:
        status = train_student(method, options, rest, folder)
        if status:
            return status
    results = compare_students(options, folder, held_out)
    write_json(folder / RESULTS, results)
    page = results_page(folder, results)
    print(f"\n{page.read_text(encoding='utf-8')}")
    best = quote(str(folder / options.method[0]))
    print_lines(
        print,
        [
            ("texts", f"{folder / TEXTS}: {len(rows):,}"),
            ("table", str(page)),
            ("next", as_typed(f"hf-gpt generate {best}")),
        ],
    )
    return 0


def check_options(options: DistillOptions, rest: Sequence[str]) -> None:
    """Refuses what cannot work before anything is loaded.

    Raises:
        ConfigError: options that do not go together.
    """
    served = is_served(options.teacher)
    wanted = [method for method in options.method if method in _BY_PROBABILITIES]
    if served and wanted:
        raise ConfigError(
            f"--method {wanted[0]} reads the teacher's probabilities, and a server gives texts alone. Use sequence, "
            "gad or grgc, or give the teacher as a folder or Hub id."
        )
    if served and not options.train_file:
        raise ConfigError("a teacher behind a server answers prompts: give --train_file.")
    if len(set(options.method)) != len(options.method):
        raise ConfigError(f"--method has one of these twice: {' '.join(options.method)}.")
    if options.num_texts < _FEWEST_TEXTS:
        raise ConfigError(f"--num_texts must be at least {_FEWEST_TEXTS}, got {options.num_texts}.")
    for name in ("--config", "--completion_column", "--validation_file", "--discriminator_loss"):
        if any(word.partition("=")[0] == name for word in rest):
            raise ConfigError(f"{name} is set by --method. For another set-up use hf-gpt adversarial.")


def check_students(options: DistillOptions, rest: Sequence[str]) -> None:
    """Refuses options of training, and a teacher of other tokens, before the teacher has written anything.

    Raises:
        ConfigError: an option that does not exist or has a wrong value, or a method that the teacher is not for.
        CheckpointError: there is no such student.
    """
    from hf_gpt.cli import adversarial
    from hf_gpt.files.checkpoints import find_existing_model
    from hf_gpt.generation.scoring.shared_tokens import saved_tokenizer, tokenizer_difference

    for method in options.method:
        adversarial.read(["--config", recipe_of(method), "--model_name_or_path", options.model_name_or_path, *rest])
    if is_served(options.teacher):
        return
    paths = [find_existing_model(path) for path in (options.teacher, options.model_name_or_path)]
    mine, theirs = map(saved_tokenizer, paths)
    wanted = [method for method in options.method if method in _BY_PROBABILITIES]
    if wanted and None not in (mine, theirs) and (difference := tokenizer_difference(mine, theirs)) is not None:
        raise ConfigError(
            f"--method {wanted[0]} needs a teacher of the student's tokenizer, and that of {options.teacher} is "
            f"another ({difference}). Use sequence, gad or grgc, which read texts."
        )


def recipe_of(method: str) -> str:
    """The recipe of a method."""
    return f"distil_{method}" if method in ("sequence", *_BY_PROBABILITIES) else method


def is_served(teacher: str) -> bool:
    """Whether a teacher is the address of a server."""
    return teacher.startswith(("http://", "https://"))


def teacher_rows(options: DistillOptions, path: Path) -> list[dict[str, str]]:
    """The teacher's texts, sampled or as they are stored."""
    from tqdm.auto import tqdm

    from hf_gpt.generation.devices import pick_device
    from hf_gpt.generation.teacher_texts import LocalTeacher, ServedTeacher, store_teacher_texts

    sampled = {"max_new_tokens": options.max_new_tokens, "temperature": options.teacher_temperature}

    def make_teacher() -> Any:
        if is_served(options.teacher):
            return ServedTeacher(options.teacher, options.teacher_model, **sampled)
        return LocalTeacher(
            options.teacher,
            **sampled,
            device=pick_device(options.device),
            chat=options.teacher_template == "auto",
            trust_remote_code=options.trust_remote_code,
        )

    prompts = read_prompts(options)
    facts = {"teacher": options.teacher, "teacher_model": options.teacher_model, **sampled}
    with tqdm(total=len(prompts), desc="teacher's texts", unit="text", disable=not sys.stderr.isatty()) as bar:
        rows = store_teacher_texts(
            path,
            make_teacher,
            prompts,
            {**facts, "template": options.teacher_template},
            batch_size=options.teacher_batch_size,
            seed=options.seed,
            advance=bar.update,
        )
    kept = [row for row in rows if (row.get("completion") or row.get("text", "")).strip()]
    if len(kept) < len(rows):
        print(f"{len(rows) - len(kept):,} of {len(rows):,} texts of the teacher are blank and left out.")
    if len(kept) < _FEWEST_TEXTS:
        raise ConfigError(
            f"{len(kept)} texts of the teacher are not blank, and {_FEWEST_TEXTS} are needed. Raise --num_texts or "
            "--max_new_tokens, or give other prompts."
        )
    return kept


def read_prompts(options: DistillOptions) -> list[str]:
    """The prompts that the teacher answers; empty ones where there is no file.

    Raises:
        CorpusError: too few prompts, or a file that cannot be read.
    """
    from hf_gpt.data.corpus import read_corpus
    from hf_gpt.data.examples import read_examples, text_of
    from hf_gpt.errors import CorpusError

    if not options.train_file:
        return [""] * options.num_texts
    if all(Path(name).name.endswith((".txt", ".txt.gz")) for name in options.train_file):
        found = [text.strip() for text in read_corpus(options.train_file, document_separator="\n")["text"]]
    else:
        rows = read_examples(options.train_file, {"prompt_column": options.prompt_column})
        found = [text_of(row, options.prompt_column) for row in rows]
    found = [text for text in found if text][: options.num_texts]
    if len(found) < _FEWEST_TEXTS:
        names = ", ".join(options.train_file)
        raise CorpusError(f"{names}: {len(found)} prompts are too few. Give at least {_FEWEST_TEXTS}.")
    return found


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Writes JSON lines, whole or not at all."""
    from hf_gpt.files.atomic_files import write_text

    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def train_student(method: str, options: DistillOptions, rest: Sequence[str], folder: Path) -> int:
    """Trains a student by `hf-gpt adversarial`, or keeps one that is finished; returns the exit status."""
    from hf_gpt.cli import adversarial
    from hf_gpt.files.checkpoints import last_checkpoint

    output = folder / method
    print(f"\n{method}\n{'-' * len(method)}", flush=True)
    argv = ["--config", recipe_of(method)]
    argv += ["--model_name_or_path", options.model_name_or_path, "--seed", str(options.seed)]
    argv += ["--train_file", str(folder / "train.jsonl"), "--validation_file", str(folder / HELD_OUT)]
    argv += ["--max_new_tokens", str(options.max_new_tokens), "--output_dir", str(output)]
    if options.train_file:
        argv += ["--prompt_column", "prompt", "--completion_column", "completion"]
    else:
        argv += ["--prompt_tokens", "0"]
    if method != "sequence" and method not in _BY_PROBABILITIES:
        argv += ["--mle_warmup_steps", "0"]
    if method in _BY_PROBABILITIES:
        argv += ["--discriminator", options.teacher]
    if options.trust_remote_code:
        argv += ["--trust_remote_code", "true"]
    argv += rest
    record = folder / f"{method}.json"
    held = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
    if held is not None and held["arguments"] != argv:
        changed = [word for word in (*argv, *held["arguments"]) if (word in argv) != (word in held["arguments"])]
        raise ConfigError(
            f"{output} was trained with other options ({' '.join(changed)}). Choose another --output_dir, or remove "
            f"{output} and {record}."
        )
    if held is not None and "cpu_seconds" in held:
        print(f"{output} is finished and kept. Remove it and {record} to train it again.")
        return 0
    write_json(record, {"arguments": argv})
    if last_checkpoint(output) is not None:
        resumed = ["--resume_from_checkpoint"]
    else:
        resumed = ["--overwrite_output_dir"] if output.exists() else []
    began = time.process_time()
    status = adversarial.main([*argv, *resumed])
    if status == 0:
        write_json(record, {"arguments": argv, "cpu_seconds": time.process_time() - began})
    return status
