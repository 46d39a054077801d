"""
Sentences labelled by a linear model, for a network to learn sentiment from before it sees the few that people labelled
(distillation, Hinton et al. 2015, arXiv:1503.02531; self-training, Xie et al. 2020, arXiv:1911.04252).

    python -m eval.experiments.taught_sentences ARCHIVES taught.jsonl --train train.jsonl \
        --held_out dev.jsonl test.jsonl --texts subj.jsonl.gz

The teacher is a logistic regression on n-grams of words and of letters. It learns from the training sentences, from the
sentences of the reviews of `review_texts.py`, each with the label of its review and little weight, and from the rated
sentences. It then labels all of these but the training ones, and further texts; those it is unsure of are left out. Its
log-odds of the held-out sentences go to taught-dev.npy and taught-test.npy, for `averaged_classifiers.py`.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.experiments.review_texts import Overlap, RatedSentence, Review, read_rated_sentences, read_reviews
from hf_gpt.data.examples import read_examples
from hf_gpt.files.atomic_files import write_text


if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Of a sentence whose review has the label, beside 1 of a training sentence.
REVIEW_WEIGHT = 0.05
# Of a rated sentence for each point of its rating, up to the second; those nearer to 0 say little.
RATING_WEIGHT, MOST_RATING, LEAST_RATING = 0.2, 2.0, 0.5
# The teacher's probability of the likelier label, below which a sentence is left out.
LEAST_PROBABILITY = 0.65


@dataclass(frozen=True)
class WeightedSentence:
    """A sentence, its label, good (1) or bad (0), and how much it counts."""

    text: str
    label: int
    weight: float = 1.0


def distillation_steps(reviews: Iterable[Review], rated: Iterable[RatedSentence]) -> list[WeightedSentence]:
    """What the teacher learns from beside the training sentences."""
    found = [
        WeightedSentence(sentence, review.label, REVIEW_WEIGHT) for review in reviews for sentence in review.sentences
    ]
    found += [
        WeightedSentence(
            sentence.text, int(sentence.rating > 0), RATING_WEIGHT * min(abs(sentence.rating), MOST_RATING)
        )
        for sentence in rated
        if abs(sentence.rating) >= LEAST_RATING
    ]
    return found


def fit_teacher(sentences: Sequence[WeightedSentence], least_sentences: int = 2) -> "Pipeline":
    """A pipeline of scikit-learn from texts to the probabilities of 0 and 1.

    Args:
        sentences: With both labels among them.
        least_sentences: Word n-grams of fewer are left out; of letters, those of fewer than twice as many.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    features = make_union(
        TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True, min_df=least_sentences),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2 * least_sentences),
    )
    teacher = make_pipeline(features, LogisticRegression(C=5.0, solver="liblinear"))
    weights = [sentence.weight for sentence in sentences]
    return teacher.fit(
        [sentence.text for sentence in sentences],
        [sentence.label for sentence in sentences],
        logisticregression__sample_weight=weights,
    )


def taught_rows(
    teacher: "Pipeline", texts: Sequence[str], least_probability: float = LEAST_PROBABILITY
) -> list[dict[str, str | int]]:
    """Rows of `text` and `label`, for the texts of more than two words that the teacher is sure of."""
    texts = [text for text in texts if len(text.split()) > 2]
    return [
        {"text": text, "label": int(probability > 0.5)}
        for text, probability in zip(texts, teacher.predict_proba(texts)[:, 1], strict=True)
        if max(probability, 1 - probability) >= least_probability
    ]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, help="folder of the two archives")
    parser.add_argument("output", type=Path, help="file of JSON lines to write")
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="files of labelled sentences")
    parser.add_argument("--held_out", type=Path, nargs="+", required=True, help="files that are tested on")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help="files of further sentences to label")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    columns = {"text_column": "text", "label_column": "label"}
    held_out = [read_examples([path], columns) for path in options.held_out]
    overlap = Overlap(row["text"] for rows in held_out for row in rows)
    reviews = [Review(overlap.kept(review.sentences), review.label) for review in read_reviews(options.archives)]
    rated = [sentence for sentence in read_rated_sentences(options.archives) if overlap.kept([sentence.text])]
    print(f"{overlap.num_dropped} sentences of the archives dropped, which overlap with held-out ones")
    further = overlap.kept(row["text"] for row in read_examples(options.texts, {"text_column": "text"}))

    train = [WeightedSentence(row["text"], row["label"]) for row in read_examples(options.train, columns)]
    teacher = fit_teacher([*train, *distillation_steps(reviews, rated)])
    texts = [sentence for review in reviews for sentence in review.sentences]
    rows = taught_rows(teacher, [*texts, *(sentence.text for sentence in rated), *further])
    write_text(options.output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows)} of {len(texts) + len(rated) + len(further)} sentences labelled in {options.output}")
    for path, rows in zip(options.held_out, held_out, strict=True):
        log_odds = teacher.decision_function([row["text"] for row in rows])
        np.save(options.output.with_name(f"{options.output.stem}-{path.stem}.npy"), log_odds)
        right = ((log_odds > 0) == [row["label"] for row in rows]).mean()
        print(f"the teacher alone on {path.name}: {right:.4f}")
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
