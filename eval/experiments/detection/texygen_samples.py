"""
What the GANs of Texygen really did: their published COCO captions, scored by every metric beside real captions.

Real captions are compared with other real captions, as many as of each generator: that row is what a perfect generator
would have. `test_coco.txt`, the customary reference set, is a row of its own, since it is about other subjects than the
captions that the generators learnt.

    python -m eval.experiments.detection.texygen_samples --folder runs/texygen_samples
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.experiments.common.data import read_lines
from eval.experiments.common.reports import markdown_table
from hf_gpt.evaluation import load
from hf_gpt.evaluation.language_model.word_model import WordModel, reverse_lm_score
from hf_gpt.evaluation.statistics.curves import Plane, Point
from hf_gpt.evaluation.text.tokenization import tokenize
from hf_gpt.evaluation.text.vocabulary import WordVocabulary
from hf_gpt.files.atomic_files import write_json, write_text
from hf_gpt.reporting.curve_plots import draw_curves, standalone_svg
from hf_gpt.reporting.environment import describe_environment


SOURCES = {
    "real": "lm/coco_captions/image_coco.txt",
    "test_coco": "lm/coco_captions/test_coco.txt",
    "MLE": "detection/texygen_coco_samples/mle.txt",
    "SeqGAN": "detection/texygen_coco_samples/seq.txt",
    "LeakGAN": "detection/texygen_coco_samples/leakgan.txt",
}
TABLES = {
    "Close to real text": {
        "sample": "sample",
        "held-out classifier AUC": "c2st_auc:.3f",
        "low": "c2st_auc_low:.3f",
        "high": "c2st_auc_high:.3f",
        "TF-IDF AUC": "tfidf_auc:.3f",
        "length+format AUC": "shortcut_auc:.3f",
        "Frechet": "frechet_distance:.3f",
        "floor": "frechet_floor:.3f",
        "MMD x1000": "mmd_1000:.2f",
        "MAUVE": "mauve:.3f",
    },
    "Quality and diversity": {
        "sample": "sample",
        "BLEU-2": "bleu_2:.3f",
        "BLEU-3": "bleu_3:.3f",
        "BLEU-4": "bleu_4:.3f",
        "BLEU-5": "bleu_5:.3f",
        "self-BLEU-2": "self_bleu_2:.3f",
        "self-BLEU-3": "self_bleu_3:.3f",
        "self-BLEU-4": "self_bleu_4:.3f",
        "self-BLEU-5": "self_bleu_5:.3f",
        "LM score": "lm_score:.3f",
        "reverse LM": "reverse_lm_score:.3f",
    },
    "Repetition, copying, length": {
        "sample": "sample",
        "distinct-1": "distinct_1:.3f",
        "distinct-2": "distinct_2:.3f",
        "distinct-4": "distinct_4:.3f",
        "duplicates": "duplicate_rate:.3f",
        "copied whole": "copy_rate:.3f",
        "mean span": "mean_longest_span:.2f",
        "longest span": "longest_span:d",
        "4-gram overlap": "overlap_4:.3f",
        "mean words": "length_predictions:.1f",
        "length KS": "length_ks:.3f",
    },
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/texygen_samples"), help="for the results")
    parser.add_argument("--size", type=int, default=2000, help="texts of each sample")
    parser.add_argument("--references", type=int, default=4000, help="real captions to compare with")
    parser.add_argument("--epochs", type=int, default=8, help="of the models that metrics train, at most")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def read_samples(size: int, references: int, seed: int) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """`size` texts of each source, `references` other real captions, and all real captions but the sample of them.

    All are in the tokens of the generators, separated by blanks.
    """
    generator = np.random.default_rng(seed)
    shuffled = {}
    for name, path in SOURCES.items():
        # Halves of a file differ in subject, so the order is made random before anything is taken.
        lines = read_lines(path)
        lines = [lines[n] for n in generator.permutation(len(lines))]
        tokenizer = "treebank" if name in ("real", "test_coco") else "whitespace"
        kept = lines if name == "real" else lines[:size]
        shuffled[name] = [" ".join(words) for words in tokenize(kept, tokenizer)]
    others = shuffled["real"][size:]
    return {name: texts[:size] for name, texts in shuffled.items()}, others[:references], others


def score(
    texts: list[str],
    references: list[str],
    training: list[str],
    model: WordModel,
    real_features: np.ndarray,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """Every metric of one sample; copies are looked for in the whole of `training`."""
    same = references[: len(texts)]
    words = tokenize(texts)
    metrics: dict[str, Any] = {}
    for name in ("self_bleu", "distinct_n", "duplicates"):
        metrics |= load(name).compute(predictions=texts)
    metrics |= load("copy_rate").compute(predictions=texts, references=training)
    metrics |= load("ngram_bleu").compute(predictions=texts, references=references)
    metrics |= load("surface").compute(predictions=texts, references=same, seed=seed)
    for name, options in (("c2st", {"epochs": epochs}), ("tfidf_test", {})):
        found = load(name).compute(predictions=texts, references=same, seed=seed, **options)
        metrics |= {f"{name.removesuffix('_test')}_{key}": value for key, value in found.items()}
    nll, tokens = model.nll(words)
    metrics["lm_score"] = float(nll.sum() / tokens.sum())
    metrics |= reverse_lm_score(words, tokenize(same), epochs=epochs, seed=seed)
    features = model.features(words)
    frechet = load("frechet_distance").compute(predictions=features, references=real_features, seed=seed)
    metrics |= {"frechet_distance": frechet["frechet_distance"], "frechet_floor": frechet["floor"]}
    found = load("mmd").compute(predictions=features, references=real_features, seed=seed)
    metrics |= {"mmd_1000": 1000 * found["mmd"], "mmd_floor_1000": 1000 * found["floor"]}
    metrics |= load("mauve").compute(
        predictions=features, references=real_features[: len(texts)], seeds=(25, 26), kmeans_num_redo=1
    )
    return metrics


def as_markdown(rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> str:
    """All tables, and how they came about."""
    parts = [f"## {title}\n\n{markdown_table(rows, columns)}" for title, columns in TABLES.items()]
    about = (
        f"{settings['size']} texts of each sample against {settings['references']} real captions (classifiers, "
        f"reverse LM and MAUVE: {settings['size']}), seed {settings['seed']}. Every reference counts for BLEU, with "
        "NLTK's method1. Features, LM score and reverse LM come from small language models over words, "
        f"the first two from one that learnt {settings['learnt']} other captions; both scores are in nats per token."
    )
    return "\n\n".join(["# Texygen's COCO captions", *parts, about]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    samples, references, training = read_samples(args.size, args.references, args.seed)
    settings = {"size": args.size, "references": len(references), "epochs": args.epochs, "seed": args.seed}
    # The model learns captions that are in neither sample nor references, whose features would be those of known text.
    words = tokenize(training[len(references) :])
    held_out = len(words) // 10
    if held_out < 2:
        raise SystemExit("no real captions are left for the language model: lower --size or --references.")
    settings["learnt"] = len(words)
    model = WordModel(WordVocabulary(tokenize(training)), seed=args.seed)
    fit = model.train(words[held_out:], words[:held_out], epochs=args.epochs, seed=args.seed)
    print(f"language model of real captions: {fit.loss:.3f} nats per token after epoch {fit.best_epoch}", flush=True)
    real_features = model.features(tokenize(references))
    rows: list[dict[str, Any]] = []
    for name, texts in samples.items():
        begin = time.process_time()
        metrics = score(texts, references, training, model, real_features, args.epochs, args.seed)
        rows.append({"sample": name, **metrics, "cpu_seconds": round(time.process_time() - begin, 1)})
        result = {"settings": settings, "rows": rows, "environment": describe_environment()}
        write_json(args.folder / "texygen_samples.json", result)
        print(f"{name}: {rows[-1]['cpu_seconds']} CPU-seconds", flush=True)
    page = as_markdown(rows, settings)
    write_text(args.folder / "texygen_samples.md", page)
    points = [Point(row["sample"], "as published", row["lm_score"], row["reverse_lm_score"]) for row in rows]
    plane = Plane("LM score", "reverse LM score", "lower", "lower")
    drawing = standalone_svg(draw_curves(points, plane, uid="texygen"))
    write_text(args.folder / "texygen_samples.svg", drawing)
    print(page)
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
