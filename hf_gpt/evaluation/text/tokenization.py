"""How metrics cut a text into words."""

from collections.abc import Callable, Iterable
from functools import lru_cache

from hf_gpt.evaluation.text.words import has_unspaced, pieces


Tokenizer = Callable[[str], list[str]]

TOKENIZERS = ("auto", "whitespace", "treebank", "13a", "character")


def get_tokenizer(tokenizer: str | Tokenizer, texts: Iterable[str] = ()) -> tuple[str, Tokenizer]:
    """The name of a tokenizer, for the record, and the function.

    Args:
        tokenizer: `"auto"` cuts at spaces, and around each character of scripts without spaces, such as Chinese;
            `"whitespace"` is for text that is tokenised already; `"treebank"`, NLTK's word tokenizer, is what the
            benchmarks of COCO captions and EMNLP news were prepared with; `"13a"`, sacrebleu's default;
            `"character"`; or a function from a text to its tokens.
        texts: What is tokenised. Where none has a script without spaces, `"auto"` is called what it does:
            `"whitespace"`.

    Raises:
        ValueError: there is no such tokenizer.
    """
    if callable(tokenizer):
        return getattr(tokenizer, "__qualname__", type(tokenizer).__name__), tokenizer
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer must be a function or one of {', '.join(TOKENIZERS)}; got {tokenizer!r}.")
    is_plain = tokenizer == "auto" and not any(map(has_unspaced, texts))
    return "whitespace" if is_plain else tokenizer, _named(tokenizer)


def tokenize(texts: Iterable[str], tokenizer: str | Tokenizer = "auto") -> list[list[str]]:
    """The tokens of each text."""
    function = get_tokenizer(tokenizer)[1]
    return [list(function(text)) for text in texts]


@lru_cache
def _named(name: str) -> Tokenizer:
    if name == "auto":
        return pieces
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
