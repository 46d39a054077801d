"""Images and audio as examples: what ships, what makes values of them, and changed copies of them to train on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

from hf_gpt.data.examples import Example
from hf_gpt.modalities import HfGptAudioFeatureExtractor, HfGptImageFeatureExtractor
from hf_gpt.modalities.feature_extraction import ModalityFeatureExtractor
from hf_gpt.training.arguments.task import TaskArguments


# Signals of one kind, and the group of each.
Media, Groups = Sequence[Any], Sequence[Any] | None

# The built-in audio: two tones, one after the other, in hertz.
_TONES = {"low": (220.0, 330.0), "up": (330.0, 660.0), "down": (660.0, 330.0), "high": (990.0, 1320.0)}
_VOICES = ("flute", "reed", "string")
_TONES_OF_A_VOICE = 20


class Images:
    """Grey images, all of one size."""

    def built_in(self, args: TaskArguments) -> list[Example]:
        """The 1,797 digits of 8x8 pixels that ship with scikit-learn (UCI, Alpaydin and Kaynak 1998)."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        rows = zip(digits.images.astype(int).tolist(), digits.target.tolist(), strict=True)
        return [Example({args.media_column: image, args.label_column: label}) for image, label in rows]

    def new_feature_extractor(self, args: TaskArguments, media: Media, groups: Groups) -> HfGptImageFeatureExtractor:
        """A feature extractor that fits the images; raises `ValueError` where the arguments do not suit them."""
        low, high = min(float(image.min()) for image in media), max(float(image.max()) for image in media)
        extractor = HfGptImageFeatureExtractor(
            image_size=media[0].shape,
            num_levels=args.num_levels or 17,
            value_range=(low, max(high, low + 1)),
            patch_size=args.patch_size,
        )
        return extractor.fit(media, args.codebook_size)

    def changed_values(self, extractor: Any, signal: Any, rng: Generator, strength: float, **common: Any) -> np.ndarray:
        """Values of an image that is turned by up to 12 degrees, scaled by up to 10 % and moved by up to a pixel."""
        from scipy.ndimage import affine_transform

        image = np.asarray(signal, np.float64).reshape(extractor.image_size)
        angle = strength * np.deg2rad(rng.uniform(-12, 12))
        tall, wide = np.exp(strength * rng.uniform(-0.1, 0.1, 2))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([tall, wide])
        centre = (np.array(image.shape) - 1) / 2
        # A step of about an eighth of the side: a pixel of a small image.
        step = strength * rng.uniform(-1, 1, 2) * np.maximum(1, np.array(image.shape) / 16)
        low = extractor.value_range[0]
        return extractor.encode(affine_transform(image, turn, centre - turn @ centre + step, order=1, cval=low))

    def half(self, extractor: Any, values: np.ndarray) -> np.ndarray:
        """The values of the upper half of an image."""
        columns = extractor.image_size[1] // extractor.patch_size
        rows = extractor.image_size[0] // extractor.patch_size
        return values[: rows // 2 * columns]


class Audio:
    """Mono audio of one sampling rate."""

    def built_in(self, args: TaskArguments) -> list[Example]:
        """Two tones in a row, four classes, by three synthetic voices; the same ones each time."""
        rng = np.random.default_rng(0)
        examples = []
        for _ in range(_TONES_OF_A_VOICE):
            for voice, name in enumerate(_VOICES):
                for label, tones in _TONES.items():
                    wave = _two_tones(tones, voice, args.sampling_rate, rng)
                    row = {args.media_column: wave.tolist(), args.label_column: label}
                    if args.group_column is not None:
                        row[args.group_column] = name
                    examples.append(Example(row))
        return examples

    def new_feature_extractor(self, args: TaskArguments, media: Media, groups: Groups) -> HfGptAudioFeatureExtractor:
        """As for images; with `groups` of frames without what a group has in common."""
        extractor = HfGptAudioFeatureExtractor(
            encoding=args.audio_encoding,
            sampling_rate=args.sampling_rate,
            num_levels=args.num_levels or 256,
            hop_length=args.hop_length,
            num_mel_bins=args.num_mel_bins,
            num_groups=args.num_groups,
            num_frames=args.num_frames,
            trim_range=args.trim_range,
            loudness_share=args.loudness_share,
        )
        voices = None if groups is None else voices_of(extractor, media, groups)
        return extractor.fit(media, args.codebook_size, voices=voices)

    def changed_values(self, extractor: Any, signal: Any, rng: Generator, strength: float, **common: Any) -> np.ndarray:
        """Values of a sound by another voice, in another room, at another pace.

        Played faster or slower by up to 5 %, which moves pitch and formants (speed perturbation, Ko et al. 2015), with
        noise 40 to 80 dB below its peak. Its log-mel frames begin and end up to a tenth of the sound later or earlier,
        at a pace that varies by a tenth, apart from the pitch, and within the sound; their spectrum is tilted and bent
        as by another microphone; runs of bands and of frames are masked (SpecAugment, Park et al. 2019).
        """
        wave = np.asarray(signal)
        wave = wave / 32768.0 if wave.dtype.kind in "iu" else wave.astype(np.float64)
        speed = np.exp(strength * rng.uniform(-0.05, 0.05))
        wave = np.interp(np.arange(0, len(wave), speed), np.arange(len(wave)), wave)
        wave = wave + strength * rng.normal(size=len(wave)) * np.abs(wave).max() * 10 ** rng.uniform(-4, -2)
        if extractor.encoding == "mu_law":
            return extractor.encode(np.clip(wave, -1, 1))
        count = extractor.num_frames or round(
            len(wave) * speed / extractor.hop_length * np.exp(strength * rng.uniform(-0.1, 0.1))
        )
        first, last = strength * rng.uniform(-0.1, 0.1, 2)
        positions = np.linspace(max(first, 0.0), 1 - max(last, 0.0), max(2, count))
        positions = positions + strength * rng.uniform(-0.1, 0.1) * np.sin(np.pi * positions) / np.pi
        features = extractor.features(wave, positions, **common)
        bands = np.linspace(-1, 1, features.shape[1])
        tilt, bend = strength * rng.normal(0, 0.25, 2)
        features += tilt * bands + bend * np.cos(np.pi * (bands + rng.uniform(-1, 1)))
        # Levelled frames have mean 0, so a masked one says nothing.
        for columns in (features.T, features):
            width = rng.integers(0, int(strength * len(columns) / 5) + 1)
            first = rng.integers(0, len(columns) - width + 1)
            columns[first : first + width] = 0
        return extractor.quantize(features)

    def half(self, extractor: Any, values: np.ndarray) -> np.ndarray:
        """The values of the first half of a sound."""
        step = 1 if extractor.encoding == "mu_law" else extractor.num_groups
        return values[: len(values) // step // 2 * step]


def voices_of(extractor: HfGptAudioFeatureExtractor, media: Media, groups: Sequence[Any]) -> list[np.ndarray]:
    """The voice of each clip: that of all clips of its group; raises `ValueError` unless they are of one length."""
    members: dict[Any, list[Any]] = {}
    for signal, group in zip(media, groups, strict=True):
        members.setdefault(group, []).append(signal)
    voices = {group: extractor.voice(found) for group, found in members.items()}
    return [voices[group] for group in groups]


def copies(
    kind: Images | Audio,
    extractor: ModalityFeatureExtractor,
    media: Sequence[Any],
    count: int,
    seed: int,
    strength: float = 1.0,
    voices: Sequence[np.ndarray] | None = None,
    *,
    alike: bool = False,
) -> list[list[np.ndarray]]:
    """The values of each signal, and after them those of `count` changed copies; the same ones for the same seed.

    Args:
        kind, extractor, media: The signals.
        count, strength: How many copies of each, and how far they are changed.
        seed: Of the changes.
        voices: For each sound what is taken away of its speaker.
        alike: Change every signal in the same ways, so that its copies do not depend on the signals before it.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number, signal in enumerate(media):
        common = {} if voices is None else {"voice": voices[number]}
        rng = np.random.default_rng(seed) if alike else rng
        changed = (kind.changed_values(extractor, signal, rng, strength, **common) for _ in range(count))
        rows.append([extractor.encode(signal, **common), *changed])
    return rows


def value_vectors(extractor: Any) -> np.ndarray:
    """What each value stands for, as a vector: near ones sound or look alike.

    Returns:
        float64 of shape (num_values, columns), of about variance 1 where it varies. Each group of bands has columns of
        its own, and one more that tells it from the others.
    """
    codebooks = getattr(extractor, "codebooks", None)
    if codebooks is None:
        levels = np.linspace(-1, 1, extractor.num_values)[:, None]
        # A level, and how black or white it is: one column would leave all levels on a line through the middle.
        return np.concatenate([levels, 2 * levels**2 - 1, np.ones_like(levels)], axis=1)
    groups, size, width = codebooks.shape
    scaled = (codebooks - codebooks.mean((1, 2), keepdims=True)) / codebooks.std((1, 2), keepdims=True)
    vectors = np.zeros((groups, size, groups, width + 1))
    for group in range(groups):
        vectors[group, :, group, :width] = scaled[group]
        vectors[group, :, group, width] = 1
    return vectors.reshape(groups * size, -1)


def _two_tones(tones: Sequence[float], voice: int, sampling_rate: int, rng: Generator) -> np.ndarray:
    """Samples of two notes, 16-bit integers: a voice is a pitch of its own and the loudness of its overtones."""
    pitch = 2 ** (rng.normal(0, 0.02) + 0.04 * (voice - 1))
    parts = []
    for tone in tones:
        seconds = np.arange(int(sampling_rate * rng.uniform(0.06, 0.09))) / sampling_rate
        loudness = np.minimum(1, 20 * np.minimum(seconds, seconds[-1] - seconds) / seconds[-1])
        overtones = [np.sin(2 * np.pi * tone * pitch * n * seconds) / n ** (3 - voice) for n in (1, 2, 3)]
        parts.append(loudness * np.sum(overtones, axis=0))
    wave = np.concatenate(parts)
    wave = 0.5 * wave / np.abs(wave).max() + rng.normal(0, 0.005, len(wave))
    return np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int64)


KINDS = {"image": Images, "audio": Audio}
