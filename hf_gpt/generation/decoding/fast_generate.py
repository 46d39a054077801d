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
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer
from transformers.generation.utils import GenerateDecoderOnlyOutput
from transformers.utils import ModelOutput

from hf_gpt import compat
from hf_gpt.generation.decoding.cached_decoder import DecoderWeights, make_weights
from hf_gpt.generation.decoding.fingerprint import fingerprint
from hf_gpt.generation.decoding.generate_options import refuse_other_modes, takes_all_options
from hf_gpt.generation.decoding.linear import WeightDtype, check_weight_dtype
from hf_gpt.generation.decoding.native.decoder import NativeWeights, takes
from hf_gpt.generation.decoding.native.speculation import MOST_DRAFTED, SpeculativeDecoder
from hf_gpt.generation.decoding.plain_decoder import can_decode, drops_out
from hf_gpt.generation.sampling.inverse_cdf import likeliest
from hf_gpt.generation.scoring.logprobs import positions_of


# What `generate` gives that a cached decoder knows of itself.
_KNOWN_INPUTS = {"attention_mask", "position_ids", "past_key_values", "use_cache", "cache_position", "logits_to_keep"}

# Those that hold keys and values as they are. Left out, `generate` takes the first.
_EXACT_CACHES = (None, "dynamic", "dynamic_full")

_Weights = DecoderWeights | NativeWeights

# New tokens below which laying out int8 weights takes longer than they save.
_LEAST_SPECULATED = 32

# A model's fingerprint, and weights that were made of it by what they were made for.
_kept: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[Any, dict[Any, _Weights]]]" = weakref.WeakKeyDictionary()


@takes_all_options
def fast_generate(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    weight_dtype: WeightDtype | None = None,
    streamer: BaseStreamer | None = None,
    speculative: bool = True,
    tokenizer: PreTrainedTokenizerBase | None = None,
    assistant_model: PreTrainedModel | None = None,
    assistant_tokenizer: PreTrainedTokenizerBase | None = None,
    synced_gpus: bool = False,
    **model_kwargs: Any,
) -> ModelOutput | torch.LongTensor:
    """Decoding method for `generate(custom_generate=fast_generate, ...)`: greedy or sampled, the same tokens, faster.

    Without `weight_dtype` logits are the model's up to the last digits. With it they are those of the rounded
    weights, and so are returned scores and logits. On a CPU steps are compiled, at first use on a machine, which
    takes one to three seconds (`cached_decoder.make_weights`). What there are no steps for (another class of model,
    an adapter, attentions asked for, a cache that the caller gave, dropout) is generated as without this method,
    under autocast where there is a `weight_dtype`.

    A single text's next tokens are guessed by the weights in int8 where compiled steps have them, and several guesses
    are checked in one step: the same tokens in a third to two thirds of the time (`native.speculation`).

    The weights are laid out at a model's first call with a `weight_dtype` and kept, as much memory again for each type,
    until the model changes or goes. Each call reads all weights once to see whether they did.

    Args:
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs: Given by `generate`.
        weight_dtype: As for `rollout`.
        streamer: As for `generate`.
        speculative: Whether tokens may be guessed, which takes a quarter more memory than the weights in float32.
        tokenizer: As for `generate`, whose stop strings and token healing need it.
        assistant_model, assistant_tokenizer: Refused: this method guesses by itself.
        synced_gpus: As for `generate`.

    Returns:
        (B, T) int64 sequences, or `GenerateDecoderOnlyOutput` with `return_dict_in_generate=True`, without a cache.

    Raises:
        ValueError: beam search, an assistant or another way to generate, or a type that there is not on this device.
    """
    check_weight_dtype(weight_dtype, input_ids.device)
    refuse_other_modes("fast_generate", generation_config, assistant_model)
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    if synced_gpus or not _takes(model, input_ids, mask, generation_config, model_kwargs):
        options = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria, **model_kwargs}
        options |= {"streamer": streamer, "synced_gpus": synced_gpus}
        with _autocast(weight_dtype, input_ids.device):
            return compat.sample(model, input_ids, generation_config=generation_config, **options)
    room = generation_config.max_length - input_ids.shape[1]
    state = _start(model, input_ids, mask, room, weight_dtype, speculative)
    return _decode(state, input_ids, logits_processor, stopping_criteria, generation_config, streamer)


def _start(model, input_ids, mask, room: int, weight_dtype: str | None, speculative: bool):
    """The decoder of these prompts by the model's weights as they are now."""
    laid_out, rows = _weights_of(model), len(input_ids)
    weights = _laid_out(laid_out, model, weight_dtype, rows)
    start = weights.start
    if speculative and _can_draft(weights, rows, room):
        drafts = _laid_out(laid_out, model, "int8", rows)
        start = functools.partial(SpeculativeDecoder, weights=weights, draft_weights=drafts)
    return start(model, input_ids, mask.to(input_ids), room)


def _decode(state, input_ids, logits_processor, stopping_criteria, generation_config, streamer):
    """`GenerationMixin._sample` by a decoder's steps."""
    pad = compat.padding_token(generation_config)
    can_end = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    unfinished = torch.ones(len(input_ids), dtype=torch.int64, device=input_ids.device)
    is_dict = generation_config.return_dict_in_generate
    all_scores = () if is_dict and generation_config.output_scores else None
    all_logits = () if is_dict and generation_config.output_logits else None
    while True:
        logits = state.next_logits().float()
        if logits_processor or is_dict:
            # Who is given them may keep them and write into them, and the next step may write over them.
            logits = logits.clone()
        if all_logits is not None:
            all_logits += (logits.clone(),)
        scores = logits_processor(input_ids, logits)
        if all_scores is not None:
            all_scores += (scores,)
        samples = generation_config.do_sample
        tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0] if samples else likeliest(scores)
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


def _takes(model, input_ids, mask, generation_config, model_kwargs) -> bool:
    # `generate` passes None for much that it has not got.
    given = {name: value for name, value in model_kwargs.items() if value is not None}
    cache = given.get("past_key_values")
    limit = model.config.get_text_config().max_position_embeddings if can_decode(model) else 0
    if (
        not limit
        or drops_out(model)
        or torch.is_autocast_enabled(input_ids.device.type)
        or input_ids.device != model.device
        or not given.keys() <= _KNOWN_INPUTS
        or not given.get("use_cache", True)
        # Whoever gave a cache wants it filled; another kind of cache may round what it holds.
        or compat.is_given_cache(cache)
        or (cache is not None and cache.get_seq_length() > 0)
        or generation_config.cache_implementation not in _EXACT_CACHES
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


def _weights_of(model: torch.nn.Module) -> dict[Any, _Weights]:
    """What has been laid out of the model as it is now."""
    state = fingerprint(model)
    if model not in _kept or _kept[model][0] != state:
        _kept[model] = (state, {})
    return _kept[model][1]


def _laid_out(laid_out: dict[Any, _Weights], model: torch.nn.Module, weight_dtype: str | None, rows: int) -> _Weights:
    # Compiled steps read one layout for any number of rows.
    layout = (weight_dtype, "native" if takes(model, weight_dtype) else rows == 1)
    if layout not in laid_out:
        laid_out[layout] = make_weights(model, weight_dtype, rows)
    return laid_out[layout]


def _can_draft(weights: _Weights, rows: int, new_tokens: int) -> bool:
    """Whether int8 weights can guess what `weights` will say, and that would pay."""
    return (
        rows == 1
        and isinstance(weights, NativeWeights)
        and weights.type in MOST_DRAFTED
        and weights.native.has_int8
        and new_tokens >= _LEAST_SPECULATED
    )


def _autocast(weight_dtype: str | None, device: torch.device) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if weight_dtype is None else torch.autocast(device.type, dtype=torch.bfloat16)
