"""A server in a process of its own, stopped with all that it started."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path


PATIENCE = 400


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, log: Path, health: str = "/health", **variables: str) -> Iterator[str]:
    """Starts a server and gives its address once `health` answers; stops it at the end and sees that the port is free.

    Args:
        command: What to start.
        port: Where it listens, at 127.0.0.1.
        log: File for what it prints.
        health: Path that answers when it is ready.
        variables: Of its environment, beside those of this process.
    """
    url = f"http://127.0.0.1:{port}"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables},
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        _wait(process, url + health, log)
        yield url
    finally:
        _stop(process)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0, "the server left its port open"


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if urllib.request.urlopen(address, timeout=5).status == 200:
                return
        time.sleep(0.5)
    raise AssertionError(f"no server at {address}:\n{log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
