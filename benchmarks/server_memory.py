"""Does a server give back the memory that slow clients and uploads took?

    python -m benchmarks.server_memory [--slow 300] [--uploads 40] [--upload-kb 50] [--rounds 2]

The server is a process of its own, with the default reader and embedder, on a knowledge base of the handbook. Its resident memory
is read when it is warm (60 answers, which four clients ask for, and one upload), after so many clients that send half a
head and go, and after rounds of so many uploads from four clients at a time, with searches between them. Each is read
after two seconds without a request. `kept` is the last of a round over the first, when it was warm.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.contender_openbook import counted_embedder
from benchmarks.processes import memory_kb
from benchmarks.serving import Server, openbook_command, questions, serving, warm
from benchmarks.stored import EXAMPLES, HANDBOOK, base_of

CLIENTS = 4
ANSWERS = 60
QUIET_S = 2.0
WORDS = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", type=int, default=300)
    parser.add_argument("--uploads", type=int, default=40)
    parser.add_argument("--upload-kb", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    value = {"question": "does a server give back memory", "upload_kb": options.upload_kb, "rows": measured(options)}
    print(json.dumps(value))


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        kb = Path(folder) / "kb"
        base_of(kb, [HANDBOOK], counted_embedder()).close()
        with serving(openbook_command(kb)) as server:
            asked = questions(ANSWERS)
            with ThreadPoolExecutor(CLIENTS) as clients:
                list(clients.map(lambda number: warm(server, asked[number::CLIENTS]), range(CLIENTS)))
            upload(server, options.upload_kb, 0)
            search(server)
            rows.append(row("warm", server, rows))
            slow_clients(server, options.slow)
            rows.append(row(f"{options.slow} slow clients", server, rows))
            for number in range(1, options.rounds + 1):
                started = time.perf_counter()
                with ThreadPoolExecutor(CLIENTS) as clients:
                    places = [number * options.uploads + place for place in range(options.uploads)]
                    statuses = list(clients.map(lambda place: upload(server, options.upload_kb, place), places))
                rows.append(row(f"{options.uploads} uploads, round {number}", server, rows))
                rows[-1] |= {"seconds": time.perf_counter() - started, "taken": statuses.count(200)}
    return rows


def row(name: str, server: Server, before: list[dict[str, Any]]) -> dict[str, Any]:
    time.sleep(QUIET_S)
    mb, anonymous_mb = (memory_kb(server.process, which) / 1024 for which in ("VmRSS", "RssAnon"))
    kept = mb / before[0]["mb"] if before else 1.0
    print(f"{name:<24} {mb:8.1f} MB, of no file {anonymous_mb:8.1f} MB  {kept:5.2f} of warm", flush=True)
    return {"name": name, "mb": mb, "anonymous_mb": anonymous_mb, "kept": kept}


def text(kilobytes: int, seed: int) -> str:
    chance = random.Random(seed)
    lines = iter(lambda: " ".join(chance.choices(WORDS, k=60)) + ".\n\n", "")
    return "".join(_until(lines, kilobytes * 1000))


def _until(lines: Iterator[str], characters: int) -> Iterator[str]:
    while characters > 0:
        line = next(lines)
        characters -= len(line)
        yield line


def upload(server: Server, kilobytes: int, number: int) -> int:
    """Again when it is sent away. The status."""
    files = {"file": (f"{number}.txt", text(kilobytes, number).encode())}
    while True:
        response = httpx.post(f"http://127.0.0.1:{server.port}/v1/documents", files=files, timeout=3600.0)
        if response.status_code not in (429, 503):
            search(server)
            return response.status_code
        time.sleep(float(response.headers["retry-after"]))


def search(server: Server) -> None:
    for question in questions(8):
        httpx.post(f"http://127.0.0.1:{server.port}/v1/search", json={"query": question}, timeout=600.0)


def slow_clients(server: Server, count: int) -> None:
    held = []
    for _ in range(count):
        held.append(socket.create_connection(("127.0.0.1", server.port)))
        held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: local")
    time.sleep(QUIET_S)
    for each in held:
        each.close()


if __name__ == "__main__":
    main()
