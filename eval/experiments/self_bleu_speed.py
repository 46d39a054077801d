"""
How long self-BLEU-2..5 takes, with every sentence a reference of every other: ours for several numbers of captions, and
NLTK's for some of the largest number, from which its time for all of them follows.

    python -m eval.experiments.self_bleu_speed --json runs/self_bleu_speed.json
"""

import argparse
import json
import time
import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.experiments.data import read_lines
from hf_gpt.evaluation.text.ngram_bleu import self_bleu
from hf_gpt.evaluation.text.tokenization import tokenize
from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.environment import describe_environment


ORDERS = (2, 3, 4, 5)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default="lm/coco_captions/image_coco.txt", help="a text a line, in the data folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1250, 2500, 5000, 10_000], help="numbers of captions")
    parser.add_argument("--compared", type=int, default=200, help="captions that NLTK scores against all others")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser


def by_nltk(sentences: list[list[str]], compared: int) -> np.ndarray:
    """NLTK's scores `(compared, orders)` of the first sentences, each against all others."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    weights = [(1 / order,) * order for order in ORDERS]
    smoothing = SmoothingFunction().method1
    rows = []
    for position in range(compared):
        others = sentences[:position] + sentences[position + 1 :]
        rows.append(sentence_bleu(others, sentences[position], weights, smoothing))
    return np.array(rows)


def measure(sentences: list[list[str]]) -> dict[str, float]:
    """CPU seconds, and bytes at the peak in a second run (to watch the memory takes time)."""
    begin = time.process_time()
    self_bleu(sentences, ORDERS)
    seconds = time.process_time() - begin
    tracemalloc.start()
    self_bleu(sentences, ORDERS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "sentences": len(sentences),
        "tokens": sum(map(len, sentences)),
        "cpu_seconds": round(seconds, 4),
        "peak_megabytes": round(peak / 1e6, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    sentences = tokenize(read_lines(args.file), "treebank")
    # Sizes beyond the file's repeat it.
    copies = -(-max(args.sizes) // len(sentences))
    sentences = (sentences * copies)[: max(args.sizes)]
    ours = [measure(sentences[:size]) for size in sorted(args.sizes)]
    warnings.simplefilter("ignore")
    begin = time.process_time()
    theirs = by_nltk(sentences, args.compared)
    nltk_seconds = time.process_time() - begin
    whole = nltk_seconds * len(sentences) / args.compared
    difference = float(np.abs(self_bleu(sentences, ORDERS)[: args.compared] - theirs).max())
    logs = [np.log([row[key] for row in ours]) for key in ("sentences", "cpu_seconds")]
    result = {
        "ours": ours,
        "exponent": round(float(np.polyfit(*logs, 1)[0]), 3) if len(ours) > 1 else None,
        "nltk": {"sentences": args.compared, "cpu_seconds": round(nltk_seconds, 2), "extrapolated": round(whole, 1)},
        "ratio": round(whole / ours[-1]["cpu_seconds"], 1),
        "largest_difference": difference,
        "environment": describe_environment(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        write_text(args.json, text + "\n")
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
