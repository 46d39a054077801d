"""Images and audio that a class-conditional model wrote: files beside the report, and parts of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_gpt.data.examples import Example
from hf_gpt.files.atomic_files import write_bytes
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.modalities import HfGptModalityProcessor
from hf_gpt.reporting.media import image_grid, media_section, wav_bytes


if TYPE_CHECKING:
    from hf_gpt.reporting.report import Section
    from hf_gpt.training.tasks.modalities import MediaGeneration

# How many validation examples are shown with their second half written anew.
_COMPLETED = 10
# Signals that are sampled at once.
_SAMPLED_TOGETHER = 100


def write_media(
    model: Any,
    processor: HfGptModalityProcessor,
    class_names: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    given: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Values of signals that a model samples after their classes, the given ones that each begins with included.

    At most `max_new_tokens` are sampled for a signal, its end counted, as `SamplingConfig` says.
    """
    prompts = processor.prompts(class_names, given, return_tensors="pt")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None:
        max_new_tokens = min(max_new_tokens, limit - prompts["input_ids"].shape[1])
    texts = rollout(
        model,
        prompts["input_ids"].to(model.device),
        prompts["attention_mask"].to(model.device),
        sampling=SamplingConfig(
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            eos_token_id=processor.tokenizer.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        ),
        generator=torch.Generator().manual_seed(0),
        batch_size=_SAMPLED_TOGETHER,
    )
    starts = [[]] * len(class_names) if given is None else given
    samples = [processor.values_of(row) for row in texts.completions.tolist()]
    return [[*map(int, start), *values] for start, values in zip(starts, samples, strict=True)]


def write_gallery(
    task: "MediaGeneration", model: Any, processor: HfGptModalityProcessor, examples: Sequence[Example], folder: Path
) -> "list[Section]":
    """Samples signals of every class and completes halves of real ones; writes files, returns the report's parts.

    Images: `samples.png` with a row for each class, `completions.png`. Audio: `samples/CLASS-NUMBER.wav`,
    `samples/completed-NUMBER.wav`.
    """
    args, extractor = task.args, processor.feature_extractor
    options = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_p": args.top_p}
    names = [name for name in task.names for _ in range(args.samples_per_class)]
    media = [extractor.decode(values) for values in write_media(model, processor, names, **options)]

    shown = examples[:_COMPLETED]
    # What is longer than the model reads is cut, as it was in training.
    whole = [extractor.encode(task.array(example))[: args.max_length - 2] for example in shown]
    given = [task.modality.half(extractor, values) for values in whole]
    classes = [task.name_of(example) for example in shown]
    completed = write_media(model, processor, classes, given=given, **options)
    parts = [[extractor.decode(values) for values in group] for group in (whole, given, completed)]
    if task.kind == "image":
        return _images(task, media, parts, extractor.value_range, folder)
    return _audio(names, classes, media, parts, extractor.sampling_rate, folder)


def _images(task, media, parts, value_range, folder: Path) -> "list[Section]":
    low, high = value_range
    each = task.args.samples_per_class
    rows = [media[first : first + each] for first in range(0, len(media), each)]
    written, halves = image_grid(rows, low=low, high=high), image_grid(parts, low=low, high=high)
    write_bytes(folder / "samples.png", written)
    write_bytes(folder / "completions.png", halves)
    return [
        media_section(
            "written", "Written images", "A row for each class.", [(f"Classes {', '.join(task.names)}", written)]
        ),
        media_section(
            "completed",
            "Completed images",
            "From held-out images: whole, the half that was given, and what the model made of it.",
            [("Whole, given, completed", halves)],
        ),
    ]


def _audio(names, classes, media, parts, sampling_rate: int, folder: Path) -> "list[Section]":
    sample_folder = folder / "samples"
    written, halves = [], []
    for number, (name, signal) in enumerate(zip(names, media, strict=True)):
        written.append((f"class {name}", wav_bytes(_audible(signal), sampling_rate)))
        write_bytes(sample_folder / f"{_file_name(name)}-{number}.wav", written[-1][1])
    for number, (name, *versions) in enumerate(zip(classes, *parts, strict=True)):
        for kind, signal in zip(("whole", "given", "completed"), versions, strict=True):
            content = wav_bytes(_audible(signal), sampling_rate)
            write_bytes(sample_folder / f"{kind}-{number}.wav", content)
            # A page of audio is large: three are enough to hear what completion does.
            if number < 3:
                halves.append((f"class {name}, {kind}", content))
    note = "From held-out audio, through the values and back: whole, the half that was given, and completed."
    return [
        media_section("written", "Written audio", "Sampled after their class.", audio=written),
        media_section("completed", "Completed audio", note, audio=halves),
    ]


def _audible(signal: np.ndarray) -> np.ndarray:
    """The signal at half of full loudness."""
    loudest = float(np.abs(signal).max(initial=0.0))
    return signal / loudest / 2 if loudest else signal


def _file_name(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)
