"""A vLLM server that runs our checkpoint, by the plugin or by the code that it carries: `make check-vllm`."""

import importlib.util
import json
import sys
import urllib.request

import pytest

from tests.clients.records import equal_tokens, record
from tests.clients.reference import NUM_NEW_TOKENS, count_equal
from tests.clients.servers import free_port, serving


if importlib.util.find_spec("vllm") is None:
    pytest.skip("make check-vllm installs it in an environment of its own", allow_module_level=True)

COMPARED = {
    "plugin": "greedy tokens, by the plugin",
    "remote code": "greedy tokens, by the checkpoint's own code",
}


@pytest.fixture(scope="module", params=list(COMPARED))
def server(request, reference, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(reference.folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "128"]
    command += ["--max-num-seqs", "4", "--enforce-eager"]
    variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    if request.param == "remote code":
        command.append("--trust-remote-code")
        # No plugin but those that are named here.
        variables["VLLM_PLUGINS"] = "none"
    with serving(command, port, log, **variables) as url:
        yield request.param, url


def ask(url, **body):
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request, timeout=120))


def test_greedy_tokens(server, reference, record_property):
    kind, url = server
    answer = ask(
        url,
        model=str(reference.folder),
        prompt=reference.prompt_ids,
        temperature=0,
        max_tokens=NUM_NEW_TOKENS,
        ignore_eos=True,
        return_token_ids=True,
    )
    found = [choice["token_ids"] for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]
    equal, total = count_equal(found, reference.greedy)
    assert equal == total
    record(record_property, "vLLM (CPU)", "vllm", COMPARED[kind], equal_tokens(equal, total), package="vllm-cpu")
