"""Decoding methods for `generate(custom_generate=...)`: what they are given, and what they refuse."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput

from hf_gpt import compat


@dataclasses.dataclass
class GenerateCall:
    """What `generate` hands to a decoding method, after it has read its own arguments.

    Attributes:
        model: The generator.
        input_ids: (B, T) int64, the prompts.
        logits_processor, stopping_criteria, generation_config: As resolved by `generate`.
        model_kwargs: Further inputs of the model.
        streamer, tokenizer, assistant_model, assistant_tokenizer, synced_gpus: As given to `generate`.
    """

    model: PreTrainedModel
    input_ids: torch.LongTensor
    logits_processor: LogitsProcessorList
    stopping_criteria: StoppingCriteriaList
    generation_config: GenerationConfig
    model_kwargs: dict[str, Any]
    streamer: BaseStreamer | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    assistant_model: PreTrainedModel | None = None
    assistant_tokenizer: PreTrainedTokenizerBase | None = None
    synced_gpus: bool = False

    def plain(self) -> ModelOutput | torch.LongTensor:
        """The result of the library's own loop, greedy or sampled."""
        return compat.sample(
            self.model,
            self.input_ids,
            logits_processor=self.logits_processor,
            stopping_criteria=self.stopping_criteria,
            generation_config=self.generation_config,
            streamer=self.streamer,
            synced_gpus=self.synced_gpus,
            **self.model_kwargs,
        )


_GIVEN = ("model", "input_ids", "logits_processor", "stopping_criteria", "generation_config")
_OF_GENERATE = ("streamer", "tokenizer", "assistant_model", "assistant_tokenizer", "synced_gpus")
# Methods that take what `generate` keeps from functions.
_METHODS: set[Callable] = set()


def decoding_method(options: type) -> Callable[[Callable], Callable]:
    """Makes a function of a `GenerateCall` and its options a decoding method for `generate(custom_generate=...)`.

    The fields of the dataclass `options` become arguments of the method, so that `generate` passes them on.
    `generate` also hands over its streamer, tokenizer, assistant and `synced_gpus`, which it drops for other functions.
    An error ends the streamer too, since whoever reads it in another thread would wait for ever.

    Args:
        options: A dataclass that checks its fields.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def method(model, input_ids, logits_processor, stopping_criteria, generation_config, **given: Any) -> Any:
            call = GenerateCall(model, input_ids, logits_processor, stopping_criteria, generation_config, {})
            call.streamer = given.get("streamer")
            try:
                for name in _OF_GENERATE:
                    setattr(call, name, given.pop(name, getattr(call, name)))
                chosen = options(**{name: given.pop(name) for name in own if name in given})
                call.model_kwargs = given
                return function(call, chosen)
            except BaseException:
                if call.streamer is not None:
                    call.streamer.end()
                raise

        own = inspect.signature(options).parameters
        method.__signature__ = _signature(own)
        _METHODS.add(method)
        return method

    return decorate


def _signature(options: Any) -> inspect.Signature:
    """What `generate` reads to see which arguments a method takes."""
    fields = GenerateCall.__dataclass_fields__
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            *(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in _GIVEN),
            *(option.replace(kind=kind) for option in options.values()),
            *(inspect.Parameter(name, kind, default=fields[name].default) for name in _OF_GENERATE),
            inspect.Parameter("model_kwargs", inspect.Parameter.VAR_KEYWORD),
        ]
    )


def _keeping_all(extract: Callable) -> Callable:
    @functools.wraps(extract)
    def wrapper(self, custom_generate, kwargs, *args, **options) -> dict[str, Any]:
        method = custom_generate
        while isinstance(method, functools.partial):
            method = method.func
        if method not in _METHODS:
            return extract(self, custom_generate, kwargs, *args, **options)
        # As for the library's own methods, then as for a function.
        of_library = extract(self, None, kwargs, *args, **options)
        return of_library | extract(self, custom_generate, kwargs, *args, **options)

    return wrapper


compat.wrap_generation_mode_arguments(_keeping_all)


def refuse_other_modes(name: str, call: GenerateCall) -> None:
    """Raises `ValueError` for what is neither greedy decoding nor sampling, such as beams or an assistant."""
    if call.generation_config.num_beams is not None and call.generation_config.num_beams > 1:
        raise ValueError(f"{name} decodes greedily or samples: set num_beams=1.")
    mode = call.generation_config.get_generation_mode(call.assistant_model)
    if mode not in ("greedy_search", "sample"):
        settings = {
            "assisted_generation": "assistant_model, prompt_lookup_num_tokens, assistant_early_exit and use_mtp",
            "contrastive_search": "penalty_alpha",
            "dola_generation": "dola_layers",
            "constrained_beam_search": "constraints and force_words_ids",
        }.get(mode, "the options for it")
        raise ValueError(
            f"{name} decodes greedily or samples, but {mode.replace('_', ' ')} was asked for: leave out {settings}, "
            "or custom_generate."
        )
