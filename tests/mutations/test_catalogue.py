"""The mutations themselves: each still fits the source, and the check tells seen from survived."""

import ast
from collections import Counter
from pathlib import Path
from queue import Queue

import pytest

from tests.mutations import __main__ as check
from tests.mutations.catalogue import ROOT, Mutation, read_catalogue


MUTATIONS = read_catalogue()


def test_there_are_enough_and_no_name_twice():
    assert len(MUTATIONS) >= 40
    assert max(Counter(mutation.name for mutation in MUTATIONS).values()) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_fits_the_source(mutation: Mutation):
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.before) == 1, mutation.file
    assert mutation.before != mutation.after
    if mutation.file.endswith(".py"):
        ast.parse(text.replace(mutation.before, mutation.after))
    for name in mutation.tests:
        assert name.startswith("-") or (ROOT / name.split("::")[0]).exists(), name


@pytest.mark.parametrize(
    ("after", "result", "status"),
    [("return 2", "seen", 1), ("return 1 + 0", "survived", 1), ("return (", "broken", 1)],
)
def test_verdicts(tmp_path: Path, capsys, after: str, result: str, status: int):
    (tmp_path / "code.py").write_text("def one():\n    return 1\n")
    (tmp_path / "test_code.py").write_text("import code_\n\n\ndef test_one():\n    assert code_.one() == 1\n")
    (tmp_path / "code.py").rename(tmp_path / "code_.py")
    mutation = Mutation("one is two", "code_.py", "return 1", after, ("test_code.py",))
    assert check.verdict(mutation, tmp_path)[0] == result
    assert (tmp_path / "code_.py").read_text() == "def one():\n    return 1\n"
    copies: Queue[Path] = Queue()
    copies.put(tmp_path)
    assert check.try_all([mutation], copies, 1) == (0 if result == "seen" else status)
    assert result in capsys.readouterr().out


def test_text_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "code_.py").write_text("a = 1\n")
    with pytest.raises(ValueError, match="occurs 0 times"):
        Mutation("gone", "code_.py", "b = 1", "b = 2", ()).apply(tmp_path)
