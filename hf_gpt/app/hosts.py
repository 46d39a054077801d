"""Who may talk to the app: a page of another site in the user's browser may not.

A site can point its own name at this machine (DNS rebinding). The browser then takes the app for a part of that site,
and tells its name in `Host`. Requests from a page elsewhere tell where it is from in `Origin`.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit


_REFUSED = (
    "Refused: {}. If that is a name of the machine that runs hf-gpt app, start it with --allowed_hosts followed by it."
)


class HostCheck:
    """ASGI middleware: answers requests under the app's own names, from its own pages.

    Allowed are addresses in numbers, which nobody can point elsewhere, `localhost`, this machine's name, and `names`.

    Args:
        app: What answers.
        names: Further names.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], names: Iterable[str] = ()):
        self.app = app
        given = {name.lower() for name in names}
        self.names = {"localhost", socket.gethostname().lower(), *given}
        # A proxy may hide from us under which name the page was asked for.
        self.origins = {name for name in given if not _is_address(name)}

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if (wrong := self.wrong(headers.get("host", ""), headers.get("origin"))) is not None:
                await _refuse(scope["type"], send, wrong)
                return
        await self.app(scope, receive, send)

    def wrong(self, host: str, origin: str | None) -> str | None:
        """What is wrong with these headers of a request, or None."""
        name = _name(f"//{host}")
        if name is None or not (name in self.names or _is_address(name)):
            return f"the app does not answer under the name {host!r}"
        # A form of another site sends its origin too, and "null" from a page that hides it.
        if origin is None or _place(origin) == _place(f"//{host}") or _name(origin) in self.origins:
            return None
        if not self._are_both_here(origin, name):
            return f"the request comes from a page of {origin!r}"
        return None

    def _are_both_here(self, origin: str, name: str) -> bool:
        """Whether both are names of this machine's loopback, by any port: a tunnel or a notebook's proxy."""
        return _is_loopback(_name(origin)) and _is_loopback(name)


def _place(url: str) -> str:
    return url.partition("//")[2].lower()


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str | None) -> bool:
    return name == "localhost" or (name is not None and _is_address(name) and ipaddress.ip_address(name).is_loopback)


async def _refuse(kind: str, send: Any, wrong: str) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = _REFUSED.format(wrong).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
