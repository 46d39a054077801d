"""A classifier of texts: which language a sentence of the built-in sample is in, or the labels of a file of yours.

    python training/finetune.py --output_dir runs/training/finetune

Of `--model_name_or_path` the body is kept and a new head is trained with it; any model of Transformers will do. Left
out, a new small model is trained. `hf-gpt finetune` does the same, and other tasks, without a script.
"""

from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence

import datasets
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
    set_seed,
)

from hf_gpt import HfGptConfig, HfGptForSequenceClassification, HfGptTrainer, HfGptTrainingArguments
from hf_gpt.data.examples import Example, read_examples, sample_file, split_examples
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


MAX_LENGTH = 64


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--train_file", help="rows with the columns text and label; left out: the sample")
    parser.add_argument("--model_name_or_path", help="checkpoint to begin from; left out: a new small model")
    parser.add_argument("--output_dir", default="runs/training/finetune", help="folder of the trained model")
    parser.add_argument("--max_steps", type=int, default=60, help="training steps")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of new weights, the held-out part and the order of rows")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, evaluates, saves, and labels a text that it has not seen."""
    args = parse(argv)
    set_seed(args.seed)
    examples = read_labelled(args.train_file)
    names = sorted({example["label"] for example in examples})
    train_examples, held_out_examples = split_examples(examples, fraction=0.25, seed=args.seed)
    model, tokenizer = open_model(args.model_name_or_path, names, [example["text"] for example in train_examples])

    def encode(part: Sequence[Example]) -> datasets.Dataset:
        texts = tokenizer([example["text"] for example in part], truncation=True, max_length=MAX_LENGTH)
        return datasets.Dataset.from_dict({**texts, "labels": [names.index(example["label"]) for example in part]})

    trainer = HfGptTrainer(
        model=model,
        args=HfGptTrainingArguments(
            output_dir=args.output_dir,
            max_steps=args.max_steps,
            per_device_train_batch_size=8,
            learning_rate=args.learning_rate,
            eval_strategy="steps",
            eval_steps=20,
            # The accuracy is worked out from logits, which are dropped by default.
            prediction_loss_only=False,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=encode(train_examples),
        eval_dataset=encode(held_out_examples),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        is_language_model=False,
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()

    print(f"accuracy on {len(held_out_examples)} held-out texts: {metrics['eval_accuracy']:.0%}")
    text = held_out_examples[0]["text"]
    classify = pipeline("text-classification", model=args.output_dir)
    print(f"{text} -> {classify(text)[0]['label']}; model saved in {args.output_dir}")


def read_labelled(path: str | None) -> list[Example]:
    """The rows of a file, or the sentences of the sample of translations, each labelled with its language."""
    if path is not None:
        return read_examples([path], {"text_column": "text", "label_column": "label"})
    pairs = read_examples([sample_file("translation")], {"source_column": "en", "target_column": "de"})
    return [Example(text=pair[language], label=language) for pair in pairs for language in ("en", "de")]


def open_model(
    path: str | None, names: Sequence[str], texts: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The given checkpoint with a new head, or a new small model and its tokenizer."""
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    if path is not None:
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(names), **labels)
        return model, AutoTokenizer.from_pretrained(path)
    tokenizer = train_tokenizer(texts, 1024, model_max_length=MAX_LENGTH)
    # A classifier may read in both directions, and so few texts are learnt by heart without dropout.
    fields = {"is_causal": False, "classifier_pooling": "mean", "hidden_dropout": 0.2, **labels}
    fields |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = HfGptConfig.preset("nano", vocab_size=len(tokenizer), max_position_embeddings=MAX_LENGTH, **fields)
    return HfGptForSequenceClassification(config), tokenizer


def accuracy(output: EvalPrediction) -> dict[str, float]:
    """The share of texts whose largest logit is that of the true class."""
    return {"accuracy": float((output.predictions.argmax(-1) == output.label_ids).mean())}


if __name__ == "__main__":
    raise SystemExit(run_program(main))
