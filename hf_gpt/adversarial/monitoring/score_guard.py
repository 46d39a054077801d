"""The guard against non-finite scores: such a step changes no weights, and several in a row stop the run."""

import logging
from typing import Any

import torch

from hf_gpt.errors import UserError
from hf_gpt.generation.scoring.discriminator import ScoreError, check_scores


logger = logging.getLogger(__name__)

# Steps with such scores in a row after which training stops.
MOST_IN_A_ROW = 5


class NonFiniteScoresError(UserError):
    """A discriminator or reward gave scores that are not finite, step after step."""


class ScoreGuard:
    """Checks the scores of a step, which are the same in every process.

    Args:
        source: The discriminator or reward function, named in errors.

    Attributes:
        steps: Steps so far in which a score was not finite.
        in_a_row: The latest of them that followed each other.
    """

    def __init__(self, source: Any):
        self.source = source
        self.steps = self.in_a_row = 0
        self._message: str | None = None
        self._saw_any = False

    @property
    def is_finite(self) -> bool:
        """Whether all scores of this step have been, so far."""
        return self._message is None

    def look(self, scores: torch.Tensor) -> bool:
        """Whether these scores are finite; if not, the step is marked."""
        self._saw_any = True
        try:
            check_scores(scores, self.source)
        except ScoreError as error:
            self._message = self._message or str(error)
            return False
        return True

    def mark(self, is_finite: bool) -> None:
        """Marks the step where it uses texts of an earlier step whose scores were not finite."""
        self._saw_any = True
        if not is_finite and self._message is None:
            self._message = "the texts of an earlier step are used again, whose scores were not finite."

    def end_step(self, step: int, model: torch.nn.Module) -> None:
        """Ends a step, and drops all of its gradients if a score was not finite.

        Raises:
            NonFiniteScoresError: it was the last of `MOST_IN_A_ROW` whose scores were not.
        """
        message, saw_any = self._message, self._saw_any
        self._message, self._saw_any = None, False
        if message is None:
            if saw_any:
                self.in_a_row = 0
            return
        # Optimizers skip parameters without a gradient, and their state.
        model.zero_grad(set_to_none=True)
        self.steps += 1
        self.in_a_row += 1
        if self.in_a_row >= MOST_IN_A_ROW:
            raise NonFiniteScoresError(
                f"step {step}: {message} This happened in {self.in_a_row} steps in a row, in which nothing was "
                "learned. A lower --discriminator_learning_rate or --discriminator_max_grad_norm keeps weights finite."
            )
        if self.in_a_row == 1:
            logger.warning("step %d changes no weight of the generator: %s", step, message)

    def metrics(self) -> dict[str, int]:
        """For the log; empty while all scores have been finite."""
        return {"steps_with_scores_not_finite": self.steps} if self.steps else {}

    def state_dict(self) -> dict[str, int]:
        """What has been counted."""
        return {"steps": self.steps, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on counting from a `state_dict`."""
        self.steps, self.in_a_row = state["steps"], state["in_a_row"]
