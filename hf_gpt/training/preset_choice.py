"""A size for a new model that fits the text and the machine, where nobody names one."""

from hf_gpt.models.configuration_hf_gpt import PRESETS


# Presets that are chosen without being named: larger ones are a decision.
_CHOSEN = ("nano", "micro", "mini", "small", "124m")
# A run on a CPU should end within this time. The rate of a core is that of `nano` in `make demo` on two cores of an AMD
# EPYC with AVX-512, 11 k tokens per second.
_CPU_SECONDS, _FLOPS_OF_A_CORE = 1800, 3e10


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
