"""`transformers serve`, which knows nothing of hf_gpt, and the openai client: `make check-serve`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.records import record
from tests.clients.reference import NUM_NEW_TOKENS, PROMPTS
from tests.clients.servers import free_port, serving


openai = pytest.importorskip("openai", reason="make check-serve installs it in an environment of its own")
pytest.importorskip("uvicorn", reason="make check-serve installs transformers[serving] in an environment of its own")

PROGRAMS = Path(sys.executable).parent


def autoload(action):
    """Of the environment that the tests run in."""
    subprocess.run([PROGRAMS / "hf-gpt", "autoload", action], check=True, timeout=60, capture_output=True)


@pytest.fixture(scope="module", params=["plain", "continuous batching"])
def server(request, reference, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [PROGRAMS / "transformers", "serve", reference.folder, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu"]
    if request.param != "plain":
        command += ["--continuous-batching", "--cb-num-blocks", "16", "--cb-block-size", "16"]
        command += ["--cb-max-batch-tokens", "64"]
    autoload("on")
    try:
        with serving([str(part) for part in command], port, log) as url:
            yield request.param, openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, max_retries=0)
    finally:
        autoload("off")


@pytest.fixture
def answers(server, reference):
    """The tokens that our own `generate` gives for each prompt as a message."""
    tokens = []
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        ids = reference.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        tokens.append(reference.continue_greedily(ids["input_ids"]))
    return tokens


def ask(client, folder, prompt, **options):
    return client.chat.completions.create(
        model=str(folder),
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=NUM_NEW_TOKENS,
        **options,
    )


def test_chat_and_stream(server, reference, answers, record_property):
    kind, client = server
    texts = []
    for prompt, tokens in zip(PROMPTS, answers, strict=True):
        whole = ask(client, reference.folder, prompt)
        assert whole.usage.completion_tokens == NUM_NEW_TOKENS
        chunks = [chunk for chunk in ask(client, reference.folder, prompt, stream=True) if chunk.choices]
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert len(pieces) > 4
        text = reference.tokenizer.decode(tokens, skip_special_tokens=True)
        texts.append((whole.choices[0].message.content, "".join(pieces), text))
    for whole, streamed, text in texts:
        assert (whole, streamed) == (text, text)
    metric = f"{len(texts)} of {len(texts)} texts equal, {len(texts) * NUM_NEW_TOKENS} tokens"
    compared = f"greedy text of a chat, whole and streamed ({kind})"
    record(record_property, "transformers serve, openai", "serve", compared, metric, package="transformers")
