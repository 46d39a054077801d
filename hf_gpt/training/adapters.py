"""Adapters (PEFT): LoRA, DoRA, prefix and prompt tuning on a model whose own weights stay as they are."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.errors import ConfigError
from hf_gpt.files.checkpoints import atomic_directory, find_model
from hf_gpt.installation import install_hint
from hf_gpt.training.arguments.adapter import PeftArguments
from hf_gpt.training.arguments.model import ModelArguments


if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

    from hf_gpt.training.training_arguments import HfGptTrainingArguments


# Methods that change weights, which can be merged into the model. The others put something in front of the text.
MERGEABLE = ("lora", "dora")

# Modules that are new on a loaded model, trained and saved whole beside the adapter.
_NEW_HEADS = {
    "SEQ_CLS": ("score", "dense", "pooler"),
    "TOKEN_CLS": ("score",),
    "QUESTION_ANS": ("qa_outputs",),
}


def check_adapter_options(
    peft_args: PeftArguments,
    model_args: ModelArguments,
    training_args: "HfGptTrainingArguments",
    *,
    writes: bool = True,
    packed: bool = False,
) -> None:
    """Refuses adapter options that cannot work together, and sets AdamW: Muon is for whole matrices.

    `writes`: the model is a decoder that writes. `packed`: rows hold several documents, kept apart by positions.

    Raises:
        ConfigError: there is no model to adapt, or the method cannot do what is asked.
    """
    if not peft_args.use_peft:
        if peft_args.merge_adapter:
            raise ConfigError("--merge_adapter needs an adapter: add --use_peft.")
        if peft_args.load_in_4bit:
            raise ConfigError("--load_in_4bit is for models that an adapter is trained on: add --use_peft.")
        return
    is_mergeable = peft_args.peft_method in MERGEABLE
    if peft_args.load_in_4bit:
        _check_quantization(peft_args)
    if model_args.model_name_or_path is None:
        raise ConfigError("--use_peft adapts a trained model: name one with --model_name_or_path.")
    if peft_args.merge_adapter and not is_mergeable:
        raise ConfigError(
            f"--merge_adapter: {peft_args.peft_method} changes no weight and cannot be merged. Use --peft_method lora "
            "or dora, or leave it out."
        )
    if packed and not is_mergeable:
        raise ConfigError(
            f"--peft_method {peft_args.peft_method} ignores positions, by which packed documents are kept apart. Use "
            "lora or dora here."
        )
    if not writes and not is_mergeable:
        raise ConfigError(
            f"--peft_method {peft_args.peft_method} is for models that write, not for a head on top. Use lora or dora."
        )
    if training_args.is_sharded:
        raise ConfigError("--use_peft does not work with --tensor_parallel_size or --fsdp_size. Use --accelerate ddp.")
    training_args.optimizer = "adamw"


def check_new_tokens(peft_args: PeftArguments, tokens: Sequence[str]) -> None:
    """Raises `ConfigError` where tokens are new to the model and the method trains no embedding."""
    if peft_args.use_peft and tokens and peft_args.peft_method not in MERGEABLE:
        raise ConfigError(
            f"--peft_method {peft_args.peft_method} trains no embeddings, and {', '.join(tokens)} are new to the "
            "model. Use lora or dora, or begin from a model with a chat template."
        )


def _check_quantization(peft_args: PeftArguments) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"--load_in_4bit needs bitsandbytes. Install it: {install_hint('qlora')}")
    if peft_args.peft_method not in MERGEABLE:
        raise ConfigError(f"--load_in_4bit is for lora and dora, not for --peft_method {peft_args.peft_method}.")
    if peft_args.merge_adapter:
        raise ConfigError(
            "--merge_adapter would round the merged weights to 4 bits. Leave it out, and merge into the whole model "
            "afterwards: AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()."
        )


def quantization_config(peft_args: PeftArguments, training_args: "HfGptTrainingArguments") -> Any:
    """NF4 with quantised scales, as in QLoRA (https://arxiv.org/abs/2305.14314), or None where weights stay whole."""
    if not peft_args.load_in_4bit:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if training_args.bf16 else torch.float32,
        # Heads are new and trained, or share the weights of the token embeddings.
        llm_int8_skip_modules=["lm_head", *sorted({name for names in _NEW_HEADS.values() for name in names})],
    )


def add_adapter(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    peft_args: PeftArguments,
    model_args: ModelArguments,
    training_args: "HfGptTrainingArguments",
    *,
    peft_type: str,
    new_rows: Sequence[int] = (),
) -> "PeftModel":
    """The model with a new adapter, which alone is trained, together with the head if the head is new.

    An adapter names the folder of the model it is for. Where that model differs from the checkpoint, by a new head,
    other settings or further tokens, it is saved in `base` of the run's folder, so that `AutoPeftModelFor...` opens the
    adapter without being told how.

    Args:
        model, model_args: The loaded model, and where it came from.
        tokenizer: Saved with the base.
        peft_args, training_args: Method and size, folder and process of the run.
        peft_type: PEFT's name of the task: CAUSAL_LM, SEQ_CLS, TOKEN_CLS or QUESTION_ANS.
        new_rows: Tokens that are new to the model, whose embeddings are trained with the adapter.
    """
    from peft import get_peft_model
    from transformers import AutoConfig

    source = find_model(model_args.model_name_or_path)
    former = AutoConfig.from_pretrained(
        source, revision=model_args.model_revision, trust_remote_code=model_args.trust_remote_code
    )
    # Dropout acts in training alone; any other setting makes it another model than the checkpoint's.
    differs = any("dropout" not in name for name in model_args.overrides)
    if peft_type != "CAUSAL_LM" or differs or former.vocab_size != model.config.vocab_size:
        base = Path(training_args.output_dir) / "base"
        if training_args.process_index == 0 and not peft_args.merge_adapter:
            with atomic_directory(base) as folder:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
        source = str(base.resolve())
    elif Path(source).is_dir():
        source = str(Path(source).resolve())
    model.name_or_path = source
    if peft_args.load_in_4bit:
        from peft import prepare_model_for_kbit_training

        # Gradient checkpointing is the Trainer's to switch on.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        for module in model.modules():
            # On a CPU bitsandbytes lays weights out for inference when a model is first evaluated and leaves them so,
            # and through that layout no gradient comes back.
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    config = adapter_config(model, peft_args, peft_type)
    config.base_model_name_or_path = source
    if new_rows:
        config.trainable_token_indices = list(new_rows)
    return get_peft_model(model, config)


def adapter_config(model: PreTrainedModel, peft_args: PeftArguments, peft_type: str) -> "PeftConfig":
    """PEFT's config of the method."""
    from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig

    if peft_args.peft_method in MERGEABLE:
        children = dict(model.named_children())
        names = [name for name in _NEW_HEADS.get(peft_type, ()) if name in children]
        heads = [name for name in names if any(True for _ in children[name].parameters())]
        targets = peft_args.lora_target_modules
        return LoraConfig(
            task_type=peft_type,
            r=peft_args.lora_r,
            lora_alpha=peft_args.lora_alpha,
            lora_dropout=peft_args.lora_dropout,
            target_modules=targets[0] if targets == ["all-linear"] else targets,
            modules_to_save=heads or None,
            use_dora=peft_args.peft_method == "dora",
        )
    kind = PrefixTuningConfig if peft_args.peft_method == "prefix" else PromptTuningConfig
    return kind(task_type=peft_type, num_virtual_tokens=peft_args.num_virtual_tokens)


def merge_adapter(model: Any) -> PreTrainedModel:
    """The plain model with the adapter's change added to its weights."""
    return model.merge_and_unload()
