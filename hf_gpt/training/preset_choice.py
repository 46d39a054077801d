"""Size of a new model and passes over its text, where nobody names them, what goes with it, and a CPU's time."""

import math
from typing import Any

from hf_gpt.models.configuration_hf_gpt import PRESETS


# Presets that are chosen without being named: larger ones are a decision.
_CHOSEN = ("nano", "micro", "mini", "small", "124m")
# A run on a CPU should end within this time. The rate of a core is that of `nano` in `make demo` on two cores of an AMD
# EPYC with AVX-512, 11 k tokens per second.
_CPU_SECONDS, _FLOPS_OF_A_CORE = 1800, 3e10
# A small text is gone over until there are so many steps, but not more often than this.
_LEAST_STEPS, _MOST_PASSES = 300, 20.0
# Text below this size gets a small model, short rows and a high rate.
_SMALL_TEXT = 4_000_000


def options_for_text(num_bytes: int) -> dict[str, Any]:
    """Options that suit a text of so many bytes, for a new model whose size is left open.

    The vocabulary is the power of 2 nearest to the root of the size, from 512 to 32,768: 1,024 for a megabyte. Of a
    small text, below 4 MB, rows are 256 tokens and the learning rate is 5e-3.
    """
    vocabulary = 2 ** round(math.log2(max(1, num_bytes)) / 2)
    options: dict[str, Any] = {"tokenizer_vocab_size": min(max(vocabulary, 512), 32_768)}
    if num_bytes < _SMALL_TEXT:
        options |= {"max_length": 256, "learning_rate": 5e-3}
    return options


def choose_passes(num_passes: float, steps_of_a_pass: float) -> float:
    """The passes over a text: those given, or more where they are fewer than 300 steps; at most 20 for that.

    Args:
        num_passes: The usual number.
        steps_of_a_pass: Steps of the optimizer in one, above 0.
    """
    return max(num_passes, min(_MOST_PASSES, float(math.ceil(_LEAST_STEPS / steps_of_a_pass))))


def cpu_seconds(num_parameters: float, num_tokens: float, cores: int) -> float:
    """The time that training takes on a CPU, in seconds, at 6 FLOPs for each parameter and token."""
    return 6 * num_parameters * num_tokens / (_FLOPS_OF_A_CORE * cores)


def block_parameters(name: str) -> int:
    """Weights of a preset's blocks: 12 d^2 a layer, for attention and an MLP of width 4 d."""
    preset = PRESETS[name]
    return 12 * preset["hidden_size"] ** 2 * preset["num_hidden_layers"]


def choose_preset(num_tokens: int, num_passes: float, cpu_cores: int | None) -> str:
    """The largest preset up to `124m` that passes over a text and the machine allow; at least `nano`.

    A model may have as many block parameters as the text has tokens: with more it would learn the text by heart. On
    the cores of a CPU training may take half an hour, at 6 FLOPs for each parameter and token. With an accelerator, for
    which `cpu_cores` is None, the time is not limited.
    """
    allowed: float = num_tokens
    if cpu_cores is not None:
        seen = max(1.0, num_tokens * num_passes)
        allowed = min(allowed, _CPU_SECONDS * _FLOPS_OF_A_CORE * cpu_cores / (6 * seen))
    fitting = [name for name in _CHOSEN if block_parameters(name) <= allowed]
    return fitting[-1] if fitting else _CHOSEN[0]
