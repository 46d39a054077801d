"""The controls of sampling on the page, and the settings that they stand for."""

import secrets
from collections.abc import Sequence
from typing import Any

from hf_gpt.app.settings import RANGES, Settings
from hf_gpt.generation.guidance.guided_generate import GUIDANCE


UNGUIDED = "none"
NO_JUDGE = "Start the app with --discriminator to have texts judged."
# In this order on the page and in calls.
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "guidance",
    "num_candidates",
)
_STEPS = {"temperature": 0.05, "top_p": 0.05, "top_k": 1, "min_p": 0.01, "repetition_penalty": 0.05}
_HINTS = {"temperature": "0 takes the likeliest token", "top_k": "0 samples from all tokens"}


def length_and_seed(gradio: Any, most: int) -> list[Any]:
    """How long a text may be, and by which random numbers it is sampled."""
    value = min(Settings.max_new_tokens, most)
    return [
        gradio.Slider(
            1,
            most,
            value=value,
            step=1,
            label="Most new tokens",
            info="the right end is what the model has room for",
            min_width=260,
        ),
        # A field of numbers shows 0 where it is empty.
        gradio.Textbox(
            label="Seed",
            max_lines=1,
            placeholder="random",
            min_width=260,
            info="The same seed gives the same text. Empty: another one each time.",
        ),
    ]


def sampling_controls(gradio: Any, has_judge: bool) -> list[Any]:
    """The rest, in the order of `SAMPLING`."""
    found = []
    for name, step in _STEPS.items():
        label, low, high, _ = RANGES[name]
        value = getattr(Settings, name)
        found.append(gradio.Slider(low, high, value=value, step=step, label=label, info=_HINTS.get(name)))
    ways = [UNGUIDED, *(GUIDANCE if has_judge else ())]
    label, low, high, _ = RANGES["num_candidates"]
    return [
        *found,
        gradio.Dropdown(
            ways,
            value=UNGUIDED,
            label="Guided by the discriminator",
            info=None if has_judge else NO_JUDGE,
            interactive=has_judge,
        ),
        gradio.Slider(
            low,
            high,
            value=Settings.num_candidates,
            step=1,
            label=label,
            info="texts that the discriminator chooses from",
            interactive=has_judge,
        ),
    ]


def chosen_seed(value: Any) -> Any:
    """The seed that was set, or a random one; what is no whole number is left to `Settings` to refuse."""
    text = str("" if value is None else value).strip()
    if not text:
        return secrets.randbelow(2**31)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


def settings_of(length: Any, seed: Any, sampling: Sequence[Any]) -> Settings:
    """The settings of a text.

    Raises:
        ValueError: a value is out of range.
    """
    values = dict(zip(SAMPLING, sampling, strict=True))
    if values["guidance"] == UNGUIDED:
        values["guidance"] = None
    return Settings(max_new_tokens=length, seed=seed, **values)
