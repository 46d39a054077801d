"""The class of an image or audio clip, by a support vector machine, which shares nothing with the models here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_gpt.modalities import HfGptAudioFeatureExtractor


# Frames that each audio clip is stretched to.
_FRAMES = 20


class MediaClassifier:
    """A support vector machine (RBF kernel) on pixels, or on log-mel frames stretched to one length.

    Images are arrays of two dimensions, audio clips of one.
    """

    def fit(self, media: Sequence[Any], labels: Sequence[str]) -> "MediaClassifier":
        """Learns the classes of real images or audio; returns itself."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        # Scaled by one number for all columns: pixels at the rim hardly vary, and their noise would count.
        columns = self._columns(media)
        scaler = StandardScaler(with_std=False)
        self.scale = float(columns.std()) or 1.0
        self.machine = make_pipeline(scaler, SVC(C=10.0)).fit(columns / self.scale, list(labels))
        return self

    def predict(self, media: Sequence[Any]) -> list[str]:
        """The class of each item."""
        return self.machine.predict(self._columns(media) / self.scale).tolist()

    def accuracy(self, media: Sequence[Any], labels: Sequence[str]) -> float:
        """Share of items whose predicted class is that in `labels`."""
        return float(np.mean([found == label for found, label in zip(self.predict(media), labels, strict=True)]))

    def _columns(self, media: Sequence[Any]) -> np.ndarray:
        return np.stack([_column(np.asarray(item)) for item in media])


def _column(item: np.ndarray) -> np.ndarray:
    if item.ndim == 2:
        return item.astype(np.float64).reshape(-1)
    extractor = HfGptAudioFeatureExtractor(num_frames=_FRAMES)
    return extractor.features(item if len(item) else np.zeros(1)).reshape(-1)
