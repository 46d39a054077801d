import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM

from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.packed_dataset import complete_batches, tokenize_and_pack
from hf_gpt.errors import CheckpointError
from hf_gpt.files.checkpoints import last_checkpoint
from hf_gpt.training.monitoring.likelihood import total_nats
from hf_gpt.training.optim.muon_adamw import MuonAdamW
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


@pytest.fixture(scope="session")
def rows(corpus_text, tokenizer):
    documents = datasets.Dataset.from_dict({"text": [part for part in corpus_text.split("\n\n") if part]})
    return tokenize_and_pack(documents, tokenizer, 32)


@pytest.fixture
def make_trainer(rows, tokenizer, make_model, tmp_path):
    def make(folder="run", model=None, eval_rows=None, eval_num_bytes=None, **overrides):
        settings = {
            "output_dir": str(tmp_path / folder),
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "max_steps": 6,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        return HfGptTrainer(
            model=model or make_model(hidden_dropout=0.1),
            args=HfGptTrainingArguments(**{**settings, **overrides}),
            train_dataset=rows,
            eval_dataset=eval_rows,
            eval_num_bytes=eval_num_bytes,
            processing_class=tokenizer,
            data_collator=PackedRowsCollator(),
        )

    return make


def weights(trainer):
    return dict(trainer.model.state_dict())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resume_equals_a_straight_run_bit_for_bit(make_trainer, optimizer):
    options = {"optimizer": optimizer, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2}
    straight = make_trainer("straight", **options, save_total_limit=5)
    straight.train()

    resumed = make_trainer("resumed", **options)
    checkpoint = str(straight.args.output_dir) + "/checkpoint-2"
    for parameter in resumed.model.parameters():
        torch.nn.init.ones_(parameter)
    resumed.train(resume_from_checkpoint=checkpoint)

    expected = weights(straight)
    assert all(torch.equal(expected[name], tensor) for name, tensor in weights(resumed).items())
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry][-4:] for t in (straight, resumed)]
    assert losses[0] == losses[1]


def test_muon_is_used_and_every_group_is_scheduled(make_trainer):
    trainer = make_trainer(muon_learning_rate=3e-2, weight_decay=0.1)
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, MuonAdamW)
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {1e-2, 3e-2}


def test_warmup_stable_decay(make_trainer):
    trainer = make_trainer(max_steps=20, warmup_steps=4, decay_steps=0.5)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates[:5] == pytest.approx([0, 2.5e-3, 5e-3, 7.5e-3, 1e-2])
    assert rates[4:11] == pytest.approx([1e-2] * 7)
    assert rates[11:] == pytest.approx([1e-2 * n / 10 for n in range(9, 0, -1)])
    assert trainer.args.lr_scheduler_kwargs is None


def test_decay_follows_the_given_options(make_trainer):
    trainer = make_trainer(max_steps=10, warmup_steps=0, lr_scheduler_kwargs={"num_decay_steps": 2})
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates[:9] == [1e-2] * 9 and rates[9] == pytest.approx(5e-3)


def test_log_has_throughput_and_time_left(make_trainer):
    trainer = make_trainer()
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(entry["tokens_per_second"] > 0 for entry in logs)
    assert logs[-1]["eta_seconds"] == 0 < logs[0]["eta_seconds"]
    assert trainer.meter.tokens == 6 * 4 * 32


@pytest.mark.parametrize("model_type", ["hf_gpt", "llama"])
@pytest.mark.parametrize("label_smoothing_factor", [0.0, 0.1])
def test_bits_per_byte_counts_every_token_once(
    make_trainer, make_model, rows, tokenizer, model_type, label_smoothing_factor
):
    some = rows.select(range(6))
    model = make_model(model_type)
    trainer = make_trainer(
        model=model,
        eval_rows=complete_batches(some, 4, tokenizer.pad_token_id),
        eval_num_bytes=500,
        label_smoothing_factor=label_smoothing_factor,
    )
    metrics = trainer.evaluate()
    nats, targets = total_nats(model, some, batch_size=1)
    assert metrics["eval_loss"] == pytest.approx(nats / targets, rel=1e-6)
    assert metrics["eval_bits_per_byte"] == pytest.approx(nats / math.log(2) / 500, rel=1e-6)


def test_evaluation_keeps_no_logits(make_trainer, rows):
    trainer = make_trainer(eval_rows=rows)
    seen = []
    original = trainer.prediction_step

    def spy(*args, **kwargs):
        seen.append(original(*args, **kwargs))
        return seen[-1]

    trainer.prediction_step = spy
    trainer.evaluate()
    assert seen and all(logits is None and labels is None for _, logits, labels in seen)


def test_best_checkpoint_is_found_where_it_ends_up(make_trainer, rows):
    trainer = make_trainer(
        eval_rows=rows.select(range(4)),
        load_best_model_at_end=True,
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        save_total_limit=1,
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None and ".incomplete" not in best
    assert json.loads((Path(best) / "trainer_state.json").read_text())["best_model_checkpoint"] == best
    opened = AutoModelForCausalLM.from_pretrained(best)
    assert all(torch.equal(tensor, weights(trainer)[name]) for name, tensor in opened.state_dict().items())


def test_checkpoints_are_whole_and_generate_with_a_cache(make_trainer, tmp_path):
    trainer = make_trainer(save_strategy="steps", save_steps=2, save_total_limit=2)
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert trainer.model.config.use_cache is False
    opened = AutoModelForCausalLM.from_pretrained(last_checkpoint(tmp_path / "run"))
    assert opened.config.use_cache is True


def test_an_error_while_saving_leaves_the_former_checkpoint(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(save_strategy="steps", save_steps=2)
    save = trainer._save_rng_state

    def fail(folder):
        if trainer.state.global_step == 4:
            raise OSError("No space left on device")
        save(folder)

    monkeypatch.setattr(trainer, "_save_rng_state", fail)
    with pytest.raises(CheckpointError, match=r"No space left on device\. checkpoint-2 is complete"):
        trainer.train()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoint-2")


def test_a_kill_while_saving_leaves_the_former_checkpoint(tmp_path):
    script = """
        import os, sys, torch
        from transformers import LlamaConfig, LlamaForCausalLM
        from hf_gpt.training.trainer import HfGptTrainer
        from hf_gpt.training.training_arguments import HfGptTrainingArguments

        class Killed(HfGptTrainer):
            def _save_optimizer_and_scheduler(self, output_dir):
                if self.state.global_step == 2:
                    os.kill(os.getpid(), 9)
                super()._save_optimizer_and_scheduler(output_dir)

        config = LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
        rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 4
        args = HfGptTrainingArguments(sys.argv[1], max_steps=3, save_strategy="steps", save_steps=1)
        Killed(model=LlamaForCausalLM(config), args=args, train_dataset=rows).train()
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True)
    assert process.returncode == -9, process.stderr.decode()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1"]
    assert last_checkpoint(tmp_path).name == "checkpoint-1"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-1")
