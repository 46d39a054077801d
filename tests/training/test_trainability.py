"""Training that can change nothing, or little, is refused or said before it begins, and at its end."""

import pytest
import torch
from datasets import Dataset

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.adversarial.discriminator.factory import make_discriminator
from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator
from hf_gpt.errors import ConfigError
from hf_gpt.training.monitoring.trainability import same_rows, warn_if_skipped
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


def make_model(**settings) -> HfGptForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return HfGptForCausalLM(HfGptConfig(intermediate_size=16, **sizes, **ids, **settings))


def make_trainer(folder, model=None, rows=None, **settings) -> HfGptTrainer:
    if rows is None:
        rows = [list(range(n, n + 8)) for n in range(16)]
    rows = Dataset.from_list([{"input_ids": row, "labels": row} for row in rows])
    options = {"max_steps": 4, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True}
    options |= {"per_device_train_batch_size": 2, **settings}
    arguments = HfGptTrainingArguments(output_dir=str(folder), **options)
    return HfGptTrainer(model=make_model() if model is None else model, args=arguments, train_dataset=rows)


def weights(model) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_frozen_model_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, make_model().requires_grad_(False))
    with pytest.raises(ConfigError, match=r"nothing to train: all \d+ parameters of HfGptForCausalLM are frozen"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_an_adapter_that_is_not_trained_is_refused(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    adapted = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(tmp_path / "adapter")
    reopened = PeftModel.from_pretrained(make_model(), tmp_path / "adapter")
    with pytest.raises(ConfigError, match="is_trainable=True"):
        make_trainer(tmp_path, reopened).train()


@pytest.mark.parametrize(
    ("settings", "says", "stays"),
    [
        (
            {"learning_rate": 0.0, "optimizer": "adamw"},
            "so that no weight changes: --learning_rate is",
            True,
        ),
        ({"max_steps": 1}, "learning rate is 0 in every step, so that no weight changes: 1 of its 1 steps are", True),
        ({"warmup_steps": 100}, "the warm-up of 100 steps takes the whole run of 4", False),
        ({"warmup_steps": 4, "lr_scheduler_type": "cosine"}, "the warm-up of 4 steps takes the whole run of 4", False),
        ({"warmup_steps": 2}, None, False),
        ({"warmup_steps": 100, "lr_scheduler_type": "constant"}, None, False),
    ],
)
def test_a_learning_rate_that_comes_to_nothing_is_told(tmp_path, caplog, settings, says, stays):
    trainer = make_trainer(tmp_path, **settings)
    before = weights(trainer.model)
    trainer.train()
    assert same(before, weights(trainer.model)) is stays
    assert caplog.text == "" if says is None else says in caplog.text


def test_rows_that_are_all_the_same_are_told(tmp_path, caplog):
    make_trainer(tmp_path, rows=[[1, 2, 3]] * 8, max_steps=2).train()
    assert "the first 8 rows to train on are all the same" in caplog.text


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([{"input_ids": [1]}] * 3, 3),
        ([{"input_ids": [1]}, {"input_ids": [2]}], 0),
        ([{"input_ids": [1], "label": 0}, {"input_ids": [1], "label": 1}], 0),
        ([{"input_ids": [1]}], 0),
        ([{"pixels": [1]}] * 3, 0),
        ([{"input_ids": torch.tensor([1, 2])}] * 2, 2),
        (iter([]), 0),
        (None, 0),
    ],
)
def test_same_rows(rows, count):
    assert same_rows(rows) == count


@pytest.mark.parametrize(("skipped", "says"), [(0, None), (1, None), (2, "2 of 20 steps"), (20, "what it was before")])
def test_steps_that_were_left_out_are_told_at_the_end(caplog, skipped, says):
    warn_if_skipped(skipped, 20)
    assert caplog.text == "" if says is None else says in caplog.text


def test_a_run_of_steps_that_are_not_finite_says_that_it_learned_nothing(tmp_path, caplog):
    trainer = make_trainer(tmp_path, nan_action="skip", optimizer="adamw", weight_decay=0.1)
    compute = trainer.compute_loss
    trainer.compute_loss = lambda *args, **kwargs: compute(*args, **kwargs) * float("nan")
    before = weights(trainer.model)
    trainer.train()
    assert same(before, weights(trainer.model))
    assert "4 of 4 steps changed no weight" in caplog.text


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": -1.0}, {"frozen": True}])
def test_a_critic_that_cannot_learn_is_refused(settings):
    generator = make_model()
    discriminator = make_discriminator("ngram_cnn", generator)
    if settings.pop("frozen", False):
        discriminator.requires_grad_(False)
    rows = [{"prompt_ids": [1], "completion_ids": [3, 4, number % 20 + 5, 2]} for number in range(40)]
    with pytest.raises(ConfigError, match="train"):
        train_discriminator(generator, discriminator, rows, max_new_tokens=4, **settings)
