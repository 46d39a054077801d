"""`AdversarialTrainer`: a generator and a discriminator trained against each other, on `Trainer`."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt import compat
from hf_gpt.adversarial.checks import check_learning, check_pair_and_data
from hf_gpt.adversarial.config import DIFFERENTIABLE, AdversarialConfig, check_processes
from hf_gpt.adversarial.data.dataset import SpecialTokens, TextCollator, TextRows, hold_out, warn_of_repeats
from hf_gpt.adversarial.data.rollouts import RolloutFunction, as_batch
from hf_gpt.adversarial.discriminator.module import as_discriminator
from hf_gpt.adversarial.discriminator.shared_trunk import check_shared_trunk, is_joint
from hf_gpt.adversarial.discriminator.trainer import DiscriminatorTrainer, with_adapter
from hf_gpt.adversarial.generator.experience import GeneratorStep, RewardFunction
from hf_gpt.adversarial.generator.reward_functions import TextRewardFunction, read_reward_functions, takes_texts
from hf_gpt.adversarial.generator.update import Experience, anchor_loss, generator_loss
from hf_gpt.adversarial.loop import AdversarialLoop
from hf_gpt.adversarial.monitoring import outcomes
from hf_gpt.adversarial.monitoring.evaluation import sample_metrics
from hf_gpt.adversarial.monitoring.log import add_adversarial_metrics, count_updates
from hf_gpt.adversarial.monitoring.monitors import Alert, as_log_entry
from hf_gpt.adversarial.resuming import ResumableAdversarialTrainer
from hf_gpt.adversarial.schedule import Phase, Schedule
from hf_gpt.adversarial.training_mode import has_dropout
from hf_gpt.errors import ConfigError
from hf_gpt.files.checkpoints import explains_read_errors
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.training.distributed.sharding import reshard
from hf_gpt.training.monitoring.callbacks import CutsCallback


logger = logging.getLogger(__name__)

# Among the metrics of steps: 1 where the generator had a loss.
_HAS_LOSS = "has_loss"


class AdversarialTrainer(ResumableAdversarialTrainer):
    """Trains a generator against a discriminator.

    A step is at most one update of the generator. The phases, in this order:

    1. Maximum likelihood (MLE), for `mle_warmup_steps`.
    2. The discriminator alone, until its held-out AUC is `discriminator_warmup_auc`.
    3. Distillation, if the discriminator is a language model: `distillation_warmup_steps` on real texts, by
       `anchor_soft_targets`.
    4. The adversarial loop: `discriminator_steps` updates of the discriminator on real and generated texts, then
       `generator_steps` of the generator. While the held-out AUC is below `gate_auc`, the generator is not updated.

    `per_device_train_batch_size` counts texts. A step reads so many real ones and generates so many completions,
    `group_size` for each of the prompts it takes.

    Args:
        model: The generator: a causal language model, or an encoder-decoder, whose encoder reads the prompts.
        discriminator: A sequence classifier with one label that reads the same tokens; any `nn.Module` that returns one
            logit for each text; a causal language model where `args.discriminator_loss` is "mediator" or "density".
            None with a reward function alone and for self-play.
        args: The arguments.
        train_dataset: Real texts, see `TextRows` for the columns.
        eval_dataset: Held-out real texts. Left out: a tenth of the training texts, at most 512.
        processing_class: The tokenizer of both models. Not needed for a dataset of token ids.
        data_collator: In place of `TextCollator`, with the same columns.
        peft_config, discriminator_peft_config: Train an adapter of generator or discriminator instead of its weights.
        reward_funcs: Functions with TRL's signature, beside the discriminator or in its place: see `TextRewards`.
        reward_weights: Weight of each of them. The discriminator's reward has weight 1. None: 1 for all.
        reward_function: Takes the discriminator's place. From a `Rollout` of B texts it gives their scores (B,), which
            `args.reward` turns into rewards, or the rewards of each token (B, C).
        rollout_function: Generates, in place of `hf_gpt.generation.sampling.rollout.rollout`.
        callbacks, kwargs: As for `Trainer`.

    Raises:
        ConfigError: models, data and arguments that do not fit together.
    """

    args: AdversarialConfig
    # A group is a part of a batch.
    needs_whole_batches = True

    def __init__(
        self,
        model: PreTrainedModel,
        discriminator: PreTrainedModel | nn.Module | None = None,
        args: AdversarialConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        data_collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]] | None = None,
        peft_config: Any = None,
        discriminator_peft_config: Any = None,
        callbacks: list[Any] | None = None,
        reward_function: RewardFunction | None = None,
        reward_funcs: TextRewardFunction | Sequence[TextRewardFunction] | None = None,
        reward_weights: Sequence[float] | None = None,
        rollout_function: RolloutFunction | None = None,
        **kwargs: Any,
    ):
        args = AdversarialConfig() if args is None else args
        if not isinstance(args, AdversarialConfig):
            raise TypeError(f"AdversarialTrainer needs AdversarialConfig as args, got {type(args).__name__}.")
        if train_dataset is None:
            raise ConfigError("AdversarialTrainer needs train_dataset, the real texts.")
        if reward_function is not None and reward_funcs is None and takes_texts(reward_function):
            reward_function, reward_funcs = None, reward_function
        self.reward_function, self.rollout_function = reward_function, rollout_function
        self.text_rewards = read_reward_functions(reward_funcs, reward_weights, processing_class)
        discriminator = as_discriminator(discriminator, model)
        self.tokens = SpecialTokens.of(model, processing_class)
        rows, eval_rows = self._read(args, train_dataset, eval_dataset, processing_class)
        self.group_size = args.resolve_group_size(rows.has_prompts)
        check_pair_and_data(
            args,
            model,
            discriminator,
            rows,
            eval_rows,
            reward_function,
            rollout_function,
            processing_class,
            has_text_rewards=self.text_rewards is not None,
        )
        check_processes(args)
        super().__init__(
            model=with_adapter(model, peft_config, "CAUSAL_LM", args.seed),
            args=args,
            train_dataset=rows,
            eval_dataset=eval_rows,
            processing_class=processing_class,
            data_collator=data_collator or TextCollator(self.tokens.pad),
            callbacks=[*(callbacks or ()), CutsCallback(self.cuts)],
            **kwargs,
        )
        self.validation_content = eval_rows
        self.discriminator_trainer = None
        if discriminator is not None:
            self.discriminator_trainer = self._train_beside(model, discriminator, discriminator_peft_config)
        self._begin_run()

    def _read(
        self, args: AdversarialConfig, train_dataset: Any, eval_dataset: Any, processing_class: Any
    ) -> tuple[TextRows, TextRows]:
        """The real texts to train on and the held-out ones."""
        sizes = (args.max_new_tokens, args.max_prompt_length, args.overlong)
        rows = TextRows(train_dataset, self.tokens, processing_class, *sizes)
        self.cuts = {"texts": rows.cuts}
        if eval_dataset is None:
            # Those that are held out here have been counted with the others.
            rows, eval_rows = hold_out(rows, args.seed)
        else:
            eval_rows = TextRows(eval_dataset, self.tokens, processing_class, *sizes)
            self.cuts["held-out texts"] = eval_rows.cuts
        if args.process_index == 0:
            warn_of_repeats(rows, eval_rows)
        return rows, eval_rows

    def _train_beside(
        self, generator: PreTrainedModel, discriminator: PreTrainedModel, peft_config: Any
    ) -> DiscriminatorTrainer:
        check_shared_trunk(
            generator,
            discriminator,
            num_processes=self.args.world_size,
            reads_embeddings=self.args.needs_embeddings,
            has_adapter=hasattr(self.model, "peft_config") or peft_config is not None,
            is_sharded=self.args.is_sharded or self.is_fsdp_enabled or self.is_deepspeed_enabled,
        )
        if self.args.discriminator_texts == "shared" and is_joint(generator, discriminator):
            raise ConfigError(
                "--discriminator_texts shared needs a discriminator with a trunk of its own: in a joint trunk the two "
                "updates of a step would overwrite each other's gradients."
            )
        discriminator = with_adapter(discriminator, peft_config, "SEQ_CLS", self.args.seed + 1)
        check_learning(self.args, discriminator)
        return DiscriminatorTrainer(discriminator, self.args, self.accelerator)

    @property
    def discriminator(self) -> PreTrainedModel | None:
        """The discriminator, without its wrappers."""
        return None if self.discriminator_trainer is None else self.discriminator_trainer.model

    # A run and its steps

    def _begin_run(self) -> None:
        trained = self.discriminator_trainer is not None and self.args.discriminator_steps > 0
        self.schedule = Schedule(self.args, has_discriminator=trained)
        self._metrics: dict[str, list[float]] = defaultdict(list)
        self.loop = AdversarialLoop(
            self.args,
            self.accelerator,
            self.tokens,
            self.train_dataset,
            self.eval_dataset,
            self.data_collator,
            self.discriminator_trainer,
            self.group_size,
            self.rollout_function,
            self._note,
        )
        self.generator_step = GeneratorStep(self.loop, self.reward_function, self.text_rewards)
        self.experiences: list[Experience] = []
        self._raised: set[str] = set()
        self._fresh_auc: float | None = None
        self._phase = Phase.LIKELIHOOD
        self._outcome: outcomes.Outcome | None = None
        self._micro_step, self._num_tokens, self._skips = 0, 1.0, False
        self._taken: list[tuple[dict[str, torch.Tensor], Rollout]] = []

    def train(self, *args: Any, **kwargs: Any):
        self._begin_run()
        output = super().train(*args, **kwargs)
        self._say(outcomes.complaint(self.schedule.outcomes, self.args.estimator == "likelihood"))
        return output

    def _say(self, complaint: str | None) -> None:
        # A dry run has few steps of each phase.
        if complaint is not None and not self.args.dry_run and self.is_world_process_zero():
            logger.warning("%s", complaint)

    def describe_updates(self) -> str:
        """In a sentence or two, how many steps updated the generator, and what to change if there were too few."""
        counts = self.schedule.outcomes
        line = outcomes.describe(counts)
        return outcomes.complaint(counts, self.args.estimator == "likelihood") or f"{line[:1].upper()}{line[1:]}."

    def update_counts(self) -> dict[str, int]:
        """Updates of generator and discriminator so far, and steps by what they did to the generator (`Outcome`)."""
        counts = {f"steps_{name}": count for name, count in self.schedule.outcomes.items()}
        counts = {"generator_updates": self.schedule.generator_updates, **counts}
        if self.discriminator_trainer is not None:
            counts["discriminator_updates"] = self.discriminator_trainer.updates
        return counts

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm)
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._outcome = outcomes.outcome(
            alone=self._phase is Phase.DISCRIMINATOR,
            by_likelihood=self._phase in (Phase.LIKELIHOOD, Phase.DISTILLATION),
            gated=self._phase is Phase.ADVERSARIAL and self._skips,
            grad_norm=None if grad_norm is None else float(grad_norm),
            learning_rate=max(rates, default=0.0),
        )
        self.schedule.count(self._outcome)
        return grad_norm

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None):
        self.schedule.max_steps = max_steps
        self._say(self.schedule.shortage())
        if self.discriminator_trainer is not None:
            if resume_from_checkpoint is not None:
                with explains_read_errors(Path(resume_from_checkpoint)):
                    self.discriminator_trainer.load(Path(resume_from_checkpoint))
            self.discriminator_trainer.prepare(self.schedule.total_discriminator_updates())
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        if batches:
            # Of all processes and micro-batches, so that the sum of their losses is a mean over all tokens.
            count = sum(batch["completion_mask"].sum() for batch in batches).to(self.args.device)
            if self.args.world_size > 1:
                count = self.accelerator.reduce(count, "sum")
            self._num_tokens = float(count) / self.args.world_size / len(batches)
            self._micro_step = 0
        return batches, num_items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self.meter.start()
        step, inputs = self.state.global_step, compat.prepare_inputs(self, inputs)
        if self._micro_step == 0:
            # A warm-up that ends here ends for the whole of an accumulation.
            self._phase = self.schedule.phase(step)
        phase, before = self._phase, self.loop.tokens_seen
        self.meter.tokens += inputs["input_ids"].numel() * self.args.world_size
        if phase in (Phase.LIKELIHOOD, Phase.DISTILLATION):
            loss = self._backward(model, [lambda: self._anchor(model, inputs, 1.0)])
        elif phase is Phase.DISCRIMINATOR:
            loss = torch.zeros((), device=self.args.device)
            if self._micro_step == 0:
                self.loop.update_discriminator(self.model, observe=True)
                self.schedule.after_warmup_step(self.loop.history.heldout.auc)
        else:
            due = self.schedule.discriminator_updates_due()
            shares = self.args.discriminator_texts == "shared"
            if self._micro_step == 0:
                self._keep_reference()
                self._taken = []
                if not shares:
                    self.loop.update_discriminator(self.model, due)
            loss = self._adversarial_step(model, inputs, shares and due > 0)
        is_left_out = phase is Phase.ADVERSARIAL and (self._skips or not self.loop.guard.is_finite)
        self._note(_HAS_LOSS, phase is not Phase.DISCRIMINATOR and not is_left_out)
        self._micro_step += 1
        self.meter.tokens += self.loop.tokens_seen - before
        self._recorder.add(inputs, loss)
        if self.accelerator.sync_gradients:
            self.meter.steps += 1
            self.loop.guard.end_step(step + 1, model)
            self._after_step(phase, step + 1)
            if self.args.is_sharded:
                reshard(self.model)
        return loss

    def _adversarial_step(self, model: nn.Module, inputs: dict[str, torch.Tensor], shares: bool) -> torch.Tensor:
        """A micro-batch: the generator's update if the gate is open, the discriminator's with shared texts."""
        progress = self.schedule.progress(self.state.global_step)
        weight = self.args.anchor_weight(progress)
        if self.args.estimator in DIFFERENTIABLE:
            self.generator_step.experience(self.model, inputs, self._should_evaluate_texts())
            temperature = self.args.gumbel_temperature_at(progress)
            adversarial_loss = lambda: self.generator_step.soft_loss(self.model, inputs, temperature)  # noqa: E731
        else:
            experience = self._experience(inputs, shares and self.args.gradient_accumulation_steps == 1)
            self.loop.guard.mark(experience.is_finite)
            self._taken.append((inputs, experience.rollout))
            if shares and self.accelerator.sync_gradients:
                # Now that a judgement is at hand, and before there is another graph.
                self.loop.update_discriminator_on(self.model, self._taken, experience.judgement)
            adversarial_loss = lambda: self._adversarial_loss(model, experience)  # noqa: E731
        if self._micro_step == 0:
            self._skips = self.discriminator_trainer is not None and not self.loop.history.gate_open
        if self._skips or not self.loop.guard.is_finite:
            return torch.zeros((), device=self.args.device)
        losses = [adversarial_loss]
        # Gumbel's many passes go around the generator's wrapper; the anchor's pass reduces gradients over processes.
        if weight or (self.args.estimator in DIFFERENTIABLE and self.args.world_size > 1):
            losses.append(lambda: self._anchor(model, inputs, weight))
        return self._backward(model, losses)

    def _experience(self, inputs: dict[str, torch.Tensor], keep_judgement: bool) -> Experience:
        """Texts to learn from: new ones, or those of this micro-batch of the update before."""
        if self.args.num_iterations == 1:
            activation_cache = self.generator_step.activation_cache(self.state.global_step)
            return self.generator_step.experience(
                self.model, inputs, self._should_evaluate_texts(), keep_judgement, activation_cache
            )
        if self._micro_step == 0 and self.schedule.adversarial_steps % self.args.num_iterations == 0:
            self.experiences = []
        # The update before may have had fewer micro-batches: the last ones of an epoch are what is left.
        if self._micro_step == len(self.experiences):
            self.experiences.append(self.generator_step.experience(self.model, inputs, self._should_evaluate_texts()))
        return self.experiences[self._micro_step]

    def _should_evaluate_texts(self) -> bool:
        """Whether held-out texts are scored at this update of the generator."""
        return self.schedule.adversarial_steps % self.args.heldout_steps == 0

    def _adversarial_loss(self, model: nn.Module, experience: Experience) -> torch.Tensor:
        loss, metrics = generator_loss(self.args, model, experience)
        if self.args.normalization == "token" and self.args.estimator != "spin" and self.args.world_size > 1:
            # The mean of the processes' means is not the mean over all tokens.
            loss = loss * self.loop.token_share(experience.rollout.completion_mask)
        self._note("g_loss", loss.item())
        for name, value in metrics.items():
            self._note(name, value)
        return loss

    def _anchor(self, model: nn.Module, inputs: dict[str, torch.Tensor], weight: float) -> torch.Tensor:
        # Before its own warm-up the language model has learned nothing.
        soft_targets = 0.0 if self._phase is Phase.LIKELIHOOD else self.args.anchor_soft_targets
        targets = self.discriminator_trainer.token_logits(as_batch(inputs)) if soft_targets else None
        loss = anchor_loss(model, inputs, self._num_tokens, targets, soft_targets)
        self._note("anchor_loss", loss.item())
        return weight * loss

    def _backward(self, model: nn.Module, losses: list[Callable[[], torch.Tensor]]) -> torch.Tensor:
        """Differentiates losses one after another; returns their sum for the log."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for number, make_loss in enumerate(losses):
            # Within an accumulation nothing is synchronised anyway.
            waits = number < len(losses) - 1 and self.accelerator.sync_gradients
            with self.accelerator.no_sync(model) if waits else contextlib.nullcontext():
                with self.compute_loss_context_manager():
                    loss = make_loss() / self.current_gradient_accumulation_steps
                self.accelerator.backward(loss)
            total = total + loss.detach()
        return total

    def _keep_reference(self) -> None:
        if not self.args.needs_reference:
            return
        done, every = self.schedule.adversarial_steps, self.args.reference_steps
        if self.generator_step.reference is None or (every and done and done % every == 0):
            self.generator_step.take_reference(self.model)

    def _after_step(self, phase: Phase, step: int) -> None:
        if phase is Phase.ADVERSARIAL:
            self.schedule.after_adversarial_step(step - 1, self._skips)
            self._note("gate_shut", self._skips)
        elif phase is Phase.DISTILLATION:
            self.schedule.distillation_steps += 1
        if phase is not Phase.LIKELIHOOD and step % self.args.monitor_steps == 0:
            self._monitor(phase, step)

    # Monitoring

    def _monitor(self, phase: Phase, step: int) -> None:
        """Hands metrics to the monitors, logs new alerts, and stops after a collapse."""
        given: dict[str, float | None] = {"heldout_nll": self.loop.held_out_nll(self.model)}
        given["fresh_auc"], self._fresh_auc = self._fresh_auc, None
        self._note("nll_heldout", given["heldout_nll"])
        if phase is Phase.ADVERSARIAL:
            latest = {"reward": "reward_mean", "reward_std": "reward_std", "low_contrast_share": "low_contrast_share"}
            # Dropout and rounding change log-probabilities without any mistake.
            exact = not self.args.bf16 and self.args.rollout_weight_dtype is None and not has_dropout(self.model)
            if self.args.num_iterations == 1 and exact:
                latest["logp_mismatch"] = "logp_mismatch"
            for metric, name in latest.items():
                if self._metrics.get(name):
                    given[metric] = self._metrics[name][-1]
        known = {name: value for name, value in given.items() if value is not None}
        self._raise(self.loop.history.judge(step, **self.loop.over_processes(known)))

    def _raise(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            if alert.name not in self._raised and self.is_world_process_zero():
                logger.warning("%s", alert)
            self.state.log_history.append(as_log_entry(alert))
        self._raised = {alert.name for alert in alerts}
        if self.loop.history.monitors.should_stop and self.args.on_collapse == "stop":
            names = ", ".join(sorted(alert.name for alert in alerts if alert.is_fatal))
            logger.warning("stopping at step %d: %s", self.state.global_step + 1, names)
            self.control.should_training_stop = True

    def _note(self, name: str, value: float) -> None:
        self._metrics[name].append(float(value))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            means = {name: sum(each) / len(each) for name, each in self._metrics.items()}
            # Steps without a loss of the generator count as losses of 0 so far.
            with_loss = means.pop(_HAS_LOSS, 1.0)
            if with_loss:
                logs["loss"] /= with_loss
            logs.update(self.loop.over_processes(means))
            self._metrics.clear()
            logs.update(self.loop.guard.metrics())
            add_adversarial_metrics(
                logs, self.loop.history, self.schedule, self.discriminator_trainer, self._phase, len(self._raised)
            )
            if not with_loss:
                self._add_progress(logs)
                del logs["loss"]
        count_updates(logs, self.schedule, self._outcome)
        super().log(logs, start_time)

    # Evaluation

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        if eval_dataset is not None and not isinstance(eval_dataset, (TextRows, str)):
            sizes = (self.args.max_new_tokens, self.args.max_prompt_length, self.args.overlong)
            eval_dataset = TextRows(eval_dataset, self.tokens, self.processing_class, *sizes)
        return super().evaluate(eval_dataset, *args, **kwargs)

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.args.num_eval_samples:
            found = sample_metrics(
                self.model,
                self.loop.collector,
                dataloader.dataset,
                self.discriminator_trainer,
                self.args.num_eval_samples,
                self.args.seed,
                self.train_dataset,
            )
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
            if self.is_in_train:
                self._fresh_auc = found.get("fresh_auc")
        return output

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, **kwargs: Any):
        inputs = compat.prepare_inputs(self, inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            nats = anchor_loss(model, inputs, 1.0)
        targets = int(inputs["completion_mask"].sum())
        self._heldout_loss.add(nats.item(), targets)
        return nats / targets, None, None

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the generator, and the discriminator in the folder `discriminator` beside it."""
        super().save_model(output_dir, _internal_call)
        if self.discriminator_trainer is not None:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            self.discriminator_trainer.save(folder, self.processing_class, self.args.should_save)
