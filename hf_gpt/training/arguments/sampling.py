"""Options: samples for the report. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass

from hf_gpt.option_values import option


@dataclass
class SamplingArguments:
    """What is sampled from the model at the end of the run, for the report."""

    _argument_group_name = "samples"

    sample_prompts: list[str] = option([""], "Prompts continued at the end of the run; an empty one starts a new text.")
    sample_max_new_tokens: int = option(200, "Most tokens that are added to a prompt.")
    sample_temperature: float = option(0.8, "Temperature; 0 takes the likeliest token.")
    sample_top_p: float = option(0.95, "Sample from the likeliest tokens of this total probability.")
    sample_batch_size: int = option(8, "Prompts continued at once.")
