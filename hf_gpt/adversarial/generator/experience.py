"""The generator's experience: texts are sampled and scored, and become advantages."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hf_gpt.adversarial.config import REWARDED
from hf_gpt.adversarial.data.rollouts import as_batch, prompt_mask, prompt_rows
from hf_gpt.adversarial.discriminator.update import Batch
from hf_gpt.adversarial.generator.advantages import Scores, make_advantages
from hf_gpt.adversarial.generator.gumbel import gumbel_rollout
from hf_gpt.adversarial.generator.losses import (
    non_saturating_loss,
    relativistic_generator_loss,
    token_divergence_rewards,
)
from hf_gpt.adversarial.generator.reward_functions import TextRewards
from hf_gpt.adversarial.generator.rewards import differential_rewards, future_returns
from hf_gpt.adversarial.generator.update import Experience, logps_of
from hf_gpt.adversarial.loop import AdversarialLoop
from hf_gpt.adversarial.monitoring.diagnostics import entropy_per_token, low_contrast_share
from hf_gpt.adversarial.monitoring.history import ScoredText
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.logprobs import completion_logits, completion_logps, token_logps


# AUC of a discriminator that knows nothing.
CHANCE = 0.5

RewardFunction = Callable[[Rollout], torch.Tensor]


class GeneratorStep:
    """Makes the experience that the generator learns from: its samples, their scores and advantages.

    Args:
        loop: The adversarial loop, whose texts, discriminator and history it shares.
        reward_function: In place of the discriminator.
        text_rewards: Reward functions on texts, beside the discriminator or in its place.

    Attributes:
        reference: A copy of the generator, for KL and self-play; None until `take_reference`.
        average_return: Moving average over updates, for a baseline; None before the first.
    """

    def __init__(
        self,
        loop: AdversarialLoop,
        reward_function: RewardFunction | None = None,
        text_rewards: TextRewards | None = None,
    ):
        self.loop, self.reward_function, self.text_rewards = loop, reward_function, text_rewards
        self.args, self.accelerator, self.tokens = loop.args, loop.accelerator, loop.tokens
        self.discriminator_trainer, self.group_size = loop.discriminator_trainer, loop.group_size
        self.collector, self.history, self.log = loop.collector, loop.history, loop.log
        self.reference: nn.Module | None = None
        self.average_return: float | None = None

    def experience(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        observe: bool = True,
        keep_judgement: bool = False,
        activation_cache: ActivationCache | None = None,
    ) -> Experience:
        """Texts sampled for the prompts of a batch, with what the generator learns from them.

        Args:
            model: The generator, without wrappers.
            inputs: A collated batch of real texts.
            observe: Whether to score held-out texts too.
            keep_judgement: Whether to score with gradient, if the discriminator's update can reuse it.
            activation_cache: Takes the activations of sampling, for an update of the same weights.
        """
        if self.args.estimator == "spin":
            return self._self_play(inputs)
        size = self.group_size
        # Every `size`-th prompt, so that the number of processes does not change the choice.
        requests = [(prompt_rows(as_batch(inputs))[::size], size)]
        held_out = self.loop.held_out_texts() if observe and self.discriminator_trainer is not None else None
        if held_out is not None and self.loop.eval_rows.has_prompts:
            requests.append((prompt_rows(held_out), 1))
        samples, *others = self.collector.sample_all(model, requests, activation_cache=activation_cache)
        batch, mask = as_batch(samples), samples.completion_mask
        self.loop.count(samples.sequences)
        found = Experience(samples, size, activation_cache=activation_cache)
        if keep_judgement:
            found.judgement = self.discriminator_trainer.judgement(batch)
        known = None if found.judgement is None else found.judgement.detach()
        if held_out is not None:
            seen = self.loop.observe_texts(model, held_out, *(others or [samples, known]))
            known = known if others else seen
        if self.args.estimator == "exact_token":
            found.mediator_logits = self.discriminator_trainer.token_logits(batch)
            ratios = torch.where(
                mask.bool(), token_logps(found.mediator_logits, batch.completions) - samples.logps, 0.0
            )
            rewards = ratios.sum(-1)
            if self.args.gamma:
                # The exact gradient leaves out what a token leads to.
                token_rewards = ratios
                if self.args.token_divergence != "reverse_kl":
                    token_rewards = self._divergence_rewards(model, batch, found.mediator_logits)
                    if self.args.normalization == "token":
                        token_rewards = differential_rewards(
                            token_rewards, mask, self.loop.token_mean(token_rewards, mask)
                        )
                found.advantages = self._centred(future_returns(token_rewards, mask, self.args.gamma), mask)
        else:
            scores = self._with_text_rewards(self._judge(model, inputs, samples, known), inputs, samples)
            found.scores, rewards = scores.texts, scores.texts
            if self.args.estimator in REWARDED:
                advantages = make_advantages(self.args, scores, mask, size, self._known_auc(), self.average_return)
                found.advantages, rewards = advantages.values, advantages.rewards
                if advantages.average is None or math.isfinite(advantages.average):
                    self.average_return = advantages.average
            found.is_finite = self._are_finite(scores, mask)
        if self.args.beta:
            found.reference_logps = logps_of(self.reference, samples, self.args.sampling)
        if found.is_finite and self.loop.guard.look(everyones := self.loop.gathered(rewards)):
            self._remember(samples, rewards, everyones)
        else:
            found.is_finite = False
        return found

    def activation_cache(self, step: int) -> ActivationCache | None:
        """A cache for the activations of sampling, where the generator's update at this step may reuse them."""
        # At steps with monitors, recomputed log-probabilities are compared with those of sampling.
        is_monitored = (step + 1) % self.args.monitor_steps == 0
        return None if is_monitored or self.args.world_size > 1 else ActivationCache()

    def soft_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """The generator's loss with gradient through the texts themselves, for the Gumbel estimators.

        Args:
            model: The generator, without wrappers.
            inputs: A collated batch of real texts.
            temperature: Of the relaxed samples only; tokens are sampled as in all rollouts.
        """
        batch = as_batch(inputs)
        soft = gumbel_rollout(
            model,
            batch.input_ids[:, : int(batch.prompt_length.max())],
            prompt_mask(batch),
            max_new_tokens=self.args.max_new_tokens,
            temperature=temperature,
            sampling=self.args.sampling,
            eos_token_id=self.tokens.eos,
            generator=self.loop.noise,
        )
        scorer = self.discriminator_trainer.scorer
        embeddings, mask = soft.embed(scorer.model.get_input_embeddings())
        with evaluating(scorer):
            generated_scores = scorer(kind="embeddings", embeddings=embeddings, attention_mask=mask)
            if self.args.estimator == "gumbel":
                return non_saturating_loss(generated_scores)
            with torch.no_grad():
                real_scores = scorer(batch.input_ids, batch.attention_mask)
        return relativistic_generator_loss(real_scores, generated_scores)

    def take_reference(self, model: nn.Module) -> None:
        """Copies the present generator, for KL and self-play."""
        if self.reference is None:
            self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        else:
            self.reference.load_state_dict(model.state_dict())

    def _self_play(self, inputs: dict[str, torch.Tensor]) -> Experience:
        real = as_batch(inputs)
        samples = self.collector.sample(self.reference, prompt_rows(real))
        with torch.no_grad():
            real_logps = completion_logps(
                self.reference,
                real.input_ids,
                real.attention_mask,
                real.prompt_length,
                real.completions,
                self.args.temperature,
            )
        self.loop.count(samples.sequences)
        rewards = samples.logps.new_zeros(len(samples))
        self._remember(samples, rewards, self.loop.gathered(rewards))
        generated_logps = logps_of(self.reference, samples, self.args.sampling)
        return Experience(samples, 1, reference_logps=generated_logps, real=inputs, real_reference_logps=real_logps)

    def _judge(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], samples: Rollout, known: torch.Tensor | None
    ) -> Scores:
        """Scores of samples; `known` holds those of whole texts, if there are any."""
        mask = samples.completion_mask
        if self.reward_function is not None:
            given = self.reward_function(samples).to(mask.device)
            if given.shape == mask.shape:
                return Scores(torch.where(mask.bool(), given, 0.0).sum(-1), token_rewards=given)
            if given.shape != mask.shape[:1]:
                raise ValueError(
                    f"reward_function gave shape {tuple(given.shape)} for {len(samples)} texts of <= {mask.shape[1]} "
                    "tokens: it must give one score for each text, or one reward for each token."
                )
            return Scores(given)
        if self.discriminator_trainer is None:
            return Scores(mask.new_zeros(len(mask), dtype=torch.float32), has_logits=False)
        batch = as_batch(samples)
        if self.args.reward_level == "prefix":
            scores = self.discriminator_trainer.prefix_scores(batch)
            texts = scores.gather(1, mask.sum(-1).long()[:, None])[:, 0]
            return Scores(texts, prefixes=scores[:, 1:], prompts=scores[:, 0])
        scores = Scores(self.loop.text_scores(model, batch) if known is None else known)
        if self.args.reward == "pairwise":
            real = as_batch({name: tensor[:: self.group_size] for name, tensor in inputs.items()})
            scores.real = self.loop.text_scores(model, real)
        return scores

    def _with_text_rewards(self, scores: Scores, inputs: dict[str, torch.Tensor], samples: Rollout) -> Scores:
        """The scores with the rewards of functions on texts, if there are any; logs the mean of each."""
        if self.text_rewards is None:
            return scores
        indices = inputs["index"][:: self.group_size].repeat_interleave(self.group_size).tolist()
        scores.added, means = self.text_rewards(samples, [self.loop.train_rows[index] for index in indices])
        if not scores.has_logits:
            scores.texts = scores.added
        for name, mean in means.items():
            if not math.isnan(mean):
                self.log(f"rewards/{name}/mean", mean)
        return scores

    def _known_auc(self) -> float | None:
        """The AUC for advantages: chance until there are enough scores, None with a reward function."""
        if self.discriminator_trainer is None:
            return None
        auc = self.history.heldout.auc
        return CHANCE if auc is None else auc

    def _divergence_rewards(self, model: nn.Module, batch: Batch, reference_logits: torch.Tensor) -> torch.Tensor:
        """(R, C) minus the policy's divergence at each state, without dropout."""
        with torch.no_grad(), evaluating(model):
            logits = completion_logits(
                model, batch.input_ids, batch.attention_mask, batch.prompt_length, batch.completions.shape[1]
            )
        logits = self.args.sampling.policy_logits(logits)
        return token_divergence_rewards(
            logits, reference_logits, batch.completion_mask, self.args.token_divergence, self.args.token_divergence_beta
        )

    def _centred(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, C) minus the mean at each position over the texts of all processes."""
        sums = torch.stack([torch.where(mask.bool(), values, 0.0).sum(0), mask.sum(0)])
        if self.args.world_size > 1:
            whole = sums.new_zeros(2, self.args.max_new_tokens)
            whole[:, : sums.shape[1]] = sums
            sums = self.accelerator.reduce(whole, "sum")[:, : sums.shape[1]]
        return torch.where(mask.bool(), values - sums[0] / sums[1].clamp(min=1), 0.0)

    def _are_finite(self, scores: Scores, mask: torch.Tensor) -> bool:
        """Whether all scores of texts, and of their tokens, are finite in every process."""
        texts = scores.texts.detach().float()
        for tokens in (scores.prefixes, scores.token_rewards):
            if tokens is not None:
                texts = texts + torch.where(mask.bool() & ~tokens.isfinite(), torch.nan, 0.0).sum(-1)
        parts = [texts] if scores.real is None else [texts, scores.real]
        # All processes gather all parts, or they would wait for each other.
        seen = [self.loop.guard.look(self.loop.gathered(part)) for part in parts]
        return all(seen)

    def _remember(self, samples: Rollout, rewards: torch.Tensor, everyones: torch.Tensor) -> None:
        """Adds texts to the history and logs their metrics; `everyones` are the rewards of all processes."""
        generated, logps = self.collector.gather(samples, range(len(samples)))
        rows = zip(generated, logps.tolist(), everyones.tolist(), strict=True)
        self.history.add_texts([ScoredText(text.completion, logp, reward) for text, logp, reward in rows])
        self.log("entropy", entropy_per_token(samples.logps, samples.completion_mask))
        self.log("completion_length", samples.completion_mask.sum(-1).mean().item())
        self.log("reward_mean", everyones.mean().item())
        self.log("reward_std", everyones.std().item() if len(everyones) > 1 else 0.0)
        if self.group_size > 1 and len(rewards) % self.group_size == 0:
            self.log("reward_std_within", rewards.reshape(-1, self.group_size).std(-1).mean().item())
            self.log("low_contrast_share", low_contrast_share(rewards, self.group_size))

    # State

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, the same in every process."""
        return {
            "average_return": self.average_return,
            "reference": None if self.reference is None else self.reference.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Goes on from a `state_dict`; the reference is made from a copy of `model`."""
        self.average_return = state["average_return"]
        if state["reference"] is not None:
            self.take_reference(model)
            self.reference.load_state_dict(state["reference"])
