"""Output cannot kill a run: missing characters, pipes that close, full disks, streams that are not there."""

import ast
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from hf_gpt import HfGptConfig, HfGptForCausalLM, terminal
from hf_gpt.cli import main as cli
from hf_gpt.files.atomic_files import write_text
from hf_gpt.terminal import SafeStream, run_program, safe_output
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


ROOT = Path(__file__).parents[1]
EMOJI = "\U0001f600"
HELP = ["-m", "hf_gpt", "--help"]


def limited(encoding: str = "cp1252") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


class Failing(io.StringIO):
    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("cp1252", b"\xe9 \\u4f60 \\U0001f600 \\ud83d"), ("ascii", b"\\xe9 \\u4f60 \\U0001f600 \\ud83d")],
)
def test_characters_that_an_encoding_lacks_are_escaped(encoding, expected):
    stream = limited(encoding)
    print("é 你", EMOJI, "\ud83d", end="", file=SafeStream(stream))
    assert stream.buffer.getvalue() == expected


def test_a_lone_surrogate_is_escaped_in_utf8_and_all_else_is_written():
    stream = limited("utf-8")
    print("é", EMOJI, "\ud83d", end="", file=SafeStream(stream))
    assert stream.buffer.getvalue().decode() == f"é {EMOJI} \\ud83d"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EAGAIN])
def test_a_stream_that_fails_raises_nothing(number):
    stream = SafeStream(Failing(number))
    print("gone", file=stream, flush=True)
    assert stream.error.errno == number
    stopping = SafeStream(Failing(number), stops=True)
    with pytest.raises(terminal.OutputClosedError):
        print("gone", file=stopping)


def test_a_full_disk_may_have_room_again():
    inner = Failing(errno.ENOSPC)
    stream = SafeStream(inner)
    stream.write("lost")
    inner.write = lambda text: io.StringIO.write(inner, text)
    stream.write("kept")
    assert inner.getvalue() == "kept"


def test_output_is_given_back(capsys):
    former = sys.stdout
    with safe_output(), safe_output():
        assert isinstance(sys.stdout, SafeStream) and not isinstance(sys.stdout._stream, SafeStream)
        print("seen")
    assert sys.stdout is former and capsys.readouterr().out == "seen\n"


class Talker(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print(f"step {state.global_step} {EMOJI}", flush=True)
        print("warning", file=sys.stderr, flush=True)


@pytest.mark.parametrize("stream", [limited(), Failing(errno.EPIPE), Failing(errno.ENOSPC), None])
def test_a_callback_that_prints_does_not_end_training(stream, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = HfGptForCausalLM(
        HfGptConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    rows = Dataset.from_list([{"input_ids": list(range(n, n + 8)), "labels": list(range(n, n + 8))} for n in range(16)])
    arguments = HfGptTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, logging_steps=1, save_strategy="no", report_to="none", use_cpu=True
    )
    trainer = HfGptTrainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, callbacks=[Talker()])
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    trainer.train()
    trainer.evaluate()
    assert trainer.state.global_step == 2
    if isinstance(stream, io.TextIOWrapper):
        assert b"step 2 \\U0001f600" in stream.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_finetuning_on_emoji_ends_well_on_a_console_without_them(encoding, tmp_path, monkeypatch):
    rows = [{"source": f"text {n} {EMOJI}", "target": f"answer {EMOJI} {n}"} for n in range(24)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = ["--task", "summarization", "--train_file", str(path), "--source_column", "source", "--max_steps", "1"]
    options += ["--target_column", "target", "--preset", "nano", "--tokenizer_vocab_size", "300", "--max_length", "64"]
    options += ["--max_new_tokens", "2", "--output_dir", str(tmp_path / "run"), "--use_cpu", "true"]
    monkeypatch.setattr("hf_gpt.cli.finetune.count_same_after_reloading", lambda *_: (0, 0))
    stream = limited(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["finetune", *options]) == 0
    assert rb"\U0001f600" in stream.buffer.getvalue() and b"checkpoint" in stream.buffer.getvalue()
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert predictions and all(EMOJI in line for line in predictions)


def run(*argv: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *argv], encoding="utf-8", stderr=subprocess.PIPE, timeout=300, **settings)


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = run(*HELP, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("argv", [HELP, ["-m", "hf_gpt.cli.option_reference"], ["-m", "hf_gpt", "pretrain", "--help"]])
def test_a_result_that_could_not_be_written_is_an_error(argv):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run(*argv, stdout=full)
    assert done.stderr == "error: standard output cannot be written: No space left on device.\n"
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_program_that_leaves_files_goes_on():
    script = "from hf_gpt.terminal import run_program\nimport sys\n"
    script += "def main():\n print('lost', flush=True)\n print('done', file=sys.stderr)\n return 0\n"
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = run("-c", script + "raise SystemExit(run_program(main))", stdout=full)
    assert done.returncode == 0
    assert done.stderr == "done\nwarning: standard output was cut (No space left on device); all else is done.\n"


@pytest.mark.skipif(os.name == "nt", reason="closed by a shell")
def test_closed_streams_are_no_error():
    done = subprocess.run(["sh", "-c", f"{sys.executable} {' '.join(HELP)} >&- 2>&- <&-"], timeout=300)
    assert done.returncode == 0


def test_files_hold_lone_surrogates_as_json_has_them(tmp_path):
    path = write_text(tmp_path / "a.json", json.dumps({"text": f"{EMOJI} \ud83d"}, ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": f"{EMOJI} \ud83d"}


def test_a_program_that_is_stopped_ends_without_a_traceback(capsys):
    def main():
        raise KeyboardInterrupt

    assert run_program(main) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_bars_of_libraries_stay_out_of_a_pipe():
    script = (
        "import datasets\nfrom hf_gpt.terminal import run_program\n"
        "rows = datasets.Dataset.from_list([{'n': 1}])\n"
        "run_program(lambda: rows.map(lambda row: {'n': row['n'] + 1}, load_from_cache_file=False) and None)"
    )
    done = run("-c", script, stdout=subprocess.PIPE)
    assert done.returncode == 0 and "Map" not in done.stderr


def test_every_program_begins_at_the_one_place():
    for package in ("hf_gpt", "training", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            _, marker, end = path.read_text(encoding="utf-8").partition('if __name__ == "__main__":')
            if marker and path != ROOT / "hf_gpt" / "cli" / "main.py":
                # `start` of the experiments is `run_program` and the end of the process.
                assert "run_program(" in end or "start(main)" in end, path


def test_files_of_text_are_opened_by_name_of_an_encoding():
    """What a system has for a default differs: each text file is UTF-8, or says what else."""
    for package in ("hf_gpt", "training", "eval"):
        for path in (ROOT / package).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                assert not _opens_by_default(call), f"{path}:{call.lineno}"


def _opens_by_default(call: ast.AST) -> bool:
    if not isinstance(call, ast.Call) or any(word.arg in ("encoding", None) for word in call.keywords):
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    # Of a path; our own `read_text` is a function.
    if name in ("write_text", "read_text") and isinstance(call.func, ast.Attribute):
        return True
    if any(word.arg in ("text", "universal_newlines") for word in call.keywords) and name in ("run", "Popen"):
        return True
    # Of a path: its first argument is the mode; of `open` and gzip's the second.
    of_path = isinstance(call.func, ast.Attribute) and not isinstance(call.func.value, ast.Name)
    mode = call.args[0 if of_path else 1 :][:1]
    written = [word.value for word in call.keywords if word.arg == "mode"] + mode
    is_text = any(isinstance(value, ast.Constant) and "b" not in str(value.value) for value in written)
    return name == "open" and is_text and not any("b" in str(getattr(value, "value", "")) for value in written)
