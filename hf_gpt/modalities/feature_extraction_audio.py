"""Audio as values: mu-law levels of the wave, or codewords of log-mel frames."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from hf_gpt.modalities.feature_extraction import ModalityFeatureExtractor, as_codebooks
from hf_gpt.modalities.quantization import (
    decode_by_codebooks,
    encode_by_codebooks,
    fit_codebooks,
    mu_law_decode,
    mu_law_encode,
)
from hf_gpt.modalities.spectrogram import log_mel, wave_of_log_mel


class HfGptAudioFeatureExtractor(ModalityFeatureExtractor):
    """Mono waves to values and back.

    `"mu_law"`: a value is a level of a sample (WaveNet, van den Oord et al. 2016, section 2.2). `"log_mel"`: a frame is
    `num_groups` values, one for each group of neighbouring mel bands: the nearest word of that group's codebook, each
    group with values of its own. One group is k-means over whole frames; as many as bands quantise each band alone.
    Codebooks come from `fit`.

    Frames are levelled within a sound, so that loudness, microphone and voice matter less: frames at both ends that are
    far quieter than the loudest are cut, bands far quieter than the loudest are raised, then the mean is taken away, in
    part each band's own, and the deviation is made 1. What that takes away is kept on average, for `decode`. Pauses
    and the length of loud parts are not: a sound that was stretched by loudness is decoded at an even pace.

    What is left of a speaker can be taken away too where there are several clips of them (speaker normalisation;
    cepstral mean normalisation, Furui 1981, for each position in the word): their mean, which `voice` gives and
    `features` and `encode` take. An extractor that was fitted with voices always subtracts one: the mean of those that
    it was fitted with, if no other is given.

    Args:
        encoding: `"mu_law"` or `"log_mel"`.
        sampling_rate: Samples in a second.
        num_levels: Levels of mu-law.
        num_mel_bins: Mel bands.
        n_fft: Samples in a window.
        hop_length: Samples from a frame to the next.
        num_groups: Values in a frame; it divides the bands.
        num_frames: Every sound is stretched to this many frames, so that a position in the sequence is one in the
            word, however fast it is spoken; None keeps the hop.
        trim_range: Frames at the ends are cut whose power is further than this below the loudest frame's, in nats; None
            cuts none.
        loudness_share: How far a sound is stretched by loudness rather than by time, from 0 to 1: at 1 a stretch of it
            takes as many of the `num_frames` as its summed loudness above the quietest frame says, and silence none, so
            that it matters little where a clip was cut.
        dynamic_range: Bands are raised to this far below the loudest band of any frame, in nats.
        band_share: How much of the mean that is taken away is each band's own; the rest is that of all bands.
        codebooks: Shape (num_groups, size, num_mel_bins / num_groups); None before `fit`.
        band_means, deviation: What levelling takes away, on average over clips; a number for each band, and one.
        mean_frames: Frames of a sound before it is stretched, on average.
        mean_voice: Mean voice of the clips that it was fitted with, shape (num_frames, num_mel_bins); None where
            voices are kept.
        kwargs: As for `FeatureExtractionMixin`.

    Raises:
        ValueError: settings that cannot work together.
    """

    def __init__(
        self,
        encoding: Literal["mu_law", "log_mel"] = "log_mel",
        sampling_rate: int = 8000,
        num_levels: int = 256,
        num_mel_bins: int = 16,
        n_fft: int = 256,
        hop_length: int = 160,
        num_groups: int = 4,
        num_frames: int | None = None,
        trim_range: float | None = 4.0,
        loudness_share: float = 0.0,
        dynamic_range: float = 8.0,
        band_share: float = 0.5,
        codebooks: Any = None,
        band_means: Sequence[float] | None = None,
        deviation: float | None = None,
        mean_frames: float | None = None,
        mean_voice: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if encoding not in ("mu_law", "log_mel"):
            raise ValueError(f"encoding must be 'mu_law' or 'log_mel', got {encoding!r}.")
        if num_frames is not None and num_frames < 2:
            raise ValueError(f"num_frames must be at least 2, got {num_frames}.")
        if num_groups < 1 or num_mel_bins % num_groups:
            raise ValueError(f"num_groups {num_groups} must divide num_mel_bins {num_mel_bins}.")
        if not 0 <= loudness_share <= 1:
            raise ValueError(f"loudness_share must be from 0 to 1, got {loudness_share}.")
        if loudness_share and num_frames is None and encoding == "log_mel":
            raise ValueError("loudness_share says how audio is stretched, so it needs num_frames.")
        self.encoding = encoding
        self.sampling_rate = sampling_rate
        self.num_levels = num_levels
        self.num_mel_bins = num_mel_bins
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.num_groups = num_groups
        self.num_frames = num_frames
        self.trim_range = trim_range
        self.loudness_share = loudness_share
        self.dynamic_range = dynamic_range
        self.band_share = band_share
        self.codebooks = as_codebooks(codebooks)
        self.band_means = band_means
        self.deviation = deviation
        self.mean_frames = mean_frames
        self.mean_voice = None if mean_voice is None else np.asarray(mean_voice, np.float32)

    @property
    def num_values(self) -> int:
        if self.encoding == "mu_law":
            return self.num_levels
        codebooks = self._fitted()
        return codebooks.shape[0] * codebooks.shape[1]

    @property
    def max_values(self) -> int | None:
        return self.num_frames and self.num_frames * self.num_groups if self.encoding == "log_mel" else None

    def fit(
        self, audio: Sequence[Any], codebook_size: int, seed: int = 0, voices: Sequence[np.ndarray] | None = None
    ) -> "HfGptAudioFeatureExtractor":
        """Finds codebooks and averages of these clips; returns itself. Mu-law needs none.

        Args:
            audio: Waves.
            codebook_size: Codewords of each group.
            seed: Of the k-means.
            voices: The voice of each sound, which is taken away from now on.

        Raises:
            ValueError: fewer frames than codewords.
            ImportError: scikit-learn is not installed.
        """
        if self.encoding == "log_mel":
            natural = [self._log_mel(clip) for clip in audio]
            self.mean_frames = float(np.mean([len(frames) for frames in natural]))
            raw = [self._stretched(frames) for frames in natural]
            levels = [self._level(frames) for frames in raw]
            self.band_means = np.mean([means for means, _ in levels], axis=0).tolist()
            self.deviation = float(np.mean([deviation for _, deviation in levels]))
            levelled = [self._levelled(frames) for frames in raw]
            if voices is not None:
                self.mean_voice = np.mean(voices, axis=0, dtype=np.float64).astype(np.float32)
                levelled = [frames - voice for frames, voice in zip(levelled, voices, strict=True)]
            self.codebooks = fit_codebooks(np.concatenate(levelled), self.num_groups, codebook_size, seed)
        return self

    def voice(self, audio: Sequence[Any]) -> np.ndarray:
        """What clips of one speaker have in common: the mean of their levelled frames.

        It takes some 20 clips of different words: with fewer, the words themselves are taken away.

        Args:
            audio: Waves of one speaker, no labels needed.

        Returns:
            float64 of shape (num_frames, num_mel_bins).

        Raises:
            ValueError: clips are not stretched to one length, or there are none.
        """
        if self.encoding != "log_mel" or self.num_frames is None:
            raise ValueError("a voice is a mean over clips of one length. Set encoding='log_mel' and num_frames.")
        if not len(audio):
            raise ValueError("a voice needs audio of the speaker, and none is given.")
        return np.mean([self._levelled(self._stretched(self._log_mel(clip))) for clip in audio], axis=0)

    def features(self, audio: Any, positions: np.ndarray | None = None, voice: np.ndarray | None = None) -> np.ndarray:
        """Levelled log-mel frames, float64 of shape (frames, num_mel_bins).

        Args:
            audio: A wave.
            positions: Where frames are taken, ascending from 0, the first frame that is left after trimming, to 1, the
                last, in time or in loudness; left out: as `num_frames` says.
            voice: What is taken away from them, as `voice` gives it; left out: `mean_voice`.

        Raises:
            ValueError: a voice is given, but the extractor was fitted without.
        """
        if voice is not None and self.mean_voice is None:
            raise ValueError("this extractor keeps voices. Fit it with voices, or give none.")
        frames = self._levelled(self._stretched(self._log_mel(audio), positions))
        if self.mean_voice is None:
            return frames
        taken = np.asarray(self.mean_voice if voice is None else voice, np.float64)
        return frames - (taken if positions is None else _at(taken, positions))

    def quantize(self, features: np.ndarray) -> np.ndarray:
        """Values of levelled frames: (frames, num_mel_bins) to int64 of shape (frames * num_groups,)."""
        codebooks = self._fitted()
        codes = encode_by_codebooks(features, codebooks)
        return (codes + np.arange(len(codebooks)) * codebooks.shape[1]).reshape(-1)

    def encode(self, signal: Any, voice: np.ndarray | None = None) -> np.ndarray:
        """Values of a wave of shape (samples,): integers of 16 bits, or floats from -1 to 1.

        Args:
            signal: The wave.
            voice: What is taken away of its speaker, as in `features`; not for mu-law.
        """
        if self.encoding == "mu_law":
            return mu_law_encode(self._checked(signal), self.num_levels)
        return self.quantize(self.features(signal, voice=voice))

    def decode(self, values: Sequence[int]) -> np.ndarray:
        """Wave of shape (samples,), float64 from -1 to 1; from log-mel values with phases of its own."""
        values = np.asarray(values, np.int64)
        if self.encoding == "mu_law":
            return mu_law_decode(np.clip(values, 0, self.num_levels - 1), self.num_levels)
        frames = self.dequantize(values)
        if self.mean_voice is not None:
            # A model may write more frames than a sound has.
            frames[: len(self.mean_voice)] += self.mean_voice[: len(frames)]
        frames = frames * self.deviation + np.asarray(self.band_means)
        if self.num_frames is not None:
            count = max(2, round(self.mean_frames * len(frames) / self.num_frames))
            frames = _at(frames, np.linspace(0, 1, count)) if len(frames) else frames
        return wave_of_log_mel(
            frames,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            sampling_rate=self.sampling_rate,
        )

    def dequantize(self, values: Sequence[int]) -> np.ndarray:
        """Levelled frames of values, float64 of shape (frames, num_mel_bins); a frame that is not whole is left out."""
        codebooks = self._fitted()
        whole = len(values) // self.num_groups * self.num_groups
        codes = np.asarray(values, np.int64)[:whole].reshape(-1, self.num_groups) % codebooks.shape[1]
        return decode_by_codebooks(codes, codebooks)

    def _checked(self, audio: Any) -> np.ndarray:
        wave = np.asarray(audio)
        if np.issubdtype(wave.dtype, np.integer):
            wave = wave / 32768.0
        if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
            raise ValueError(
                f"a sound must be an array of shape (samples,) with one finite number or more, got shape {wave.shape}. "
                "Give one channel: 16-bit integers, or floats from -1 to 1."
            )
        return wave.astype(np.float64)

    def _log_mel(self, audio: Any) -> np.ndarray:
        frames = log_mel(
            self._checked(audio),
            num_mel_bins=self.num_mel_bins,
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            sampling_rate=self.sampling_rate,
        )
        if self.trim_range is not None:
            loudness = np.log(np.exp(frames).sum(1))
            loud = np.flatnonzero(loudness >= loudness.max() - self.trim_range)
            frames = frames[loud[0] : loud[-1] + 1]
        return np.maximum(frames, frames.max() - self.dynamic_range)

    def _stretched(self, frames: np.ndarray, positions: np.ndarray | None = None) -> np.ndarray:
        if positions is None and self.num_frames is not None:
            positions = np.linspace(0, 1, self.num_frames)
        if positions is None:
            return frames
        return _at(frames, self._times(frames, positions) if self.loudness_share else positions)

    def _times(self, frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The times, from 0 to 1, before which lie these shares of the sound's time and loudness."""
        loudness = frames.mean(1) - frames.mean(1).min()
        steps = loudness[1:] + loudness[:-1]
        total = steps.sum()
        # A sound of even loudness has no other measure than time.
        if total < 1e-6:
            return positions
        steps = self.loudness_share * steps / total + (1 - self.loudness_share) / len(steps)
        return np.interp(positions, np.append(0, np.cumsum(steps)), np.linspace(0, 1, len(frames)))

    def _level(self, frames: np.ndarray) -> tuple[np.ndarray, float]:
        """What is taken away from each band, and what is divided by."""
        means = self.band_share * frames.mean(0) + (1 - self.band_share) * frames.mean()
        # A sound without any contrast is left at 0.
        return means, max(float((frames - means).std()), 1e-3)

    def _levelled(self, frames: np.ndarray) -> np.ndarray:
        means, deviation = self._level(frames)
        return (frames - means) / deviation

    def _fitted(self) -> np.ndarray:
        if self.codebooks is None:
            raise ValueError("log-mel values need codebooks. Call fit(audio, codebook_size) first.")
        return self.codebooks


def _at(frames: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Frames between frames, by linear interpolation; positions from 0 to 1."""
    numbers = np.arange(len(frames))
    return np.stack([np.interp(positions * (len(frames) - 1), numbers, band) for band in frames.T], axis=1)
