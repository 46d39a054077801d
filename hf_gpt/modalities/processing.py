"""Signals as the tokens of a model: values, the classes in front, and the end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from hf_gpt.modalities.feature_extraction import ModalityFeatureExtractor


END, PAD = "<|endoftext|>", "<|pad|>"


class HfGptModalityProcessor(ProcessorMixin):
    """Images or audio to token ids and back.

    A sequence is the class, or `<|endoftext|>` where none is given, then the values of the signal, then
    `<|endoftext|>`. With the class in front a causal model writes signals of that class.

    Args:
        feature_extractor: `HfGptImageFeatureExtractor` or `HfGptAudioFeatureExtractor`.
        tokenizer: As `create` makes it; it writes value 7 as `v7` and class 3 as `<|class:3|>`.

    Example:

    ```python
    >>> processor = HfGptModalityProcessor.create(HfGptImageFeatureExtractor(), class_names=["0", "1"])
    >>> inputs = processor([image], return_tensors="pt")
    >>> written = model.generate(**processor.prompts(["1"], return_tensors="pt"), max_new_tokens=65)
    >>> image = processor.batch_decode(written)[0]
    ```
    """

    def __init__(self, feature_extractor: ModalityFeatureExtractor, tokenizer: PreTrainedTokenizerBase):
        super().__init__(feature_extractor, tokenizer)
        vocabulary = tokenizer.get_vocab()
        self._value_ids = np.array([vocabulary[f"v{value}"] for value in range(feature_extractor.num_values)], np.int64)
        self._value_of = {int(token): value for value, token in enumerate(self._value_ids)}

    @classmethod
    def create(
        cls, feature_extractor: ModalityFeatureExtractor, class_names: Sequence[str] = ()
    ) -> "HfGptModalityProcessor":
        """A processor with a tokenizer for the values and these classes.

        Raises:
            ValueError: the feature extractor still needs its codebook.
        """
        special = [END, PAD, *map(class_token, class_names)]
        words = [*special, *(f"v{value}" for value in range(feature_extractor.num_values))]
        tokenizer = Tokenizer(models.WordLevel({word: token for token, word in enumerate(words)}, unk_token=PAD))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token=END,
            eos_token=END,
            pad_token=PAD,
            additional_special_tokens=special[2:],
            padding_side="left",
            clean_up_tokenization_spaces=False,
        )
        return cls(feature_extractor, fast)

    @property
    def value_token_ids(self) -> list[int]:
        """Token ids of the values, in their order."""
        return self._value_ids.tolist()

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask"]

    def __call__(
        self,
        media: Sequence[Any],
        class_names: Sequence[str] | None = None,
        *,
        voices: Sequence[Any] | None = None,
        add_end: bool = True,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Token ids of signals, padded at the tokenizer's side if tensors are asked for.

        Args:
            media: Arrays as the feature extractor takes them.
            class_names: A class for each signal.
            voices: For each sound what is taken away of its speaker, as `feature_extractor.voice` gives it.
            add_end: Whether `<|endoftext|>` follows.
            return_tensors: `"pt"` or `"np"`; None gives lists.
            kwargs: Further options of the tokenizer's `pad`.

        Returns:
            `input_ids` and `attention_mask`, int64 of shape (len(signals), longest).

        Raises:
            ValueError: a class that the processor does not know, or an array that is no such signal.
        """
        names = [None] * len(media) if class_names is None else class_names
        encode = self.feature_extractor.encode
        if voices is None:
            values = [encode(signal) for signal in media]
        else:
            values = [encode(signal, voice=voice) for signal, voice in zip(media, voices, strict=True)]
        rows = [self.token_ids(found, name, add_end=add_end) for found, name in zip(values, names, strict=True)]
        return self._batch(rows, return_tensors, kwargs)

    def prompts(
        self, class_names: Sequence[str | None], values: Sequence[Sequence[int]] | None = None, **kwargs: Any
    ) -> BatchFeature:
        """What `generate` goes on from: a class for each signal, and perhaps the first of its values.

        Args:
            class_names: Classes; None for a signal of any class.
            values: For each signal the values that are given, such as the upper half of an image.
            kwargs: `return_tensors`, and options of the tokenizer's `pad`.
        """
        parts = [()] * len(class_names) if values is None else values
        rows = [self.token_ids(part, name, add_end=False) for name, part in zip(class_names, parts, strict=True)]
        return self._batch(rows, kwargs.pop("return_tensors", None), kwargs)

    def token_ids(self, values: Sequence[int], class_name: str | None = None, *, add_end: bool = True) -> list[int]:
        """Token ids of values, with the class or `<|endoftext|>` in front."""
        end = self.tokenizer.eos_token_id
        begin = end if class_name is None else self.tokenizer.get_vocab().get(class_token(class_name))
        if begin is None:
            raise ValueError(f"no class {class_name!r}. Classes: {', '.join(self.class_names) or 'none'}.")
        ids = self._value_ids[np.asarray(values, np.int64)].tolist()
        return [begin, *ids, *([end] if add_end else [])]

    def values_of(self, token_ids: Sequence[int]) -> list[int]:
        """The values among token ids up to the end of the signal; classes and padding are left out."""
        values: list[int] = []
        for token in map(int, token_ids):
            if token in self._value_of:
                values.append(self._value_of[token])
            elif token == self.tokenizer.eos_token_id and values:
                break
        return values

    @property
    def class_names(self) -> list[str]:
        """Classes that can stand in front."""
        tokens = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return [token[len("<|class:") : -2] for token, _ in tokens if token.startswith("<|class:")]

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> np.ndarray:
        """The signal that token ids stand for."""
        return self.feature_extractor.decode(self.values_of(token_ids))

    def batch_decode(self, sequences: Sequence[Sequence[int]], **kwargs: Any) -> list[np.ndarray]:
        """The signals that rows of token ids stand for."""
        return [self.decode(row) for row in sequences]

    def _batch(self, rows: list[list[int]], return_tensors: str | None, options: dict[str, Any]) -> BatchFeature:
        padding = options.pop("padding", return_tensors is not None)
        padded = self.tokenizer.pad({"input_ids": rows}, padding=padding, return_tensors=return_tensors, **options)
        return BatchFeature(dict(padded))


def class_token(name: str) -> str:
    """The token of a class."""
    return f"<|class:{name}|>"
