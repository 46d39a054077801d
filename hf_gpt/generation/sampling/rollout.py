"""Batched sampling with the log-probability of every token: the rollouts of adversarial training."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from hf_gpt.generation.decoding.cached_decoder import DecoderWeights, make_weights
from hf_gpt.generation.decoding.linear import WeightDtype, check_weight_dtype
from hf_gpt.generation.decoding.native.decoder import NativeDecoder, NativeWeights
from hf_gpt.generation.decoding.plain_decoder import can_decode
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.inverse_cdf import sample
from hf_gpt.generation.scoring.discriminator import accepted_arguments, evaluating, right_padded
from hf_gpt.generation.scoring.logprobs import decoder_start_token_id, join, left_padded, positions_of, unwrap


# Finished rows are removed once they are this share of the batch, since removal copies the cache.
LEAVE_SHARE = 0.25


@dataclasses.dataclass
class Rollout:
    """Sampled completions, B rows.

    Attributes:
        sequences: (B, T) int64, prompt then completion, padded at the right.
        attention_mask: (B, T) int64, 1 at tokens, the end-of-text token included.
        completions: (B, C) int64, the sampled tokens, padded at the right.
        completion_mask: (B, C) float32, 1 at sampled tokens up to and including the end of text.
        logps: (B, C) float32, log-probability of each token in the distribution that it was sampled from: with
            rounded weights, temperature, top-k, top-p and min-p. 0 at temperature 0, and at padding.
        prompt_length: (B,) int64, tokens of the prompt in each row.
        model_logps: (B, C) float32, log-probability at temperature 1 of all tokens; 0 at padding. None unless wanted.
        support: (B, C, ceil(V / 8)) uint8, a bit for each token that could have been sampled (`distribution.pack`).
            None without top-k, top-p and min-p. `completion_logps` takes it.
    """

    sequences: torch.Tensor
    attention_mask: torch.Tensor
    completions: torch.Tensor
    completion_mask: torch.Tensor
    logps: torch.Tensor
    prompt_length: torch.Tensor
    model_logps: torch.Tensor | None = None
    support: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.sequences.shape[0]

    def to(self, device: torch.device | str) -> "Rollout":
        """The same on another device."""
        return Rollout(**{name: tensor.to(device) for name, tensor in self._tensors().items()})

    def rows(self, chosen: torch.Tensor) -> "Rollout":
        """The rows of these numbers, which may repeat, or of this mask."""
        return Rollout(**{name: tensor[chosen] for name, tensor in self._tensors().items()})

    def split(self, sizes: Sequence[int]) -> "list[Rollout]":
        """Consecutive parts of these numbers of rows."""
        tensors = self._tensors()
        parts = zip(*(tensor.split(list(sizes)) for tensor in tensors.values()), strict=True)
        return [Rollout(**dict(zip(tensors, part, strict=True))) for part in parts]

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}


def rollout(
    model: nn.Module,
    prompt_ids: torch.Tensor | None = None,
    prompt_mask: torch.Tensor | None = None,
    *,
    sampling: SamplingConfig,
    generator: torch.Generator | None = None,
    uniforms: torch.Tensor | None = None,
    batch_size: int | None = None,
    synced: bool = False,
    weight_dtype: WeightDtype | None = None,
    activation_cache: ActivationCache | None = None,
) -> Rollout:
    """Samples completions of prompts, or whole texts without prompts.

    A token is sampled by inverting the distribution function at a uniform number of its own. So a row is the same
    whatever the batch size, the other rows and the number of processes.
    A plain `HfGptForCausalLM` is decoded by our own steps (`cached_decoder.make_weights`), compiled on CPUs at first
    use. Any other model runs its own forward pass.

    Args:
        model: A causal language model or an encoder-decoder, whose encoder reads the prompt. It may have an adapter or
            a wrapper for several processes. It is put into evaluation mode and back.
        prompt_ids: (P, L) int64, padded at either side. None: texts that begin with `bos_token_id`.
        prompt_mask: (P, L), 1 at tokens; None: no padding.
        sampling: The distribution, the most tokens of a text and the special tokens.
        generator: A CPU generator for the uniform numbers.
        uniforms: (B, `max_new_tokens`) float64 in [0, 1), in place of a generator.
        batch_size: Rows in a batch; None: all.
        synced: Every process does the same number of forward passes, as a sharded model (FSDP, ZeRO-3) needs.
        weight_dtype: Of the linear layers. None: as the model and autocast have it. `"bfloat16"`, or on CPUs
            `"int8"`: faster, but from the distribution of the rounded weights, whose log-probabilities are returned.
            A model that our steps do not decode runs under autocast in bfloat16 instead.
        activation_cache: Filled, where possible, with what `completion_logits` of the same texts can reuse.

    Returns:
        B rows: P times `num_return_sequences`. `completion_logps` with the same temperature, top-k, top-p and min-p
        gives `logps` again, with gradient.

    Raises:
        ValueError: no prompt and no begin token, no `max_new_tokens`, an empty prompt, more tokens than the model has
            positions for, or a type of weights that this device cannot use.
    """
    if sampling.max_new_tokens is None:
        raise ValueError("rollout needs max_new_tokens: set it in the SamplingConfig.")
    device = next(model.parameters()).device
    check_weight_dtype(weight_dtype, device)
    prompt_ids, prompt_mask = as_prompts(prompt_ids, prompt_mask, sampling, device)
    rows = prompt_ids.shape[0]
    check_positions(unwrap(model), prompt_ids.shape[1], sampling.max_new_tokens)
    if uniforms is None:
        uniforms = torch.rand(rows, sampling.max_new_tokens, dtype=torch.float64, generator=generator)
    if uniforms.shape != (rows, sampling.max_new_tokens):
        raise ValueError(f"uniforms must have shape {(rows, sampling.max_new_tokens)}, got {tuple(uniforms.shape)}.")
    size = batch_size or rows
    with torch.no_grad(), evaluating(model), contextlib.ExitStack() as context:
        weights = None if synced else _weights(model, weight_dtype, size, context)
        kept = activation_cache if rows <= size else None
        parts = [
            _sample_batch(
                model, prompt_ids[part], prompt_mask[part], uniforms[part].to(device), sampling, synced, weights, kept
            )
            for part in _slices(rows, size)
        ]
    return _assemble(parts, prompt_ids, prompt_mask, sampling.padding_token)


@dataclasses.dataclass
class _SampledTokens:
    completions: torch.Tensor
    lengths: torch.Tensor
    logps: torch.Tensor
    model_logps: torch.Tensor | None
    support: torch.Tensor | None


def as_prompts(
    prompt_ids: torch.Tensor | None,
    prompt_mask: torch.Tensor | None,
    sampling: SamplingConfig,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row for each text, padded at the left: ids and mask, (B, L) int64; arguments and errors as for `rollout`."""
    if prompt_ids is None:
        if sampling.bos_token_id is None:
            raise ValueError("rollout needs prompt_ids, or the bos_token_id that texts begin with.")
        prompt_ids = torch.tensor([[sampling.bos_token_id]])
    prompt_ids = prompt_ids.to(device)
    prompt_mask = torch.ones_like(prompt_ids) if prompt_mask is None else prompt_mask.to(prompt_ids)
    if prompt_ids.ndim != 2 or not bool((prompt_mask.sum(-1) > 0).all()):
        raise ValueError("rollout needs prompts of shape (rows, length), none of them empty: begin with bos_token_id.")
    number = sampling.num_return_sequences
    ids, mask = left_padded(prompt_ids, prompt_mask)
    return ids.repeat_interleave(number, 0), mask.repeat_interleave(number, 0)


def check_positions(model: nn.Module, prompt_length: int, max_new_tokens: int) -> None:
    """Raises `ValueError` where a model has too few positions for prompt and new tokens."""
    config = model.config
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    apart = config.is_encoder_decoder
    needed = max(prompt_length, max_new_tokens) if apart else prompt_length + max_new_tokens
    if limit is not None and needed > limit:
        either = "or" if apart else "and"
        raise ValueError(
            f"a prompt of {prompt_length} tokens {either} max_new_tokens={max_new_tokens} are more than the {limit} "
            f"positions of {type(model).__name__}. Shorten {'it' if apart else 'one of them'}."
        )


def _slices(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, start + size)


def _weights(model, weight_dtype, rows, context) -> DecoderWeights | NativeWeights | None:
    """Weights for our own steps, or None. Other models enter autocast for a `weight_dtype`."""
    inner, device = unwrap(model), next(model.parameters()).device
    if torch.is_autocast_enabled(device.type):
        if torch.get_autocast_dtype(device.type) != torch.bfloat16:
            return None
        weight_dtype = weight_dtype or "bfloat16"
    if can_decode(inner):
        return make_weights(inner, weight_dtype, rows)
    if weight_dtype is not None:
        context.enter_context(torch.autocast(device.type, dtype=torch.bfloat16))
    return None


def _sample_batch(
    model, prompt_ids, prompt_mask, uniforms, sampling, synced, weights, activation_cache
) -> _SampledTokens:
    rows, limit = uniforms.shape
    completions = torch.zeros(rows, limit, dtype=torch.int64, device=prompt_ids.device)
    # `logps`, `model_logps` and `support`, where wanted.
    kept: list[torch.Tensor | None] = [None, None, None]
    lengths = torch.zeros(rows, dtype=torch.int64, device=prompt_ids.device)
    ends = sampling.end_tokens
    end_ids = torch.tensor(ends, dtype=torch.int64, device=prompt_ids.device)
    if weights is not None:
        state = weights.start(unwrap(model), prompt_ids, prompt_mask, limit)
        if activation_cache is not None and isinstance(state, NativeDecoder):
            state.record(activation_cache, limit)
    else:
        steps = _EncoderDecoderSteps if unwrap(model).config.is_encoder_decoder else _DecoderSteps
        state = steps(model, prompt_ids, prompt_mask)
    # Output rows that are still in the batch, and which of them go on.
    positions = torch.arange(rows, device=prompt_ids.device)
    active = torch.ones(rows, dtype=torch.bool, device=prompt_ids.device)
    for step in range(limit):
        logits, with_support = state.next_logits(), sampling.is_truncated
        tokens, *found = sample(logits, uniforms[positions, step], sampling, sampling.return_model_logps, with_support)
        # Tokens past the end of a row are masked later.
        completions[positions, step] = tokens
        for number, values in enumerate(found):
            if values is None:
                continue
            if kept[number] is None:
                kept[number] = values.new_zeros(rows, limit, *values.shape[1:])
            kept[number][positions, step] = values
        lengths[positions] += active
        if step == limit - 1:
            break
        # Where nothing ends a row, do not wait for the device.
        if ends or synced:
            active = active & ~torch.isin(tokens, end_ids)
            if _all_finished(active, synced):
                break
            count = int(active.sum())
            if state.can_select and 0 < count <= (1 - LEAVE_SHARE) * len(active):
                going = active.nonzero()[:, 0]
                state.select(going)
                positions, tokens, active = positions[going], tokens[going], active[going]
        state.append(tokens)
    if activation_cache is not None:
        width = int(lengths.max())
        activation_cache.end(completions[:, :width], lengths)
    return _SampledTokens(completions, lengths, *kept)


def _all_finished(active: torch.Tensor, synced: bool) -> bool:
    if synced and torch.distributed.is_available() and torch.distributed.is_initialized():
        still = active.any().to(torch.int32)
        torch.distributed.all_reduce(still, torch.distributed.ReduceOp.MAX)
        return not bool(still)
    return not bool(active.any())


class _DecoderSteps:
    """A decoder that reads prompts and then token by token, with its cache if it has one."""

    def __init__(self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor):
        self.model = model
        self.ids, self.mask = ids, mask
        self.accepted = accepted_arguments(unwrap(model))
        peft_config = getattr(unwrap(model), "active_peft_config", None)
        # An adapter adds its virtual tokens at each forward pass, so a cache would hold them twice.
        self.use_cache = "past_key_values" in self.accepted and not getattr(peft_config, "is_prompt_learning", False)
        self.cache: Any = None

    def next_logits(self) -> torch.Tensor:
        """(B, V) logits of the token that comes next."""
        if not self.use_cache:
            return self._logits_of_whole_rows()
        fresh = slice(None) if self.cache is None else slice(-1, None)
        inputs = {"input_ids": self.ids[:, fresh], "attention_mask": self.mask}
        if "position_ids" in self.accepted:
            inputs["position_ids"] = positions_of(self.mask)[:, fresh]
        if "logits_to_keep" in self.accepted:
            inputs["logits_to_keep"] = 1
        outputs = self.model(**inputs, use_cache=True, past_key_values=self.cache)
        self.cache = outputs.past_key_values
        self.use_cache = self.cache is not None
        return outputs.logits[:, -1]

    def _logits_of_whole_rows(self) -> torch.Tensor:
        # Padded at the right, for models that count positions themselves.
        ids, mask = right_padded(self.ids, self.mask)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "position_ids" in self.accepted:
            inputs["position_ids"] = positions_of(mask)
        if "use_cache" in self.accepted:
            inputs["use_cache"] = False
        # Virtual tokens of an adapter come first.
        logits = self.model(**inputs).logits[:, -ids.shape[1] :]
        return logits[torch.arange(len(ids), device=ids.device), mask.sum(-1) - 1]

    def append(self, tokens: torch.Tensor) -> None:
        """Adds the sampled tokens (B,)."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(tokens)[:, None]], 1)

    @property
    def can_select(self) -> bool:
        return self.cache is None or hasattr(self.cache, "reorder_cache")

    def select(self, rows: torch.Tensor) -> None:
        """Keeps only these rows."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        if self.cache is not None:
            self.cache.reorder_cache(rows)


class _EncoderDecoderSteps(_DecoderSteps):
    """An encoder-decoder: the encoder reads the prompts, the decoder begins with its start token."""

    def __init__(self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor):
        self.model = model
        inner = unwrap(model)
        # Learned positions of an encoder count from the left.
        ids, mask = right_padded(ids, mask)
        encoder = inner.get_encoder()
        self.hidden = encoder(input_ids=ids, attention_mask=mask)[0]
        self.mask = mask
        self.ids = torch.full_like(ids[:, :1], decoder_start_token_id(inner))
        self.use_cache, self.cache = "past_key_values" in accepted_arguments(inner), None

    def next_logits(self) -> torch.Tensor:
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=self.hidden),
            "attention_mask": self.mask,
            "decoder_input_ids": self.ids if self.cache is None else self.ids[:, -1:],
        }
        if self.use_cache:
            inputs.update(use_cache=True, past_key_values=self.cache)
        outputs = self.model(**inputs)
        if self.use_cache:
            self.cache = outputs.past_key_values
            self.use_cache = self.cache is not None
        return outputs.logits[:, -1]

    def append(self, tokens: torch.Tensor) -> None:
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)

    def select(self, rows: torch.Tensor) -> None:
        super().select(rows)
        self.hidden = self.hidden[rows]


def _assemble(parts, prompt_ids, prompt_mask, pad_token_id) -> Rollout:
    columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    whole = {name: None if each[0] is None else torch.cat(each) for name, each in columns.items()}
    lengths = whole.pop("lengths")
    width = int(lengths.max())
    whole = {name: None if tensor is None else tensor[:, :width] for name, tensor in whole.items()}
    completion_mask = torch.arange(width, device=lengths.device) < lengths[:, None]
    completions = whole["completions"].masked_fill(~completion_mask, pad_token_id)
    prompt_length = prompt_mask.sum(-1)
    sequences, attention_mask = join(prompt_ids, prompt_mask, completions, completion_mask, pad_token_id)
    return Rollout(
        sequences=sequences,
        attention_mask=attention_mask,
        completions=completions,
        completion_mask=completion_mask.float(),
        logps=whole["logps"] * completion_mask,
        prompt_length=prompt_length,
        model_logps=None if whole["model_logps"] is None else whole["model_logps"] * completion_mask,
        # At padding all tokens are possible.
        support=None if whole["support"] is None else whole["support"].masked_fill(~completion_mask[..., None], 255),
    )
