"""Stands in for the pipeline tests: one check for each text task that our heads serve.

The archive names one module and class per task, in its own way in each version, so the modules are made from the names
that it asks for. A task without a check here gets a class that reports that it has none.
"""

import re
import sys
import types
from typing import Any

from conformance import source

from .checks import CHECKS, NoCheck


NAMED = re.compile(r"\b(test_pipelines_\w+)(?: import |\.)(\w+PipelineTests)\b")


def _make_modules() -> None:
    mixin = (source.tests_dir() / "test_pipeline_mixin.py").read_text(encoding="utf-8")
    for module_name, class_name in set(NAMED.findall(mixin)):
        module: Any = types.ModuleType(f"{__name__}.{module_name}")
        setattr(module, class_name, CHECKS.get(class_name, NoCheck))
        sys.modules[module.__name__] = module


_make_modules()
