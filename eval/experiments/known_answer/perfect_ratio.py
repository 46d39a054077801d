"""
Adversarial training against the perfect discriminator, which knows log p/q of every prefix: what no learned one can
beat.

A thin loop over the pure functions of `hf_gpt.adversarial`, and maximum likelihood beside it.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from eval.experiments.common.random_language import RandomLanguage, sample_texts
from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.adversarial.generator import losses as estimators
from hf_gpt.adversarial.generator import rewards
from hf_gpt.adversarial.masked_reductions import masked_mean
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout, rollout
from hf_gpt.generation.scoring.logprobs import completion_logits, token_logps


@dataclass(frozen=True)
class Stage:
    """A language p, texts of it for training, and the length of every text in tokens."""

    language: nn.Module
    train: Rollout
    length: int


def make_stage(vocab_size: int, length: int, sharpness: float, num_train: int, seed: int) -> Stage:
    """A random language and texts of it, both by the seed."""
    language = RandomLanguage(vocab_size, sharpness=sharpness, seed=seed)
    return Stage(language, sample_texts(language, num_train, length, seed), length)


def make_generator(vocab_size: int, length: int, hidden_size: int) -> nn.Module:
    """A GPT of one block, too small to be the language."""
    return HfGptForCausalLM(
        HfGptConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=length + 1,
        )
    )


@dataclass
class Sample:
    """Texts of the generator, with its logits (which carry gradient) and those of the data's distribution."""

    texts: Rollout
    logits: torch.Tensor
    data_logits: torch.Tensor
    logps: torch.Tensor = field(init=False)
    data_logps: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.logps = token_logps(self.logits, self.texts.completions)
        self.data_logps = token_logps(self.data_logits, self.texts.completions)

    @property
    def mask(self) -> torch.Tensor:
        return self.texts.completion_mask

    @property
    def token_rewards(self) -> torch.Tensor:
        """log p/q of each token: what it adds to the perfect discriminator's logit."""
        prefix_scores = ((self.data_logps - self.logps.detach()) * self.mask).cumsum(1)
        return rewards.logit_difference_rewards(prefix_scores, self.mask)

    @property
    def scores(self) -> torch.Tensor:
        """The perfect discriminator's logit of each text."""
        return self.token_rewards.sum(1)


def _policy_gradient(sample: Sample, returns: torch.Tensor) -> torch.Tensor:
    baseline = rewards.position_baseline(returns, sample.mask, len(sample.texts))
    return estimators.policy_gradient_loss(sample.logps, returns - baseline, sample.mask, "token")


def reinforce(sample: Sample) -> torch.Tensor:
    """Dense log-ratio rewards; KL(q || p)."""
    return _policy_gradient(sample, rewards.dense_returns(sample.token_rewards, sample.mask))


def exact_token(sample: Sample, **divergence: Any) -> torch.Tensor:
    """Exact over the vocabulary, blind to what follows a token."""
    return estimators.exact_token_loss(
        sample.logits, sample.mask, reference_logits=sample.data_logits, normalization="token", **divergence
    )


def exact_and_future(sample: Sample) -> torch.Tensor:
    """Exact for the token itself, sampled for what follows it; KL(q || p)."""
    future = rewards.future_returns(sample.token_rewards, sample.mask)
    return exact_token(sample) + _policy_gradient(sample, future)


def exact_divergence(kind: str, beta: float) -> Callable[[Sample], torch.Tensor]:
    """The sum over positions of a `token_divergence`: exact at each, and for what follows a token."""

    def loss(sample: Sample) -> torch.Tensor:
        found = estimators.token_divergence_rewards(sample.logits, sample.data_logits, sample.mask, kind, beta)
        future = rewards.future_returns(found, sample.mask)
        return exact_token(sample, divergence=kind, beta=beta) + _policy_gradient(sample, future)

    return loss


def jensen_shannon(sample: Sample) -> torch.Tensor:
    """Reward log(1 + p/q) for the whole text; 2 JSD."""
    value = rewards.sparse_rewards(rewards.score_rewards(sample.scores, "softplus"), sample.mask)
    return _policy_gradient(sample, rewards.dense_returns(value, sample.mask))


def train(
    model: nn.Module,
    stage: Stage,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    estimator: Callable[[Sample], torch.Tensor] | None = None,
    anchor: float = 0.0,
    on_step: Callable[[int, nn.Module, Sample | None], None] | None = None,
) -> nn.Module:
    """Trains a copy of `model`, at a rate that falls linearly to 0, and returns it.

    Args:
        estimator: Loss of a `Sample`; None: likelihood alone.
        anchor: Weight of the likelihood of real text.
        on_step: Called after each step with its number, the model and the sample.
    """
    model = copy.deepcopy(model).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    batches = _batches(stage.train, batch_size, generator)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - (step - 1) / steps)
        sampled = None if estimator is None else sample(model, stage, batch_size, generator)
        loss = torch.zeros(()) if sampled is None else estimator(sampled)
        if sampled is None or anchor:
            loss = loss + (anchor or 1.0) * likelihood(model, next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if on_step is not None:
            on_step(step, model, sampled)
    return model.eval()


def sample(model: nn.Module, stage: Stage, count: int, generator: torch.Generator) -> Sample:
    """Samples of the model, scored by itself and by the data's distribution."""
    sampling = SamplingConfig(max_new_tokens=stage.length, num_return_sequences=count, bos_token_id=0)
    texts = rollout(model, sampling=sampling, generator=generator)
    positions = (texts.sequences, texts.attention_mask, texts.prompt_length, stage.length)
    with torch.no_grad():
        data_logits = completion_logits(stage.language, *positions)
    return Sample(texts, completion_logits(model, *positions), data_logits)


def likelihood(model: nn.Module, texts: Rollout) -> torch.Tensor:
    """-log q of real texts, nats per token."""
    logits = completion_logits(
        model, texts.sequences, texts.attention_mask, texts.prompt_length, texts.completions.shape[1]
    )
    return -masked_mean(token_logps(logits, texts.completions), texts.completion_mask)


def _batches(texts: Rollout, size: int, generator: torch.Generator) -> Iterator[Rollout]:
    while True:
        for rows in torch.randperm(len(texts), generator=generator).split(size):
            if len(rows) == min(size, len(texts)):
                yield texts.rows(rows)
