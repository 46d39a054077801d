"""The npm client of the Hub against the loopback Hub of these tests: `make check-hub-npm`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.clients.records import record
from tests.hub.loopback import TOKEN, LoopbackHub


PACKAGES = Path(os.environ.get("NODE_PATH", Path(__file__).parents[2] / ".venv-hub-npm/node_modules"))
PACKAGE = PACKAGES / "@huggingface/hub/package.json"
if not PACKAGE.is_file():
    pytest.skip("make check-hub-npm installs @huggingface/hub", allow_module_level=True)


def test_a_checkpoint_goes_up_and_comes_down(reference, record_property, tmp_path):
    hub = LoopbackHub()
    try:
        script = Path(__file__).with_name("hub.mjs")
        command = ["node", str(script), hub.url, TOKEN, str(reference.folder), str(tmp_path / "down")]
        environment = {**os.environ, "NODE_PATH": str(PACKAGES)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        kept = hub.files("owner/by-npm")
    finally:
        hub.close()
    answer = json.loads(done.stdout.splitlines()[-1])
    names = sorted(path.name for path in reference.folder.iterdir())
    assert answer["user"] == "owner" and answer["names"] == names and hub.repositories["owner/by-npm"].private
    for name in names:
        content = (reference.folder / name).read_bytes()
        assert kept[name] == content == (tmp_path / "down" / name).read_bytes(), name
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "down")
    ids = torch.tensor(reference.prompt_ids[:1])
    assert torch.equal(opened(ids).logits, reference.model(ids).logits)
    version = json.loads(PACKAGE.read_text())["version"]
    metric = f"{len(names)} of {len(names)} files equal, logits bit-equal"
    compared = "a checkpoint pushed to the tests' Hub and pulled again"
    record(record_property, "npm @huggingface/hub", "hub-npm", compared, metric, version=version)
