import pytest

from tests.clients.reference import Reference, make_reference


@pytest.fixture(scope="package")
def reference(tmp_path_factory) -> Reference:
    """Our model, trained a little, and its greedy tokens."""
    return make_reference(tmp_path_factory.mktemp("reference"))
