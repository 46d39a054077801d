"""`model.generate` guided by a discriminator: `custom_generate=guided_generate`, for any causal language model.

```python
critic = load_discriminator("runs/discriminator/model")
model.generate(**inputs, do_sample=True, custom_generate=guided_generate, discriminator=critic, num_candidates=16)
```

Or by a language model of the same tokens, a larger one or one that knows the texts better:

```python
larger = AutoModelForCausalLM.from_pretrained("runs/larger/model")
model.generate(**inputs, do_sample=True, custom_generate=guided_generate, discriminator=larger, guidance="particles")
```
"""

import dataclasses
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.logits_process import (
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput, logging

from hf_gpt import compat
from hf_gpt.generation.decoding.generate_options import refuse_other_modes, takes_all_options
from hf_gpt.generation.guidance.candidates import CandidateSampler, eos_token_ids, prompt_mask
from hf_gpt.generation.guidance.log_weights import LogWeight, make_log_weight
from hf_gpt.generation.guidance.logits_processor import DiscriminatorLogitsProcessor, Scorer, as_scorer
from hf_gpt.generation.guidance.particle_filter import Block, ParticleFilter, grow
from hf_gpt.generation.guidance.selection import best_of, effective_sample_size, importance_weights, reject, resample
from hf_gpt.generation.sampling.distribution import Sampling
from hf_gpt.generation.scoring.discriminator import check_discriminator, check_length
from hf_gpt.generation.scoring.log_ratio import LogRatio, is_language_model
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens


logger = logging.get_logger(__name__)

Guidance = Literal["resample", "reject", "best_of_n", "particles", "stepwise"]
GUIDANCE: tuple[str, ...] = ("resample", "reject", "best_of_n", "particles", "stepwise")
# Those that judge beginnings of texts.
PREFIX_SCORES = ("particles", "stepwise")


@dataclasses.dataclass
class GuidedGenerateOutput(ModelOutput):
    """What guided generation returns with `return_dict_in_generate=True`; B rows, N candidates for each.

    Attributes:
        sequences: (B, T) int64, prompt and chosen completion.
        discriminator_scores: (B,) float32, logits of the chosen.
        candidate_scores: (B, N) float32, logits of all candidates; nan for those that rejection did not need.
        effective_sample_size: (B,) float32, 1 to N, of resampling: near 1 the discriminator leaves one candidate, so
            that more would change the text; near N it hardly chooses. Of particles: of the weights left at the end.
        accepted: (B,) bool, of rejection: whether one was accepted; elsewhere it is the best of those tried.
    """

    sequences: torch.LongTensor | None = None
    discriminator_scores: torch.FloatTensor | None = None
    candidate_scores: torch.FloatTensor | None = None
    effective_sample_size: torch.FloatTensor | None = None
    accepted: torch.BoolTensor | None = None


@takes_all_options
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
    guidance_block: int = 4,
    candidate_batch_size: int | None = None,
    streamer: BaseStreamer | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    assistant_model: PreTrainedModel | None = None,
    assistant_tokenizer: PreTrainedTokenizerBase | None = None,
    synced_gpus: bool = False,
    generator_tokenizer: PreTrainedTokenizerBase | None = None,
    discriminator_tokenizer: PreTrainedTokenizerBase | None = None,
    **model_kwargs: Any,
) -> GuidedGenerateOutput | torch.LongTensor:
    """Decoding method for `generate(custom_generate=guided_generate, discriminator=..., ...)`.

    Each returned row is chosen from candidates of its own, so rows of one prompt (`num_return_sequences`) are
    independent. All draws come from PyTorch's global generator: `torch.manual_seed` repeats them.

    Args:
        model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs: Given by `generate`.
        discriminator: Sequence classifier with one label over the generator's tokens, which reads prompt and
            completion; or a function of sequences and mask, both (n, length), that returns (n,) logits l. Or a causal
            language model psi of the same tokens: l = log psi - log q of the completion, both at the temperature of the
            generation (1 in step-wise decoding). q is what the generator samples from, after top-k, top-p and min-p, so
            that the target is psi on what those leave; further processors, such as a penalty of repetitions, shape the
            generator's texts alone.
        guidance: `"resample"`: one of `num_candidates` with probability softmax(l / guidance_temperature). `"reject"`:
            the first that is accepted, of at most `num_candidates`. `"best_of_n"`: the one with the largest logit.
            `"particles"`: `num_candidates` beginnings grow side by side and are resampled by what l has gained, see
            `grow_particles`. `"stepwise"`: token by token, see `DiscriminatorLogitsProcessor`. The last two need a
            discriminator that judges unfinished texts.
        num_candidates: Texts drawn for each row.
        guidance_temperature: Of resampling, of whole texts or particles.
        guidance_weight, guidance_top_k: Of step-wise decoding.
        rejection_threshold: Accept where sigmoid(l) is above this. Left out: by discriminator rejection sampling.
        rejection_max_score: The largest logit there can be. Left out: the largest seen so far, which makes the first
            rows of a call easier to accept than the last.
        rejection_gamma: See `acceptance_probabilities`.
        guidance_block: Tokens that particles grow by between two looks of the discriminator.
        candidate_batch_size: Texts generated and scored at a time. Left out: all at once.
        streamer: As for `generate`. Step-wise decoding gives it each token; other texts come once they are chosen.
        tokenizer: As for `generate`, whose stop strings and token healing need it.
        assistant_model, assistant_tokenizer: Refused.
        synced_gpus: As for `generate`; for step-wise decoding alone.
        generator_tokenizer, discriminator_tokenizer: To see that the models share their tokens. Left out: `tokenizer`,
            else those saved where the models were loaded from, if any.

    Returns:
        (B, T) int64 sequences, or [`GuidedGenerateOutput`] with `return_dict_in_generate=True`.

    Raises:
        TokensError: generator and discriminator do not share their tokens, see `check_shared_tokens`.
        ScoreError: the discriminator's scores are not numbers.
        ValueError: no discriminator or one with too few positions, settings out of range, beam search, greedy decoding
            (all candidates would be the same), an encoder-decoder, a cache, or what texts chosen as a whole cannot have
            (scores and logits of tokens, attentions, hidden states, classifier-free guidance, watermarks, embeddings
            for a prompt).
    """
    refuse_other_modes("guided_generate", generation_config, assistant_model)
    _check(model, generation_config, discriminator, guidance, num_candidates, model_kwargs)
    _check_inputs(input_ids, model_kwargs)
    if guidance != "stepwise":
        _check_of_whole_texts(guidance, generation_config, logits_processor, synced_gpus)
    width = input_ids.shape[1]
    if isinstance(discriminator, torch.nn.Module):
        check_shared_tokens(model, discriminator, generator_tokenizer or tokenizer, discriminator_tokenizer)
        longest = int(prompt_mask(input_ids, model_kwargs).sum(1).max())
        check_length(discriminator, longest + generation_config.max_length - width)
    # Step-wise decoding comes before temperature and truncation.
    sampling = Sampling() if guidance == "stepwise" else Sampling.of(generation_config)
    temperature = sampling.temperature
    scorer = (
        LogRatio(discriminator, model, width, temperature, temperature, candidate_batch_size, sampling)
        if is_language_model(discriminator)
        else as_scorer(discriminator, candidate_batch_size)
    )
    if guidance == "stepwise":
        processor = DiscriminatorLogitsProcessor(
            scorer,
            weight=guidance_weight,
            top_k=guidance_top_k,
            attention_mask=prompt_mask(input_ids, model_kwargs),
            eos_token_id=eos_token_ids(generation_config),
            prompt_length=width,
        )
        # Before temperature and truncation, which then shape the guided distribution.
        warpers = [i for i, other in enumerate(logits_processor) if type(other).__name__.endswith("Warper")]
        logits_processor.insert(warpers[0] if warpers else len(logits_processor), processor)
        options = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria, **model_kwargs}
        options |= {"streamer": streamer, "synced_gpus": synced_gpus}
        return compat.sample(model, input_ids, generation_config=generation_config, **options)

    given = (model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs)
    sampler = CandidateSampler(*given, scorer, candidate_batch_size)
    if guidance == "reject":
        output = _reject(sampler, num_candidates, rejection_threshold, rejection_max_score, rejection_gamma)
    elif guidance == "particles":
        options = {"has_logps": False, "q_sampling": sampling}
        log_weight = make_log_weight(discriminator, model, temperature, temperature, candidate_batch_size, **options)
        cloud = ParticleFilter(len(input_ids), num_candidates, guidance_temperature)
        output = _grow(sampler, log_weight, cloud, guidance_block)
    else:
        output = _choose(sampler, num_candidates, guidance, guidance_temperature)
    output.sequences = _trim(output.sequences, sampler.lengths(output.sequences).max())
    if streamer is not None:
        for tokens in output.sequences[:, width:].cpu().unbind(1):
            streamer.put(tokens)
        streamer.end()
    return output if generation_config.return_dict_in_generate else output.sequences


def _choose(sampler: CandidateSampler, number: int, guidance: Guidance, temperature: float) -> GuidedGenerateOutput:
    """One of `number` whole texts for each row: resampled by its weight, or the one with the largest logit."""
    rows = torch.arange(len(sampler.input_ids), device=sampler.input_ids.device)
    candidates, scores = sampler.sample(rows, number)
    ess = None
    if guidance == "resample":
        chosen = resample(scores, temperature=temperature)[:, 0]
        ess = effective_sample_size(importance_weights(scores, temperature))
    else:
        chosen = best_of(scores)
    return GuidedGenerateOutput(
        sequences=candidates[rows, chosen],
        discriminator_scores=scores[rows, chosen],
        candidate_scores=scores,
        effective_sample_size=ess,
    )


def _grow(
    sampler: CandidateSampler, log_weight: LogWeight, cloud: ParticleFilter, block_size: int
) -> GuidedGenerateOutput:
    particles, width = cloud.log_weights.shape[1], sampler.input_ids.shape[1]

    def sample(rows: torch.Tensor, context: torch.Tensor, mask: torch.Tensor, position: int, count: int) -> Block:
        return sampler.extend(rows // particles, context, mask, position, count)

    grown = grow(
        sample,
        log_weight,
        cloud,
        sampler.input_ids,
        sampler.prompt_mask,
        sampler.max_length - width,
        block_size,
        sampler.pad_token_id,
    )
    chosen = grown.choose()
    scores = grown.scores.to(sampler.input_ids.device)
    return GuidedGenerateOutput(
        sequences=torch.cat([sampler.input_ids, grown.texts.completions[chosen]], 1),
        discriminator_scores=scores.flatten()[chosen],
        candidate_scores=scores,
        effective_sample_size=grown.effective_sample_size.to(scores),
    )


def _reject(sampler: CandidateSampler, limit: int, threshold, max_score, gamma) -> GuidedGenerateOutput:
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
        candidates, scores = sampler.sample(rows, number)
        tried[rows, done : done + number] = scores
        bound = max_score if max_score is not None else tried[~tried.isnan()].max()
        kept = reject(scores, threshold, bound, gamma)
        # The first that was accepted, else the best so far.
        pick = torch.where(kept.any(1), kept.long().argmax(1), scores.argmax(1))
        positions = torch.arange(len(rows), device=device)
        # One that is ruled out, by minus infinity, is still a text.
        better = kept.any(1) | (scores[positions, pick] > best[rows]) | (done == 0)
        chosen[rows[better]] = candidates[positions, pick][better]
        best[rows[better]] = scores[positions, pick][better]
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
        raise ValueError(
            "guided_generate needs discriminator=, a sequence classifier with one label or a causal language model."
        )
    if guidance not in GUIDANCE:
        raise ValueError(f"there is no guidance {guidance!r}. Choose one of: {', '.join(GUIDANCE)}.")
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}.")
    if model.config.is_encoder_decoder:
        raise ValueError("guided_generate takes causal language models, not encoder-decoders.")
    if not generation_config.do_sample and guidance != "stepwise":
        raise ValueError(f"guidance={guidance!r} needs do_sample=True: greedy decoding gives the same candidate again.")
    cache = model_kwargs.get("past_key_values")
    is_given = cache is not None and (cache.get_seq_length() > 0 or compat.is_given_cache(cache))
    if is_given:
        raise ValueError("guided_generate reads the prompt itself: leave past_key_values out.")


def _check_inputs(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> None:
    if model_kwargs.get("inputs_embeds") is not None:
        raise ValueError(
            "guided_generate shows the discriminator the prompt's tokens: give input_ids, no inputs_embeds."
        )
    if input_ids.shape[1] == 0:
        raise ValueError("guided_generate needs a prompt of at least one token.")


def _check_of_whole_texts(guidance, generation_config, logits_processor, synced_gpus: bool) -> None:
    """Raises `ValueError` for what texts that are sampled side by side and then chosen cannot have."""
    wanted = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
    asked = [name for name in wanted if getattr(generation_config, name, None)]
    if asked and generation_config.return_dict_in_generate:
        raise ValueError(
            f"guidance={guidance!r} chooses among whole texts and keeps nothing of their tokens: leave {asked[0]} out, "
            "or use guidance='stepwise'."
        )
    if synced_gpus:
        raise ValueError(f"guidance={guidance!r} does not keep processes in step: use guidance='stepwise'.")
    for processor in logits_processor:
        # They remember what they did for each row.
        if isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor):
            raise ValueError(f"guidance={guidance!r} does not go with guidance_scale: use guidance='stepwise'.")
        if isinstance(processor, SynthIDTextWatermarkLogitsProcessor):
            raise ValueError(f"guidance={guidance!r} does not go with this watermark: use guidance='stepwise'.")


def _trim(sequences: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    return sequences[:, : int(length)]


def load_discriminator(path: str, language_model: bool = False, **options: Any) -> PreTrainedModel:
    """A discriminator from the folder of a run or checkpoint or the Hub, in evaluation mode.

    Args:
        path: Where it is.
        language_model: Whether a causal language model will do as well, as for guidance. Its config's `architectures`
            tell one from a classifier.
        options: Go to `from_pretrained`.

    Raises:
        ValueError: it has another number of labels, or is a language model where none is wanted.
        OSError: there is none.
    """
    from hf_gpt.files.checkpoints import find_model
    from hf_gpt.files.model_paths import check_exists

    check_exists(str(path))
    path = find_model(str(path))
    name = _language_model_name(path, options)
    if name is not None and language_model:
        return AutoModelForCausalLM.from_pretrained(path, **options).eval()
    if name is not None:
        raise ValueError(
            f"{path} is a language model ({name}), which can guide generation, but here a classifier with one label is "
            "needed. Train one: hf-gpt discriminator."
        )
    model = AutoModelForSequenceClassification.from_pretrained(path, **options)
    check_discriminator(model)
    return model.eval()


def _language_model_name(path: str, options: dict[str, Any]) -> str | None:
    """The class of a causal language model's checkpoint; None of any other, or of an adapter alone."""
    wanted = ("revision", "trust_remote_code", "token", "cache_dir", "subfolder", "local_files_only")
    try:
        config = AutoConfig.from_pretrained(path, **{name: options[name] for name in wanted if name in options})
    except (OSError, ValueError):
        # Whoever loads the model says what is wrong with it.
        return None
    names = config.architectures or []
    return next((name for name in names if name.endswith(("ForCausalLM", "LMHeadModel"))), None)
