"""How metrics cut a text into words."""

from collections.abc import Callable, Iterable
from functools import lru_cache


Tokenizer = Callable[[str], list[str]]

TOKENIZERS = ("whitespace", "treebank", "13a", "character")


def get_tokenizer(tokenizer: str | Tokenizer) -> tuple[str, Tokenizer]:
    """The name of a tokenizer, for the record, and the function.

    Args:
        tokenizer: `"whitespace"` for text that is tokenised already; `"treebank"`, NLTK's word tokenizer, which is what
            the benchmarks of COCO captions and EMNLP news were prepared with; `"13a"`, sacrebleu's default;
            `"character"`; or a function from a text to its tokens.

    Raises:
        ValueError: there is no such tokenizer.
    """
    if callable(tokenizer):
        return getattr(tokenizer, "__qualname__", type(tokenizer).__name__), tokenizer
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer must be a function or one of {', '.join(TOKENIZERS)}; got {tokenizer!r}.")
    return tokenizer, _named(tokenizer)


def tokenize(texts: Iterable[str], tokenizer: str | Tokenizer = "whitespace") -> list[list[str]]:
    """The tokens of each text."""
    function = get_tokenizer(tokenizer)[1]
    return [list(function(text)) for text in texts]


@lru_cache
def _named(name: str) -> Tokenizer:
    if name == "whitespace":
        return str.split
    if name == "character":
        return list
    if name == "treebank":
        from nltk.tokenize import NLTKWordTokenizer

        return NLTKWordTokenizer().tokenize
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    function = Tokenizer13a()
    return lambda text: function(text).split()
