"""`from hf_gpt import ...`: one table, the same for Python and type checkers; nothing heavy until it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hf_gpt


def imports_for_type_checkers() -> dict[str, str]:
    """The names under `if TYPE_CHECKING`, and the module of each."""
    tree = ast.parse(Path(hf_gpt.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name: f".{node.module}" for node in block.body for alias in node.names}


def test_type_checkers_and_python_see_the_same_names():
    assert imports_for_type_checkers() == hf_gpt._MODULE_OF
    assert sorted(hf_gpt._MODULE_OF) == sorted(set(hf_gpt.__all__) - {"__version__"})


@pytest.mark.parametrize("name", sorted(hf_gpt.__all__))
def test_every_name_is_there(name):
    assert getattr(hf_gpt, name) is not None and name in dir(hf_gpt)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Nonsense"):
        hf_gpt.Nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, hf_gpt; print(*sorted({'torch', 'transformers', 'datasets', 'peft'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_evaluate_refuses_what_the_command_refuses(tmp_path):
    from hf_gpt.errors import UserError

    with pytest.raises(UserError, match="no task"):
        hf_gpt.evaluate([str(tmp_path)], [])
    with pytest.raises(UserError, match="did you mean limit"):
        hf_gpt.evaluate([str(tmp_path)], ["perplexity"], limt=3)
