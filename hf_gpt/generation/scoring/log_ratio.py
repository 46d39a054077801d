"""The log-ratio log psi - log q of two language models with the same tokens: psi judges samples of q."""

import torch
from torch import nn

from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import check_scores, evaluating
from hf_gpt.generation.scoring.logprobs import completion_logits, join, token_logps, unwrap
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens


_PLAIN = SamplingConfig()


def is_language_model(model: object) -> bool:
    """Whether a discriminator is a causal language model, not a classifier or function."""
    if not isinstance(model, nn.Module):
        return False
    inner = unwrap(model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return hasattr(inner, "can_generate") and bool(inner.can_generate()) and not inner.config.is_encoder_decoder


@torch.no_grad()
def text_logps(
    model: nn.Module, texts: Rollout, sampling: SamplingConfig = _PLAIN, batch_size: int | None = None
) -> torch.Tensor:
    """(B,) float32 log-probability of each completion under a language model, without dropout.

    Args:
        model: A causal language model or an encoder-decoder of the texts' tokens.
        texts: B rows.
        sampling: The policy. The tokens of the texts stay possible, however logits at the border round.
        batch_size: Rows in a pass, of similar length. None: all.

    Raises:
        ValueError: the temperature is not above 0, or a text has a token that the model lacks.
    """
    if sampling.temperature <= 0:
        raise ValueError(f"the temperature of a log-probability must be above 0, got {sampling.temperature}.")
    device = next(model.parameters()).device
    found = torch.zeros(len(texts), device=texts.sequences.device)
    if not texts.completion_mask.any():
        return found
    _check_tokens(unwrap(model), texts)
    with evaluating(model):
        for rows in texts.attention_mask.sum(1).argsort(stable=True).split(batch_size or max(1, len(texts))):
            part = texts.rows(rows).to(device)
            width = int(part.completion_mask.sum(1).max())
            whole = int(part.attention_mask.sum(1).max())
            positions = (part.sequences[:, :whole], part.attention_mask[:, :whole], part.prompt_length)
            completions = part.completions[:, :width]
            policy = sampling.policy_logits(completion_logits(model, *positions, width), sampled=completions)
            logps = token_logps(policy, completions)
            found[rows] = (logps * part.completion_mask[:, :width]).sum(1).to(found.device)
    return found


def log_ratio(
    psi: nn.Module,
    q: nn.Module,
    texts: Rollout,
    psi_sampling: SamplingConfig = _PLAIN,
    q_sampling: SamplingConfig = _PLAIN,
    batch_size: int | None = None,
) -> torch.Tensor:
    """(B,) log psi(y | x) - log q(y | x) of completions, each model under its own policy; see `text_logps`.

    Raises:
        TokensError: the models do not share their tokens.
    """
    check_shared_tokens(q, psi)
    return text_logps(psi, texts, psi_sampling, batch_size) - text_logps(q, texts, q_sampling, batch_size)


class LogRatio:
    """The log-ratio as a discriminator: a function of sequences and mask, both (n, T), that returns (n,) float32.

    Args:
        psi, q, psi_sampling, q_sampling, batch_size: As for `log_ratio`.
        prompt_length: Positions before the completion in every row, including the prompt's padding.
    """

    def __init__(
        self,
        psi: nn.Module,
        q: nn.Module,
        prompt_length: int,
        psi_sampling: SamplingConfig = _PLAIN,
        q_sampling: SamplingConfig = _PLAIN,
        batch_size: int | None = None,
    ):
        check_shared_tokens(q, psi)
        self.psi, self.q, self.prompt_length = psi, q, prompt_length
        self.settings = (psi_sampling, q_sampling, batch_size)

    def __call__(self, sequences: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        texts = as_texts(sequences, attention_mask, self.prompt_length)
        return check_scores(log_ratio(self.psi, self.q, texts, *self.settings), self.psi, may_rule_out=True)


def as_texts(sequences: torch.Tensor, attention_mask: torch.Tensor, prompt_length: int) -> Rollout:
    """Texts of `generate` as a rollout of unknown log-probabilities: `logps` are nan.

    Args:
        sequences, attention_mask: (B, T), prompts padded anywhere and completions padded at the right.
        prompt_length: Positions before the completions.
    """
    parts = [(tensor[:, :prompt_length], tensor[:, prompt_length:]) for tensor in (sequences, attention_mask)]
    (prompts, completions), (prompt_mask, completion_mask) = parts
    # Padding is any token that every model has.
    completions = completions.masked_fill(completion_mask == 0, 0)
    joined = join(prompts, prompt_mask, completions, completion_mask, pad_token_id=0)
    logps = torch.full(completions.shape, torch.nan, device=sequences.device)
    return Rollout(*joined, completions, completion_mask.float(), logps, prompt_mask.sum(1))


def _check_tokens(model: nn.Module, texts: Rollout) -> None:
    size = model.config.get_text_config().vocab_size
    largest = int(texts.sequences.max()) if texts.sequences.numel() else 0
    if largest >= size:
        raise ValueError(
            f"a text has the token {largest}, but {type(model).__name__} has {size} tokens: a language model judges "
            "texts of its own tokenizer alone."
        )
