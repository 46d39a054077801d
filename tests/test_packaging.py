"""What is installed is what was tested: pyproject.toml against the folders, and a wheel tried out."""

import fnmatch
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
# What only extras bring.
OPTIONAL = ("bitsandbytes", "deepspeed", "faiss", "gradio", "lm_eval", "mauve", "playwright", "trl", "vllm")

IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
import hf_gpt
assert "site-packages" in hf_gpt.__file__, hf_gpt.__file__
names = [module.name for module in pkgutil.walk_packages(hf_gpt.__path__, "hf_gpt.")]
for name in names:
    if name.endswith("__main__"):
        continue
    try:
        importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in sys.argv[1:]:
            raise
print(len(names))
"""

USE_DATA = """
import hf_gpt.evaluation
from hf_gpt.evaluation.tasks.registry import built_in_tasks
from hf_gpt.generation.decoding.native.build import sources
from hf_gpt.training.settings import built_in_recipes
from hf_gpt.data.corpus import read_corpus
assert hf_gpt.evaluation.load("accuracy").compute(predictions=[1, 0], references=[1, 1])["accuracy"] == 0.5
assert len(built_in_tasks()) > 5 and "demo" in built_in_recipes() and len(sources()) > 5
assert len(read_corpus(["tinyshakespeare"])["text"][0]) > 1_000_000
"""


def settings():
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_module_lies_in_a_package_or_is_data():
    data = settings()["package-data"]
    patterns = [f"{name.replace('.', '/')}/{pattern}" for name, listed in data.items() for pattern in listed]
    for path in (ROOT / "hf_gpt").rglob("*"):
        if not path.is_file() or "__pycache__" in path.parts or path.suffix == ".pyc":
            continue
        name = path.relative_to(ROOT).as_posix()
        is_module = path.suffix == ".py" and all((folder / "__init__.py").is_file() for folder in package_folders(path))
        assert is_module or any(fnmatch.fnmatch(name, pattern) for pattern in patterns), f"{name} is not installed"


def package_folders(path):
    """The folders from a file up to `hf_gpt`."""
    return [folder for folder in path.parents if folder.is_relative_to(ROOT / "hf_gpt")]


def run(*command, cwd, **options):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a virtual environment that has the wheel, and this environment's other packages."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
    shutil.copytree(ROOT / "hf_gpt", folder / "source" / "hf_gpt", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / "source")
    # The wheel is made from the source distribution, which so has all that it needs.
    said = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", "source", cwd=folder)
    assert not re.search(r"absent from the .packages. configuration|\w+Warning:|deprecated", said), said
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    packages = next((environment / "lib").glob("python*")) / "site-packages"
    # Of a folder that is named here nothing is run, so that no editable install of ours comes along.
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path) + "\n")
    (wheel,) = (folder / "dist").glob("*.whl")
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return environment


@pytest.mark.slow
def test_the_wheel_has_every_module_and_all_data(installed, tmp_path):
    count = run(installed / "bin" / "python", "-W", "ignore", "-c", IMPORT_ALL, *OPTIONAL, cwd=tmp_path)
    modules = [
        path
        for path in (ROOT / "hf_gpt").rglob("*.py")
        if all((parent / "__init__.py").is_file() for parent in package_folders(path))
    ]
    assert int(count.split()[-1]) == len(modules) - 1
    run(installed / "bin" / "python", "-W", "ignore", "-c", USE_DATA, cwd=tmp_path)


@pytest.mark.slow
def test_the_wheel_takes_the_first_steps_of_the_demo_in_an_empty_folder(installed, tmp_path):
    command = installed / "bin" / "hf-gpt"
    assert "usage: hf-gpt <command>" in run(command, "--help", cwd=tmp_path)
    size = ["--config_overrides", "hidden_size=16,num_hidden_layers=1,num_attention_heads=2"]
    steps = ["--max_steps", "2", "--max_length", "64", "--sample_max_new_tokens", "4", "--report_to", "none"]
    run(command, "pretrain", "--config", "demo", "--output_dir", "run", *size, *steps, cwd=tmp_path, timeout=300)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert run(command, "generate", "run", "ROMEO:", "--max_new_tokens", "3", cwd=tmp_path).startswith("ROMEO:")


@pytest.mark.slow
def test_a_checkout_has_all_packages_without_a_finder(tmp_path):
    code = "import hf_gpt.training.trainer, eval.experiments.resampling"
    paths = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
    run(sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths!r}; {code}", cwd=tmp_path)
