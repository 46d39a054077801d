"""Speculative decoding of one text by its own model in int8: the same logits, weights read less often."""

import ctypes
import math
import time
from typing import TYPE_CHECKING

import torch

from hf_gpt.generation.decoding.native.decoder import NativeDecoder, NativeWeights
from hf_gpt.generation.decoding.native.structures import TYPES, Decoder, Draft, Layer, address


if TYPE_CHECKING:
    from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


# Draft tokens at a time, by type of the target weights. With more, a step takes longer than reading the weights.
MOST_DRAFTED = {TYPES["float32"]: 11, TYPES["bfloat16"]: 5}
# Share of a new measurement in a running mean.
_SHARE = 0.1
# Draft tokens of the first block, before anything is measured.
_FIRST = 4
# Steps without draft tokens until one is tried again.
_PATIENCE = 32


class SpeculativeDecoder(NativeDecoder):
    """`NativeDecoder` of one text with speculative decoding: same arguments and methods, same logits bit for bit.

    A step at one row takes as long as reading the weights. So the int8 weights, a quarter of float32, draft tokens one
    by one, and the target weights read all of them in one step (Leviathan et al. 2023; with rounded weights and a
    shared cache: QSpec, Zhao et al. 2024). The logits after an accepted token are known already. Drafting stops at a
    doubtful token, and altogether where it does not pay.

    Args:
        ids, mask: Of one text.
        weights: In float32 or bfloat16.
        draft_weights: Of the same model, in int8.
    """

    can_select = False

    def __init__(
        self,
        model: "HfGptForCausalLM",
        ids: torch.Tensor,
        mask: torch.Tensor,
        max_new_tokens: int,
        weights: NativeWeights,
        draft_weights: NativeWeights,
    ):
        self._most = MOST_DRAFTED[weights.type]
        super().__init__(model, ids, mask, max_new_tokens, weights)
        self._draft_weights, self._pace = draft_weights, Pace(self._most)
        self._point_draft_to_cache()
        self._logits = torch.empty(self._most + 1, self.decoder.vocab_size)
        # A token and the draft tokens after it, which are read together; the second likeliest tokens, and gaps to them.
        self._block = torch.zeros(self._most + 1, dtype=torch.int64)
        self._runners_up, self._gaps = torch.zeros_like(self._block), torch.zeros(self._most + 1)
        self._slots, self._positions = torch.zeros_like(self._block), torch.arange(self.limit)
        self._draft_tokens: list[int] = []
        self._chances: list[float] = []
        # Position of the block's first token in the text; index in the block of the token whose logits are next.
        self._begin, self._at = int(self.positions[0]), -1
        self._is_read = False
        self._request = Draft(*map(address, (self._block, self._runners_up, self._gaps)))

    def next_logits(self) -> torch.Tensor:
        """(1, V) float32 logits of the token that comes next. The next call may write over them."""
        if self._at < 0:
            return self._prefill()
        if not self._is_read:
            self._read()
        return self._logits[self._at : self._at + 1]

    def append(self, tokens: torch.Tensor) -> None:
        """Adds the sampled token (1,)."""
        token = int(tokens)
        is_right = False
        if 0 <= self._at < len(self._draft_tokens):
            is_right = self._draft_tokens[self._at] == token
            self._pace.judge(is_right, self._chances[self._at])
        self._at += 1
        if not is_right:
            self._begin += self._at
            self._block[0], self._at, self._is_read = token, 0, False

    def _read(self) -> None:
        """Drafts tokens after the block's first one, and reads the block."""
        pace, begin = self._pace, time.perf_counter()
        # A text's last token is sampled and never read.
        most = min(pace.most(), self.limit - 2 - self._begin)
        count = self._draft(most) if most > 0 else 0
        drafted, rows = time.perf_counter(), count + 1
        positions = self._positions[self._begin : self._begin + rows]
        self._step(self._block[:rows], self._slots, positions, self.every_row[:rows], self._logits, is_prompt=count > 0)
        pace.measure(count, drafted - begin, time.perf_counter() - drafted)
        self._draft_tokens, self._is_read = [], True
        if count:
            self._draft_tokens = self._block[1:rows].tolist()
            gaps = self._gaps[:count]
            pairs = torch.stack([self._block[1:rows], self._runners_up[:count]], -1)
            first, second = self._logits[:count].gather(-1, pairs).unbind(-1)
            self._chances = [_normal_cdf(gap / pace.error) for gap in gaps.tolist()]
            pace.learn(float((first - second - gaps).square().mean()))

    def _draft(self, most: int) -> int:
        """Writes draft tokens after the block's first one; returns their number."""
        step, draft, pace = self.step, self._request, self._pace
        step.slots, step.logits, step.positions, step.is_prompt = address(self._slots), address(self._logits), None, 0
        step.threads = torch.get_num_threads()
        draft.position, draft.most, draft.error = self._begin, most, pace.error
        draft.trust, draft.least = pace.trust, pace.least
        # The step that reads the block reports errors.
        return max(0, self.weights.native.draft(self._drafter, step, draft))

    def _make_room(self, rows: int) -> None:
        super()._make_room(max(rows, self._most + 1))

    def _point_draft_to_cache(self) -> None:
        # Draft tokens see exact keys and values; reading a draft token overwrites its own.
        self._drafter = Decoder.from_buffer_copy(self._draft_weights.decoder)
        self._drafter.heads, self._drafter.num_positions = self.decoder.heads, self.decoder.num_positions
        self._draft_layers = (Layer * len(self.layers)).from_buffer_copy(self._draft_weights.layers)
        self._drafter.layers = ctypes.cast(self._draft_layers, ctypes.POINTER(Layer))
        for mine, theirs in zip(self._draft_layers, self.layers, strict=True):
            mine.cache = theirs.cache


class Pace:
    """When drafting stops, by its measured cost and acceptance rate.

    One more draft token pays if its acceptance probability, in tokens, exceeds the tokens that its time would yield
    otherwise.

    Args:
        limit: Most draft tokens at a time.

    Attributes:
        error: Root mean square error of the gap between the two largest draft logits.
        trust: Accepted draft tokens, as a share of those expected from their gaps.
        least: Break-even acceptance probability, at which drafting stops.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.error, self.trust, self.least = 1e-9, 1.0, 0.0
        self._square = 0.0
        self._right = self._expected = 1.0
        self._judged = 0
        # Seconds of a step at one row, of a draft token, and of one more row in a step.
        self._plain = self._draft = self._row = 0.0
        # Running means over the last blocks.
        self._seconds = self._tokens = 0.0
        self._waited = 0

    def most(self) -> int:
        """How many tokens may be drafted now."""
        if not self._plain:
            return 0
        # The acceptance of the last block is known now. Without draft tokens a step gives one token.
        self.least = (self._draft + self._row) * max(self._tokens / self._seconds, 1 / self._plain)
        if self.trust > self.least:
            self._waited = 0
            return self.limit if self._draft else min(_FIRST, self.limit)
        self._waited += 1
        return int(self._waited % _PATIENCE == 0)

    def judge(self, is_right: bool, chance: float) -> None:
        """Counts a draft token of estimated acceptance probability `chance`, accepted (`is_right`) or not."""
        self._judged += 1
        share = max(_SHARE, 1 / (self._judged + 1))
        self._right += share * (is_right - self._right)
        self._expected += share * (chance - self._expected)
        self.trust = min(1.0, self._right / self._expected)
        self._tokens += is_right

    def learn(self, square: float) -> None:
        """Counts the mean square error of a block's gaps."""
        self._square = _mean(self._square, square)
        self.error = max(math.sqrt(self._square), 1e-9)

    def measure(self, count: int, drafting: float, reading: float) -> None:
        """Counts the seconds of a block with `count` draft tokens."""
        if not count:
            self._plain = _mean(self._plain, reading)
        else:
            self._draft = _mean(self._draft, drafting / count)
            self._row = _mean(self._row, max(0.0, reading - self._plain) / count)
        self._seconds = (1 - _SHARE) * self._seconds + drafting + reading
        self._tokens = (1 - _SHARE) * self._tokens + 1


def _mean(before: float, found: float) -> float:
    return before + _SHARE * (found - before) if before else found


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
