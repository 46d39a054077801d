"""The stage of the arena: rows of captions, a teacher that learned them, and the samples that students get."""

import random
import re
from collections import Counter

import numpy as np
import torch
from transformers import PreTrainedModel

from eval.experiments.common.data import read_lines
from eval.experiments.known_answer.perfect_ratio import likelihood
from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.evaluation.language_model.fitting import fit, seeded
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring import log_ratio


# Begins every row, and stands nowhere else; ends a caption.
BEGIN, END = 0, 1
FILES = ("lm/coco_captions/image_coco.txt", "lm/coco_captions/test_coco.txt")


def caption_rows(vocab_size: int, length: int) -> torch.Tensor:
    """Rows of a stream of captions, each row from the start of a caption.

    Lower-case words without punctuation; captions with a word outside the vocabulary are left out. After its caption
    and `END` a row goes on with the next caption, so that all rows have the same number of tokens and no model can gain
    by its lengths. (N, length) int64, of the `vocab_size` most frequent words, `BEGIN` and `END` included.
    """
    captions = [re.findall(r"[a-z']+", line.lower()) for name in FILES for line in read_lines(name)]
    counts = Counter(word for caption in captions for word in caption)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    words = ["<s>", "</s>", *ranked][:vocab_size]
    ids = {word: position for position, word in enumerate(words) if position > END}
    known = [caption for caption in captions if caption and all(word in ids for word in caption)]
    encoded = [[ids[word] for word in caption] + [END] for caption in known]
    random.Random(0).shuffle(encoded)
    stream = np.array([token for caption in encoded for token in caption])
    starts = np.cumsum([0] + [len(caption) for caption in encoded[:-1]])
    starts = starts[starts + length <= len(stream)]
    return torch.from_numpy(stream[starts[:, None] + np.arange(length)])


def as_texts(rows: torch.Tensor) -> Rollout:
    """Rows (N, length) as texts after `BEGIN`."""
    sequences = torch.cat([torch.full_like(rows[:, :1], BEGIN), rows], 1)
    return log_ratio.as_texts(sequences, torch.ones_like(sequences), prompt_length=1)


def make_model(
    vocab_size: int, length: int, hidden_size: int, num_hidden_layers: int, dropout: float = 0.0, seed: int = 0
) -> HfGptForCausalLM:
    """An untrained GPT."""
    with seeded(seed):
        return HfGptForCausalLM(
            HfGptConfig(
                vocab_size=vocab_size,
                hidden_size=hidden_size,
                num_hidden_layers=num_hidden_layers,
                num_attention_heads=2,
                max_position_embeddings=length + 1,
                hidden_dropout=dropout,
                initializer_range=hidden_size**-0.5 / 2,
                bos_token_id=BEGIN,
                eos_token_id=BEGIN,
                pad_token_id=BEGIN,
            )
        )


def train_teacher(
    rows: torch.Tensor, vocab_size: int, size: tuple[int, int], epochs: int, learning_rate: float
) -> HfGptForCausalLM:
    """A GPT that learned rows of captions, stopped where held-out rows are likeliest."""
    model = make_model(vocab_size, rows.shape[1], *size, dropout=0.1)

    def loss(model: PreTrainedModel, positions: np.ndarray) -> tuple[torch.Tensor, float]:
        return likelihood(model, as_texts(rows[torch.from_numpy(positions)])), len(positions)

    # The rows are in random order.
    held_out = min(500, max(2, len(rows) // 10))
    positions = np.arange(len(rows))
    fit(
        model,
        loss,
        np.full(len(rows), rows.shape[1]),
        positions[held_out:],
        positions[:held_out],
        epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=0.05,
        patience=1,
    )
    return model.requires_grad_(False)
