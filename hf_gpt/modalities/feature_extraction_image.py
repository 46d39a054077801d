"""Images as values: a grey level a pixel, or a codeword a patch, row by row."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_gpt.modalities.feature_extraction import ModalityFeatureExtractor, as_codebooks
from hf_gpt.modalities.quantization import (
    decode_by_codebooks,
    dequantize_uniform,
    encode_by_codebooks,
    fit_codebooks,
    quantize_uniform,
)


class HfGptImageFeatureExtractor(ModalityFeatureExtractor):
    """Grey images of one size to values and back.

    With `patch_size` 1 a value is the grey level of a pixel, one of `num_levels` (as in Image GPT, Chen et al. 2020).
    With larger patches a value is the nearest word of a codebook, which `fit` finds by k-means.

    Args:
        image_size: Height and width in pixels.
        num_levels: Grey levels.
        value_range: What black and white are in the arrays.
        patch_size: Side of a patch in pixels; it divides height and width.
        codebooks: Shape (1, size, patch_size ** 2), in units of `value_range`; None before `fit`.
        kwargs: As for `FeatureExtractionMixin`.

    Raises:
        ValueError: settings that cannot work together.
    """

    def __init__(
        self,
        image_size: Sequence[int] = (8, 8),
        num_levels: int = 17,
        value_range: Sequence[float] = (0, 16),
        patch_size: int = 1,
        codebooks: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if len(image_size) != 2 or any(side % patch_size for side in image_size):
            raise ValueError(f"patch_size {patch_size} must divide height and width, got image_size {image_size}.")
        if num_levels < 2 or value_range[0] >= value_range[1]:
            raise ValueError(f"give num_levels >= 2 and a rising value_range, got {num_levels} and {value_range}.")
        self.image_size = list(image_size)
        self.num_levels = num_levels
        self.value_range = list(value_range)
        self.patch_size = patch_size
        self.codebooks = as_codebooks(codebooks)

    @property
    def num_values(self) -> int:
        return self.num_levels if self.patch_size == 1 else self._fitted().shape[1]

    @property
    def max_values(self) -> int:
        return self.image_size[0] * self.image_size[1] // self.patch_size**2

    def fit(self, images: Sequence[Any], codebook_size: int, seed: int = 0) -> "HfGptImageFeatureExtractor":
        """Finds the codebook of the patches of these images; returns itself. Pixels need none.

        Raises:
            ValueError: fewer patches than codewords.
            ImportError: scikit-learn is not installed.
        """
        if self.patch_size > 1:
            patches = np.concatenate([self._patches(self._checked(image)) for image in images])
            self.codebooks = fit_codebooks(patches, 1, codebook_size, seed)
        return self

    def encode(self, signal: Any) -> np.ndarray:
        """Values of an image of shape `image_size`, int64 of shape (max_values,), row by row."""
        image = self._checked(signal)
        if self.patch_size == 1:
            return quantize_uniform(image.reshape(-1), *self.value_range, self.num_levels)
        return encode_by_codebooks(self._patches(image), self._fitted())[:, 0]

    def decode(self, values: Sequence[int]) -> np.ndarray:
        """Image of shape `image_size`, float64."""
        values = np.clip(np.asarray(values, np.int64)[: self.max_values], 0, self.num_values - 1)
        height, width = self.image_size
        if self.patch_size == 1:
            image = np.full(height * width, float(self.value_range[0]))
            image[: len(values)] = dequantize_uniform(values, *self.value_range, self.num_levels)
            return image.reshape(height, width)
        side = self.patch_size
        patches = np.full((self.max_values, side * side), float(self.value_range[0]))
        patches[: len(values)] = decode_by_codebooks(values[:, None], self._fitted())
        image = patches.reshape(height // side, width // side, side, side).transpose(0, 2, 1, 3)
        return np.clip(image.reshape(height, width), *self.value_range)

    def _checked(self, image: Any) -> np.ndarray:
        image = np.asarray(image, np.float64)
        if image.size == self.image_size[0] * self.image_size[1] and image.ndim == 1:
            image = image.reshape(self.image_size)
        if list(image.shape) != self.image_size or not np.isfinite(image).all():
            raise ValueError(
                f"an image must be an array of finite numbers of shape {tuple(self.image_size)}, got {image.shape}. "
                "Resize it, or set image_size."
            )
        return image

    def _patches(self, image: np.ndarray) -> np.ndarray:
        side, (height, width) = self.patch_size, self.image_size
        parts = image.reshape(height // side, side, width // side, side).transpose(0, 2, 1, 3)
        return parts.reshape(-1, side * side)

    def _fitted(self) -> np.ndarray:
        if self.codebooks is None:
            raise ValueError("patches need a codebook. Call fit(images, codebook_size) first.")
        return self.codebooks
