"""Images and audio in files and in the report."""

import base64
import io
import wave
from collections.abc import Sequence

import numpy as np

from hf_gpt.reporting.report import Section, escape


_GAP = 4


def image_grid(rows: Sequence[Sequence[np.ndarray]], *, low: float, high: float, side: int = 48) -> bytes:
    """Grey images in rows, as a PNG file.

    Args:
        rows: Images of one shape (height, width), floating; rows may differ in length.
        low, high: What black and white are.
        side: Height of an image on the grid in pixels, rounded down to a multiple of its own.
    """
    from PIL import Image

    height, width = rows[0][0].shape
    scale = max(1, side // height)
    tall, wide = height * scale + _GAP, width * scale + _GAP
    canvas = np.full((len(rows) * tall + _GAP, max(map(len, rows)) * wide + _GAP), 128, np.uint8)
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            grey = np.rint(np.clip((np.asarray(image) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
            cell = canvas[top * tall + _GAP : (top + 1) * tall, left * wide + _GAP : (left + 1) * wide]
            cell[:] = np.kron(grey, np.ones((scale, scale), np.uint8))
    file = io.BytesIO()
    Image.fromarray(canvas, "L").save(file, "PNG", optimize=True)
    return file.getvalue()


def wav_bytes(samples: np.ndarray, sampling_rate: int) -> bytes:
    """A WAV file of one channel and 16 bits from a wave of shape (samples,) from -1 to 1."""
    levels = np.rint(np.clip(np.asarray(samples, np.float64), -1, 1) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sampling_rate)
        out.writeframes(levels.tobytes())
    return file.getvalue()


def media_section(
    uid: str,
    title: str,
    note: str,
    images: Sequence[tuple[str, bytes]] = (),
    audio: Sequence[tuple[str, bytes]] = (),
) -> Section:
    """Images (PNG) and audio (WAV), each with its caption, within the page itself."""
    parts = [f'<p class="muted">{escape(note)}</p>']
    for caption, content in images:
        parts.append(
            f'<figure class="media"><img alt="{escape(caption)}" src="data:image/png;base64,{_text(content)}">'
            f'<figcaption class="muted">{escape(caption)}</figcaption></figure>'
        )
    if audio:
        items = "\n".join(
            f'<figure><figcaption class="muted">{escape(caption)}</figcaption>'
            f'<audio controls preload="metadata" src="data:audio/wav;base64,{_text(content)}"></audio></figure>'
            for caption, content in audio
        )
        parts.append(f'<div class="audio">\n{items}\n</div>')
    return Section(uid, title, "\n".join(parts))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
