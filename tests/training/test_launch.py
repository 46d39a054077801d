import json
import subprocess
import sys

import pytest
import yaml

from hf_gpt.cli import main
from hf_gpt.training.errors import ConfigError
from hf_gpt.training.launch import PROFILES, built_in_profiles, launch_command, split_launch_options


def test_profiles_are_what_accelerate_reads():
    from accelerate.commands.config.config_args import ClusterConfig

    assert built_in_profiles() == ["ddp", "fsdp2", "single", "zero3"]
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
    assert launch_command("single", None, ["pretrain"], num_gpus=8)[6] == "1"


@pytest.mark.parametrize(
    ("profile", "processes", "gpus", "message"),
    [
        ("fsdp", None, 8, "did you mean fsdp2?"),
        ("fsdp2", 2, 0, "needs GPUs"),
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


@pytest.mark.slow
def test_pretraining_in_two_processes_equals_one(tmp_path, corpus_file):
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    scores = []
    for processes in (1, 2):
        recipe = {
            "corpus": [str(corpus_file)],
            "config_overrides": tiny,
            "optimizer": "adamw",
            "tokenizer_vocab_size": 300,
            "max_length": 32,
            "per_device_train_batch_size": 4 // processes,
            "max_steps": 4,
            "logging_steps": 1,
            "sample_max_new_tokens": 4,
            "output_dir": str(tmp_path / f"run{processes}"),
        }
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "hf_gpt", "pretrain", "--config", str(tmp_path / "recipe.yaml")]
        launch = ["--accelerate", "ddp", "--num_processes", str(processes)]
        process = subprocess.run([*command, *launch], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-3000:]
        line = next(line for line in process.stdout.splitlines() if line.startswith("bits per byte"))
        scores.append(float(line.split()[3]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
