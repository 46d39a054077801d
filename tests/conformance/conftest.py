"""Keeps the conformance tests out of the ordinary run and readies them inside their own."""

import os
import random
import sys
from pathlib import Path

import pytest


# They need a download and many minutes: `python -m tests.conformance` sets this.
ENABLED = os.environ.get("HF_GPT_CONFORMANCE") == "1"

collect_ignore = ["standins", "checkout"]
if ENABLED:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
else:
    collect_ignore.append("test_models.py")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Same inputs and weights in every run, so that a failure can be repeated."""
    if not ENABLED:
        return
    import numpy as np
    import torch

    from conformance.checkout import test_modeling_common

    seed = int(os.environ.get("HF_GPT_CONFORMANCE_SEED", "0"))
    for sample in (random.seed, np.random.seed, torch.manual_seed, test_modeling_common.global_rng.seed):
        sample(seed)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not ENABLED or os.environ.get("HF_GPT_CONFORMANCE_ALL") == "1":
        return
    from conformance.deselected import reason_for

    kept, dropped = [], []
    for item in items:
        spec = getattr(getattr(item, "cls", None), "spec", None)
        (dropped if spec and reason_for(spec.name, item.name) else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
