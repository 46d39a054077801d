"""Saving and resuming adversarial training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from hf_gpt.adversarial.checkpoint import load_adversarial_state, save_adversarial_state
from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.discriminator.trainer import DiscriminatorTrainer, load_adapter_weights
from hf_gpt.adversarial.generator.experience import GeneratorStep
from hf_gpt.adversarial.generator.update import Experience
from hf_gpt.adversarial.loop import AdversarialLoop
from hf_gpt.adversarial.schedule import Phase, Schedule
from hf_gpt.files.checkpoint_parts import Needs, needs_of
from hf_gpt.files.checkpoints import explains_read_errors
from hf_gpt.training.trainer import HfGptTrainer


class ResumableAdversarialTrainer(HfGptTrainer):
    """The part of `AdversarialTrainer` that saves and restores generator, discriminator and adversarial state."""

    args: AdversarialConfig
    discriminator_trainer: DiscriminatorTrainer | None
    loop: AdversarialLoop
    generator_step: GeneratorStep
    schedule: Schedule
    experiences: list[Experience]
    _metrics: dict[str, list[float]]

    def needs(self) -> Needs:
        return needs_of(self.args, has_discriminator=self.discriminator_trainer is not None)

    def has_ended(self) -> bool:
        collapsed = self.loop.history.monitors.should_stop and self.args.on_collapse == "stop"
        return collapsed or super().has_ended()

    def progress(self) -> dict[str, Any]:
        adversarial_state = {"raised": sorted(self._raised), "fresh_auc": self._fresh_auc}
        return {**super().progress(), **adversarial_state, "phase": self._phase.value}

    def restore_progress(self, progress: Mapping[str, Any]) -> None:
        super().restore_progress(progress)
        self._raised, self._fresh_auc = set(progress["raised"]), progress["fresh_auc"]
        self._phase = Phase(progress["phase"])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        save_adversarial_state(
            Path(output_dir),
            self.generator_step,
            self.schedule,
            self.experiences,
            self._metrics,
            is_main=self.args.should_save,
            process_index=self.args.process_index,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = self.model if model is None else model
        if hasattr(target, "peft_config") and not self.is_fsdp_enabled:
            # Trainer takes any adapter in a sub-folder, as the discriminator's may be, for one more of the generator's.
            with explains_read_errors(Path(resume_from_checkpoint)):
                load_adapter_weights(target, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            with explains_read_errors(Path(checkpoint)):
                self.experiences, metrics = load_adversarial_state(
                    Path(checkpoint), self.generator_step, self.schedule, self.model, self.args.process_index
                )
            self._metrics.update(metrics)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.discriminator_trainer is not None:
            self.discriminator_trainer.load(Path(self.state.best_model_checkpoint))
