"""The `tests` package of a Transformers checkout, laid over three folders.

The archive comes before our stand-ins, which fill in only the modules that it lacks. A folder named by
HF_GPT_CONFORMANCE_EXTRA comes before both: overlay a full checkout's files there to run the parts that the archive
lacks (for example `generation/__init__.py` and `generation/test_utils.py`).
"""

import os
from pathlib import Path

from conformance import source


STANDINS = Path(__file__).resolve().parents[1] / "standins"
EXTRA = os.environ.get("HF_GPT_CONFORMANCE_EXTRA")

__path__ = [*([EXTRA] if EXTRA else []), str(source.tests_dir()), str(STANDINS)]
