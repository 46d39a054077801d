"""The site of docs/: it builds strictly, fetches nothing, and its notebooks run."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
# What a browser loads by itself, unlike a link that a reader follows.
_ELSEWHERE = r"[\"']?(?:https?:)?//"
_LOADED = re.compile(rf"<(?:script|img|iframe|source)[^>]*\ssrc={_ELSEWHERE}|<link[^>]*\shref={_ELSEWHERE}")
_LOADED_BY_STYLE = re.compile(rf"url\({_ELSEWHERE}|@import\s+{_ELSEWHERE}")

needs_docs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("jupytext") is None,
    reason="needs the extra docs: pip install -e '.[docs]'",
)


@needs_docs
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path):
    # A proxy that is not there: whatever is fetched while building fails.
    environment = os.environ | dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"no_proxy": ""}
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    begun = time.monotonic()
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert time.monotonic() - begun < 120
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "unpkg.com" not in text and "cdnjs" not in text, page
        assert not _LOADED.search(text) and not _LOADED_BY_STYLE.search(text), page
        assert "arithmatex" not in text, page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not _LOADED_BY_STYLE.search(style.read_text(encoding="utf-8")), style
    assert not list((tmp_path / "site").rglob("*.py"))


@needs_docs
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_within_three_minutes(path, tmp_path):
    shutil.copy(path, tmp_path)
    command = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--execute", path.name]
    run = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "timeout": 180}
    done = subprocess.run(command, **run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
