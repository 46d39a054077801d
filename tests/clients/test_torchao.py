"""Weights in eight bits by torchao: `make check-torchao`."""

import pytest
import torch
from transformers import AutoModelForCausalLM, TorchAoConfig

from tests.clients.records import equal_tokens, record
from tests.clients.reference import count_equal


pytest.importorskip("torchao", reason="make check-torchao installs it in an environment of its own")


def test_int8_weights(reference, record_property):
    from torchao.quantization import Int8WeightOnlyConfig

    quantized = AutoModelForCausalLM.from_pretrained(
        reference.folder, dtype=torch.float32, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
    )
    kinds = {type(module.weight).__name__ for module in quantized.model.layers.modules() if hasattr(module, "weight")}
    assert "Int8Tensor" in kinds or "AffineQuantizedTensor" in kinds, kinds
    differences = []
    for ids, new in zip(reference.prompt_ids, reference.greedy, strict=True):
        inputs = torch.tensor([ids + new])
        with torch.no_grad():
            expected, found = (model(inputs).logits for model in (reference.model, quantized))
        differences.append(((found - expected).norm() / expected.norm()).item())
    assert max(differences) < 0.05
    quantized_reference = type(reference)(reference.folder, quantized, reference.tokenizer)
    equal, total = count_equal(quantized_reference.greedy, reference.greedy)
    assert equal > total / 2
    metric = f"relative difference {max(differences):.1e} at most; {equal_tokens(equal, total)}"
    record(
        record_property,
        "torchao",
        "torchao",
        "logits and greedy tokens with weights in int8",
        metric,
        package="torchao",
    )
