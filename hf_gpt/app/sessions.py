"""A model of the app that writes, a token at a time; the page is in `page`."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, TextIteratorStreamer

from hf_gpt.app.judge import Judge
from hf_gpt.app.settings import MOST_NEW_TOKENS, Settings, check_text, explain
from hf_gpt.app.stopping import StopCheck, StoppedError, stoppable
from hf_gpt.cli.generate import is_fast
from hf_gpt.cli.guided_generate import as_guide
from hf_gpt.data.chat_tokens import TemplateError, encode, render
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.guidance.guided_generate import guided_generate


# Guidance samples with PyTorch's one generator: two at once would spoil each other's seed.
_GLOBAL_RANDOM_NUMBERS = threading.Lock()


@dataclass(frozen=True)
class Draft:
    """A text as far as it is written.

    Attributes:
        text: Prompt and continuation; of a chat model the answer alone.
        num_tokens: New tokens.
        seconds: Since it was begun.
        ending: None while it is written; `"end"` where the model ended it, `"length"` at the most tokens, `"stopped"`.
    """

    text: str
    num_tokens: int = 0
    seconds: float = 0.0
    ending: str | None = None


class Writer:
    """A causal language model that writes."""

    def __init__(self, candidate: Candidate, examples: list[str] | None = None):
        self.candidate = candidate
        self.examples = list(examples or [])
        self.is_fast = is_fast(candidate.model)

    @property
    def is_chat(self) -> bool:
        """Whether it answers messages, by a chat template."""
        return bool(self.candidate.tokenizer.chat_template)

    @property
    def most_new_tokens(self) -> int:
        """Most new tokens after the shortest prompt."""
        limit = self.candidate.limit
        return MOST_NEW_TOKENS if limit is None else max(1, limit - 1)

    def room(self, prompt: str) -> int:
        """Most new tokens that the model has positions for after a prompt.

        Raises:
            ValueError: there is none, the prompt is too long to be read, or the chat template refuses it.
        """
        length, limit = len(self._ids(prompt)), self.candidate.limit
        if limit is None:
            return MOST_NEW_TOKENS
        if length >= limit:
            raise ValueError(
                f"The prompt has {length:,} tokens, but {self.candidate.name} reads {limit:,}, new ones included. "
                "Shorten it."
            )
        return limit - length

    def write(
        self, prompt: str, settings: Settings, judge: Judge | None = None, stop: threading.Event | None = None
    ) -> Iterator[Draft]:
        """Drafts of a text, longer and longer; with guidance that chooses among whole texts, the chosen one alone.

        It is written in a thread of its own, which ends when `stop` is set or nobody reads on.

        Raises:
            ValueError: there is no room for the prompt, no discriminator to guide by, or generation failed.
        """
        prompt = check_text(prompt, "The prompt")
        if self.is_chat and not prompt.strip():
            raise ValueError(f"{self.candidate.name} answers questions. Ask one.")
        settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, self.room(prompt)))
        stop = threading.Event() if stop is None else stop
        streamer = _Streamer(self.candidate.tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = self._options(prompt, settings, judge)
        failures: list[BaseException] = []
        thread = threading.Thread(
            target=self._generate, args=(options, settings, streamer, stop, failures), daemon=True
        )
        start, began = "" if self.is_chat else prompt, time.perf_counter()
        draft = Draft(start)
        thread.start()
        try:
            yield draft
            for part in streamer:
                if part:
                    text, seconds = draft.text + part, time.perf_counter() - began
                    draft = Draft(text, streamer.num_tokens, seconds)
                    yield draft
        except GeneratorExit:
            stop.set()
            raise
        finally:
            thread.join()
        was_stopped = bool(failures) and isinstance(failures[0], StoppedError)
        if failures and not was_stopped:
            raise ValueError(explain(failures[0])) from failures[0]
        ending = "stopped" if was_stopped else "length" if streamer.num_tokens >= settings.max_new_tokens else "end"
        yield Draft(draft.text, streamer.num_tokens, time.perf_counter() - began, ending)

    def _ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt with what begins a text, or of a message in the model's chat template."""
        candidate = self.candidate
        if not self.is_chat:
            return [candidate.begin, *candidate.encode([prompt])[0]]
        message = [{"role": "user", "content": prompt}]
        try:
            return encode(candidate.tokenizer, render(candidate.tokenizer, message, add_generation_prompt=True)[0])
        except TemplateError as error:
            raise ValueError(f"The chat template of {candidate.name} refuses the message: {error}") from error

    def _options(self, prompt: str, settings: Settings, judge: Judge | None) -> dict[str, Any]:
        """Arguments of `generate`."""
        model, tokenizer = self.candidate.model, self.candidate.tokenizer
        ids = torch.tensor([self._ids(prompt)], device=model.device)
        pad = tokenizer.pad_token_id
        options: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "max_new_tokens": settings.max_new_tokens,
            "repetition_penalty": settings.repetition_penalty,
            "pad_token_id": tokenizer.eos_token_id if pad is None else pad,
            "logits_processor": LogitsProcessorList([StopCheck()]),
        }
        if settings.guidance is not None:
            return options | self._guidance(settings, judge)
        options |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if settings.temperature > 0:
            options["logits_processor"] += [*settings.processors(), _Sampler(settings.seed, model.device)]
        return options | ({"custom_generate": fast_generate} if self.is_fast else {})

    def _guidance(self, settings: Settings, judge: Judge | None) -> dict[str, Any]:
        if judge is None:
            raise ValueError("There is no discriminator to guide by. Start the app with --discriminator.")
        if settings.temperature == 0:
            raise ValueError("A discriminator chooses among texts that differ. Use a temperature above 0.")
        model, tokenizer = self.candidate.model, self.candidate.tokenizer
        guidance = str(settings.guidance)
        return settings.options() | {
            "custom_generate": guided_generate,
            "discriminator": as_guide(judge.model, judge.tokenizer, tokenizer, guidance, model),
            "guidance": guidance,
            "num_candidates": settings.num_candidates,
        }

    def _generate(
        self,
        options: dict[str, Any],
        settings: Settings,
        streamer: "_Streamer",
        stop: threading.Event,
        failures: list[BaseException],
    ) -> None:
        """Generates in its own thread; what goes wrong is told to the one that reads."""
        try:
            with stoppable(stop):
                if settings.guidance is None:
                    self.candidate.model.generate(streamer=streamer, **options)
                    return
                with _GLOBAL_RANDOM_NUMBERS:
                    torch.manual_seed(settings.seed)
                    self.candidate.model.generate(streamer=streamer, **options)
        except BaseException as error:
            failures.append(error)
        finally:
            # A second end is not read.
            streamer.end()


class _Streamer(TextIteratorStreamer):
    """Counts the new tokens."""

    num_tokens = 0

    def put(self, value: torch.Tensor) -> None:
        if not self.next_tokens_are_prompt:
            self.num_tokens += value.numel()
        super().put(value)


class _Sampler(LogitsProcessor):
    """Samples a token by random numbers of its own and leaves no other, so that texts can be written side by side.

    The numbers are those of PyTorch's generator with this seed, so `generate` samples the same.
    """

    def __init__(self, seed: int, device: torch.device):
        self.generator = torch.Generator(device).manual_seed(seed)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if bool(scores.isnan().any()):
            raise ValueError("The model's logits are not numbers: its weights are damaged, or overflow in float16.")
        tokens = torch.multinomial(scores.softmax(-1), 1, generator=self.generator)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)
