"""
Words that people rated as good or bad, as short examples to train a sentiment model on beside whole sentences. Needs
the package vaderSentiment (`pip install vaderSentiment`), of which the list of words alone is read (Hutto and Gilbert
2014, MIT licence): ten people rated each word from -4 to 4.

    python -m eval.experiments.polarity_words runs/words.jsonl
    hf-gpt finetune --task classification --train_file train.jsonl runs/words.jsonl ...

Label 1 is a good word, 0 a bad one. With `--negated_share` clear words come negated too, with the other label. A space
stands in front: to a byte-level tokenizer a word inside a text is another token than one at its start.
"""

import argparse
import importlib.util
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hf_gpt.files.atomic_files import write_text


PACKAGE, FILE = "vaderSentiment", "vader_lexicon.txt"
# Ratings nearer to 0 than this say little, and nearer than the second say nothing of the negated word.
LEAST_RATING, LEAST_NEGATED_RATING = 0.5, 1.5
NEGATIONS = ("not {}", "never {}", "not at all {}", "is n't {}")


def read_ratings(path: Path | None = None) -> dict[str, float]:
    """Mean rating of each word, from -4 to 4; emoticons, slang with digits and phrases are left out.

    Args:
        path: A file of lines `word<TAB>rating<TAB>...`; None for that of the installed package.

    Raises:
        SystemExit: the package is not installed.
        ValueError: a line of the file is no rating.
    """
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise SystemExit(f"{PACKAGE} is not installed. Install it (pip install vaderSentiment), or give --lexicon.")
        path = Path(next(iter(spec.submodule_search_locations))) / FILE
    ratings = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word, _, rest = line.partition("\t")
        if not re.fullmatch(r"[a-z][a-z'-]+", word):
            continue
        try:
            ratings[word] = float(rest.partition("\t")[0])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: a word, a tab and a number are wanted, got {line!r}.") from error
    return ratings


def examples(ratings: Mapping[str, float], *, negated_share: float, seed: int) -> list[dict[str, str | int]]:
    """Rows of `text` and `label`: each word by the sign of its rating, and a share of the clear ones negated.

    Args:
        ratings: As `read_ratings` gives them.
        negated_share: Of the words rated clearly, how many also come negated, from 0 to 1.
        seed: Of which do, and of how.
    """
    rng = random.Random(seed)
    rows: list[dict[str, str | int]] = []
    for word, rating in ratings.items():
        if abs(rating) < LEAST_RATING:
            continue
        rows.append({"text": f" {word}", "label": int(rating > 0)})
        if abs(rating) >= LEAST_NEGATED_RATING and rng.random() < negated_share:
            rows.append({"text": f" {rng.choice(NEGATIONS).format(word)}", "label": int(rating < 0)})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="file of JSON lines to write")
    parser.add_argument("--lexicon", type=Path, help="file of words and ratings; left out: that of vaderSentiment")
    parser.add_argument("--negated_share", type=float, default=0.0, help="of the words rated clearly")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    count = write_words(options.output, options.lexicon, options.negated_share, options.seed)
    print(f"{count} examples in {options.output}")
    return 0


def write_words(
    path: Path,
    lexicon: Path | None = None,
    negated_share: float = 0.0,
    seed: int = 0,
    is_left_out: Callable[[str], bool] = lambda _: False,
) -> int:
    """Writes the examples of a lexicon as JSON lines; returns how many.

    Args:
        path: File to write.
        lexicon, negated_share, seed: As for `read_ratings` and `examples`.
        is_left_out: Whether a text is not to be written, such as one that is tested on.
    """
    rows = examples(read_ratings(lexicon), negated_share=negated_share, seed=seed)
    rows = [row for row in rows if not is_left_out(row["text"])]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
