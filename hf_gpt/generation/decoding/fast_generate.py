"""Faster `model.generate` by fused or rounded weights: `custom_generate=fast_generate`.

```python
model.generate(**inputs, max_new_tokens=100, custom_generate=fast_generate, weight_dtype="int8")
```
"""

import dataclasses
import functools
import weakref
from typing import Any

import torch
from transformers.generation.utils import GenerateDecoderOnlyOutput
from transformers.utils import ModelOutput

from hf_gpt import compat
from hf_gpt.generation.decoding.cached_decoder import DecoderWeights, make_weights
from hf_gpt.generation.decoding.fingerprint import fingerprint
from hf_gpt.generation.decoding.generate_options import GenerateCall, decoding_method, refuse_other_modes
from hf_gpt.generation.decoding.linear import WeightDtype, autocast_for, check_weight_dtype
from hf_gpt.generation.decoding.native.decoder import NativeWeights, takes
from hf_gpt.generation.decoding.native.speculation import MOST_DRAFTED, SpeculativeDecoder
from hf_gpt.generation.decoding.plain_decoder import can_decode, drops_out
from hf_gpt.generation.sampling.inverse_cdf import likeliest
from hf_gpt.generation.scoring.logprobs import positions_of


# Inputs of `generate` that a cached decoder works out itself.
_KNOWN_INPUTS = {"attention_mask", "position_ids", "past_key_values", "use_cache", "cache_position", "logits_to_keep"}

# Caches that hold keys and values as they are. None: `generate` takes the first.
_EXACT_CACHES = (None, "dynamic", "dynamic_full")

_Weights = DecoderWeights | NativeWeights

# With fewer new tokens, packing the int8 weights takes longer than they save.
_LEAST_SPECULATED = 32

# Of each model its fingerprint, and its packed weights by type and layout.
_kept: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, dict[Any, _Weights]]]" = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class FastOptions:
    """Options of `fast_generate`.

    Args:
        weight_dtype: As for `rollout`.
        speculative: Whether a single text may be decoded speculatively. It takes a quarter more memory than the weights
            in float32.
    """

    weight_dtype: WeightDtype | None = None
    speculative: bool = True


@decoding_method(FastOptions)
def fast_generate(call: GenerateCall, options: FastOptions) -> ModelOutput | torch.LongTensor:
    """Decoding method for `generate(custom_generate=fast_generate, ...)`: greedy or sampled, the same tokens, faster.

    Without `weight_dtype` logits are the model's up to rounding errors. With it, logits and scores are those of the
    rounded weights. On a CPU steps are compiled at first use on a machine, in one to three seconds.
    Other classes of model, adapters, requested attentions, a given cache and dropout run as without this method, under
    autocast where there is a `weight_dtype`.

    A single text is decoded speculatively on CPUs with int8: the int8 weights draft tokens, and the weights proper
    check several of them in one step. The tokens are the same, in a third to two thirds of the time.

    Packed weights are kept until the model changes, as much memory again for each type. Each call reads all weights
    once to see whether they changed.

    Args:
        call: From `generate`.
        options: See `FastOptions`; `generate` takes them as arguments.

    Returns:
        (B, T) int64 sequences, or `GenerateDecoderOnlyOutput` with `return_dict_in_generate=True`, without a cache.

    Raises:
        ValueError: beam search, an assistant or another way to generate, or a type that this device cannot use.
    """
    weight_dtype, input_ids = options.weight_dtype, call.input_ids
    check_weight_dtype(weight_dtype, input_ids.device)
    refuse_other_modes("fast_generate", call)
    mask = call.model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    if call.synced_gpus or not _takes(call, mask):
        with autocast_for(weight_dtype, input_ids.device):
            return call.plain()
    return _decode(_start(call, mask, options), call)


def _start(call: GenerateCall, mask: torch.Tensor, options: FastOptions) -> Any:
    """The decoder of these prompts by the model's current weights."""
    room, rows = call.generation_config.max_length - call.input_ids.shape[1], len(call.input_ids)
    packed = _weights_of(call.model)
    weights = _packed(packed, call.model, options.weight_dtype, rows)
    start = weights.start
    if options.speculative and _can_draft(weights, rows, room):
        drafts = _packed(packed, call.model, "int8", rows)
        start = functools.partial(SpeculativeDecoder, weights=weights, draft_weights=drafts)
    return start(call.model, call.input_ids, mask.to(call.input_ids), room)


def _decode(state: Any, call: GenerateCall) -> ModelOutput | torch.LongTensor:
    """`GenerationMixin._sample` by a decoder's steps."""
    generation_config, streamer, input_ids = call.generation_config, call.streamer, call.input_ids
    logits_processor, stopping_criteria = call.logits_processor, call.stopping_criteria
    pad = compat.padding_token(generation_config)
    can_end = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    unfinished = torch.ones(len(input_ids), dtype=torch.int64, device=input_ids.device)
    is_dict = generation_config.return_dict_in_generate
    all_scores = () if is_dict and generation_config.output_scores else None
    all_logits = () if is_dict and generation_config.output_logits else None
    while True:
        logits = state.next_logits().float()
        if logits_processor or is_dict:
            # The next step writes over them, and a processor may keep them or write into them.
            logits = logits.clone()
        if all_logits is not None:
            all_logits += (logits.clone(),)
        scores = logits_processor(input_ids, logits)
        if all_scores is not None:
            all_scores += (scores,)
        is_sampled = generation_config.do_sample
        tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0] if is_sampled else likeliest(scores)
        if can_end:
            tokens = tokens * unfinished + pad * (1 - unfinished)
        if streamer is not None:
            streamer.put(tokens.cpu())
        input_ids = torch.cat([input_ids, tokens[:, None]], -1)
        unfinished = unfinished & ~stopping_criteria(input_ids, all_scores)
        if not unfinished.any():
            break
        state.append(tokens)
    if streamer is not None:
        streamer.end()
    if not is_dict:
        return input_ids
    return GenerateDecoderOnlyOutput(sequences=input_ids, scores=all_scores, logits=all_logits)


def _takes(call: GenerateCall, mask: torch.Tensor) -> bool:
    model, input_ids, generation_config = call.model, call.input_ids, call.generation_config
    # `generate` passes None for inputs that were not given.
    given = {name: value for name, value in call.model_kwargs.items() if value is not None}
    cache = given.get("past_key_values")
    limit = model.config.get_text_config().max_position_embeddings if can_decode(model) else 0
    if (
        not limit
        or drops_out(model)
        or torch.is_autocast_enabled(input_ids.device.type)
        or input_ids.device != model.device
        or not given.keys() <= _KNOWN_INPUTS
        or not given.get("use_cache", True)
        # A given cache has to be filled; another kind of cache may round keys and values.
        or compat.is_given_cache(cache)
        or (cache is not None and cache.get_seq_length() > 0)
        or generation_config.cache_implementation not in _EXACT_CACHES
        or generation_config.output_attentions
        or generation_config.output_hidden_states
        or not input_ids.shape[1] < generation_config.max_length <= limit
        or mask.shape != input_ids.shape
        # Padding only at the left, and no row of padding alone.
        or not bool((mask.diff(dim=-1) >= 0).all() and mask[:, -1].all())
    ):
        return False
    positions = given.get("position_ids")
    if positions is None:
        return True
    # RoPE sees differences only, so a row may begin anywhere.
    differ = (positions.expand_as(mask) - positions_of(mask)) * mask
    first = differ[:, -1:] if model.config.position_embedding_type != "learned" else 0
    return bool(((differ - first) * mask == 0).all())


def _weights_of(model: torch.nn.Module) -> dict[Any, _Weights]:
    """The packed weights of the model as it is now."""
    state = fingerprint(model)
    if model not in _kept or _kept[model][0] != state:
        _kept[model] = (state, {})
    return _kept[model][1]


def _packed(packed: dict[Any, _Weights], model: torch.nn.Module, weight_dtype: str | None, rows: int) -> _Weights:
    # Compiled steps use one layout for any number of rows.
    layout = (weight_dtype, "native" if takes(model, weight_dtype) else rows == 1)
    if layout not in packed:
        packed[layout] = make_weights(model, weight_dtype, rows)
    return packed[layout]


def _can_draft(weights: _Weights, rows: int, new_tokens: int) -> bool:
    """Whether int8 weights can draft tokens for `weights`, and that pays."""
    return (
        rows == 1
        and isinstance(weights, NativeWeights)
        and weights.type in MOST_DRAFTED
        and weights.native.has_int8
        and new_tokens >= _LEAST_SPECULATED
    )
