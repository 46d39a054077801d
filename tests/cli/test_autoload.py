"""Programs that never import hf_gpt open its checkpoints in an environment where that was asked for."""

import inspect
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
STARTED = "import sys; print('hf_gpt' in sys.modules)"
OPEN = (
    "import sys, transformers; m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]); "
    "print(type(m).__module__, transformers.HfGptForCausalLM is type(m)); "
    "import transformers; print(transformers.HfGptForCausalLM is type(m))"
)


class Environment:
    """A virtual environment with the packages of this one and hf_gpt from its sources."""

    def __init__(self, folder: Path):
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        inner = {"base": str(folder), "platbase": str(folder)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", vars=inner))
        lines = [sysconfig.get_path("purelib"), str(ROOT)]
        (self.packages / "aaa_packages.pth").write_text("\n".join(lines) + "\n")

    def run(self, *argv: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {"HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"], **variables}
        command = [str(self.python), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd="/")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    if os.name == "nt":
        pytest.skip("paths of a POSIX environment")
    return Environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import hf_gpt

    folder = tmp_path_factory.mktemp("checkpoint")
    hf_gpt.HfGptForCausalLM(hf_gpt.HfGptConfig.preset("nano", vocab_size=64)).save_pretrained(folder)
    return str(folder)


def test_on_and_off(environment, checkpoint):
    assert "autoload is off" in environment.run("-m", "hf_gpt", "autoload", "status").stdout
    assert environment.run("-c", OPEN, checkpoint).returncode != 0
    switched = environment.run("-m", "hf_gpt", "autoload", "on")
    assert switched.returncode == 0 and f"autoload is on: {environment.packages}" in switched.stdout
    opened = environment.run("-c", OPEN, checkpoint)
    # The module that was imported at first, and the one that the library has put in its place since.
    assert opened.stdout.split() == ["hf_gpt.models.modeling_hf_gpt", "True", "True"], opened.stderr
    assert environment.run("-c", STARTED).stdout == "True\n"
    assert environment.run("-c", STARTED, HF_GPT_AUTOLOAD="0").stdout == "False\n"
    heavy = "import sys; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    started = environment.run("-c", heavy)
    assert (started.stdout.strip(), started.stderr) == ("[]", "")
    assert "autoload is off" in environment.run("-m", "hf_gpt", "autoload", "off").stdout
    assert environment.run("-c", STARTED).stdout == "False\n"


def test_an_environment_without_the_package_starts_silently(environment):
    environment.run("-m", "hf_gpt", "autoload", "on")
    paths = environment.packages / "aaa_packages.pth"
    before = paths.read_text()
    try:
        paths.write_text("")
        started = environment.run("-c", "print('fine')")
        assert (started.stdout, started.stderr) == ("fine\n", "")
    finally:
        paths.write_text(before)
        environment.run("-m", "hf_gpt", "autoload", "off")


FAKE_VLLM = """
class ModelRegistry:
    models = {}
    @classmethod
    def get_supported_archs(cls):
        return set(cls.models)
    @classmethod
    def register_model(cls, name, place):
        assert name not in cls.models
        cls.models[name] = place
"""


def test_the_entry_point_of_vllm(tmp_path):
    """Not vLLM itself, which is large: that the entry point is there and hands over what vLLM asks for."""
    text = (ROOT / "pyproject.toml").read_text()
    match = re.search(r'\[project\.entry-points\."vllm\.general_plugins"\]\nhf_gpt = "([\w.]+):(\w+)"', text)
    call = f"from {match[1]} import {match[2]} as plugin; plugin(); plugin(); import sys"
    without = subprocess.run(
        [sys.executable, "-c", f"{call}; print('torch' in sys.modules)"], capture_output=True, text=True, timeout=300
    )
    assert (without.stdout.strip(), without.stderr) == ("False", "")
    (tmp_path / "vllm.py").write_text(FAKE_VLLM)
    show = "import vllm, transformers; print(vllm.ModelRegistry.models, transformers.HfGptForCausalLM.__name__)"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {call}; {show}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    backend = "vllm.model_executor.models.transformers:TransformersForCausalLM"
    assert found.stdout.strip() == f"{ {'HfGptForCausalLM': backend} } HfGptForCausalLM", found.stderr


def test_vllm_finds_the_attention_call():
    """Its backend for Transformers models reads the source of `forward`, no further."""
    from hf_gpt.models.layers_hf_gpt import HfGptAttention

    source = inspect.getsource(HfGptAttention.forward)
    assert "ALL_ATTENTION_FUNCTIONS.get_interface(" in source and "scaling=self.scaling" in source
