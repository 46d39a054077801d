"""What every rank of a distributed test needs, imported once by the server that ranks are forked from."""

import contextlib
import importlib


MODULES = (
    "transformers.models.llama.modeling_llama",
    "transformers.generation.utils",
    "conformance.checkout.test_fsdp_mixin",
    "conformance.checkout.test_tensor_parallel_mixin",
    "hf_gpt.models.modeling_hf_gpt",
)

# A failure here must show in the test that needs the module, not in the server, where nobody reads it.
for name in MODULES:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
