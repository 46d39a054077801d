"""A small student learns from a teacher's texts alone, against a discriminator that tells teacher and student apart.

    python training/distill.py --output_dir runs/training/distill

Only the teacher's texts are read. The student first learns them by maximum likelihood, then by the discriminator's
score of its own texts (GAD, https://arxiv.org/abs/2511.10643). A teacher that is left out is trained.
"""

from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from hf_gpt import (
    AdversarialConfig,
    AdversarialTrainer,
    HfGptConfig,
    HfGptForCausalLM,
    HfGptTrainer,
    HfGptTrainingArguments,
    SamplingConfig,
    make_discriminator,
    rollout,
)
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.terminal import run_program


MAX_NEW_TOKENS = 24
# Of an answer that is asked for. More than the student learns, or it would take answers that were cut for ended ones.
ANSWER_TOKENS = 32


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--model_name_or_path", help="the teacher; left out: a model that is trained here")
    parser.add_argument("--output_dir", default="runs/training/distill", help="folder of the student")
    parser.add_argument("--teacher_steps", type=int, default=100, help="training steps of a new teacher")
    parser.add_argument("--max_steps", type=int, default=300, help="training steps of the student; at least 4")
    parser.add_argument("--num_prompts", type=int, default=1500, help="prompts that the teacher answers")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Makes or loads the teacher, asks it, trains the student, and prints an answer of each."""
    args = parse(argv)
    set_seed(args.seed)
    options = {"logging_steps": 20, "save_strategy": "no", "report_to": "none", "seed": args.seed}
    speeches = read_corpus(["tinyshakespeare"], document_separator=r"\n\n").shuffle(seed=args.seed)
    if args.model_name_or_path is None:
        tokenizer = train_tokenizer(speeches["text"], 1024)
        teacher = new_model(tokenizer, "nano")
        HfGptTrainer(
            model=teacher,
            args=HfGptTrainingArguments(args.output_dir, max_steps=args.teacher_steps, learning_rate=5e-3, **options),
            train_dataset=tokenize_and_pack(speeches, tokenizer, 128),
            processing_class=tokenizer,
            data_collator=PackedRowsCollator(),
        ).train()
    else:
        tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
        teacher = AutoModelForCausalLM.from_pretrained(args.model_name_or_path)
    # The first line of a speech is its speaker's name: a prompt without a word of the answer.
    prompts = [f"{text.splitlines()[0]}\n" for text in speeches["text"][: args.num_prompts]]
    texts = answers(teacher, tokenizer, prompts)
    rows = [{"prompt": prompt, "completion": text} for prompt, text in zip(prompts, texts, strict=True)]
    student = new_model(tokenizer, "nano", num_hidden_layers=1, hidden_size=64, num_attention_heads=2)
    trainer = AdversarialTrainer(
        model=student,
        discriminator=make_discriminator("ngram_cnn", student),
        args=AdversarialConfig(
            output_dir=args.output_dir,
            max_steps=args.max_steps,
            mle_warmup_steps=args.max_steps // 2,
            discriminator_warmup_steps=args.max_steps // 4,
            # Answers to one prompt are compared: the teacher's with the student's, and the student's with each other.
            discriminator_loss="bradley_terry",
            estimator="grpo",
            per_device_train_batch_size=16,
            group_size=4,
            max_new_tokens=MAX_NEW_TOKENS,
            learning_rate=2e-3,
            discriminator_learning_rate=1e-3,
            **options,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()

    print(trainer.describe_updates())
    print(f"the student's likelihood of the teacher's held-out answers: {metrics['eval_loss']:.3f} nats per token")
    print(f"teacher: {answers(teacher, tokenizer, prompts[:1])[0]!r}")
    print(f"student: {answers(student, tokenizer, prompts[:1])[0]!r}, saved in {args.output_dir}")


def new_model(tokenizer: PreTrainedTokenizerBase, preset: str, **fields: int) -> PreTrainedModel:
    """An untrained model of the tokenizer's tokens."""
    fields |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return HfGptForCausalLM(HfGptConfig.preset(preset, vocab_size=len(tokenizer), **fields))


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[str]:
    """One sampled text for each prompt."""
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True).to(model.device)
    ends = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    sampling = SamplingConfig(max_new_tokens=ANSWER_TOKENS, **ends)
    samples = rollout(model, batch.input_ids, batch.attention_mask, sampling=sampling, batch_size=256)
    return tokenizer.batch_decode(samples.completions, skip_special_tokens=True)


if __name__ == "__main__":
    raise SystemExit(run_program(main))
