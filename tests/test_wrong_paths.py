"""Names that lead nowhere and folders that cannot be written: a sentence and status 2, at once and before any work."""

import socket
import time

import pytest
import torch
from huggingface_hub import constants

from hf_gpt.cli.main import main
from hf_gpt.errors import UserError
from hf_gpt.files.model_paths import check_exists, looks_like_path
from hf_gpt.files.output_paths import why_not_writable
from hf_gpt.generation.devices import pick_device
from hf_gpt.generation.guidance.guided_generate import load_discriminator
from hf_gpt.hub.loading import load


NOWHERE = ["runs/nope", "./x", "../x", "/x", "~/no-such-folder", "x/", "a\\b", "a/b/c", "here/x", "", "C:\\runs\\x"]


@pytest.fixture
def online(monkeypatch):
    """The Hub may be asked, and whoever does is found out."""
    asked = []

    def refuse(address, timeout=None):
        asked.append(address)
        raise OSError("Network is unreachable")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    return asked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "runs" / "nape").mkdir(parents=True)
    return tmp_path


def run(*argv):
    try:
        return main([str(part) for part in argv])
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("name", NOWHERE)
def test_paths_are_never_asked_of_the_hub(name, online, folder):
    with pytest.raises(UserError, match=r"there is no folder|is empty"):
        check_exists(name)
    with pytest.raises(UserError, match=r"there is no folder|is empty"):
        load(name)
    with pytest.raises(OSError, match=r"there is no folder|is empty"):
        load_discriminator(name)
    assert not online


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "owner/name.v2"])
def test_ids_of_the_hub_are_no_paths(name, folder):
    assert not looks_like_path(name)


def test_a_misspelt_folder_names_the_nearest(folder):
    with pytest.raises(UserError, match="there is no folder runs/nope; did you mean runs/nape"):
        check_exists("runs/nope")
    with pytest.raises(UserError, match=r"did you mean .*nape/model"):
        check_exists("./runs/nope/model")


def test_a_hub_that_does_not_answer_is_asked_once(online, folder):
    with pytest.raises(UserError, match=r"no folder owner/name, and the Hub .*cannot be reached: Network is unreach"):
        check_exists("owner/name")
    assert len(online) == 1


COMMANDS = [
    "pretrain --model_name_or_path {}",
    "pretrain --tokenizer_name {}",
    "finetune --model_name_or_path {}",
    "finetune --dataset_name {}",
    "adversarial --model_name_or_path {}",
    "discriminator --model_name_or_path {} --train_file texts.txt",
    "generate {} hello",
    "chat {}",
    "score --discriminator {} texts.txt",
    "convert {} out",
    "push {} owner/name",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_say_so_at_once(line, online, folder, capsys):
    (folder / "texts.txt").write_text("a text\n\nanother text\n\n" * 20)
    before = {path.name for path in folder.iterdir()}
    begin = time.monotonic()
    assert run(*line.format("runs/nope").split()) == 2
    error = capsys.readouterr().err
    assert "there is no folder runs/nope; did you mean runs/nape" in error and "Traceback" not in error
    assert not online and time.monotonic() - begin < 20
    assert {path.name for path in folder.iterdir()} == before


# What `convert`, which reads such files, says of one that is cut off.
CONVERTED = "is damaged or cut off|need the package gguf"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "model.gguf",
            b"GGUF\x03\0\0\0",
            f"a GGUF file, of llama.cpp: make a checkpoint of it|{CONVERTED}",
        ),
        ("weights", b"GGUF\x03\0\0\0", f"a GGUF file|{CONVERTED}"),
        ("pytorch_model.bin", b"\x80\x02", "a file of weights: give the folder"),
        ("model.safetensors", b"12345678", "a file of weights: give the folder"),
        ("model.onnx", b"\x08\x07", "an ONNX graph"),
        ("model.ggml", b"lmgg", "a GGML file"),
        ("model.zip", b"PK\3\4", "an archive: unpack it"),
        ("config.json", b"{}", "a file of settings"),
        ("notes.txt", b"hello", "this is none|give the folder of a checkpoint"),
        ("ckpt.pt", b"hello", "this is none|give the folder of a checkpoint"),
        ("empty", b"", "this is none|give the folder of a checkpoint"),
    ],
)
@pytest.mark.parametrize("line", ["convert {} out", "generate {} hello", "pretrain --model_name_or_path {}"])
def test_files_that_are_no_checkpoint(line, name, content, message, folder, capsys):
    (folder / name).write_bytes(content)
    assert run(*line.format(name).split()) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and any(part in error for part in message.split("|"))
    assert not (folder / "out").exists()


@pytest.mark.parametrize("position", ["file/run", "file", "/proc/none/run", "x" * 300, "link"])
@pytest.mark.parametrize("line", ["pretrain --output_dir {}", "finetune --output_dir {}", "demo --output_dir {}"])
def test_output_folders_that_cannot_be_made(line, position, folder, capsys):
    (folder / "file").write_text("in the way")
    (folder / "link").symlink_to(folder / "gone" / "away")
    before = sorted(path.name for path in folder.iterdir())
    assert run(*line.format(position).split()) == 2
    error = capsys.readouterr().err
    assert "--output_dir" in error and "Traceback" not in error
    assert "cannot be written" in error or "is a file. Name a folder" in error
    assert sorted(path.name for path in folder.iterdir()) == before


def test_looking_at_an_output_leaves_nothing(tmp_path):
    assert why_not_writable(tmp_path / "a" / "b") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["pretrain", "finetune", "demo", "tokenizer texts.txt --output_dir out"])
def test_a_cache_that_cannot_be_written(line, folder, capsys, monkeypatch):
    (folder / "file").write_text("in the way")
    monkeypatch.setenv("HF_HOME", str(folder / "file" / "cache"))
    monkeypatch.setattr(constants, "HF_HOME", str(folder / "file" / "cache"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    assert run(*line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: HF_HOME={folder}/file/cache cannot be written: {folder}/file is a file.")
    assert run(line.split()[0], "--help") == 0


@pytest.mark.parametrize("name", ["nosuch", "cuda:99", "meta", "cpu:x"])
def test_devices_that_are_not_there(name):
    with pytest.raises(ValueError, match=rf"--device {name}.* Use one of: cpu"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize(
    "line",
    [
        "generate {} hello --device cuda",
        "chat {} --device nosuch",
        "score texts.txt --discriminator {} --device cuda",
        "discriminator --model_name_or_path {} --train_file texts.txt --device nosuch",
    ],
)
def test_commands_refuse_devices(line, folder, capsys):
    (folder / "texts.txt").write_text("a text\n\nanother text\n\n" * 20)
    assert run(*line.format("here").split()) == 2
    error = capsys.readouterr().err
    assert "--device" in error and "Use one of: cpu." in error and "Traceback" not in error
