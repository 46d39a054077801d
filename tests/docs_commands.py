"""What the commands and the code of a page of docs write and read under `runs/`, in the page's order."""

import importlib
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hf_gpt.cli.finetune import ARGUMENTS as FINETUNE
from hf_gpt.cli.main import COMMANDS
from hf_gpt.cli.options import command_options
from hf_gpt.cli.pretrain import ARGUMENTS as PRETRAIN
from hf_gpt.training.settings import ADVERSARIAL_RECIPES, RECIPES


ROOT = Path(__file__).parents[1]

# What each command leaves in the folder that it writes to.
_RUN = ("", "/model", "/recipe.yaml", "/report.html")
LEAVES = {
    "pretrain": _RUN,
    "finetune": (*_RUN, "/metrics.json", "/predictions.jsonl"),
    "adversarial": (*_RUN, "/model/discriminator", "/metrics.json"),
    "distill": ("", "/teacher_texts.jsonl", "/results.json", "/results.md", "/sequence", "/sequence/model", "/gad"),
    "discriminator": ("", "/model"),
    "eval": ("", "/results.json", "/results.csv", "/results.md"),
    "demo": (*_RUN, "/discriminator", "/adversarial", "/adversarial/discriminator", "/comparison.html"),
}
_COMMANDS = ("hf-gpt ", "make ", "python -m hf_gpt")
_PATH = re.compile(r"runs/[\w./-]*\w")


@dataclass
class Step:
    """A command or a line of code of a page: its text, the paths that it reads and those that it leaves."""

    text: str
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    argv: list[str] = field(default_factory=list)


def steps_of(page: Path) -> list[Step]:
    """The steps of a page, of a Markdown file or of a notebook that is a Python file."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        return _of_code(text)
    steps: list[Step] = []
    for language, code, inline in re.findall(r"```(\w*)\n(.*?)```|`([^`\n]+)`", text, flags=re.DOTALL):
        if language == "python":
            steps += _of_code(code)
        elif inline.startswith(_COMMANDS):
            # In prose a command is spoken of; what it would write is not there yet.
            steps += [Step(each.text, each.reads, set(), each.argv) for each in _of_command(inline)]
        elif not inline and not language:
            for line in code.replace("\\\n", " ").splitlines():
                if line.strip().startswith(_COMMANDS):
                    steps += _of_command(line)
    return steps


def _of_code(code: str) -> list[Step]:
    steps = []
    for line in code.splitlines():
        found = set(_PATH.findall(line))
        if re.search(r"output_dir=|save_\w+\(", line):
            steps.append(Step(line, writes=found | {f"{path}/model" for path in found}))
        elif found:
            steps.append(Step(line, reads=found))
    return steps


def _of_command(line: str) -> list[Step]:
    words = shlex.split(line, comments=True)
    if words[:2] == ["make", "demo"]:
        return [Step(line, writes={f"runs/demo{part}" for part in LEAVES["demo"]})]
    if words[0] == "make" or len(words) < 2:
        return []
    if words[0] == "python":
        written = {option(words, "--output"), option(words, "--output_dir")} - {None}
        return [Step(line, set(_PATH.findall(line)) - written, written, words)]
    command, step = words[1], Step(line, argv=words)
    folder = output_folder(command, words)
    step.writes = set() if folder is None else {f"{folder}{part}" for part in LEAVES.get(command, ("",))}
    step.reads = {path for word in words for path in _PATH.findall(word)} - {folder}
    return [step]


def option(words: list[str], name: str) -> str | None:
    """The value of an option, if it is given."""
    return words[words.index(name) + 1] if name in words[:-1] else None


def output_folder(command: str, words: list[str]) -> str | None:
    """The folder that a command writes to, by its options, its recipe and its defaults."""
    if command in ("convert", "pull"):
        return next(iter([word for word in words[2:] if not word.startswith("--")][1:]), None)
    given = option(words, "--output_dir")
    if "--list" in words:
        return None
    if given is not None or command not in (*LEAVES, "tokenizer"):
        return given
    name = option(words, "--config") or (option(words, "--task") if command == "finetune" else None)
    recipe = recipe_path(command, name)
    if recipe is not None and recipe.is_file():
        return yaml.safe_load(recipe.read_text(encoding="utf-8")).get("output_dir") or f"runs/{command}"
    return name.removesuffix("/recipe.yaml") if name and "/" in name else f"runs/{command}"


def recipe_path(command: str, name: str | None) -> Path | None:
    """Where a built-in recipe of a command lies; None for a path."""
    if name is None or "/" in name or name.endswith(".yaml"):
        return None
    return (ADVERSARIAL_RECIPES if command == "adversarial" else RECIPES) / f"{name}.yaml"


def known_options(words: list[str]) -> set[str]:
    """The options that a command takes, with their dashes."""
    if words[0] == "python":
        return set(re.findall(r"\"(--\w+)\"", _source_of(words[2])))
    launch = {"--accelerate", "--num_processes", "--help"}
    if words[1] not in COMMANDS:
        return launch
    module = importlib.import_module(COMMANDS[words[1]].module)
    if words[1] == "distill":
        own = module.make_parser()._option_string_actions
        return set(own) | known_options(["hf-gpt", "adversarial"])
    if words[1] in ("pretrain", "finetune", "adversarial"):
        shown = {"pretrain": PRETRAIN, "finetune": FINETUNE}.get(words[1])
        if shown is None:
            from hf_gpt.adversarial.arguments import AdversarialArguments

            shown = (*module.ARGUMENTS, AdversarialArguments)
        return launch | {f"--{each.name}" for group in command_options(shown).values() for each in group}
    return launch | set(module.make_parser()._option_string_actions)


def _source_of(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)
