"""The adversarial loop: its texts, their scores, and the updates of the discriminator."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from hf_gpt.adversarial.config import PAIRED_LOSSES, AdversarialConfig
from hf_gpt.adversarial.data.dataset import RowNumbers, SpecialTokens, TextRows
from hf_gpt.adversarial.data.replay import ReplayBuffer
from hf_gpt.adversarial.data.rollouts import Collector, RolloutFunction, as_batch, prompt_rows
from hf_gpt.adversarial.discriminator.losses import Counts
from hf_gpt.adversarial.discriminator.trainer import DiscriminatorTrainer
from hf_gpt.adversarial.discriminator.update import Batch, concatenate, discriminator_loss, token_counts
from hf_gpt.adversarial.masked_reductions import masked_sum, mean_over_processes
from hf_gpt.adversarial.monitoring.history import History
from hf_gpt.adversarial.monitoring.score_guard import ScoreGuard
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.logprobs import completion_logps


# Held-out texts of the monitored loss, over all processes.
NLL_TEXTS = 64


class AdversarialLoop:
    """The state of adversarial training, and the updates of the discriminator.

    Args:
        args: The arguments.
        accelerator: The trainer's.
        tokens: The special tokens.
        train_rows, eval_rows: Real texts to learn from, and held-out ones.
        collate: Rows to a batch.
        discriminator_trainer: The discriminator; None with a reward function, or for self-play.
        group_size: Completions of a prompt.
        rollout_function: In place of our sampler.
        log: Takes a metric's name and value.
    """

    def __init__(
        self,
        args: AdversarialConfig,
        accelerator: Accelerator,
        tokens: SpecialTokens,
        train_rows: TextRows,
        eval_rows: TextRows,
        collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]],
        discriminator_trainer: DiscriminatorTrainer | None,
        group_size: int,
        rollout_function: RolloutFunction | None,
        log: Callable[[str, float], None],
    ):
        self.args, self.accelerator, self.tokens = args, accelerator, tokens
        self.discriminator_trainer = discriminator_trainer
        self.train_rows, self.eval_rows, self.collate = train_rows, eval_rows, collate
        self.group_size, self.log = group_size, log
        self.is_paired = args.discriminator_loss in PAIRED_LOSSES
        self.collector = Collector(args, accelerator, tokens, rollout_function, seed=args.seed)
        self.replay = ReplayBuffer(args.replay_size, seed=args.seed)
        self.train_numbers = RowNumbers(len(train_rows), seed=args.seed + 1)
        self.eval_numbers = RowNumbers(len(eval_rows), seed=args.seed + 2)
        self.guard = ScoreGuard("the reward_function" if discriminator_trainer is None else discriminator_trainer.model)
        self.history = History(args, tokens, train_rows, eval_rows, self.is_paired)
        self.noise = torch.Generator(device=args.device).manual_seed(args.seed + args.process_index)
        self.tokens_seen = 0

    # The discriminator

    def update_discriminator(self, model: nn.Module, updates: int = 1, observe: bool = False) -> None:
        """Updates on new and replayed generated texts and the real texts of the same prompts.

        The texts of all updates are sampled together, since the generator does not change between them.

        Args:
            model: The generator.
            updates: How many.
            observe: Whether to score held-out texts before each.
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
        """An update on the texts that the generator learns from, and replayed ones.

        Args:
            model: The generator.
            experiences: Collated real texts and the texts sampled for them, for each micro-batch.
            judgement: Scores with gradient of a single micro-batch, if there are any.
        """
        group = self.group_size if self.train_rows.has_prompts else 1
        # On top of new ones.
        replayed = round(self._replayed(self.args.replay_fraction / (1 - self.args.replay_fraction)))
        due = []
        for inputs, samples in experiences:
            rows = [self.train_rows[index] for index in inputs["index"].tolist()[::group]]
            due.append(self._discriminator_batch(rows, group, samples, replayed))
            self.count(due[-1][0].input_ids, due[-1][1].input_ids)
        self._update_discriminator(model, due, judgement)

    def _update_discriminator(
        self,
        model: nn.Module,
        due: "list[tuple[Batch, Batch, torch.Tensor, Rollout]]",
        judgement: torch.Tensor | None = None,
    ) -> None:
        seen: list[Any] = []
        counts = self._token_counts([(real, generated) for real, generated, _, _ in due])
        loss, norm = self.discriminator_trainer.update(
            [
                self._discriminator_loss(model, real, generated, partners, len(fresh), counts, seen, judgement)
                for real, generated, partners, fresh in due
            ]
        )
        if self.discriminator_trainer.was_skipped:
            # Non-finite values would stay in the window and in the means.
            return
        for scores in seen:
            real, generated = map(self.gathered, scores)
            self.guard.look(real), self.guard.look(generated)
            self.history.train.add(real, generated)
        self.log("d_loss", loss)
        self.log("d_grad_norm", norm)

    def _token_counts(self, batches: list[tuple[Batch, Batch]]) -> Counts | None:
        """Mean number of real and of generated tokens of a micro-batch, for losses over tokens."""
        if not self.args.has_language_model and self.args.reward_level != "prefix":
            return None
        real, generated = self._reduced(token_counts(batches)).tolist()
        return max(real, 1.0), max(generated, 1.0)

    def token_share(self, mask: torch.Tensor) -> float:
        """Tokens of this process over the mean of all processes."""
        count = mask.bool().sum().float()
        return (count / self._reduced(count).clamp(min=1)).item()

    def _reduced(self, count: torch.Tensor) -> torch.Tensor:
        """The mean over the processes."""
        return self.accelerator.reduce(count, "mean") if self.args.world_size > 1 else count

    def over_processes(self, values: dict[str, float]) -> dict[str, float]:
        """The mean of each value over all processes, which must agree on when to stop."""
        if self.args.world_size == 1 or not values:
            return values
        names = sorted(values)
        numbers = self._reduced(torch.tensor([values[name] for name in names], device=self.args.device))
        return dict(zip(names, numbers.tolist(), strict=True))

    def _discriminator_loss(
        self,
        model: nn.Module,
        real: Batch,
        generated: Batch,
        partners: torch.Tensor,
        num_fresh: int,
        counts: Counts | None,
        seen: list[Any],
        judgement: torch.Tensor | None,
    ) -> Callable[[Any], torch.Tensor]:
        """The loss of a batch as a function of the scorer; it adds the scores to `seen`."""
        ratio = self.args.discriminator_loss == "density" and self.args.density_ratio_weight > 0
        generator_logps = self._likelihoods(model, real, generated) if ratio else None

        def make_loss(scorer: Any) -> torch.Tensor:
            loss, real_scores, generated_scores = discriminator_loss(
                self.args,
                scorer,
                real,
                generated,
                partners,
                self.tokens.pad,
                num_fresh=num_fresh,
                group_size=self._calibrated_group(num_fresh),
                noise=self.noise,
                counts=counts,
                generator_logps=generator_logps,
                fresh_scores=judgement,
            )
            # Held-out scores of a language model are ratios: without the generator there is none.
            if generator_logps is not None or not self.args.has_language_model:
                seen.append((real_scores, generated_scores))
            return loss

        return make_loss

    def observe(self, model: nn.Module, samples: Rollout | None = None) -> None:
        """Scores held-out real texts and generated ones that the discriminator has never seen.

        Args:
            model: The generator.
            samples: New texts. Ignored with prompts: texts for held-out prompts are then sampled here.
        """
        real = self.held_out_texts()
        if samples is None or self.eval_rows.has_prompts:
            samples = self.collector.sample(model, prompt_rows(real))
        self.observe_texts(model, real, samples)

    def held_out_texts(self) -> Batch:
        """The next batch of held-out real texts."""
        return self._collated(self._share(self.eval_numbers, self.eval_rows, self.args.per_device_train_batch_size))

    def observe_texts(
        self, model: nn.Module, real: Batch, samples: Rollout, sample_scores: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Keeps the scores of held-out real texts and of generated ones (B,), and returns the latter."""
        if sample_scores is None:
            sample_scores = self.text_scores(model, as_batch(samples))
        self.count(real.input_ids, samples.sequences)
        both = [self.gathered(scores) for scores in (self.text_scores(model, real), sample_scores)]
        for scores in both:
            self.guard.look(scores)
        self.history.heldout.add(*both)
        return sample_scores

    def _discriminator_batches(
        self, model: nn.Module, number: int
    ) -> Iterator[tuple[Batch, Batch, torch.Tensor, Rollout]]:
        """Real texts, generated texts, the row of the real text of each generated one, and the new ones among them."""
        group = self._discriminator_group
        # In place of new ones.
        replayed = int(self._replayed(self.args.replay_fraction)) // group * group
        count = (self.args.per_device_train_batch_size - replayed) // group
        parts = [self._share(self.train_numbers, self.train_rows, count) for _ in range(number)]
        samples = self.collector.sample_all(model, [(part, group) for part in parts]) if parts else []
        for rows, fresh in zip(parts, samples, strict=True):
            batch = self._discriminator_batch(rows, group, fresh, replayed)
            self.count(fresh.sequences, batch[0].input_ids, batch[1].input_ids)
            yield batch

    def _replayed(self, share: float) -> float:
        """Texts in `share` of a batch of this process; 0 as long as there is nothing to replay."""
        return self.args.per_device_train_batch_size * share if len(self.replay) else 0.0

    def _discriminator_batch(
        self, rows: list[dict[str, Any]], group: int, fresh: Rollout, replayed: int
    ) -> tuple[Batch, Batch, torch.Tensor, Rollout]:
        """`fresh` holds `group` texts for each row. They enter the replay buffer after it was sampled from."""
        world, rank = self.args.world_size, self.args.process_index
        partners = torch.arange(len(rows)).repeat_interleave(group)
        indices = [row["index"] for row in rows for _ in range(group)]
        generated = as_batch(fresh)
        if replayed:
            old = self.replay.sample(world * replayed)[rank * replayed : (rank + 1) * replayed]
            texts = [{"prompt_ids": x.prompt, "completion_ids": x.completion, "index": x.index} for x in old]
            generated = concatenate([generated, self._collated(texts)], self.tokens.pad)
            partners = torch.cat([partners, torch.arange(len(rows), len(rows) + replayed)])
            rows = rows + [self.train_rows[text.index] for text in old]
        if self.args.replay_size:
            self.replay.add(self.collector.gather(fresh, indices)[0])
        return self._collated(rows), generated, partners.to(self.args.device), fresh

    @property
    def _discriminator_group(self) -> int:
        """Texts sampled for a real one: 1 without prompts, where any texts make a group."""
        return self.group_size if self.args.calibration_weight and self.train_rows.has_prompts else 1

    def _calibrated_group(self, num_fresh: int) -> int:
        """Texts whose scores are calibrated together: those of a prompt, or all where groups do not divide them."""
        return self.group_size if num_fresh % self.group_size == 0 else num_fresh

    # Scores

    def text_scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """(R,) logits of whole texts, without dropout; of a language model log-ratios to the generator."""
        logps = self._policy_logps(model, batch) if self.args.has_language_model else None
        return self.discriminator_trainer.scores(batch, logps)

    def token_logps(self, model: nn.Module, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
        """(R, C) of the generator, without dropout."""
        texts = batch.input_ids, batch.attention_mask, batch.prompt_length, batch.completions
        with torch.no_grad(), evaluating(model):
            return completion_logps(model, *texts, temperature)

    def _policy_logps(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """`token_logps` of the policy. With a language model as discriminator, sampling is never truncated."""
        return self.token_logps(model, batch, self.args.temperature)

    def _likelihoods(self, model: nn.Module, *batches: Batch) -> torch.Tensor:
        """Log-probabilities of whole texts under the policy, of all batches."""
        return torch.cat([masked_sum(self._policy_logps(model, batch), batch.completion_mask) for batch in batches])

    def token_mean(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens of all processes; values are 0 outside the mask."""
        return mean_over_processes(self.accelerator, values.sum(), mask.sum())

    # Texts

    def held_out_nll(self, model: nn.Module) -> float:
        """Held-out loss in nats per token at temperature 1, on the same real texts at each call."""
        size = self.args.per_device_train_batch_size
        count = math.ceil(min(len(self.eval_rows), max(NLL_TEXTS, size)) / self.args.world_size)
        rows = self._share(RowNumbers(len(self.eval_rows), seed=self.args.seed + 3), self.eval_rows, count)
        total = count = torch.zeros((), device=self.args.device)
        for start in range(0, len(rows), size):
            batch = self._collated(rows[start : start + size])
            logps = self.token_logps(model, batch) * batch.completion_mask
            total, count = total + logps.sum(), count + batch.completion_mask.sum()
        return -mean_over_processes(self.accelerator, total, count).item()

    def _share(self, numbers: RowNumbers, rows: TextRows, count: int) -> list[dict[str, Any]]:
        """This process's share of the next rows, `count` of them."""
        world, rank = self.args.world_size, self.args.process_index
        return [rows[number] for number in numbers.take(world * count)[rank * count : (rank + 1) * count]]

    def _collated(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        return as_batch(self.collate(rows)).to(self.args.device)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all processes."""
        return self.accelerator.gather(values.detach().float()) if self.args.world_size > 1 else values.detach().float()

    def count(self, *tokens: torch.Tensor) -> None:
        """Counts tokens that a model has written or read, as many in every process."""
        self.tokens_seen += sum(tensor.numel() for tensor in tokens) * self.args.world_size

    # State

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs but weights and optimizers, the same in every process."""
        return {
            "collector": self.collector.generator.get_state(),
            "replay": self.replay.state_dict(),
            "positions": [self.train_numbers.position, self.eval_numbers.position],
            "history": self.history.state_dict(),
            "guard": self.guard.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        self.collector.generator.set_state(state["collector"])
        self.replay.load_state_dict(state["replay"])
        self.train_numbers.position, self.eval_numbers.position = state["positions"]
        self.history.load_state_dict(state["history"])
        # Older checkpoints have none.
        if "guard" in state:
            self.guard.load_state_dict(state["guard"])
