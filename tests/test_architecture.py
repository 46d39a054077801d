"""What ARCHITECTURE.md names is there: files, folders, and the functions of the four walks."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`((?:hf_gpt|training|eval|tests)/[\w./]*)`", PAGE)))
WALKS = PAGE.partition("## Four walks")[2].partition("\n## ")[0]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_there(path):
    assert (ROOT / path).exists()


def test_functions_of_the_walks_are_in_the_files_that_are_named():
    steps = re.findall(r"((?:`[\w.]+`, )*`[\w.]+`) \((`[\w/.]+`)\)", WALKS.replace("\n", " "))
    assert len(steps) > 15
    for names, path in steps:
        source = (ROOT / path.strip("`")).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+)`", names):
            assert re.search(rf"\b(def|class) {name.rpartition('.')[2]}\b", source), f"{name} is not in {path}"


def test_every_layer_is_a_contract():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for folder in sorted(path.parent.name for path in (ROOT / "hf_gpt").glob("*/__init__.py")):
        assert f"`hf_gpt/{folder}/`" in PAGE and f"hf_gpt.{folder}" in project, folder
