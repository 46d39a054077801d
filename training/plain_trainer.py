"""Our model in the Trainer of Transformers, as any of its own: nothing but the model and the text is ours.

python training/plain_trainer.py --output_dir runs/training/plain_trainer
"""

from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence

import datasets
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


MAX_LENGTH = 64


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--train_file", nargs="+", default=["tinyshakespeare"], help="files, blank lines between texts")
    parser.add_argument("--model_name_or_path", help="model to begin from; left out: a new small one")
    parser.add_argument("--output_dir", default="runs/training/plain_trainer", help="folder of the trained model")
    parser.add_argument("--max_steps", type=int, default=150, help="training steps")
    parser.add_argument("--learning_rate", type=float, default=5e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of texts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, evaluates, saves and prints a sample."""
    args = parse(argv)
    set_seed(args.seed)
    texts = read_corpus(args.train_file, document_separator=r"\n\n")
    model, tokenizer = open_model(args.model_name_or_path, texts["text"])

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        # Without a begin and an end token the model learns neither how to begin a text nor when to stop.
        marked = [f"{tokenizer.bos_token}{text}{tokenizer.eos_token}" for text in rows["text"]]
        return dict(tokenizer(marked, truncation=True, max_length=MAX_LENGTH))

    parts: datasets.DatasetDict = texts.train_test_split(test_size=0.05, seed=args.seed).map(
        encode, batched=True, remove_columns=["text"]
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.output_dir,
            max_steps=args.max_steps,
            per_device_train_batch_size=16,
            learning_rate=args.learning_rate,
            warmup_steps=10,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()

    print(f"held-out loss: {metrics['eval_loss']:.3f} nats per token")
    prompt = tokenizer(f"{tokenizer.bos_token}ROMEO:\n", return_tensors="pt").to(model.device)
    sample = model.generate(**prompt, do_sample=True, max_new_tokens=40)
    print(f"sample:\n{tokenizer.decode(sample[0], skip_special_tokens=True)}")
    print(f"model saved in {args.output_dir}")


def open_model(path: str | None, texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The given checkpoint, or a new small model and its tokenizer."""
    if path is not None:
        return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    tokenizer = train_tokenizer(texts, 1024, model_max_length=MAX_LENGTH)
    config = HfGptConfig.preset(
        "nano",
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return HfGptForCausalLM(config), tokenizer


if __name__ == "__main__":
    raise SystemExit(run_program(main))
