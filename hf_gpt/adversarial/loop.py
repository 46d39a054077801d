"""The game between two players: its texts, how they are judged, and the discriminator's half of a round."""

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
from hf_gpt.adversarial.masked_reductions import masked_sum
from hf_gpt.adversarial.monitoring.history import History
from hf_gpt.adversarial.monitoring.score_guard import ScoreGuard
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.logprobs import completion_logps


# Held-out texts that the likelihood is watched on, over all processes.
NLL_TEXTS = 64


class AdversarialLoop:
    """The state of a game between two players, and the discriminator's moves.

    Args:
        args: The arguments.
        accelerator: The trainer's.
        tokens: The special tokens.
        train_rows, eval_rows: Real texts to learn from, and held-out ones.
        collate: Rows to a batch.
        discriminator_trainer: The discriminator; None with a reward function, or for self-play.
        group_size: Completions of a prompt.
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
        discriminator_trainer: DiscriminatorTrainer | None,
        group_size: int,
        rollout_function: RolloutFunction | None,
        log: Callable[[str, float], None],
    ):
        self.args, self.accelerator, self.tokens, self.discriminator_trainer = (
            args,
            accelerator,
            tokens,
            discriminator_trainer,
        )
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
        # On top of fresh ones.
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
            # What is not finite would stay in the window, and in the means.
            return
        for scores in seen:
            real, generated = map(self.gathered, scores)
            self.guard.look(real), self.guard.look(generated)
            self.history.train.add(real, generated)
        self.log("d_loss", loss)
        self.log("d_grad_norm", norm)

    def _token_counts(self, batches: list[tuple[Batch, Batch]]) -> Counts | None:
        """Real and generated tokens of all processes, for each process and micro-batch, where a loss is over tokens."""
        if not self.args.has_language_model and self.args.reward_level != "prefix":
            return None
        real, generated = self._reduced(token_counts(batches)).tolist()
        return max(real, 1.0), max(generated, 1.0)

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
            samples: Fresh texts without prompts; with prompts, those of held-out rows are drawn here.
        """
        real = self.held_out_texts()
        if samples is None or self.eval_rows.has_prompts:
            samples = self.collector.sample(model, prompt_rows(real))
        self.observe_texts(model, real, samples)

    def held_out_texts(self) -> Batch:
        """The next of the real texts that neither player learns from, a batch of them."""
        return self._collated(self._share(self.eval_numbers, self.eval_rows, self.args.per_device_train_batch_size))

    def observe_texts(
        self, model: nn.Module, real: Batch, samples: Rollout, sample_scores: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Remembers the scores of held-out texts and of drawn ones (B,), and returns the latter."""
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
        """Real texts, generated ones, which real one each of those belongs to, and the fresh ones among them."""
        group = self._discriminator_group
        # In place of fresh ones.
        replayed = int(self._replayed(self.args.replay_fraction)) // group * group
        count = (self.args.per_device_train_batch_size - replayed) // group
        parts = [self._share(self.train_numbers, self.train_rows, count) for _ in range(number)]
        samples = self.collector.sample_all(model, [(part, group) for part in parts]) if parts else []
        for rows, fresh in zip(parts, samples, strict=True):
            batch = self._discriminator_batch(rows, group, fresh, replayed)
            self.count(fresh.sequences, batch[0].input_ids, batch[1].input_ids)
            yield batch

    def _replayed(self, share: float) -> float:
        """A share of a batch of this process, if there are texts to replay."""
        return self.args.per_device_train_batch_size * share if len(self.replay) else 0.0

    def _discriminator_batch(
        self, rows: list[dict[str, Any]], group: int, fresh: Rollout, replayed: int
    ) -> tuple[Batch, Batch, torch.Tensor, Rollout]:
        """`fresh` are `group` texts for each real one in `rows`; they go into the replay after the draw from it."""
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
        """Texts drawn for a real one: without prompts, where any texts are a group, each has a real one of its own."""
        return self.group_size if self.args.calibration_weight and self.train_rows.has_prompts else 1

    def _calibrated_group(self, num_fresh: int) -> int:
        """Texts whose scores are spread together: those of a prompt; without prompts all, where they do not part."""
        return self.group_size if num_fresh % self.group_size == 0 else num_fresh

    # Scores

    def text_scores(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """(R,) logits of whole texts, without dropout; of a language model log-ratios to the generator."""
        logps = self._policy_logps(model, batch) if self.args.has_language_model else None
        return self.discriminator_trainer.scores(batch, logps)

    def token_logps(self, model: nn.Module, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
        """(R, C) of the generator, without dropout."""
        positions = batch.input_ids, batch.attention_mask, batch.prompt_length, batch.completions
        with torch.no_grad(), evaluating(model):
            return completion_logps(model, *positions, temperature)

    def _policy_logps(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """`token_logps` of the policy, which a ratio compares with; a language model's texts are not truncated."""
        return self.token_logps(model, batch, self.args.temperature)

    def _likelihoods(self, model: nn.Module, *batches: Batch) -> torch.Tensor:
        """Log-probabilities of whole texts under the policy, of all batches."""
        return torch.cat([masked_sum(self._policy_logps(model, batch), batch.completion_mask) for batch in batches])

    def token_mean(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens of all processes; values are 0 outside the mask."""
        sums = torch.stack([values.sum(), mask.sum()])
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums, "sum")
        return sums[0] / sums[1].clamp(min=1)

    # Texts

    def held_out_nll(self, model: nn.Module) -> float:
        """Nats a token of held-out real texts under the model at temperature 1, the same texts at each call."""
        size = self.args.per_device_train_batch_size
        count = math.ceil(min(len(self.eval_rows), max(NLL_TEXTS, size)) / self.args.world_size)
        rows = self._share(RowNumbers(len(self.eval_rows), seed=self.args.seed + 3), self.eval_rows, count)
        sums = torch.zeros(2, device=self.args.device)
        for start in range(0, len(rows), size):
            batch = self._collated(rows[start : start + size])
            logps = self.token_logps(model, batch) * batch.completion_mask
            sums += torch.stack([logps.sum(), batch.completion_mask.sum()])
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums, "sum")
        return -(sums[0] / sums[1].clamp(min=1)).item()

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
        """Adds tokens that a player has written or read, of every process alike."""
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
        # Checkpoints of old have none.
        if "guard" in state:
            self.guard.load_state_dict(state["guard"])
