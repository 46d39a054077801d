"""Options: the adapter. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass
from typing import Literal

from hf_gpt.option_values import option


@dataclass
class PeftArguments:
    """Whether an adapter is trained instead of the model's own weights."""

    _argument_group_name = "adapter"

    use_peft: bool = option(False, "Train an adapter; the model's own weights stay.")
    peft_method: Literal["lora", "dora", "prefix", "prompt"] = option(
        "lora", "lora, dora: a low-rank change of weights. prefix, prompt: learned states before the text."
    )
    lora_r: int = option(16, "Rank of the change.")
    lora_alpha: int = option(32, "Scale of the change, in multiples of 1 / rank.")
    lora_dropout: float = option(0.0, "Dropout on what the change reads.")
    lora_target_modules: list[str] | None = option(
        ["all-linear"], "Modules that are changed, by the end of their names; all-linear: all but the head."
    )
    num_virtual_tokens: int = option(16, "prefix, prompt: number of learned virtual tokens.")
    load_in_4bit: bool = option(
        False, "Keep the model's own weights in 4 bits while the adapter is trained (QLoRA, bitsandbytes)."
    )
    merge_adapter: bool = option(False, "Save the model with the change added in, instead of the adapter.")
