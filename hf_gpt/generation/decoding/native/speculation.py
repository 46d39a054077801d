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


# Guesses at a time, by type of the weights proper: with more, a step is no longer a matter of reading the weights.
MOST_DRAFTED = {TYPES["float32"]: 11, TYPES["bfloat16"]: 5}
# What a new measurement counts in a running mean.
_SHARE = 0.1
# Guesses of the first block, when nothing is known of them.
_FIRST = 4
# Steps without guesses after which one is tried again.
_PATIENCE = 32


class SpeculativeDecoder(NativeDecoder):
    """`NativeDecoder` of one text that guesses ahead; arguments and methods as there, and the same logits bit for bit.

    A step at one row takes as long as reading the weights. So the weights in int8, a quarter of float32, guess tokens
    one after the other, and the weights proper read all of them in one step (speculative decoding, Leviathan et al.
    2023; by the model's own rounded weights and in its own cache: QSpec, Zhao et al. 2024). Where a drawn token is the
    guessed one, its logits are there already. Guessing ends at a doubtful token, and altogether where it does not pay.

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
        # A token and the guesses behind it, which are read together, and those that were likeliest but for the guesses.
        self._block = torch.zeros(self._most + 1, dtype=torch.int64)
        self._runners_up, self._gaps = torch.zeros_like(self._block), torch.zeros(self._most + 1)
        self._slots, self._positions = torch.zeros_like(self._block), torch.arange(self.limit)
        self._draft_tokens: list[int] = []
        self._chances: list[float] = []
        # Position of the block's first token, and the place of the one whose logits are next.
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
        """Adds the drawn token (1,)."""
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
        """Guesses what follows the block's first token, and reads all of it."""
        pace, begin = self._pace, time.perf_counter()
        # A text's last token is drawn and never read.
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
        """Puts guesses behind the block's first token; their number."""
        step, draft, pace = self.step, self._request, self._pace
        step.slots, step.logits, step.positions, step.is_prompt = address(self._slots), address(self._logits), None, 0
        step.threads = torch.get_num_threads()
        draft.position, draft.most, draft.error = self._begin, most, pace.error
        draft.trust, draft.least = pace.trust, pace.least
        # What is wrong with a step, the one that reads the block will say.
        return max(0, self.weights.native.draft(self._drafter, step, draft))

    def _make_room(self, rows: int) -> None:
        super()._make_room(max(rows, self._most + 1))

    def _point_draft_to_cache(self) -> None:
        # Guesses see exact keys and values of all that has been read; their own are written over when they are read.
        self._drafter = Decoder.from_buffer_copy(self._draft_weights.decoder)
        self._drafter.heads, self._drafter.num_positions = self.decoder.heads, self.decoder.num_positions
        self._draft_layers = (Layer * len(self.layers)).from_buffer_copy(self._draft_weights.layers)
        self._drafter.layers = ctypes.cast(self._draft_layers, ctypes.POINTER(Layer))
        for mine, theirs in zip(self._draft_layers, self.layers, strict=True):
            mine.cache = theirs.cache


class Pace:
    """How sure guesses have to be, by what they have cost and how many came true.

    One more guess pays if the chance that it and those before it come true, in tokens, is more than the tokens that
    its time would have given otherwise.

    Args:
        limit: Guesses at a time, at most.

    Attributes:
        error: Of a gap between the two likeliest logits, root mean square.
        trust: Guesses that came true, as a share of those that should have by their gaps.
        least: Chance at which guessing ends.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.error, self.trust, self.least = 1e-9, 1.0, 0.0
        self._square = 0.0
        self._right = self._expected = 1.0
        self._judged = 0
        # Seconds of a step at one row, of a guess, and of one more row of a step.
        self._plain = self._draft = self._row = 0.0
        # Of the last blocks, in running means.
        self._seconds = self._tokens = 0.0
        self._waited = 0

    def most(self) -> int:
        """How many tokens may be guessed."""
        if not self._plain:
            return 0
        # Now that it is known which guesses of the last block came true. Without any a step gives one token.
        self.least = (self._draft + self._row) * max(self._tokens / self._seconds, 1 / self._plain)
        if self.trust > self.least:
            self._waited = 0
            return self.limit if self._draft else min(_FIRST, self.limit)
        self._waited += 1
        return int(self._waited % _PATIENCE == 0)

    def judge(self, is_right: bool, chance: float) -> None:
        """A guess of that chance came true or not."""
        self._judged += 1
        share = max(_SHARE, 1 / (self._judged + 1))
        self._right += share * (is_right - self._right)
        self._expected += share * (chance - self._expected)
        self.trust = min(1.0, self._right / self._expected)
        self._tokens += is_right

    def learn(self, square: float) -> None:
        """The mean square error of a block's gaps."""
        self._square = _mean(self._square, square)
        self.error = max(math.sqrt(self._square), 1e-9)

    def measure(self, count: int, drafting: float, reading: float) -> None:
        """Seconds of a block with that many guesses."""
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
