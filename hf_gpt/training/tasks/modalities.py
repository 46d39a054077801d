"""Images and audio: which class a signal is of, and signals written for a class."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch

from hf_gpt.data.examples import Example
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation.media_classifier import MediaClassifier
from hf_gpt.modalities import HfGptModalityProcessor
from hf_gpt.training.tasks.base import Examples, as_tuple, to_rows
from hf_gpt.training.tasks.classification import Classification, LabelledTask
from hf_gpt.training.tasks.modality_examples import KINDS, Audio, Images, copies, value_vectors, voices_of
from hf_gpt.training.tasks.text_generation import WritingTask


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_gpt.reporting.report import Section

# Standard deviation of new embeddings of values. They begin as what the values stand for, above the size at which the
# first steps would overwrite that.
_EMBEDDING_SCALE = 0.1


class MediaTask(LabelledTask):
    """What tasks on signals share: examples, processor, changed copies to train on, first embeddings."""

    # What examples were encoded with; known after `encode`.
    processor: HfGptModalityProcessor
    processing_class = "AutoProcessor"
    # Levels, codewords and the judge are learnt from all signals.
    streams = False

    @property
    def kind(self) -> str:
        """Name of the kind of signals: `"image"` or `"audio"`."""
        return "image" if self.args.task.startswith("image") else "audio"

    @property
    def modality(self) -> Images | Audio:
        return KINDS[self.kind]()

    @property
    def column_options(self) -> Sequence[str]:
        return ("media_column", "label_column", *(("group_column",) if self.args.normalize_by_group else ()))

    def check(self, example: Example) -> None:
        self.id_of(example)

    def built_in_examples(self) -> list[Example]:
        return self.modality.built_in(self.args)

    def array(self, example: Example) -> np.ndarray:
        """The signal of an example; raises `CorpusError` where it is no array of numbers."""
        column = self.args.media_column
        try:
            signal = np.asarray(example[column])
        except ValueError:
            signal = np.asarray("ragged")
        if signal.dtype.kind not in "iuf" or not signal.size:
            raise CorpusError(
                f"{example.position}: column {column!r} must be an array of numbers with rows of one length. Mend it."
            )
        return signal

    def texts(self, example: Example) -> Iterable[str]:
        return [f"{self.kind} of shape {self.array(example).shape}, class {example[self.args.label_column]}"]

    def make_processing_class(self, train: Examples) -> HfGptModalityProcessor:
        media = [self.array(example) for example in train]
        groups = self.groups(train)
        try:
            extractor = self.modality.new_feature_extractor(self.args, media, groups)
        except ValueError as error:
            signals = "images" if self.kind == "image" else "audio"
            raise ConfigError(f"these settings do not suit the {signals}: {error}") from error
        processor = HfGptModalityProcessor.create(extractor, self.names)
        processor.tokenizer.model_max_length = self.args.max_length
        return processor

    def check_processing_class(self, processing_class: Any) -> None:
        if not isinstance(processing_class, HfGptModalityProcessor):
            raise ConfigError(
                f"{self.args.task} needs a processor of signals, but the checkpoint has a "
                f"{type(processing_class).__name__}. Begin from a model that was trained on signals, or anew."
            )

    def prepare_model(self, model: "PreTrainedModel", processing_class: HfGptModalityProcessor) -> None:
        """Lets the embedding of each value begin as a random projection of what it stands for."""
        vectors = value_vectors(processing_class.feature_extractor)
        projection = np.random.default_rng(0).normal(size=(vectors.shape[1], model.config.hidden_size))
        weights = _EMBEDDING_SCALE * vectors @ projection / math.sqrt((vectors**2).sum(1).mean())
        embeddings = model.get_input_embeddings().weight
        with torch.no_grad():
            first = processing_class.value_token_ids[0]
            embeddings[first : first + len(weights)] = torch.from_numpy(weights).to(embeddings)

    @property
    def predicts_together(self) -> bool:
        return self.args.normalize_by_group

    @property
    def copies_to_judge(self) -> int:
        """Changed copies of a signal that a prediction is made from, beside itself."""
        return 0

    def groups(self, examples: Examples) -> list[Any] | None:
        """The group of each example, if what groups share is taken away; raises `ConfigError` where it cannot be."""
        if not self.args.normalize_by_group:
            return None
        column = self.args.group_column
        if self.args.task != "sound_classification" or column is None:
            raise ConfigError("--normalize_by_group is for sound_classification and needs --group_column.")
        return [example[column] for example in examples]

    def rows(
        self, examples: Examples, processor: HfGptModalityProcessor, *, is_training: bool, with_class: bool
    ) -> list[tuple[list[int], Example]]:
        """Token ids with the example that they are of, changed copies of it behind it."""
        self.processor = processor
        extractor, groups = processor.feature_extractor, self.groups(examples)
        media = [self.array(example) for example in examples]
        try:
            values = copies(
                self.modality,
                extractor,
                media,
                self.args.augmented_copies if is_training else self.copies_to_judge,
                seed=0,
                strength=self.args.augmentation_strength,
                voices=None if groups is None else voices_of(extractor, media, groups),
                alike=not is_training,
            )
        except ValueError as error:
            raise ConfigError(f"a signal cannot be read: {error}") from error
        rows, most = [], self.args.max_length
        cuts = self.start_counting(is_training, sum(map(len, values)))
        for index, (example, versions) in enumerate(zip(examples, values, strict=True)):
            name = self.name_of(example) if with_class else None
            encoded = [processor.token_ids(version, name) for version in versions]
            longest = max(map(len, encoded))
            if longest > most:
                if not cuts.keeps(self.args.overlong, example.position, longest):
                    continue
                cut = [len(ids) for ids in encoded if len(ids) > most]
                cuts.add("rows_cut", len(cut))
                cuts.add("tokens_cut", sum(cut) - most * len(cut))
                cuts.add("targets_cut", len(cut) if with_class else 0)
            self.kept.append(index)
            rows += [(ids[:most], example) for ids in encoded]
        return rows

    def record(self, example: Example) -> dict[str, Any]:
        return {name: value for name, value in example.items() if name != self.args.media_column}


class MediaClassification(MediaTask, Classification):
    """The class of a signal; accuracy and macro F1. Reads values between two `<|endoftext|>`.

    With `eval_copies` the log-probabilities of a signal and of changed copies of it are averaged, as an ensemble's are.
    """

    @property
    def copies_to_judge(self) -> int:
        return self.args.eval_copies

    def prepare_tokenizer(self, tokenizer: Any) -> list[str]:
        # The processor puts tokens where they belong.
        return []

    def encode(self, examples: Examples, tokenizer: HfGptModalityProcessor, *, is_training: bool) -> datasets.Dataset:
        rows = self.rows(examples, tokenizer, is_training=is_training, with_class=False)
        return to_rows([{"input_ids": ids, "labels": self.id_of(example)} for ids, example in rows])

    def reduce_logits(self, logits: Any, labels: Any) -> Any:
        return as_tuple(logits)[0].float().log_softmax(-1)

    def predictions(self, outputs: Any, examples: Examples, rows: datasets.Dataset) -> list[str]:
        of_versions = as_tuple(outputs)[0].reshape(len(examples), 1 + self.copies_to_judge, -1)
        mean = of_versions.mean(1)
        # The mean of log-probabilities, as a distribution again.
        self.probabilities = list(np.exp(mean.max(-1) - np.logaddexp.reduce(mean, axis=-1)))
        return [self.names[index] for index in mean.argmax(-1)]


class MediaGeneration(MediaTask, WritingTask):
    """Signals of a class: the class in front, then the values; bits a value, and whether a judge sees the class.

    The judge is a support vector machine on the training signals as they are
    (`hf_gpt.evaluation.media_classifier`). A prediction is a list of values, sampled after the class of the example.
    """

    main_metric = "recognised"
    samples = True

    is_encoder_decoder = False
    _train: Examples = ()
    _judge: MediaClassifier | None = None

    def learn(self, train: Examples, validation: Examples) -> None:
        if self.args.architecture == "encoder_decoder":
            raise ConfigError(f"{self.args.task} is for decoders. Leave --architecture out.")
        super().learn(train, validation)
        self._train = train

    def encode(self, examples: Examples, tokenizer: HfGptModalityProcessor, *, is_training: bool) -> datasets.Dataset:
        rows = self.rows(examples, tokenizer, is_training=is_training, with_class=True)
        return to_rows([{"input_ids": ids, "labels": ids} for ids, _ in rows])

    def prompts(self, examples: Examples, tokenizer: HfGptModalityProcessor) -> list[list[int]]:
        return [tokenizer.token_ids((), self.name_of(example), add_end=False) for example in examples]

    def decode(self, sequences: Any, processing_class: HfGptModalityProcessor) -> list[list[int]]:
        return [processing_class.values_of(row) for row in sequences]

    def score(self, predictions: Sequence[list[int]], examples: Examples) -> dict[str, float]:
        if not self._train:
            return {}
        if self._judge is None:
            real, names = zip(*((self.array(example), self.name_of(example)) for example in self._train), strict=True)
            self._judge = MediaClassifier().fit(real, names)
        wanted = [self.name_of(example) for example in examples]
        written = [self.processor.feature_extractor.decode(values) for values in predictions]
        real = [self.array(example) for example in examples]
        return {
            "recognised": self._judge.accuracy(written, wanted),
            "judge_on_real": self._judge.accuracy(real, wanted),
        }

    def describe(self, example: Example) -> str:
        return f"{self.kind} of class {self.name_of(example)}"

    def show(self, prediction: list[int]) -> str:
        return f"{len(prediction)} values"

    def report_sections(
        self, model: "PreTrainedModel", processor: HfGptModalityProcessor, examples: Examples, folder: Path
    ) -> "list[Section]":
        from hf_gpt.training.tasks.modality_samples import write_gallery

        return write_gallery(self, model, processor, examples, folder)
