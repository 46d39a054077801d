import os
from pathlib import Path

import pytest


DATA = Path(os.environ.get("HF_GPT_DATA", Path(__file__).parents[2] / "../shared/data"))

CAPTIONS = [
    "a man riding a wave on top of a surfboard .",
    "a bathroom with a sink , a toilet and a mirror .",
    "two dogs are sitting in the back of a truck .",
    "a kitchen with a stove and a refrigerator .",
    "a man in a suit and tie standing next to a car .",
    "a group of people riding bikes down a city street .",
    "a cat sitting on top of a toilet seat .",
    "the the the cat sat on the mat",
    "a bathroom with a sink , a toilet and a mirror .",
    "airplane",
    "a white plate topped with a piece of cake .",
    "a motorcycle parked on the side of the road .",
]
SAMPLES = [
    "a man riding a surfboard on a a wave .",
    "a bathroom with a toilet .",
    "the the the the the cat",
    "zebra giraffe",
    "a kitchen with a stove , a sink and a mirror and a refrigerator and a toilet .",
    "two",
    "a man in a city street next to a truck .",
]


@pytest.fixture
def captions() -> list[str]:
    return CAPTIONS


@pytest.fixture
def samples() -> list[str]:
    return SAMPLES


@pytest.fixture
def read_data():
    """Reads the lines of a file of the shared data, or skips the test."""

    def read(path: str, limit: int | None = None) -> list[str]:
        file = DATA / path
        if not file.exists():
            pytest.skip(f"{path} is not there; set HF_GPT_DATA to the folder of the data sets")
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()][:limit]

    return read
