"""Checks a saved checkpoint in a fresh process: what it scores and what it writes.

The process knows nothing but the folder and the Auto classes, so what it reports is what a user of the checkpoint gets.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
class ReloadRequest:
    """What the fresh process is to do.

    Attributes:
        checkpoint: Folder of the model and its tokenizer.
        documents: Validation texts.
        max_length: Length of a row.
        packing_strategy: As in training, so that the score compares.
        batch_size: Rows scored at once.
        prompts: Texts to continue; an empty one starts a new text.
        sampling: Arguments for `generate`.
        sample_batch_size: Prompts continued at once.
        seed: Seed of the samples.
        trust_remote_code: Whether code in the checkpoint may run.
    """

    checkpoint: str
    documents: Sequence[str]
    max_length: int
    packing_strategy: str
    batch_size: int
    prompts: Sequence[str]
    sampling: Mapping[str, Any]
    sample_batch_size: int = 8
    seed: int = 0
    trust_remote_code: bool = False


@dataclass(frozen=True)
class ReloadResult:
    """What the fresh process found.

    Attributes:
        bits_per_byte: Of the validation texts.
        model_class: Class that the Auto class chose.
        num_parameters: Its parameters.
        samples: What follows each prompt.
    """

    bits_per_byte: float
    model_class: str
    num_parameters: int
    samples: list[str]


def check_in_fresh_process(request: ReloadRequest) -> ReloadResult:
    """Runs this module on a request in a Python process of its own.

    Raises:
        CheckpointError: the checkpoint does not load or does not run there; the message ends with its error.
    """
    return ReloadResult(**run_in_fresh_process("hf_gpt.training.monitoring.reload_check", asdict(request)))


def run_in_fresh_process(module: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a module as a program in a Python process of its own.

    Args:
        module: Its name. It reads a request from the JSON file named on its command line, and ends by printing the
            result as one line of JSON.
        request: With `checkpoint`, the folder that is checked.

    Raises:
        CheckpointError: it failed; the message ends with its error.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER_VARIABLES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "-m", module, str(path)],
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


def run_check(request: ReloadRequest) -> ReloadResult:
    """Loads the checkpoint, scores the documents and continues the prompts."""
    import math

    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hf_gpt.data.packed_dataset import tokenize_and_pack
    from hf_gpt.training.monitoring.likelihood import total_nats

    datasets.disable_progress_bars()
    options = {"trust_remote_code": request.trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(request.checkpoint, **options).eval()
    tokenizer = AutoTokenizer.from_pretrained(request.checkpoint, **options)
    documents = datasets.Dataset.from_dict({"text": list(request.documents)})
    rows = tokenize_and_pack(documents, tokenizer, request.max_length, strategy=request.packing_strategy)
    nats, _ = total_nats(model, rows, request.batch_size)
    num_bytes = sum(len(text.encode("utf-8")) for text in request.documents)
    return ReloadResult(
        bits_per_byte=nats / math.log(2) / num_bytes,
        model_class=type(model).__name__,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        samples=continue_prompts(model, tokenizer, request),
    )


def continue_prompts(model: Any, tokenizer: Any, request: ReloadRequest) -> list[str]:
    """Texts that the model writes after each of the request's prompts, within its context and without the prompts."""
    import torch
    from transformers import set_seed

    set_seed(request.seed)
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] or [begin] for prompt in request.prompts]
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    texts = []
    for first in range(0, len(encoded), request.sample_batch_size):
        batch = encoded[first : first + request.sample_batch_size]
        width = max(len(ids) for ids in batch)
        input_ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch], device=model.device)
        sampling = dict(request.sampling)
        sampling["max_new_tokens"] = max(1, min(sampling["max_new_tokens"], request.max_length - width))
        output = model.generate(input_ids=input_ids, attention_mask=mask, pad_token_id=pad, **sampling)
        texts += tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """Reads a request from the file named on the command line and prints the result as one line of JSON."""
    (path,) = sys.argv[1:] if argv is None else argv
    request = ReloadRequest(**json.loads(Path(path).read_text(encoding="utf-8")))
    print(json.dumps(asdict(run_check(request))))
    return 0


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main, prints_result=True))
