"""How strict are HTTP servers, and how do they hold when clients stop in the middle of a request?

    python -m benchmarks.http_servers [openbook] [h11] [httptools] [granian]     (granian: pip install granian)

Each serves OpenBook's application. The malformed requests are those of `tests/serving/test_http.py`, each with a second
request behind it; "otherwise" counts those that were answered with anything but 400 or an end, or left the connection open.
Then 300 clients send half a head and wait, and another asks 20 questions. Prints a line a server and, as the last, one JSON
document.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from openbook.core.config import Settings
from openbook.inference import FrozenModel
from openbook.serving.app import create_app
from openbook.serving.configuration import Configuration
from openbook.serving.server import http_server, listen
from openbook.testing import EchoEngine, HashEmbedder
from tests.conftest import base_with
from tests.serving.test_http import HALF_HEAD, IN_DOUBT, NEXT, statuses

SERVERS = ("openbook", "h11", "httptools", "granian")
STOPPED, ASKED = 300, 20


def serve(name: str, app: Any, listener: socket.socket) -> None:
    if name == "openbook":
        http_server(app).run(sockets=[listener])
    elif name == "granian":
        from granian.constants import HTTPModes, Interfaces  # type: ignore[import-not-found]
        from granian.server.embed import Server  # type: ignore[import-not-found]

        port = listener.getsockname()[1]
        listener.close()  # it takes no open socket
        asyncio.run(Server(app, "127.0.0.1", port, interface=Interfaces.ASGI, http=HTTPModes.http1).serve())
    else:
        uvicorn.Server(uvicorn.Config(app, http=name, lifespan="on", log_config=None)).run(sockets=[listener])


def received(port: int, data: bytes) -> tuple[bytes, bool]:
    """(all that came within a second, whether the connection was ended)."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as client:
        with suppress(OSError):
            client.sendall(data)
        try:
            while part := client.recv(65_536):
                found += part
        except TimeoutError:
            return found, False
        except OSError:
            pass
    return found, True


def measure(name: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    base = base_with(folder / "docs", {"a.txt": "The bridge was opened on 14 March 2026."}, place=folder / "kb")
    configuration = Configuration(Settings(home=folder / "home"))
    app = create_app(configuration, FrozenModel(EchoEngine()), {"kb": base}, HashEmbedder())
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    threading.Thread(target=serve, args=(name, app, listener), daemon=True).start()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        time.sleep(0.05)
    otherwise = []
    for what, data in IN_DOUBT.items():
        reply, ended = received(port, data + NEXT)
        if statuses(reply) not in ([], [400]) or not ended:
            otherwise.append(what)
    served = 0
    with ExitStack() as stack:
        for _ in range(STOPPED):
            with suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)).sendall(HALF_HEAD)
        for _ in range(ASKED):
            with (
                suppress(httpx.HTTPError),
                httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
            ):
                served += client.post("/v1/search", json={"query": "bridge"}, timeout=15).is_success
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(HALF_HEAD)
        with suppress(OSError):
            client.recv(65_536)
    kept_s = round(time.monotonic() - started)
    found = {"requests": len(IN_DOUBT), "otherwise": otherwise, "served": served, "half_head_kept_s": kept_s}
    return {"server": name, **found}


def main() -> None:
    names = sys.argv[1:] or SERVERS[:3]
    if len(names) == 1:
        logging.disable(logging.CRITICAL)
        print(json.dumps(measure(names[0])), flush=True)
        os._exit(0)  # the server is a thread
    results = []
    for name in names:  # each in a process of its own
        command = [sys.executable, "-m", "benchmarks.http_servers", name]
        results.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        one = results[-1]
        kept = "20 s or longer" if one["half_head_kept_s"] >= 20 else f"{one['half_head_kept_s']} s"
        print(
            f"{name:<10} otherwise {len(one['otherwise']):>2} of {one['requests']}; served {one['served']} of {ASKED} next to "
            f"{STOPPED} half requests; half a head is kept {kept}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
