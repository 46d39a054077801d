"""Which class a signal is of, by a classifier that shares nothing with the models here: a support vector machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_gpt.modalities import HfGptAudioFeatureExtractor


# Points in time that a sound is seen at.
_FRAMES = 20


class MediaClassifier:
    """A support vector machine (RBF kernel) on pixels, or on log-mel frames stretched to one length.

    Images are arrays of two dimensions, sounds of one.
    """

    def fit(self, media: Sequence[Any], labels: Sequence[str]) -> "MediaClassifier":
        """Learns the classes of real signals; returns itself."""
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
        """The class of each signal."""
        return self.machine.predict(self._columns(media) / self.scale).tolist()

    def accuracy(self, media: Sequence[Any], labels: Sequence[str]) -> float:
        """Share of signals whose class is seen as `labels` say."""
        return float(np.mean([found == label for found, label in zip(self.predict(media), labels, strict=True)]))

    def _columns(self, media: Sequence[Any]) -> np.ndarray:
        return np.stack([_column(np.asarray(signal)) for signal in media])


def _column(signal: np.ndarray) -> np.ndarray:
    if signal.ndim == 2:
        return signal.astype(np.float64).reshape(-1)
    extractor = HfGptAudioFeatureExtractor(num_frames=_FRAMES)
    return extractor.features(signal if len(signal) else np.zeros(1)).reshape(-1)
