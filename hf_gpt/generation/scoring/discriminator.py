"""Logits of texts and their prefixes by any classifier with one label, above 0 for what looks real."""

import contextlib
import inspect
import re
import weakref
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_gpt.generation.sampling.shared_prompts import (
    SharedPrompts,
    completion_inputs,
    completion_positions,
    read_prompts,
)
from hf_gpt.models.modeling_hf_gpt import HfGptForSequenceClassification


# Names of position embeddings, of GPT-2 and of all others. An adapter keeps what it wraps under a name at the end.
_POSITIONS = re.compile(r"(^|\.)(wpe|\w*position\w*)(\.(base_layer|original_module))*$")
# Of each model, whether `_scores_last_token`.
_scores_last: "weakref.WeakKeyDictionary[nn.Module, bool]" = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module has its mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def accepted_arguments(model: nn.Module) -> set[str]:
    """Names of the arguments of a model's forward pass, without its adapter."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(inner.forward).parameters)


def right_padded(sequences: torch.Tensor, attention_mask: torch.Tensor, pad_token_id: int = 0):
    """The same texts with all padding at the right, cut to the longest.

    Args:
        sequences: Shape `(batch_size, length)`, token ids.
        attention_mask: Shape `(batch_size, length)`, 0 at padding, wherever it lies.
        pad_token_id: What padding becomes.

    Returns:
        Sequences and mask of shape `(batch_size, longest)`.
    """
    kept = attention_mask.bool()
    longest = max(1, int(kept.sum(1).max())) if len(kept) else 0
    order = (~kept).to(torch.int8).sort(dim=1, stable=True).indices[:, :longest]
    mask = kept.gather(1, order)
    return sequences.gather(1, order).masked_fill(~mask, pad_token_id), mask.long()


def discriminator_logits(
    discriminator: PreTrainedModel,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    prompt_length: torch.Tensor | None = None,
) -> torch.Tensor:
    """The logit of each text, differentiable in the discriminator's weights. Training uses it too.

    The attention mask alone decides where a text ends. Transformers' decoders search the padding token, so they miss an
    end-of-text token that is also the padding token, and refuse a batch without a padding token.

    Args:
        discriminator: A sequence classifier with `num_labels=1`.
        sequences: Shape `(batch_size, length)`, token ids, padded on either side.
        attention_mask: Shape `(batch_size, length)`.
        prompt_length: Shape `(batch_size,)`, tokens of the prompts. Texts with the same prompt read it once where that
            pays; the logits are the same.

    Returns:
        Shape `(batch_size,)`, float32.

    Raises:
        ValueError: the model has another number of labels.
    """
    discriminator = _without_adapter(discriminator)
    check_discriminator(discriminator)
    pad_token_id = getattr(discriminator.config.get_text_config(), "pad_token_id", None)
    sequences, attention_mask = right_padded(sequences, attention_mask, pad_token_id or 0)
    shared = None
    if prompt_length is not None:
        shared = _shared_prompts(discriminator, sequences, attention_mask, prompt_length)
    if shared is not None:
        num_tokens = int((attention_mask.sum(1) - prompt_length).max())
        positions = completion_positions(prompt_length, num_tokens, sequences.shape[1])
        logits = discriminator(**completion_inputs(shared, sequences, attention_mask, positions)).logits
        return logits[:, 0].float()
    if _scores_last_token(discriminator):
        hidden_states = _hidden_states(discriminator, sequences, attention_mask)
        last = (attention_mask.sum(1) - 1).clamp(min=0)
        logits = discriminator.score(hidden_states[torch.arange(len(last), device=last.device), last])
    else:
        logits = discriminator(input_ids=sequences, attention_mask=attention_mask).logits
    return logits[:, 0].float()


def _shared_prompts(discriminator, sequences, attention_mask, prompt_length) -> SharedPrompts | None:
    """Prompts that several texts share, for a discriminator that scores the last token."""
    is_ours = isinstance(discriminator, HfGptForSequenceClassification)
    # An empty completion is scored at the last token of its prompt.
    if (
        not is_ours
        or discriminator.config.classifier_pooling != "last"
        or bool((attention_mask.sum(1) <= prompt_length).any())
    ):
        return None
    return read_prompts(discriminator, sequences, prompt_length)


def embedding_logits(
    discriminator: PreTrainedModel, embeddings: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    """`discriminator_logits` of texts given as input embeddings, differentiable in those too.

    Transformers' decoders score the last position of embeddings, even padding. Here it is the last token of the mask.

    Args:
        discriminator: A sequence classifier with `num_labels=1`.
        embeddings: Shape `(batch_size, length, d)`, padded on either side.
        attention_mask: Shape `(batch_size, length)`.

    Returns:
        Shape `(batch_size,)`, float32.
    """
    discriminator = _without_adapter(discriminator)
    inputs = {"inputs_embeds": embeddings, "attention_mask": attention_mask}
    if _scores_last_token(discriminator):
        if "position_ids" in accepted_arguments(discriminator.base_model):
            inputs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)
        last = (positions * attention_mask).argmax(1)
        hidden_states = discriminator.base_model(**inputs, **_without_cache(discriminator))[0]
        logits = discriminator.score(hidden_states[torch.arange(len(last), device=last.device), last])
    else:
        logits = discriminator(**inputs).logits
    return logits[:, 0].float()


@torch.no_grad()
def sequence_scores(
    discriminator: PreTrainedModel,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    batch_size: int | None = None,
) -> torch.Tensor:
    """The logit of each text, without gradient and dropout, in batches of texts of similar length.

    Args:
        discriminator: A sequence classifier with `num_labels=1`.
        sequences: Shape `(n, length)`, token ids, padded on either side.
        attention_mask: Shape `(n, length)`. Left out: all are tokens.
        batch_size: Texts scored at a time. Left out: all.

    Returns:
        Shape `(n,)`, float32, on the device of `sequences`, in their order. All are finite.

    Raises:
        ValueError: the model has another number of labels, or no embedding of a token.
        ScoreError: a score is not a finite number.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(sequences)
    check_ids(discriminator, sequences, attention_mask)
    scores = torch.empty(len(sequences), device=sequences.device)
    order = attention_mask.sum(1).argsort(descending=True, stable=True)
    with evaluating(discriminator):
        for rows in order.split(batch_size or max(1, len(order))):
            ids, mask = (tensor[rows].to(discriminator.device) for tensor in (sequences, attention_mask))
            scores[rows] = discriminator_logits(discriminator, ids, mask).to(scores.device)
    return check_scores(scores, discriminator)


@torch.no_grad()
def prefix_scores(
    discriminator: PreTrainedModel,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    batch_size: int | None = None,
    recompute: bool = False,
) -> torch.Tensor:
    """The logit of every prefix of each text, without gradient and dropout.

    A causal discriminator scores all prefixes in one pass: each model of this package, and each decoder with a score on
    its last token.

    Args:
        discriminator: A sequence classifier with `num_labels=1`.
        sequences: Shape `(n, length)`, token ids, padded on either side.
        attention_mask: Shape `(n, length)`. Left out: all are tokens.
        batch_size: Texts scored at a time. Left out: all.
        recompute: Score each prefix in its own pass, for a discriminator that is not causal.

    Returns:
        Shape `(n, length)`, float32: entry `[i, t]` is the logit of text `i` up to its token at position `t`, 0 at
        padding.

    Raises:
        ValueError: the model has another number of labels, no embedding of a token, or is not causal and `recompute` is
            not set.
        ScoreError: a score is not a finite number.
    """
    if attention_mask is None:
        attention_mask = torch.ones_like(sequences)
    check_ids(discriminator, sequences, attention_mask)
    scores = torch.zeros(sequences.shape, device=sequences.device)
    order = attention_mask.sum(1).argsort(descending=True, stable=True)
    with evaluating(discriminator):
        for rows in order.split(batch_size or max(1, len(order))):
            kept = attention_mask[rows].bool()
            ids, mask = right_padded(sequences[rows], kept)
            ids, mask = ids.to(discriminator.device), mask.to(discriminator.device)
            compact = prefix_logits(discriminator, ids, mask, recompute=recompute).to(scores.device)
            spread = torch.zeros(kept.shape, device=scores.device)
            spread[kept] = compact[mask.bool().to(scores.device)]
            scores[rows] = spread
    return check_scores(scores, discriminator)


def prefix_logits(
    discriminator: PreTrainedModel, sequences: torch.Tensor, attention_mask: torch.Tensor, recompute: bool = False
) -> torch.Tensor:
    """The logit of every prefix of texts padded on the right, shape `(batch_size, length)`, float32, differentiable.

    Values at padding have no meaning. Arguments and errors as in `prefix_scores`.
    """
    discriminator = _without_adapter(discriminator)
    check_discriminator(discriminator)
    if not recompute and has_causal_prefixes(discriminator):
        if hasattr(discriminator, "prefix_logits"):
            logits = discriminator.prefix_logits(input_ids=sequences, attention_mask=attention_mask)
        else:
            logits = discriminator.score(_hidden_states(discriminator, sequences, attention_mask))
        return logits[..., 0].float()
    if not recompute:
        raise ValueError(
            f"{type(discriminator).__name__} does not score every prefix in one pass: its tokens see the ones after "
            "them, or its head is not a linear score of the last token. Take a causal discriminator (HfGpt, the n-gram "
            "CNN or a decoder such as Llama or GPT-2), or recompute=True for one pass for each prefix."
        )
    ends = range(1, sequences.shape[1] + 1)
    columns = [discriminator_logits(discriminator, sequences[:, :end], attention_mask[:, :end]) for end in ends]
    return torch.stack(columns, dim=1)


def check_discriminator(discriminator: PreTrainedModel) -> None:
    """Raises `ValueError` unless the model has exactly one label."""
    if discriminator.config.num_labels != 1:
        raise ValueError(
            f"{type(discriminator).__name__} has {discriminator.config.num_labels} labels; a discriminator has one, "
            "the logit of being real. Load or train it with num_labels=1."
        )


class ScoreError(ValueError):
    """A discriminator gave scores that are not finite numbers."""


def check_scores(scores: torch.Tensor, discriminator: object, may_rule_out: bool = False) -> torch.Tensor:
    """The scores, if they are finite.

    Args:
        scores: Any shape, logits.
        discriminator: Their source, for the message.
        may_rule_out: Whether minus infinity is allowed, to rule a text out.

    Raises:
        ScoreError: a score is nan or infinite.
    """
    bad = scores.isnan() | scores.isposinf() if may_rule_out else ~scores.isfinite()
    if bool(bad.any()):
        found = sorted({str(value) for value in scores[bad].flatten()[:1000].tolist()})
        raise ScoreError(
            f"{describe_scorer(discriminator)} gave {int(bad.sum())} of {scores.numel()} scores that are not finite "
            f"numbers ({', '.join(found)}). {advice_on(discriminator)}"
        )
    return scores


def describe_scorer(discriminator: object) -> str:
    """A discriminator's class and source, or the name of a function."""
    if not isinstance(discriminator, nn.Module):
        named = getattr(discriminator, "__qualname__", type(discriminator).__qualname__)
        return f"the discriminator function {named}"
    inner = _without_adapter(discriminator)
    source = getattr(inner, "name_or_path", "") or getattr(getattr(inner, "config", None), "name_or_path", "")
    return f"the discriminator {type(inner).__name__}" + (f" ({source})" if source else "")


def advice_on(discriminator: object) -> str:
    """What to do about scores or a loss that are not finite."""
    if not isinstance(discriminator, nn.Module):
        return "Give a function whose logits are finite; minus infinity rules a text out."
    damaged = [name for name, value in discriminator.named_parameters() if not bool(value.isfinite().all())]
    if damaged:
        names = damaged[0] + (f" and {len(damaged) - 1} more" if len(damaged) > 1 else "")
        return f"Its weights are damaged ({names}: not finite). Load an earlier checkpoint, or train it again."
    return "Its weights are finite, so its numbers overflow: load it in float32 or bfloat16, or train it again."


def check_ids(model: nn.Module, sequences: torch.Tensor, attention_mask: torch.Tensor) -> None:
    """Raises `ValueError` where a text has a token without embedding in the model."""
    config = getattr(model, "config", None)
    size = getattr(config.get_text_config() if config is not None else None, "vocab_size", None)
    if size is None or not sequences.numel():
        return
    largest = int(sequences.masked_fill(attention_mask == 0, 0).max())
    if largest >= size:
        raise ValueError(
            f"a text has the token {largest}, but {describe_scorer(model)} reads {size} tokens: it has another "
            f"tokenizer than the generator, or lacks an embedding of padding: see resize_token_embeddings."
        )


def check_length(discriminator: nn.Module, length: int) -> None:
    """Raises `ValueError` where a model has learned position embeddings, and too few of them.

    Computed positions, such as RoPE, have no limit.
    """
    model = _without_adapter(discriminator)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        if limit is None or not isinstance(module, nn.Embedding) or not _POSITIONS.search(name):
            continue
        # Where padding has a position, as in RoBERTa, tokens come after it.
        reads = min(limit, module.num_embeddings) - (0 if module.padding_idx is None else module.padding_idx + 1)
        if length > reads:
            raise ValueError(
                f"prompt and new tokens are up to {length} tokens, and {type(model).__name__} has positions for "
                f"{reads}: shorten the prompt, lower max_new_tokens, or take a discriminator that reads more."
            )


def has_causal_prefixes(discriminator: PreTrainedModel) -> bool:
    """Whether one pass over a text gives the score of each of its prefixes."""
    if _has_virtual_tokens(discriminator):
        return False
    if hasattr(discriminator, "prefix_logits"):
        return getattr(discriminator.config, "is_causal", True)
    return _scores_last_token(discriminator)


def _without_adapter(discriminator: PreTrainedModel) -> PreTrainedModel:
    # PEFT changes layers in place, so the model inside computes with the adapter. Virtual tokens are added by the
    # adapter's own forward pass.
    if not hasattr(discriminator, "get_base_model") or _has_virtual_tokens(discriminator):
        return discriminator
    return discriminator.get_base_model()


def _has_virtual_tokens(discriminator: PreTrainedModel) -> bool:
    """Whether an adapter adds virtual tokens, as prompt and prefix tuning do."""
    return getattr(getattr(discriminator, "active_peft_config", None), "is_prompt_learning", False)


def _hidden_states(
    discriminator: PreTrainedModel, sequences: torch.Tensor, attention_mask: torch.Tensor
) -> torch.Tensor:
    inputs = {"input_ids": sequences, "attention_mask": attention_mask}
    return discriminator.base_model(**inputs, **_without_cache(discriminator))[0]


def _without_cache(discriminator: PreTrainedModel) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(discriminator.config.get_text_config(), "use_cache") else {}


def _scores_last_token(discriminator: PreTrainedModel) -> bool:
    """Whether the score is a linear layer on a causal decoder's last hidden state. Tried once for each model."""
    if _has_virtual_tokens(discriminator):
        return False
    if discriminator not in _scores_last:
        is_linear = not hasattr(discriminator, "prefix_logits") and _probe_last_token(discriminator)
        _scores_last[discriminator] = is_linear
    return _scores_last[discriminator]


@torch.no_grad()
def _probe_last_token(discriminator: PreTrainedModel) -> bool:
    score = getattr(discriminator, "score", None)
    score_layer = score
    while (inside := getattr(score_layer, "original_module", getattr(score_layer, "base_layer", None))) is not None:
        score_layer = inside
    if not isinstance(score_layer, nn.Linear):
        return False
    config = discriminator.config.get_text_config()
    special = {config.pad_token_id, *torch.tensor(config.eos_token_id or 0).reshape(-1).tolist()}
    ordinary = [token for token in range(config.vocab_size) if token not in special][:3]
    ids = torch.tensor([ordinary], device=discriminator.device)
    with evaluating(discriminator):
        hidden_states = _hidden_states(discriminator, ids, torch.ones_like(ids))
        if hidden_states.shape[-1] != score_layer.in_features:
            return False
        prefix = _hidden_states(discriminator, ids[:, :1], torch.ones_like(ids[:, :1]))
        logits = discriminator(input_ids=ids).logits
    tolerance = 1e-4 if hidden_states.dtype == torch.float32 else 3e-2
    is_causal = (hidden_states[:, 0] - prefix[:, 0]).norm() <= tolerance * prefix.norm()
    return bool(is_causal) and torch.allclose(score(hidden_states[:, -1]), logits, rtol=tolerance, atol=tolerance)
