"""What does the server cost over the library, and what do many clients at a time get?

    python -m benchmarks.serving [--clients 1 4 16 64] [--seconds 60] [--rounds 2] [--requests 20000]
                                 [--limit N] [--python-contenders PYTHON]

The server is a process of its own, `openbook serve` on the handbook; the clients are threads of this one, on loopback, over
connections that stay open. Asked are the 84 answerable and unanswerable example questions, at most 48 tokens an answer,
after all of them were asked in other words, so that passages were read.

  overhead  one client: each question over HTTP and by the library call, in processes that follow each other in turn; the
            median of the differences by question. The same with an engine and an embedder that take no time.
  load      so many clients ask without a pause for so many seconds; one that is sent away (429) waits as long as it is
            told. Seconds of whole answers, answers a second, and statuses.
  memory    so many requests on a server over fakes; the slope of its resident memory over the second half

Contenders, with `--python-contenders` (an environment with openbook, xllamacpp and llama-index, see
benchmarks/answers_per_second.py): LlamaIndex on llama.cpp's server with four slots, prompt caching on; as many threads of
its process ask it, without HTTP between them and LlamaIndex.

  llamaindex    its default engine: 2 passages, its own prompt, the base model
  llamaindex+   the reader's merged file, its prompt, and 4 passages

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.answers_per_second import MAX_TOKENS, Answerer, llamaindex, llamaindex_with_reader, openbook
from benchmarks.contender_openbook import counted_embedder
from benchmarks.processes import ROOT, memory_kb, result_of
from benchmarks.stored import EXAMPLES, HANDBOOK, base_of
from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus
from openbook.core.config import Settings, available_cores
from openbook.knowledge import KnowledgeBase
from openbook.testing import HashEmbedder, echo_model

SLOTS = 4  # of llama.cpp's server; OpenBook's server computes as many requests at a time
CACHE_MB = 1024
SAMPLES = 40
CONTENDERS = {"llamaindex": llamaindex, "llamaindex+": llamaindex_with_reader}
OPENERS: dict[str, Callable[[], AbstractContextManager[Answerer]]] = {
    "library": openbook,
    **{name: partial(opened, SLOTS) for name, opened in CONTENDERS.items()},
}
# Of one question: the status, and how long to wait before the next.
Ask = Callable[[str], tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Server:
    """`model`: the name under which it is asked."""

    port: int
    model: str
    process: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, for each number of clients")
    parser.add_argument("--rounds", type=int, default=2, help="of the overhead")
    parser.add_argument("--requests", type=int, default=20_000, help="for the slope of the memory")
    parser.add_argument("--limit", type=int, default=0, help="about so many questions, spread over all")
    parser.add_argument("--python-contenders", type=Path)
    parser.add_argument("--child", choices=["library", "fakes", *CONTENDERS])
    parser.add_argument("--kb", type=Path, help="of the child that serves fakes")
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    value = {"question": "what serving costs", "cores": available_cores(), **measured(options)}
    print(json.dumps(value))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    asked, load = questions(options.limit), {}
    with tempfile.TemporaryDirectory() as folder:
        kb, fake_kb = Path(folder) / "kb", Path(folder) / "fake"
        for path, embedder in ((kb, counted_embedder()), (fake_kb, HashEmbedder())):
            base_of(path, [HANDBOOK], embedder).close()
        overhead = {"default model": real_overhead(options, kb, asked), "fakes": fake_overhead(options, fake_kb, asked)}
        with serving(openbook_command(kb)) as server:
            warm(server, asked)
            load["openbook"] = [
                under_load(lambda: client_of(server), asked, n, options.seconds) for n in options.clients
            ]
            show_load("openbook", load["openbook"])
        memory = memory_slope(fake_kb, asked, options.requests)
    for name in CONTENDERS if options.python_contenders else ():
        load[name] = in_process(name, options, options.python_contenders)
        show_load(name, load[name])
    return {"overhead_ms": overhead, "load": load, "memory": memory}


def questions(limit: int) -> list[str]:
    lines = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    found = [q["question"] for q in map(json.loads, lines) if q["kind"] != "closed-book"]
    return found[:: max(1, len(found) // limit)] if limit else found


# --- a server, and clients ------------------------------------------------------------------------------------------


def openbook_command(kb: Path, model: str = "reader") -> list[str]:
    return [sys.executable, "-m", "openbook", "serve", "--port", "0", "--kb", str(kb), "--model", model]


@contextmanager
def serving(command: Sequence[str], model: str = "reader") -> Iterator[Server]:
    """A server that takes requests; it ends with the context. What it keeps, it keeps in memory."""
    environment = {**os.environ, "OPENBOOK_KV_DISK": "0", "OPENBOOK_KV_MEMORY": str(CACHE_MB)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = process.stderr
    try:
        port, seen = 0, []
        for line in lines:
            seen.append(line)
            if match := re.search(r"Listening on http://127\.0\.0\.1:(\d+)/", line):
                port = int(match[1])
            if port:
                break
        else:
            sys.exit(f"The server did not start:\n{''.join(seen)[-3000:]}")
        threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
        yield Server(port, model, process.pid)
    finally:
        process.terminate()
        process.wait()


def chat_body(model: str, question: str, max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens}


def http_asker(
    port: int, body_of: Callable[[str], object], look: Callable[[str, bytes], None] = lambda question, content: None
) -> Ask:
    """A client of its own, over one connection. `look` is shown each question with what was answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def asked(question: str) -> tuple[int, float]:
        headers = {"content-type": "application/json"}
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body_of(question)), headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0, 0.0
        if response.status == 200:
            look(question, content)
        return response.status, float(response.headers.get("retry-after", 0))

    return asked


def client_of(server: Server) -> Ask:
    return http_asker(server.port, partial(chat_body, server.model))


def warm(server: Server, asked: Sequence[str]) -> None:
    client = client_of(server)
    for question in asked:
        status, _ = client(f"Please tell me: {question}")
        if status != 200:
            sys.exit(f"The server answers with status {status}.")


def under_load(new_client: Callable[[], Ask], asked: Sequence[str], clients: int, seconds: float) -> dict[str, Any]:
    """What so many clients get that ask one question after the other, each beginning at another, until time is up."""
    until = time.perf_counter() + seconds

    def one(number: int) -> list[tuple[int, float]]:
        client, found = new_client(), []
        place = number * len(asked) // clients
        while time.perf_counter() < until:
            started = time.perf_counter()
            status, wait_s = client(asked[place % len(asked)])
            found.append((status, time.perf_counter() - started))
            place += 1
            time.sleep(min(wait_s, max(0.0, until - time.perf_counter())))
        return found

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        rows = [row for found in pool.map(one, range(clients)) for row in found]
    took = time.perf_counter() - started
    answered = sorted(s for status, s in rows if status == 200)
    return {
        "clients": clients,
        "answers": len(answered),
        "answers_per_s": len(answered) / took,
        **{f"p{p}_s": answered[min(len(answered) - 1, len(answered) * p // 100)] for p in (50, 95, 99) if answered},
        "statuses": {str(status): sum(s == status for s, _ in rows) for status in sorted({s for s, _ in rows})},
    }


def show_load(name: str, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        shown = "  ".join(f"p{p} {row[f'p{p}_s']:.3f} s" for p in (50, 95, 99) if f"p{p}_s" in row)
        print(
            f"{name:<22} {row['clients']:>3} clients  {row['answers_per_s']:6.2f} answers/s  {shown}  {row['statuses']}"
        )
    sys.stdout.flush()


# --- overhead and memory --------------------------------------------------------------------------------------------


def real_overhead(options: argparse.Namespace, kb: Path, asked: Sequence[str]) -> dict[str, float]:
    """The processes follow each other: library, server, server, library, ..."""
    library: list[list[float]] = []
    by_http: list[list[float]] = []
    for number in range(options.rounds):
        for who in ("library", "server") if number % 2 == 0 else ("server", "library"):
            if who == "library":
                library.append(in_process("library", options, Path(sys.executable)))
                continue
            with serving(openbook_command(kb)) as server:
                warm(server, asked)
                by_http.append(timed(client_of(server), asked))
    return overhead("default model", library, by_http)


def fake_overhead(options: argparse.Namespace, kb: Path, asked: Sequence[str]) -> dict[str, float]:
    model, embedder = echo_model(), HashEmbedder()
    with closing(KnowledgeBase.open(kb)) as base, serving(fake_command(kb), model="echo") as server:
        client = client_of(server)

        def library(question: str) -> None:
            ask(question, model, Corpus(base, embedder))

        timed(library, asked)
        timed(client, asked)
        rounds = range(max(3, options.rounds))
        both = [(timed(library, asked), timed(client, asked)) for _ in rounds]
    return overhead("fakes", [each for each, _ in both], [each for _, each in both])


def timed(asks: Callable[[str], Any], asked: Sequence[str]) -> list[float]:
    seconds = []
    for question in asked:
        started = time.perf_counter()
        asks(question)
        seconds.append(time.perf_counter() - started)
    return seconds


def overhead(name: str, library: list[list[float]], server: list[list[float]]) -> dict[str, float]:
    """Milliseconds: of each question the median of its rounds, then medians over the questions."""
    by_call, by_http = (
        [statistics.median(each) * 1e3 for each in zip(*rows, strict=True)] for rows in (library, server)
    )
    found = {
        "library_ms": statistics.median(by_call),
        "http_ms": statistics.median(by_http),
        "difference_ms": statistics.median(b - a for a, b in zip(by_call, by_http, strict=True)),
    }
    print(f"overhead, {name:<14} " + "  ".join(f"{key} {value:.2f}" for key, value in found.items()), flush=True)
    return found


def fake_command(kb: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.serving", "--child", "fakes", "--kb", str(kb)]


def memory_slope(kb: Path, asked: Sequence[str], requests: int) -> dict[str, float]:
    """Resident kilobytes of a server over fakes, sampled between equal numbers of requests."""
    with serving(fake_command(kb), model="echo") as server:
        client = client_of(server)
        each, samples = max(1, requests // SAMPLES), []
        for number in range(SAMPLES):
            for place in range(each):
                client(asked[(number * each + place) % len(asked)])
            samples.append(memory_kb(server.process))
    late = samples[SAMPLES // 2 :]
    places = [each * number for number in range(len(late))]
    slope = statistics.linear_regression(places, late).slope
    found = {"requests": each * SAMPLES, "first_kb": samples[0], "last_kb": samples[-1], "kb_per_1000": slope * 1000}
    print("memory " + "  ".join(f"{key} {value:.1f}" for key, value in found.items()), flush=True)
    return found


# --- children -------------------------------------------------------------------------------------------------------


def child(name: str, options: argparse.Namespace) -> None:
    if name == "fakes":
        serve_fakes(options.kb)
        return
    asked = questions(options.limit)
    with OPENERS[name]() as answer:
        for question in asked:
            answer(f"Please tell me: {question}")
        if name == "library":
            print(json.dumps(timed(answer, asked)))
            return
        rows = [under_load(lambda: direct(answer), asked, n, options.seconds) for n in options.clients]
        print(json.dumps(rows))


def direct(answer: Answerer) -> Ask:
    def asked(question: str) -> tuple[int, float]:
        answer(question)
        return 200, 0.0

    return asked


def in_process(name: str, options: argparse.Namespace, python: Path) -> Any:
    words = ("--child", name, "--limit", options.limit, "--seconds", options.seconds, "--clients", *options.clients)
    return result_of("benchmarks.serving", *words, python=python)


def serve_fakes(kb: Path) -> None:
    from openbook.serving.app import create_app
    from openbook.serving.configuration import Configuration
    from openbook.serving.server import http_server, listen

    with tempfile.TemporaryDirectory() as home, listen("127.0.0.1", 0) as door, closing(KnowledgeBase.open(kb)) as base:
        configuration = Configuration(Settings(home=Path(home)))
        server = http_server(create_app(configuration, echo_model(), {"kb": base}, HashEmbedder()))
        print(f"Listening on http://127.0.0.1:{door.getsockname()[1]}/v1", file=sys.stderr, flush=True)
        server.run(sockets=[door])


if __name__ == "__main__":
    main()
