"""Words of any script, for metrics that compare words.

Most scripts part words by spaces. Chinese, Japanese, Thai, Lao, Khmer and Burmese do not: there each character is a
word, with the marks on it. Composed and decomposed characters are the same, and marks belong to their letter, as in
Hindi or Arabic.
"""

import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

import regex


# What words are made of here, as results name it.
UNICODE_WORDS = "ROUGE over words of any script, English ones stemmed; Chinese, Japanese, Thai and such by character"
ANSWER_WORDS = "SQuAD's rules; Chinese, Japanese, Thai and the like by character"

_UNSPACED = r"\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_CHARACTER = rf"(?=[\p{{L}}\p{{N}}])[{_UNSPACED}]\p{{M}}*"
# A letter with its marks; a joiner that only shapes letters is no part of it.
_WORD = regex.compile(rf"{_CHARACTER}|(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}]\p{{M}}*+[\u200c\u200d\u00ad]?)+")
_SHAPING = regex.compile(r"[\u200c\u200d\u00ad]")
_UNSPACED_LETTER = regex.compile(_CHARACTER)
# Where a text has no word: emoji and other signs beyond ASCII, each with what varies it.
_SIGN = regex.compile(r"(?![\x00-\x7f\s\p{P}])\X")
_PIECE = regex.compile(rf"{_CHARACTER}|(?:(?!{_CHARACTER})\S)+")


def normal_form(text: str) -> str:
    """The text with characters composed (NFC), so that two spellings of the same characters are equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def lower_case(text: str) -> str:
    """The text in lower case and composed; the Turkish dotted capital I becomes a plain i."""
    return text.lower() if text.isascii() else normal_form(normal_form(text).lower().replace("i\u0307", "i"))


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation. Of ASCII text those of the package `rouge-score`.

    A text without a word, such as one of emoji alone, gives its signs beyond ASCII.
    """
    text = lower_case(text)
    found = [_SHAPING.sub("", word) for word in _WORD.findall(text)]
    return found if found or text.isascii() else _SIGN.findall(text)


def pieces(text: str) -> list[str]:
    """The parts of a text between spaces, in which characters of scripts without spaces stand alone.

    Of a text without such characters this is `str.split`, but for composing characters.
    """
    text = normal_form(text)
    return _PIECE.findall(text) if has_unspaced(text) else text.split()


def has_unspaced(text: str) -> bool:
    """Whether a text has a letter of a script that does not part words by spaces."""
    return not text.isascii() and _UNSPACED_LETTER.search(text) is not None


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters of the texts are of scripts that do not part words by spaces."""
    unspaced, letters = _letters(texts)
    return 2 * unspaced > letters


def bleu_tokenizer(texts: Iterable[str]) -> str:
    """The tokenizer of sacrebleu for texts: `13a`, its default, or where most letters are of scripts without spaces
    `zh` for Chinese and `char` for others.
    """
    texts = list(texts)
    if not is_unspaced(texts):
        return "13a"
    joined = "".join(texts)
    return "char" if _BEYOND_ZH.search(joined) else "zh"


def is_punctuation(character: str) -> bool:
    """Whether a character is punctuation, in ASCII also a symbol such as `+`."""
    return character in _ASCII_PUNCTUATION or unicodedata.category(character).startswith("P")


def has_other_letters(text: str) -> bool:
    """Whether a text has letters that are not Latin."""
    return not text.isascii() and _OTHER_LETTER.search(text) is not None


_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
# Tibetan parts syllables by a mark of its own. sacrebleu's `zh` parts no Han characters beyond 16 bits.
_BEYOND_ZH = regex.compile(
    r"[\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\U00020000-\U0003ffff]"
)
_TIBETAN_LETTER = regex.compile(r"(?=\p{L})\p{Tibetan}")
_OTHER_LETTER = regex.compile(r"(?!\p{Latin})\p{L}")
_LETTER = regex.compile(r"\p{L}")


def _letters(texts: Iterable[str]) -> tuple[int, int]:
    unspaced = letters = 0
    for text in texts:
        if text.isascii():
            letters += sum(map(str.isalpha, text))
        else:
            unspaced += len(_UNSPACED_LETTER.findall(text)) + len(_TIBETAN_LETTER.findall(text))
            letters += len(_LETTER.findall(text))
    return unspaced, letters


@lru_cache
def english_stemmer() -> Callable[[str], str]:
    """Porter's stemmer for English words of more than three letters; every other word stays."""
    from nltk.stem import porter

    stem = porter.PorterStemmer().stem
    return lambda word: stem(word) if len(word) > 3 and word.isascii() else word
