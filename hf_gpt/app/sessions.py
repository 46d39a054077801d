"""Models and discriminator of the app; the page is in `page`."""

import html
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from hf_gpt.cli.guided_generate import as_guide
from hf_gpt.cli.score import score_texts
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.files.checkpoints import find_existing_model
from hf_gpt.generation.devices import pick_device
from hf_gpt.generation.guidance.guided_generate import guided_generate, load_discriminator
from hf_gpt.generation.scoring.discriminator import ScoreError
from hf_gpt.reporting.heatmap import coloured, largest_change, text_tokens


# Models sample with PyTorch's one generator: two at once would spoil each other's seed.
_SAMPLING = threading.Lock()
_SECONDS_WITHOUT_A_TOKEN = 300


@dataclass
class Settings:
    """How a text is sampled; temperature 0 takes the likeliest token, `guidance` is one of `GUIDANCE` or None."""

    max_new_tokens: int = 100
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    guidance: str | None = None
    num_candidates: int = 8

    def options(self) -> dict[str, Any]:
        """The settings as `generate` takes them."""
        if self.temperature == 0:
            options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        else:
            options = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
            if self.min_p > 0:
                options["min_p"] = self.min_p
        return {"max_new_tokens": self.max_new_tokens, "repetition_penalty": self.repetition_penalty, **options}


@dataclass
class Judge:
    """A discriminator with its tokenizer."""

    model: PreTrainedModel
    tokenizer: Any

    def verdict(self, text: str) -> str:
        """Logit and probability of a text as HTML; a causal discriminator also colours the tokens."""
        if not text.strip():
            return "<p>There is no text to judge.</p>"
        try:
            return self._verdict(text)
        except ScoreError as error:
            return f"<p>{html.escape(str(error))}</p>"

    def _verdict(self, text: str) -> str:
        try:
            (result,) = score_texts(self.model, self.tokenizer, [text], per_token=True)
            tokens = coloured(text_tokens(result), largest_change([result]))
        except ScoreError:
            raise
        except ValueError:
            (result,) = score_texts(self.model, self.tokenizer, [text])
            tokens = ""
        says = "looks real" if result["logit"] > 0 else "looks generated"
        cut = " Only its first part was read." if result.get("truncated") else ""
        head = f"<p><b>{result['probability']:.0%} real</b>: it {says} (logit {result['logit']:+.2f}).{cut}</p>"
        return f'{head}<pre dir="auto" class="tokens">{tokens}</pre>' if tokens else head


class _Stopped(StoppingCriteria):
    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class Writer:
    """A causal language model that writes, a text at a time."""

    def __init__(self, candidate: Candidate):
        self.candidate = candidate

    def write(self, prompt: str, settings: Settings, judge: Judge | None = None) -> Iterator[str]:
        """Prompt and continuation, longer and longer; with guidance once, when it is chosen.

        Raises:
            ValueError: there is no room for the prompt, or no discriminator to guide by.
        """
        model, tokenizer = self.candidate.model, self.candidate.tokenizer
        ids = torch.tensor([[self.candidate.begin, *self.candidate.encode([prompt])[0]]], device=model.device)
        limit = self.candidate.limit
        if limit is not None and ids.shape[1] + settings.max_new_tokens > limit:
            raise ValueError(
                f"The prompt has {ids.shape[1]} tokens and {settings.max_new_tokens} more are wanted, but the model "
                f"reads {limit}. Shorten one of them."
            )
        options = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **settings.options()}
        if settings.guidance is not None:
            yield self._guided(prompt, options, settings, judge)
            return
        streamer = TextIteratorStreamer(
            tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=_SECONDS_WITHOUT_A_TOKEN
        )
        failures: list[Exception] = []
        stopped = threading.Event()
        options["stopping_criteria"] = StoppingCriteriaList([_Stopped(stopped)])

        def generate() -> None:
            try:
                with _SAMPLING:
                    torch.manual_seed(settings.seed)
                    model.generate(streamer=streamer, **options)
            except Exception as error:
                failures.append(error)
                streamer.end()

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        text = prompt
        try:
            yield text
            for part in streamer:
                text += part
                yield text
        finally:
            # Whoever stops reading needs no more tokens, and the next text waits for this one.
            stopped.set()
        thread.join()
        if failures:
            raise ValueError(str(failures[0])) from failures[0]

    def _guided(self, prompt: str, options: dict[str, Any], settings: Settings, judge: Judge | None) -> str:
        if judge is None:
            raise ValueError("There is no discriminator to guide by. Start the app with --discriminator.")
        if settings.temperature == 0:
            raise ValueError("A discriminator chooses among texts that differ. Use a temperature above 0.")
        tokenizer = self.candidate.tokenizer
        with _SAMPLING:
            torch.manual_seed(settings.seed)
            sequences = self.candidate.model.generate(
                custom_generate=guided_generate,
                discriminator=as_guide(
                    judge.model, judge.tokenizer, tokenizer, settings.guidance, self.candidate.model
                ),
                guidance=settings.guidance,
                num_candidates=settings.num_candidates,
                **options,
            )
        length = options["input_ids"].shape[1]
        return prompt + tokenizer.decode(sequences[0, length:], skip_special_tokens=True)


def open_judge(path: str, device: str | None, revision: str = "main", trust_remote_code: bool = False) -> Judge:
    """The discriminator at a path or Hub id.

    Raises:
        ValueError: it has several labels.
        OSError: there is none.
    """
    chosen = pick_device(device)
    folder = find_existing_model(path)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    return Judge(load_discriminator(folder, **options).to(chosen), tokenizer)
