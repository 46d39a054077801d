"""Nothing that is read from files crashes or hangs; `python -m tests.fuzz` does the same at length."""

import logging

import pytest


pytest.importorskip("hypothesis")

from tests.fuzz.targets import TARGETS, run


COUNTS = {"config.json": 60, "recipe": 30, "safetensors": 300, "tokenizer": 30}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_wrong_files_are_refused_in_words(name, count):
    logging.disable(logging.ERROR)
    try:
        outcomes, faults = run(TARGETS[name](), count, start=1)
    finally:
        logging.disable(logging.NOTSET)
    assert faults == {}
    assert outcomes["refused"] > 0 and outcomes.total() >= count // 2
