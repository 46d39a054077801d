"""Log-mel spectrograms of waves, and a wave of a spectrogram."""

from functools import lru_cache

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank


# Power below which a band counts as silent.
FLOOR = 1e-10


@lru_cache(maxsize=8)
def mel_filters(num_mel_bins: int, n_fft: int, sampling_rate: int) -> np.ndarray:
    """Triangular filters on the HTK mel scale up to half the sampling rate, float64 `(n_fft / 2 + 1, num_mel_bins)`."""
    return mel_filter_bank(n_fft // 2 + 1, num_mel_bins, 20.0, sampling_rate / 2, sampling_rate, mel_scale="htk")


def log_mel(wave: np.ndarray, *, num_mel_bins: int, n_fft: int, hop_length: int, sampling_rate: int) -> np.ndarray:
    """Natural logarithm of the power in mel bands.

    Args:
        wave: Shape (samples,), floating, from -1 to 1; at least one sample.
        num_mel_bins: Bands.
        n_fft: Samples in a window (Hann).
        hop_length: Samples from a window to the next.
        sampling_rate: Samples in a second.

    Returns:
        float64 of shape (1 + samples // hop_length, num_mel_bins); windows are centred on multiples of the hop.
    """
    padded = np.pad(np.asarray(wave, np.float64), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    power = np.abs(np.fft.rfft(frames * _window(n_fft), axis=1)) ** 2
    return np.log(np.maximum(power @ mel_filters(num_mel_bins, n_fft, sampling_rate), FLOOR))


def wave_of_log_mel(
    spectrogram: np.ndarray, *, n_fft: int, hop_length: int, sampling_rate: int, num_iterations: int = 60, seed: int = 0
) -> np.ndarray:
    """A wave that has about this log-mel spectrogram.

    Magnitudes come from the bands by least squares, phases by the algorithm of Griffin and Lim (1984).

    Args:
        spectrogram: Shape (frames, num_mel_bins), as `log_mel` gives it.
        n_fft, hop_length, sampling_rate: As for `log_mel`.
        num_iterations: Rounds of the search for phases.
        seed: Of the phases that it begins with.

    Returns:
        float64 of shape ((frames - 1) * hop_length,), not louder than 1.
    """
    if len(spectrogram) < 2:
        return np.zeros(0)
    filters = mel_filters(spectrogram.shape[1], n_fft, sampling_rate)
    power = np.maximum(np.exp(spectrogram) @ np.linalg.pinv(filters), 0)
    magnitude = torch.from_numpy(np.sqrt(power).T.copy())
    window = torch.from_numpy(_window(n_fft))
    phase = torch.rand(magnitude.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.polar(magnitude, 2 * torch.pi * phase)
    length = (len(spectrogram) - 1) * hop_length
    options = {"n_fft": n_fft, "hop_length": hop_length, "window": window, "center": True}
    for _ in range(num_iterations):
        wave = torch.istft(spectrum, length=length, **options)
        again = torch.stft(wave, pad_mode="constant", return_complex=True, **options)
        spectrum = torch.polar(magnitude, again.angle())
    wave = torch.istft(spectrum, length=length, **options).numpy()
    return wave / max(1.0, np.abs(wave).max(initial=0.0))


@lru_cache(maxsize=4)
def _window(n_fft: int) -> np.ndarray:
    return np.hanning(n_fft + 1)[:-1]
