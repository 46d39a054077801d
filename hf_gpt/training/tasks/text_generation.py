"""Tasks in which a model reads a prompt and writes a text: summarization, translation, answers from memory."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import datasets
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.examples import Example, text_of, texts_of
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.special_tokens import begin_and_end, tokenize
from hf_gpt.data.truncation import Cuts
from hf_gpt.errors import ConfigError, CorpusError
from hf_gpt.evaluation import compute
from hf_gpt.evaluation.text.words import ANSWER_WORDS, UNICODE_WORDS
from hf_gpt.training.tasks.base import Examples, Task, to_rows


SLOT = "{source}"


class WritingTask(Task):
    """A task whose predictions are written, by a decoder or an encoder-decoder, as `architecture` says."""

    writes = True

    @property
    def is_encoder_decoder(self) -> bool:
        return self.args.architecture == "encoder_decoder"

    @property
    def auto_class(self) -> str:
        return "AutoModelForSeq2SeqLM" if self.is_encoder_decoder else "AutoModelForCausalLM"

    @property
    def peft_type(self) -> str:
        return "SEQ_2_SEQ_LM" if self.is_encoder_decoder else "CAUSAL_LM"

    def _keeps(self, example: Example, whole: int, prompt: int, target: int, cuts: Cuts) -> bool:
        """Whether an example is used, by the tokens of its whole prompt, of the prompt as read, and of its target.

        Counts what is cut of them.
        """
        most = self.args.max_new_tokens
        read = {} if self.is_encoder_decoder else {"option": "max_length minus --max_new_tokens", "limit": prompt}
        if whole > prompt and not cuts.keeps(self.args.overlong, example.position, whole, **read):
            return False
        written = {"option": "max_new_tokens", "limit": most}
        if target > most and not cuts.keeps(self.args.overlong, example.position, target, **written):
            return False
        if whole > prompt or target > most:
            cuts.add("rows_cut", whole > prompt)
            cuts.add("tokens_cut", whole - prompt + max(0, target - most))
        if target > most:
            cuts.add("targets_cut", **written)
        return True


class Writing(WritingTask):
    """Prompt and target in one sequence, with the loss on the target and its end alone; or the prompt in the encoder.

    The prompt is `prompt_template` with the source in it. A source too long for `max_length` loses its end, so that the
    template stays whole and a decoder has room for `max_new_tokens`.
    """

    column_options: Sequence[str] = ("source_column", "target_column")
    metric: ClassVar[str]

    def source(self, example: Example) -> str:
        """What is read."""
        return text_of(example, self.args.source_column)

    def targets(self, example: Example) -> list[str]:
        """The texts that would be right; the first is trained on."""
        targets = [text for text in texts_of(example, self.args.target_column) if text.strip()]
        if not targets:
            raise CorpusError(
                f"{example.position}: column {self.args.target_column!r} is blank. Mend or remove the row."
            )
        return targets

    def learn(self, train: Iterable[Example], validation: Examples) -> None:
        if self.args.prompt_template.count(SLOT) != 1:
            raise ConfigError(
                f"--prompt_template must have {SLOT} in it once, got {self.args.prompt_template!r}. Write for example "
                "'Question: {source} Answer:'."
            )
        super().learn(train, validation)

    def texts(self, example: Example) -> Iterable[str]:
        head, tail = self._template()
        return [f"{head}{self.source(example)}{tail} {self.targets(example)[0]}"]

    def prompts(self, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        return self._prompts(examples, tokenizer)[1]

    def _prompts(self, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[list[int]]]:
        """How long each prompt would be with the whole source, and the prompts as they are read."""
        begin, end = begin_and_end(tokenizer)
        head, tail = tokenize(tokenizer, self._template())["input_ids"]
        room = self.args.max_length - len(head) - len(tail) - 1
        if not self.is_encoder_decoder:
            room -= self.args.max_new_tokens
        if room < 1:
            beside = "" if self.is_encoder_decoder else f" and --max_new_tokens {self.args.max_new_tokens}"
            raise ConfigError(
                f"--max_length {self.args.max_length} leaves no token for the source beside the prompt template"
                f"{beside}. Raise the one or lower the other."
            )
        sources = tokenize(tokenizer, [self.source(example) for example in examples])["input_ids"]
        whole = [len(head) + len(source) + len(tail) + 1 for source in sources]
        if self.is_encoder_decoder:
            return whole, [[*head, *source[:room], *tail, end] for source in sources]
        return whole, [[begin, *head, *source[:room], *tail] for source in sources]

    def encode(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, is_training: bool) -> datasets.Dataset:
        _, end = begin_and_end(tokenizer)
        # Within a sequence a text follows on a space; a sequence of its own begins with it.
        space = "" if self.is_encoder_decoder else " "
        targets = tokenize(tokenizer, [f"{space}{self.targets(example)[0]}" for example in examples])["input_ids"]
        whole, prompts = self._prompts(examples, tokenizer)
        cuts = self.start_counting(is_training, len(examples))
        rows = []
        for index, (example, prompt, target) in enumerate(zip(examples, prompts, targets, strict=True)):
            if not self._keeps(example, whole[index], len(prompt), len(target) + 1, cuts):
                continue
            self.kept.append(index)
            written = [*target, end][: self.args.max_new_tokens]
            if self.is_encoder_decoder:
                rows.append({"input_ids": prompt, "labels": written})
            else:
                rows.append({"input_ids": [*prompt, *written], "labels": [*[IGNORE_INDEX] * len(prompt), *written]})
        return to_rows(rows)

    def score(self, predictions: Sequence[str], examples: Examples) -> dict[str, Any]:
        return compute(self.metric, list(predictions), [self.targets(example) for example in examples])

    def describe(self, example: Example) -> str:
        return self.source(example)

    def _template(self) -> list[str]:
        return self.args.prompt_template.split(SLOT)


class Summarization(Writing):
    """Summaries; ROUGE, the best of several references."""

    metric = "rouge"
    main_metric = "rougeL"
    words = UNICODE_WORDS


class Translation(Writing):
    """Translations; BLEU and chrF over the whole set."""

    metric = main_metric = "sacrebleu"

    def score(self, predictions: Sequence[str], examples: Examples) -> dict[str, Any]:
        metrics = super().score(predictions, examples)
        self.words = f"BLEU by sacrebleu, {metrics['signature']}"
        return {name: metrics[name] for name in ("sacrebleu", "chrf")}


class ClosedBookQa(Writing):
    """Answers from what the model has learnt, without a passage; exact match and F1."""

    column_options = ("question_column", "answers_column")
    metric = "squad"
    main_metric = "f1"
    words = ANSWER_WORDS

    def source(self, example: Example) -> str:
        return text_of(example, self.args.question_column)

    def targets(self, example: Example) -> list[str]:
        answers = [text for text in texts_of(example, self.args.answers_column) if text.strip()]
        if not answers:
            raise CorpusError(f"{example.position}: column {self.args.answers_column!r} has no answer. Remove the row.")
        return answers
