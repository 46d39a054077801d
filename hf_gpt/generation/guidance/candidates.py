"""Completions by `generate`'s own sampling, whole or a few tokens at a time, for a decoding method to choose among."""

import copy
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
)
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from hf_gpt import compat
from hf_gpt.generation.decoding.generate_options import GenerateCall
from hf_gpt.generation.guidance.logits_processor import Scorer
from hf_gpt.generation.guidance.particle_filter import Block
from hf_gpt.generation.scoring.log_ratio import as_texts


class CandidateSampler:
    """Samples completions of chosen rows and scores them.

    Args:
        call: From `generate`.
        scorer: Of whole texts.
        batch_size: Texts sampled and scored at a time. None: all.
    """

    def __init__(self, call: GenerateCall, scorer: Scorer, batch_size: int | None = None):
        self.call, self.model, self.input_ids = call, call.model, call.input_ids
        self.scorer, self.batch_size = scorer, batch_size
        self.prompt_mask = prompt_mask(call.input_ids, call.model_kwargs)
        self.options = {"logits_processor": call.logits_processor, "stopping_criteria": call.stopping_criteria}
        # Candidates are bare sequences, whatever the caller wants to know of the chosen ones.
        self.options["generation_config"] = generation_config = copy.copy(call.generation_config)
        generation_config.return_dict_in_generate = False
        self.eos_token_ids = torch.tensor(eos_token_ids(generation_config), device=call.input_ids.device).long()
        pad = compat.padding_token(generation_config)
        self.pad_token_id = 0 if pad is None else int(pad)
        self.max_length = generation_config.max_length
        # Another criterion, such as a stop string, may end a text at any token; padding follows.
        ordinary = (MaxLengthCriteria, EosTokenCriteria)
        self.others = StoppingCriteriaList(
            criterion for criterion in call.stopping_criteria if not isinstance(criterion, ordinary)
        )

    def sample(self, rows: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`number` candidates for each of `rows`: sequences (rows, number, max_length) and scores (rows, number)."""
        wanted = rows.repeat_interleave(number)
        sequences, scores = [], []
        for part in wanted.split(self.batch_size or len(wanted)):
            options = self.options | {"logits_processor": self._processors_of(part)}
            samples = compat.sample(self.model, self.input_ids[part], **options, **self._rows_of_inputs(part))
            mask = self.mask(samples, part)
            scores.append(self.scorer(samples, mask).to(samples.device))
            filler = self.max_length - samples.shape[1]
            sequences.append(torch.nn.functional.pad(samples, (0, filler), value=self.pad_token_id))
        shape = (len(rows), number)
        return torch.cat(sequences).view(*shape, -1), torch.cat(scores).float().view(shape)

    def extend(self, rows: torch.Tensor, context: torch.Tensor, mask: torch.Tensor, position: int, count: int) -> Block:
        """At most `count` more tokens of texts that have `position` new tokens already.

        Args:
            rows: (n,) numbers of the prompts.
            context, mask: (n, T), prompts and new tokens.

        Returns:
            The new tokens, with log-probabilities nan.
        """
        size = context.shape[1]
        options = dict(self.options)
        options["stopping_criteria"] = StoppingCriteriaList(
            # `_sample` reads the length from the first such criterion.
            [MaxLengthCriteria(size + count), *self._without_length(options["stopping_criteria"])]
        )
        sequences, masks, finished = [], [], []
        for part in torch.arange(len(rows), device=rows.device).split(self.batch_size or len(rows)):
            inputs = self._rows_of_inputs(rows[part])
            if position:
                inputs = compat.inputs_after(self.model, inputs, position)
            options["logits_processor"] = self._processors_of(rows[part])
            samples = compat.sample(self.model, context[part], **options, **inputs)
            lengths = self.lengths(samples)
            last = samples.gather(1, lengths[:, None] - 1)[:, 0]
            ended = torch.isin(last, self.eos_token_ids) | (lengths < samples.shape[1])
            if self.others:
                ended |= self.others(samples, None)
            finished.append(ended)
            filler = size + count - samples.shape[1]
            sequences.append(torch.nn.functional.pad(samples, (0, filler), value=self.pad_token_id))
            inside = torch.arange(size, size + count, device=rows.device) < lengths[:, None]
            masks.append(torch.cat([mask[part], inside.to(mask)], 1))
        return Block(as_texts(torch.cat(sequences), torch.cat(masks), size), torch.cat(finished))

    def mask(self, sequences: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """1 at the tokens of prompt and completion, including the end of text."""
        positions = torch.arange(sequences.shape[1], device=sequences.device)
        mask = (positions < self.lengths(sequences)[:, None]).long()
        mask[:, : self.input_ids.shape[1]] = self.prompt_mask[rows]
        return mask

    def lengths(self, sequences: torch.Tensor) -> torch.Tensor:
        """Number of positions up to the end of each text, including its prompt's padding."""
        start = self.input_ids.shape[1]
        completion = sequences[:, start:]
        ended = torch.isin(completion, self.eos_token_ids)
        inside = (ended.long().cumsum(1) - ended.long()) == 0
        if self.others and self.pad_token_id not in self.eos_token_ids:
            inside &= (completion != self.pad_token_id).flip(1).long().cumsum(1).flip(1) > 0
        return start + inside.sum(1)

    @staticmethod
    def _without_length(criteria: StoppingCriteriaList) -> StoppingCriteriaList:
        return StoppingCriteriaList(one for one in criteria if not isinstance(one, MaxLengthCriteria))

    def _processors_of(self, rows: torch.Tensor) -> LogitsProcessorList:
        """The processors for texts of these rows; some of them look rows up by number."""
        found, size = LogitsProcessorList(), len(self.input_ids)
        for processor in self.options["logits_processor"]:
            if isinstance(processor, PrefixConstrainedLogitsProcessor):
                allowed, numbers = compat.allowed_tokens_function(processor), rows.tolist()
                processor = PrefixConstrainedLogitsProcessor(
                    lambda row, ids, allowed=allowed, numbers=numbers: allowed(numbers[row], ids), 1
                )
            elif isinstance(processor, EncoderRepetitionPenaltyLogitsProcessor):
                if len(processor.encoder_input_ids) == size:
                    processor = copy.copy(processor)
                    processor.encoder_input_ids = processor.encoder_input_ids[rows]
            elif isinstance(processor, EncoderNoRepeatNGramLogitsProcessor) and processor.batch_size == size:
                processor = copy.copy(processor)
                processor.generated_ngrams = [processor.generated_ngrams[row] for row in rows.tolist()]
                processor.batch_size = len(rows)
            found.append(processor)
        return found

    def _rows_of_inputs(self, rows: torch.Tensor) -> dict[str, Any]:
        size = len(self.input_ids)
        inputs = {}
        for name, value in self.call.model_kwargs.items():
            if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == size and name != "cache_position":
                inputs[name] = value[rows]
            else:
                # Each call of `_sample` fills its own cache.
                inputs[name] = copy.deepcopy(value)
        return inputs


def prompt_mask(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
    """(B, T) mask of the prompts; `generate` drops a mask of ones."""
    mask = model_kwargs.get("attention_mask")
    return torch.ones_like(input_ids) if mask is None else mask.to(input_ids)


def eos_token_ids(generation_config: GenerationConfig) -> list[int]:
    """The tokens that end a text, as resolved by `generate`."""
    tokens = compat.end_tokens(generation_config)
    return [] if tokens is None else tokens.reshape(-1).tolist()
