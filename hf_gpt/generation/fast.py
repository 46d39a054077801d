"""`model.generate` by fused and rounded weights: `custom_generate=fast_generate`.

```python
model.generate(**inputs, max_new_tokens=100, custom_generate=fast_generate, weight_dtype="int8")
```
"""

import contextlib
import functools
import weakref
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.generation.utils import GenerateDecoderOnlyOutput
from transformers.utils import ModelOutput

from hf_gpt.generation.decoding import DecoderWeights, can_decode, make_weights
from hf_gpt.generation.drawing import likeliest
from hf_gpt.generation.likelihood import positions_of
from hf_gpt.generation.native.speculation import MOST_DRAFTED, SpeculativeDecoder
from hf_gpt.generation.native.weights import NativeWeights, takes
from hf_gpt.generation.products import WeightDtype, check_weight_dtype


# What `generate` gives that a cached decoder knows of itself.
_KNOWN_INPUTS = {"attention_mask", "position_ids", "past_key_values", "use_cache", "cache_position", "logits_to_keep"}

_Weights = DecoderWeights | NativeWeights

# New tokens below which laying out int8 weights takes longer than they save.
_LEAST_SPECULATED = 32

# The state of a model's parameters, and weights that were made of it by what they were made for.
_kept: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, dict[Any, _Weights]]]" = weakref.WeakKeyDictionary()


def fast_generate(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    weight_dtype: WeightDtype | None = None,
    streamer: BaseStreamer | None = None,
    speculative: bool = True,
    **model_kwargs: Any,
) -> ModelOutput | torch.LongTensor:
    """Decoding method for `generate(custom_generate=fast_generate, ...)`: greedy or sampled, the same tokens, faster.

    Without `weight_dtype` logits are the model's up to the last digits. With it they are those of the rounded weights,
    and so are returned scores and logits. On a CPU steps are compiled, at first use on a machine, which takes one to
    three seconds (`decoding.make_weights`). What there are no steps for (another class of model, an adapter, attentions
    asked for, a cache that holds tokens) is generated as without this method, under autocast where there is a
    `weight_dtype`.

    A single text's next tokens are guessed by the weights in int8 where compiled steps have them, and several guesses
    are checked in one step: the same tokens in a third to two thirds of the time (`native.speculation`).

    The weights are laid out at a model's first call with a `weight_dtype` and kept, as much memory again for each type,
    until a parameter changes in place or the model goes; changes by way of `parameter.data` are not seen.

    Args:
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs: Given by `generate`.
        weight_dtype: As for `rollout`.
        streamer: Gets the new tokens. `generate` keeps the one that it is given, and the prompt is all that it sends:
            bind this one by `functools.partial`.
        speculative: Whether tokens may be guessed, which takes a quarter more memory than the weights in float32.

    Returns:
        (B, T) int64 sequences, or `GenerateDecoderOnlyOutput` with `return_dict_in_generate=True`, without a cache.

    Raises:
        ValueError: beam search, or a type that there is not on this device.
    """
    check_weight_dtype(weight_dtype, input_ids.device)
    if generation_config.num_beams > 1:
        raise ValueError("fast_generate decodes greedily or draws: set num_beams=1.")
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    if not _takes(model, input_ids, mask, generation_config, model_kwargs):
        options = {"stopping_criteria": stopping_criteria, "generation_config": generation_config, **model_kwargs}
        if streamer is not None:
            options["streamer"] = streamer
        with _autocast(weight_dtype, input_ids.device):
            return model._sample(input_ids, logits_processor=logits_processor, **options)

    weights = _weights_of(model, weight_dtype, len(input_ids))
    room = generation_config.max_length - input_ids.shape[1]
    start = weights.start
    if speculative and (drafts := _draft_weights_of(model, weights, len(input_ids), room)) is not None:
        start = functools.partial(SpeculativeDecoder, weights=weights, draft_weights=drafts)
    state = start(model, input_ids, mask.to(input_ids), room)
    pad = generation_config._pad_token_tensor
    can_end = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    unfinished = torch.ones(len(input_ids), dtype=torch.int64, device=input_ids.device)
    all_scores, all_logits = (), ()
    while True:
        logits = state.next_logits().float()
        if generation_config.output_logits:
            # Processors may write into what they are given.
            all_logits += (logits.clone(),)
        scores = logits_processor(input_ids, logits)
        if generation_config.output_scores:
            # The next step may write over the logits.
            all_scores += (scores.clone(),)
        drawn = generation_config.do_sample
        tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0] if drawn else likeliest(scores)
        if can_end:
            tokens = tokens * unfinished + pad * (1 - unfinished)
        if streamer is not None:
            streamer.put(tokens.cpu())
        input_ids = torch.cat([input_ids, tokens[:, None]], -1)
        unfinished = unfinished & ~stopping_criteria(input_ids, all_scores or None)
        if not unfinished.any():
            break
        state.append(tokens)
    if streamer is not None:
        streamer.end()
    if not generation_config.return_dict_in_generate:
        return input_ids
    return GenerateDecoderOnlyOutput(sequences=input_ids, scores=all_scores or None, logits=all_logits or None)


def _takes(model, input_ids, mask, generation_config, model_kwargs) -> bool:
    # `generate` passes None for much that it has not got.
    given = {name: value for name, value in model_kwargs.items() if value is not None}
    cache = given.get("past_key_values")
    limit = model.config.get_text_config().max_position_embeddings if can_decode(model) else 0
    if (
        not limit
        or torch.is_autocast_enabled(input_ids.device.type)
        or not given.keys() <= _KNOWN_INPUTS
        or not given.get("use_cache", True)
        or (cache is not None and cache.get_seq_length() > 0)
        or generation_config.output_attentions
        or generation_config.output_hidden_states
        or not input_ids.shape[1] < generation_config.max_length <= limit
        or mask.shape != input_ids.shape
        # Padding at the left alone, and no row of padding.
        or not bool((mask.diff(dim=-1) >= 0).all() and mask[:, -1].all())
    ):
        return False
    positions = given.get("position_ids")
    if positions is None:
        return True
    # RoPE sees differences alone, so a row may begin anywhere.
    differ = (positions.expand_as(mask) - positions_of(mask)) * mask
    first = differ[:, -1:] if model.config.position_embedding_type != "learned" else 0
    return bool(((differ - first) * mask == 0).all())


def _weights_of(model: torch.nn.Module, weight_dtype: str | None, rows: int) -> _Weights:
    parameters = list(model.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        return make_weights(model, weight_dtype, rows)
    # Compiled steps read one layout for any number of rows.
    layout = (weight_dtype, "native" if takes(model, weight_dtype) else rows == 1)
    state = [(parameter.data_ptr(), parameter._version) for parameter in parameters]
    if model not in _kept or _kept[model][0] != state:
        _kept[model] = (state, {})
    weights = _kept[model][1]
    if layout not in weights:
        weights[layout] = make_weights(model, weight_dtype, rows)
    return weights[layout]


def _draft_weights_of(model: torch.nn.Module, weights: _Weights, rows: int, new_tokens: int) -> NativeWeights | None:
    """Weights that guess what `weights` will say, or None where there are none or they would not pay."""
    if rows > 1 or not isinstance(weights, NativeWeights) or weights.type not in MOST_DRAFTED:
        return None
    # Weights that are not kept would be laid out twice in every call.
    is_kept = model in _kept and weights in _kept[model][1].values()
    if not weights.native.has_int8 or not is_kept or new_tokens < _LEAST_SPECULATED:
        return None
    return _weights_of(model, "int8", rows)


def _autocast(weight_dtype: str | None, device: torch.device) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if weight_dtype is None else torch.autocast(device.type, dtype=torch.bfloat16)
