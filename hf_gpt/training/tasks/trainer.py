"""`HfGptTrainer` that evaluates a task: predictions and their metrics beside the loss."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from torch.utils.data import SequentialSampler
from transformers import EvalPrediction, PreTrainedTokenizerBase, ProcessorMixin

from hf_gpt.data.collators import PaddingCollator, Seq2SeqCollator, pad_rows
from hf_gpt.data.examples import Example
from hf_gpt.data.packed_dataset import filler_token_id
from hf_gpt.data.packing import IGNORE_INDEX
from hf_gpt.data.streaming import WindowStream
from hf_gpt.errors import ConfigError
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.training.model import end_tokens
from hf_gpt.training.tasks.base import Task, tokenizer_of
from hf_gpt.training.trainer import HfGptTrainer


class TaskTrainer(HfGptTrainer):
    """Trains on the rows of a task, which has seen the data, and evaluates its predictions.

    Predictions of a model that writes are what it generates, with the cache: prompts of similar length together, padded
    at the left for a decoder, which goes on from their end, and at the right for an encoder.

    Args:
        train_dataset: As `task.encode` gives it, or a stream of such rows, of which each process takes its own.
        eval_dataset, eval_examples: As `task.encode` gives it, and the examples that it was made of.
        processing_class: The tokenizer, or a processor that has one.
        kwargs: As for `HfGptTrainer`.

    Raises:
        ConfigError: labels that are probabilities are to be smoothed.

    Attributes:
        predictions: Those of the last evaluation, one for each of `eval_examples`; None where the loss alone is
            evaluated.
    """

    def __init__(
        self,
        *,
        task: Task,
        train_dataset: datasets.Dataset | WindowStream,
        eval_dataset: datasets.Dataset,
        eval_examples: Sequence[Example],
        processing_class: PreTrainedTokenizerBase | ProcessorMixin,
        **kwargs: Any,
    ):
        args = kwargs["args"]
        if task.writes and args.world_size > 1:
            # Processes get equal parts by reading rows twice, which a loss summed over them would count twice.
            eval_dataset = fill_up(eval_dataset, args.eval_batch_size * args.data_parallel_size)
        if task.loss_function is not None and args.label_smoothing_factor:
            raise ConfigError(
                "--label_smoothing_factor smooths classes, and these are probabilities already: leave it out."
            )
        collate = PaddingCollator(filler_token_id(tokenizer_of(processing_class)))
        super().__init__(
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=Seq2SeqCollator(collate, kwargs["model"]) if task.is_encoder_decoder else collate,
            is_language_model=task.writes,
            compute_loss_func=task.loss_function,
            compute_metrics=None if task.writes else self._score_outputs,
            preprocess_logits_for_metrics=None if task.writes else task.reduce_logits,
            **kwargs,
        )
        self.task = task
        self.has_token_labels = task.has_token_labels
        self.eval_examples = self.validation_content = eval_examples
        self.predictions: list[Any] | None = None

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> SequentialSampler | None:
        # Outputs are matched to examples by their order, which grouping by length would change.
        return None if self.args.world_size > 1 else SequentialSampler(eval_dataset)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any):
        # Predictions of a model that writes are made below.
        kwargs["prediction_loss_only"] = self.task.writes
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if self.task.writes and self.task.args.predict_with_generate:
            self.predictions = self.generate_predictions()
            metrics = self.task.score(self.predictions, self.eval_examples)
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def _count_targets(self, labels: torch.Tensor) -> int:
        # Beside a decoder's input its labels are shifted by one; an encoder-decoder's are not.
        return super()._count_targets(
            torch.nn.functional.pad(labels, (1, 0)) if self.task.is_encoder_decoder else labels
        )

    def _score_outputs(self, output: EvalPrediction) -> dict[str, float]:
        self.predictions = self.task.predictions(output.predictions, self.eval_examples, self.eval_dataset)
        return self.task.score(self.predictions, self.eval_examples)

    @torch.no_grad()
    def generate_predictions(self) -> list[Any]:
        """What the model writes after the prompt of each evaluation example; each process writes its share."""
        prompts = self.task.prompts(self.eval_examples, self.processing_class)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        size = self.args.data_parallel_size
        # As many for each process, by writing some twice: where weights are in shards, all must be called as often.
        order += order[: -len(order) % size]
        mine = order[self.args.data_parallel_index :: size]
        model = self.accelerator.unwrap_model(self.model)
        pad = filler_token_id(tokenizer_of(self.processing_class))
        written: list[tuple[int, Any]] = []
        with evaluating(model):
            for first in range(0, len(mine), self.args.eval_batch_size):
                indices = mine[first : first + self.args.eval_batch_size]
                side = "right" if self.task.is_encoder_decoder else "left"
                input_ids, attention_mask = pad_rows([prompts[index] for index in indices], pad, side)
                with self.compute_loss_context_manager():
                    output = self._write(
                        model, input_ids.to(self.args.device), attention_mask.to(self.args.device), indices, pad
                    )
                written += zip(indices, self.task.decode(output, self.processing_class), strict=True)
        if self.args.world_size > 1:
            written = gather_object(written)
        return [prediction for _, prediction in sorted(dict(written).items())]

    def _write(
        self, model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, indices: Sequence[int], pad: int
    ) -> torch.Tensor:
        """The tokens after each prompt of a batch."""
        args, end = self.task.args, tokenizer_of(self.processing_class).eos_token_id
        # A model may know more ends than its tokenizer, such as that of a turn.
        ends = sorted({end, *end_tokens(model), *self.task.end_token_ids} - {None})
        if self.task.samples:
            # Each example has random numbers of its own, so batches and processes change nothing.
            uniforms = [
                torch.rand(args.max_new_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
                for index in indices
            ]
            return rollout(
                model,
                input_ids,
                attention_mask,
                sampling=SamplingConfig(
                    temperature=args.temperature,
                    top_p=args.top_p,
                    max_new_tokens=args.max_new_tokens,
                    eos_token_id=end,
                    pad_token_id=pad,
                ),
                uniforms=torch.stack(uniforms),
            ).completions
        output = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            max_new_tokens=args.max_new_tokens,
            num_beams=args.num_beams,
            do_sample=False,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=ends or None,
        )
        # An encoder-decoder's output begins with the token that it starts from.
        return output[:, 1 if self.task.is_encoder_decoder else input_ids.shape[1] :]


def fill_up(rows: datasets.Dataset, multiple: int) -> datasets.Dataset:
    """The rows, and after them as many without a target as make their number a multiple of this."""
    missing = -len(rows) % multiple
    first = rows[0]
    row = {name: [IGNORE_INDEX] if name == "labels" else value[:1] for name, value in first.items()}
    return datasets.concatenate_datasets([rows, datasets.Dataset.from_list([row] * missing, rows.features)])
