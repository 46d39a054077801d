"""A small GPT from nothing: a tokenizer is trained, the text is packed into rows, and the model learns from them.

    python training/pretrain.py --output_dir runs/training/pretrain

The other scripts begin from what this one saves, if it is given to them as `--model_name_or_path`.
"""

import math
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence

from transformers import set_seed

from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptTrainer, HfGptTrainingArguments
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import count_bytes, read_corpus, split_corpus
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--train_file", nargs="+", default=["tinyshakespeare"], help="text files, or a built-in name")
    parser.add_argument("--output_dir", default="runs/training/pretrain", help="folder of the trained model")
    parser.add_argument("--preset", default="nano", help="size of the model, see HfGptConfig.preset")
    parser.add_argument("--vocab_size", type=int, default=1024, help="most tokens of the tokenizer")
    parser.add_argument("--max_length", type=int, default=128, help="tokens in a row")
    parser.add_argument("--max_steps", type=int, default=200, help="training steps")
    parser.add_argument("--batch_size", type=int, default=16, help="rows in a step")
    parser.add_argument("--prompt", default="ROMEO:\n", help="what the sample at the end begins with")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of rows")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, evaluates, saves and prints a sample."""
    args = parse(argv)
    set_seed(args.seed)
    train_texts, held_out_texts = split_corpus(read_corpus(args.train_file), fraction=0.05, seed=args.seed)
    tokenizer = train_tokenizer(train_texts["text"], args.vocab_size, model_max_length=args.max_length)
    train_rows = tokenize_and_pack(train_texts, tokenizer, args.max_length)
    held_out_rows = tokenize_and_pack(held_out_texts, tokenizer, args.max_length)

    config = HfGptConfig.preset(
        args.preset,
        vocab_size=len(tokenizer),
        max_position_embeddings=args.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    trainer = HfGptTrainer(
        model=HfGptForCausalLM(config),
        args=HfGptTrainingArguments(
            output_dir=args.output_dir,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            # Higher than the default, as suits a model this small.
            learning_rate=5e-3,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=train_rows,
        eval_dataset=held_out_rows,
        processing_class=tokenizer,
        data_collator=PackedRowsCollator(),
        # Bits per byte can be compared between tokenizers, losses per token cannot.
        eval_num_bytes=count_bytes(held_out_texts),
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()

    perplexity = math.exp(metrics["eval_loss"])
    print(f"held-out text: perplexity {perplexity:.1f}, {metrics['eval_bits_per_byte']:.3f} bits per byte")
    prompt = tokenizer(args.prompt, return_tensors="pt").to(trainer.model.device)
    sample = trainer.model.generate(**prompt, do_sample=True, temperature=0.8, max_new_tokens=60)
    print(f"sample:\n{tokenizer.decode(sample[0], skip_special_tokens=True)}")
    print(f"model saved in {args.output_dir}")


if __name__ == "__main__":
    raise SystemExit(run_program(main))
