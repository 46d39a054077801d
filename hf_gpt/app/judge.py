"""The discriminator of the app: what it says of a text, and how far that can be trusted."""

import html
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from hf_gpt.adversarial.discriminator.held_out_auc import LEAST_AUC, HeldOutAuc, read_held_out_auc
from hf_gpt.app.settings import check_text
from hf_gpt.app.stopping import check_in_layers
from hf_gpt.cli.score import score_texts
from hf_gpt.errors import UserError
from hf_gpt.evaluation.tasks.loading import open_tokenizer
from hf_gpt.files.checkpoints import find_existing_model
from hf_gpt.generation.devices import pick_device
from hf_gpt.generation.guidance.guided_generate import load_discriminator
from hf_gpt.generation.scoring.discriminator import has_causal_prefixes
from hf_gpt.reporting.heatmap import coloured, largest_change, legend, text_tokens


# A probability between them says as little as a coin.
_EVEN = (0.4, 0.6)


@dataclass
class Judge:
    """A discriminator with its tokenizer.

    Attributes:
        model: A classifier with one label.
        tokenizer: Its own, which need not be that of the model that wrote a text.
        held_out: How well it tells texts apart, if that is recorded with it.
    """

    model: PreTrainedModel
    tokenizer: Any
    held_out: HeldOutAuc | None = None

    def __post_init__(self):
        check_in_layers(self.model)

    @property
    def trust(self) -> str:
        """How far its scores can be trusted, in a sentence."""
        if self.held_out is None:
            return "No AUC on unseen texts is recorded with this discriminator: how far to trust it is unknown."
        return f"{self.held_out.describe()}; 0.5 is chance."

    def verdict(self, text: str) -> str:
        """What it says of a text, as HTML; a causal discriminator also colours the tokens.

        Raises:
            ValueError: the text is too long to be read, or its scores are not numbers.
        """
        text = check_text(text, "The text")
        if not text.strip():
            raise ValueError("There is no text to judge. Write or paste one.")
        is_causal = has_causal_prefixes(self.model)
        (result,) = score_texts(self.model, self.tokenizer, [text], per_token=is_causal)
        logit, probability = result["logit"], result["probability"]
        says, why = self._judge(probability)
        cut = " It read the first part of the text alone." if result.get("truncated") else ""
        parts = [
            f"<p><b>{says}</b> {why}It says {probability:.0%} real (logit {logit:+.2f}).{cut}</p>",
            f'<p class="muted">{html.escape(self.trust)}</p>',
        ]
        if is_causal:
            tokens = coloured(text_tokens(result), largest_change([result]))
            parts += [f'<p class="muted legend">{legend()}</p>', f'<pre dir="auto" class="tokens">{tokens}</pre>']
        return "\n".join(parts)

    def _judge(self, probability: float) -> tuple[str, str]:
        """The verdict, and why there is none."""
        held_out = self.held_out
        if held_out is not None and held_out.low <= 0.5:
            return "Cannot tell.", "On unseen texts this discriminator is no better than chance. "
        if held_out is not None and not held_out.carries_a_verdict:
            return "Cannot tell.", f"Below an AUC of {LEAST_AUC} its scores say next to nothing. "
        if _EVEN[0] <= probability <= _EVEN[1]:
            return "Cannot tell.", "That is close to even. "
        return ("Looks real." if probability > 0.5 else "Looks generated."), ""


def open_judge(path: str, device: str | None, revision: str = "main", trust_remote_code: bool = False) -> Judge:
    """The discriminator at a path or Hub id.

    Raises:
        UserError: there is none, it has several labels, or it cannot be loaded.
    """
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        chosen = pick_device(device)
        folder = find_existing_model(path)
        model = load_discriminator(folder, **options).to(chosen)
        tokenizer = open_tokenizer(folder, **options)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"--discriminator {path} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    return Judge(model, tokenizer, read_held_out_auc(folder))
