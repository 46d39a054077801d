"""Checks a saved checkpoint in a fresh process: what it scores and what it writes.

The process knows nothing but the folder and the Auto classes, so what it reports is what a user of the checkpoint gets.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.errors import CheckpointError


# What a launcher tells its processes of each other; a process of its own must not hear of it.
_LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
)


@dataclass(frozen=True)
class ReloadResult:
    """What a reloaded language model scores on the validation texts, what it is, and what it adds to each prompt."""

    bits_per_byte: float
    model_class: str
    num_parameters: int
    samples: list[str]


def in_fresh_process(check: Callable[..., Any], **request: Any) -> Any:
    """What a function of a module returns in a Python process of its own; arguments and result are what JSON can hold.

    Raises:
        CheckpointError: it failed for the folder `checkpoint`; the message ends with its error.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER_VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "-m", __name__, check.__module__, check.__name__, str(path)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment | {"PYTHONIOENCODING": "utf-8"},
            check=False,
        )
    if process.returncode != 0:
        error = process.stderr.strip().splitlines()
        raise CheckpointError(
            f"{request['checkpoint']}: the saved checkpoint does not work in a fresh process: "
            f"{error[-1] if error else f'exit status {process.returncode}'}"
        )
    return json.loads(process.stdout.strip().splitlines()[-1])


def score_and_continue(
    checkpoint: str,
    *,
    documents: Sequence[str],
    packing_strategy: str,
    batch_size: int,
    trust_remote_code: bool,
    **writing: Any,
) -> dict[str, Any]:
    """The fields of `ReloadResult` for the folder of a language model and its tokenizer.

    Texts are packed as in training, so that the score compares. `writing` is as for `continue_prompts`.
    """
    import math

    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hf_gpt.data.packed_dataset import tokenize_and_pack
    from hf_gpt.training.monitoring.likelihood import total_nats

    datasets.disable_progress_bars()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, trust_remote_code=trust_remote_code).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
    texts = datasets.Dataset.from_dict({"text": list(documents)})
    rows = tokenize_and_pack(texts, tokenizer, writing["max_length"], strategy=packing_strategy)
    nats, _ = total_nats(model, rows, batch_size)
    num_bytes = sum(len(text.encode("utf-8")) for text in documents)
    return {
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "model_class": type(model).__name__,
        "num_parameters": model.num_parameters(),
        "samples": continue_prompts(model, tokenizer, **writing),
    }


def continue_prompts(
    model: Any,
    tokenizer: Any,
    *,
    prompts: Sequence[str],
    sampling: Mapping[str, Any],
    sample_batch_size: int,
    max_length: int,
    seed: int,
) -> list[str]:
    """Texts that the model writes after each prompt, without it; an empty prompt starts a new text.

    Args:
        model, tokenizer, prompts: What writes, and after what.
        sampling: Arguments for `generate`.
        sample_batch_size: Prompts continued at once.
        max_length: Most tokens of a prompt and what follows it.
        seed: Of the samples.
    """
    from transformers import set_seed

    from hf_gpt.data.collators import pad_rows

    set_seed(seed)
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] or [begin] for prompt in prompts]
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    texts = []
    for first in range(0, len(encoded), sample_batch_size):
        input_ids, mask = pad_rows(encoded[first : first + sample_batch_size], pad, "left")
        width = input_ids.shape[1]
        most = max(1, min(sampling["max_new_tokens"], max_length - width))
        inputs = {"input_ids": input_ids.to(model.device), "attention_mask": mask.to(model.device)}
        output = model.generate(**inputs, pad_token_id=pad, **{**sampling, "max_new_tokens": most})
        texts += tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return texts


def main() -> int:
    """Calls a function with the request in a file, both named on the command line; prints the result as JSON."""
    module, name, path = sys.argv[1:]
    check = getattr(importlib.import_module(module), name)
    print(json.dumps(check(**json.loads(Path(path).read_text(encoding="utf-8")))))
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main, prints_result=True))
