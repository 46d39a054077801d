"""Batches and rows without any label: no NaN, no change of weights, a warning."""

import logging

import datasets
import pytest
import torch

from hf_gpt.data.collators import PaddingCollator
from hf_gpt.models.loss_hf_gpt import classification_loss, linear_cross_entropy, question_answering_loss
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


def trainer_on(model, rows, tmp_path, eval_rows=None, **options):
    settings = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "max_steps": 2,
        "learning_rate": 0.1,
        "warmup_steps": 0,
        "weight_decay": 0.5,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "train_sampling_strategy": "sequential",
    }
    to_rows = datasets.Dataset.from_list
    return HfGptTrainer(
        model=model,
        args=HfGptTrainingArguments(**{**settings, **options}),
        train_dataset=to_rows(rows),
        eval_dataset=None if eval_rows is None else to_rows(eval_rows),
        data_collator=PaddingCollator(0),
    )


def row(labels):
    ids = [3, 4, 5, 6]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * 4}


NONE, ALL = row([-100] * 4), row([3, 4, 5, 6])


@pytest.mark.parametrize("model_type", ["hf_gpt", "gpt2"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_without_a_label_changes_no_weight_and_is_warned_of(
    make_model, tmp_path, caplog, model_type, optimizer, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("hf_gpt"), "propagate", True)
    model = make_model(model_type)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trainer_on(model, [NONE] * 4, tmp_path, optimizer=optimizer)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "every label of the batch is -100" in caplog.text
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == [0.0, 0.0]


def test_a_step_with_labels_trains_as_ever(make_model, tmp_path):
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer_on(model, [ALL, NONE] * 2, tmp_path).train()
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("model_type", ["hf_gpt", "gpt2"])
def test_an_evaluation_skips_rows_without_labels(make_model, tmp_path, model_type):
    model = make_model(model_type)
    some = trainer_on(model, [ALL], tmp_path, eval_rows=[NONE, NONE, ALL, NONE]).evaluate()["eval_loss"]
    assert some == pytest.approx(trainer_on(model, [ALL], tmp_path, eval_rows=[ALL]).evaluate()["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("chunked", ["always", "never"])
def test_the_loss_of_no_label_is_zero_with_zero_gradients(make_model, chunked):
    model = make_model(chunked_loss=chunked).train()
    ids = torch.tensor([[3, 4, 5]])
    for options in ({}, {"num_items_in_batch": torch.tensor(0)}, {"num_items_in_batch": 0}):
        if chunked == "never" and options:
            continue
        model.zero_grad()
        loss = model(ids, labels=torch.full_like(ids, -100), **options).loss
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is None or bool((p.grad == 0).all()) for p in model.parameters())
    mean = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
    torch.testing.assert_close(model(ids, labels=ids).loss, mean)


def test_losses_of_heads_without_a_label_are_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    assert classification_loss(logits, torch.tensor([-100, -100])).item() == 0
    assert linear_cross_entropy(logits, torch.randn(5, 3), torch.tensor([-100, -100])).item() == 0
    outside = torch.tensor([9, 9])
    assert question_answering_loss(logits, logits, outside, outside).item() == 0


def test_padding_changes_no_loss_of_answers(tokenizer):
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_config(AutoConfig.for_model("hf_gpt", vocab_size=320, **sizes)).eval()
    ids, mask = torch.tensor([[3, 4, 5, 6, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    places = {"start_positions": torch.tensor([1]), "end_positions": torch.tensor([2])}
    padded, plain = model(ids, attention_mask=mask, **places), model(ids[:, :4], **places)
    torch.testing.assert_close(padded.loss, plain.loss)
    expected = [
        torch.nn.functional.cross_entropy(logits, positions)
        for logits, positions in zip((plain.start_logits, plain.end_logits), places.values(), strict=True)
    ]
    torch.testing.assert_close(plain.loss, sum(expected) / 2)
