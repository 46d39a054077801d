"""The calls that transformers' example scripts make on a checkpoint, in their order, on data at hand.

They are those of `examples/pytorch/{language-modeling/run_clm,text-classification/run_glue,question-answering/run_qa,
translation/run_translation,summarization/run_summarization}.py`, which the library's packages do not carry. Only
transformers and datasets are imported, as by the scripts:

    python example_scripts.py SCRIPT CHECKPOINT OUTPUT    with the code that the checkpoint carries
"""

import json
import sys
from itertools import chain

import datasets
import numpy as np
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


TEXTS = [f"The {number % 7} kings of {number} towns speak of {'peace and ' * (number % 3)}war." for number in range(40)]
PASSAGE = "The shop belongs to two sisters, Ida and Greta. They sell maps, stamps and used novels. " * 3


def options(trust):
    return {"cache_dir": None, "revision": "main", "token": None, "trust_remote_code": trust}


def arguments(output, kind=TrainingArguments, **changes):
    settings = {
        "output_dir": output,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "learning_rate": 1e-3,
    }
    return kind(**{**settings, **changes})


def train_and_save(trainer):
    metrics = trainer.train().metrics
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    trainer.create_model_card(finetuned_from="base", tasks="text-generation")
    return metrics["train_loss"]


def load(auto_class, checkpoint, config, trust, **more):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, use_fast=True, **options(trust))
    return auto_class.from_pretrained(checkpoint, config=config, **options(trust), **more), tokenizer


def run_clm(checkpoint, output, trust):
    raw = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"text": TEXTS}), validation=datasets.Dataset.from_dict({"text": TEXTS[:20]})
    )
    config = AutoConfig.from_pretrained(checkpoint, **options(trust))
    model, tokenizer = load(AutoModelForCausalLM, checkpoint, config, trust, dtype="auto")
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))
    tokenized = raw.map(lambda rows: tokenizer(rows["text"]), batched=True, remove_columns=["text"])
    block_size = tokenizer.model_max_length
    if block_size > config.max_position_embeddings:
        block_size = min(1024, config.max_position_embeddings)

    def group(rows):
        joined = {name: list(chain(*rows[name])) for name in rows}
        total = len(joined["input_ids"]) // block_size * block_size
        result = {name: [ids[i : i + block_size] for i in range(0, total, block_size)] for name, ids in joined.items()}
        return {**result, "labels": result["input_ids"].copy()}

    blocks = tokenized.map(group, batched=True)

    def accuracy(predictions):
        found, labels = predictions
        assert found.shape == labels.shape == (len(blocks["validation"]), block_size)
        return {"accuracy": float((found[:, :-1] == labels[:, 1:]).mean())}

    trainer = Trainer(
        model=model,
        args=arguments(output),
        train_dataset=blocks["train"],
        eval_dataset=blocks["validation"],
        processing_class=tokenizer,
        data_collator=default_data_collator,
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: (
            logits[0] if isinstance(logits, tuple) else logits
        ).argmax(dim=-1),
    )
    return {"train_loss": train_and_save(trainer), "block_size": block_size, **trainer.evaluate()}


def run_glue(checkpoint, output, trust, regression=False):
    labels = [number / 8 for number in range(40)] if regression else [number % 3 for number in range(40)]
    raw = datasets.Dataset.from_dict({"sentence1": TEXTS, "sentence2": TEXTS[::-1], "label": labels})
    names = [] if regression else sorted(raw.unique("label"))
    config = AutoConfig.from_pretrained(
        checkpoint, num_labels=max(1, len(names)), finetuning_task=None, **options(trust)
    )
    model, tokenizer = load(
        AutoModelForSequenceClassification, checkpoint, config, trust, ignore_mismatched_sizes=False
    )
    if not regression:
        assert model.config.label2id == PreTrainedConfig(num_labels=3).label2id
        model.config.label2id = {name: index for index, name in enumerate(names)}
        model.config.id2label = {index: name for name, index in config.label2id.items()}
    length = min(128, tokenizer.model_max_length)
    rows = raw.map(
        lambda batch: tokenizer(
            batch["sentence1"], batch["sentence2"], padding="max_length", max_length=length, truncation=True
        ),
        batched=True,
    )

    def metrics(predictions):
        found = predictions.predictions
        found = found[0] if isinstance(found, tuple) else found
        assert found.shape == (40, max(1, len(names)))
        if regression:
            return {"mse": float(((np.squeeze(found) - predictions.label_ids) ** 2).mean())}
        return {"accuracy": float((found.argmax(1) == predictions.label_ids).mean())}

    steps = {"max_steps": 60, "learning_rate": 1e-2} if regression else {}
    trainer = Trainer(
        model=model,
        args=arguments(output, **steps),
        train_dataset=rows,
        eval_dataset=rows,
        compute_metrics=metrics,
        processing_class=tokenizer,
        data_collator=default_data_collator,
    )
    result = {"train_loss": train_and_save(trainer), **trainer.evaluate()}
    predicted = trainer.predict(rows.remove_columns("label"), metric_key_prefix="predict").predictions
    return {**result, "num_predictions": len(predicted)}


def run_glue_regression(checkpoint, output, trust):
    return run_glue(checkpoint, output, trust, regression=True)


def run_qa(checkpoint, output, trust):
    answers = [("Ida and Greta", "Who owns the shop?"), ("maps", "What is sold?"), (None, "Where is the shop?")] * 3
    examples = [
        {
            "context": PASSAGE,
            "question": question,
            "answers": {
                "text": [text] if text else [],
                "answer_start": [PASSAGE.index(text)] if text else [],
            },
        }
        for text, question in answers
    ]
    config = AutoConfig.from_pretrained(checkpoint, **options(trust))
    model, tokenizer = load(AutoModelForQuestionAnswering, checkpoint, config, trust)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    right = tokenizer.padding_side == "right"
    length = min(384, tokenizer.model_max_length)

    def tokenize(batch):
        first, second = ("question", "context") if right else ("context", "question")
        return tokenizer(
            batch[first],
            batch[second],
            truncation="only_second" if right else "only_first",
            max_length=length,
            stride=8,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )

    def features(batch):
        encoded = tokenize(batch)
        samples = encoded.pop("overflow_to_sample_mapping")
        encoded["start_positions"], encoded["end_positions"], encoded["example_id"] = [], [], samples
        context = 1 if right else 0
        for number, offsets in enumerate(encoded["offset_mapping"]):
            ids, parts = encoded["input_ids"][number], encoded.sequence_ids(number)
            # The place that stands for "no answer": with padding at the left and no begin token, the padding.
            none = ids.index(tokenizer.bos_token_id) if tokenizer.bos_token_id in ids else 0
            given = batch["answers"][samples[number]]
            start = end = none
            if given["answer_start"]:
                begin, stop = given["answer_start"][0], given["answer_start"][0] + len(given["text"][0])
                positions = [position for position, part in enumerate(parts) if part == context]
                if offsets[positions[0]][0] <= begin and offsets[positions[-1]][1] >= stop:
                    start = max(position for position in positions if offsets[position][0] <= begin)
                    end = min(position for position in positions if offsets[position][1] >= stop)
            encoded["start_positions"].append(start)
            encoded["end_positions"].append(end)
        return encoded

    raw = datasets.Dataset.from_list(examples)
    rows = raw.map(features, batched=True, remove_columns=raw.column_names)
    trainer = Trainer(
        model=model,
        args=arguments(output),
        train_dataset=rows,
        eval_dataset=rows.remove_columns(["start_positions", "end_positions"]),
        processing_class=tokenizer,
        data_collator=default_data_collator,
    )
    loss = train_and_save(trainer)
    predictions = trainer.predict(trainer.eval_dataset).predictions
    # The scripts' post-processing takes exactly these two.
    starts, ends = predictions
    assert starts.shape == ends.shape == (len(rows), length)
    finite = bool(np.isfinite(starts).all() and np.isfinite(ends).all())
    return {"train_loss": loss, "finite": finite, "windows": len(rows)}


def run_seq2seq(checkpoint, output, trust):
    """`run_translation.py`; `run_summarization.py` differs in metric and column names alone."""
    raw = datasets.Dataset.from_dict({"source": TEXTS, "target": [text[::-1] for text in TEXTS]})
    config = AutoConfig.from_pretrained(checkpoint, **options(trust))
    model, tokenizer = load(AutoModelForSeq2SeqLM, checkpoint, config, trust)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))
    if model.config.decoder_start_token_id is None:
        raise ValueError("Make sure that `config.decoder_start_token_id` is correctly defined")
    length = 24
    assert getattr(model.config, "max_position_embeddings", length) >= length

    def tokenize(batch):
        inputs = tokenizer(batch["source"], max_length=length, padding=False, truncation=True)
        inputs["labels"] = tokenizer(
            text_target=batch["target"], max_length=length, padding=False, truncation=True
        ).input_ids
        return inputs

    rows = raw.map(tokenize, batched=True, remove_columns=raw.column_names)

    def metrics(predictions):
        found, labels = predictions
        found = found[0] if isinstance(found, tuple) else found
        for ids in (found, labels):
            texts = tokenizer.batch_decode(np.where(ids != -100, ids, tokenizer.pad_token_id), skip_special_tokens=True)
            assert len(texts) == len(TEXTS)
        return {"gen_len": float(np.mean([np.count_nonzero(ids != tokenizer.pad_token_id) for ids in found]))}

    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments(output, Seq2SeqTrainingArguments, predict_with_generate=True, label_smoothing_factor=0.1),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=-100),
        compute_metrics=metrics,
    )
    return {"train_loss": train_and_save(trainer), **trainer.evaluate(max_length=length, num_beams=2)}


if __name__ == "__main__":
    # None in sys.modules makes every import of it fail: the checkpoint's own code must do.
    sys.modules["hf_gpt"] = None
    _, name, path, folder = sys.argv
    print(json.dumps(globals()[name](path, folder, True)))
