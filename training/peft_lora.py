"""A LoRA adapter (PEFT) on our model: a new kind of text is learnt while the model's own weights stay as they are.

    python training/peft_lora.py --output_dir runs/training/peft_lora

The texts are the built-in sample of short conversations with their summaries. Left out, `--model_name_or_path` is a
new small model, trained on Tiny Shakespeare first and saved in the folder `base`, where the adapter looks for it.
"""

from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import datasets
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptTrainer, HfGptTrainingArguments
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.examples import read_examples, sample_file, split_examples
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


MAX_LENGTH = 128


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--model_name_or_path", help="model that the adapter is for; left out: a new small one")
    parser.add_argument("--output_dir", default="runs/training/peft_lora", help="folder of the adapter")
    parser.add_argument("--base_steps", type=int, default=80, help="training steps of a new model")
    parser.add_argument("--max_steps", type=int, default=60, help="training steps of the adapter")
    parser.add_argument("--rank", type=int, default=8, help="rank of the change of each matrix")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of texts")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains the adapter, saves it, opens it again and prints what it writes."""
    args = parse(argv)
    set_seed(args.seed)
    base_path = args.model_name_or_path or train_base(args)
    tokenizer = AutoTokenizer.from_pretrained(base_path)
    # Without target_modules the adapter is on the projections of attention that it is on in Llama.
    lora = LoraConfig(task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base_path), lora)
    model.print_trainable_parameters()

    examples = read_examples([sample_file("summarization")], {"source_column": "dialogue", "target_column": "summary"})

    def encode(part: Sequence[dict[str, str]]) -> datasets.Dataset:
        texts = [f"{row['dialogue']}\nSummary: {row['summary']}{tokenizer.eos_token}" for row in part]
        return datasets.Dataset.from_dict(dict(tokenizer(texts, truncation=True, max_length=MAX_LENGTH)))

    train_rows, held_out_rows = map(encode, split_examples(examples, fraction=0.25, seed=args.seed))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            args.output_dir,
            max_steps=args.max_steps,
            per_device_train_batch_size=8,
            # Ten times what all weights would take: an adapter begins as no change at all.
            learning_rate=1e-2,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=train_rows,
        eval_dataset=held_out_rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    tokenizer.save_pretrained(args.output_dir)
    print(f"held-out conversations: {before:.3f} nats per token before, {after:.3f} after")

    again = AutoPeftModelForCausalLM.from_pretrained(args.output_dir)
    prompt = tokenizer("Anna: Will you", return_tensors="pt").to(again.device)
    sample = again.generate(**prompt, do_sample=True, temperature=0.8, max_new_tokens=40)
    print(f"sample:\n{tokenizer.decode(sample[0], skip_special_tokens=True)}")
    print(f"adapter saved in {args.output_dir}")


def train_base(args: Namespace) -> str:
    """Trains a small model on Tiny Shakespeare; returns its folder."""
    folder = str(Path(args.output_dir) / "base")
    corpus = read_corpus(["tinyshakespeare"])
    tokenizer = train_tokenizer(corpus["text"], 1024, model_max_length=MAX_LENGTH)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    options = {"learning_rate": 5e-3, "logging_steps": 20, "save_strategy": "no", "report_to": "none"}
    trainer = HfGptTrainer(
        model=HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=len(tokenizer), **ids)),
        args=HfGptTrainingArguments(folder, max_steps=args.base_steps, seed=args.seed, **options),
        train_dataset=tokenize_and_pack(corpus, tokenizer, MAX_LENGTH),
        processing_class=tokenizer,
        data_collator=PackedRowsCollator(),
    )
    trainer.train()
    trainer.save_model()
    return folder


if __name__ == "__main__":
    raise SystemExit(run_program(main))
