"""The discriminator's training: wrapper, optimizer, schedule, updates, saving and loading."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, get_scheduler
from transformers.trainer_utils import load_sharded_checkpoint
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from hf_gpt import compat
from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.discriminator.model import Scorer
from hf_gpt.adversarial.discriminator.shared_trunk import whole_state
from hf_gpt.adversarial.discriminator.update import Batch
from hf_gpt.adversarial.training_mode import is_alike_in_training
from hf_gpt.errors import CheckpointError
from hf_gpt.files.checkpoint_parts import DISCRIMINATOR_DIR, DISCRIMINATOR_OPTIMIZER
from hf_gpt.generation.scoring.discriminator import advice_on, describe_scorer, evaluating
from hf_gpt.generation.scoring.logprobs import token_logps
from hf_gpt.generation.scoring.texts import TextDiscriminator
from hf_gpt.training.distributed.sharding import reshard, shard_in_place, whole
from hf_gpt.training.monitoring.nonfinite import NonFiniteError, anywhere
from hf_gpt.training.optim.muon_adamw import decayed_parameter_names
from hf_gpt.training.resumption.resumed_rates import check_schedule, settings_of, take_effect


class DiscriminatorTrainer:
    """Trains a discriminator beside `Trainer`, which trains one model only.

    Args:
        model: A classifier with one label, or a language model.
        args: Learning rates and so on.
        accelerator: The trainer's.

    Attributes:
        model: As it was given.
        scorer: The model behind one `forward`.
        wrapped: The scorer as it is trained, once `prepare` has been called.
        updates: Updates so far, without the skipped ones.
        skipped: Updates skipped since loss or gradient were not finite.
        was_skipped: Whether the last one was.
    """

    def __init__(self, model: PreTrainedModel, args: AdversarialConfig, accelerator: Accelerator):
        self.model, self.args, self.accelerator = model, args, accelerator
        self.scorer = Scorer(model.to(args.device))
        self.wrapped: nn.Module = self.scorer
        self.optimizer: Any = None
        self.scheduler: Any = None
        self.updates = self.skipped = 0
        self.was_skipped = False

    def prepare(self, total_updates: int) -> None:
        """Makes optimizer and schedule anew, and wraps or shards the model for several processes once."""
        if self.args.fsdp_size > 1 and not self._is_sharded:
            shard_in_place(self.scorer, compat.block_classes(self.scorer) or (), self.args.device.type)
            # Accelerate's part is bfloat16 alone.
            self.wrapped = self.accelerator.prepare_model(self.scorer, device_placement=False, evaluation_mode=True)
        decayed = set(decayed_parameter_names(self.scorer))
        groups = [
            {
                "params": [
                    parameter
                    for name, parameter in self.scorer.named_parameters()
                    if parameter.requires_grad and (name in decayed) == is_decayed
                ],
                "weight_decay": self.args.discriminator_weight_decay if is_decayed else 0.0,
            }
            for is_decayed in (True, False)
        ]
        optimizer = torch.optim.AdamW(
            groups,
            lr=self.args.discriminator_learning_rate,
            betas=(self.args.discriminator_adam_beta1, self.args.discriminator_adam_beta2),
            # One pass over weights and moments, which sharded weights do not allow.
            fused=not self._is_sharded and self.args.device.type in ("cpu", "cuda"),
        )
        if self.wrapped is self.scorer and not self._is_sharded:
            self.wrapped, self.optimizer = self.accelerator.prepare(self.scorer, optimizer)
        else:
            self.optimizer = self.accelerator.prepare(optimizer)
        self.scheduler = get_scheduler(
            self.args.discriminator_lr_scheduler_type, optimizer, num_warmup_steps=0, num_training_steps=total_updates
        )
        self.updates = self.skipped = 0

    def update(self, losses: list[Callable[[nn.Module], torch.Tensor]]) -> tuple[float, float]:
        """One step of the optimizer on the mean of losses, differentiated one after another.

        Args:
            losses: From the wrapped scorer to a scalar.

        Returns:
            The mean loss and the norm of the gradient.

        Raises:
            NonFiniteError: one of them is not finite in some process, and `nan_action` is "stop". With "skip" the
                weights stay as they are.
        """
        total = 0.0
        self.wrapped.train()
        with self._synchronised():
            # The generator's gradient may have passed through here.
            self.optimizer.zero_grad(set_to_none=True)
            for number, make_loss in enumerate(losses):
                is_last = number == len(losses) - 1
                with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.wrapped):
                    loss = make_loss(self.wrapped) / len(losses)
                    self.accelerator.backward(loss)
                total += loss.item()
            norm = self.accelerator.clip_grad_norm_(
                self.wrapped.parameters(), self.args.discriminator_max_grad_norm or float("inf")
            )
            norm = float(whole(norm, keep=True))
            self.was_skipped = anywhere(not math.isfinite(total), self.accelerator) or not math.isfinite(norm)
            if not self.was_skipped:
                self.optimizer.step()
                self.updates += 1
            elif self.args.nan_action == "stop":
                raise NonFiniteError(
                    f"update {self.updates + 1} of the discriminator: the loss of {describe_scorer(self.model)} is "
                    f"{total:g} and the gradient's norm {norm:g}, in this process. They must be finite in all. Its "
                    f"weights are those before the update. {advice_on(self.model)} Or lower "
                    "--discriminator_learning_rate, or skip such updates by --nan_action skip."
                )
            else:
                self.skipped += 1
            self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        return total, norm

    @torch.no_grad()
    def scores(self, batch: Batch, generator_logps: torch.Tensor | None = None) -> torch.Tensor:
        """(R,) logits of whole texts, without dropout.

        Args:
            batch: The texts.
            generator_logps: (R, C) of the generator G. The score of a language model M is the sum of log M - log G.
        """
        with evaluating(self.scorer):
            if self.args.has_language_model:
                logps = token_logps(self.token_logits(batch), batch.completions) - generator_logps
                return torch.where(batch.completion_mask.bool(), logps, 0.0).sum(-1)
            if self.args.reward_level == "prefix":
                scores = self.prefix_scores(batch)
                return scores.gather(1, batch.completion_mask.sum(-1).long()[:, None])[:, 0]
            return self.scorer(batch.input_ids, batch.attention_mask, prompt_length=batch.prompt_length)

    def judgement(self, batch: Batch) -> torch.Tensor | None:
        """`scores` with gradient, for reuse in an update on the same texts; None where it would give other numbers.

        It needs one process and a model without dropout or running statistics.
        """
        scores_texts = not self.args.has_language_model and self.args.reward_level == "sequence"
        if self.args.world_size > 1 or self._is_sharded or not scores_texts or not is_alike_in_training(self.model):
            return None
        self.wrapped.train()
        return self.wrapped(batch.input_ids, batch.attention_mask, prompt_length=batch.prompt_length)

    @torch.no_grad()
    def prefix_scores(self, batch: Batch) -> torch.Tensor:
        """(R, C + 1) logits of the prompt and of the text up to each token, without dropout."""
        return self._asked(batch, "prefix")

    @torch.no_grad()
    def token_logits(self, batch: Batch) -> torch.Tensor:
        """(R, C, V) logits of a language model, without dropout."""
        return self._asked(batch, "token")

    def save(self, folder: Path, processing_class: Any, is_main: bool) -> None:
        """Saves the model in `folder/discriminator`, complete by itself."""
        state = whole(self.accelerator.get_state_dict(self.wrapped), keep=is_main)
        if not is_main:
            return
        prefix = "model."
        state = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
        state = whole_state(self.model, state)
        path = folder / DISCRIMINATOR_DIR
        self.model.save_pretrained(path, state_dict=state)
        if processing_class is not None and not isinstance(self.model, TextDiscriminator):
            processing_class.save_pretrained(path)

    def load(self, folder: Path) -> None:
        """Reads the weights of `folder/discriminator`.

        Raises:
            CheckpointError: there are none.
        """
        path = folder / DISCRIMINATOR_DIR
        if not path.is_dir():
            raise CheckpointError(f"{folder} holds no {DISCRIMINATOR_DIR}: its run was not adversarial.")
        if hasattr(self._saved_model, "peft_config"):
            load_adapter_weights(self._saved_model, path)
        elif (path / SAFE_WEIGHTS_INDEX_NAME).is_file():
            load_sharded_checkpoint(self._saved_model, str(path), strict=False, prefer_safe=True)
        else:
            from safetensors.torch import load_file

            self._load_state(load_file(path / SAFE_WEIGHTS_NAME))

    def _load_state(self, state: dict[str, torch.Tensor]) -> None:
        # A tied weight is saved once, under its other name.
        if not self._is_sharded:
            self._saved_model.load_state_dict(state, strict=False)
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        reshard(self.wrapped)
        prefix = "model." if self._saved_model is self.model else f"model.{self.model.base_model_prefix}."
        state = {f"{prefix}{name}": tensor for name, tensor in state.items()}
        set_model_state_dict(self.wrapped, state, options=StateDictOptions(full_state_dict=True, strict=False))

    def save_optimizer(self, folder: Path, is_main: bool) -> None:
        """Writes the states of optimizer and schedule."""
        if self._is_sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state = get_optimizer_state_dict(self.wrapped, self.optimizer.optimizer, options=options)
        else:
            state = self.optimizer.state_dict()
        if is_main:
            kept = {"optimizer": state, "scheduler": self.scheduler.state_dict()}
            torch.save({**kept, "updates": self.updates, "skipped": self.skipped}, folder / DISCRIMINATOR_OPTIMIZER)

    def load_optimizer(self, folder: Path) -> None:
        """Restores saved states; learning rates and schedule stay those of this run."""
        settings = settings_of(self.optimizer)
        state = torch.load(folder / DISCRIMINATOR_OPTIMIZER, map_location="cpu", weights_only=True)
        check_schedule(self.scheduler, state["scheduler"])
        if self._is_sharded:
            from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

            options = StateDictOptions(full_state_dict=True)
            set_optimizer_state_dict(self.wrapped, self.optimizer.optimizer, state["optimizer"], options=options)
        else:
            self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        take_effect(self.optimizer, self.scheduler, settings)
        self.updates, self.skipped = state["updates"], state.get("skipped", 0)

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.scheduler.get_last_lr()[0]

    @property
    def _saved_model(self) -> PreTrainedModel:
        """What a checkpoint holds: of a discriminator with its own tokenizer, the model inside."""
        return self.model.discriminator if isinstance(self.model, TextDiscriminator) else self.model

    @property
    def _is_sharded(self) -> bool:
        return any(hasattr(parameter, "placements") for parameter in self.wrapped.parameters())

    def _asked(self, batch: Batch, kind: str) -> torch.Tensor:
        with evaluating(self.scorer):
            return self.scorer(
                batch.input_ids,
                batch.attention_mask,
                kind=kind,
                prompt_length=batch.prompt_length,
                num_tokens=batch.completions.shape[1],
            )

    @contextlib.contextmanager
    def _synchronised(self) -> Iterator[None]:
        # Accelerate skips optimizer steps while the generator accumulates gradients.
        state = self.accelerator.gradient_state
        former = state.sync_gradients
        compat.set_sync_gradients(state, True)
        try:
            yield
        finally:
            compat.set_sync_gradients(state, former)


def load_adapter_weights(model: nn.Module, folder: Path) -> None:
    """Reads an adapter that was saved in `folder` into a model that has one like it."""
    from peft import load_peft_weights, set_peft_model_state_dict

    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


def with_adapter(model: PreTrainedModel, config: Any, task_type: str, seed: int) -> Any:
    """The model with a new adapter, if there is a config for one."""
    if config is None:
        return model
    from peft import get_peft_model

    if config.task_type is None:
        config.task_type = task_type
    torch.manual_seed(seed)
    if isinstance(model, TextDiscriminator):
        model.discriminator = get_peft_model(model.discriminator, config)
        return model
    return get_peft_model(model, config)
