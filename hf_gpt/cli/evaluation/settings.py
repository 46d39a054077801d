"""The settings of an evaluation, checked before anything heavy is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.errors import UserError
from hf_gpt.option_ranges import wrong_number


# Fewer samples say nothing; a curve halves them.
_LEAST_SAMPLES, _LEAST_SAMPLES_OF_A_CURVE = 20, 40


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated on what, and how. The fields are the options of `hf-gpt eval`, whose help describes them.

    Raises:
        UserError: settings that cannot be used.
    """

    models: Sequence[str]
    tasks: Sequence[str]
    data: Path | None = None
    limit: int | None = None
    seeds: Sequence[int] = (0,)
    bootstrap: int = 1000
    samples: int | None = None
    max_new_tokens: int | None = None
    curve: bool = False
    temperatures: Sequence[float] = (0.5, 0.7, 0.85, 1.0, 1.2)
    top_ps: Sequence[float] = (0.8, 0.9, 0.95)
    top_ks: Sequence[int] = (10, 40)
    min_ps: Sequence[float] = (0.05, 0.1)
    output_dir: Path = Path("runs/eval")
    overwrite: bool = False
    discriminator: str | None = None
    batch_size: int = 16
    dtype: str = "auto"
    device: str | None = None
    revision: str = "main"
    trust_remote_code: bool = False

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
