"""A test class for each spec; HF_GPT_CONFORMANCE_SPECS narrows them down."""

import os

from conformance.specs import BY_NAME, SPECS
from conformance.tester import make_test_class


chosen = os.environ.get("HF_GPT_CONFORMANCE_SPECS")

for spec in [BY_NAME[name] for name in chosen.split(",")] if chosen else SPECS:
    test_class = make_test_class(spec, __name__)
    globals()[test_class.__name__] = test_class
del test_class
