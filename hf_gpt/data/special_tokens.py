"""Token ids of texts as they are, and the tokens that begin and end a text."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from hf_gpt.errors import ConfigError


def begin_and_end(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The tokens that begin and end a text. Without a begin token the end token begins it too.

    Raises:
        ConfigError: the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError("the tokenizer has no end-of-text token. Choose another with --tokenizer_name.")
    return (end if tokenizer.bos_token_id is None else tokenizer.bos_token_id), end


def add_begin_and_end(tokenizer: PreTrainedTokenizerBase) -> None:
    """Lets a tokenizer put texts between the tokens that begin and end them, as the rows of training are.

    Pipelines then give a model what it was trained on. A tokenizer that adds tokens already, or a slow one, stays.
    """
    if not tokenizer.is_fast or tokenizer("a").input_ids != tokenizer("a", add_special_tokens=False).input_ids:
        return
    ids = begin_and_end(tokenizer)
    begin, end = tokenizer.convert_ids_to_tokens(ids)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B {end}",
        special_tokens=list({begin: ids[0], end: ids[1]}.items()),
    )


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: Any) -> Mapping[str, list[list[Any]]]:
    """Token ids of texts, in which a special token that is spelled out stays text."""
    return tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
        **options,
    )
