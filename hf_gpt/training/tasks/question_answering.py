"""Extractive question answering: where in a passage the answer stands, or that it is not there."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.answer_spans import Passage, best_answers, read_passages
from hf_gpt.data.examples import Example, text_of
from hf_gpt.data.truncation import Cuts
from hf_gpt.errors import CorpusError
from hf_gpt.evaluation import compute
from hf_gpt.evaluation.text.words import ANSWER_WORDS
from hf_gpt.training.tasks.base import Examples, Task, as_tuple, to_rows


# First and last token of an answer, or twice None.
Span = tuple[int | None, int | None]


class QuestionAnswering(Task):
    """SQuAD's form with unanswerable questions; exact match and F1.

    A long passage is read in windows that share `doc_stride` tokens; see `hf_gpt.data.answer_spans`.
    """

    column_options = ("question_column", "context_column", "answers_column")
    auto_class = "AutoModelForQuestionAnswering"
    peft_type = "QUESTION_ANS"
    main_metric = "f1"
    words = ANSWER_WORDS
    one_row_each = False

    def check(self, example: Example) -> None:
        super().check(example)
        self._answers(example)

    def texts(self, example: Example) -> Iterable[str]:
        return [text_of(example, self.args.context_column), text_of(example, self.args.question_column)]

    def encode(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, is_training: bool) -> datasets.Dataset:
        args = self.args
        questions = [example[args.question_column] for example in examples]
        contexts = [example[args.context_column] for example in examples]
        rows = []
        cuts = self.start_counting(is_training, len(examples))
        passages = read_passages(questions, contexts, tokenizer, args.max_length, args.doc_stride)
        for index, (example, passage) in enumerate(zip(examples, passages, strict=True)):
            spans = [self._span(example, passage.offsets[first:last]) for first, last in passage.windows]
            if not self._keeps(example, passage, spans, cuts, is_training):
                continue
            self.kept.append(index)
            for row, (start, stop) in zip(passage.rows, spans, strict=True):
                no_answer = len(row["input_ids"]) - 1
                rows.append(
                    {
                        **row,
                        "start_positions": no_answer if start is None else row["prefix"] + start,
                        "end_positions": no_answer if stop is None else row["prefix"] + stop,
                        "example": len(self.kept) - 1,
                    }
                )
        return to_rows(rows)

    def _keeps(self, example: Example, passage: Passage, spans: Sequence[Span], cuts: Cuts, is_training: bool) -> bool:
        """Whether an example is used; counts what is cut of its question, and an answer that is in no window whole."""
        has_answer = bool(self._answers(example)["text"])
        is_outside = has_answer and all(start is None for start, _ in spans)
        lost = passage.question_cut
        if lost or is_outside:
            length = len(passage.input_ids) + lost
            if not cuts.keeps(self.args.overlong, example.position, length):
                return False
        if lost:
            cuts.add("questions_cut")
            cuts.add("tokens_cut", lost)
        if is_outside:
            # Trained on, it would teach that there is no answer. A prediction may still find it.
            cuts.add("answers_outside")
            cuts.add("unlabelled", int(is_training))
            return not is_training
        start, stop = self._span(example, passage.offsets)
        if has_answer and stop - start + 1 > self.args.max_answer_length:
            cuts.add("answers_too_long")
        return True

    def predictions(self, outputs: Any, examples: Examples, rows: datasets.Dataset) -> list[str]:
        starts, ends = as_tuple(outputs)[:2]
        contexts = [example[self.args.context_column] for example in examples]
        return best_answers(starts, ends, rows, contexts, self.args.max_answer_length)

    def score(self, predictions: Sequence[str], examples: Examples) -> dict[str, float]:
        return compute("squad", list(predictions), [self._answers(example)["text"] for example in examples])

    def _span(self, example: Example, offsets: Sequence[Sequence[int]]) -> Span:
        """First and last token of the answer in a window, or twice None where it is not all in it."""
        answers = self._answers(example)
        if not answers["text"] or not offsets:
            return None, None
        start = answers["answer_start"][0]
        stop = start + len(answers["text"][0])
        if start < offsets[0][0] or stop > offsets[-1][1]:
            return None, None
        first = max(position for position, (begin, _) in enumerate(offsets) if begin <= start)
        last = min(position for position, (_, end) in enumerate(offsets) if end >= stop)
        return first, max(first, last)

    def _answers(self, example: Example) -> dict[str, list[Any]]:
        column, context = self.args.answers_column, example[self.args.context_column]
        answers = example[column]
        try:
            answers = json.loads(answers) if isinstance(answers, str) else answers
            pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        except (ValueError, TypeError, KeyError) as error:
            raise CorpusError(
                f'{example.position}: column {column!r} must be {{"text": [...], "answer_start": [...]}}, both equally '
                "long and empty where there is no answer. Mend or remove the row."
            ) from error
        for text, start in pairs:
            if not text or not isinstance(start, int) or context[start : start + len(text)] != text:
                raise CorpusError(
                    f"{example.position}: the answer {text!r} does not stand at character {start} of the passage. Mend "
                    "answer_start or remove the row."
                )
        return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}
