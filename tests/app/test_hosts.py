import asyncio
import socket

import pytest

from hf_gpt.app.hosts import HostCheck


def answer(check, **headers):
    """The status of a request with these headers, and the body of a refusal."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(check(scope, None, send))
    return sent[0]["status"], sent[1]["body"].decode() if len(sent) > 1 else ""


@pytest.fixture
def check():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    return HostCheck(app, ["Demo.example"])


@pytest.mark.parametrize(
    "host",
    ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "192.168.1.5", "demo.example", socket.gethostname() + ":80"],
)
def test_own_names_and_numbers_are_answered(check, host):
    assert answer(check, host=host)[0] == 200
    assert answer(check, host=host, origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize("host", ["evil.example:7860", "127.0.0.1.evil.example", "", "a:b:c", "[::1", "localhost.evil"])
def test_a_name_that_is_pointed_here_is_refused(check, host):
    status, said = answer(check, host=host)
    assert status == 403 and "does not answer under the name" in said and "--allowed_hosts" in said


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://192.168.1.6", "http://[::1"])
@pytest.mark.parametrize("host", ["127.0.0.1:7860", "192.168.1.5:7860"])
def test_a_page_elsewhere_is_refused(check, host, origin):
    status, said = answer(check, host=host, origin=origin)
    assert status == 403 and "comes from a page of" in said


def test_a_tunnel_of_this_machine_is_no_page_elsewhere(check):
    assert answer(check, host="127.0.0.1:7860", origin="http://localhost:9999")[0] == 200


def test_a_proxy_under_a_given_name_is_no_page_elsewhere(check):
    assert answer(check, host="127.0.0.1:7860", origin="https://demo.example")[0] == 200
    assert HostCheck(None, ["0.0.0.0"]).wrong("127.0.0.1", "http://0.0.0.0:9") is not None


def test_a_socket_is_closed(check):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(check({"type": "websocket", "headers": [(b"host", b"evil.example")]}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
