"""The log-ratio of two language models of the same tokens, log psi - log q: psi as a critic of texts that q draws."""

import torch
from torch import nn

from hf_gpt.generation.sampling.distribution import Sampling
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import check_scores, evaluating
from hf_gpt.generation.scoring.logprobs import completion_logits, join, token_logps, unwrap
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens


def is_language_model(model: object) -> bool:
    """Whether a critic is a causal language model, and no classifier or function."""
    if not isinstance(model, nn.Module):
        return False
    inner = unwrap(model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return hasattr(inner, "can_generate") and bool(inner.can_generate()) and not inner.config.is_encoder_decoder


@torch.no_grad()
def text_logps(
    model: nn.Module,
    texts: Rollout,
    temperature: float = 1.0,
    batch_size: int | None = None,
    sampling: Sampling | None = None,
) -> torch.Tensor:
    """(B,) float32 log-probability of each completion under a language model, without dropout.

    Args:
        model: A causal language model or an encoder-decoder of the texts' tokens.
        texts: B rows.
        temperature: Divides the logits.
        batch_size: Rows in a pass, of similar length. None: all.
        sampling: How the model has sampled the texts, in place of a temperature alone. Then their tokens count among
            those that could be sampled, whatever rounding makes of the border.

    Raises:
        ValueError: the temperature is not above 0, or a text has a token that the model has not.
    """
    sampling = sampling or Sampling(max(temperature, 0.0))
    temperature = sampling.temperature
    if temperature <= 0:
        raise ValueError(f"the temperature of a log-probability must be above 0, got {temperature}.")
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
    psi_temperature: float = 1.0,
    q_temperature: float = 1.0,
    batch_size: int | None = None,
    q_sampling: Sampling | None = None,
) -> torch.Tensor:
    """(B,) log psi(y | x) - log q(y | x) of completions, each model at its temperature; see `text_logps`.

    `q_sampling` says how q has sampled them, in place of `q_temperature`.

    Raises:
        TokensError: they do not share their tokens.
    """
    check_shared_tokens(q, psi)
    own = text_logps(q, texts, q_temperature, batch_size, q_sampling)
    return text_logps(psi, texts, psi_temperature, batch_size) - own


class LogRatio:
    """The log-ratio as a discriminator: a function of sequences and mask, (n, T) both, which returns (n,) float32.

    Args:
        psi, q, psi_temperature, q_temperature, batch_size, q_sampling: As for `log_ratio`.
        prompt_length: Places before the completion in every row, the prompt's padding included.
    """

    def __init__(
        self,
        psi: nn.Module,
        q: nn.Module,
        prompt_length: int,
        psi_temperature: float = 1.0,
        q_temperature: float = 1.0,
        batch_size: int | None = None,
        q_sampling: Sampling | None = None,
    ):
        check_shared_tokens(q, psi)
        self.psi, self.q, self.prompt_length = psi, q, prompt_length
        self.settings = (psi_temperature, q_temperature, batch_size, q_sampling)

    def __call__(self, sequences: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        texts = as_texts(sequences, attention_mask, self.prompt_length)
        return check_scores(log_ratio(self.psi, self.q, texts, *self.settings), self.psi, may_rule_out=True)


def as_texts(sequences: torch.Tensor, attention_mask: torch.Tensor, prompt_length: int) -> Rollout:
    """Texts of `generate` as a rollout whose log-probabilities are not known: `logps` are nan.

    Args:
        sequences, attention_mask: (B, T), prompts padded anywhere and completions padded at the right.
        prompt_length: Places before the completions.
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
