"""Who reads logits in training finds them; who does not never holds those of all tokens."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.models import language_head_hf_gpt
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


@pytest.fixture
def seen(monkeypatch):
    """Whether each forward pass of a head gave logits, where any size is a large one."""
    found = []
    monkeypatch.setattr(language_head_hf_gpt, "CHUNKED_LOSS_ELEMENTS", 0)
    inner = language_head_hf_gpt.HfGptLanguageHeadMixin._loss_and_logits

    def watched(self, *args, **kwargs):
        loss, logits = inner(self, *args, **kwargs)
        found.append(logits is not None)
        return loss, logits

    monkeypatch.setattr(language_head_hf_gpt.HfGptLanguageHeadMixin, "_loss_and_logits", watched)
    return found


def run(tmp_path, trainer_class, arguments_class, adapter=False, evaluate=True, arguments=None, **options):
    torch.manual_seed(0)
    model = HfGptForCausalLM(HfGptConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    if adapter:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(3, 30, (4, 8))]
    settings = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    settings |= {"save_strategy": "no", **(arguments or {})}
    trainer = trainer_class(
        model, arguments_class(output_dir=str(tmp_path), **settings), train_dataset=rows, eval_dataset=rows, **options
    )
    trainer.train()
    if evaluate:
        trainer.evaluate()
    return trainer


def own_loss(outputs, labels, num_items_in_batch=None):
    return outputs.logits.float().logsumexp(-1).mean()


class Reading(HfGptTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs)
        loss = own_loss(outputs, None)
        return (loss, outputs) if return_outputs else loss


class ReadingStock(Trainer):
    compute_loss = Reading.compute_loss


@pytest.mark.parametrize("adapter", [False, True])
def test_our_own_trainer_holds_no_logits(tmp_path, seen, adapter):
    run(tmp_path, HfGptTrainer, HfGptTrainingArguments, adapter)
    assert seen and not any(seen)


@pytest.mark.parametrize("kind", ["stock", "reading", "reading stock", "loss function", "label smoothing", "metrics"])
def test_logits_are_there_for_who_reads_them(tmp_path, seen, kind):
    of_ours = (HfGptTrainer, HfGptTrainingArguments)
    if kind in ("stock", "reading stock"):
        run(tmp_path, Trainer if kind == "stock" else ReadingStock, TrainingArguments)
    elif kind == "reading":
        run(tmp_path, Reading, HfGptTrainingArguments)
    elif kind == "loss function":
        run(tmp_path, *of_ours, compute_loss_func=own_loss)
    elif kind == "label smoothing":
        run(tmp_path, *of_ours, evaluate=False, arguments={"label_smoothing_factor": 0.1})
    else:
        shapes = []
        options = {"compute_metrics": lambda prediction: shapes.append(prediction[0].shape) or {}}
        run(tmp_path, Trainer, TrainingArguments, **options)
        assert shapes == [(4, 8, 30)]
    assert seen and all(seen)
