"""A residual energy-based model as one folder: a generator whose texts are weighted by a discriminator of whole texts.

```python
pair = ResidualLanguageModel.from_pretrained("runs/residual")
ids = pair.tokenizer("Once upon a time", return_tensors="pt")
pair.generate(**ids, max_new_tokens=60, num_candidates=16)
```

The folder is a checkpoint of the generator with `discriminator/`, `residual.json` and `custom_generate/` inside. So
whatever opens checkpoints opens the generator. Transformers' own `generate` samples from the pair by the folder:
`model.generate(**ids, custom_generate="runs/residual/model", trust_remote_code=True)`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.errors import CheckpointError
from hf_gpt.files.atomic_files import write_json
from hf_gpt.files.checkpoints import find_existing_model
from hf_gpt.files.model_paths import optional_file
from hf_gpt.generation.guidance.guided_generate import GuidedGenerateOutput, guided_generate, load_discriminator
from hf_gpt.generation.scoring.discriminator import check_discriminator
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens, tokenizer_difference
from hf_gpt.generation.scoring.texts import TextDiscriminator


DISCRIMINATOR, METRICS, DECODING = "discriminator", "residual.json", "custom_generate"
# Candidates of a text. More come nearer to the residual model, at as many times the cost of sampling.
NUM_CANDIDATES = 16


class ResidualLanguageModel:
    """p(x) = q(x) e^l(x) / Z: a generator q and the logit l of a discriminator, over whole texts.

    Source: Deng et al. 2020, https://arxiv.org/abs/2004.11714.

    Args:
        generator: q, a causal language model.
        discriminator: A sequence classifier with one label that reads the generator's tokens; [`TextDiscriminator`] if
            it has a tokenizer of its own.
        tokenizer: The generator's.
        metrics: What was measured of the pair, such as its gain in held-out likelihood; saved with it.

    Raises:
        ValueError: the discriminator has another number of labels.
        TokensError: it reads other tokens.
    """

    def __init__(
        self,
        generator: PreTrainedModel,
        discriminator: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        metrics: Mapping[str, Any] | None = None,
    ):
        check_discriminator(discriminator)
        if not isinstance(discriminator, TextDiscriminator):
            check_shared_tokens(generator, discriminator, tokenizer)
        self.generator, self.discriminator, self.tokenizer = generator, discriminator, tokenizer
        self.metrics = dict(metrics or {})

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> "ResidualLanguageModel":
        """Opens the pair from a folder or the Hub, both in evaluation mode.

        Args:
            name_or_path: Folder that `save_pretrained` wrote, folder of its run, or a Hub id.
            revision: Branch, tag or commit of a Hub id.
            trust_remote_code: Whether code that comes with the models may be run.
            options: Further arguments of both `from_pretrained`, such as `dtype`.

        Raises:
            CheckpointError: there is no such folder, or it holds no pair.
        """
        path = find_existing_model(str(name_or_path))
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        if (metrics := read_metrics(path, revision)) is None:
            raise CheckpointError(
                f"{name_or_path} is no residual model: it holds no {METRICS}. Make one: hf-gpt discriminator "
                "--objective residual."
            )
        tokenizer = AutoTokenizer.from_pretrained(path, **source)
        generator = AutoModelForCausalLM.from_pretrained(path, **source, **options).eval()
        discriminator = open_discriminator(path, tokenizer, subfolder=DISCRIMINATOR, **source, **options)
        return cls(generator, discriminator, tokenizer, metrics)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the pair: the generator's checkpoint with the discriminator, the metrics and the decoding inside."""
        folder = Path(save_directory)
        self.generator.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.discriminator.save_pretrained(folder / DISCRIMINATOR)
        if not isinstance(self.discriminator, TextDiscriminator):
            self.tokenizer.save_pretrained(folder / DISCRIMINATOR)
        (folder / DECODING).mkdir(exist_ok=True)
        for name in ("generate.py", "requirements.txt"):
            shutil.copyfile(Path(__file__).parents[1] / DECODING / name, folder / DECODING / name)
        write_json(folder / METRICS, {"format": 1, **self.metrics})

    def generate(
        self, inputs: torch.Tensor | None = None, *, num_candidates: int = NUM_CANDIDATES, **options: Any
    ) -> "GuidedGenerateOutput | torch.LongTensor":
        """Samples of p: of `num_candidates` samples of q, one with probability softmax(l).

        The distribution is p as the number grows. Other arguments are those of `generate` and `guided_generate`.

        Returns:
            (B, T) int64 sequences, or [`GuidedGenerateOutput`] with `return_dict_in_generate=True`.
        """
        chosen = {"do_sample": True, **options, "num_candidates": num_candidates}
        return self.generator.generate(
            inputs, custom_generate=guided_generate, discriminator=self.discriminator, **chosen
        )

    def to(self, device: torch.device | str) -> "ResidualLanguageModel":
        """The same pair with both models on a device."""
        self.generator.to(device)
        self.discriminator.to(device)
        return self


def read_metrics(name_or_path: str, revision: str | None = None) -> dict[str, Any] | None:
    """What was measured of a residual model; None of any other checkpoint.

    Raises:
        CheckpointError: the file is damaged.
    """
    found = optional_file(name_or_path, METRICS, revision=revision)
    if found is None:
        return None
    try:
        content = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{found} cannot be read: {error}. Write the pair again; without the file the folder is a generator."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{found} holds no JSON object.")
    return content


def open_discriminator(
    name_or_path: str, tokenizer: PreTrainedTokenizerBase, *, subfolder: str = "", **options: Any
) -> PreTrainedModel:
    """A discriminator as a reader of a generator's tokens, through text if it has another tokenizer.

    Args:
        name_or_path: Its folder or Hub id.
        tokenizer: The generator's.
        subfolder: Where it lies within, such as `"discriminator"` of a residual model.
        options: Go to `from_pretrained`.

    Raises:
        ValueError: it has another number of labels.
        OSError: there is none.
    """
    path = find_existing_model(name_or_path)
    if subfolder and Path(path).is_dir() and not (Path(path) / subfolder).is_dir():
        raise CheckpointError(f"{path} holds no folder {subfolder}: the pair is damaged. Make or pull it anew.")
    discriminator = load_discriminator(path, subfolder=subfolder, **options)
    wanted = {name: options[name] for name in ("revision", "trust_remote_code") if name in options}
    own = AutoTokenizer.from_pretrained(path, subfolder=subfolder, **wanted)
    if tokenizer_difference(own, tokenizer) is None:
        return discriminator
    return TextDiscriminator(discriminator, own, tokenizer)
