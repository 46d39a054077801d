"""The part of `hf-gpt generate` that a discriminator guides."""

from dataclasses import dataclass
from typing import Any, Literal

from hf_gpt.cli.command import option


@dataclass(frozen=True, kw_only=True)
class GuidanceOptions:
    """How a discriminator guides generation."""

    _argument_group_name = "guided by a discriminator"
    discriminator: str | None = option(
        None,
        "folder of a discriminator or checkpoint, or a Hub id, by which texts are chosen: a classifier with one label, "
        "or another language model with the same tokenizer, whose texts are then imitated",
    )
    guidance: Literal["resample", "reject", "best_of_n", "particles", "stepwise"] | None = option(
        None,
        "resample: one of the candidates, likelier the more real it looks; reject: the first that is accepted; "
        "best_of_n: the most real; particles: a particle filter (sequential Monte Carlo) over prefixes; stepwise: "
        "token by token. The last two need a discriminator of prefixes (hf-gpt discriminator --level prefix) or a "
        "language model. Left out: resample",
    )
    num_candidates: int = option(8, "texts to choose from, at most")
    guidance_temperature: float = option(1.0, "of resample and particles")
    guidance_block: int = option(4, "tokens of particles between two resamplings")
    guidance_weight: float = option(1.0, "of stepwise")
    guidance_top_k: int = option(20, "tokens that stepwise tries")
    rejection_threshold: float | None = option(None, "reject: accept above this probability of being real")
    num_return_sequences: int = option(1, "texts to print")


def guided_options(args: Any, tokenizer: Any, device: Any, model: Any = None) -> dict[str, Any]:
    """What `generate` needs for guidance; loads the discriminator that is given, or that of a residual model.

    Empty for a generator alone.

    Raises:
        ValueError: a discriminator with several labels, or with another tokenizer where `as_guide` takes none; a
            temperature of 0 with guidance that samples; guidance without a discriminator, or a threshold without
            rejection.
        OSError: there is no such discriminator.
    """
    from hf_gpt.generation.guidance.guided_generate import guided_generate

    if args.rejection_threshold is not None and args.guidance != "reject":
        raise ValueError("--rejection_threshold is for --guidance reject alone. Add that, or leave the threshold out.")
    guidance = args.guidance or "resample"
    discriminator = _discriminator(args, tokenizer, guidance, model)
    if discriminator is None and args.guidance is not None:
        raise ValueError(
            f"--guidance {args.guidance} needs --discriminator: one made by hf-gpt discriminator, or a larger model."
        )
    if discriminator is None:
        return {}
    if args.temperature == 0 and guidance != "stepwise":
        raise ValueError(
            f"--temperature 0 gives the same candidate each time, and --guidance {guidance} needs several. "
            "Use a temperature above 0, or --guidance stepwise."
        )
    names = ("num_candidates", "rejection_threshold")
    names += ("guidance_temperature", "guidance_block", "guidance_weight", "guidance_top_k")
    return {
        "custom_generate": guided_generate,
        "discriminator": discriminator.to(device),
        "guidance": guidance,
        "do_sample": args.temperature != 0,
        **{name: getattr(args, name) for name in names},
    }


def _discriminator(args: Any, tokenizer: Any, guidance: str, model: Any) -> Any:
    """The discriminator that is given, else that of a residual model; None of a generator alone."""
    from transformers import AutoTokenizer

    from hf_gpt.files.checkpoints import explains_model_errors, find_existing_model
    from hf_gpt.generation.guidance.guided_generate import load_discriminator
    from hf_gpt.generation.guidance.residual_model import DISCRIMINATOR, open_discriminator, read_metrics

    options = {"trust_remote_code": args.trust_remote_code}
    if args.discriminator is None:
        path = find_existing_model(args.model)
        if read_metrics(path, args.revision) is None:
            return None
        return open_discriminator(path, tokenizer, subfolder=DISCRIMINATOR, revision=args.revision, **options)
    path = find_existing_model(args.discriminator)
    discriminator = load_discriminator(path, language_model=True, **options)
    with explains_model_errors(path):
        own_tokenizer = AutoTokenizer.from_pretrained(path, **options)
    return as_guide(discriminator, own_tokenizer, tokenizer, guidance, model)


def as_guide(discriminator: Any, own_tokenizer: Any, tokenizer: Any, guidance: str, model: Any = None) -> Any:
    """The discriminator as what guides a generator with this tokenizer, through text where its own is another.

    Raises:
        ValueError: too few embeddings, or another tokenizer, of a language model or for guidance that scores
            prefixes.
    """
    from hf_gpt.generation.guidance.guided_generate import PREFIX_GUIDANCE
    from hf_gpt.generation.scoring.discriminator import describe_scorer
    from hf_gpt.generation.scoring.log_ratio import is_language_model
    from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens, tokenizer_difference
    from hf_gpt.generation.scoring.texts import TextDiscriminator

    if tokenizer_difference(own_tokenizer, tokenizer) is None:
        check_shared_tokens(model, discriminator, tokenizer, own_tokenizer)
        return discriminator
    if is_language_model(discriminator):
        raise ValueError(
            f"{describe_scorer(discriminator)} has another tokenizer: a language model guides a generator of its own "
            "tokens. Use one trained with the generator's tokenizer, or train a classifier: hf-gpt discriminator."
        )
    if guidance in PREFIX_GUIDANCE:
        raise ValueError(
            f"--guidance {guidance} needs a discriminator over the generator's own tokens, and "
            f"{describe_scorer(discriminator)} has another tokenizer. Use resample, reject or best_of_n, or train one: "
            "hf-gpt discriminator."
        )
    return TextDiscriminator(discriminator, own_tokenizer, tokenizer)


def print_texts(tokenizer: Any, sequences: Any) -> None:
    """Prints each text, several of them with a line between."""
    texts = tokenizer.batch_decode(sequences, skip_special_tokens=True)
    print("\n----\n".join(texts), flush=True)
