"""The settings of an evaluation, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.cli.command import LoadingOptions, option
from hf_gpt.errors import UserError
from hf_gpt.option_ranges import wrong_number


# Fewer samples say nothing; a curve halves them.
_LEAST_SAMPLES, _LEAST_SAMPLES_OF_A_CURVE = 20, 40


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What is evaluated on what."""

    _argument_group_name = "tasks"
    models: Sequence[str] = option(
        (),
        "folders of runs or checkpoints, or Hub ids; NAME=MODEL names one",
        positional=True,
        nargs="*",
        metavar="MODEL",
    )
    tasks: Sequence[str] = option(
        (),
        "names from --list, .yaml files, or lm_eval:NAME for the LM evaluation harness, if it is installed",
        metavar="TASK",
    )
    data: Path | None = option(None, "folder with the tasks' files, or a file that replaces the one task's")
    limit: int | None = option(None, "most rows of a task, a random sample that is always the same")
    seeds: Sequence[int] = option((0,), "seeds of samples")
    bootstrap: int = option(1000, "bootstrap samples behind intervals and tests")
    samples: int | None = option(None, "number of unconditional samples, in place of the task's")
    max_new_tokens: int | None = option(None, "most tokens of a text, in place of the task's")


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """Samplers that are compared."""

    _argument_group_name = "curves of quality against diversity, with --curve"
    curve: bool = option(False, "sample with every setting below, and compare models each at its own best one")
    temperatures: Sequence[float] = option((0.5, 0.7, 0.85, 1.0, 1.2), "temperatures", metavar="T", nargs="*")
    top_ps: Sequence[float] = option((0.8, 0.9, 0.95), "top-p", metavar="P", nargs="*")
    top_ks: Sequence[int] = option((10, 40), "top-k", metavar="K", nargs="*")
    min_ps: Sequence[float] = option((0.05, 0.1), "min-p", metavar="P", nargs="*")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(LoadingOptions, CurveSettings, TaskSettings):
    """What is evaluated on what, and how. The fields are the options of `hf-gpt eval`.

    Raises:
        UserError: settings that cannot be used.
    """

    _argument_group_name = "run"
    output_dir: Path = option(Path("runs/eval"), "folder of the results")
    overwrite: bool = option(False, "replace the results of another evaluation there")
    discriminator: str | None = option(None, "its score after each token colours the samples of the page")
    judge: str | None = option(
        None, "folder or Hub id of a pretrained language model that judges unconditional samples, in nats per word"
    )
    batch_size: int = option(16, "rows in a batch")

    def __post_init__(self):
        for name in ("data", "output_dir"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(given))
        if not self.models:
            raise UserError(
                "no model. Give the folder of a run or checkpoint, or a Hub id: hf-gpt eval runs/demo/model ..."
            )
        if not self.tasks:
            raise UserError("no task. Name some with --tasks; --list shows them.")
        if (wrong := wrong_number(vars(self))) is not None:
            raise UserError(wrong)
        if self.samples is not None and self.samples < _LEAST_SAMPLES:
            raise UserError(f"--samples must be at least {_LEAST_SAMPLES}, got {self.samples}.")
        if self.curve and self.samples is not None and self.samples < _LEAST_SAMPLES_OF_A_CURVE:
            raise UserError(
                f"--samples must be at least {_LEAST_SAMPLES_OF_A_CURVE} with --curve, which halves them, got "
                f"{self.samples}."
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise UserError(f"--seeds must be different numbers, got {' '.join(map(str, self.seeds))}.")
        if self.data is not None and self.data.is_file() and len(self.tasks) > 1:
            raise UserError(
                f"--data {self.data} is a file: evaluate one task on it, or name the folder that all lie in."
            )

    @property
    def loading(self) -> dict[str, Any]:
        """How models are loaded, as `open_candidate` takes it."""
        return {name: getattr(self, name) for name in ("device", "dtype", "revision", "trust_remote_code")}
