"""Whether two models share their tokens: a discriminator that reads a generator's ids must mean the same by them."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from torch import nn

from hf_gpt.generation.scoring.logprobs import unwrap


# Embeddings are often padded to a multiple of this.
_PADDED_TO = 128
# More than published models have beyond the tokens of their tokenizers.
_MOST_PADDING = 1024
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model")
_HOW = (
    "Use a discriminator with the generator's own tokenizer (hf-gpt discriminator trains one), or one that reads whole "
    "texts through its own tokenizer (hf_gpt.generation.scoring.texts.TextDiscriminator; on the command line resample, "
    "reject and best_of_n do so)."
)


class TokensError(ValueError):
    """Two models do not share their tokens."""


def check_shared_tokens(
    generator: nn.Module | None,
    discriminator: nn.Module | None,
    generator_tokenizer: Any = None,
    discriminator_tokenizer: Any = None,
) -> None:
    """Refuses a discriminator that would read a generator's token ids as other tokens.

    Tokenizers are compared where both are known: given, or saved where a model was loaded from. They are the same where
    every token has the same id, the begin and end tokens too, and text is cut up alike. Else there are only the sizes
    of the embeddings, which may differ by padding. Embeddings beyond the tokenizer's tokens are padding as well.

    Args:
        generator: Whose tokens are read; None where only its tokenizer is known.
        discriminator: A classifier or language model that reads them.
        generator_tokenizer, discriminator_tokenizer: Where they are at hand.

    Raises:
        TokensError: another tokenizer, or too few embeddings for what the generator can write.
    """
    generator, discriminator = (None if model is None else unwrap(model) for model in (generator, discriminator))
    name, writer = _name(discriminator, "the discriminator"), _name(generator, "the generator")
    first = _tokenizer_of(generator, generator_tokenizer)
    if (
        discriminator_tokenizer is None
        and _position(discriminator)
        and _position(discriminator) == _position(generator)
    ):
        # Made of the generator, or of the same checkpoint, whatever tokenizer both have now.
        second = first
    else:
        second = _tokenizer_of(discriminator, discriminator_tokenizer)
    are_known = first is not None and second is not None
    if are_known:
        difference = _difference(first, second)
        if difference is not None:
            raise TokensError(f"{name} has another tokenizer than {writer}: {difference}. {_HOW}")
    _check_sizes(generator, discriminator, None if first is None else first.size, is_same=are_known, name=name)


def check_vocabulary(size: int, discriminator: nn.Module) -> None:
    """Refuses a discriminator whose tokens are plainly others than a generator's, of which only their number is known.

    Raises:
        TokensError: the sizes differ by more than padding.
    """
    read = _num_embeddings(unwrap(discriminator))
    if read is not None and not size - _MOST_PADDING <= read <= _padded(size):
        raise TokensError(
            f"the generator has {size:,} tokens, {_name(discriminator, 'the discriminator')} reads {read:,}: it has "
            f"another tokenizer. {_HOW}"
        )


def tokenizer_difference(first: Any, second: Any) -> str | None:
    """What two tokenizers do differently, in words; None where every id means the same and texts are cut up alike."""
    if first is second:
        return None
    mine, theirs = first.get_vocab(), second.get_vocab()
    if mine != theirs:
        token = min(mine.items() ^ theirs.items(), key=lambda item: (item[1], item[0]))[0]
        return (
            f"of {len(mine):,} and {len(theirs):,} tokens, {token!r} has the id {mine.get(token, 'none')} in one and "
            f"{theirs.get(token, 'none')} in the other"
        )
    for kind in ("bos_token_id", "eos_token_id"):
        ids = getattr(first, kind, None), getattr(second, kind, None)
        if None not in ids and ids[0] != ids[1]:
            return f"{kind} is {ids[0]} in one and {ids[1]} in the other"
    if _rules(first) != _rules(second) and None not in (_rules(first), _rules(second)):
        return "their tokens are the same, but they cut text into them by other merges or another normaliser"
    return None


def _rules(tokenizer: Any) -> tuple[Any, ...] | None:
    """How text is cut into tokens, beside the vocabulary; None of a tokenizer without a Rust backend."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "to_str"):
        return None
    state = json.loads(backend.to_str())
    model = state.get("model") or {}
    return model.get("type"), model.get("merges"), state.get("normalizer")


def _check_sizes(generator: Any, discriminator: Any, tokens: int | None, is_same: bool, name: str) -> None:
    read, written = _num_embeddings(discriminator), _num_embeddings(generator)
    known = [size for size in (written, tokens) if size is not None]
    if read is None or not known:
        return
    # Embeddings past the tokens of a tokenizer are padding.
    needed, most = min(known), max(known)
    if read < needed:
        raise TokensError(
            f"the generator writes {needed:,} tokens, the discriminator {name} reads {read:,}: an id beyond has no "
            f"embedding. Both need one tokenizer. {_HOW}"
        )
    if not is_same and read > _padded(most):
        raise TokensError(
            f"the generator writes {most:,} tokens, the discriminator {name} reads {read:,}, more than padding: "
            f"it has another tokenizer. {_HOW} If both have one tokenizer, give it for both."
        )


def _padded(size: int) -> int:
    return -(-size // _PADDED_TO) * _PADDED_TO


def _num_tokens(tokenizer: Any) -> int:
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _num_embeddings(model: Any) -> int | None:
    """Tokens that a model reads, as its config says: embeddings may be wrapped or in shards."""
    if model is None:
        return None
    config = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(config, "vocab_size", None)
    if isinstance(size, int):
        return size
    embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return getattr(embeddings, "num_embeddings", None)


def _position(model: Any) -> str | None:
    """Where a model was loaded from."""
    return getattr(model, "name_or_path", None) or getattr(getattr(model, "config", None), "name_or_path", None)


@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """A tokenizer, the number of its tokens, and whether it is one that nobody changes."""

    tokenizer: Any
    size: int
    is_saved: bool = False


def _tokenizer_of(model: Any, given: Any) -> _Known | None:
    if given is not None:
        return _Known(given, _num_tokens(given))
    position = _position(model)
    if not position:
        return None
    files = [Path(position) / name for name in _TOKENIZER_FILES]
    changed = max((file.stat().st_mtime_ns for file in files if file.is_file()), default=0)
    # Any other name may be that of a Hub model in the cache.
    if not changed and Path(position).exists():
        return None
    found = _saved_tokenizer(str(position), changed)
    # Where a model's embeddings have been cut or have grown since, it is no longer the tokenizer.
    size = _num_embeddings(model)
    return found if found is not None and (size is None or 0 <= size - found.size <= _MOST_PADDING) else None


@functools.lru_cache(maxsize=8)
def _saved_tokenizer(position: str, changed: int) -> _Known | None:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(position, local_files_only=True, trust_remote_code=False)
    except Exception:
        # Whoever needs it to work says what is wrong with it.
        return None
    return _Known(found, _num_tokens(found), is_saved=True)


def _difference(first: _Known, second: _Known) -> str | None:
    """`tokenizer_difference`, worked out once for two that are as they were saved."""
    if first.is_saved and second.is_saved:
        return _saved_difference(first, second)
    return tokenizer_difference(first.tokenizer, second.tokenizer)


@functools.lru_cache(maxsize=8)
def _saved_difference(first: _Known, second: _Known) -> str | None:
    return tokenizer_difference(first.tokenizer, second.tokenizer)


def _name(model: Any, unknown: str) -> str:
    if model is None:
        return unknown
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    position = getattr(inner, "name_or_path", "") or ""
    return f"{type(inner).__name__} ({position})" if position else type(inner).__name__
