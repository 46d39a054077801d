"""Checkpoints to evaluate: model class, tokenizer, device and fingerprint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError

from hf_gpt.errors import UserError


@dataclass
class Candidate:
    """A model under evaluation.

    Attributes:
        name: What tables call it.
        model, tokenizer: Both from its checkpoint; the model is in evaluation mode.
        head: `"causal"`, `"encoder_decoder"`, `"classifier"` or `"extractive"`.
        discriminator: Of a residual model, the other part of it.
    """

    name: str
    model: Any
    tokenizer: Any
    head: str
    discriminator: Any = None

    @property
    def begin(self) -> int:
        """The token that begins a text; without a begin token the end token.

        Raises:
            UserError: the tokenizer has neither.
        """
        found = self.tokenizer.bos_token_id
        found = self.tokenizer.eos_token_id if found is None else found
        if found is None:
            raise UserError(f"{self.name}: its tokenizer has neither a BOS nor an EOS token. Set one and save it.")
        return found

    @property
    def limit(self) -> int | None:
        """Most tokens that the model reads; None where nothing limits it."""
        from hf_gpt.generation.scoring.texts import max_positions

        return max_positions(self.model)

    def limit_with(self, most: int | None) -> int | None:
        """Most tokens that the model reads, `most` at the most; None where neither limits it."""
        return min((limit for limit in (self.limit, most) if limit is not None), default=None)

    def check_writes(self) -> None:
        """Raises `UserError` for a model that writes no text."""
        if self.head not in ("causal", "encoder_decoder"):
            raise UserError(f"{self.name} is a {self.head} model; this task needs one that writes text.")

    def as_prompt(self, ids: list[int]) -> list[int]:
        """A prompt's token ids as the model reads them: after the begin token, or in an encoder before the end token.

        Raises:
            UserError: the tokenizer has no such token.
        """
        begin = self.begin
        return [*ids, self.tokenizer.eos_token_id] if self.head == "encoder_decoder" else [begin, *ids]

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, without tokens around them; a special token that is spelled out stays text."""
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return self.tokenizer(texts, split_special_tokens=True, **options)["input_ids"]


def split_name(argument: str) -> tuple[str | None, str]:
    """The name and the path of `NAME=PATH`; None and the path where no name is given."""
    name, sign, path = argument.partition("=")
    if sign and name and path and not any(mark in name for mark in "/\\."):
        return name, path
    return None, argument


def name_models(arguments: list[str]) -> dict[str, str]:
    """A short name for each model, to its path.

    Raises:
        UserError: two models would have the same name.
    """
    named: dict[str, str] = {}
    for argument in arguments:
        given, path = split_name(argument)
        name = given or _short_name(path)
        if name in named and given is None:
            name = path
        if name in named:
            raise UserError(f"two models are called {name!r}. Name them apart: NAME=PATH.")
        named[name] = path
    return named


def fingerprint(path: str, revision: str = "main") -> str:
    """A hash of the names and contents of the model's files; for a Hub id its revision."""
    from hf_gpt.files.checkpoints import find_model

    found = Path(find_model(path))
    if not found.is_dir():
        return f"{path}@{revision}"
    facts = sorted(
        (str(file.relative_to(found)), _content(file))
        for file in found.rglob("*")
        if file.is_file() and "checkpoint-" not in str(file.relative_to(found))
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _content(file: Path) -> str:
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while block := stream.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def open_candidate(
    name: str,
    path: str,
    *,
    device: str | None = None,
    dtype: str = "auto",
    revision: str = "main",
    trust_remote_code: bool = False,
) -> Candidate:
    """Loads a checkpoint, a run's folder or a Hub id with the Auto class that its config calls for.

    Raises:
        UserError: there is none, or it cannot be loaded.
    """
    import transformers

    from hf_gpt.files.checkpoints import find_existing_model
    from hf_gpt.generation.devices import pick_device
    from hf_gpt.generation.guidance.residual_model import DISCRIMINATOR, open_discriminator, read_metrics

    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        chosen = pick_device(device)
        folder = find_existing_model(path)
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        head, auto_class = _head(config)
        tokenizer = open_tokenizer(folder, **options)
        model = getattr(transformers, auto_class).from_pretrained(folder, dtype=dtype, **options)
        discriminator = None
        if read_metrics(folder, revision) is not None:
            discriminator = open_discriminator(folder, tokenizer, subfolder=DISCRIMINATOR, dtype=dtype, **options)
            discriminator.to(chosen)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    return Candidate(name, model.to(chosen).eval(), tokenizer, head, discriminator)


def open_tokenizer(folder: str, **options: Any) -> Any:
    """The tokenizer beside a model.

    Args:
        folder: Where the model lies, or a Hub id.
        options: Go to `from_pretrained`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **options)
    # A file that is not what it should be is met by errors of every kind.
    except Exception as error:
        said = " ".join(str(error).split())[:120]
        raise UserError(
            f"{folder} has no tokenizer that can be read. Save the model's own there, by its save_pretrained. "
            f"({type(error).__name__}: {said})"
        ) from error


def _head(config: Any) -> tuple[str, str]:
    architecture = (getattr(config, "architectures", None) or [""])[0] or ""
    if architecture.endswith("ForSequenceClassification"):
        return "classifier", "AutoModelForSequenceClassification"
    if architecture.endswith("ForQuestionAnswering"):
        return "extractive", "AutoModelForQuestionAnswering"
    if getattr(config, "is_encoder_decoder", False):
        return "encoder_decoder", "AutoModelForSeq2SeqLM"
    return "causal", "AutoModelForCausalLM"


def _short_name(path: str) -> str:
    parts = [part for part in Path(path).parts if part not in ("model", ".", "/")]
    if len(parts) > 1 and parts[-1].startswith("checkpoint-"):
        return "/".join(parts[-2:])
    return parts[-1] if parts else path
