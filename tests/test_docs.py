"""The pages of docs/: examples do what they say, commands find what they read, references are whole and current."""

import ast
import json
import re
import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from transformers import GenerationMixin, Trainer

import hf_gpt
from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.adversarial.monitoring.monitors import RULES
from hf_gpt.cli.main import COMMANDS
from hf_gpt.cli.option_reference import reference
from hf_gpt.data.tokenizer import train_tokenizer
from tests.docs_commands import LEAVES, known_options, recipe_path, steps_of


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "log")]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.py"))


def name_of(page: Path) -> str:
    """A page's path without its ending, below docs/."""
    return page.relative_to(DOCS).with_suffix("").as_posix() if page.is_relative_to(DOCS) else page.stem


EXAMPLES = [
    pytest.param(code, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL))
]


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = train_tokenizer(iter(["ROMEO:\nto be or not to be"]), 300, model_max_length=128)
    config = HfGptConfig.preset(
        "nano", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    HfGptForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@dataclass
class Done:
    """What code did: players whose training changed weights or not, distinct rows, new tokens of each `generate`."""

    changed: list[tuple[str, bool]] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)
    new_tokens: list[int] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)


@pytest.fixture
def done(monkeypatch) -> Done:
    """Looks on while an example trains and generates."""
    seen = Done()
    train, generate = Trainer.train, GenerationMixin.generate

    def watched_train(self, *args, **kwargs):
        players = {"model": self.model, "discriminator": getattr(self, "discriminator", None)}
        before = {
            name: _weights(discriminator_trainer)
            for name, discriminator_trainer in players.items()
            if discriminator_trainer is not None
        }
        output = train(self, *args, **kwargs)
        for name, weights in before.items():
            if name == "model" or self.args.discriminator_steps:
                after = _weights(players[name])
                seen.changed.append((name, any(not torch.equal(a, b) for a, b in zip(weights, after, strict=True))))
        rows = [_tokens(self.train_dataset[number]) for number in range(min(200, len(self.train_dataset)))]
        seen.rows.append((len(set(rows)), len(rows)))
        if hasattr(self, "schedule"):
            seen.updates.append(self.schedule.outcomes.get("adversarial_update", 0))
        return output

    def watched_generate(self, *args, **kwargs):
        output = generate(self, *args, **kwargs)
        given = kwargs.get("input_ids", args[0] if args else None)
        seen.new_tokens.append(output.shape[-1] - (0 if given is None else given.shape[-1]))
        return output

    monkeypatch.setattr(Trainer, "train", watched_train)
    monkeypatch.setattr(GenerationMixin, "generate", watched_generate)
    return seen


def _weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def _tokens(row) -> tuple:
    names = [name for name in ("prompt_ids", "completion_ids", "input_ids", "prompt", "completion") if name in row]
    return tuple(tuple(row[name]) for name in names)


def check(done: Done, code: str) -> None:
    """Asserts that what a page shows does what it says: weights change, rows differ, tokens come."""
    assert all(was for _, was in done.changed), done.changed
    assert all(distinct > 0.9 * count > 1 for distinct, count in done.rows), done.rows
    assert all(count > 0 for count in done.new_tokens), done.new_tokens
    assert len(done.changed) >= code.count("trainer.train()")
    assert len(done.new_tokens) >= code.count(".generate(")
    if "AdversarialTrainer(" in code:
        assert done.updates[-1] > 0


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code, checkpoint, monkeypatch, done):
    if "from trl import" in code:
        pytest.importorskip("trl", reason="needs TRL: make check-trl")
    monkeypatch.chdir(checkpoint.parent)
    exec(compile(code.replace("runs/demo/model", str(checkpoint)), "example", "exec"), {})
    check(done, code)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_gpt", r"held-out loss \d\.\d+ before, \d\.\d+ after"),
        ("discriminator", r"AUC 0\.\d+ \(.*\)\nreal 0\.\d+ \(0\.\d+ to 0\.\d+\)\Z"),
    ],
)
def test_notebook_runs(name, says, tmp_path, monkeypatch, capsys, done):
    monkeypatch.setenv("STEPS", "4")
    monkeypatch.chdir(tmp_path)
    path = DOCS / "notebooks" / f"{name}.py"
    runpy.run_path(str(path))
    output = capsys.readouterr().out.strip()
    assert re.search(says, output), output
    check(done, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_paths_of_a_page_are_written_before_they_are_read(page):
    # What `make demo`, the first command of all, leaves.
    there = {f"runs/demo{part}" for part in LEAVES["demo"]}
    for step in steps_of(page):
        assert step.reads <= there, f"{step.text}: nothing before it writes {sorted(step.reads - there)}"
        there |= step.writes


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_of_a_page_writes_where_another_wrote(page):
    written: dict[str, str] = {}
    for step in steps_of(page):
        if step.argv and "--resume_from_checkpoint" not in step.argv:
            for path in step.writes:
                assert written.setdefault(path, step.text) == step.text, f"{step.text} would find {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_and_recipes_of_a_page_exist(page):
    for step in steps_of(page):
        if step.argv:
            given = {word.partition("=")[0] for word in step.argv if word.startswith("--")}
            assert given <= known_options(step.argv), f"{step.text}: {sorted(given - known_options(step.argv))}"
            for option in ("--config", "--task"):
                name = step.argv[step.argv.index(option) + 1] if option in step.argv[:-1] else None
                path = recipe_path(step.argv[1], name)
                assert path is None or name.isupper() or path.is_file(), f"{step.text}: no recipe {name}"


def test_a_path_that_nothing_writes_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```\nhf-gpt adversarial --config gad --train_file a.jsonl\nhf-gpt chat runs/gad\n```\n", encoding="utf-8"
    )
    assert [sorted(step.reads) for step in steps_of(page)] == [[], ["runs/gad"]]
    assert "runs/gad/model/discriminator" in steps_of(page)[0].writes
    assert "runs/gad/discriminator" not in steps_of(page)[0].writes


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    assert set(re.findall(r"^ *hf-gpt (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([\w-]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_option_reference_is_current():
    assert (DOCS / "options.md").read_text(encoding="utf-8") == reference(), (
        "make it anew: python -m hf_gpt.cli.option_reference > docs/options.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_in_a_language_that_is_checked(page):
    # Commands stand in blocks without a language, which `steps_of` reads.
    languages = set(re.findall(r"^ *```(\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert languages <= {"python", "yaml", "text"}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in ("README.md", "options.md", "results.md")])
def test_a_page_begins_with_what_the_reader_can_do_after_it(page):
    first = page.read_text(encoding="utf-8").split("\n")[2]
    assert first.startswith(("After this page you", "After these pages you")), first


def test_every_public_name_is_in_the_api_reference():
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    public = {f"hf_gpt.{name}" for name in hf_gpt.__all__ if name != "__version__"}
    assert public <= set(re.findall(r"^::: (\S+)$", pages, flags=re.MULTILINE))


def test_every_alert_is_in_troubleshooting():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| ([a-z][^|]*?)(?: \(fatal\))? \|", page, flags=re.MULTILINE))
    assert {rule.name for rule in RULES} <= told


def _messages() -> str:
    """All texts of the library, a gap where a value comes in."""
    found = []
    for path in (ROOT / "hf_gpt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[\d.,]*[dsf]", "\0", node.value))
    return "\n".join(found)


def test_messages_of_troubleshooting_are_those_of_the_library():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition("## A run that trained nothing")[2]
    messages = _messages()
    quoted = [
        quote for cell in re.findall(r"^\| (`.*?) \|", page, flags=re.MULTILINE) for quote in cell.split("`")[1::2]
    ]
    parts = [
        part.strip() for quote in quoted for part in re.split(r"\.\.\.|\b[NM]\b|-100", quote) if part.strip(" :']\"")
    ]
    assert len(parts) > 60
    assert not [part for part in parts if part not in messages]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_and_its_text_are_in_step(path):
    cells = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    text = path.read_text(encoding="utf-8").partition("\n# ---\n")[2]
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)[1:]
    as_text = [
        "".join(line.removeprefix("#").removeprefix(" ") for line in part.strip().splitlines(keepends=True))
        if "markdown" in kind
        else part.strip()
        for kind, part in zip(parts[::2], parts[1::2], strict=True)
    ]
    assert ["".join(cell["source"]) for cell in cells] == as_text, "make it anew: make notebooks"
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
