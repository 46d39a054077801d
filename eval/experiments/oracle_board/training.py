"""The generator of the benchmark, trained by likelihood or adversarially."""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from eval.experiments.common.adversarial import make_trainer, method_of, read_recipe
from eval.experiments.oracle_board.language import START
from hf_gpt import HfLstmConfig, HfLstmForCausalLM
from hf_gpt.adversarial.discriminator.factory import make_discriminator
from hf_gpt.evaluation.language_model.fitting import seeded
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout, rollout


def make_generator(vocab_size: int, width: int, seed: int) -> PreTrainedModel:
    """SeqGAN's generator: one LSTM of the oracle's width, weights from N(0, 0.1); without a bias at the output."""
    config = HfLstmConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_layers=1,
        num_decoder_layers=0,
        tie_word_embeddings=False,
        lstm_init="normal",
        initializer_range=0.1,
        bos_token_id=START,
        # Texts have one length: `endless` keeps this token from ending any.
        eos_token_id=START,
        chunked_loss="always",
    )
    with seeded(seed):
        return HfLstmForCausalLM(config)


@dataclass
class Likelihood:
    """Maximum likelihood: held-out nats per token after each epoch, the best weights and the last."""

    held_out: list[float] = field(default_factory=list)
    best: PreTrainedModel | None = None
    last: PreTrainedModel | None = None

    @property
    def best_epoch(self) -> int:
        """From 1."""
        return 1 + self.held_out.index(min(self.held_out))


def train_likelihood(
    model: PreTrainedModel,
    training: torch.Tensor,
    validation: torch.Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    seed: int = 0,
) -> Likelihood:
    """Trains in place by Adam with the settings of SeqGAN's pre-training, whatever the held-out likelihood says.

    `training` and `validation` are (texts, length) int64, without the start token.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    found = Likelihood()
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(training), generator=generator).split(batch_size):
            _nats(model, training[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
        found.held_out.append(mean_nats(model, validation))
        if found.best is None or found.held_out[-1] == min(found.held_out):
            found.best = copy.deepcopy(model).eval()
    found.last = model.eval()
    return found


@torch.no_grad()
def mean_nats(model: PreTrainedModel, texts: torch.Tensor, batch_size: int = 500) -> float:
    """-log q of texts of one length, nats per token."""
    model.eval()
    parts = texts.split(batch_size)
    return sum(_nats(model, part).item() * len(part) for part in parts) / len(texts)


def train_adversarially(
    recipe: str,
    model: PreTrainedModel,
    training: torch.Tensor,
    validation: torch.Tensor,
    *,
    steps: int,
    warmup_steps: int,
    seed: int,
) -> dict[str, Any]:
    """Trains a generator in place by a recipe of `hf-gpt adversarial`; returns what the trainer saw.

    `warmup_steps` are at most so many updates of the discriminator before the generator's `steps`.
    """
    settings = {
        **method_of(recipe),
        "max_new_tokens": training.shape[1],
        "max_steps": warmup_steps + steps,
        "monitor_steps": 10,
        "seed": seed,
        "discriminator_warmup_steps": warmup_steps,
    }
    # No token ends a text here.
    overrides = {"classifier_dropout": 0.1, "bos_token_id": None, "eos_token_id": None}
    with seeded(seed):
        overrides |= read_recipe(recipe).get("discriminator_overrides", {})
        discriminator = make_discriminator("ngram_cnn", model, **overrides)
    rows, held_out = ([{"input_ids": [START, *row]} for row in texts.tolist()] for texts in (training, validation))
    trainer = make_trainer(model, discriminator, rows, held_out, settings=settings, rollout_function=endless)
    trainer.train()
    model.eval()
    history, schedule = trainer.loop.history, trainer.schedule
    return {
        "generator_steps": schedule.adversarial_steps - schedule.skipped_steps,
        "skipped_steps": schedule.skipped_steps,
        "discriminator_updates": trainer.discriminator_trainer.updates,
        "discriminator_auc": history.heldout.auc,
        "warnings": sorted({warning.name for warning in history.monitors.alerts}),
    }


def endless(*args: Any, sampling: SamplingConfig, **kwargs: Any) -> Rollout:
    """`rollout` in a language whose texts all have the same length and no token for their end."""
    return rollout(*args, sampling=dataclasses.replace(sampling, eos_token_id=None), **kwargs)


def _nats(model: PreTrainedModel, texts: torch.Tensor) -> torch.Tensor:
    ids = torch.cat([torch.full_like(texts[:, :1], START), texts], 1)
    return model(input_ids=ids, labels=ids, use_cache=False).loss
