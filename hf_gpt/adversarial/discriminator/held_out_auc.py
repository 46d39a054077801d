"""The held-out AUC that is stored with a discriminator, for whoever wants to know how far its scores can be trusted."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.generation.guidance.residual_model import DISCRIMINATOR, METRICS


FILE = "discriminator.json"
# With a smaller AUC a discriminator is right about a pair of texts hardly more often than a coin.
LEAST_AUC = 0.55


@dataclass(frozen=True)
class HeldOutAuc:
    """How well a discriminator tells real from generated texts that it was not trained on.

    Attributes:
        auc: Probability that a real text scores above a generated one; 0.5 is chance.
        low, high: Ends of its 95 % interval.
        num_texts: Texts of each kind.
    """

    auc: float
    low: float
    high: float
    num_texts: int

    @property
    def carries_a_verdict(self) -> bool:
        """Whether a score says anything about a text: the interval is above chance, and the AUC is not close to it."""
        return self.low > 0.5 and self.auc >= LEAST_AUC

    def describe(self) -> str:
        """The AUC with its interval, in words."""
        return (
            f"AUC on unseen texts {self.auc:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, "
            f"{self.num_texts:,} texts of each kind)"
        )

    def to_dict(self) -> dict[str, Any]:
        """As the file holds it."""
        measured = {"auc": self.auc, "auc_low": self.low, "auc_high": self.high, "num_test_texts": self.num_texts}
        return {"results": measured}


def read_held_out_auc(folder: str | Path) -> HeldOutAuc | None:
    """The AUC that is stored in the folder of a discriminator's weights or, of a run or residual model, around it.

    None where there is none, such as for an id of the Hub, or where what is there is no AUC.
    """
    path = Path(folder)
    around = {"model": [path.parent / FILE], DISCRIMINATOR: [path.parent / METRICS]}.get(path.name, [])
    for file in [path / FILE, *around]:
        try:
            results = json.loads(file.read_text(encoding="utf-8"))["results"]
            found = HeldOutAuc(
                *(float(results[name]) for name in ("auc", "auc_low", "auc_high")), int(results["num_test_texts"])
            )
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if all(math.isfinite(value) and 0 <= value <= 1 for value in (found.low, found.auc, found.high)):
            return found
    return None
