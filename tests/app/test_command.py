import contextlib
import shutil
import socket
import sys
import types

import pytest

from hf_gpt.cli.main import main
from hf_gpt.installation import install_hint


def without(folder, path, *names):
    """A copy of a folder without some files."""
    shutil.copytree(folder, path)
    for name in names:
        (path / name).unlink()
    return str(path)


def test_slips_are_answered_in_one_line(folders, capsys, tmp_path):
    pytest.importorskip("gradio", reason="make check-app installs it")
    one = str(folders["one"])
    bare = without(folders["one"], tmp_path / "bare", "tokenizer.json", "tokenizer_config.json")
    blank = without(folders["discriminator"], tmp_path / "blank", "tokenizer.json", "tokenizer_config.json")
    broken = without(folders["one"], tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    for argv, message in (
        (["./nowhere"], "there is no folder ./nowhere"),
        ([str(folders["discriminator"])], "writes with causal language models"),
        ([one, "--discriminator", "./nowhere"], "there is no folder"),
        ([one, "--discriminator", one], "a classifier with one label is needed"),
        ([bare], "bare has no tokenizer that can be read. Save the model's own there"),
        ([one, "--discriminator", blank], "blank has no tokenizer that can be read"),
        ([broken], "broken cannot be loaded"),
        ([one, "--device", "nonsense"], "nonsense"),
    ):
        assert main(["app", *argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1, error


@pytest.mark.parametrize("port", ["0", "-1", "70000", "web"])
def test_what_is_no_port_is_told(folders, capsys, port):
    with contextlib.suppress(SystemExit):
        assert main(["app", str(folders["one"]), f"--port={port}"]) == 2
    error = capsys.readouterr().err
    assert "--port must be at least 1 and at most 65,535" in error or "--port: invalid int value" in error


def test_a_port_that_is_taken_is_named(folders, capsys):
    pytest.importorskip("gradio", reason="make check-app installs it")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["app", str(folders["one"]), "--port", port, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1" in error and "--port" in error and error.count("\n") == 1


@pytest.mark.parametrize("library", [None, types.ModuleType("gradio")], ids=["none", "a folder alone"])
def test_without_the_library_it_says_what_to_install(folders, capsys, monkeypatch, library):
    monkeypatch.setitem(sys.modules, "gradio", library)
    assert main(["app", str(folders["one"])]) == 2
    assert install_hint("app") in capsys.readouterr().err
