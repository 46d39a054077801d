"""Old generated texts, of which the discriminator goes on seeing a share, lest it forget what it saw through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Fake:
    """A generated text.

    Attributes:
        index: Row of the training data whose prompt it completes.
        prompt: Token ids of the prompt.
        completion: Token ids of the completion.
    """

    index: int
    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class ReplayBuffer:
    """A uniform sample of all texts that were ever added, by reservoir sampling (Vitter 1985, algorithm R).

    The latest texts are fresh in every batch anyway; an even sample of the past is what keeps a discriminator from
    being led around in a circle.

    Args:
        size: Most texts kept.
        seed: Draws which ones.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size = size
        self.fakes: list[Fake] = []
        self.num_seen = 0
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.fakes)

    def add(self, fakes: Sequence[Fake]) -> None:
        """Offers texts to the buffer."""
        for fake in fakes:
            self.num_seen += 1
            if len(self.fakes) < self.size:
                self.fakes.append(fake)
                continue
            place = int(torch.randint(self.num_seen, (), generator=self._generator))
            if place < self.size:
                self.fakes[place] = fake

    def draw(self, count: int) -> list[Fake]:
        """Texts drawn with replacement.

        Raises:
            ValueError: the buffer is empty.
        """
        if not self.fakes:
            raise ValueError("the replay buffer is empty: add texts before drawing.")
        places = torch.randint(len(self.fakes), (count,), generator=self._generator)
        return [self.fakes[place] for place in places.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors, small and safe to load."""
        flat = [token for fake in self.fakes for token in (*fake.prompt, *fake.completion)]
        sizes = [(fake.index, len(fake.prompt), len(fake.completion)) for fake in self.fakes]
        return {
            "tokens": torch.tensor(flat, dtype=torch.int64),
            "sizes": torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3),
            "num_seen": self.num_seen,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        tokens, start, fakes = state["tokens"].tolist(), 0, []
        for index, prompt, completion in state["sizes"].tolist():
            middle, end = start + prompt, start + prompt + completion
            fakes.append(Fake(index, tuple(tokens[start:middle]), tuple(tokens[middle:end])))
            start = end
        self.fakes = fakes[: self.size]
        self.num_seen = state["num_seen"]
        self._generator.set_state(state["generator"])
