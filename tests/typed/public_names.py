"""The public names as a user writes them, for `pyright` to resolve (`make lint`); never run."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel

from hf_gpt import (
    AdversarialConfig,
    AdversarialTrainer,
    HfGptConfig,
    HfGptForCausalLM,
    HfGptForSequenceClassification,
    HfGptTrainer,
    HfGptTrainingArguments,
    SamplingConfig,
    convert,
    evaluate,
    fast_generate,
    guided_generate,
    load,
    make_discriminator,
    pull,
    push,
    rollout,
    train_discriminator,
)


def pretrain(rows: list[dict[str, list[int]]]) -> HfGptForCausalLM:
    model = HfGptForCausalLM(HfGptConfig(vocab_size=320))
    arguments = HfGptTrainingArguments(output_dir="runs/book", max_steps=100)
    HfGptTrainer(model=model, args=arguments, train_dataset=rows).train()
    return model


def play(generator: PreTrainedModel, texts: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained("runs/book/model")
    discriminator = make_discriminator("from_generator", generator)
    train_discriminator(generator, discriminator, texts, processing_class=tokenizer)
    arguments = AdversarialConfig(output_dir="runs/adversarial", max_steps=100)
    AdversarialTrainer(
        model=generator,
        discriminator=discriminator,
        args=arguments,
        train_dataset=texts,
        processing_class=tokenizer,
    ).train()


def sample(generator: PreTrainedModel) -> int:
    return len(rollout(generator, sampling=SamplingConfig(max_new_tokens=8, bos_token_id=0)))


def ways_to_write() -> list[object]:
    return [rollout, fast_generate, guided_generate, HfGptForSequenceClassification]


def carry(folder: Path) -> None:
    convert(str(folder), str(folder / "llama"), "llama")
    load(str(folder))
    push(str(folder), "owner/book")
    pull("owner/book", str(folder))
    evaluate([str(folder)], ["perplexity"], limit=100)["results"]
