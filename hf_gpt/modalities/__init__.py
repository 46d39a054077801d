"""Images and audio as token sequences."""

from hf_gpt.modalities.feature_extraction_audio import HfGptAudioFeatureExtractor
from hf_gpt.modalities.feature_extraction_image import HfGptImageFeatureExtractor
from hf_gpt.modalities.processing import HfGptModalityProcessor


__all__ = ["HfGptAudioFeatureExtractor", "HfGptImageFeatureExtractor", "HfGptModalityProcessor"]
