"""Images and sounds as token sequences."""

from hf_gpt.modalities.feature_extraction_audio import HfGptSoundFeatureExtractor
from hf_gpt.modalities.feature_extraction_image import HfGptImageFeatureExtractor
from hf_gpt.modalities.processing import HfGptSignalProcessor


__all__ = ["HfGptImageFeatureExtractor", "HfGptSignalProcessor", "HfGptSoundFeatureExtractor"]
