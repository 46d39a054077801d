"""
What the GANs of Texygen really did: their published COCO captions, scored by every metric beside real captions.

Real captions are compared with other real captions, as many as of each generator: that row is what a perfect generator
would have. `test_coco.txt`, the customary reference set, is a row of its own, since it is about other subjects than the
captions that the generators learnt.

    python -m eval.experiments.detection.texygen_samples --output_dir runs/texygen_samples
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import read_lines
from eval.experiments.common.reports import markdown_table, with_interval, write_page
from hf_gpt.evaluation import load
from hf_gpt.evaluation.language_model.word_model import WordModel, reverse_lm_score
from hf_gpt.evaluation.text.tokenization import tokenize
from hf_gpt.evaluation.text.vocabulary import WordVocabulary
from hf_gpt.files.atomic_files import write_json
from hf_gpt.reporting.environment import describe_environment


SOURCES = {
    "real": "lm/coco_captions/image_coco.txt",
    "test_coco": "lm/coco_captions/test_coco.txt",
    "MLE": "detection/texygen_coco_samples/mle.txt",
    "SeqGAN": "detection/texygen_coco_samples/seq.txt",
    "LeakGAN": "detection/texygen_coco_samples/leakgan.txt",
}
# Headings of the table, and the metric of each with its format.
COLUMNS = {
    "sample": "sample",
    "C2ST AUC (95 %)": "c2st",
    "TF-IDF AUC": "tfidf_auc:.3f",
    "Frechet": "frechet_distance:.2f",
    "MAUVE": "mauve:.3f",
    "BLEU-5": "bleu_5:.3f",
    "self-BLEU-5": "self_bleu_5:.3f",
    "LM score": "lm_score:.2f",
    "reverse LM": "reverse_lm_score:.2f",
    "duplicates": "duplicate_rate:.3f",
}


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
    texts: list[str], references: list[str], model: WordModel, real_features: np.ndarray, epochs: int, seed: int
) -> dict[str, Any]:
    """Every metric of one sample."""
    same = references[: len(texts)]
    words, pair = tokenize(texts), {"predictions": texts, "references": same, "seed": seed}
    metrics: dict[str, Any] = {"c2st": with_interval(load("c2st").compute(**pair, epochs=epochs))}
    metrics["tfidf_auc"] = load("tfidf_test").compute(**pair)["auc"]
    features = model.features(words)
    metrics |= load("frechet_distance").compute(predictions=features, references=real_features, seed=seed)
    metrics |= load("mauve").compute(
        predictions=features, references=real_features[: len(texts)], seeds=(25, 26), kmeans_num_redo=1
    )
    metrics |= load("ngram_bleu").compute(predictions=texts, references=references)
    for name in ("self_bleu", "duplicates"):
        metrics |= load(name).compute(predictions=texts)
    nll, tokens = model.nll(words)
    metrics["lm_score"] = float(nll.sum() / tokens.sum())
    return metrics | reverse_lm_score(words, tokenize(same), epochs=epochs, seed=seed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "texygen_samples", seeds=None)
    parser.add_argument("--size", type=int, default=2000, help="texts of each sample")
    parser.add_argument("--references", type=int, default=4000, help="real captions to compare with")
    parser.add_argument("--epochs", type=int, default=8, help="of the models that metrics train, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    samples, references, training = read_samples(args.size, args.references, args.seed)
    # The model learns captions that are in neither sample nor references, whose features would be those of known text.
    words = tokenize(training[len(references) :])
    held_out = len(words) // 10
    if held_out < 2:
        raise SystemExit("no real captions are left for the language model: lower --size or --references.")
    model = WordModel(WordVocabulary(tokenize(training)), seed=args.seed)
    model.train(words[held_out:], words[:held_out], epochs=args.epochs, seed=args.seed)
    real_features = model.features(tokenize(references))
    rows: list[dict[str, Any]] = []
    for name, texts in samples.items():
        rows.append({"sample": name, **score(texts, references, model, real_features, args.epochs, args.seed)})
        print(rows[-1], flush=True)
        result = {"rows": rows, "environment": describe_environment()}
        write_json(args.output_dir / "texygen_samples.json", result)
    about = (
        f"{args.size} texts of each sample against {len(references)} real captions (classifiers, reverse LM and MAUVE: "
        f"{args.size}), seed {args.seed}. Features and LM score come from a small language model of {len(words)} other "
        "captions; both LM scores are in nats per token."
    )
    title = "# Texygen's COCO captions"
    print(write_page(args.output_dir, "texygen_samples", title, markdown_table(rows, COLUMNS), about))
    return 0


if __name__ == "__main__":
    start(main)
