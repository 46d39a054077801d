"""The archive's mixins, imported and told about our model type."""

import os
import sys
import types
from unittest import mock

import transformers.utils

from conformance import source


TINY = source.cache_dir() / "tiny"


def _import_archive() -> None:
    # The pipeline mixin reads the list of the Hub's tiny models while it is imported. Ours are made by `pipelines.py`.
    summary = TINY / "reports" / "tiny_model_summary.json"
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text("{}", encoding="utf-8")
    os.environ["TRANSFORMERS_TINY_MODEL_PATH"] = str(TINY)

    # The archive means to import the package that lies beside it; the one under test is the one installed.
    def installed(path: str, file: str = "__init__.py") -> types.ModuleType:
        return sys.modules["transformers"]

    with mock.patch.object(transformers.utils, "direct_transformers_import", installed):
        import conformance.checkout.test_configuration_common
        import conformance.checkout.test_pipeline_mixin

    # Newer archives name the pipeline tests by where they lie in a checkout; older ones hold the classes themselves.
    for task in conformance.checkout.test_pipeline_mixin.pipeline_test_mapping.values():
        if isinstance(task["test"], str):
            task["test"] = f"conformance.checkout.{task['test'].removeprefix('tests.')}"


_import_archive()

from conformance.checkout import (  # noqa: E402
    distributed_testing_utils,
    test_fsdp_mixin,
    test_tensor_parallel_mixin,
)
from conformance.checkout.causal_lm_tester import CausalLMModelTest, CausalLMModelTester  # noqa: E402
from conformance.checkout.generation.test_utils import GenerationTesterMixin  # noqa: E402
from conformance.checkout.test_fsdp_mixin import FSDPTesterMixin  # noqa: E402
from conformance.checkout.test_modeling_common import ModelTesterMixin  # noqa: E402
from conformance.checkout.test_pipeline_mixin import PipelineTesterMixin  # noqa: E402
from conformance.checkout.test_tensor_parallel_mixin import TensorParallelTesterMixin  # noqa: E402
from conformance.checkout.test_training_mixin import TrainingTesterMixin  # noqa: E402


def _start_ranks_our_way() -> None:
    for mixin in (test_tensor_parallel_mixin, test_fsdp_mixin):
        # Older archives call `mp.spawn` themselves, which costs each rank the import of torch and the library.
        if hasattr(mixin, "mp"):
            mixin.mp = types.SimpleNamespace(spawn=distributed_testing_utils._start_rank_processes)
    # Ranks are processes here: more of them than CPUs only take longer.
    test_fsdp_mixin._get_available_fsdp_workers = lambda: 8


_start_ranks_our_way()


def allow_distributed_tests(model_type: str) -> None:
    """Adds `model_type` to those whose distributed tests run; the library lists only a few of its own."""
    for allowed in (
        test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES,
        test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES,
    ):
        if allowed is not None:
            allowed.add(model_type)


__all__ = [
    "CausalLMModelTest",
    "CausalLMModelTester",
    "FSDPTesterMixin",
    "GenerationTesterMixin",
    "ModelTesterMixin",
    "PipelineTesterMixin",
    "TensorParallelTesterMixin",
    "TrainingTesterMixin",
    "allow_distributed_tests",
]
