"""A converted model plays in the adversarial game."""

import torch
from transformers import AutoModelForCausalLM

from hf_gpt import HfGptForCausalLM
from hf_gpt.conversion.checkpoint import convert
from tests.adversarial.players import logged, make_generator, make_trainer


def test_a_converted_qwen3_trains_two_rounds(tmp_path):
    make_generator("qwen3").save_pretrained(tmp_path / "qwen3")
    convert(tmp_path / "qwen3", tmp_path / "ours")
    generator = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(generator) is HfGptForCausalLM
    before = {name: parameter.detach().clone() for name, parameter in generator.named_parameters()}
    trainer = make_trainer(tmp_path / "run", generator, max_steps=3, discriminator_warmup_steps=1, monitor_steps=1)
    trainer.train()
    assert len(logged(trainer, "reward_mean")) == 2
    changed = [name for name, parameter in generator.named_parameters() if not torch.equal(parameter, before[name])]
    assert any("q_norm" in name for name in changed) and any("gate_proj" in name for name in changed)

    trainer.save_model(str(tmp_path / "trained"))
    convert(tmp_path / "trained", tmp_path / "back", to="qwen3")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "back").eval()
    ids = torch.randint(3, 16, (2, 8))
    with torch.no_grad():
        assert (stock(ids).logits - generator.eval()(ids).logits).abs().max() <= 1e-5
