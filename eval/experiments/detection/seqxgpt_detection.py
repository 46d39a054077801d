"""
How well the two-sample tests tell human text from that of five language models (SeqXGPT, https://arxiv.org/abs/2310.08903).

All texts are cut to the same number of words, since length alone separates the classes as published. They are put in
lower case and blanks are set between their tokens, since human texts differ in that too: `raw format AUC` is what a
classifier makes of length and format alone before that, `length+format AUC` after it. Of `continuation` only what comes
after the human prefix counts, and human texts are entered as far in as machine texts are.

    python -m eval.experiments.detection.seqxgpt_detection --output_dir runs/seqxgpt_detection
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import read_lines
from eval.experiments.common.reports import markdown_table, with_interval, write_page
from hf_gpt.evaluation import load
from hf_gpt.evaluation.text.tokenization import tokenize
from hf_gpt.files.atomic_files import write_json
from hf_gpt.reporting.environment import describe_environment


FILES = {"document": 80, "continuation": 30}


def read_texts(file: str, words: int, seed: int) -> dict[str, list[str]]:
    """The texts of each source, `words` words long, each from the start of a word; shorter ones are left out."""
    rows = [json.loads(line) for line in read_lines(f"detection/seqxgpt/{file}.jsonl.gz")]
    prefixes = [row["human_prefix_chars"] for row in rows if row["label"] and "human_prefix_chars" in row]
    generator = np.random.default_rng(seed)
    found: dict[str, list[str]] = {}
    for row in rows:
        start = 0
        if prefixes:
            start = row["human_prefix_chars"] if row["label"] else int(generator.choice(prefixes))
        inside = start > 0 and not any(map(str.isspace, row["text"][start - 1 : start + 1]))
        # Entered in the middle of a word, the text begins with the next one.
        kept = row["text"][start:].split()[1 if inside else 0 :]
        if len(kept) >= words:
            found.setdefault(row["generator"], []).append(" ".join(kept[:words]))
    return found


def normalised(texts: Sequence[str]) -> list[str]:
    """Lower case, a blank between any two tokens."""
    return [" ".join(tokens) for tokens in tokenize(map(str.lower, texts), "13a")]


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "seqxgpt_detection", seeds=None)
    parser.add_argument("--epochs", type=int, default=15, help="of the held-out classifier, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for file, words in FILES.items():
        raw = read_texts(file, words, args.seed)
        texts = {model: normalised(some) for model, some in raw.items()}
        human = texts.pop("human")
        # What the tests find between human texts and human ones, halves of them: measured as every other row.
        order = np.random.default_rng(args.seed).permutation(len(human))
        halves = [
            [some[position] for position in part] for some in (human, raw["human"]) for part in np.array_split(order, 2)
        ]
        pairs = {model: (human, generated, raw["human"], raw[model]) for model, generated in texts.items()}
        for model, (real, generated, raw_real, raw_generated) in {**pairs, "human": halves}.items():
            given = {"predictions": generated, "references": real, "seed": args.seed, "with_control": False}
            before = {"predictions": raw_generated, "references": raw_real, "seed": args.seed}
            rows.append(
                {
                    "file": file,
                    "model": model,
                    "texts": f"{len(real)}+{len(generated)}",
                    "words": words,
                    "held-out classifier AUC": with_interval(load("c2st").compute(**given, epochs=args.epochs)),
                    "TF-IDF AUC": with_interval(load("tfidf_test").compute(**given)),
                    "length+format AUC": f"{load('surface').compute(**given)['shortcut_auc']:.3f}",
                    "raw format AUC": f"{load('surface').compute(**before)['shortcut_auc']:.3f}",
                }
            )
            result = {"rows": rows, "environment": describe_environment()}
            write_json(args.output_dir / "seqxgpt_detection.json", result)
            print(rows[-1], flush=True)
    print(write_page(args.output_dir, "seqxgpt_detection", "# Human or machine (SeqXGPT)", markdown_table(rows)))
    return 0


if __name__ == "__main__":
    start(main)
