"""Weights in four and eight bits by bitsandbytes, and PEFT adapters: `make check-bitsandbytes`."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tests.clients.records import equal_tokens, record
from tests.clients.reference import count_equal


bnb = pytest.importorskip("bitsandbytes", reason="make check-bitsandbytes installs it in an environment of its own")


def logits_of(model, reference):
    """Of each prompt with its continuation."""
    with torch.no_grad():
        return [
            model(torch.tensor([ids + new])).logits
            for ids, new in zip(reference.prompt_ids, reference.greedy, strict=True)
        ]


def relative(found, expected):
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "layer", "limit", "options"),
    [
        ("int8", "Linear8bitLt", 0.05, {"load_in_8bit": True}),
        ("nf4", "Linear4bit", 0.3, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    ],
)
def test_fewer_bits(name, layer, limit, options, reference, record_property):
    quantized = AutoModelForCausalLM.from_pretrained(
        reference.folder, dtype=torch.float32, quantization_config=BitsAndBytesConfig(**options)
    )
    projections = [module for key, module in quantized.named_modules() if key.endswith("_proj")]
    assert len(projections) == 12 and all(type(module).__name__ == layer for module in projections)
    difference = relative(logits_of(quantized, reference), logits_of(reference.model, reference))
    assert 0 < difference < limit
    equal, total = count_equal(
        type(reference)(reference.folder, quantized, reference.tokenizer).greedy, reference.greedy
    )
    assert equal > total / 2
    metric = f"relative difference {difference:.1e} at most; {equal_tokens(equal, total)}"
    compared = f"logits and greedy tokens with weights in {name}"
    record(record_property, "bitsandbytes", "bitsandbytes", compared, metric, package="bitsandbytes")


def test_adapter(reference, tmp_path, record_property):
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model

    def load(**options):
        return AutoModelForCausalLM.from_pretrained(reference.folder, dtype=torch.float32, **options)

    torch.manual_seed(0)
    # No target modules: PEFT knows those of our model type.
    adapted = get_peft_model(load(), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False)).eval()
    assert any("q_proj.lora_B" in key for key in adapted.state_dict())
    expected = logits_of(adapted, reference)
    assert relative(expected, logits_of(reference.model, reference)) > 0.01
    adapted.save_pretrained(tmp_path / "adapter")
    opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", dtype=torch.float32).eval()
    assert all(torch.equal(a, b) for a, b in zip(logits_of(opened, reference), expected, strict=True))
    merged = relative(logits_of(opened.merge_and_unload(), reference), expected)
    assert merged < 1e-5
    metric = f"opened again bit-equal, merged: relative difference {merged:.1e} at most"
    record(record_property, "PEFT", "bitsandbytes", "logits with a LoRA adapter", metric, package="peft")
