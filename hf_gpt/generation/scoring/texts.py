"""Texts in a discriminator's own tokens, and a discriminator that reads a generator's tokens as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging

from hf_gpt.data.collators import pad_rows
from hf_gpt.generation.scoring.discriminator import check_discriminator, discriminator_logits


logger = logging.get_logger(__name__)

# Tokenizers without a limit give a huge number.
_NO_LIMIT = 10**9


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, list[bool]]:
    """Texts in the tokens that a discriminator was trained on.

    A tokenizer that adds a token at the end, as BERT's does, adds its special tokens. With any other, the begin token
    (or the end token) comes before a text and the end token after it, as discriminators of this package see texts.

    Args:
        tokenizer: The discriminator's.
        texts: Strings.
        max_length: Most tokens of a row; longer texts are cut and have no end token. None: the tokenizer's limit.

    Returns:
        Token ids and mask, both (n, length) int64, padded at the right; and whether each text was cut.

    Raises:
        ValueError: the tokenizer has no end token, or there is no text.
    """
    if not len(texts):
        raise ValueError("there is no text to score.")
    limit = min(max_length or _NO_LIMIT, tokenizer.model_max_length)
    options = {"verbose": False, "return_attention_mask": False}
    if tokenizer("a")["input_ids"][-1] in tokenizer.all_special_ids:
        rows = tokenizer(list(texts), **options)["input_ids"]
        are_cut = [len(row) > limit for row in rows]
        if any(are_cut):
            rows = tokenizer(list(texts), truncation=True, max_length=limit, **options)["input_ids"]
    else:
        end = tokenizer.eos_token_id
        if end is None:
            raise ValueError("the tokenizer has no end-of-text token: set its eos_token.")
        begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, **options)["input_ids"]
        are_cut = [len(ids) + 2 > limit for ids in encoded]
        rows = [[begin, *ids, end][:limit] for ids in encoded]
    return *pad_rows(rows, 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id), are_cut


class TextDiscriminatorConfig(PreTrainedConfig):
    """Config of a `TextDiscriminator`: one label, and the number of the generator's token ids."""

    model_type = "hf_gpt_text_discriminator"

    def __init__(self, vocab_size: int = 0, num_labels: int = 1, **kwargs: Any):
        self.vocab_size = vocab_size
        super().__init__(num_labels=num_labels, **kwargs)


class TextDiscriminator(PreTrainedModel):
    """A discriminator with a tokenizer of its own, such as a pretrained encoder, that reads a generator's tokens.

    The tokens are decoded to text without special tokens, and encoded again. Gradients reach the discriminator's
    weights, not the tokens. Whole texts alone have a score: the two tokenizers' prefixes are not the same. Whether a
    text has ended is not seen, since special tokens are no text.

    `save_pretrained` writes the discriminator and its tokenizer, which is a checkpoint without this class.

    Args:
        discriminator: A sequence classifier with one label.
        tokenizer: Its tokenizer.
        generator_tokenizer: The tokenizer of the sequences that are scored.
        vocab_size: Ids that the generator may write. None: as many as its tokenizer has.

    Raises:
        ValueError: the discriminator has another number of labels.
    """

    config_class = TextDiscriminatorConfig
    base_model_prefix = "discriminator"

    def __init__(
        self,
        discriminator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        generator_tokenizer: PreTrainedTokenizerBase,
        vocab_size: int | None = None,
    ):
        check_discriminator(discriminator)
        super().__init__(TextDiscriminatorConfig(vocab_size=vocab_size or len(generator_tokenizer)))
        self.discriminator = discriminator
        self.tokenizer = tokenizer
        self.generator_tokenizer = generator_tokenizer
        self.train(discriminator.training)

    def get_input_embeddings(self) -> nn.Module:
        """The module itself, whose ids are the generator's."""
        return self

    def forward(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None):
        """Logits (n, 1) of sequences of the generator's ids and their mask, both (n, length)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        kept = [ids[is_kept].tolist() for ids, is_kept in zip(input_ids.cpu(), mask.bool().cpu(), strict=True)]
        texts = self.generator_tokenizer.batch_decode(
            kept, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        ids, mask, are_cut = encode_texts(self.tokenizer, texts, max_positions(self.discriminator))
        if any(are_cut):
            logger.warning_once(
                f"{type(self.discriminator).__name__} reads {ids.shape[1]} tokens of a text: longer ones are judged by "
                "their first tokens. Lower max_new_tokens, or use a discriminator that reads more."
            )
        device = self.discriminator.device
        logits = discriminator_logits(self.discriminator, ids.to(device), mask.to(device))
        return SequenceClassifierOutput(logits=logits[:, None])

    def save_pretrained(
        self, save_directory: str | Path, state_dict: dict[str, torch.Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Writes the discriminator, in its own architecture, and its tokenizer."""
        if state_dict is not None:
            prefix = f"{self.base_model_prefix}."
            state_dict = {name.removeprefix(prefix): tensor for name, tensor in state_dict.items()}
        self.discriminator.save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        self.tokenizer.save_pretrained(save_directory)


def max_positions(model: PreTrainedModel) -> int | None:
    """Longest text in tokens that a model can read; None where nothing limits it."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
