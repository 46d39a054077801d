from pathlib import Path

import pytest

from tests.clients.reference import Reference, make_reference


@pytest.fixture(scope="package")
def reference(tmp_path_factory) -> Reference:
    """Our model, trained a little, and its greedy tokens."""
    return make_reference(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def converted(request, tmp_path_factory) -> tuple[str, Reference, Path]:
    """A family's name, our model with its switches, and that model as `hf-gpt convert --to` writes it."""
    from hf_gpt.cli.main import main

    folder = tmp_path_factory.mktemp(request.param)
    ours = make_reference(folder / "ours", request.param)
    assert main(["convert", str(ours.folder), str(folder / "converted"), "--to", request.param]) == 0
    return request.param, ours, folder / "converted"
