"""TRL's trainers on our checkpoints, held against our own models: `make check-trl`."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.clients.records import record
from tests.clients.reference import sizes


trl = pytest.importorskip("trl", reason="make check-trl installs it in an environment of its own")
from datasets import Dataset  # noqa: E402 - comes with TRL


PROGRAMS = Path(sys.executable).parent
STEPS = 6
SETTINGS = {
    "per_device_train_batch_size": 8,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}
TEXTS = [f"CITIZEN {n}:\n{'What say you, ' * (1 + n % 3)}master?" for n in range(8)]
# Better and worse answers, which one word tells apart.
PAIRS = [
    {"prompt": f"{name}:\n{verb}", "chosen": f" thee gladly, {noun}.", "rejected": f" thee never, {noun}."}
    for name in ("ROMEO", "JULIET")
    for verb in ("I serve", "I follow")
    for noun in ("sir", "lady", "my lord", "friend")
]
BETA = 0.1


def keep(record_property, compared, metric):
    record(record_property, "TRL", "trl", compared, metric, package="trl")


def logged(log_history, name="loss"):
    return [entry[name] for entry in log_history if name in entry]


def reload(folder, **settings):
    """A model in float32, drawn from nothing that a trainer has touched."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings)


def padded(tokenizer, texts):
    """Texts with their end, padded at the right: inputs, and labels without the padding."""
    rows = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    length = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


def cross_entropies(model, ids, mask):
    """Of each token after the first, (B, T - 1); zero at padding."""
    logits = model(ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return losses * mask[:, 1:]


def train_plainly(model, tokenizer):
    """What supervised finetuning is, in a few lines of torch: the loss of each step."""
    ids, mask = padded(tokenizer, TEXTS)
    optimizer, losses = torch.optim.AdamW(model.parameters(), SETTINGS["learning_rate"], weight_decay=0.0), []
    model.train()
    for _ in range(STEPS):
        loss = cross_entropies(model, ids, mask).sum() / mask[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def assert_losses_equal(found, expected):
    """Returns the greatest difference."""
    assert len(found) == len(expected) == STEPS
    difference = max(abs(ours - theirs) for ours, theirs in zip(expected, found, strict=True))
    assert difference < 1e-5, (found, expected)
    assert found[-1] < found[0]
    return difference


@pytest.mark.parametrize(
    "settings",
    [{}, {"final_logit_softcapping": 5.0, "logit_scale": 2.0}],
    ids=["plain", "softcap"],
)
def test_sft_command_by_autoload(settings, reference, tmp_path, record_property):
    model = reload(reference.folder, **settings)
    model.save_pretrained(tmp_path / "model")
    reference.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "data/train.jsonl").write_text(rows, encoding="utf-8")
    options = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "data"),
        "output_dir": str(tmp_path / "out"),
        "max_steps": STEPS,
        **SETTINGS,
        "save_strategy": "steps",
        "save_steps": STEPS,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    autoload("on")
    try:
        command = [PROGRAMS / "trl", "sft", "--config", tmp_path / "config.yaml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    finally:
        autoload("off")
    assert done.returncode == 0, done.stderr[-3000:]
    expected = train_plainly(model, reference.tokenizer)
    state = json.loads((tmp_path / f"out/checkpoint-{STEPS}/trainer_state.json").read_text(encoding="utf-8"))
    difference = assert_losses_equal(logged(state["log_history"]), expected)
    trained = dict(reload(tmp_path / "out").named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained[name], parameter, rtol=1e-3, atol=1e-4)
    what = "losses of 6 steps of `trl sft`, by autoload" + (", logits scaled and softcapped" if settings else "")
    keep(record_property, what, f"max difference {difference:.1e}")


def autoload(action):
    """Of the environment that the tests run in."""
    subprocess.run([PROGRAMS / "hf-gpt", "autoload", action], check=True, timeout=60, capture_output=True)


def test_dpo(reference, tmp_path, record_property):
    config = trl.DPOConfig(output_dir=str(tmp_path), beta=BETA, max_steps=STEPS, **SETTINGS)
    trainer = trl.DPOTrainer(str(reference.folder), args=config, train_dataset=Dataset.from_list(PAIRS))
    assert type(trainer.model).__name__ == "HfGptForCausalLM"
    trainer.train()
    losses = logged(trainer.state.log_history)
    assert abs(losses[0] - math.log(2)) < 1e-6
    assert losses[-1] < losses[0]

    # DPO, equation 7 (https://arxiv.org/abs/2305.18290), from whole texts: prompts cancel out of the ratios.
    ratios = {}
    for name in ("chosen", "rejected"):
        ids, mask = padded(reference.tokenizer, [row["prompt"] + row[name] for row in PAIRS])
        with torch.no_grad():
            policy, frozen = (
                -cross_entropies(model.eval(), ids, mask).sum(1) for model in (trainer.model, reload(reference.folder))
            )
        prompts = [len(reference.tokenizer(row["prompt"])["input_ids"]) for row in PAIRS]
        shared = torch.arange(1, ids.shape[1]) < torch.tensor(prompts)[:, None]
        before = [(-cross_entropies(model, ids, mask) * shared).sum(1) for model in (trainer.model, reference.model)]
        ratios[name] = (policy - before[0]) - (frozen - before[1])
    margins = BETA * (ratios["chosen"] - ratios["rejected"]).detach()
    expected = -torch.nn.functional.logsigmoid(margins).mean().item()
    found = trainer.evaluate(trainer.train_dataset)
    assert found["eval_loss"] == pytest.approx(expected, abs=1e-5)
    accuracy = (margins > 0).float().mean().item()
    assert found["eval_rewards/accuracies"] == pytest.approx(accuracy) and accuracy > 0.9
    metric = f"first loss ln 2 to {abs(losses[0] - math.log(2)):.0e}, last to {abs(found['eval_loss'] - expected):.0e}"
    keep(record_property, "DPOTrainer's loss and ours", metric)


def make_discriminator(model_type, tokenizer, folder):
    settings = sizes(tokenizer)
    if model_type == "hf_ngram_cnn":
        settings = {name: value for name, value in settings.items() if name == "vocab_size" or name.endswith("_id")}
        settings |= {"kernel_sizes": [1, 2, 3], "num_filters": [16, 16, 16], "classifier_dropout": 0.0}
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, num_labels=1, **settings)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rewards(folder, tokenizer, name, rows):
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ids, mask = padded(tokenizer, [row["prompt"] + row[name] for row in rows])
    with torch.no_grad():
        return model(ids, attention_mask=mask).logits[:, 0]


@pytest.mark.parametrize("model_type", ["hf_gpt", "hf_ngram_cnn"])
def test_reward_model(model_type, reference, tmp_path, record_property):
    make_discriminator(model_type, reference.tokenizer, tmp_path / "model")
    held_out = [row for row in PAIRS if "lady" in row["chosen"]]
    rows = [row for row in PAIRS if row not in held_out]
    settings = {**SETTINGS, "per_device_train_batch_size": len(rows), "max_steps": 20}
    config = trl.RewardConfig(output_dir=str(tmp_path / "out"), **settings)
    trainer = trl.RewardTrainer(str(tmp_path / "model"), args=config, train_dataset=Dataset.from_list(rows))
    trainer.train()
    trainer.save_model(tmp_path / "trained")
    losses = logged(trainer.state.log_history)
    margins = [
        rewards(folder, reference.tokenizer, "chosen", pairs) - rewards(folder, reference.tokenizer, "rejected", pairs)
        for folder, pairs in ((tmp_path / "model", rows), (tmp_path / "trained", held_out))
    ]
    first = -torch.nn.functional.logsigmoid(margins[0]).mean().item()
    assert losses[0] == pytest.approx(first, abs=1e-5)
    accuracy = (margins[1] > 0).float().mean().item()
    assert accuracy == 1.0 and losses[-1] < 0.2
    apart = f"first loss {abs(losses[0] - first):.0e} apart"
    metric = f"{apart}, loss {losses[0]:.3f} to {losses[-1]:.3f}, new pairs right: {accuracy:.0%}"
    keep(record_property, f"RewardTrainer on our one-label classifier ({model_type})", metric)


def test_grpo_with_a_checkpoint_as_its_reward(reference, tmp_path, record_property):
    make_discriminator("hf_gpt", reference.tokenizer, tmp_path / "discriminator")
    seen = []

    def spy(prompts, completions, **kwargs):
        seen.append([prompt + completion for prompt, completion in zip(prompts, completions, strict=True)])
        return [0.0] * len(prompts)

    config = trl.GRPOConfig(
        output_dir=str(tmp_path / "out"), num_generations=4, max_completion_length=8, max_steps=2, **SETTINGS
    )
    trainer = trl.GRPOTrainer(
        str(reference.folder),
        reward_funcs=[str(tmp_path / "discriminator"), spy],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in PAIRS]),
    )
    trainer.train()
    (name,) = {
        key
        for entry in trainer.state.log_history
        for key in entry
        if key.startswith("rewards/") and key.endswith("mean")
    } - {"rewards/spy/mean"}
    discriminator = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "discriminator", dtype=torch.float32
    ).eval()
    means = []
    for texts in seen:
        rows = [torch.tensor([reference.tokenizer(text)["input_ids"]]) for text in texts]
        with torch.no_grad():
            means.append(torch.stack([discriminator(row).logits[0, 0] for row in rows]).mean().item())
    found = logged(trainer.state.log_history, name)
    assert found == pytest.approx(means, abs=1e-5) and len(found) == 2
    metric = f"max difference {max(abs(a - b) for a, b in zip(found, means, strict=True)):.1e}"
    keep(record_property, "mean reward of GRPOTrainer by a discriminator's path, and its logits", metric)
