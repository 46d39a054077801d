"""Images and sounds as token sequences."""

from .feature_extraction_image import HfGptImageFeatureExtractor
from .feature_extraction_sound import HfGptSoundFeatureExtractor
from .processing import HfGptSignalProcessor


__all__ = ["HfGptImageFeatureExtractor", "HfGptSignalProcessor", "HfGptSoundFeatureExtractor"]
