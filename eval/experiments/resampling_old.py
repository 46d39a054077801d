"""
Discriminator resampling against temperature on COCO captions: quality (LM score) at equal diversity (reverse-LM score).

A small GPT is trained by likelihood with early stopping. Its samples at several temperatures and top-p are the curve to
beat. A critic of the same captions (`density`: the log-ratio of a language model of them, 128 wide, to the generator,
as in the recipe `default`) then chooses among samples at temperature 1, by importance resampling, best of n, and
rejection, and among samples at lower temperatures. LM score: nats a word of the samples under a judge trained on real
captions that neither player has seen; reverse-LM score: nats a word of real captions under a model that learnt the
samples alone. Lower is better for both. Passed where resampling's LM score is at least 0.1 nats below that of
temperature at equal reverse-LM score (after Caccia et al. 2020, arXiv:1811.02549, whose rejection by a discriminator
reached 0.2 on EMNLP news).

    python -m hf_gpt.eval.experiments.resampling --seeds 0 1 2 --output_dir runs/resampling

Every measured point is kept in output_dir/results.json, and a run that was stopped goes on from there.
"""

import argparse
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


# Words and marks apart: some captions end with a full stop and some do not.
WORD = re.compile(r"[a-z0-9']+|[^a-z0-9'\s]")
MAX_WORDS = 40
PASS_LINE = 0.1
TEMPERATURES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7)
TOP_P = (0.95, 0.9, 0.8)
CANDIDATES = (2, 4, 8)
TEMPERED, TEMPERED_CANDIDATES = (0.9, 0.8), 4
CRITICS = ("density", "ngram_cnn", "generator")
DENSITY_SIZE = (128, 2)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/resampling"))
    parser.add_argument("--num_samples", type=int, default=5000, help="captions of each point")
    parser.add_argument("--num_real", type=int, help="captions used of each of the two files; left out: all")
    parser.add_argument("--critics", nargs="+", choices=CRITICS, default=list(CRITICS))
    parser.add_argument("--hidden_size", type=int, default=128, help="of the generator")
    parser.add_argument("--num_hidden_layers", type=int, default=4, help="of the generator")
    parser.add_argument("--epochs", type=int, default=30, help="of each training, at most; early stopping ends it")
    parser.add_argument("--device", default="cpu", help="where generator and critic run")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    results = Results(options.output_dir / "results.json", _settings(options))
    for seed in options.seeds:
        Seed(seed, options, results).run()
    summary = summarise(results.points, options.seeds)
    report = options.output_dir / "results.md"
    report.write_text(_markdown(summary, options), encoding="utf-8")
    _plot(results.points, options.output_dir / "results.png")
    print(report.read_text(encoding="utf-8"))
    return 0


class Results:
    """The measured points, on disk after each one.

    Raises:
        SystemExit: the file holds points of other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path = path
        self.points: dict[str, dict[str, Any]] = {}
        self.settings = settings
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["settings"] != settings:
                raise SystemExit(f"error: {path} holds results of other settings. Choose another --output_dir.")
            self.points = saved["points"]

    def point(self, seed: int, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The point of that name, measured unless it is there already."""
        key = f"{seed}/{name}"
        if key not in self.points:
            began = time.perf_counter()
            self.points[key] = {**measure(), "seconds": round(time.perf_counter() - began, 1)}
            written = {"settings": self.settings, "points": self.points}
            temporary = self.path.with_suffix(".incomplete")
            temporary.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
            os.replace(temporary, self.path)
            print(f"seed {seed}  {name:32} {json.dumps(self.points[key])}", flush=True)
        return self.points[key]


class Seed:
    """One generator, its critics and all points of one seed."""

    def __init__(self, seed: int, options: argparse.Namespace, results: Results):
        from hf_gpt.eval.experiments.data import read_lines

        self.seed, self.options, self.results = seed, options, results
        split, unseen = (
            [WORD.findall(line.lower()) for line in read_lines(f"lm/coco_captions/{name}.txt", options.num_real)]
            for name in ("image_coco", "test_coco")
        )
        order = np.random.default_rng(seed).permutation(len(split))
        tenth = len(split) // 10
        self.validation, self.training = ([split[n] for n in part] for part in np.split(order, [tenth]))
        # The judge of quality and the texts that diversity is measured on have none in common.
        self.judge_texts, self.reverse_texts = unseen[::2], unseen[1::2]
        self.folder = options.output_dir / f"seed-{seed}"
        self.folder.mkdir(exist_ok=True)

    def run(self) -> None:
        """Measures what is not measured yet."""
        self._train_generator()
        self.judge = self._train_judge()
        self._point("real", lambda: self.training[: self.options.num_samples])
        for temperature in TEMPERATURES:
            self._point(f"temperature {temperature:g}", lambda t=temperature: self._words(self._sample(temperature=t)))
        for top_p in TOP_P:
            self._point(f"top_p {top_p:g}", lambda p=top_p: self._words(self._sample(top_p=p)))
        number = self.options.num_samples
        pool = self._cached("pool.pt", lambda: self._sample(number=number * max(CANDIDATES)))
        tempered = {
            temperature: self._cached(
                f"pool-{temperature:g}.pt",
                lambda t=temperature: self._sample(number=number * TEMPERED_CANDIDATES, temperature=t),
            )
            for temperature in TEMPERED
        }
        for kind in self.options.critics:
            found = self._cached(f"scores-{kind}.pt", lambda k=kind: self._critic_scores(k, [pool, *tempered.values()]))
            for (temperature, texts), scores in zip({1.0: pool, **tempered}.items(), found, strict=True):
                ways = CANDIDATES if temperature == 1 else (TEMPERED_CANDIDATES,)
                for name, chosen in choices(scores, number, self.seed, ways).items():
                    if temperature != 1 and not name.startswith(("resample", "best")):
                        continue
                    label = f"{kind} {name}" if temperature == 1 else f"{kind} T={temperature:g} {name}"
                    self._point(label, lambda rows=chosen, texts=texts: self._words([texts[n] for n in rows.tolist()]))

    def _train_generator(self) -> None:
        from hf_gpt.eval.language_model.word_model import WordModel
        from hf_gpt.eval.vocabulary import WordVocabulary

        size = {"hidden_size": self.options.hidden_size, "num_hidden_layers": self.options.num_hidden_layers}
        vocabulary = WordVocabulary(self.training + self.validation)
        self.generator = WordModel(vocabulary, MAX_WORDS, dropout=0.1, seed=self.seed, **size)
        # Whole words by their numbers: the special ones never occur within a text.
        self.spelling = {number: word for word, number in vocabulary.numbers.items()}
        file = self.folder / "generator.pt"
        if file.exists():
            self.generator.model.load_state_dict(torch.load(file))
        else:

            def train() -> dict[str, Any]:
                record = self.generator.train(
                    self.training, self.validation, epochs=self.options.epochs, patience=2, seed=self.seed
                )
                return {"validation_loss": round(record.loss, 4), "epochs": record.best_epoch}

            self.results.points.pop(f"{self.seed}/generator", None)
            self.results.point(self.seed, "generator", train)
            _save(self.generator.model.state_dict(), file)
        self.generator.model.to(self.options.device).eval()

    def _train_judge(self) -> Any:
        from hf_gpt.eval.language_model.word_model import WordModel
        from hf_gpt.eval.vocabulary import WordVocabulary

        judge = WordModel(WordVocabulary(self.judge_texts), MAX_WORDS, seed=self.seed + 1000)
        file = self.folder / "judge.pt"
        if file.exists():
            judge.model.load_state_dict(torch.load(file))
        else:
            cut = len(self.judge_texts) // 10
            judge.train(self.judge_texts[cut:], self.judge_texts[:cut], epochs=self.options.epochs, seed=self.seed)
            _save(judge.model.state_dict(), file)
        return judge

    def _sample(self, number: int | None = None, temperature: float = 1.0, top_p: float = 1.0) -> list[list[int]]:
        from hf_gpt.eval.vocabulary import BOS, EOS, PAD
        from hf_gpt.generation.rollout import rollout

        drawn = rollout(
            self.generator.model,
            num_samples=number or self.options.num_samples,
            max_new_tokens=MAX_WORDS + 1,
            temperature=temperature,
            top_p=top_p,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
            generator=torch.Generator().manual_seed(self.seed + 7),
            batch_size=500,
        )
        rows = zip(drawn.completions.cpu(), drawn.completion_mask.bool().cpu(), strict=True)
        return [ids[kept].tolist() for ids, kept in rows]

    def _density_scores(self, pools: Sequence[list[list[int]]]) -> list[torch.Tensor]:
        """log psi - log q of each text, psi trained on what the generator was trained on."""
        from hf_gpt.eval.language_model.word_model import WordModel

        vocabulary = self.generator.vocabulary
        density = WordModel(vocabulary, MAX_WORDS, *DENSITY_SIZE, seed=self.seed + 500)

        def train() -> dict[str, Any]:
            settings = {"epochs": self.options.epochs, "patience": 2, "seed": self.seed}
            record = density.train(self.training, self.validation, **settings)
            return {"validation_loss": round(record.loss, 4), "epochs": record.best_epoch}

        self.results.points.pop(f"{self.seed}/critic density", None)
        self.results.point(self.seed, "critic density", train)
        texts = [self._words(pool) for pool in pools]
        return [torch.from_numpy(self.generator.nll(words)[0] - density.nll(words)[0]).float() for words in texts]

    def _critic_scores(self, kind: str, pools: Sequence[list[list[int]]]) -> list[torch.Tensor]:
        if kind == "density":
            return self._density_scores(pools)
        from hf_gpt.eval.vocabulary import BOS, PAD
        from hf_gpt.generation.scoring import sequence_scores
        from hf_gpt.training.critic import make_critic, train_critic

        encoded = self.generator.vocabulary.encode(self.training + self.validation, MAX_WORDS)
        rows = [{"prompt_ids": [BOS], "completion_ids": row[1:].tolist()} for row in encoded]
        torch.manual_seed(self.seed)
        critic = make_critic(kind, self.generator.model)

        def train() -> dict[str, Any]:
            settings = {"max_new_tokens": MAX_WORDS + 1, "epochs": self.options.epochs, "seed": self.seed}
            return train_critic(self.generator.model, critic, rows, **settings).to_dict()

        self.results.points.pop(f"{self.seed}/critic {kind}", None)
        self.results.point(self.seed, f"critic {kind}", train)
        found = []
        for pool in pools:
            lengths = torch.tensor([len(row) + 1 for row in pool])
            ids = torch.full((len(pool), int(lengths.max())), PAD)
            for place, row in enumerate(pool):
                ids[place, : len(row) + 1] = torch.tensor([BOS, *row])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
            found.append(sequence_scores(critic, ids, mask, batch_size=500))
        return found

    def _words(self, rows: list[list[int]]) -> list[list[str]]:
        return [[self.spelling[token] for token in row if token in self.spelling] for row in rows]

    def _point(self, name: str, texts: Callable[[], list[list[str]]]) -> None:
        from hf_gpt.eval.language_model.word_model import reverse_lm_score

        def measure() -> dict[str, Any]:
            generated = texts()
            nll, tokens = self.judge.nll(generated)
            reverse = reverse_lm_score(
                generated, self.reverse_texts, seed=self.seed, max_length=MAX_WORDS, epochs=self.options.epochs
            )
            distinct = len({tuple(text) for text in generated}) / len(generated)
            return {
                "lm_score": round(float(nll.sum() / tokens.sum()), 4),
                "reverse_lm_score": round(reverse["reverse_lm_score"], 4),
                "distinct_share": round(distinct, 4),
                "mean_length": round(statistics.fmean(map(len, generated)), 2),
                "texts": len(generated),
            }

        self.results.point(self.seed, name, measure)

    def _cached(self, name: str, make: Callable[[], Any]) -> Any:
        file = self.folder / name
        if not file.exists():
            _save(make(), file)
        return torch.load(file)


def choices(scores: torch.Tensor, number: int, seed: int, ways: Sequence[int] = CANDIDATES) -> dict[str, torch.Tensor]:
    """Ways to choose `number` rows of a pool by their scores: name to row numbers.

    Args:
        scores: Shape `(pool,)`, logits of candidates drawn independently.
        number: Rows wanted; the pool has at least `number` times the largest of `ways`.
        seed: Of the draws.
        ways: Candidates for each row.
    """
    from hf_gpt.generation.resampling import acceptance_probabilities, best_of, resample

    draws = torch.Generator().manual_seed(seed)
    chosen = {}
    for candidates in ways:
        groups = scores[: number * candidates].view(number, candidates)
        starts = torch.arange(number) * candidates
        for temperature in (1.0, 0.5):
            picked = resample(groups, temperature=temperature, generator=draws)[:, 0]
            chosen[f"resample n={candidates} tau={temperature:g}"] = starts + picked
        chosen[f"best of {candidates}"] = starts + best_of(groups)
        # Rejection at a threshold that keeps one in n, and discriminator rejection sampling shifted to keep as many.
        chosen[f"threshold 1/{candidates}"] = scores[: number * candidates].topk(number).indices
        shift = _shift_for(scores, 1 / candidates)
        kept = torch.rand(len(scores), generator=draws) < acceptance_probabilities(scores, scores.max(), shift, 1e-8)
        accepted = kept.nonzero()[:number, 0]
        # Fewer than wanted would make the reverse-LM score incomparable.
        if len(accepted) == number:
            chosen[f"rejection 1/{candidates}"] = accepted
    return chosen


def _shift_for(scores: torch.Tensor, rate: float) -> float:
    """The gamma at which discriminator rejection sampling accepts this share, by bisection."""
    from hf_gpt.generation.resampling import acceptance_probabilities

    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        share = acceptance_probabilities(scores, scores.max(), middle, 1e-8).mean().item()
        # Just above the share that is wanted, so that the pool does not run out.
        low, high = (middle, high) if share > 1.02 * rate else (low, middle)
    return low


def envelope(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (reverse-LM, LM) that no other beats in both, by rising reverse-LM score."""
    kept: list[tuple[float, float]] = []
    for reverse, quality in sorted(points):
        if not kept or quality < kept[-1][1]:
            kept.append((reverse, quality))
    return kept


def gain_at(point: tuple[float, float], curve: Sequence[tuple[float, float]]) -> float | None:
    """How far below a curve the LM score of a point lies, in nats, at its reverse-LM score.

    None beyond the curve's worst diversity. At a better diversity than any of the curve's it is held against the
    curve's most diverse point, which flatters the curve.
    """
    reverse, quality = point
    curve = sorted(curve)
    if reverse > curve[-1][0]:
        return None
    return float(np.interp(reverse, *zip(*curve, strict=True))) - quality


def summarise(points: dict[str, dict[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For each way of choosing its mean scores over the seeds and its gain over both samplers' curves."""
    rows = []
    names = list(dict.fromkeys(key.split("/", 1)[1] for key, point in points.items() if "lm_score" in point))
    for name in names:
        found = [points[f"{seed}/{name}"] for seed in seeds if f"{seed}/{name}" in points]
        row = {key: statistics.fmean(point[key] for point in found) for key in ("lm_score", "reverse_lm_score")}
        row |= {
            "name": name,
            "seeds": len(found),
            "distinct_share": statistics.fmean(p["distinct_share"] for p in found),
        }
        for curve, prefixes in (("temperature", ("temperature ",)), ("samplers", ("temperature ", "top_p "))):
            gains = []
            for seed in seeds:
                line = [
                    _place(p) for key, p in points.items() if key.startswith(tuple(f"{seed}/{x}" for x in prefixes))
                ]
                place = points.get(f"{seed}/{name}")
                gains.append(None if place is None else gain_at(_place(place), envelope(line)))
            row[f"gain_{curve}"] = gains
        rows.append(row)
    return rows


def _place(point: dict[str, Any]) -> tuple[float, float]:
    return point["reverse_lm_score"], point["lm_score"]


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("num_samples", "num_real", "hidden_size", "num_hidden_layers", "epochs")
    return {name: getattr(options, name) for name in names}


def _save(value: Any, file: Path) -> None:
    temporary = file.with_suffix(".incomplete")
    torch.save(value, temporary)
    os.replace(temporary, file)


def _is_choice(row: dict[str, Any]) -> bool:
    return not row["name"].startswith(("temperature", "top_p", "real"))


def _spread(gains: Sequence[float | None]) -> str:
    found = [gain for gain in gains if gain is not None]
    if not found:
        return "beyond"
    return f"{statistics.fmean(found):+.3f} ({min(found):+.3f} to {max(found):+.3f}, {len(found)} seeds)"


def _markdown(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    lines = [
        "# Discriminator resampling against temperature, COCO captions",
        "",
        f"{options.num_samples} captions a point, seeds {', '.join(map(str, options.seeds))}. LM score and reverse-LM "
        "score in nats a word, lower is better. Gain: how far the LM score lies below the curve at equal reverse-LM "
        "score; the second curve is the better of temperature and top-p.",
        "",
        "| texts | LM score | reverse-LM score | distinct | gain over temperature | gain over temperature and top-p |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        gains = [_spread(row[f"gain_{curve}"]) if _is_choice(row) else "" for curve in ("temperature", "samplers")]
        figures = f"{row['lm_score']:.3f} | {row['reverse_lm_score']:.3f} | {row['distinct_share']:.1%}"
        lines.append(f"| {row['name']} | {figures} | {gains[0]} | {gains[1]} |")
    passed = [row for row in rows if _is_choice(row) and _passes(row["gain_temperature"], len(options.seeds))]
    verdict = f"passed by {', '.join(row['name'] for row in passed)}" if passed else "not reached"
    lines += ["", f"Pass line, at least {PASS_LINE} nats below temperature in every seed: {verdict}.", ""]
    return "\n".join(lines)


def _passes(gains: Sequence[float | None], number: int) -> bool:
    found = [gain for gain in gains if gain is not None]
    return len(found) == number and min(found) >= PASS_LINE


def _plot(points: dict[str, dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5))
    families: dict[str, list[tuple[float, float]]] = {}
    for key, point in points.items():
        if "lm_score" in point:
            name = key.split("/", 1)[1]
            words = name.split()
            family = words[0] if not name.startswith(CRITICS) else " ".join(words[:2])
            families.setdefault(family, []).append(_place(point))
    for family, places in families.items():
        style = "o-" if family in ("temperature", "top_p") and len(places) > 1 else "x"
        axes.plot(*zip(*sorted(places), strict=True), style, label=family, markersize=5, linewidth=1)
    axes.set_xlabel("reverse-LM score, nats a word (lower: more diverse)")
    axes.set_ylabel("LM score, nats a word (lower: better)")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
