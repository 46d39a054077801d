"""Generator against discriminator: both are trained in turn, on speeches of Tiny Shakespeare or texts of yours.

    python training/adversarial.py --output_dir runs/training/adversarial

Left out, `--model_name_or_path` is a new small model, which half of the steps train by likelihood first. What the
metrics mean, and which recipe to choose, is in docs/guides/adversarial.md.
"""

from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hf_gpt import (
    AdversarialConfig,
    AdversarialTrainer,
    HfGptConfig,
    HfGptForCausalLM,
    fast_generate,
    make_discriminator,
)
from hf_gpt.data.corpus import read_corpus, split_corpus
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


# Of a text, its end token included. Most speeches that are kept are shorter.
MAX_NEW_TOKENS = 32


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--train_file", nargs="+", default=["tinyshakespeare"], help="files, blank lines between texts")
    parser.add_argument("--model_name_or_path", help="generator to begin from; left out: a new small model")
    parser.add_argument("--output_dir", default="runs/training/adversarial", help="folder of both models")
    parser.add_argument("--discriminator", default="ngram_cnn", help="ngram_cnn or from_generator")
    parser.add_argument("--max_steps", type=int, default=400, help="steps in all; at least 4")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains both models, says how far it came, saves them and prints texts."""
    args = parse(argv)
    set_seed(args.seed)
    texts = read_corpus(args.train_file, document_separator=r"\n\n")
    texts = texts.filter(lambda row: len(row["text"]) <= 80)
    train_texts, held_out_texts = split_corpus(texts, fraction=0.1, seed=args.seed)
    generator, tokenizer = open_generator(args.model_name_or_path, train_texts["text"])
    is_new = args.model_name_or_path is None

    trainer = AdversarialTrainer(
        model=generator,
        discriminator=make_discriminator(args.discriminator, generator),
        args=AdversarialConfig(
            output_dir=args.output_dir,
            max_steps=args.max_steps,
            # A generator that knows no language has nothing to learn from a discriminator.
            mle_warmup_steps=args.max_steps // 2 if is_new else 0,
            # The discriminator must know what it rewards before the generator follows it.
            discriminator_warmup_steps=args.max_steps // 4,
            per_device_train_batch_size=16,
            max_new_tokens=MAX_NEW_TOKENS,
            learning_rate=1e-3 if is_new else 1e-4,
            discriminator_learning_rate=1e-3,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=train_texts,
        eval_dataset=held_out_texts,
        processing_class=tokenizer,
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()

    print(trainer.describe_updates())
    print(f"likelihood of held-out texts: {metrics['eval_loss']:.3f} nats per token")
    # Where few texts are held out, there is none to train a classifier on.
    if "eval_fresh_auc" in metrics:
        print(f"AUC of a held-out classifier, 0.5 if it cannot tell real texts: {metrics['eval_fresh_auc']:.2f}")
    start = tokenizer(tokenizer.bos_token, return_tensors="pt").to(generator.device)
    options = {"do_sample": True, "max_new_tokens": MAX_NEW_TOKENS, "num_return_sequences": 3}
    samples = generator.generate(**start, **options, custom_generate=fast_generate)
    for text in tokenizer.batch_decode(samples, skip_special_tokens=True):
        print(f"sample: {text!r}")
    print(f"generator and discriminator saved in {args.output_dir}")


def open_generator(path: str | None, texts: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The given checkpoint, or a new small model and its tokenizer."""
    if path is not None:
        return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    tokenizer = train_tokenizer(texts, 1024)
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
