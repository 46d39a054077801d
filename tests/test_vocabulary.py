"""One word for one thing: words that the field has another word for stand in no name, help, message or page."""

import ast
import functools
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
# The word, what to write in its place, and the files in which it means something else.
WORDS = {
    r"critics?": ("discriminator", r"^docs/guides/adversarial\.md$|^docs/concepts/|^README\.md$|cli/main\.py$"),
    r"figures?": ("metric", r"reporting/|/curves?\.py$|plot"),
    r"drawn|draws?|drawing": ("sample", r"reporting/|^hf_gpt/app/|plot|curve|texygen|eval/experiments/common/reports"),
    r"fakes?": ("generated text", r"^$"),
    r"beginnings?": ("prefix", r"^$"),
    r"lessons?": ("distillation", r"^$"),
    r"guess(es|ed|ing)?": ("draft token", r"^$"),
    r"the game|players?": ("adversarial training, generator, discriminator", r"^$"),
    r"likelihood training": ("maximum likelihood", r"^$"),
    # An element of HTML in the README.
    r"(?<!<)(?<!</)pictures?": ("image", r"^$"),
    r"sounds": ("audio", r"^$"),
    r"texts from nothing": ("unconditional samples", r"^$"),
    r"minutes of computing": ("CPU minutes", r"^$"),
    r"fresh classifiers?": ("held-out classifier two-sample test", r"^$"),
    r"recordings?": ("activation cache", r"^$"),
    r"nats a token": ("nats per token", r"^$"),
    r"places": ("positions", r"^$"),
}
# A number without its leading zero, as .5; not in a version, a file's name or a slice, a pattern or a format.
BARE_FRACTION = re.compile(r"(?<!:\+)(?<![\w.\])}*/~`'\"\\:-])\.\d+(?![\w/])")


@functools.cache
def prose_of(path: str) -> list[tuple[int, str]]:
    """Lines of prose: a page's outside code blocks, a program's strings and comments with identifiers taken apart."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".py"):
        return _outside_code(text)
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            found += [(token.start[0] + number, line) for number, line in enumerate(token.string.split("\n"))]
        if token.type == tokenize.NAME:
            found.append((token.start[0], re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", token.string)))
    return found


def _outside_code(text: str) -> list[tuple[int, str]]:
    kept, is_code = [], False
    for number, line in enumerate(text.split("\n"), 1):
        is_code ^= line.lstrip().startswith("```")
        if not is_code:
            kept.append((number, line))
    return kept


def tracked(*patterns: str) -> list[str]:
    names = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return [name for name in names.split("\n") if name and not name.startswith("docs/log/") and name != "CHANGELOG.md"]


PROGRAMS = tracked("hf_gpt/*.py", "training/*.py", "eval/*.py", "hf_gpt/*.yaml", "hf_gpt/*.c", "hf_gpt/*.h")
PAGES = tracked("*.md")


@pytest.mark.parametrize("word", WORDS)
def test_one_word_for_one_thing(word):
    better, elsewhere = WORDS[word]
    pattern = re.compile(rf"\b({word})\b", re.IGNORECASE)
    wrong = [
        f"{path}:{number}: {line.strip()[:90]}"
        for path in (*PROGRAMS, *PAGES)
        if not re.search(elsewhere, path)
        for number, line in prose_of(path)
        if pattern.search(line)
    ]
    assert not wrong, f"write {better!r}:\n" + "\n".join(sorted(set(wrong)))


def test_numbers_have_their_leading_zero():
    wrong = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in (*PROGRAMS, *PAGES)
        for number, line in prose_of(path)
        if BARE_FRACTION.search(re.sub(r"`[^`]*`", "", line))
    ]
    assert not wrong, "\n".join(wrong)


def test_lines_of_pages_fit_a_screen():
    long = [
        f"{path}:{number}: {len(line)} characters"
        for path in PAGES
        if path != "docs/options.md"
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").split("\n"), 1)
        if len(line) > 120 and not line.lstrip().startswith(("|", "![", "<img", "[!["))
    ]
    assert not long, "\n".join(long)


def test_docstrings_are_found():
    assert any("discriminator" in line for _, line in prose_of("hf_gpt/adversarial/trainer.py"))
    assert ast.get_docstring(ast.parse((ROOT / "hf_gpt/__init__.py").read_text(encoding="utf-8")))
