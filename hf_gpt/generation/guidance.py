"""`model.generate` guided by a discriminator: `custom_generate=guided_generate`, for any causal language model.

```python
critic = AutoModelForSequenceClassification.from_pretrained("runs/critic/model")
model.generate(**inputs, do_sample=True, custom_generate=guided_generate, discriminator=critic, num_candidates=16)
```
"""

import copy
import dataclasses
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForSequenceClassification,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.utils import ModelOutput, logging

from hf_gpt.generation.guided import DiscriminatorLogitsProcessor, Scorer, as_scorer
from hf_gpt.generation.resampling import best_of, effective_sample_size, importance_weights, reject, resample


logger = logging.get_logger(__name__)

Guidance = Literal["resample", "reject", "best_of_n", "stepwise"]
GUIDANCE: tuple[str, ...] = ("resample", "reject", "best_of_n", "stepwise")


@dataclasses.dataclass
class GuidedGenerateOutput(ModelOutput):
    """What guided generation returns with `return_dict_in_generate=True`; B rows, N candidates for each.

    Attributes:
        sequences: (B, T) int64, prompt and chosen completion.
        discriminator_scores: (B,) float32, logits of the chosen.
        candidate_scores: (B, N) float32, logits of all candidates; nan for those that rejection did not need.
        effective_sample_size: (B,) float32, 1 to N, of resampling: near 1 the discriminator leaves one candidate, so
            that more would change the text; near N it hardly chooses.
        accepted: (B,) bool, of rejection: whether one was accepted; elsewhere it is the best of those tried.
    """

    sequences: torch.LongTensor | None = None
    discriminator_scores: torch.FloatTensor | None = None
    candidate_scores: torch.FloatTensor | None = None
    effective_sample_size: torch.FloatTensor | None = None
    accepted: torch.BoolTensor | None = None


def guided_generate(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    discriminator: PreTrainedModel | Scorer | None = None,
    guidance: Guidance = "resample",
    num_candidates: int = 8,
    guidance_temperature: float = 1.0,
    guidance_weight: float = 1.0,
    guidance_top_k: int = 20,
    rejection_threshold: float | None = None,
    rejection_max_score: float | None = None,
    rejection_gamma: float = 0.0,
    candidate_batch_size: int | None = None,
    **model_kwargs: Any,
) -> GuidedGenerateOutput | torch.LongTensor:
    """Decoding method for `generate(custom_generate=guided_generate, discriminator=..., ...)`.

    Each returned row is chosen from candidates of its own, so rows of one prompt (`num_return_sequences`) are
    independent. All draws come from PyTorch's global generator: `torch.manual_seed` repeats them.

    Args:
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs: Given by `generate`.
        discriminator: Sequence classifier with one label over the generator's tokens, which reads prompt and
            completion; or a function of sequences and mask, both (n, length), that returns (n,) logits.
        guidance: `"resample"`: one of `num_candidates` with probability softmax(l / guidance_temperature). `"reject"`:
            the first that is accepted, of at most `num_candidates`. `"best_of_n"`: the one with the largest logit.
            `"stepwise"`: token by token, see `DiscriminatorLogitsProcessor`.
        num_candidates: Texts drawn for each row.
        guidance_temperature: Of resampling.
        guidance_weight, guidance_top_k: Of step-wise decoding.
        rejection_threshold: Accept where sigmoid(l) is above this. Left out: by discriminator rejection sampling.
        rejection_max_score: The largest logit there can be. Left out: the largest seen so far, which makes the first
            rows of a call easier to accept than the last.
        rejection_gamma: See `acceptance_probabilities`.
        candidate_batch_size: Texts generated and scored at a time. Left out: all at once.

    Returns:
        (B, T) int64 sequences, or [`GuidedGenerateOutput`] with `return_dict_in_generate=True`.

    Raises:
        ValueError: no discriminator, settings out of range, beam search, greedy decoding (all candidates would be the
            same), an encoder-decoder, or a cache that holds tokens.
    """
    _check(model, generation_config, discriminator, guidance, num_candidates, model_kwargs)
    if guidance == "stepwise":
        processor = DiscriminatorLogitsProcessor(
            discriminator,
            weight=guidance_weight,
            top_k=guidance_top_k,
            attention_mask=_prompt_mask(input_ids, model_kwargs),
            eos_token_id=_eos_token_ids(generation_config),
            prompt_length=input_ids.shape[1],
            batch_size=candidate_batch_size,
        )
        # Before temperature and truncation, which then shape the guided distribution.
        warpers = [i for i, other in enumerate(logits_processor) if type(other).__name__.endswith("Warper")]
        logits_processor.insert(warpers[0] if warpers else len(logits_processor), processor)
        result = model._sample(
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            **model_kwargs,
        )
        return result

    sampler = _CandidateSampler(
        model,
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        model_kwargs,
        as_scorer(discriminator, candidate_batch_size),
        candidate_batch_size,
    )
    if guidance == "reject":
        output = _reject(sampler, num_candidates, rejection_threshold, rejection_max_score, rejection_gamma)
    else:
        rows = torch.arange(len(input_ids), device=input_ids.device)
        candidates, scores = sampler.draw(rows, num_candidates)
        ess = None
        if guidance == "resample":
            chosen = resample(scores, temperature=guidance_temperature)[:, 0]
            ess = effective_sample_size(importance_weights(scores, guidance_temperature))
        else:
            chosen = best_of(scores)
        output = GuidedGenerateOutput(
            sequences=candidates[rows, chosen],
            discriminator_scores=scores[rows, chosen],
            candidate_scores=scores,
            effective_sample_size=ess,
        )
    output.sequences = _trim(output.sequences, sampler.lengths(output.sequences).max())
    return output if generation_config.return_dict_in_generate else output.sequences


class _CandidateSampler:
    """Draws completions of chosen rows and scores them."""

    def __init__(
        self, model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs, scorer, batch_size
    ):
        self.model = model
        self.input_ids = input_ids
        self.batch_size = batch_size
        self.scorer = scorer
        self.prompt_mask = _prompt_mask(input_ids, model_kwargs)
        self.options = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        # Candidates are bare sequences, whatever the caller wants to know of the chosen ones.
        self.options["generation_config"] = copy.copy(generation_config)
        self.options["generation_config"].return_dict_in_generate = False
        self.model_kwargs = model_kwargs
        self.eos_token_ids = torch.tensor(_eos_token_ids(generation_config), device=input_ids.device).long()
        pad = generation_config._pad_token_tensor
        self.pad_token_id = 0 if pad is None else int(pad)
        self.max_length = generation_config.max_length
        # A text that another criterion ended, such as a stop string, is filled up with padding after any token.
        ordinary = (MaxLengthCriteria, EosTokenCriteria)
        self.padding_ends = not all(isinstance(criterion, ordinary) for criterion in stopping_criteria)

    def draw(self, rows: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`number` candidates for each of `rows`: sequences (rows, number, max_length) and scores (rows, number)."""
        wanted = rows.repeat_interleave(number)
        sequences, scores = [], []
        for part in wanted.split(self.batch_size or len(wanted)):
            drawn = self.model._sample(self.input_ids[part], **self.options, **self._rows_of_inputs(part))
            mask = self.mask(drawn, part)
            scores.append(self.scorer(drawn, mask).to(drawn.device))
            filler = self.max_length - drawn.shape[1]
            sequences.append(torch.nn.functional.pad(drawn, (0, filler), value=self.pad_token_id))
        shape = (len(rows), number)
        return torch.cat(sequences).view(*shape, -1), torch.cat(scores).float().view(shape)

    def mask(self, sequences: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """1 at the tokens of prompt and completion, the end of text included."""
        places = torch.arange(sequences.shape[1], device=sequences.device)
        mask = (places < self.lengths(sequences)[:, None]).long()
        mask[:, : self.input_ids.shape[1]] = self.prompt_mask[rows]
        return mask

    def lengths(self, sequences: torch.Tensor) -> torch.Tensor:
        """Number of places up to the end of each text, its prompt's padding included."""
        start = self.input_ids.shape[1]
        completion = sequences[:, start:]
        ended = torch.isin(completion, self.eos_token_ids)
        inside = (ended.long().cumsum(1) - ended.long()) == 0
        if self.padding_ends and self.pad_token_id not in self.eos_token_ids:
            inside &= (completion != self.pad_token_id).flip(1).long().cumsum(1).flip(1) > 0
        return start + inside.sum(1)

    def _rows_of_inputs(self, rows: torch.Tensor) -> dict[str, Any]:
        size = len(self.input_ids)
        inputs = {}
        for name, value in self.model_kwargs.items():
            if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == size and name != "cache_position":
                inputs[name] = value[rows]
            else:
                # Each call of `_sample` fills a cache of its own.
                inputs[name] = copy.deepcopy(value)
        return inputs


def _reject(sampler: _CandidateSampler, limit: int, threshold, max_score, gamma) -> GuidedGenerateOutput:
    size, device = len(sampler.input_ids), sampler.input_ids.device
    rows = torch.arange(size, device=device)
    tried = torch.full((size, limit), torch.nan, device=device)
    best = torch.full((size,), -torch.inf, device=device)
    chosen = torch.full((size, sampler.max_length), sampler.pad_token_id, device=device)
    accepted = torch.zeros(size, dtype=torch.bool, device=device)
    done = 0
    while done < limit and len(rows):
        # Rows that were accepted make room for more tries of the others.
        number = min(limit - done, max(1, size // len(rows)))
        candidates, scores = sampler.draw(rows, number)
        tried[rows, done : done + number] = scores
        bound = max_score if max_score is not None else tried[~tried.isnan()].max()
        kept = reject(scores, threshold, bound, gamma)
        # The first that was accepted, else the best so far.
        pick = torch.where(kept.any(1), kept.long().argmax(1), scores.argmax(1))
        places = torch.arange(len(rows), device=device)
        better = kept.any(1) | (scores[places, pick] > best[rows])
        chosen[rows[better]] = candidates[places, pick][better]
        best[rows[better]] = scores[places, pick][better]
        accepted[rows] = kept.any(1)
        rows = rows[~kept.any(1)]
        done += number
    if len(rows):
        logger.warning(
            f"{len(rows)} of {size} texts had no candidate accepted in {limit} tries and are the best of those: raise "
            "num_candidates, or lower the rejection threshold or gamma."
        )
    return GuidedGenerateOutput(sequences=chosen, discriminator_scores=best, candidate_scores=tried, accepted=accepted)


def _check(model, generation_config, discriminator, guidance, num_candidates, model_kwargs) -> None:
    if discriminator is None:
        raise ValueError("guided_generate needs discriminator=, a sequence classifier with one label.")
    if guidance not in GUIDANCE:
        raise ValueError(f"there is no guidance {guidance!r}. Choose one of: {', '.join(GUIDANCE)}.")
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}.")
    if model.config.is_encoder_decoder:
        raise ValueError("guided_generate takes causal language models, not encoder-decoders.")
    if generation_config.num_beams > 1:
        raise ValueError("guided_generate draws samples: set num_beams=1.")
    if not generation_config.do_sample and guidance != "stepwise":
        raise ValueError(f"guidance={guidance!r} needs do_sample=True: greedy decoding gives the same candidate again.")
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        raise ValueError("guided_generate reads the prompt itself: leave past_key_values out.")


def _prompt_mask(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
    # `generate` drops a mask of ones alone.
    mask = model_kwargs.get("attention_mask")
    return torch.ones_like(input_ids) if mask is None else mask.to(input_ids)


def _eos_token_ids(generation_config: GenerationConfig) -> list[int]:
    tokens = generation_config._eos_token_tensor
    return [] if tokens is None else tokens.reshape(-1).tolist()


def _trim(sequences: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    return sequences[:, : int(length)]


def load_discriminator(path: str, **options: Any) -> PreTrainedModel:
    """A discriminator from the folder of a run or checkpoint or the Hub, in evaluation mode.

    Args:
        path: Where it is.
        options: Go to `from_pretrained`.

    Raises:
        ValueError: it has another number of labels.
        OSError: there is none.
    """
    from hf_gpt.generation.scoring import check_discriminator

    model = AutoModelForSequenceClassification.from_pretrained(path, **options)
    check_discriminator(model)
    return model.eval()
