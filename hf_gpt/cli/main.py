"""`hf-gpt <command>`: finds the command's module and hands over; nothing heavy is imported before that."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from hf_gpt.terminal import run_program


class Command(NamedTuple):
    """A command: the module whose `main(argv)` runs it, what it does, and whether what it prints is its result."""

    module: str
    summary: str
    prints_result: bool = False


COMMANDS = {
    "demo": Command("hf_gpt.cli.demo", "train a GPT, its discriminator, and both against each other, in a few minutes"),
    "pretrain": Command("hf_gpt.cli.pretrain", "train a language model on any text, from scratch or further"),
    "finetune": Command("hf_gpt.cli.finetune", "train a model on a task: classify, tag, answer, summarize, ..."),
    "distill": Command("hf_gpt.cli.distill", "train a student on the texts or the probabilities of a teacher"),
    "discriminator": Command(
        "hf_gpt.cli.discriminator", "train a discriminator that tells real texts from a model's samples"
    ),
    "adversarial": Command("hf_gpt.cli.adversarial", "train a generator against a discriminator"),
    "generate": Command(
        "hf_gpt.cli.generate", "continue a prompt with a trained model, guided by a discriminator if wanted", True
    ),
    "chat": Command("hf_gpt.cli.chat", "talk with a model that was trained on dialogues", True),
    "score": Command("hf_gpt.cli.score", "score each text of a file by a discriminator: real or generated?", True),
    "eval": Command("hf_gpt.cli.evaluation.main", "evaluate models on tasks: metrics, intervals, tests, a report"),
    "app": Command("hf_gpt.app.command", "write and score texts in a browser; compare two models"),
    "tokenizer": Command("hf_gpt.cli.tokenizer", "train a tokenizer from files"),
    "convert": Command("hf_gpt.cli.convert", "convert checkpoints of GPT-2, Llama, Mistral or Qwen to hf_gpt and back"),
    "push": Command("hf_gpt.cli.push", "upload a checkpoint, its code, tokenizer and card to the Hub"),
    "pull": Command("hf_gpt.cli.pull", "download a checkpoint from the Hub"),
    "autoload": Command("hf_gpt.cli.autoload", "let other programs open our checkpoints without importing hf_gpt"),
    "plan": Command("hf_gpt.cli.plan", "estimate memory, time and cost of a run", True),
    "completion": Command("hf_gpt.cli.completion", "print a script for completion by bash, zsh, fish or tcsh", True),
}
# Those that read data by the datasets library, which keeps what it has read.
KEEP_DATA = ("demo", "pretrain", "finetune", "distill", "discriminator", "adversarial", "tokenizer", "eval")


# Former names, and what to type instead.
RENAMED = {
    "critic": "hf-gpt discriminator",
    "bench": "python -m eval.benchmarks.speed, in a checkout",
}


def usage() -> str:
    """The help of `hf-gpt` itself."""
    width = max(len(name) for name in COMMANDS)
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"usage: hf-gpt <command> [options]\n\ncommands:\n{commands}\n\nhf-gpt <command> --help lists its options.\n"
        "Training in several processes: hf-gpt <command> ... --accelerate single|ddp|fsdp2|zero1|zero2|zero3|tp "
        "[--num_processes N]"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status, 2 for a command that does not exist."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS.get(argv[0]) if argv else None
    shows_help = not {"-h", "--help", "-V", "--version"}.isdisjoint(argv)
    prints_result = command is None or command.prints_result or shows_help
    return run_program(lambda: _dispatch(argv), prints_result=prints_result)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from hf_gpt.version import __version__

        print(f"hf-gpt {__version__}")
        return 0
    if argv[0] in KEEP_DATA and not {"-h", "--help"} & set(argv):
        from hf_gpt.files.output_paths import wrong_cache

        if (wrong := wrong_cache()) is not None:
            print(f"error: {wrong}", file=sys.stderr)
            return 2
    if any(token.partition("=")[0] in ("--accelerate", "--num_processes") for token in argv):
        return importlib.import_module("hf_gpt.training.distributed.launch").main(argv)
    name, rest = argv[0], argv[1:]
    if name in RENAMED:
        print(f"error: hf-gpt {name} is now {RENAMED[name]}.", file=sys.stderr)
        return 2
    if name not in COMMANDS:
        from hf_gpt.errors import did_you_mean

        hint = did_you_mean(name, list(COMMANDS))
        print(f"error: there is no command {name!r}{hint} Commands: {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    from hf_gpt.cli.parser import RefusedValue

    try:
        return importlib.import_module(COMMANDS[name].module).main(rest)
    except RefusedValue as stop:
        return stop.code


if __name__ == "__main__":
    raise SystemExit(main())
