"""Log-likelihood of continuations, and the likeliest of several choices.

Contexts and continuations are cut into tokens, and counts of characters normalised, as the LM evaluation harness does
(https://github.com/EleutherAI/lm-evaluation-harness), so that accuracies agree with its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.errors import UserError
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.generation.scoring.logprobs import completion_logits, token_logps


@dataclass(frozen=True)
class Continuation:
    """What a model says of a continuation.

    Attributes:
        logp: Sum of the log-probabilities of its tokens, in nats.
        tokens: How many.
        greedy: Whether each of its tokens is the likeliest.
    """

    logp: float
    tokens: int
    greedy: bool


@torch.no_grad()
def score_continuations(
    candidate: Candidate,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = 16,
    max_length: int | None = None,
    advance: Callable[[int], object] = lambda rows: None,
) -> list[Continuation]:
    """What a language model says of each continuation after its context.

    A text starts with the begin token. Contexts that are too long lose their first tokens.

    Args:
        candidate: A causal language model or an encoder-decoder, whose encoder reads the context.
        pairs: Context, which may be empty, and continuation.
        batch_size: Pairs read at a time.
        max_length: Most tokens read. None: the model's limit.
        advance: Called with the number of rows done.

    Raises:
        UserError: the model writes nothing, or a continuation is empty or longer than the model reads.
    """
    candidate.check_writes()
    rows = encode_pairs(candidate, pairs, max_length)
    found: list[Continuation | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda n: -len(rows[n][0]) - len(rows[n][1]))
    device = candidate.model.device
    for first in range(0, len(order), batch_size):
        positions = order[first : first + batch_size]
        batch = [rows[position] for position in positions]
        ids, mask = pad_rows([[*context, *tokens] for context, tokens in batch])
        wanted, inside = pad_rows([tokens for _, tokens in batch])
        lengths = torch.tensor([len(context) for context, _ in batch])
        logits = completion_logits(
            candidate.model, ids.to(device), mask.to(device), lengths.to(device), wanted.shape[1]
        )
        logps = token_logps(logits, wanted.to(device)).double().cpu() * inside
        likeliest = ((logits.argmax(-1).cpu() == wanted) | (inside == 0)).all(1)
        for n, position in enumerate(positions):
            found[position] = Continuation(float(logps[n].sum()), len(batch[n][1]), bool(likeliest[n]))
        advance(len(batch))
    return found


def encode_pairs(
    candidate: Candidate, pairs: Sequence[tuple[str, str]], max_length: int | None = None
) -> list[tuple[list[int], list[int]]]:
    """Token ids of each context and continuation.

    The tokens of a continuation are those that the whole text has beyond the tokens of its context; blanks that end a
    context belong to the continuation.

    Raises:
        UserError: a continuation has no token, or more than the model reads.
    """
    moved = []
    for context, continuation in pairs:
        kept = context.rstrip()
        moved.append((kept, context[len(kept) :] + continuation))
    contexts = candidate.encode([context for context, _ in moved])
    reads_apart = candidate.head == "encoder_decoder"
    wholes = candidate.encode([c if reads_apart else context + c for context, c in moved])
    limit = candidate.limit_with(max_length)
    rows = []
    for (_, text), context, whole in zip(moved, contexts, wholes, strict=True):
        tokens = whole if reads_apart else whole[len(context) :]
        if not tokens:
            raise UserError(f"the continuation {text!r} has no token of its own for {candidate.name}.")
        context = candidate.as_prompt(context)
        if limit is not None:
            room = limit if reads_apart else limit - len(tokens)
            if room < 1 or len(tokens) > limit:
                raise UserError(
                    f"a continuation of {len(tokens)} tokens is more than {candidate.name} reads with its begin token "
                    f"({limit}): {text[:60]!r}."
                )
            context = context[-room:]
        rows.append((context, tokens))
    return rows
