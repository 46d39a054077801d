"""Commands that are printed can be typed as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from hf_gpt import installation
from hf_gpt.installation import as_typed, install_hint


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program beside a Python that is not on the search path; the present folder is above both."""
    program = tmp_path / "my env" / "bin" / "hf-gpt"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    return program


def test_a_program_that_is_not_on_the_search_path_is_named_by_its_path(program):
    assert shlex.split(as_typed("hf-gpt chat 'my model'")) == ["my env/bin/hf-gpt", "chat", "my model"]


def test_a_program_on_the_search_path_keeps_its_name(program, monkeypatch):
    monkeypatch.setenv("PATH", str(program.parent))
    assert as_typed("hf-gpt chat model") == "hf-gpt chat model"


def test_without_a_program_beside_python_the_name_stays(program):
    program.unlink()
    assert as_typed("hf-gpt chat model") == "hf-gpt chat model"


def test_a_checkout_installs_its_own_extras(program, tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "checkout" / "hf_gpt" / "installation.py"))
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "pyproject.toml").touch()
    assert shlex.split(install_hint("app")) == ["my env/bin/python", "-m", "pip", "install", "-e", "checkout[app]"]


def test_an_installed_package_comes_from_the_index(program, tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "site-packages" / "hf_gpt" / "installation.py"))
    assert shlex.split(install_hint("app")) == ["pip", "install", "hf-gpt[app]"]


def test_every_extra_that_is_hinted_at_exists():
    tomllib = pytest.importorskip("tomllib")

    root = Path(__file__).parents[1]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path.read_text() for path in (root / "hf_gpt").rglob("*.py")]
    hinted = {name for text in sources for name in re.findall(r"install_hint\([\"']([\w-]+)[\"']\)", text)}
    assert hinted and hinted <= set(extras)
