"""Does the time of a request tell what is stored under a label that the caller does not hold?

    python -m benchmarks.label_timing [--pairs 64] [--only search ask upload copy text page remove purge] [--seed 1]

The server is a process of its own, with the default reader and embedder, on some open documents and many short ones with the label
hr. A caller with that label uploads a text for each pair, searches for it and asks about it. Then another caller, who holds no label, sends pairs of requests in
alternating order: one about what only hr may see, and one of the same length about what is stored nowhere.

  search   the first words of the text
  ask      a question with these words, answered from the open documents
  upload   the text itself
  copy     a question about the copy that was just uploaded, of which the reader reads a part
  text, page, remove, purge   of the path of hr's document, and of a path without a document: all are refused

`area` is the chance that a request about what is hidden is faster than one about what is unknown, one half where time tells
nothing, with its standard error. `sync` and `add` are commands of whoever owns the folder and may see everything in it, so there
is nobody to whom their time could tell more.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from benchmarks.first_token import DATA
from benchmarks.serving import serving
from benchmarks.stored import default_embedder, opened, stored
from openbook.core.config import Settings, load_settings
from openbook.inference import load_embedder
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.serving.app import create_app
from openbook.serving.configuration import Configuration
from openbook.serving.keys import KeyFile
from openbook.serving.server import http_server, listen

KINDS = ("search", "ask", "upload", "copy", "text", "page", "remove", "purge")
CHARS = 3_000  # of a text
QUERY_CHARS = 120
OPEN, CLOSED = 20, 1_000  # documents that are there before
WARM = 3  # pairs that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seed", type=int, default=1, help="of the texts")
    parser.add_argument("--serve", type=Path, help="of the child that serves")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(folder), options.pairs, options.only, options.seed)
    print(json.dumps({"question": "does time tell what is hidden", "pairs": options.pairs, "rows": rows}))


def measured(folder: Path, pairs: int, only: list[str], seed: int) -> list[dict[str, Any]]:
    count = pairs + WARM
    texts = texts_of(OPEN + 2 * count, seed)
    open_, hidden, unknown = texts[:OPEN], texts[OPEN : OPEN + count], texts[OPEN + count :]
    embedder = default_embedder()
    with closing(KnowledgeBase.ensure(folder / "kb", embedder.identity)) as base:
        for label, contents in (("", open_), ("hr", [f"Note {number}." for number in range(CLOSED)])):
            docs = folder / f"docs-{label}"
            docs.mkdir()
            for number, text in enumerate(contents):
                (docs / f"{number}.txt").write_text(text, encoding="utf-8")
            add(base, [docs], embedder, RunOptions(labels=frozenset({label} - {""})))
    keys = KeyFile(folder / "home")
    with serving([sys.executable, "-m", "benchmarks.label_timing", "--serve", str(folder)]) as server:
        closed, other = (Client(server.port, keys.new("somebody", "admin", labels)[1]) for labels in (["hr"], []))
        paths = [closed.upload(f"h{number:04}.txt", text, "hr") for number, text in enumerate(hidden)]
        for text, path in zip(hidden, paths, strict=True):
            closed.search(text)
            if not {"ask", "copy"}.isdisjoint(only):
                closed.ask(text)
                closed.ask(text, path)
        missing = [re.sub(r"/h(\d+\.txt)$", r"/u\1", path) for path in paths]
        copies: dict[str, str] = {}

        def upload(text: str) -> None:
            copies[text] = other.upload(f"{len(copies):05}.txt", text)

        def about_paths(kind: str) -> tuple[Callable[[str], None], list[str], list[str]]:
            return (lambda path: other.refused(kind, path)), paths, missing

        requests: dict[str, tuple[Callable[[str], None], list[str], list[str]]] = {
            "search": (other.search, hidden, unknown),
            "ask": (other.ask, hidden, unknown),
            "upload": (upload, hidden, unknown),
            "copy": (lambda text: other.ask(text, copies[text]), hidden, unknown),
            **{kind: about_paths(kind) for kind in ("text", "page", "remove", "purge")},
        }
        print(f"{'':8}{'hidden':>12}{'unknown':>12}{'area':>8}{'error':>8}   medians, {pairs} pairs")
        return [row(kind, *requests[kind]) for kind in KINDS if kind in only or (kind == "upload" and "copy" in only)]


def row(kind: str, request: Callable[[str], None], hidden: list[str], unknown: list[str]) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"hidden": [], "unknown": []}
    for number, pair in enumerate(zip(hidden, unknown, strict=True)):
        both = list(zip(seconds, pair, strict=True))
        for name, what in both if number % 2 == 0 else both[::-1]:
            started = time.perf_counter()
            request(what)
            seconds[name].append(time.perf_counter() - started)
    counted = {name: each[WARM:] for name, each in seconds.items()}
    area, error = area_of(*counted.values())
    shown = "".join(f"{1000 * statistics.median(each):9.1f} ms" for each in counted.values())
    print(f"{kind:8}{shown}{area:8.3f}{error:8.3f}", flush=True)
    return {"kind": kind, "area": area, "standard_error": error, "seconds": counted}


def area_of(hidden: list[float], unknown: list[float]) -> tuple[float, float]:
    """(the area under the curve, its standard error if time tells nothing)."""
    faster = sum((h < u) + (h == u) / 2 for h in hidden for u in unknown)
    both = len(hidden) * len(unknown)
    return faster / both, math.sqrt((len(hidden) + len(unknown) + 1) / (12 * both))


def texts_of(count: int, seed: int) -> list[str]:
    """Texts of `CHARS` characters: sentences of the reader's training data, drawn so that no passage is in two of them."""
    rows = map(json.loads, gzip.decompress(DATA.read_bytes()).splitlines())
    passages = sorted({row["passage"] for row in rows})
    sentences = [each for passage in passages for each in re.split(r"(?<=[.!?])\s+", passage) if 40 < len(each) < 300]
    chance = random.Random(seed)
    return [" ".join(chance.sample(sentences, CHARS // 40))[:CHARS] for _ in range(count)]


class Client:
    """One connection, with an API key."""

    def __init__(self, port: int, key: str) -> None:
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=600.0)

    def upload(self, name: str, text: str, *labels: str) -> str:
        """The path of the document."""
        files = {"file": (name, text.encode())}
        response = self._client.post("/v1/documents", files=files, data={"labels": list(labels)})
        assert response.status_code == 200, response.text
        (verdict,) = response.json()["data"]
        assert verdict["outcome"] == "added", verdict
        return str(verdict["path"])

    def search(self, text: str) -> None:
        response = self._client.post("/v1/search", json={"query": text[:QUERY_CHARS]})
        assert response.status_code == 200, response.text

    def ask(self, text: str, path: str = "") -> None:
        """One token of an answer: from the document at `path`, or from all that the caller may see."""
        own = {"passages": 1, "where": f"path = '{path}'" if path else ""}
        messages = [{"role": "user", "content": f"What is this: {text[:QUERY_CHARS]}?"}]
        body = {"model": "reader", "messages": messages, "max_tokens": 1, "openbook": own}
        response = self._client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text

    def refused(self, kind: str, path: str) -> None:
        if kind in ("text", "page"):
            page = {"page": "1"} if kind == "page" else {}
            response = self._client.get(f"/v1/documents/{kind}", params={"path": path, **page})
        else:
            response = self._client.post(f"/v1/documents/{kind}", json={"documents": [path]})
        assert response.json()["error"]["code"] == "document_not_found", response.text


def serve(folder: Path) -> None:
    model = opened("reader", KVCache(memory_bytes=4 << 30))
    with listen("127.0.0.1", 0) as door, closing(KnowledgeBase.open(folder / "kb")) as base:
        configuration = Configuration(Settings(home=folder / "home"), require_key=True)
        embedder = load_embedder(stored(load_settings().embedder))
        server = http_server(create_app(configuration, model, {"kb": base}, embedder))
        print(f"Listening on http://127.0.0.1:{door.getsockname()[1]}/v1", file=sys.stderr, flush=True)
        server.run(sockets=[door])


if __name__ == "__main__":
    main()
