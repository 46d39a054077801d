"""Options: samples for the report. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass, field


@dataclass
class SamplingArguments:
    """What is sampled from the model at the end of the run, for the report."""

    _argument_group_name = "samples"

    sample_prompts: list[str] = field(
        default_factory=lambda: [""],
        metadata={"help": "Prompts continued at the end of the run; an empty one starts a new text."},
    )
    sample_max_new_tokens: int = field(default=200, metadata={"help": "Most tokens that are added to a prompt."})
    sample_temperature: float = field(default=0.8, metadata={"help": "Temperature; 0 takes the likeliest token."})
    sample_top_p: float = field(
        default=0.95, metadata={"help": "Sample from the likeliest tokens of this total probability."}
    )
    sample_batch_size: int = field(default=8, metadata={"help": "Prompts continued at once."})
