"""`Trainer` whose checkpoint folders appear when they are complete."""

import contextlib
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer_utils import HubStrategy, rotate_checkpoints

from hf_gpt.files.atomic_files import sync_folder, sync_tree
from hf_gpt.files.checkpoints import INCOMPLETE, atomic_directory, explains_write_errors
from hf_gpt.files.manifest import write_manifest
from hf_gpt.training.resumption.resumable import ResumableTrainer


class StagedTrainer(ResumableTrainer):
    """Writes each checkpoint into a hidden folder and renames it at the end."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._staging_dir: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging_dir is None else str(self._staging_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        uploads = (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
        run_dir = Path(super()._get_output_dir(trial))
        final = run_dir / f"checkpoint-{self.state.global_step}"
        with explains_write_errors(final):
            if self.args.push_to_hub and self.args.hub_strategy in uploads:
                # The upload goes on in the background, so its folder must not be renamed meanwhile.
                super()._save_checkpoint(model, trial)
                if self.is_world_process_zero():
                    write_manifest(final)
                    sync_tree(final)
                    sync_folder(run_dir)
            else:
                self._save_staged(final, model, trial)
        # Only now: an older checkpoint stays until the new one is whole and on the disk.
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run_dir),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save_staged(self, final: Path, model: nn.Module, trial: Any) -> None:
        """Writes a checkpoint beside its place and puts it there once it is complete. All processes call it."""
        staging = final.with_name(f".{final.name}{INCOMPLETE}")
        # Every process writes into the folder; only one may empty it before and move it after.
        context = atomic_directory(final) if self.is_world_process_zero() else contextlib.nullcontext(staging)
        with context as folder:
            self.accelerator.wait_for_everyone()
            # Trainer writes into a subfolder of the run's folder, named as the checkpoint.
            self._staging_dir = folder
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging_dir = None
            # Others may still be writing theirs.
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                self._move_up(folder / final.name, final)
            self.accelerator.wait_for_everyone()

    def _move_up(self, written: Path, final: Path) -> None:
        """Moves the files of a checkpoint one folder up, lists them, and has the state name the folder they end in."""
        if self.state.best_model_checkpoint == str(written):
            self.state.best_model_checkpoint = str(final)
            self.state.save_to_json(str(written / "trainer_state.json"))
        for path in written.iterdir():
            path.rename(written.parent / path.name)
        written.rmdir()
        write_manifest(written.parent)
