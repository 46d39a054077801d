"""What happens inside a step: texts are drawn and judged, the discriminator learns, the generator's lesson is made."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from hf_gpt.generation.likelihood import completion_logits, completion_logps, token_logps
from hf_gpt.generation.recorded import Recording
from hf_gpt.generation.rollout import Rollout
from hf_gpt.generation.scoring import evaluating
from hf_gpt.training.adversarial.advantages import Scores, make_advantages
from hf_gpt.training.adversarial.collection import Collector, RolloutFunction, as_batch, prompt_mask, prompt_rows
from hf_gpt.training.adversarial.config import PAIRED_LOSSES, REWARDED, AdversarialConfig
from hf_gpt.training.adversarial.discriminator_update import Batch, concatenate, discriminator_loss, token_counts
from hf_gpt.training.adversarial.estimators import (
    non_saturating_loss,
    relativistic_generator_loss,
    token_divergence_rewards,
)
from hf_gpt.training.adversarial.figures import entropy_per_token, low_contrast_share
from hf_gpt.training.adversarial.generator_update import Experience, logps_of
from hf_gpt.training.adversarial.gumbel import gumbel_rollout
from hf_gpt.training.adversarial.objectives import Counts
from hf_gpt.training.adversarial.player import DiscriminatorPlayer
from hf_gpt.training.adversarial.reductions import masked_sum
from hf_gpt.training.adversarial.replay import ReplayBuffer
from hf_gpt.training.adversarial.rewards import differential_rewards, future_returns
from hf_gpt.training.adversarial.texts import RowNumbers, SpecialTokens, TextRows
from hf_gpt.training.adversarial.watch import GeneratedText, Watch


RewardFunction = Callable[[Rollout], torch.Tensor]


class Rounds:
    """The state of a game between two players, and its moves.

    Args:
        args: The arguments.
        accelerator: The trainer's.
        tokens: The special tokens.
        train_rows, eval_rows: Real texts to learn from, and held-out ones.
        collate: Rows to a batch.
        player: The discriminator; None with a reward function, or for self-play.
        group_size: Completions of a prompt.
        reward_function: In place of the discriminator.
        rollout_function: In place of our sampler.
        log: Takes a figure's name and value.
    """

    def __init__(
        self,
        args: AdversarialConfig,
        accelerator: Accelerator,
        tokens: SpecialTokens,
        train_rows: TextRows,
        eval_rows: TextRows,
        collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]],
        player: DiscriminatorPlayer | None,
        group_size: int,
        reward_function: RewardFunction | None,
        rollout_function: RolloutFunction | None,
        log: Callable[[str, float], None],
    ):
        self.args, self.accelerator, self.tokens, self.player = args, accelerator, tokens, player
        self.train_rows, self.eval_rows, self.collate = train_rows, eval_rows, collate
        self.group_size, self.reward_function, self.log = group_size, reward_function, log
        self.is_paired = args.discriminator_loss in PAIRED_LOSSES
        self.collector = Collector(args, accelerator, tokens, rollout_function, seed=args.seed)
        self.replay = ReplayBuffer(args.replay_size, seed=args.seed)
        self.train_numbers = RowNumbers(len(train_rows), seed=args.seed + 1)
        self.eval_numbers = RowNumbers(len(eval_rows), seed=args.seed + 2)
        self.watch = Watch(args, tokens, train_rows, eval_rows, self.is_paired)
        self.noise = torch.Generator(device=args.device).manual_seed(args.seed + args.process_index)
        self.average_return: float | None = None
        self.reference: nn.Module | None = None
        self.tokens_seen = 0

    # The discriminator

    def update_discriminator(self, model: nn.Module, updates: int = 1, observe: bool = False) -> None:
        """Updates on fresh and replayed generated texts and the real texts of the same prompts.

        The generator is the same in all of them, so their texts are drawn together.

        Args:
            model: The generator.
            updates: How many.
            observe: Before each, see how well it tells held-out texts apart.
        """
        micro_batches = self.args.gradient_accumulation_steps
        batches = self._discriminator_batches(model, updates * micro_batches)
        for _ in range(updates):
            due = []
            for micro in range(micro_batches):
                due.append(next(batches))
                if observe and micro == 0:
                    self.observe(model, due[0][-1])
            self._update_discriminator(model, due)

    def update_discriminator_on(
        self,
        model: nn.Module,
        experiences: list[tuple[dict[str, torch.Tensor], Rollout]],
        judgement: torch.Tensor | None = None,
    ) -> None:
        """An update on texts that the generator learns from, and replayed ones.

        Args:
            model: The generator.
            experiences: Collated real texts and the texts drawn for them, for each micro-batch.
            judgement: Of a single micro-batch, where its texts have been scored with gradient.
        """
        group = self.group_size if self.train_rows.has_prompts else 1
        due = []
        for inputs, drawn in experiences:
            rows = [self.train_rows[index] for index in inputs["index"].tolist()[::group]]
            due.append(self._discriminator_batch(rows, group, drawn, self._replayed()))
            self._count(due[-1][0].input_ids, due[-1][1].input_ids)
        self._update_discriminator(model, due, judgement)

    def _update_discriminator(
        self,
        model: nn.Module,
        due: "list[tuple[Batch, Batch, torch.Tensor, Rollout]]",
        judgement: torch.Tensor | None = None,
    ) -> None:
        seen: list[Any] = []
        counts = self._token_counts([(real, fake) for real, fake, _, _ in due])
        loss, norm = self.player.update(
            [
                self._discriminator_loss(model, real, fake, partners, len(fresh), counts, seen, judgement)
                for real, fake, partners, fresh in due
            ]
        )
        for scores in seen:
            self.watch.train.add(*map(self._gathered, scores))
        self.log("d_loss", loss)
        self.log("d_grad_norm", norm)

    def _token_counts(self, batches: list[tuple[Batch, Batch]]) -> Counts | None:
        """Real and generated tokens of all processes, for each process and micro-batch, where a loss is over tokens."""
        if not self.args.has_language_model and self.args.reward_level != "prefix":
            return None
        real, fake = self._reduced(token_counts(batches)).tolist()
        return max(real, 1.0), max(fake, 1.0)

    def token_share(self, mask: torch.Tensor) -> float:
        """Tokens of this process over those of all processes on average."""
        count = mask.bool().sum().float()
        return (count / self._reduced(count).clamp(min=1)).item()

    def _reduced(self, count: torch.Tensor) -> torch.Tensor:
        """The mean over the processes."""
        return self.accelerator.reduce(count, "mean") if self.args.world_size > 1 else count

    def _discriminator_loss(
        self,
        model: nn.Module,
        real: Batch,
        fake: Batch,
        partners: torch.Tensor,
        num_fresh: int,
        counts: Counts | None,
        seen: list[Any],
        judgement: torch.Tensor | None,
    ) -> Callable[[Any], torch.Tensor]:
        """The loss of a batch as a function of the scorer; it adds the scores to `seen`."""
        ratio = self.args.discriminator_loss == "density" and self.args.density_ratio_weight > 0
        generator_logps = self._likelihoods(model, real, fake) if ratio else None

        def make_loss(scorer: Any) -> torch.Tensor:
            loss, real_scores, fake_scores = discriminator_loss(
                self.args,
                scorer,
                real,
                fake,
                partners,
                self.tokens.pad,
                num_fresh=num_fresh,
                group_size=self._discriminator_group,
                noise=self.noise,
                counts=counts,
                generator_logps=generator_logps,
                fresh_scores=judgement,
            )
            # Held-out scores of a language model are ratios: without the generator there is none.
            if generator_logps is not None or not self.args.has_language_model:
                seen.append((real_scores, fake_scores))
            return loss

        return make_loss

    def observe(self, model: nn.Module, drawn: Rollout | None = None) -> None:
        """Scores held-out real texts and generated ones that the discriminator has never seen.

        Args:
            model: The generator.
            drawn: Fresh texts without prompts; with prompts, those of held-out rows are drawn here.
        """
        real = self._held_out_texts()
        if drawn is None or self.eval_rows.has_prompts:
            drawn = self.collector.draw(model, prompt_rows(real))
        self._observe(model, real, drawn)

    def _held_out_texts(self) -> Batch:
        return self._collated(self._share(self.eval_numbers, self.eval_rows, self.args.per_device_train_batch_size))

    def _observe(
        self, model: nn.Module, real: Batch, drawn: Rollout, drawn_scores: torch.Tensor | None = None
    ) -> torch.Tensor:
        if drawn_scores is None:
            drawn_scores = self._text_scores(model, as_batch(drawn))
        self._count(real.input_ids, drawn.sequences)
        self.watch.heldout.add(*map(self._gathered, (self._text_scores(model, real), drawn_scores)))
        return drawn_scores

    def _discriminator_batches(
        self, model: nn.Module, number: int
    ) -> Iterator[tuple[Batch, Batch, torch.Tensor, Rollout]]:
        """Real texts, generated ones, which real one each of those belongs to, and the fresh ones among them."""
        group, replayed = self._discriminator_group, self._replayed()
        count = (self.args.per_device_train_batch_size - replayed) // group
        parts = [self._share(self.train_numbers, self.train_rows, count) for _ in range(number)]
        drawn = self.collector.draw_all(model, [(part, group) for part in parts]) if parts else []
        for rows, fresh in zip(parts, drawn, strict=True):
            batch = self._discriminator_batch(rows, group, fresh, replayed)
            self._count(fresh.sequences, batch[0].input_ids, batch[1].input_ids)
            yield batch

    def _replayed(self) -> int:
        """Replayed texts in a batch of this process."""
        group = self._discriminator_group
        wanted = int(self.args.per_device_train_batch_size * self.args.replay_fraction)
        return wanted // group * group if len(self.replay) else 0

    def _discriminator_batch(
        self, rows: list[dict[str, Any]], group: int, fresh: Rollout, replayed: int
    ) -> tuple[Batch, Batch, torch.Tensor, Rollout]:
        """`fresh` are `group` texts for each real one in `rows`; they go into the replay after the draw from it."""
        world, rank = self.args.world_size, self.args.process_index
        partners = torch.arange(len(rows)).repeat_interleave(group)
        indices = [row["index"] for row in rows for _ in range(group)]
        fake = as_batch(fresh)
        if replayed:
            old = self.replay.draw(world * replayed)[rank * replayed : (rank + 1) * replayed]
            texts = [{"prompt_ids": x.prompt, "completion_ids": x.completion, "index": x.index} for x in old]
            fake = concatenate([fake, self._collated(texts)], self.tokens.pad)
            partners = torch.cat([partners, torch.arange(len(rows), len(rows) + replayed)])
            rows = rows + [self.train_rows[text.index] for text in old]
        if self.args.replay_size:
            self.replay.add(self.collector.gather(fresh, indices)[0])
        return self._collated(rows), fake, partners.to(self.args.device), fresh

    @property
    def _discriminator_group(self) -> int:
        return self.group_size if self.args.calibration_weight else 1

    # The generator

    def experience(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        observe: bool = True,
        keep_judgement: bool = False,
        recording: Recording | None = None,
    ) -> Experience:
        """Texts drawn for the prompts of a batch, and what is to be learned from them.

        Args:
            model: The generator, without wrappers.
            inputs: A collated batch of real texts.
            observe: See, too, how well the discriminator tells held-out texts apart.
            keep_judgement: Score with gradient where the discriminator can go on from there.
            recording: Gets what drawing works out, for an update of the same weights.
        """
        if self.args.estimator == "spin":
            return self._self_play(inputs)
        size = self.group_size
        # Spread over the batch, so that processes that share it take the same ones.
        requests = [(prompt_rows(as_batch(inputs))[::size], size)]
        held_out = self._held_out_texts() if observe and self.player is not None else None
        if held_out is not None and self.eval_rows.has_prompts:
            requests.append((prompt_rows(held_out), 1))
        drawn, *others = self.collector.draw_all(model, requests, recording=recording)
        batch, mask = as_batch(drawn), drawn.completion_mask
        self._count(drawn.sequences)
        found = Experience(drawn, size, recording=recording)
        if keep_judgement:
            found.judgement = self.player.judgement(batch)
        known = None if found.judgement is None else found.judgement.detach()
        if held_out is not None:
            seen = self._observe(model, held_out, *(others or [drawn, known]))
            known = known if others else seen
        if self.args.estimator == "exact_token":
            found.mediator_logits = self.player.token_logits(batch)
            ratios = torch.where(mask.bool(), token_logps(found.mediator_logits, batch.completions) - drawn.logps, 0.0)
            rewards = ratios.sum(-1)
            if self.args.gamma:
                # What a token leads to, which the exact gradient at its own place leaves out.
                token_rewards = ratios
                if self.args.token_divergence != "reverse_kl":
                    token_rewards = self._divergence_rewards(model, batch, found.mediator_logits)
                    if self.args.normalization == "token":
                        token_rewards = differential_rewards(token_rewards, mask, self._token_mean(token_rewards, mask))
                found.advantages = self._centred(future_returns(token_rewards, mask, self.args.gamma), mask)
        else:
            scores = self._judge(model, inputs, drawn, known)
            found.scores, rewards = scores.texts, scores.texts
            if self.args.estimator in REWARDED:
                advantages = make_advantages(self.args, scores, mask, size, self.watch.heldout.auc, self.average_return)
                found.advantages, self.average_return = advantages.values, advantages.average
                rewards = advantages.rewards
        if self.args.beta:
            found.reference_logps = logps_of(self.reference, drawn)
        self._remember(drawn, rewards)
        return found

    def soft_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """The generator's loss with gradient through the texts themselves, for the Gumbel estimators.

        Args:
            model: The generator, without wrappers.
            inputs: A collated batch of real texts.
            temperature: Of the relaxed samples.
        """
        batch = as_batch(inputs)
        soft = gumbel_rollout(
            model,
            batch.input_ids[:, : int(batch.prompt_length.max())],
            prompt_mask(batch),
            max_new_tokens=self.args.max_new_tokens,
            temperature=temperature,
            eos_token_id=self.tokens.eos,
            generator=self.noise,
        )
        scorer = self.player.scorer
        embeddings, mask = soft.embed(scorer.model.get_input_embeddings())
        with evaluating(scorer):
            fake_scores = scorer(kind="embeddings", embeddings=embeddings, attention_mask=mask)
            if self.args.estimator == "gumbel":
                return non_saturating_loss(fake_scores)
            with torch.no_grad():
                real_scores = scorer(batch.input_ids, batch.attention_mask)
        return relativistic_generator_loss(real_scores, fake_scores)

    def take_reference(self, model: nn.Module) -> None:
        """Keeps the generator as it is now, for KL and self-play."""
        if self.reference is None:
            self.reference = copy.deepcopy(model).eval().requires_grad_(False)
        else:
            self.reference.load_state_dict(model.state_dict())

    def _self_play(self, inputs: dict[str, torch.Tensor]) -> Experience:
        real = as_batch(inputs)
        drawn = self.collector.draw(self.reference, prompt_rows(real))
        with torch.no_grad():
            real_logps = completion_logps(
                self.reference, real.input_ids, real.attention_mask, real.prompt_length, real.completions
            )
        self._count(drawn.sequences)
        self._remember(drawn, drawn.logps.new_zeros(len(drawn)))
        return Experience(
            drawn, 1, reference_logps=logps_of(self.reference, drawn), real=inputs, real_reference_logps=real_logps
        )

    def _judge(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], drawn: Rollout, known: torch.Tensor | None
    ) -> Scores:
        """Scores of drawn texts; `known` are those of the whole texts, where they have been worked out."""
        mask = drawn.completion_mask
        if self.reward_function is not None:
            given = self.reward_function(drawn).to(mask.device)
            if given.shape == mask.shape:
                return Scores(torch.where(mask.bool(), given, 0.0).sum(-1), token_rewards=given)
            if given.shape != mask.shape[:1]:
                raise ValueError(
                    f"reward_function gave shape {tuple(given.shape)} for {len(drawn)} texts of up to {mask.shape[1]} "
                    "tokens: it must give one score a text, or one reward a token."
                )
            return Scores(given)
        batch = as_batch(drawn)
        if self.args.reward_level == "prefix":
            scores = self.player.prefix_scores(batch)
            texts = scores.gather(1, mask.sum(-1).long()[:, None])[:, 0]
            return Scores(texts, prefixes=scores[:, 1:], prompts=scores[:, 0])
        scores = Scores(self._text_scores(model, batch) if known is None else known)
        if self.args.reward == "pairwise":
            real = as_batch({name: tensor[:: self.group_size] for name, tensor in inputs.items()})
            scores.real = self._text_scores(model, real)
        return scores

    def _text_scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.player.scores(batch, self._token_logps(model, batch) if self.args.has_language_model else None)

    def _token_logps(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """(R, C) of the generator, without dropout."""
        with torch.no_grad(), evaluating(model):
            return completion_logps(
                model, batch.input_ids, batch.attention_mask, batch.prompt_length, batch.completions
            )

    def _divergence_rewards(self, model: nn.Module, batch: Batch, reference_logits: torch.Tensor) -> torch.Tensor:
        """(R, C) minus the divergence at each state, without dropout."""
        with torch.no_grad(), evaluating(model):
            logits = completion_logits(
                model, batch.input_ids, batch.attention_mask, batch.prompt_length, batch.completions.shape[1]
            )
        return token_divergence_rewards(
            logits, reference_logits, batch.completion_mask, self.args.token_divergence, self.args.token_divergence_beta
        )

    def _likelihoods(self, model: nn.Module, *batches: Batch) -> torch.Tensor:
        """Log-probabilities of whole texts under the generator, of all batches."""
        return torch.cat([masked_sum(self._token_logps(model, batch), batch.completion_mask) for batch in batches])

    def _centred(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, C) less the mean at each position over the texts of all processes."""
        sums = torch.stack([torch.where(mask.bool(), values, 0.0).sum(0), mask.sum(0)])
        if self.args.world_size > 1:
            whole = sums.new_zeros(2, self.args.max_new_tokens)
            whole[:, : sums.shape[1]] = sums
            sums = self.accelerator.reduce(whole, "sum")[:, : sums.shape[1]]
        return torch.where(mask.bool(), values - sums[0] / sums[1].clamp(min=1), 0.0)

    def _token_mean(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens of all processes; values are 0 outside the mask."""
        sums = torch.stack([values.sum(), mask.sum()])
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums, "sum")
        return sums[0] / sums[1].clamp(min=1)

    def _remember(self, drawn: Rollout, rewards: torch.Tensor) -> None:
        fakes, logps = self.collector.gather(drawn, range(len(drawn)))
        everyones = self._gathered(rewards)
        self.watch.add_texts(
            [
                GeneratedText(fake.completion, logp, reward)
                for fake, logp, reward in zip(fakes, logps.tolist(), everyones.tolist(), strict=True)
            ]
        )
        self.log("entropy", entropy_per_token(drawn.logps, drawn.completion_mask))
        self.log("completion_length", drawn.completion_mask.sum(-1).mean().item())
        self.log("reward_mean", everyones.mean().item())
        self.log("reward_std", everyones.std().item() if len(everyones) > 1 else 0.0)
        if self.group_size > 1 and len(rewards) % self.group_size == 0:
            self.log("reward_std_within", rewards.reshape(-1, self.group_size).std(-1).mean().item())
            self.log("low_contrast_share", low_contrast_share(rewards, self.group_size))

    # Texts

    def held_out_nll(self, model: nn.Module) -> float:
        """Nats a token of held-out real texts, of which the next batch is taken."""
        batch = self._held_out_texts()
        logps = self._token_logps(model, batch)
        return -self._token_mean(logps * batch.completion_mask, batch.completion_mask).item()

    def _share(self, numbers: RowNumbers, rows: TextRows, count: int) -> list[dict[str, Any]]:
        """This process's share of the next rows, `count` of them."""
        world, rank = self.args.world_size, self.args.process_index
        return [rows[number] for number in numbers.take(world * count)[rank * count : (rank + 1) * count]]

    def _collated(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return as_batch(self.collate(rows)).to(self.args.device)

    def _gathered(self, values: torch.Tensor) -> torch.Tensor:
        return self.accelerator.gather(values.detach().float()) if self.args.world_size > 1 else values.detach().float()

    def _count(self, *tokens: torch.Tensor) -> None:
        self.tokens_seen += sum(tensor.numel() for tensor in tokens) * self.args.world_size

    # State

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs but weights and optimizers, the same in every process."""
        return {
            "collector": self.collector.generator.get_state(),
            "replay": self.replay.state_dict(),
            "positions": [self.train_numbers.position, self.eval_numbers.position],
            "watch": self.watch.state_dict(),
            "average_return": self.average_return,
            "reference": None if self.reference is None else self.reference.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Goes on from a `state_dict`; the reference is made from a copy of `model`."""
        self.collector.generator.set_state(state["collector"])
        self.replay.load_state_dict(state["replay"])
        self.train_numbers.position, self.eval_numbers.position = state["positions"]
        self.watch.load_state_dict(state["watch"])
        self.average_return = state["average_return"]
        if state["reference"] is not None:
            self.take_reference(model)
            self.reference.load_state_dict(state["reference"])
