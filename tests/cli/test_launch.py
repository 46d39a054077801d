import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_gpt.cli.main import main
from hf_gpt.data.examples import sample_file
from hf_gpt.errors import ConfigError
from hf_gpt.training.distributed.launch import PROFILES, built_in_profiles, launch_command, split_launch_options
from hf_gpt.training.optim.ema import WEIGHT_AVERAGE_NAME


def test_profiles_are_what_accelerate_reads():
    from accelerate.commands.config.config_args import ClusterConfig

    assert built_in_profiles() == ["ddp", "fsdp2", "single", "tp", "zero1", "zero2", "zero3"]
    for name in built_in_profiles():
        content = yaml.safe_load((PROFILES / f"{name}.yaml").read_text())
        ClusterConfig.from_yaml_file(str(PROFILES / f"{name}.yaml"))
        assert isinstance(content["distributed_type"], str)


def test_options_are_taken_out():
    argv = ["pretrain", "--accelerate", "ddp", "--seed", "1", "--num_processes=2"]
    assert split_launch_options(argv) == ("ddp", 2, ["pretrain", "--seed", "1"])
    assert split_launch_options(["pretrain"]) == (None, None, ["pretrain"])


def test_the_launcher_follows_the_machine():
    on_gpus = launch_command("fsdp2", None, ["pretrain", "--seed", "1"], num_gpus=8)
    assert on_gpus[1:3] == ["-m", "accelerate.commands.launch"] and on_gpus[-5:] == [
        "-m",
        "hf_gpt",
        "pretrain",
        "--seed",
        "1",
    ]
    assert on_gpus[on_gpus.index("--num_processes") + 1] == "8"
    on_cpu = launch_command("ddp", 2, ["pretrain"], num_gpus=0)
    assert on_cpu[2] == "torch.distributed.run" and on_cpu[on_cpu.index("--nproc_per_node") + 1] == "2"
    for profile, gpus, option in (("tp", 0, "tensor_parallel"), ("tp", 2, "tensor_parallel"), ("fsdp2", 0, "fsdp")):
        sharded = launch_command(profile, 2, ["pretrain"], num_gpus=gpus)
        assert sharded[-2:] == [f"--{option}_size", "2"]
    both = ["pretrain", "--fsdp_size", "2", "--tensor_parallel_size=2"]
    assert launch_command("tp", 4, both, num_gpus=0)[-5:] == ["hf_gpt", *both]
    assert launch_command("single", None, ["pretrain"], num_gpus=8)[6] == "1"


@pytest.mark.parametrize("profile", ["zero1", "zero2", "zero3"])
def test_deepspeed_is_told_to_talk_on_a_cpu(profile, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    on_cpu = launch_command(profile, 2, ["pretrain"], num_gpus=0)
    assert on_cpu[2] == "accelerate.commands.launch" and on_cpu[on_cpu.index("--num_processes") + 1] == "2"
    assert on_cpu[-2:] == ["--ddp_backend", "gloo"]
    assert launch_command(profile, 2, ["pretrain"], num_gpus=2)[-1] == "pretrain"


@pytest.mark.parametrize(
    ("profile", "processes", "gpus", "message"),
    [
        ("fsdp", None, 8, "did you mean fsdp2?"),
        ("zero1", 2, 0, "--accelerate zero1 needs DeepSpeed. Install it: pip install deepspeed"),
        ("ddp", 9, 8, "more than the 8 GPUs"),
        ("zero3", None, 8, "pip install deepspeed"),
    ],
)
def test_what_cannot_be_launched(profile, processes, gpus, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        launch_command(profile, processes, ["pretrain"], num_gpus=gpus)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pretrain", "--accelerate"], "--accelerate needs a value"),
        (["pretrain", "--accelerate", "ddp", "--num_processes", "two"], "must be a number above 0"),
        (["pretrain", "--num_processes", "2"], "needs --accelerate"),
    ],
)
def test_slips_are_one_line(argv, message, capsys):
    assert main(argv) == 2
    assert message in capsys.readouterr().err


TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
PRETRAIN = {
    "config_overrides": {**TINY, "output_projection_init": "normal"},
    "optimizer": "adamw",
    "tokenizer_vocab_size": 300,
    "max_length": 32,
    "max_steps": 4,
    "save_steps": 2,
    "logging_steps": 1,
    "sample_max_new_tokens": 4,
}
TRANSLATE = {
    "task": "translation",
    "source_column": "en",
    "target_column": "de",
    # Wide weights, so that the answers to different prompts differ.
    "config_overrides": {**TINY, "output_projection_init": "normal", "initializer_range": 0.5},
    "optimizer": "adamw",
    "tokenizer_vocab_size": 300,
    "max_length": 96,
    "max_new_tokens": 6,
    "validation_fraction": 0.15,
    "max_steps": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    # 7 examples in parts of 2 for each of 2 processes: one row too few.
    "per_device_eval_batch_size": 2,
}
# Tensor parallelism in pairs of processes, and FSDP2 over the pairs.
BOTH = "tp_and_fsdp2"
# The profile fsdp2 as on GPUs: Accelerate shards, not Transformers.
BY_ACCELERATE = "fsdp2_by_accelerate"


@pytest.fixture
def launch(tmp_path):
    """Runs a command in processes of its own, one where no profile is given; returns the folder of the run."""

    def launch(command, settings, profile=None, *options):
        folder = tmp_path / (profile or "one")
        # In all processes together 4 rows a step; those of a tensor-parallel group have the same ones.
        rows = 2 if profile in ("ddp", "fsdp2", BOTH, BY_ACCELERATE) else 4
        path = tmp_path / f"{folder.name}.json"
        path.write_text(json.dumps({**settings, "per_device_train_batch_size": rows, "output_dir": str(folder)}))
        call = [sys.executable, "-m", "hf_gpt", command, "--config", str(path), *options]
        if profile == BOTH:
            call += ["--accelerate", "tp", "--num_processes", "4", "--tensor_parallel_size", "2", "--fsdp_size", "2"]
        elif profile == BY_ACCELERATE:
            call = launch_command("fsdp2", 2, call[3:], num_gpus=2)
            module = call.index("hf_gpt")
            call[module - 1 : module + 1] = [str(Path(__file__).with_name("fsdp_on_cpu.py"))]
        elif profile is not None:
            call += ["--accelerate", profile, "--num_processes", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=300, check=False)
        assert process.returncode == 0, process.stderr[-3000:]
        return folder

    return launch


def assert_same_weights(found, expected, tolerance=1e-5, name="model.safetensors"):
    found, expected = load_file(found / name), load_file(expected / name)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).norm() <= tolerance * tensor.norm(), name


def assert_opens_as(found, expected):
    """The same config and code, for those who have the package and those who have not."""
    assert json.loads((found / "config.json").read_text()) == json.loads((expected / "config.json").read_text())
    codes = [{path.name: path.read_text() for path in folder.glob("*.py")} for folder in (found, expected)]
    assert codes[0] == codes[1] and "modeling_hf_gpt.py" in codes[0]
    AutoModelForCausalLM.from_pretrained(found)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["ddp", "fsdp2", "tp", BOTH, BY_ACCELERATE])
def test_pretraining_in_several_processes_equals_one(profile, launch, corpus_file):
    settings = {
        **PRETRAIN,
        "train_file": [str(corpus_file)],
        "ema_decay": 0.9,
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    one, two = launch("pretrain", settings), launch("pretrain", settings, profile)
    assert_same_weights(two / "model", one / "model")
    assert_opens_as(two / "model", one / "model")
    assert (two / "checkpoint-2/pytorch_model_fsdp.bin").is_file() is (profile == BY_ACCELERATE)
    for folder in ("checkpoint-2", "checkpoint-4"):
        assert_same_weights(two / folder, one / folder)
        assert_same_weights(two / folder, one / folder, name=WEIGHT_AVERAGE_NAME)
    weights, average = (
        load_file(one / folder / "model.safetensors")["model.norm.weight"] for folder in ("checkpoint-4", "model")
    )
    assert not torch.equal(weights, average)
    losses = [
        json.loads((run / "checkpoint-4" / "trainer_state.json").read_text())["log_history"] for run in (one, two)
    ]
    first, second = ([entry["loss"] for entry in log if "loss" in entry] for log in losses)
    assert first == pytest.approx(second, rel=1e-5) and len(first) == 4

    # Resumed in two processes it is the straight run again, and a checkpoint of two serves one process, but for that of
    # Accelerate's FSDP, which the library keeps for FSDP.
    for name in ("checkpoint-4", "model"):
        shutil.rmtree(two / name)
    checkpoint = str(two / "checkpoint-2")
    launch("pretrain", settings, profile, "--resume_from_checkpoint", checkpoint)
    assert_same_weights(two / "model", one / "model")
    if profile == BY_ACCELERATE:
        return
    shutil.rmtree(one)
    launch("pretrain", settings, None, "--resume_from_checkpoint", checkpoint)
    assert_same_weights(one / "model", two / "model")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["fsdp2", "tp", BOTH, BY_ACCELERATE])
def test_muon_on_sharded_matrices_trains_as_on_whole_ones(profile, launch, corpus_file):
    settings = {**PRETRAIN, "train_file": [str(corpus_file)], "optimizer": "muon"}
    one, two = launch("pretrain", settings), launch("pretrain", settings, profile)
    # Newton-Schulz runs in bfloat16, which turns the last bit of a gradient into a thousandth of an update.
    assert_same_weights(two / "model", one / "model", tolerance=2e-3)
    logs = [json.loads((run / "checkpoint-4" / "trainer_state.json").read_text())["log_history"] for run in (one, two)]
    first, second = ([entry["loss"] for entry in log if "loss" in entry] for log in logs)
    assert first == pytest.approx(second, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["ddp", "fsdp2", "tp", BOTH, BY_ACCELERATE])
def test_what_two_processes_write_is_what_one_writes(profile, launch):
    one, two = launch("finetune", TRANSLATE), launch("finetune", TRANSLATE, profile)
    lines = (one / "predictions.jsonl").read_text().splitlines()
    assert (two / "predictions.jsonl").read_text().splitlines() == lines
    assert len(lines) == 7 and len({json.loads(line)["prediction"] for line in lines}) > 3
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    for name in ("eval_loss", "eval_chrf"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["ddp", "fsdp2", "tp", BOTH, BY_ACCELERATE])
def test_classes_that_two_processes_predict_are_those_of_one(profile, launch):
    settings = {
        **{name: value for name, value in TRANSLATE.items() if "column" not in name and name != "max_new_tokens"},
        "task": "classification",
    }
    one, two = launch("finetune", settings), launch("finetune", settings, profile)
    assert (two / "predictions.jsonl").read_text() == (one / "predictions.jsonl").read_text()
    assert_same_weights(two / "model", one / "model")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["ddp", "fsdp2", BOTH, BY_ACCELERATE])
def test_streamed_examples_are_shared_by_processes(profile, launch, tmp_path):
    # Rows of different lengths, of which each process has others.
    settings = {
        **{name: value for name, value in TRANSLATE.items() if "column" not in name and name != "max_new_tokens"},
        "task": "classification",
        "streaming": True,
        "shuffle_buffer_size": 6,
        "validation_file": [str(sample_file("classification"))],
        "max_eval_samples": 7,
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 6,
    }
    one, two = launch("finetune", settings), launch("finetune", settings, profile)
    assert_same_weights(two / "model", one / "model")
    positions = [(run / "checkpoint-6" / "stream_position.json").read_text() for run in (one, two)]
    assert positions[0] == positions[1]
    shutil.rmtree(two / "model")
    shutil.rmtree(two / "checkpoint-6")
    launch("finetune", settings, profile, "--resume_from_checkpoint", str(two / "checkpoint-4"))
    assert_same_weights(two / "model", one / "model")


def test_sizes_of_shards_are_checked(tmp_path, capsys):
    options = ["--output_dir", str(tmp_path / "run"), "--train_file", "tinyshakespeare"]
    assert main(["pretrain", *options, "--tensor_parallel_size", "2"]) == 2
    assert "must be the number of processes, 1" in capsys.readouterr().err
