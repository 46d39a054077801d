"""Texts in a discriminator's own tokens, and a bridge from a generator's tokens to them."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_gpt.generation.scoring.discriminator import sequence_scores


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
    width = max(map(len, rows))
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask, are_cut


class TextDiscriminator:
    """A discriminator with another tokenizer, as a function of a generator's tokens, which are decoded to text.

    Args:
        discriminator: A sequence classifier with one label.
        tokenizer: Its tokenizer.
        generator_tokenizer: The tokenizer of the sequences that are scored.
        batch_size: Texts scored at a time. Left out: all.
    """

    def __init__(
        self,
        discriminator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        generator_tokenizer: PreTrainedTokenizerBase,
        batch_size: int | None = None,
    ):
        self.discriminator = discriminator
        self.tokenizer = tokenizer
        self.generator_tokenizer = generator_tokenizer
        self.batch_size = batch_size

    def __call__(self, sequences: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (n,) of sequences and mask, both (n, length)."""
        kept = [ids[mask.bool()] for ids, mask in zip(sequences, attention_mask, strict=True)]
        texts = self.generator_tokenizer.batch_decode(kept, skip_special_tokens=True)
        limit = max_positions(self.discriminator)
        ids, mask, are_cut = encode_texts(self.tokenizer, texts, limit)
        if any(are_cut):
            logger.warning_once(
                f"{type(self.discriminator).__name__} reads {ids.shape[1]} tokens of a text: longer ones are judged by "
                "their first tokens. Lower max_new_tokens, or use a discriminator that reads more."
            )
        return sequence_scores(self.discriminator, ids, mask, self.batch_size).to(sequences.device)


def max_positions(model: PreTrainedModel) -> int | None:
    """Longest text in tokens that a model can read; None where nothing limits it."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
