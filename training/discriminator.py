"""A discriminator of a generator that stays as it is, and generation guided by it.

    python training/discriminator.py --output_dir runs/training/discriminator

The discriminator learns to tell real texts from the generator's. Its score then says which of the generator's
candidates is most like a real text. Left out, `--model_name_or_path` is a new small model, trained by likelihood first.
"""

from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hf_gpt import (
    HfGptConfig,
    HfGptForCausalLM,
    HfGptTrainer,
    HfGptTrainingArguments,
    guided_generate,
    make_discriminator,
    train_discriminator,
)
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


# Of a text, its end token included. Most speeches that are kept are shorter.
MAX_NEW_TOKENS = 32


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--train_file", nargs="+", default=["tinyshakespeare"], help="files, blank lines between texts")
    parser.add_argument("--model_name_or_path", help="generator; left out: a new small model")
    parser.add_argument("--output_dir", default="runs/training/discriminator", help="folder of the discriminator")
    parser.add_argument("--discriminator", default="ngram_cnn", help="ngram_cnn or from_generator")
    parser.add_argument("--max_steps", type=int, default=100, help="training steps of a new generator")
    parser.add_argument("--epochs", type=int, default=6, help="most passes of the discriminator over the texts")
    parser.add_argument("--num_texts", type=int, default=2000, help="real texts that the discriminator learns from")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains the discriminator, saves it, and prints texts with and without its choice."""
    args = parse(argv)
    set_seed(args.seed)
    texts = read_corpus(args.train_file, document_separator=r"\n\n")
    texts = texts.filter(lambda row: len(row["text"]) <= 80).shuffle(seed=args.seed)
    generator, tokenizer = open_generator(args, texts)

    discriminator = make_discriminator(args.discriminator, generator)
    result = train_discriminator(
        generator,
        discriminator,
        texts["text"][: args.num_texts],
        processing_class=tokenizer,
        max_new_tokens=MAX_NEW_TOKENS,
        epochs=args.epochs,
        seed=args.seed,
    )
    discriminator.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    # At 0.5 the discriminator does no better than chance, and neither does its choice among candidates.
    print(f"AUC on unseen texts: {result.auc:.2f} (95 % interval {result.auc_low:.2f} to {result.auc_high:.2f})")

    start = tokenizer(tokenizer.bos_token, return_tensors="pt").to(generator.device)
    options = {"do_sample": True, "max_new_tokens": MAX_NEW_TOKENS, "num_return_sequences": 3}
    plain = generator.generate(**start, **options)
    guided = generator.generate(
        **start, **options, custom_generate=guided_generate, discriminator=discriminator, num_candidates=8
    )
    for name, sequences in (("plain", plain), ("guided", guided)):
        with torch.no_grad():
            scores = discriminator(
                sequences, attention_mask=sequences.ne(tokenizer.pad_token_id).long()
            ).logits.squeeze(-1)
        for text, score in zip(tokenizer.batch_decode(sequences, skip_special_tokens=True), scores, strict=True):
            print(f"{name}, score {score:+.2f}: {text!r}")
    print(f"discriminator saved in {args.output_dir}")


def open_generator(args: Namespace, texts: datasets.Dataset) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The given checkpoint, or a new small model that is trained by likelihood, and its tokenizer."""
    if args.model_name_or_path is not None:
        path = args.model_name_or_path
        return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    tokenizer = train_tokenizer(texts["text"], 1024)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    model = HfGptForCausalLM(HfGptConfig.preset("nano", vocab_size=len(tokenizer), max_position_embeddings=128, **ids))
    options = {"learning_rate": 5e-3, "logging_steps": 20, "save_strategy": "no", "report_to": "none"}
    HfGptTrainer(
        model=model,
        args=HfGptTrainingArguments(output_dir=args.output_dir, max_steps=args.max_steps, seed=args.seed, **options),
        train_dataset=tokenize_and_pack(texts, tokenizer, 128),
        processing_class=tokenizer,
        data_collator=PackedRowsCollator(),
    ).train()
    return model, tokenizer


if __name__ == "__main__":
    raise SystemExit(run_program(main))
