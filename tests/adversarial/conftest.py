"""A world small enough to add up every text of it: tokens 0 (end of text), 1 and 2, at most 3 of them."""

import itertools
from dataclasses import dataclass

import pytest
import torch


VOCAB, LENGTH = 3, 3


@dataclass
class World:
    """All texts, with exact distributions of the data (p) and of a generator with parameters (q)."""

    tokens: torch.Tensor  # (B, LENGTH), every text once
    mask: torch.Tensor  # (B, LENGTH)
    table: torch.Tensor  # q's logits of every prefix, the parameters
    data_table: torch.Tensor
    rows: torch.Tensor  # (B, LENGTH): which row of a table holds the logits at this position

    def logits(self, table: torch.Tensor | None = None) -> torch.Tensor:
        return (self.table if table is None else table)[self.rows]

    def logps(self, table: torch.Tensor | None = None) -> torch.Tensor:
        return self.logits(table).log_softmax(-1).gather(-1, self.tokens.unsqueeze(-1)).squeeze(-1)

    def text_logps(self, table: torch.Tensor | None = None) -> torch.Tensor:
        return (self.logps(table) * self.mask).sum(1)

    @property
    def p(self) -> torch.Tensor:
        return self.text_logps(self.data_table).exp()

    @property
    def q(self) -> torch.Tensor:
        return self.text_logps().exp()

    @property
    def scores(self) -> torch.Tensor:
        """The optimal discriminator's logit of every text."""
        return (self.text_logps(self.data_table) - self.text_logps()).detach()

    @property
    def prefix_scores(self) -> torch.Tensor:
        """The optimal discriminator's logit of every prefix."""
        return ((self.logps(self.data_table) - self.logps()) * self.mask).cumsum(1).detach()

    def expected(self, per_text: torch.Tensor) -> torch.Tensor:
        """Rewards or advantages such that the mean over all texts of this batch is the expectation under q."""
        weights = self.q.detach() * len(self.tokens)
        return per_text * (weights if per_text.dim() == 1 else weights.unsqueeze(1))

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, self.table)[0]


@pytest.fixture
def world() -> World:
    prefixes: dict[tuple[int, ...], int] = {}
    texts: dict[tuple[int, ...], None] = {}
    for samples in itertools.product(range(VOCAB), repeat=LENGTH):
        end = samples.index(0) + 1 if 0 in samples else LENGTH
        texts[samples[:end]] = None
    tokens = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    mask, rows = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for i, text in enumerate(texts):
        for t, token in enumerate(text):
            tokens[i, t], mask[i, t] = token, 1
            rows[i, t] = prefixes.setdefault(text[:t], len(prefixes))
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(len(prefixes), VOCAB, generator=generator, dtype=torch.float64).requires_grad_()
    data_table = 1.5 * torch.randn(len(prefixes), VOCAB, generator=generator, dtype=torch.float64)
    world = World(tokens, mask, table, data_table, rows)
    assert world.q.sum().item() == pytest.approx(1) and world.p.sum().item() == pytest.approx(1)
    return world
