"""Whether generator and discriminator share their tokens: the same ids must mean the same."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from torch import nn

from hf_gpt.generation.scoring.logprobs import unwrap


# Embeddings are often padded to a multiple of this.
_PADDED_TO = 128
# Published models have fewer embeddings beyond the tokens of their tokenizers.
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

    Tokenizers are compared where both are known: given, or saved where a model was loaded from. They are the same if
    every token has the same id, and text is split by the same rules. Otherwise only the numbers of embeddings are
    compared, which may differ by padding.

    Args:
        generator: Writes the tokens; None where only its tokenizer is known.
        discriminator: A classifier or language model that reads them.
        generator_tokenizer, discriminator_tokenizer: If known.

    Raises:
        TokensError: another tokenizer, or too few embeddings for what the generator can write.
    """
    generator, discriminator = (None if model is None else unwrap(model) for model in (generator, discriminator))
    name, writer = _name(discriminator, "the discriminator"), _name(generator, "the generator")
    first = _tokenizer_of(generator, generator_tokenizer)
    if discriminator_tokenizer is None and _source(discriminator) and _source(discriminator) == _source(generator):
        # Made from the generator, or from the same checkpoint.
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
    """Refuses a discriminator with plainly other tokens than a generator of `size` tokens.

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
    """The difference of two tokenizers in words; None if tokens, ids and rules are the same."""
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
        return "their tokens are the same, but their merges or normalisers differ"
    return None


def _rules(tokenizer: Any) -> tuple[Any, ...] | None:
    """The rules that split text, beside the vocabulary; None without a Rust backend."""
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
    # Embeddings beyond the tokenizer's tokens are padding.
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
    """Tokens that a model reads, by its config, since embeddings may be wrapped or sharded."""
    if model is None:
        return None
    config = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(config, "vocab_size", None)
    if isinstance(size, int):
        return size
    embeddings = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return getattr(embeddings, "num_embeddings", None)


def _source(model: Any) -> str | None:
    """Path or name that a model was loaded from."""
    return getattr(model, "name_or_path", None) or getattr(getattr(model, "config", None), "name_or_path", None)


@dataclasses.dataclass(frozen=True, eq=False)
class _Known:
    """A tokenizer, the number of its tokens, and whether it is as saved."""

    tokenizer: Any
    size: int
    is_saved: bool = False


def _tokenizer_of(model: Any, given: Any) -> _Known | None:
    if given is not None:
        return _Known(given, _num_tokens(given))
    source = _source(model)
    if not source:
        return None
    found = _find_tokenizer(str(source))
    # After a change of the embeddings the saved tokenizer no longer fits.
    size = _num_embeddings(model)
    return found if found is not None and (size is None or 0 <= size - found.size <= _MOST_PADDING) else None


def saved_tokenizer(source: str) -> Any | None:
    """The tokenizer that was saved with a checkpoint, if there is one.

    The library makes one without words where a folder has none.
    """
    found = _find_tokenizer(source)
    return None if found is None else found.tokenizer


def _find_tokenizer(source: str) -> _Known | None:
    files = [Path(source) / name for name in _TOKENIZER_FILES]
    changed = max((file.stat().st_mtime_ns for file in files if file.is_file()), default=0)
    # Any other name may be a Hub model in the cache.
    return None if not changed and Path(source).exists() else _saved_tokenizer(source, changed)


@functools.lru_cache(maxsize=8)
def _saved_tokenizer(source: str, changed: int) -> _Known | None:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception:
        # Loading it where it is needed reports the fault.
        return None
    return _Known(found, _num_tokens(found), is_saved=True)


def _difference(first: _Known, second: _Known) -> str | None:
    """`tokenizer_difference`, cached for two saved tokenizers."""
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
    source = getattr(inner, "name_or_path", "") or ""
    return f"{type(inner).__name__} ({source})" if source else type(inner).__name__
