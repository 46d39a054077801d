"""
Classifiers of the same classes together: their log-probabilities, divided by their deviation, are averaged, so that one
that has learnt by heart, and is sure of all it says, counts no more than others. Prints the accuracy of each and of
every group of them, by size.

    python -m eval.experiments.averaged_classifiers runs/finetuning/sst2-reviews-*/model --file dev.jsonl

A .npy file of log-odds of class 1, such as those of `taught_sentences.py`, is a classifier too.
"""

import argparse
import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from hf_gpt.data.examples import read_examples


def log_probabilities(path: Path, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """Log-probabilities of the classes, float64 of shape (texts, classes), by a checkpoint's model."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import hf_gpt  # noqa: F401 - registers the classes

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = np.empty((len(texts), model.config.num_labels))
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        batch = [texts[index] for index in indices]
        inputs = tokenizer(batch, padding=True, padding_side="right", truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        found[indices] = logits.double().log_softmax(-1).numpy()
    return found


def equally_sure(scores: np.ndarray) -> np.ndarray:
    """Scores of shape (texts, classes) with mean 0 in each row and deviation 1 overall."""
    centred = scores - scores.mean(-1, keepdims=True)
    return centred / centred.std()


def accuracies_by_size(scores: Sequence[np.ndarray], labels: np.ndarray) -> dict[int, list[float]]:
    """Accuracy of every group of classifiers, by the number of them; groups in the order of `itertools.combinations`.

    Args:
        scores: Of each, shape (texts, classes).
        labels: The class of each text, shape (texts,).
    """
    return {
        size: [float((sum(group).argmax(-1) == labels).mean()) for group in combinations(scores, size)]
        for size in range(1, len(scores) + 1)
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help="folders of checkpoints, or .npy files of log-odds")
    parser.add_argument("--file", type=Path, required=True, help="rows of text and label, a class from 0 on")
    options = parser.parse_args(argv)
    rows = read_examples([options.file], {"text_column": "text", "label_column": "label"})
    texts = [row["text"] for row in rows]
    scores = [
        equally_sure(np.load(path)[:, None] * [-0.5, 0.5] if path.suffix == ".npy" else log_probabilities(path, texts))
        for path in options.models
    ]
    for size, found in accuracies_by_size(scores, np.array([row["label"] for row in rows])).items():
        print(f"{size} together: mean {statistics.mean(found):.4f} of {' '.join(f'{score:.4f}' for score in found)}")
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
