"""`hf-gpt plan`: what a run would need and cost, from formulas, before anything is started."""

import itertools
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from hf_gpt.cli.command import command, option
from hf_gpt.errors import ConfigError
from hf_gpt.training.monitoring.cost_model import (
    ASSUMED_MFU,
    GPUS,
    SHARDINGS,
    TOKENS_PER_PARAMETER,
    Gpu,
    count_parameters,
    find_gpu,
    forward_flops_per_token,
    memory_per_device,
    run_duration,
    training_flops_per_token,
)
from hf_gpt.training.monitoring.throughput import format_count, format_duration


_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options of the command."""

    preset: str | None = option(
        None, "named size: nano, micro, mini, small, 124m, 350m, 774m, 1b, 1.5b, 3b, 7b", metavar="NAME"
    )
    config_overrides: str | None = option(None, "config fields, as hidden_size=256,num_hidden_layers=6 or as JSON")
    tokens: str | None = option(None, f"tokens, as 20b or 500m; left out: {TOKENS_PER_PARAMETER} a parameter")
    gpus: int = option(1, "GPUs in all")
    gpu: str = option("h100", f"one of {', '.join(GPUS)}")
    peak_tflops: float | None = option(None, "dense bfloat16 TFLOP/s of a GPU, instead of the table's")
    memory_gb: float | None = option(None, "memory of a GPU in 10^9 bytes, instead of the table's")
    price: float | None = option(None, "US dollars for a GPU and hour, instead of the table's")
    mfu: float = option(ASSUMED_MFU, "model FLOPs utilisation")
    max_length: int | None = option(None, "tokens in a row; left out: max_position_embeddings")
    per_device_train_batch_size: int = option(8, "rows on each GPU in a forward pass")
    optimizer: Literal["muon", "adamw"] = option("muon", "it has a state for each weight")
    precision: Literal["bf16", "fp32"] = option("bf16", "of computation")
    tensor_parallel_size: int | None = option(None, "GPUs that share a block; left out: up to 8, as the heads divide")
    json: bool = option(False, "print one JSON object, with bytes and seconds")


def print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """Prints a plan, as lines for people or as one JSON object."""
    print(json.dumps(plan) if as_json else "\n".join(describe_plan(plan)))


def parse_count(text: str, option: str) -> float:
    """A number such as `20b`, `1.5e9` or `500M`.

    Raises:
        ConfigError: it is none, or not above 0.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)", text.strip().lower().replace("_", ""))
    try:
        number = float(match.group(1)) * _SCALES[match.group(2)]
    except (AttributeError, ValueError):
        number = 0.0
    if number <= 0:
        raise ConfigError(f"--{option}: cannot read {text!r} as a number above 0. Write 20b, 500m or 1.5e9.")
    return number


def make_plan(args: PlanOptions) -> dict[str, Any]:
    """The plan in plain types: bytes, seconds, FLOPs, US dollars.

    Raises:
        ConfigError: a setting that cannot be planned with.
    """
    gpu = _gpu(args)
    config = _config(args)
    parameters = count_parameters(config)
    tokens = TOKENS_PER_PARAMETER * parameters.total if args.tokens is None else parse_count(args.tokens, "tokens")
    max_length = args.max_length or config.max_position_embeddings
    ways = args.tensor_parallel_size or _tensor_parallel_size(config.num_key_value_heads, args.gpus)
    if args.gpus % ways or config.num_key_value_heads % ways or config.intermediate_size % ways:
        raise ConfigError(
            f"--tensor_parallel_size {ways} must divide --gpus {args.gpus}, the {config.num_key_value_heads} key/value "
            f"heads and the MLP's width {config.intermediate_size}."
        )
    duration = run_duration(config, tokens=tokens, max_length=max_length, gpu=gpu, gpus=args.gpus, mfu=args.mfu)
    checkpointed = training_flops_per_token(config, max_length, gradient_checkpointing=True)
    return {
        "parameters": {"total": parameters.total, **asdict(parameters)},
        "tokens": tokens,
        "max_length": max_length,
        "flops": {
            "forward_per_token": forward_flops_per_token(config, max_length),
            "training_per_token": training_flops_per_token(config, max_length),
            "training_per_token_with_checkpointing": checkpointed,
            "total": duration.flops,
        },
        "gpu": {"name": args.gpu.lower(), "count": args.gpus, "mfu": args.mfu, **asdict(gpu)},
        "tensor_parallel_size": ways,
        "precision": args.precision,
        "optimizer": args.optimizer,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "memory": _memory(config, args, gpu, max_length, ways),
        "seconds": duration.seconds,
        "gpu_hours": duration.gpu_hours,
        "cost": duration.cost,
    }


def _gpu(args: PlanOptions) -> Gpu:
    given = {
        "peak_flops": None if args.peak_tflops is None else args.peak_tflops * 1e12,
        "memory": None if args.memory_gb is None else args.memory_gb * 1e9,
        "price": args.price,
    }
    return replace(find_gpu(args.gpu), **{name: value for name, value in given.items() if value is not None})


def _memory(config: Any, args: PlanOptions, gpu: Gpu, max_length: int, ways: int) -> list[dict[str, Any]]:
    """Bytes on each GPU, a row for each sharding with and without checkpointing and the chunked loss."""
    sizes = {
        "devices": args.gpus,
        "batch_size": args.per_device_train_batch_size,
        "max_length": max_length,
        "optimizer": args.optimizer,
        "compute_bytes": 2 if args.precision == "bf16" else 4,
        "tensor_parallel_size": ways,
    }
    rows = []
    for sharding, checkpointing, chunked in itertools.product(SHARDINGS, (False, True), (False, True)):
        options = {"gradient_checkpointing": checkpointing, "chunked_loss": chunked}
        found = memory_per_device(config, sharding=sharding, **sizes, **options)
        row = {"sharding": sharding, **options, **asdict(found), "total": found.total}
        rows.append({**row, "fits": found.total <= gpu.memory})
    return rows


def describe_plan(plan: dict[str, Any]) -> list[str]:
    """The plan as lines of text."""
    parameters, flops, gpu = plan["parameters"], plan["flops"], plan["gpu"]
    slower = flops["training_per_token_with_checkpointing"] / flops["training_per_token"]
    lines = [
        f"parameters  {format_count(parameters['total'])} ({parameters['total']:,}): blocks "
        f"{format_count(parameters['hidden'])}, embeddings and head "
        f"{format_count(parameters['embedding'] + parameters['head'])}",
        f"tokens      {format_count(plan['tokens'])}, {plan['tokens'] / parameters['total']:.1f} for each parameter",
        f"FLOPs       {flops['total']:.3g}, {format_count(flops['training_per_token'])} for each token in rows of "
        f"{plan['max_length']:,}",
        f"hardware    {gpu['count']} x {gpu['name']}: {gpu['peak_flops'] / 1e12:.0f} TFLOP/s and "
        f"{gpu['memory'] / 1e9:.0f} GB each",
        "",
        f"GB on each GPU with {plan['per_device_train_batch_size']} rows, {plan['precision']}, {plan['optimizer']} "
        "(zero: adamw; * does not fit):",
        f"  {'':<8}{'weights':>10}{'gradients':>11}{'optimizer':>11}{'all, plain':>12}{'chunked':>10}"
        f"{'checkpt.':>10}{'both':>10}",
    ]
    for sharding in SHARDINGS:
        rows = [row for row in plan["memory"] if row["sharding"] == sharding]
        by_option = {(row["gradient_checkpointing"], row["chunked_loss"]): row for row in rows}
        order = [(False, False), (False, True), (True, False), (True, True)]
        totals = [f"{by_option[key]['total'] / 1e9:.1f}{' ' if by_option[key]['fits'] else '*'}" for key in order]
        first = rows[0]
        name = f"tp x{plan['tensor_parallel_size']}" if sharding == "tp" else sharding
        lines.append(
            f"  {name:<8}{first['weights'] / 1e9:>10.1f}{first['gradients'] / 1e9:>11.1f}"
            f"{first['optimizer'] / 1e9:>11.1f}{totals[0]:>12}{totals[1]:>10}{totals[2]:>10}{totals[3]:>10}"
        )
    return [
        *lines,
        "  chunked: the loss never holds all logits; checkpt.: gradient checkpointing, "
        f"{slower:.2f} times the FLOPs; both: the two together",
        "",
        f"time        {_format_days(plan['seconds'])} at {gpu['mfu']:.0%} of the peak (assumed, --mfu)",
        f"cost        ${plan['cost']:,.2f}: {plan['gpu_hours']:,.1f} GPU hours at ${gpu['price']:.2f} each (assumed, "
        "--price)",
    ]


def _config(args: PlanOptions) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    from hf_gpt.models.configuration_hf_gpt import HfGptConfig
    from hf_gpt.option_values import parse_mapping
    from hf_gpt.training.model import check_fields

    overrides = parse_mapping(args.config_overrides, "config_overrides")
    check_fields(HfGptConfig, overrides)
    try:
        return HfGptConfig(**overrides) if args.preset is None else HfGptConfig.preset(args.preset, **overrides)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConfigError(f"these settings make no hf_gpt config: {error.__cause__ or error}") from error


def _tensor_parallel_size(heads: int, gpus: int) -> int:
    """The most GPUs, up to the 8 of a machine, that divide the heads and all GPUs."""
    return max(ways for ways in range(1, 9) if heads % ways == 0 and gpus % ways == 0)


def _format_days(seconds: float) -> str:
    return format_duration(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


make_parser, main = command(
    "hf-gpt plan",
    "Prints parameters, FLOPs, memory per device under each sharding, days and cost of pretraining an HfGpt model. "
    "Nothing is trained or downloaded. Utilisation and prices are assumptions: set your own.",
    PlanOptions,
    lambda args: print_plan(make_plan(args), as_json=args.json),
    examples=["--preset 1b --tokens 20b --gpus 8", "--preset small --gpu a100 --price 1.5"],
    common="preset tokens gpus gpu price mfu max_length per_device_train_batch_size json",
)
