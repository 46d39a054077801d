"""
Does a discriminator lower held-out perplexity? A residual energy-based model (Deng et al. 2020, arXiv:2004.11714).

A small GPT q is trained by maximum likelihood until it is saturated: rates of 2e-3, 5e-4 and 1e-4 in a row, each until
the held-out loss rises. Discriminators learn to tell its samples from the same real texts. Each makes of q the model
p(x) = q(x) e^l(x) / Z, whose gain in likelihood on unseen texts is the metric; log Z has bounds from samples.
Beside it stands a wider language model, saturated too, which had more compute than q and any discriminator together.

- ngram_cnn: from scratch.
- own_trunk: begun as q, reading in both directions.
- encoder: `--encoder`, a pretrained model such as MiniLM (`make real-models`), with its own tokenizer.
- encoder_untrained: of the same shape with random weights, which shows what pretraining gives.

    python -m eval.experiments.residual coco news --encoder FOLDER --seeds 0 1 2 --output_dir runs/residual

Every measured point is kept in output_dir, and a run that was stopped goes on from there.
"""

import argparse
import math
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, set_seed

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import read_lines
from eval.experiments.common.reports import write_page
from eval.experiments.common.results import Results, kept_model
from eval.experiments.residual.plot import plot
from eval.experiments.residual.report import table
from hf_gpt import HfGptConfig, HfGptForCausalLM, make_discriminator, train_discriminator
from hf_gpt.data.collators import pad_rows
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.evaluation.language_model.fitting import fit
from hf_gpt.evaluation.language_model.residual import residual_gain
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.generation.scoring.discriminator import sequence_scores
from hf_gpt.generation.scoring.texts import TextDiscriminator


# 10,000 lines each. Unseen texts are of the same file: the second files of these corpora are of another style.
FILES = {"coco": "lm/coco_captions/image_coco.txt", "news": "lm/emnlp_news/train_10k.txt.gz"}
# The speeches of the built-in corpus, 7,148 different ones, which need no file.
BUILT_IN = "tinyshakespeare"
CORPORA = (*FILES, BUILT_IN)
DISCRIMINATORS = ("ngram_cnn", "own_trunk", "encoder", "encoder_untrained")
# Epochs at most, learning rate and texts in a step, chosen on seed 0 and validation texts.
TRAINING = {
    "ngram_cnn": (6, 1e-3, 64),
    "own_trunk": (3, 2e-4, 64),
    "encoder": (3, 1e-4, 32),
    "encoder_untrained": (3, 3e-4, 32),
}
RATES = (2e-3, 5e-4, 1e-4)
# At most 7,000 texts to learn from, and of a smaller corpus two thirds.
NUM_TRAINING, TRAINING_SHARE, NUM_VALIDATION = 7000, 2 / 3, 500
VOCABULARY, MAX_TOKENS, BATCH_SIZE = 3000, 64, 64


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, "residual", "of split, weights and samples")
    parser.add_argument("corpora", nargs="+", choices=sorted(CORPORA), metavar="CORPUS", help=", ".join(CORPORA))
    parser.add_argument("--encoder", type=Path, help="folder of a pretrained encoder, for the arms of that name")
    parser.add_argument("--discriminators", nargs="*", choices=DISCRIMINATORS, default=["ngram_cnn", "encoder"])
    parser.add_argument("--generator", type=int, nargs=2, default=[128, 2], metavar=("WIDTH", "LAYERS"), help="q")
    parser.add_argument("--wider", type=int, nargs=2, default=[192, 3], metavar=("WIDTH", "LAYERS"))
    parser.add_argument("--dropout", type=float, default=0.2, help="of q")
    parser.add_argument("--wider_dropout", type=float, default=0.3)
    parser.add_argument("--num_test", type=int, default=2500, help="unseen texts")
    parser.add_argument("--num_samples", type=int, default=16_000, help="texts that log Z is estimated by")
    options = parser.parse_args(argv)
    if options.encoder is None and any(name.startswith("encoder") for name in options.discriminators):
        parser.error("the encoder's arms need --encoder, the folder of a pretrained model (make real-models).")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    torch.set_num_threads(1)
    for corpus in options.corpora:
        for seed in options.seeds:
            Run(corpus, seed, options).measure()
            rows = [
                {"corpus": corpus, "seed": number, "name": name, **point}
                for number in options.seeds
                for key, point in Run(corpus, number, options).results.points.items()
                for name in [key.partition("/")[2]]
            ]
            plot(rows, options.output_dir / f"{corpus}.png")
            text = write_page(options.output_dir, corpus, f"## {corpus}", table(rows))
    print(text)
    return 0


def read_texts(corpus: str) -> list[str]:
    """All texts of a corpus."""
    if corpus != BUILT_IN:
        return read_lines(FILES[corpus])
    return list(read_corpus([BUILT_IN], document_separator="\n\n")["text"])


class Run:
    """One corpus and seed: q, the wider model, discriminators and their metrics.

    Args:
        corpus: A key of `CORPORA`.
        seed: Of split, weights and samples.
        options: Of the command.
    """

    def __init__(self, corpus: str, seed: int, options: argparse.Namespace):
        self.seed, self.options = seed, options
        self.folder = options.output_dir / f"{corpus}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        varying = ("corpora", "discriminators", "encoder")
        self.results = Results(self.folder / "results.json", vars(options), varying)
        # A line that occurs twice would be on both sides.
        lines = list(dict.fromkeys(read_texts(corpus)))
        order = np.random.default_rng(seed).permutation(len(lines))
        num_training = min(NUM_TRAINING, int(TRAINING_SHARE * len(lines)))
        parts = np.split(order, [num_training, num_training + NUM_VALIDATION])
        self.training, self.validation, unseen = ([lines[n] for n in part] for part in parts)
        self.test = unseen[: options.num_test]

    def measure(self) -> None:
        """Trains what is not there yet and measures each arm."""
        generator = self._language_model("q", *self.options.generator, self.options.dropout)
        for name in self.options.discriminators:
            self.results.point(self.seed, name, lambda name=name: self._residual(name, generator))
        self._language_model("wider q", *self.options.wider, self.options.wider_dropout)

    @cached_property
    def tokenizer(self) -> Any:
        return train_tokenizer(iter(self.training), VOCABULARY)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text after the begin token, with the end token unless it is cut."""
        end = self.tokenizer.eos_token_id
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [[end, *[*row, end][:MAX_TOKENS]] for row in rows]

    def _language_model(self, name: str, width: int, layers: int, dropout: float) -> PreTrainedModel:
        set_seed(self.seed)
        config = HfGptConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=MAX_TOKENS + 1,
            attention_dropout=dropout,
            hidden_dropout=dropout,
            bos_token_id=self.tokenizer.eos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        model = HfGptForCausalLM(config)
        found = kept_model(self.folder / f"{name.replace(' ', '_')}.pt", model, lambda: self._train(model))
        self.results.point(self.seed, name, lambda: self._likelihood(model, found))
        return model

    def _train(self, model: PreTrainedModel) -> dict[str, Any]:
        rows = self.encode([*self.training, *self.validation])
        lengths = [len(row) for row in rows]
        parts = np.split(np.arange(len(rows)), [len(self.training)])
        losses = []
        for rate in RATES:
            record = fit(
                model,
                lambda model, positions: self._loss(model, [rows[n] for n in positions]),
                lengths,
                *parts,
                epochs=40,
                batch_size=BATCH_SIZE,
                learning_rate=rate,
                weight_decay=0.1,
                seed=self.seed,
            )
            losses += record.losses
        return {"epochs": len(losses), "validation_loss": min(losses)}

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return pad_rows(rows, self.tokenizer.pad_token_id)

    def _loss(self, model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, float]:
        ids, mask = self._padded(rows)
        labels = ids.masked_fill(mask == 0, -100)
        return model(input_ids=ids, attention_mask=mask, labels=labels).loss, float(mask[:, 1:].sum())

    @torch.no_grad()
    def _likelihood(self, model: PreTrainedModel, trained: dict[str, Any]) -> dict[str, Any]:
        rows, nats, count = self.encode(self.test), 0.0, 0.0
        for first in range(0, len(rows), 256):
            loss, weight = self._loss(model, rows[first : first + 256])
            nats, count = nats + float(loss) * weight, count + weight
        return {
            "nats_per_text": nats / len(rows),
            "nats_per_token": nats / count,
            "words_per_text": np.mean([len(text.split()) for text in self.test]),
            "perplexity": math.exp(nats / sum(len(text.split()) for text in self.test)),
            "parameters": model.num_parameters(),
            "cpu_seconds": trained["cpu_seconds"],
            "epochs": trained["epochs"],
        }

    def _discriminator(self, name: str, generator: PreTrainedModel) -> PreTrainedModel:
        set_seed(self.seed)
        if name == "ngram_cnn":
            return make_discriminator(name, generator)
        if name == "own_trunk":
            return make_discriminator("from_generator", generator, is_causal=False)
        discriminator = make_discriminator(str(self.options.encoder), generator, processing_class=self.tokenizer)
        if name == "encoder":
            return discriminator
        config = AutoConfig.from_pretrained(self.options.encoder, num_labels=1)
        model = AutoModelForSequenceClassification.from_config(config)
        return TextDiscriminator(model, AutoTokenizer.from_pretrained(self.options.encoder), self.tokenizer)

    def _residual(self, name: str, generator: PreTrainedModel) -> dict[str, Any]:
        discriminator, began = self._discriminator(name, generator), time.process_time()
        epochs, rate, batch_size = TRAINING[name]
        result = train_discriminator(
            generator,
            discriminator,
            self.training,
            processing_class=self.tokenizer,
            max_new_tokens=MAX_TOKENS,
            epochs=epochs,
            learning_rate=rate,
            batch_size=batch_size,
            patience=1,
            seed=self.seed,
        )
        spent = time.process_time() - began
        real = sequence_scores(discriminator, *self._padded(self.encode(self.test)), 256)
        samples = self._samples(generator)
        generated = sequence_scores(discriminator, samples.sequences, samples.attention_mask, 256)
        found = residual_gain(real.double(), generated.double()[None])
        halves = [residual_gain(real.double(), part.double()[None]).gain for part in generated.chunk(2)]
        base = self.results.points[f"{self.seed}/q"]
        words = base["words_per_text"]
        return {
            **vars(found),
            "half_difference": abs(halves[0] - halves[1]),
            "auc": result.auc,
            "auc_low": result.auc_low,
            "auc_high": result.auc_high,
            "nats_per_text": base["nats_per_text"] - found.gain,
            "words_per_text": words,
            "perplexity": math.exp((base["nats_per_text"] - found.gain) / words),
            "perplexity_low": math.exp((base["nats_per_text"] - found.high) / words),
            "perplexity_high": math.exp((base["nats_per_text"] - found.low) / words),
            "parameters": discriminator.num_parameters(),
            "cpu_seconds": base["cpu_seconds"] + spent,
        }

    def _samples(self, generator: PreTrainedModel) -> Any:
        begin = torch.full((self.options.num_samples, 1), self.tokenizer.eos_token_id)
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        return rollout(
            generator,
            begin,
            sampling=SamplingConfig(max_new_tokens=MAX_TOKENS, eos_token_id=end, pad_token_id=pad),
            generator=torch.Generator().manual_seed(self.seed + 1000),
            batch_size=512,
        )


if __name__ == "__main__":
    start(main)
