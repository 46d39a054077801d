"""Tiny players and texts for the tests of the trainer, in one process and in several."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

import hf_gpt  # noqa: F401 - its models are registered with the Auto classes


VOCAB, BOS, EOS, PAD = 16, 1, 2, 0
IDS = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    **IDS,
}


def make_generator(model_type="hf_gpt", seed=0, **settings):
    torch.manual_seed(seed)
    if model_type == "qwen3":
        settings = {"head_dim": 8, **settings}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZES, **settings}))


def make_discriminator(model_type="hf_ngram_cnn", seed=1, **settings):
    torch.manual_seed(seed)
    small = {"vocab_size": VOCAB, "num_labels": 1, **IDS}
    if model_type == "hf_ngram_cnn":
        small.update(kernel_sizes=[1, 2], num_filters=[12, 12], classifier_dropout=0.1)
    else:
        small = {**SIZES, **small}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(model_type, **{**small, **settings}))


def make_texts(count=96, low=10, seed=0):
    """Texts of the tokens from `low` on, of 2 to 5 tokens: nothing like what a new generator writes."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (count,), generator=generator).tolist()
    return [
        {"input_ids": [BOS, *torch.randint(low, VOCAB, (length,), generator=generator).tolist(), EOS]}
        for length in lengths
    ]


def make_pairs(count=64, seed=0):
    """Prompts of one or two tokens, each answered by its last token twice."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        prompt = torch.randint(3, VOCAB, (1 + number % 2,), generator=generator).tolist()
        rows.append({"prompt_ids": [BOS, *prompt], "completion_ids": [prompt[-1], prompt[-1], EOS]})
    return rows


SETTINGS = {
    "per_device_train_batch_size": 8,
    "max_steps": 6,
    "max_new_tokens": 6,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "constant",
    "discriminator_learning_rate": 3e-3,
    "discriminator_warmup_steps": 1,
    "discriminator_steps": 1,
    "gate_auc": 0.0,
    "logging_steps": 1,
    "save_strategy": "no",
    "num_eval_samples": 0,
    "monitor_steps": 3,
    "replay_size": 32,
    "disable_tqdm": True,
    "report_to": "none",
}


def make_trainer(folder, generator=None, discriminator="default", texts=None, **settings):
    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer

    names = (
        "reward_function",
        "rollout_function",
        "peft_config",
        "discriminator_peft_config",
        "eval_dataset",
        "callbacks",
    )
    others = {name: settings.pop(name) for name in names if name in settings}
    return AdversarialTrainer(
        model=make_generator() if generator is None else generator,
        discriminator=make_discriminator() if discriminator == "default" else discriminator,
        args=AdversarialConfig(output_dir=str(folder), **{**SETTINGS, **settings}),
        train_dataset=make_texts() if texts is None else texts,
        **others,
    )


def logged(trainer, name):
    """The values of a figure over the run."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]
