"""`model.generate` guided by a discriminator: `custom_generate=guided_generate`, for any causal language model.

```python
discriminator = load_discriminator("runs/discriminator/model")
model.generate(
    **inputs, do_sample=True, custom_generate=guided_generate, discriminator=discriminator, num_candidates=16
)
```

Or guided by a language model of the same tokens, such as a larger one:

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
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.generation.logits_process import (
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)
from transformers.utils import ModelOutput, logging

from hf_gpt import compat
from hf_gpt.generation.decoding.generate_options import GenerateCall, decoding_method, refuse_other_modes
from hf_gpt.generation.guidance.candidates import CandidateSampler, eos_token_ids, prompt_mask
from hf_gpt.generation.guidance.log_weights import make_log_weight
from hf_gpt.generation.guidance.logits_processor import DiscriminatorLogitsProcessor, Scorer, as_scorer
from hf_gpt.generation.guidance.particle_filter import Block, ParticleFilter, grow
from hf_gpt.generation.guidance.selection import best_of, effective_sample_size, importance_weights, reject, resample
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.scoring.discriminator import check_discriminator, check_length, describe_scorer
from hf_gpt.generation.scoring.log_ratio import LogRatio, is_language_model
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens
from hf_gpt.generation.scoring.texts import TextDiscriminator


logger = logging.get_logger(__name__)

Guidance = Literal["resample", "reject", "best_of_n", "particles", "stepwise"]
GUIDANCE: tuple[str, ...] = ("resample", "reject", "best_of_n", "particles", "stepwise")
# Those that score prefixes of texts.
PREFIX_GUIDANCE = ("particles", "stepwise")


@dataclasses.dataclass
class GuidedGenerateOutput(ModelOutput):
    """What guided generation returns with `return_dict_in_generate=True`; B rows, N candidates for each.

    Attributes:
        sequences: (B, T) int64, prompt and chosen completion.
        discriminator_scores: (B,) float32, logits of the chosen.
        candidate_scores: (B, N) float32, logits of all candidates; nan for those that rejection did not need.
        effective_sample_size: (B,) float32, 1 to N, of resampling. Near 1 the choice has hardly an alternative, so more
            candidates would change the text; near N the discriminator hardly matters. Of particles: of the final
            weights.
        accepted: (B,) bool, of rejection: whether a candidate was accepted. If not, the text is the best of those
            tried.
    """

    sequences: torch.LongTensor | None = None
    discriminator_scores: torch.FloatTensor | None = None
    candidate_scores: torch.FloatTensor | None = None
    effective_sample_size: torch.FloatTensor | None = None
    accepted: torch.BoolTensor | None = None


@dataclasses.dataclass(frozen=True)
class GuidanceOptions:
    """Options of `guided_generate`.

    Args:
        discriminator: What gives the logit l of prompt and completion, over the generator's tokens. A sequence
            classifier with one label. Or a function of sequences and mask, both (n, length), that returns (n,) logits.
            Or a causal language model psi, with l = log psi - log q of the completion, both at the temperature of
            generation (1 in step-wise decoding). q is the distribution after top-k, top-p and min-p; other logits
            processors do not count in it.
        guidance: `"resample"`: one of `num_candidates` with probability softmax(l / guidance_temperature).
            `"reject"`: the first of at most `num_candidates` that is accepted. `"best_of_n"`: the largest logit.
            `"particles"`: `num_candidates` prefixes grow side by side and are resampled, see `grow_particles`.
            `"stepwise"`: token by token, see `DiscriminatorLogitsProcessor`. The last two need a discriminator that
            judges prefixes.
        num_candidates: Samples for each row.
        guidance_temperature: Of resampling, of whole texts or particles.
        guidance_weight, guidance_top_k: Of step-wise decoding.
        rejection_threshold: Accept where sigmoid(l) is above this. None: discriminator rejection sampling.
        rejection_max_score: The largest possible logit. None: the largest so far, which makes the first rows of a call
            easier to accept.
        rejection_gamma: See `acceptance_probabilities`.
        guidance_block: Tokens that particles grow by between two scorings.
        candidate_batch_size: Texts generated and scored at a time. None: all at once.
        generator_tokenizer, discriminator_tokenizer: To check that the models share their tokens. None: `tokenizer`,
            else those saved where the models were loaded from.

    Raises:
        ValueError: no discriminator, another guidance, or no candidate.
    """

    discriminator: PreTrainedModel | Scorer | None = None
    guidance: Guidance = "resample"
    num_candidates: int = 8
    guidance_temperature: float = 1.0
    guidance_weight: float = 1.0
    guidance_top_k: int = 20
    rejection_threshold: float | None = None
    rejection_max_score: float | None = None
    rejection_gamma: float = 0.0
    guidance_block: int = 4
    candidate_batch_size: int | None = None
    generator_tokenizer: PreTrainedTokenizerBase | None = None
    discriminator_tokenizer: PreTrainedTokenizerBase | None = None

    def __post_init__(self):
        if self.discriminator is None:
            raise ValueError(
                "guided_generate needs discriminator=, a sequence classifier with one label or a causal language model."
            )
        if self.guidance not in GUIDANCE:
            raise ValueError(f"there is no guidance {self.guidance!r}. Choose one of: {', '.join(GUIDANCE)}.")
        if self.guidance in PREFIX_GUIDANCE and isinstance(self.discriminator, TextDiscriminator):
            raise ValueError(
                f"guidance {self.guidance} scores prefixes, and {describe_scorer(self.discriminator.discriminator)} "
                "has another tokenizer than the generator. Use resample, reject or best_of_n."
            )
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates must be at least 1, got {self.num_candidates}.")


@decoding_method(GuidanceOptions)
def guided_generate(call: GenerateCall, options: GuidanceOptions) -> GuidedGenerateOutput | torch.LongTensor:
    """Decoding method for `generate(custom_generate=guided_generate, discriminator=..., ...)`.

    Each returned row has candidates of its own, so rows of one prompt (`num_return_sequences`) are independent. Random
    numbers come from PyTorch's global generator: `torch.manual_seed` repeats them. A streamer gets each token in
    step-wise decoding, and otherwise the chosen texts.

    Args:
        call: From `generate`.
        options: See `GuidanceOptions`; `generate` takes them as arguments.

    Returns:
        (B, T) int64 sequences, or [`GuidedGenerateOutput`] with `return_dict_in_generate=True`.

    Raises:
        TokensError: generator and discriminator do not share their tokens, see `check_shared_tokens`.
        ScoreError: the discriminator's scores are not numbers.
        ValueError: a discriminator with too few positions, settings out of range, beam search, an encoder-decoder, a
            given cache, or embeddings for a prompt. Without step-wise decoding also greedy decoding, scores or hidden
            states of tokens, classifier-free guidance and watermarks.
    """
    refuse_other_modes("guided_generate", call)
    _check(call, options)
    discriminator, width = options.discriminator, call.input_ids.shape[1]
    # Step-wise decoding comes before temperature and truncation.
    is_stepwise = options.guidance == "stepwise"
    sampling = SamplingConfig() if is_stepwise else SamplingConfig.of(call.generation_config)
    if is_language_model(discriminator):
        tempered = SamplingConfig(sampling.temperature)
        scorer = LogRatio(discriminator, call.model, width, tempered, sampling, options.candidate_batch_size)
    else:
        scorer = as_scorer(discriminator, options.candidate_batch_size)
    if is_stepwise:
        return _stepwise(call, options, scorer)
    sampler = CandidateSampler(call, scorer, options.candidate_batch_size)
    choose = {"reject": _reject, "particles": _grow}.get(options.guidance, _choose)
    output = choose(sampler, options)
    output.sequences = output.sequences[:, : int(sampler.lengths(output.sequences).max())]
    if call.streamer is not None:
        for tokens in output.sequences[:, width:].cpu().unbind(1):
            call.streamer.put(tokens)
        call.streamer.end()
    return output if call.generation_config.return_dict_in_generate else output.sequences


def _stepwise(call: GenerateCall, options: GuidanceOptions, scorer: Scorer) -> Any:
    processor = DiscriminatorLogitsProcessor(
        scorer,
        weight=options.guidance_weight,
        top_k=options.guidance_top_k,
        attention_mask=prompt_mask(call.input_ids, call.model_kwargs),
        eos_token_id=eos_token_ids(call.generation_config),
        prompt_length=call.input_ids.shape[1],
    )
    # Before temperature and truncation, which then shape the guided distribution.
    warpers = [i for i, other in enumerate(call.logits_processor) if type(other).__name__.endswith("Warper")]
    call.logits_processor.insert(warpers[0] if warpers else len(call.logits_processor), processor)
    return call.plain()


def _choose(sampler: CandidateSampler, options: GuidanceOptions) -> GuidedGenerateOutput:
    """One of several whole texts for each row: resampled by its weight, or the one with the largest logit."""
    rows = torch.arange(len(sampler.input_ids), device=sampler.input_ids.device)
    candidates, scores = sampler.sample(rows, options.num_candidates)
    temperature, ess = options.guidance_temperature, None
    if options.guidance == "resample":
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


def _grow(sampler: CandidateSampler, options: GuidanceOptions) -> GuidedGenerateOutput:
    particles, width = options.num_candidates, sampler.input_ids.shape[1]
    sampling = SamplingConfig.of(sampler.call.generation_config)
    log_weight = make_log_weight(
        options.discriminator,
        sampler.model,
        sampling.temperature,
        sampling,
        options.candidate_batch_size,
        has_logps=False,
    )

    def sample(rows: torch.Tensor, context: torch.Tensor, mask: torch.Tensor, position: int, count: int) -> Block:
        return sampler.extend(rows // particles, context, mask, position, count)

    grown = grow(
        sample,
        log_weight,
        ParticleFilter(len(sampler.input_ids), particles, options.guidance_temperature),
        sampler.input_ids,
        sampler.prompt_mask,
        sampler.max_length - width,
        options.guidance_block,
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


def _reject(sampler: CandidateSampler, options: GuidanceOptions) -> GuidedGenerateOutput:
    """The first candidate of each row that is accepted, else the best of all."""
    size, device, limit = len(sampler.input_ids), sampler.input_ids.device, options.num_candidates
    rows = torch.arange(size, device=device)
    tried = torch.full((size, limit), torch.nan, device=device)
    best = torch.full((size,), -torch.inf, device=device)
    chosen = torch.full((size, sampler.max_length), sampler.pad_token_id, device=device)
    accepted = torch.zeros(size, dtype=torch.bool, device=device)
    done = 0
    while done < limit and len(rows):
        # Rows without a text yet share the room of the others.
        number = min(limit - done, max(1, size // len(rows)))
        candidates, scores = sampler.sample(rows, number)
        tried[rows, done : done + number] = scores
        bound = options.rejection_max_score
        bound = tried[~tried.isnan()].max() if bound is None else bound
        kept = reject(scores, options.rejection_threshold, bound, options.rejection_gamma)
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
            f"{len(rows)} of {size} texts had no candidate accepted in {limit} tries and are the best of those. Raise "
            "num_candidates, or lower the rejection threshold or gamma."
        )
    return GuidedGenerateOutput(sequences=chosen, discriminator_scores=best, candidate_scores=tried, accepted=accepted)


def _check(call: GenerateCall, options: GuidanceOptions) -> None:
    guidance, generation_config = options.guidance, call.generation_config
    if call.model.config.is_encoder_decoder:
        raise ValueError("guided_generate takes causal language models, not encoder-decoders.")
    if not generation_config.do_sample and guidance != "stepwise":
        raise ValueError(f"guidance={guidance!r} needs do_sample=True: greedy decoding gives the same candidate again.")
    cache = call.model_kwargs.get("past_key_values")
    if cache is not None and (cache.get_seq_length() > 0 or compat.is_given_cache(cache)):
        raise ValueError("guided_generate reads the prompt itself: leave past_key_values out.")
    if call.model_kwargs.get("inputs_embeds") is not None:
        raise ValueError(
            "guided_generate shows the discriminator the prompt's tokens: give input_ids, no inputs_embeds."
        )
    width = call.input_ids.shape[1]
    if width == 0:
        raise ValueError("guided_generate needs a prompt of at least one token.")
    if guidance != "stepwise":
        _check_of_whole_texts(guidance, call)
    if isinstance(options.discriminator, torch.nn.Module):
        tokenizers = options.generator_tokenizer or call.tokenizer, options.discriminator_tokenizer
        check_shared_tokens(call.model, options.discriminator, *tokenizers)
        longest = int(prompt_mask(call.input_ids, call.model_kwargs).sum(1).max())
        check_length(options.discriminator, longest + generation_config.max_length - width)


def _check_of_whole_texts(guidance: Guidance, call: GenerateCall) -> None:
    """Raises `ValueError` for what texts that are sampled side by side and then chosen cannot have."""
    wanted = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
    asked = [name for name in wanted if getattr(call.generation_config, name, None)]
    if asked and call.generation_config.return_dict_in_generate:
        raise ValueError(
            f"guidance={guidance!r} chooses among whole texts and keeps nothing of their tokens: leave {asked[0]} out, "
            "or use guidance='stepwise'."
        )
    if call.synced_gpus:
        raise ValueError(f"guidance={guidance!r} does not keep processes in step: use guidance='stepwise'.")
    for processor in call.logits_processor:
        # They keep state for each row.
        if isinstance(processor, UnbatchedClassifierFreeGuidanceLogitsProcessor):
            raise ValueError(f"guidance={guidance!r} does not go with guidance_scale: use guidance='stepwise'.")
        if isinstance(processor, SynthIDTextWatermarkLogitsProcessor):
            raise ValueError(f"guidance={guidance!r} does not go with this watermark: use guidance='stepwise'.")


def load_discriminator(path: str, language_model: bool = False, **options: Any) -> PreTrainedModel:
    """A discriminator from the folder of a run or checkpoint or the Hub, in evaluation mode.

    Args:
        path: Where it is.
        language_model: Whether a causal language model is allowed too, as for guidance. The config's `architectures`
            tell it from a classifier.
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
        # Loading the model reports the fault.
        return None
    names = config.architectures or []
    return next((name for name in names if name.endswith(("ForCausalLM", "LMHeadModel"))), None)
