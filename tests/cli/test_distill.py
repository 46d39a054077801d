"""`hf-gpt distill`: a teacher's texts are stored once, and students trained by several ways stand side by side."""

import copy
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from hf_gpt.cli.main import main
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.errors import ConfigError
from hf_gpt.generation.teacher_texts import LocalTeacher, store_teacher_texts


@pytest.fixture
def models(tmp_path, make_model, tokenizer):
    """Folders of a teacher and of a smaller student."""
    for name, sizes in (("teacher", {"hidden_size": 32}), ("student", {})):
        make_model(max_position_embeddings=64, **sizes).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    return tmp_path / "teacher", tmp_path / "student"


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(f"the king {number}" for number in range(110)), encoding="utf-8")
    return path


def distil(models, folder, *options, teacher=None):
    argv = [
        "distill",
        "--teacher",
        str(teacher or models[0]),
        "--model_name_or_path",
        str(models[1]),
        "--device",
        "cpu",
    ]
    argv += ["--num_texts", "110", "--max_new_tokens", "6", "--output_dir", str(folder), "--max_steps", "1"]
    return main(
        [*argv, "--per_device_train_batch_size", "8", "--eval_strategy", "no", "--save_strategy", "no", *options]
    )


def without_best(*options):
    return [*options, "--load_best_model_at_end", "false"]


def test_students_stand_side_by_side(models, prompts, tmp_path, capsys):
    folder = tmp_path / "run"
    options = without_best("--train_file", str(prompts), "--method", "sequence", "token", "on_policy")
    assert distil(models, folder, *options) == 0, capsys.readouterr().err
    rows = [json.loads(line) for line in (folder / "teacher_texts.jsonl").read_text().splitlines()]
    assert len(rows) == 110 and rows[3]["prompt"] == "the king 3"
    results = json.loads((folder / "results.json").read_text())
    assert results["held_out"] == 40 and set(results["rows"]) == {"untrained student", "sequence", "token", "on_policy"}
    for name, row in results["rows"].items():
        for metric in ("held_out_nats", "teacher_nats", "own_nats"):
            assert 0 < row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
        assert ("cpu_seconds" in row) == (name != "untrained student")
    assert "| on_policy |" in capsys.readouterr().out
    # The same command keeps what is there, and adds what is new.
    before = (folder / "sequence" / "model" / "model.safetensors").read_bytes()
    assert distil(models, folder, *options) == 0
    assert "is finished and kept" in capsys.readouterr().out
    assert (folder / "sequence" / "model" / "model.safetensors").read_bytes() == before


def test_unconditional_samples_of_the_teacher(models, tmp_path):
    assert distil(models, tmp_path / "run", *without_best()) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    assert 60 <= len(rows) <= 70 and all(set(row) == {"text"} for row in rows)


@pytest.mark.parametrize("cut", [0, 7, 100, 10_000])
def test_a_stopped_sampling_goes_on_to_the_same_texts(models, tmp_path, cut):
    path, prompts = tmp_path / "texts.jsonl", [f"speak {number}" for number in range(20)]
    asked = []

    def make():
        teacher = LocalTeacher(str(models[0]), max_new_tokens=5)

        def answer(some, seed):
            asked.append(len(some))
            return teacher(some, seed)

        return answer

    rows = store_teacher_texts(path, make, prompts, {"teacher": "t"}, batch_size=8)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    asked.clear()
    assert store_teacher_texts(path, make, prompts, {"teacher": "t"}, batch_size=8) == rows
    assert path.read_bytes() == whole
    assert sum(asked) == {0: 20, 7: 20, 100: 20, 10_000: 0}[cut]
    with pytest.raises(ConfigError, match="other settings"):
        store_teacher_texts(path, make, prompts, {"teacher": "another"}, batch_size=8)


def test_padding_does_not_change_an_answer(models):
    teacher = LocalTeacher(str(models[0]), max_new_tokens=5, temperature=0)
    alone = teacher(["the king"], 0)
    assert teacher(["the king", "to be or not to be that is"], 0)[:1] == alone


@pytest.fixture
def server():
    """A server with OpenAI's API that repeats the prompt."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = body["messages"][0]["content"]
            answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": f"{said} indeed"}}]}
            content = json.dumps(
                {"id": "1", "created": 0, "model": "m", "object": "chat.completion", **answer}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/v1"
    running.shutdown()


def test_a_teacher_behind_a_server_gives_texts_alone(models, prompts, server, tmp_path, capsys):
    options = without_best("--train_file", str(prompts), "--teacher_model", "m")
    assert distil(models, tmp_path / "run", *options, teacher=server) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "teacher_texts.jsonl").read_text().splitlines()]
    assert rows[0] == {"prompt": "the king 0", "completion": "the king 0 indeed"}
    assert "teacher's nats" not in capsys.readouterr().out
    assert distil(models, tmp_path / "other", *options, "--method", "token", teacher=server) == 2
    assert "a server gives texts alone" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_one_line(models, prompts, tmp_path, capsys):
    options = ["--train_file", str(prompts)]
    assert distil(models, tmp_path / "run", *options, teacher="http://127.0.0.1:9/v1") == 2
    assert "does not answer" in capsys.readouterr().err
    # The right name finds nothing in its way.
    assert not list(tmp_path.glob("run/teacher_texts*"))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num_texts", "10"], "at least 100"),
        (["--config", "gad"], "--config is set by --method"),
        (["--method", "gad", "gad"], "has one of these twice"),
        (["--max_stepz", "3"], "max_steps"),
        (["--learning_rate", "nan"], "--learning_rate must be"),
        (["--model_name_or_path", "runs/nowhere"], "there is no folder runs/nowhere"),
    ],
)
def test_options_that_cannot_work(models, tmp_path, capsys, options, message):
    assert distil(models, tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
    # Nothing was asked of the teacher.
    assert not (tmp_path / "run").exists()


def test_probabilities_need_the_students_tokenizer(models, tmp_path, make_model, capsys):
    other = tmp_path / "other"
    tokenizer = train_tokenizer(["speak the speech I pray you as I pronounced it to you " * 20], 300)
    make_model(vocab_size=len(tokenizer), max_position_embeddings=64).save_pretrained(other)
    tokenizer.save_pretrained(other)
    assert distil(models, tmp_path / "run", *without_best("--method", "token"), teacher=other) == 2
    assert "tokenizer" in capsys.readouterr().err


def test_a_finished_student_of_other_options_is_no_other_student(models, tmp_path, capsys):
    assert distil(models, tmp_path / "run", *without_best()) == 0
    assert distil(models, tmp_path / "run", *without_best(), "--learning_rate", "1e-2") == 2
    assert "was trained with other options (--learning_rate 1e-2)" in capsys.readouterr().err


def test_blank_texts_of_a_teacher_are_left_out(models, prompts, tmp_path, capsys):
    path, options = tmp_path / "run" / "teacher_texts.jsonl", without_best("--train_file", str(prompts))
    assert distil(models, tmp_path / "run", *options) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:3]:
        row["completion"] = " \n"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name in ("sequence.json", "sequence/metrics.json"):
        (tmp_path / "run" / name).unlink()
    capsys.readouterr()
    assert distil(models, tmp_path / "run", *options) == 0
    assert re.search(r"\d of 110 texts of the teacher are blank and left out", capsys.readouterr().out)
    path.write_text(path.read_text() * 2)
    assert distil(models, tmp_path / "run", *options) == 2
    assert "two runs have written it" in capsys.readouterr().err


def test_a_folder_that_another_run_writes_into_is_refused(models, tmp_path, capsys):
    folder = tmp_path / "run"
    code = "import time; from pathlib import Path; from hf_gpt.files.run_lock import claim_run; "
    code += f"claim_run(Path({str(folder)!r})); print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        assert distil(models, folder, *without_best()) == 2
        assert str(other.pid) in capsys.readouterr().err
    finally:
        other.kill()
        other.wait()


def test_a_chat_teacher_judges_answers_as_it_wrote_its_own(models, prompts, tmp_path, tokenizer):
    from hf_gpt.cli.distill_results import _nats
    from hf_gpt.evaluation.tasks.loading import open_candidate

    chat = copy.deepcopy(tokenizer)
    chat.chat_template = "{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}"
    chat.save_pretrained(models[0])
    teacher = open_candidate("teacher", str(models[0]), device="cpu")
    end = tokenizer.eos_token_id
    rows = [
        (tokenizer(prompt)["input_ids"], tokenizer(text)["input_ids"]) for prompt, text in [("the king", " is dead")]
    ]
    ((prompt, text),) = rows
    ids = torch.tensor([[*prompt, end, *text]])
    logps = teacher.model(ids).logits.log_softmax(-1)[0, len(prompt) : -1].gather(1, torch.tensor(text)[:, None])
    found = _nats(teacher, [("the king", " is dead")], is_chat=True)
    assert found == pytest.approx([-logps.sum().item()], abs=1e-4)
    assert LocalTeacher(str(models[0]), max_new_tokens=4).chat
