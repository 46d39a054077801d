"""A training loop of your own with Accelerate, without any Trainer: one process, or several by `accelerate launch`.

python training/accelerate_loop.py --output_dir runs/training/accelerate_loop
"""

import itertools
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Iterable, Iterator, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    get_cosine_schedule_with_warmup,
)

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import read_corpus, split_corpus
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--train_file", nargs="+", default=["tinyshakespeare"], help="text files, or a built-in name")
    parser.add_argument("--model_name_or_path", help="model to begin from; left out: a new small one")
    parser.add_argument("--output_dir", default="runs/training/accelerate_loop", help="folder of the trained model")
    parser.add_argument("--max_steps", type=int, default=100, help="training steps")
    parser.add_argument("--max_length", type=int, default=128, help="tokens in a row")
    parser.add_argument("--batch_size", type=int, default=16, help="rows in a step of each process")
    parser.add_argument("--learning_rate", type=float, default=5e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of rows")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, evaluates, saves and prints a sample."""
    args = parse(argv)
    set_seed(args.seed)
    accelerator = Accelerator()
    train_texts, held_out_texts = split_corpus(read_corpus(args.train_file), fraction=0.05, seed=args.seed)
    model, tokenizer = make_model(args, train_texts["text"])
    loaders = [
        DataLoader(
            tokenize_and_pack(texts, tokenizer, args.max_length),
            batch_size=args.batch_size,
            shuffle=texts is train_texts,
            collate_fn=PackedRowsCollator(),
        )
        for texts in (train_texts, held_out_texts)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    # Accelerate steps the schedule once for each process.
    steps = args.max_steps * accelerator.num_processes
    scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=steps // 20, num_training_steps=steps)
    model, optimizer, scheduler, train_loader, held_out_loader = accelerator.prepare(
        model, optimizer, scheduler, *loaders
    )

    model.train()
    for step, batch in enumerate(itertools.islice(without_end(train_loader), args.max_steps), start=1):
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step == 1 or step % 20 == 0:
            accelerator.print(f"step {step}/{args.max_steps}  loss {loss.item():.3f}")

    model.eval()
    with torch.no_grad():
        losses = [accelerator.gather_for_metrics(model(**batch).loss[None]) for batch in held_out_loader]
    accelerator.print(f"held-out loss: {torch.cat(losses).mean():.3f} nats per token")

    accelerator.wait_for_everyone()
    plain_model = accelerator.unwrap_model(model)
    if accelerator.is_main_process:
        plain_model.save_pretrained(args.output_dir)
        tokenizer.save_pretrained(args.output_dir)
        prompt = tokenizer("ROMEO:\n", return_tensors="pt").to(accelerator.device)
        sample = plain_model.generate(**prompt, do_sample=True, max_new_tokens=40)
        print(f"sample:\n{tokenizer.decode(sample[0], skip_special_tokens=True)}")
        print(f"model saved in {args.output_dir}")


def make_model(args: Namespace, texts: Iterable[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model to train and its tokenizer: those that `--model_name_or_path` names, or new small ones."""
    if args.model_name_or_path is not None:
        model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path)
        return model, AutoTokenizer.from_pretrained(args.model_name_or_path)
    tokenizer = train_tokenizer(texts, 1024, model_max_length=args.max_length)
    config = HfGptConfig.preset(
        "nano",
        vocab_size=len(tokenizer),
        max_position_embeddings=args.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return HfGptForCausalLM(config), tokenizer


def without_end(loader: Iterable[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """The batches of one epoch after the other."""
    while True:
        yield from loader


if __name__ == "__main__":
    raise SystemExit(run_program(main))
