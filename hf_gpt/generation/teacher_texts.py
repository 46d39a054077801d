"""Texts of a teacher: sampled from a model here or from a server with OpenAI's API, and stored as they come."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import InferenceClient
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from hf_gpt.data.chat_tokens import TemplateError, encode, render
from hf_gpt.data.collators import pad_rows
from hf_gpt.data.special_tokens import begin_and_end
from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.files.atomic_files import write_json
from hf_gpt.files.checkpoints import find_existing_model
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.decoding.plain_decoder import can_decode


class Teacher(Protocol):
    """Answers prompts by text alone."""

    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        """A completion of each prompt, sampled; the same for the same seed."""


class LocalTeacher:
    """A causal language model of this machine as the teacher.

    Args:
        name_or_path: Folder of a run or checkpoint, or a Hub id.
        max_new_tokens: Most tokens of a text.
        temperature: Of sampling; 0 takes the likeliest token.
        device: Where it runs.
        chat: Whether a prompt is a user's message in the model's chat template, if it has one.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        CheckpointError: there is no such model.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        device: Any = "cpu",
        chat: bool = True,
        trust_remote_code: bool = False,
    ):
        path, options = find_existing_model(name_or_path), {"trust_remote_code": trust_remote_code}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(path, **options)
            self.model = AutoModelForCausalLM.from_pretrained(path, **options).to(device).eval()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"--teacher {name_or_path} is no causal language model: {error}") from error
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.chat = chat and self.tokenizer.chat_template is not None
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        inputs = self._encode(list(prompts))
        sampled = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        if self.temperature == 0:
            sampled = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        torch.manual_seed(seed)
        texts = self.model.generate(
            **inputs,
            **sampled,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            custom_generate=fast_generate if can_decode(self.model) else None,
        )
        width = inputs["input_ids"].shape[1]
        return self.tokenizer.batch_decode(texts[:, width:], skip_special_tokens=True)

    def _encode(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """Ids and mask, padded at the left; an empty prompt is the begin token."""
        begin, _ = begin_and_end(self.tokenizer)
        if self.chat:
            rows = chat_ids(self.tokenizer, prompts)
        else:
            rows = self.tokenizer(prompts, return_attention_mask=False)["input_ids"]
        ids, mask = pad_rows([row or [begin] for row in rows], self.tokenizer.pad_token_id, "left")
        return {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}


def chat_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """What a chat model reads where each prompt is a user's message, up to its answer.

    Raises:
        ConfigError: the chat template refuses a message.
    """
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    try:
        return [encode(tokenizer, render(tokenizer, each, add_generation_prompt=True)[0]) for each in messages]
    except TemplateError as error:
        raise ConfigError(
            f"the teacher's chat template refuses a prompt: {error}. Try --teacher_template none."
        ) from error


class ServedTeacher:
    """A model behind a server with OpenAI's API, such as `transformers serve` or vLLM, as the teacher.

    Args:
        base_url: Address of the server, such as `http://localhost:8000/v1`.
        model: Its name there.
        max_new_tokens: Most tokens of a text.
        temperature: Of sampling.

    The key is that of `HF_TOKEN` or `hf auth login`, if there is one.
    """

    def __init__(self, base_url: str, model: str | None, *, max_new_tokens: int, temperature: float = 1.0):
        self.client = InferenceClient(base_url=base_url)
        self.options = {"max_tokens": max_new_tokens, "temperature": temperature, "model": model}
        self.base_url = base_url

    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        found = []
        for number, prompt in enumerate(prompts):
            try:
                answer = self.client.chat_completion(
                    [{"role": "user", "content": prompt}], seed=seed * 100_000 + number, **self.options
                )
            except Exception as error:
                raise CheckpointError(f"--teacher {self.base_url} does not answer: {error}") from error
            found.append(answer.choices[0].message.content or "")
        return found


def store_teacher_texts(
    path: Path,
    teacher: Callable[[], Teacher],
    prompts: Sequence[str],
    facts: dict[str, Any],
    *,
    batch_size: int = 32,
    seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> list[dict[str, str]]:
    """Samples a completion of each prompt and appends it to a file; goes on with a file that was begun.

    Each batch has random numbers of its own, so a run that was stopped gives the texts of one that was not.

    Args:
        path: JSON lines with `prompt` and `completion`, or with `text` where the prompt is empty. What they depend on
            is beside it, in a file that ends with `.json`.
        teacher: Makes the teacher, which is needed only if texts are missing.
        prompts: Prompts; an empty one asks for an unconditional sample.
        facts: What the texts depend on, such as the teacher's name; JSON.
        batch_size: Prompts at a time.
        seed: Of the samples.
        advance: Called with the number of texts that are there.

    Returns:
        The rows of the file.

    Raises:
        ConfigError: the file holds texts of other settings.
    """
    digest = hashlib.sha256("\0".join(prompts).encode()).hexdigest()[:16]
    wanted = {**facts, "prompts": len(prompts), "digest": digest, "batch_size": batch_size, "seed": seed}
    record = path.with_suffix(".json")
    if path.exists():
        _check_same(record, wanted, path)
    rows = list(_whole_rows(path))
    if len(rows) > len(prompts):
        raise ConfigError(
            f"{path} holds {len(rows):,} texts for {len(prompts):,} prompts: two runs have written it. Remove it."
        )
    # A batch that was cut off is sampled again.
    done = len(rows) if len(rows) >= len(prompts) else len(rows) // batch_size * batch_size
    rows = rows[:done]
    if advance is not None:
        advance(done)
    if done >= len(prompts):
        return rows
    # Before anything is written: a teacher that is not there leaves nothing behind.
    asked = teacher()
    path.parent.mkdir(parents=True, exist_ok=True)
    for first in range(done, len(prompts), batch_size):
        some = prompts[first : first + batch_size]
        added = [_row(prompt, text) for prompt, text in zip(some, asked(some, seed + first), strict=True)]
        if not record.exists():
            # A server is first heard of by its first answer.
            write_json(record, wanted)
        with path.open("ab") as file:
            # What a stopped run had begun of this batch goes.
            file.truncate(sum(map(len, _lines(rows))))
            file.write(b"".join(_lines(added)))
        rows += added
        if advance is not None:
            advance(len(added))
    return rows


def _lines(rows: list[dict[str, str]]) -> list[bytes]:
    return [f"{json.dumps(row, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace") for row in rows]


def _row(prompt: str, text: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": text} if prompt else {"text": text}


def _whole_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a file up to the first line that was cut off."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except ValueError:
            return


def _check_same(record: Path, wanted: dict[str, Any], path: Path) -> None:
    try:
        held = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = {}
    different = sorted(name for name in {*held, *wanted} if held.get(name) != wanted.get(name))
    if different:
        shown = ", ".join(f"{name} {held.get(name)!r} -> {wanted.get(name)!r}" for name in different)
        raise ConfigError(
            f"{path} holds texts of other settings ({shown}). Choose another --output_dir, or remove the file."
        )
