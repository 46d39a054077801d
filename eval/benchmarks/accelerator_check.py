"""
Everything that only an accelerator can show, in one call: results against the CPU's, then the benchmarks.

    python -m eval.benchmarks.accelerator_check --output_dir runs/accelerator --seconds 480

Each check compares what the device computes with what the CPU does in float32, or one way of computing on the device
with another. A check that fails or breaks is written down with its reason, and the next one runs. Benchmarks are
`python -m eval.benchmarks.speed` in processes of their own for as long as there is time. Files are written after each
step: checks.json, checks.md and a folder for each benchmark. Where there is no accelerator all of it runs on the CPU,
as a rehearsal.

Returns 1 if a check failed.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from eval.benchmarks.speed.machine import default_device
from eval.benchmarks.speed.models import SIZES
from eval.benchmarks.speed.timing import synchronize
from eval.experiments.common.adversarial import QUIET
from eval.experiments.common.reports import markdown_table
from hf_gpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification
from hf_gpt.files.atomic_files import write_json, write_text
from hf_gpt.reporting.environment import describe_environment


# Largest difference of logits, whose own size is about 1.
FLOAT32, HALF = 1e-3, 0.1


@dataclass
class Stage:
    """The models that checks share.

    Attributes:
        size: A key of `speed.models.SIZES`.
        vocab_size: Tokens in the vocabulary.
        length: Tokens in a row.
        device: Where the checked side runs.
    """

    size: str
    vocab_size: int
    length: int
    device: torch.device

    @cached_property
    def config(self) -> HfGptConfig:
        ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
        return HfGptConfig(vocab_size=self.vocab_size, max_position_embeddings=2048, **SIZES[self.size], **ends)

    @cached_property
    def reference(self) -> HfGptForCausalLM:
        """The model on the CPU, in float32."""
        torch.manual_seed(0)
        return HfGptForCausalLM(self.config).eval()

    def model(self, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> HfGptForCausalLM:
        """Its copy on the device."""
        model = copy.deepcopy(self.reference)
        model.set_attn_implementation(attention)
        return model.to(self.device, dtype)

    @cached_property
    def ids(self) -> torch.Tensor:
        """Two rows of tokens, on the CPU."""
        generator = torch.Generator().manual_seed(1)
        return torch.randint(1, self.vocab_size, (2, self.length), generator=generator)


def largest_difference(actual: torch.Tensor, expected: torch.Tensor, limit: float) -> dict[str, float]:
    """The largest absolute difference; raises AssertionError above `limit`."""
    found = (actual.float().cpu() - expected.float().cpu()).abs().max().item()
    if not found <= limit:
        raise AssertionError(f"differs by {found:.2g}, allowed is {limit:g}")
    return {"difference": found, "allowed": limit}


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    return model(ids.to(model.device), use_cache=False, **inputs).logits


def logits_float32(stage: Stage) -> dict[str, float]:
    return largest_difference(_logits(stage.model(), stage.ids), _logits(stage.reference, stage.ids), FLOAT32)


def logits_bfloat16(stage: Stage) -> dict[str, float]:
    actual = _logits(stage.model(dtype=torch.bfloat16), stage.ids)
    return largest_difference(actual, _logits(stage.reference, stage.ids), HALF)


def logits_eager(stage: Stage) -> dict[str, float]:
    return largest_difference(_logits(stage.model("eager"), stage.ids), _logits(stage.model(), stage.ids), FLOAT32)


def logits_flex(stage: Stage) -> dict[str, float]:
    actual = _logits(stage.model("flex_attention"), stage.ids)
    return largest_difference(actual, _logits(stage.reference, stage.ids), FLOAT32)


def logits_compiled(stage: Stage) -> dict[str, float]:
    model = stage.model()
    expected = _logits(model, stage.ids)
    model.forward = torch.compile(model.forward, fullgraph=True)
    return largest_difference(_logits(model, stage.ids), expected, FLOAT32)


def packed_documents(stage: Stage) -> dict[str, float]:
    """Two documents in a row against each by itself."""
    model, cut = stage.model(), stage.length // 3
    ids = stage.ids[:1]
    positions = torch.cat([torch.arange(cut), torch.arange(stage.length - cut)]).unsqueeze(0)
    separate = torch.cat([_logits(model, ids[:, :cut]), _logits(model, ids[:, cut:])], dim=1)
    return largest_difference(_logits(model, ids, position_ids=positions), separate, FLOAT32)


def gradients(stage: Stage) -> dict[str, float]:
    """Of the loss in chunks on the device against full logits on the CPU, relative to the largest."""
    found = []
    for model, chunked in ((stage.model(), "always"), (copy.deepcopy(stage.reference), "never")):
        model.train().config.chunked_loss = chunked
        ids = stage.ids.to(model.device)
        model(ids, labels=ids).loss.backward()
        found.append(torch.cat([parameter.grad.flatten().cpu() for parameter in model.parameters()]))
    largest = found[1].abs().max()
    return largest_difference(found[0] / largest, found[1] / largest, FLOAT32)


def greedy_tokens(stage: Stage) -> dict[str, float]:
    """The library's caches (the static one is compiled on an accelerator) and our own steps: the same tokens."""
    from hf_gpt.generation.decoding.fast_generate import fast_generate

    model, new_tokens = stage.model(), min(64, stage.length)
    prompt = stage.ids[:, :8].to(stage.device)
    settings: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": False}
    expected = model.generate(prompt, use_cache=False, **settings)
    ways: dict[str, dict[str, Any]] = {
        "dynamic": {"cache_implementation": "dynamic"},
        "static": {"cache_implementation": "static"},
        "prompt lookup": {"prompt_lookup_num_tokens": 3},
        "fast_generate": {"custom_generate": fast_generate},
    }
    rows = [slice(0, 1) if name == "prompt lookup" else slice(None) for name in ways]
    for (name, way), row in zip(ways.items(), rows, strict=True):
        actual = model.generate(prompt[row], **settings, **way)
        if not torch.equal(actual, expected[row]):
            raise AssertionError(f"{name}: {(actual == expected[row]).float().mean():.1%} of the tokens are the same")
    return {"ways": len(ways), "tokens": expected.numel()}


def rollout_likelihood(stage: Stage) -> dict[str, float]:
    """Log-probabilities kept from sampling against those of a full forward pass."""
    from hf_gpt.generation.sampling.distribution import SamplingConfig
    from hf_gpt.generation.sampling.rollout import rollout
    from hf_gpt.generation.scoring.logprobs import completion_logps

    model = stage.model()
    sampling = SamplingConfig(max_new_tokens=min(64, stage.length))
    samples = rollout(model, stage.ids[:, :8].to(stage.device), sampling=sampling)
    with torch.no_grad():
        again = completion_logps(
            model, samples.sequences, samples.attention_mask, samples.prompt_length, samples.completions
        )
    return largest_difference(samples.logps, again * samples.completion_mask, FLOAT32)


def other_forms(stage: Stage) -> dict[str, float]:
    """Encoder-decoder and LSTM on the device against the CPU."""
    from hf_gpt import HfGptForConditionalGeneration, HfGptSeq2SeqConfig, HfLstmConfig, HfLstmForCausalLM

    size = {"vocab_size": stage.vocab_size, "hidden_size": SIZES[stage.size]["hidden_size"]}
    torch.manual_seed(0)
    pair = HfGptForConditionalGeneration(
        HfGptSeq2SeqConfig(**size, num_hidden_layers=2, num_attention_heads=SIZES[stage.size]["num_attention_heads"])
    ).eval()
    recurrent = HfLstmForCausalLM(HfLstmConfig(**size)).eval()
    found = {}
    for name, model, inputs in (("pair", pair, {"decoder_input_ids": stage.ids}), ("lstm", recurrent, {})):
        expected = _logits(model, stage.ids, **inputs)
        actual = _logits(copy.deepcopy(model).to(stage.device), stage.ids, **inputs)
        found[name] = largest_difference(actual, expected, FLOAT32)["difference"]
    return {"difference": max(found.values()), "allowed": FLOAT32}


def training(stage: Stage) -> dict[str, float]:
    """Some steps of `HfGptTrainer` in bfloat16 on rows that repeat: the loss falls."""
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    model = stage.model().train()
    arguments = HfGptTrainingArguments(
        output_dir=tempfile.mkdtemp(),
        max_steps=20,
        per_device_train_batch_size=2,
        learning_rate=3e-3,
        bf16=True,
        use_cpu=stage.device.type == "cpu",
        **QUIET,
    )
    rows = [{"input_ids": row, "labels": row} for row in stage.ids] * 20

    def loss() -> float:
        ids = stage.ids.to(stage.device)
        with torch.no_grad():
            return model(ids, labels=ids).loss.item()

    before = loss()
    HfGptTrainer(model=model, args=arguments, train_dataset=rows).train()
    after = loss()
    if not after < before - 0.5:
        raise AssertionError(f"the loss went from {before:.3f} to {after:.3f}")
    return {"before": before, "after": after}


def adversarial(stage: Stage) -> dict[str, float]:
    """A few steps of `AdversarialTrainer` in bfloat16: generator and discriminator change."""
    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer

    generator = stage.model().train()
    generator.config.eos_token_id = 1
    config = copy.deepcopy(generator.config)
    config.num_labels = 1
    discriminator = HfGptForSequenceClassification(config).to(stage.device)
    before = [_first_weight(model) for model in (generator, discriminator)]
    arguments = AdversarialConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=3,
        per_device_train_batch_size=4,
        max_new_tokens=16,
        discriminator_warmup_steps=2,
        gate_auc=0.0,
        monitor_steps=2,
        num_eval_samples=0,
        bf16=True,
        use_cpu=stage.device.type == "cpu",
        **QUIET,
    )
    rows = [{"input_ids": row[:16].tolist()} for row in stage.ids] * 32
    AdversarialTrainer(model=generator, discriminator=discriminator, args=arguments, train_dataset=rows).train()
    moved = [
        (_first_weight(model) - former).abs().max().item()
        for model, former in zip((generator, discriminator), before, strict=True)
    ]
    if not min(moved) > 0:
        raise AssertionError(f"generator and discriminator changed by {moved[0]:.2g} and {moved[1]:.2g}")
    return {"generator moved": moved[0], "discriminator changed": moved[1]}


def _first_weight(model: PreTrainedModel) -> torch.Tensor:
    return next(p for p in model.parameters() if p.ndim > 1).detach().float().cpu().clone()


CHECKS: dict[str, Callable[[Stage], dict[str, float]]] = {
    "logits, float32": logits_float32,
    "logits, bfloat16": logits_bfloat16,
    "logits, eager attention": logits_eager,
    "logits, flex attention": logits_flex,
    "logits, compiled": logits_compiled,
    "packed documents": packed_documents,
    "gradients": gradients,
    "greedy tokens": greedy_tokens,
    "log-probabilities of a rollout": rollout_likelihood,
    "encoder-decoder and LSTM": other_forms,
    "training": training,
    "adversarial training": adversarial,
}

# Options of `python -m eval.benchmarks.speed`, the most telling first.
BENCHMARKS = {
    "train-124m": "train --size 124m --vocab_size 50304 --length 1024 --rows 16 --steps 5 --compile",
    "loss": "loss",
    "decode-124m": "decode --size 124m --vocab_size 50304 --dtypes bfloat16 float32",
    "rollout-10m": "rollout",
    "adversarial-10m": "adversarial",
    "train-10m": "train --rows 64 --steps 5 --compile",
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/accelerator"))
    parser.add_argument(
        "--seconds", type=float, default=480, help="for all; benchmarks that no longer fit are left out"
    )
    parser.add_argument("--size", choices=list(SIZES), default="10m", help="of the models that are checked")
    parser.add_argument("--vocab_size", type=int, default=8192, help="of the models that are checked")
    parser.add_argument("--length", type=int, default=512, help="tokens in a row that is checked")
    parser.add_argument("--checks", nargs="*", choices=list(CHECKS), default=list(CHECKS), metavar="NAME")
    parser.add_argument("--benchmarks", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS), metavar="NAME")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs checks, then benchmarks; returns 1 if a check failed."""
    options = make_parser().parse_args(argv)
    began = time.perf_counter()
    # Rounded products would hide what is looked for.
    torch.set_float32_matmul_precision("highest")
    stage = Stage(options.size, options.vocab_size, options.length, default_device())
    environment, rows = describe_environment(), []
    for name in options.checks:
        rows.append(run_check(name, stage))
        print(f"{rows[-1]['verdict']:7} {name}: {rows[-1]['told']}", flush=True)
        write_json(options.output_dir / "checks.json", {"environment": environment, "checks": rows})
    columns = {"check": "name", "verdict": "verdict", "found": "told", "seconds": "seconds:.1f"}
    report = markdown_table(rows, columns)
    write_text(options.output_dir / "checks.md", report + "\n")
    for name in options.benchmarks:
        left = options.seconds - (time.perf_counter() - began)
        print(f"\n# {name}: {run_benchmark(name, options.output_dir, left)}", flush=True)
    return int(any(row["verdict"] != "passed" for row in rows))


def run_check(name: str, stage: Stage) -> dict[str, Any]:
    """A row: its verdict (passed, failed, or broken where there was no answer), what was found, and the seconds."""
    began = time.perf_counter()
    found: dict[str, float] = {}
    try:
        found = CHECKS[name](stage)
        synchronize()
        verdict, told = "passed", ", ".join(f"{key} {value:.3g}" for key, value in found.items())
    except AssertionError as error:
        verdict, told = "failed", str(error)
    except Exception as error:
        traceback.print_exc()
        verdict, told = "broken", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return {"name": name, "verdict": verdict, "told": told, "seconds": time.perf_counter() - began, **found}


def run_benchmark(name: str, output_dir: Path, seconds: float) -> str:
    """`python -m eval.benchmarks.speed` in a process of its own for at most so long; what became of it."""
    if seconds < 20:
        return "left out, no time is left"
    command = [sys.executable, "-m", "eval.benchmarks.speed", *BENCHMARKS[name].split()]
    try:
        status = subprocess.run([*command, "--output_dir", str(output_dir / name)], timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    return "done" if status == 0 else f"ended with status {status}"


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
