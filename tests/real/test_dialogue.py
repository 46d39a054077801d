"""SmolLM2-135M-Instruct on conversations: fine-tuning begins at the model's own loss, by its own template."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_gpt.cli import finetune
from tests.clients.records import record
from tests.real.fetch import REAL_MODELS


pytestmark = pytest.mark.real
MODEL, VERSION = "SmolLM2-135M-Instruct", REAL_MODELS["smollm2"].version
CHAT = [
    {"role": "system", "content": "Answer in few words."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "And of 1789's enemy, England?"},
    {"role": "assistant", "content": "London."},
]


def own_loss(folder, positions):
    """Mean loss of the answers at these positions, by the template's own rendering and cross-entropy by hand."""
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer.apply_chat_template(CHAT, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        losses = -model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    found = []
    for position in positions:
        before, turn = (
            tokenizer.apply_chat_template(CHAT[:end], add_generation_prompt=prompt)["input_ids"]
            for end, prompt in ((position, True), (position + 1, False))
        )
        # Nobody generates the line end behind the token that ends a turn.
        found += losses[len(before) - 1 : len(turn) - 2].tolist()
    return sum(found) / len(found)


@pytest.mark.parametrize(("loss_on", "positions"), [("all_turns", (2, 4)), ("last_turn", (4,))])
def test_the_first_loss_is_the_models_own(loss_on, positions, converted, tmp_path, record_property, capsys):
    path = tmp_path / "chat.jsonl"
    path.write_text((json.dumps({"messages": CHAT}) + "\n") * 4)
    options = [
        "--per_device_train_batch_size=4",
        "--gradient_accumulation_steps=1",
        "--max_steps=1",
        "--learning_rate=0",
        "--optimizer=adamw",
        "--max_length=256",
        "--logging_steps=1",
    ]
    options += [f"--train_file={path}", f"--validation_file={path}", "--max_new_tokens=2", f"--loss_on={loss_on}"]
    # The recipe's dropout is for new models: this one was trained without, and 30 layers of it give a loss of 9.
    options += ["--config_overrides", "hidden_dropout=0.0"]
    run = tmp_path / "run"
    assert finetune.main(["--task=dialogue", f"--model_name_or_path={converted}", f"--output_dir={run}", *options]) == 0
    first = float(re.search(r"step 1/1  loss ([\d.]+)", capsys.readouterr().err)[1])
    expected = own_loss(converted, positions)
    assert first == pytest.approx(expected, abs=1e-3)
    before, after = (load_file(folder / "model.safetensors") for folder in (converted, run / "model"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    opened = AutoTokenizer.from_pretrained(run / "model")
    assert opened.chat_template == AutoTokenizer.from_pretrained(converted).chat_template
    metric = f"{first:.3f} nats per token, the model's own {expected:.3f}"
    record(record_property, MODEL, "real", f"first loss of --task dialogue, {loss_on}", metric, version=VERSION)
