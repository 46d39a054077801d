"""Decoding, and sampling with log-probabilities: ours against transformers' `generate`, in each type of weights."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from eval.benchmarks.speed.models import KINDS, build
from eval.benchmarks.speed.timing import Contender, timed
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.decoding.linear import check_weight_dtype
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout


PROMPT_LENGTH = 8
MOST_POSITIONS = 1024

# Bytes of a rounded weight.
_WIDTHS = {"bfloat16": 2, "int8": 1}


def greedy(size: str, vocab_size: int, *, rows: int, new_tokens: int, dtype: torch.dtype) -> list[Contender]:
    """The likeliest token each time: `fast_generate` of ours, and `generate` of ours, GPT-2 and Llama.

    With weights in float32 ours in rounded weights takes part as well, and the peers in bfloat16.
    """
    models = _models(KINDS, size, vocab_size, dtype)
    ours = models["hf-gpt"]
    prompt, found = make_prompt(ours, rows, vocab_size), []
    for weight_dtype in weight_dtypes_of(ours) if dtype == torch.float32 else [None]:
        name, can_draft = named("hf-gpt, fast_generate", weight_dtype), rows == 1 and weight_dtype != "int8"
        for speculative in (True, False) if can_draft else (False,):
            settings = {"weight_dtype": weight_dtype, "speculative": speculative}
            run = generation(ours, prompt, new_tokens, custom_generate=fast_generate, **settings)
            title = f"{name}, not speculative" if can_draft and not speculative else name
            found.append(_contender(title, ours, run, rows * new_tokens))
            if not speculative:
                # Every step reads all weights once.
                width = _WIDTHS.get(weight_dtype, ours.dtype.itemsize)
                found[-1].notes["bytes_read"] = new_tokens * ours.num_parameters() * width
    for name, model in models.items():
        run = generation(model, prompt, new_tokens)
        found.append(_contender(f"{name}, generate", model, run, rows * new_tokens))
        found[-1].notes["bytes_read"] = new_tokens * model.num_parameters() * model.dtype.itemsize
    return found


def sampling(size: str, vocab_size: int, *, rows: int, new_tokens: int) -> list[Contender]:
    """Samples with the log-probability of every token; `generate` keeps the scores of every step for it."""
    models = _models(("hf_gpt", "GPT-2"), size, vocab_size, torch.float32)
    ours = models["hf-gpt"]
    prompt, work = make_prompt(ours, rows, vocab_size), rows * new_tokens
    found = []
    for weight_dtype in weight_dtypes_of(ours):
        policy = {"sampling": SamplingConfig(max_new_tokens=new_tokens), "weight_dtype": weight_dtype}
        run = functools.partial(rollout, ours, prompt, **policy)
        found.append(_contender(named("hf-gpt, rollout", weight_dtype), ours, run, work))
    for name, model in models.items():
        found.append(_contender(f"{name}, generate with scores", model, _scored(model, prompt, new_tokens), work))
    return found


def _contender(name: str, model: PreTrainedModel, run: Callable[[], Any], work: int) -> Contender:
    notes = {"parameters": model.num_parameters(), "unit": "tokens"}
    return Contender(name, timed(run), is_ours=name.startswith("hf-gpt"), work=work, notes=notes)


def _models(kinds: Sequence[str], size: str, vocab_size: int, dtype: torch.dtype) -> dict[str, PreTrainedModel]:
    """Models by the name that tables give them: all in `dtype`, and where that is float32 the peers in bfloat16 too."""
    found = {
        kind.replace("hf_gpt", "hf-gpt"): build(kind, size, vocab_size, MOST_POSITIONS, dtype).eval() for kind in kinds
    }
    if dtype == torch.float32:
        for kind in kinds:
            if kind != "hf_gpt":
                found[f"{kind} in bfloat16"] = build(kind, size, vocab_size, MOST_POSITIONS, torch.bfloat16).eval()
    return found


def weight_dtypes_of(model: PreTrainedModel) -> list[str | None]:
    """The types of weights that there are on this device, its own first."""
    found: list[str | None] = [None, "bfloat16"]
    try:
        check_weight_dtype("int8", model.device)
    except ValueError:
        return found
    return [*found, "int8"]


def named(name: str, weight_dtype: str | None) -> str:
    """A contender of ours with rounded weights, or not."""
    return name if weight_dtype is None else f"{name}, {weight_dtype} weights"


def make_prompt(model: PreTrainedModel, rows: int, vocab_size: int) -> torch.Tensor:
    """(`rows`, `PROMPT_LENGTH`) random tokens, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, vocab_size, (rows, PROMPT_LENGTH), generator=generator).to(model.device)


def generation(
    model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int, **settings: Any
) -> Callable[[], torch.Tensor | ModelOutput]:
    """A call of `generate` that takes the likeliest token `new_tokens` times, unless `settings` say otherwise."""
    mask = torch.ones_like(prompt)
    settings = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, **settings}
    return lambda: model.generate(prompt, attention_mask=mask, **settings)


def _scored(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int):
    run = generation(
        model, prompt, new_tokens, do_sample=True, top_k=0, output_scores=True, return_dict_in_generate=True
    )

    def sample() -> torch.Tensor:
        found = run()
        return model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)

    return sample
