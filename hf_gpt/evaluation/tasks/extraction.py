"""Answers that a model with a question answering head finds in a passage, as it was fine-tuned to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

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
    from hf_gpt.data.examples import Example
    from hf_gpt.training.arguments import TaskArguments
    from hf_gpt.training.tasks import make_task

    for number, row in enumerate(rows, 1):
        if "question" not in row or "context" not in row:
            raise CorpusError(f"task {spec.name}, row {number}: a model that extracts needs 'question' and 'context'.")
    limits = [limit for limit in (candidate.limit, spec.max_length, 384) if limit is not None]
    length = min(limits)
    task = make_task(TaskArguments(task="question_answering", max_length=length, doc_stride=min(64, length // 4)))
    # Where answers stand matters to training alone.
    asked = [
        Example(question=row["question"], context=row["context"], answers={"text": [], "answer_start": []})
        for row in rows
    ]
    found: list[str] = []
    for first in range(0, len(asked), batch_size):
        some = asked[first : first + batch_size]
        inputs = task.encode(some, candidate.tokenizer, is_training=False)
        width = max(map(len, inputs["input_ids"]))
        ids = torch.zeros(len(inputs), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for n, tokens in enumerate(inputs["input_ids"]):
            ids[n, : len(tokens)] = torch.tensor(tokens)
            mask[n, : len(tokens)] = 1
        device = candidate.model.device
        outputs = candidate.model(input_ids=ids.to(device), attention_mask=mask.to(device))
        logits = tuple(np.asarray(part.float().cpu()) for part in (outputs.start_logits, outputs.end_logits))
        found += task.predictions(logits, some, inputs)
        advance(len(some))
    return found
