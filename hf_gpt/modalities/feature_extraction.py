"""What signals of every kind share: arrays to values, whole numbers that a vocabulary holds, and back."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin


class ModalityFeatureExtractor(FeatureExtractionMixin):
    """Arrays to sequences of values and back. Settings are plain numbers and lists, which `save_pretrained` keeps."""

    model_input_names = ["values"]

    @property
    @abstractmethod
    def num_values(self) -> int:
        """How many different values there are: they are 0 to this number less one."""

    @property
    @abstractmethod
    def max_values(self) -> int | None:
        """Length of every sequence; None where it differs from signal to signal."""

    @abstractmethod
    def encode(self, signal: Any) -> np.ndarray:
        """The values of a signal, int64 of shape (length,).

        Raises:
            ValueError: it is no such signal; the message says what it should be.
        """

    @abstractmethod
    def decode(self, values: Sequence[int]) -> np.ndarray:
        """The signal that values stand for. Too few of them leave its end out, as black or silence."""

    def __call__(self, media: Sequence[Any]) -> BatchFeature:
        """`values`: a list with the values of each signal."""
        return BatchFeature({"values": [self.encode(signal) for signal in media]})

    def to_dict(self) -> dict[str, Any]:
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in super().to_dict().items()
        }


def as_codebooks(codebooks: Any) -> np.ndarray | None:
    """Codebooks as float32 of shape (groups, size, columns), from lists or an array; None stays None.

    Raises:
        ValueError: another shape.
    """
    if codebooks is None:
        return None
    array = np.asarray(codebooks, np.float32)
    if array.ndim != 3:
        raise ValueError(f"codebooks must have shape (groups, size, columns), got {array.shape}. Make them with fit().")
    return array
