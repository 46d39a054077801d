"""The discriminator of the arms that learn one: a language model against the student."""

import torch
from torch import nn
from transformers import PreTrainedModel

from eval.experiments.known_answer.perfect_ratio import Sample
from hf_gpt.adversarial.discriminator.losses import bce_loss
from hf_gpt.adversarial.masked_reductions import masked_mean, masked_sum
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.logprobs import completion_logps


class LearnedRatio:
    """The discriminator l(y) = sum_t log psi(y_t | s_t) - log q(y_t | s_t), psi a language model.

    psi learns the likelihood of real text, and by binary cross-entropy on l to tell real text from the student's, which
    corrects it where the student goes. With both, psi = p is optimal. It is trained in place; `weight` is that of the
    cross-entropy, a text, against the likelihood, a token.
    """

    def __init__(self, psi: PreTrainedModel, texts: Rollout, learning_rate: float, weight: float, seed: int):
        self.psi, self.texts, self.weight = psi, texts, weight
        self.optimizer = torch.optim.Adam(psi.parameters(), lr=learning_rate, betas=(0.5, 0.999))
        self.generator = torch.Generator().manual_seed(seed)

    def update(self, model: nn.Module, sample: Sample) -> float:
        """One update on a batch of the student's texts and as many real ones; returns the cross-entropy."""
        generated = sample.texts
        real = self.texts.rows(torch.randint(len(self.texts), (len(generated),), generator=self.generator))
        with torch.no_grad():
            real_logq = _logps(model, real)
        real_logps, generated_logps = _logps(self.psi, real), _logps(self.psi, generated)
        loss = bce_loss(
            masked_sum(real_logps - real_logq, real.completion_mask),
            masked_sum(generated_logps - sample.logps.detach(), generated.completion_mask),
            real_label=1.0,
        )
        self.optimizer.zero_grad()
        (self.weight * loss - masked_mean(real_logps, real.completion_mask)).backward()
        nn.utils.clip_grad_norm_(self.psi.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


def _logps(model: nn.Module, texts: Rollout) -> torch.Tensor:
    return completion_logps(model, texts.sequences, texts.attention_mask, texts.prompt_length, texts.completions)
