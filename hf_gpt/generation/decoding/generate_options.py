"""What `generate` is given and keeps from a decoding method that is a function: streamer, tokenizer, assistant."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from transformers import GenerationConfig

from hf_gpt import compat


_Method = TypeVar("_Method", bound=Callable)
_MARK = "takes_all_options_of_generate"


def takes_all_options(method: _Method) -> _Method:
    """Has `generate(custom_generate=method)` hand over what it hands to its own methods, and check it as it does there.

    The library drops `streamer`, `tokenizer`, `assistant_model`, `assistant_tokenizer` and `synced_gpus` for functions:
    a streamer would be waited for without end, and stop strings would miss the tokenizer that was given. The method
    takes them as arguments of those names; they are left out where they are None. `functools.partial` of a method will
    do, too. An error ends the streamer as well: whoever reads it in another thread would wait without end.
    """

    @functools.wraps(method)
    def ending_streamer(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except BaseException:
            if kwargs.get("streamer") is not None:
                kwargs["streamer"].end()
            raise

    setattr(ending_streamer, _MARK, True)
    compat.wrap_generation_mode_arguments(_keeping_all)
    return ending_streamer


def _keeping_all(extract: Callable) -> Callable:
    if getattr(extract, _MARK, False):
        return extract

    @functools.wraps(extract)
    def wrapper(self, custom_generate, kwargs, *args, **options) -> dict[str, Any]:
        method = custom_generate
        while isinstance(method, functools.partial):
            method = method.func
        if not getattr(method, _MARK, False):
            return extract(self, custom_generate, kwargs, *args, **options)
        # As for the library's own methods, then as for a function.
        of_library = extract(self, None, kwargs, *args, **options)
        return of_library | extract(self, custom_generate, kwargs, *args, **options)

    setattr(wrapper, _MARK, True)
    return wrapper


def refuse_other_modes(name: str, generation_config: GenerationConfig, assistant_model: Any = None) -> None:
    """Raises `ValueError` for what is neither greedy decoding nor sampling, such as beams or an assistant."""
    if generation_config.num_beams is not None and generation_config.num_beams > 1:
        raise ValueError(f"{name} decodes greedily or samples: set num_beams=1.")
    mode = generation_config.get_generation_mode(assistant_model)
    if mode not in ("greedy_search", "sample"):
        settings = {
            "assisted_generation": "assistant_model, prompt_lookup_num_tokens, assistant_early_exit and use_mtp",
            "contrastive_search": "penalty_alpha",
            "dola_generation": "dola_layers",
            "constrained_beam_search": "constraints and force_words_ids",
        }.get(mode, "what asks for it")
        raise ValueError(
            f"{name} decodes greedily or samples, and here is asked for {mode.replace('_', ' ')}: leave {settings} "
            "out, or leave custom_generate out."
        )
