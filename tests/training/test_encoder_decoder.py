"""A decoder with a prompt and an encoder-decoder are one switch apart in `hf-gpt finetune`."""

import json

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from hf_gpt import HfGptForConditionalGeneration
from hf_gpt.cli.finetune import main
from hf_gpt.data.examples import Example, read_examples, sample_file
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.training.arguments.task import TaskArguments
from hf_gpt.training.tasks import make_task


SIZES = "hidden_size=16,intermediate_size=32,num_hidden_layers=1,num_attention_heads=2"
QUICK = ["--max_steps", "2", "--max_new_tokens", "4", "--max_eval_samples", "3", "--tokenizer_vocab_size", "300"]


def finetune(task, tmp_path, *options, sizes=("--config_overrides", SIZES)):
    arguments = ["--task", task, "--output_dir", str(tmp_path / "run"), *QUICK, *sizes, *options]
    assert main(arguments) == 0
    run = tmp_path / "run"
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    return run / "model", json.loads((run / "metrics.json").read_text()), predictions


def task_of(name, **options):
    task = make_task(TaskArguments(task=name, architecture="encoder_decoder", **options))
    examples = read_examples([sample_file(name)], task.columns)[:4]
    task.learn(examples, [])
    return task, examples


@pytest.mark.parametrize("task", ["summarization", "translation", "closed_book_qa", "dialogue"])
def test_every_task_that_writes_runs_on_its_sample(task, tmp_path):
    columns = ["--source_column", "en", "--target_column", "de"] if task == "translation" else []
    path, metrics, predictions = finetune(task, tmp_path, "--architecture", "encoder_decoder", *columns)
    model = AutoModelForSeq2SeqLM.from_pretrained(path)
    assert type(model) is HfGptForConditionalGeneration
    assert model.generation_config.max_new_tokens == 4
    kind = make_task(TaskArguments(task=task))
    assert f"eval_{kind.main_metric}" in metrics and metrics["eval_loss"] > 0
    assert len(predictions) == 3


def test_loss_and_predictions_are_those_of_the_saved_model(tmp_path):
    path, metrics, predictions = finetune("translation", tmp_path, "--architecture", "encoder_decoder")
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    nats, count = 0.0, 0
    for row in predictions:
        prompt = f"English: {row['en']}\nGerman:"
        source = torch.tensor([[*tokenizer(prompt, add_special_tokens=False).input_ids, tokenizer.eos_token_id]])
        labels = [*tokenizer(row["de"], add_special_tokens=False).input_ids, tokenizer.eos_token_id][:4]
        with torch.no_grad():
            states = torch.tensor([[model.config.decoder_start_token_id, *labels[:-1]]])
            scores = model(source, decoder_input_ids=states).logits[0].log_softmax(-1)
        nats -= scores[torch.arange(len(labels)), labels].sum().item()
        count += len(labels)
        written = tokenizer.decode(model.generate(source)[0], skip_special_tokens=True).strip()
        assert row["prediction"] == written
    assert metrics["eval_loss"] == pytest.approx(nats / count, rel=1e-4)


def test_source_and_target_are_sequences_of_their_own(corpus_text):
    tokenizer = train_tokenizer([corpus_text], 320)
    task, examples = task_of(
        "translation", source_column="en", target_column="de", prompt_template="<{source}>", max_new_tokens=500
    )
    for row, example in zip(task.encode(examples, tokenizer, is_training=True), examples, strict=True):
        assert tokenizer.decode(row["input_ids"]) == f"<{example['en']}>{tokenizer.eos_token}"
        assert tokenizer.decode(row["labels"]) == f"{example['de']}{tokenizer.eos_token}"
    short, _ = task_of("translation", source_column="en", target_column="de", max_length=12, max_new_tokens=64)
    (prompt,) = short.prompts(examples[:1], tokenizer)
    assert len(prompt) == 12 and prompt[-1] == tokenizer.eos_token_id


def test_dialogue_writes_each_turn_of_the_assistant(corpus_text):
    tokenizer = train_tokenizer([corpus_text], 320)
    task, _ = task_of("dialogue", max_new_tokens=50)
    task.prepare_tokenizer(tokenizer)
    talk = Example({"messages": ["hey", "ho", "what now", "nothing"]})
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    rows = [
        (tokenizer.decode(row["input_ids"]), tokenizer.decode(row["labels"]))
        for row in task.encode([talk], tokenizer, is_training=True)
    ]
    first = f"{begin}<|user|>hey<|assistant|>"
    assert rows == [(first, f"ho{end}"), (f"{first}ho{end}<|user|>what now<|assistant|>", f"nothing{end}")]
    (prompt,) = task.prompts([talk], tokenizer)
    assert tokenizer.decode(prompt) == rows[1][0]


def test_decoder_becomes_both_halves(tmp_path, make_model, tokenizer):
    decoder = make_model(max_position_embeddings=512)
    decoder.save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    options = ["--model_name_or_path", str(tmp_path / "decoder"), "--architecture", "encoder_decoder"]
    options += ["--learning_rate", "0", "--optimizer", "adamw"]
    path, _, _ = finetune("translation", tmp_path, *options, sizes=())
    model = AutoModelForSeq2SeqLM.from_pretrained(path)
    expected = decoder.model.layers[1].mlp.up_proj.weight
    for half in (model.model.encoder, model.model.decoder):
        torch.testing.assert_close(half.layers[1].mlp.up_proj.weight, expected)


def test_any_encoder_decoder_is_taken_for_what_it_is(tmp_path, tokenizer):
    config = T5Config(
        vocab_size=320,
        d_model=16,
        d_ff=32,
        d_kv=8,
        num_layers=1,
        num_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    # Without the fields that the task's own recipe sets for our models.
    (tmp_path / "recipe.yaml").write_text(
        "source_column: dialogue\ntarget_column: summary\nlabel_smoothing_factor: 0.1\n"
    )
    options = ["--config", str(tmp_path / "recipe.yaml"), "--model_name_or_path", str(tmp_path / "t5")]
    path, metrics, _ = finetune("summarization", tmp_path, *options, sizes=())
    assert type(AutoModelForSeq2SeqLM.from_pretrained(path)) is T5ForConditionalGeneration
    assert "eval_rougeL" in metrics


def test_adapter_on_an_encoder_decoder(tmp_path, make_model, tokenizer):
    make_model(max_position_embeddings=512).save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    options = ["--model_name_or_path", str(tmp_path / "decoder"), "--architecture", "encoder_decoder", "--use_peft"]
    path, _, predictions = finetune("closed_book_qa", tmp_path, *options, sizes=())
    from peft import AutoPeftModelForSeq2SeqLM

    model = AutoPeftModelForSeq2SeqLM.from_pretrained(path)
    assert type(model.get_base_model()) is HfGptForConditionalGeneration and len(predictions) == 3


def test_tasks_that_do_not_write_have_no_such_switch(tmp_path, capsys):
    arguments = ["--task", "classification", "--output_dir", str(tmp_path), "--architecture", "encoder_decoder"]
    assert main([*arguments, *QUICK]) == 2
    assert "is for tasks that write, and classification does not" in capsys.readouterr().err
