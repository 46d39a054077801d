"""Old generated texts, replayed so that the discriminator does not forget them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class GeneratedText:
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

    Batches hold the latest texts anyway. An even sample of the past keeps training from going in circles.

    Args:
        size: Most texts kept.
        seed: Of the sample.
    """

    def __init__(self, size: int, seed: int = 0):
        self.size = size
        self.texts: list[GeneratedText] = []
        self.num_seen = 0
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, texts: Sequence[GeneratedText]) -> None:
        """Offers texts to the buffer."""
        for text in texts:
            self.num_seen += 1
            if len(self.texts) < self.size:
                self.texts.append(text)
                continue
            position = int(torch.randint(self.num_seen, (), generator=self._generator))
            if position < self.size:
                self.texts[position] = text

    def sample(self, count: int) -> list[GeneratedText]:
        """Texts sampled with replacement.

        Raises:
            ValueError: the buffer is empty.
        """
        if not self.texts:
            raise ValueError("the replay buffer is empty: add texts before sampling.")
        positions = torch.randint(len(self.texts), (count,), generator=self._generator)
        return [self.texts[position] for position in positions.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """All of it as tensors, small and safe to load."""
        flat = [token for text in self.texts for token in (*text.prompt, *text.completion)]
        sizes = [(text.index, len(text.prompt), len(text.completion)) for text in self.texts]
        return {
            "tokens": torch.tensor(flat, dtype=torch.int64),
            "sizes": torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3),
            "num_seen": self.num_seen,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        tokens, start, generated = state["tokens"].tolist(), 0, []
        for index, prompt, completion in state["sizes"].tolist():
            middle, end = start + prompt, start + prompt + completion
            generated.append(GeneratedText(index, tuple(tokens[start:middle]), tuple(tokens[middle:end])))
            start = end
        self.texts = generated[: self.size]
        self.num_seen = state["num_seen"]
        self._generator.set_state(state["generator"])
