"""Answers that a model with a question answering head finds in a passage, as it was fine-tuned to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_gpt.data.answer_spans import best_answers, read_passages
from hf_gpt.data.arguments import MAX_ANSWER_LENGTH
from hf_gpt.data.collators import pad_rows
from hf_gpt.errors import CorpusError
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.evaluation.tasks.registry import TaskSpec


@torch.no_grad()
def extract_answers(
    candidate: Candidate,
    rows: Sequence[Mapping[str, Any]],
    spec: TaskSpec,
    batch_size: int,
    advance: Callable[[int], object] = lambda rows: None,
) -> list[str]:
    """The answer to each row's `question` in its `context`, empty where the model finds none.

    Raises:
        CorpusError: a row has no such columns.
    """
    for number, row in enumerate(rows, 1):
        if "question" not in row or "context" not in row:
            raise CorpusError(f"task {spec.name}, row {number}: a model that extracts needs 'question' and 'context'.")
    length = min(candidate.limit_with(spec.max_length) or 384, 384)
    found: list[str] = []
    for first in range(0, len(rows), batch_size):
        some = rows[first : first + batch_size]
        contexts = [row["context"] for row in some]
        questions = [row["question"] for row in some]
        passages = read_passages(questions, contexts, candidate.tokenizer, length, min(64, length // 4))
        windows = [{**row, "example": number} for number, passage in enumerate(passages) for row in passage.rows]
        ids, mask = pad_rows([row["input_ids"] for row in windows])
        device = candidate.model.device
        outputs = candidate.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        starts, ends = (np.asarray(part.float().cpu()) for part in (outputs.start_logits, outputs.end_logits))
        found += best_answers(starts, ends, windows, contexts, MAX_ANSWER_LENGTH)
        advance(len(some))
    return found
