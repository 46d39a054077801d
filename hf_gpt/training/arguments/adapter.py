"""Options: the adapter. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class PeftArguments:
    """Whether an adapter is trained instead of the model's own weights."""

    _argument_group_name = "adapter"

    use_peft: bool = field(default=False, metadata={"help": "Train an adapter; the model's own weights stay."})
    peft_method: Literal["lora", "dora", "prefix", "prompt"] = field(
        default="lora",
        metadata={"help": "lora, dora: a low-rank change of weights. prefix, prompt: learned states before the text."},
    )
    lora_r: int = field(default=16, metadata={"help": "Rank of the change."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the change, in multiples of 1 / rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on what the change reads."})
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "Modules that are changed, by the end of their names; all-linear: all but the head."},
    )
    num_virtual_tokens: int = field(default=16, metadata={"help": "prefix, prompt: number of learned virtual tokens."})
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "Keep the model's own weights in 4 bits while the adapter is trained (QLoRA, bitsandbytes)."},
    )
    merge_adapter: bool = field(
        default=False, metadata={"help": "Save the model with the change added in, instead of the adapter."}
    )
