"""What do replicas on a cluster keep of what the one-process server promises, and what does affinity save?

    python -m benchmarks.cluster_serve [--replicas 2] [--clients 16] [--seconds 180] [--questions 40] [--rounds 2]
                                       [--model reader] [--only affinity | load] [--json FILE]

Asked are example questions on the handbook, at most 16 tokens an answer. Every engine has one thread, so that all compute in
one numeric class. All replicas run on this machine; each keeps what it read in its own memory alone, as on machines of
their own.

  affinity  each question so many rounds, in shuffled order, four at a time: how many states of passages were computed,
            over how many there are, when requests go where their first passage was read, and when they go anywhere
  load      so many clients ask without a pause, of the one-process server and of the one with replicas; one that is sent
            away (429) waits as long as it is told. Answers a second, statuses, and whether every answer has the bytes
            that the one-process server gave a single client

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import secrets
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.contender_openbook import counted_embedder
from benchmarks.examples_accuracy import EXAMPLES
from benchmarks.serving import Ask, Server, questions, serving, show_load, under_load
from openbook.answer import Options, ask
from openbook.cluster import replicas
from openbook.cluster.connection import connect, disconnect
from openbook.config import available_cores, load_settings
from openbook.inference import FrozenModel, load_model, prompt_counter
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, add
from openbook.models import ModelStore, ensure
from openbook.records import Decoding, Digest

MAX_TOKENS = 16
CACHE_MB = 1024
SIDE_BY_SIDE = 4  # questions at a time, to measure affinity
CHANGES = ("created", "timings")  # all that may differ between two answers to one request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="reader")
    parser.add_argument("--only", choices=["affinity", "load"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OPENBOOK_THREADS"] = "1"
    value: dict[str, Any] = {"question": "what replicas cost and save", "cores": available_cores(), **vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        kb, embedder = Path(folder) / "kb", counted_embedder()
        with closing(KnowledgeBase.ensure(kb, embedder.identity)) as base:
            add(base, [EXAMPLES / "handbook"], embedder)
        if options.only != "load":
            value["affinity"] = affinity(options, kb, Path(folder))
        if options.only != "affinity":
            value["load"] = load(options, kb)
    text = json.dumps(value, default=str)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    print(text)


# --- affinity ---------------------------------------------------------------------------------------------------------


class NotedStates(KVCache):
    """In memory alone. Writes the key of each state that was computed into a file of this process."""

    def __init__(self, notes: Path) -> None:
        super().__init__(None, memory_bytes=CACHE_MB << 20)
        self._notes = notes / str(os.getpid())

    def put(self, key: bytes, state: bytes, passages: Sequence[Digest], begun: int, tokens: int = 0) -> None:
        super().put(key, state, passages, begun, tokens)
        with self._notes.open("a", encoding="ascii") as stream:
            stream.write(f"{key.hex()}\n")


def noted_model(root: Path, digest: Digest, notes: Path) -> FrozenModel:
    return load_model(ModelStore(root).resolve(digest), threads=1, states=NotedStates(notes))


def affinity(options: argparse.Namespace, kb: Path, folder: Path) -> dict[str, dict[str, float]]:
    ways = {"by passage": replicas.affinity_key, "anywhere": lambda prompts: secrets.token_hex()}
    asked = questions(options.questions) * options.rounds
    random.Random(5).shuffle(asked)
    found: dict[str, dict[str, float]] = {}
    connect("local")
    try:
        cluster = replicas.Replicas.on_cluster(options.replicas, options.replicas, 1, 0)
        for name, key in ways.items():
            (notes := folder / name).mkdir()
            with patch.object(replicas, "affinity_key", key):
                answer_all(options.model, cluster, kb, notes, asked)
            states = [path.read_text(encoding="ascii").split() for path in notes.iterdir()]
            computed, distinct = sum(map(len, states)), len(set().union(*states))
            found[name] = {"answers": len(asked), "computed": computed, "distinct": distinct}
            found[name] |= {"times": computed / distinct, "fewest": min(map(len, states))}
            print(f"affinity, {name:<11} " + "  ".join(f"{k} {v:.4g}" for k, v in found[name].items()), flush=True)
    finally:
        disconnect()
    return found


def answer_all(model_name: str, cluster: replicas.Replicas, kb: Path, notes: Path, asked: Sequence[str]) -> None:
    store, embedder = ModelStore(load_settings().models_dir), counted_embedder()
    reference = ensure(store, model_name)
    opened = partial(noted_model, store.root, reference.digest, notes)
    options = Options(decoding=Decoding(max_tokens=MAX_TOKENS))
    count = prompt_counter(reference)
    with (
        closing(cluster.open(opened, len, digest=reference.digest, count=count, purge_list=bytes)) as model,
        closing(KnowledgeBase.open(kb)) as base,
        ThreadPoolExecutor(SIDE_BY_SIDE) as pool,
    ):
        list(pool.map(lambda each: ask(each, model, base, embedder, options), asked))


# --- load -------------------------------------------------------------------------------------------------------------


def load(options: argparse.Namespace, kb: Path) -> dict[str, Any]:
    asked = questions(options.questions)
    command = [sys.executable, "-m", "openbook", "serve", "--port", "0", "--kb", str(kb), "--model", options.model]
    on_cluster = [*command, "--cluster", "local", "--replicas", str(options.replicas)]
    wanted: dict[str, bytes] = {}
    found: dict[str, Any] = {}
    for name, each in (("one process", command), (f"{options.replicas} replicas", on_cluster)):
        with serving(each, options.model) as server:
            others: list[str] = []
            first = checked_asker(server, wanted, others)
            for question in asked:
                first(question)
            row = under_load(lambda: checked_asker(server, wanted, others), asked, options.clients, options.seconds)  # noqa: B023
        show_load(name, [row])
        print(f"{name:<22} {len(others)} answers with other bytes", flush=True)
        found[name] = {**row, "other_bytes": len(others)}
    return found


def checked_asker(server: Server, wanted: dict[str, bytes], others: list[str]) -> Ask:
    """A client of its own. The first answer to a question is wanted of all; a question with another one goes to `others`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)

    def asked(question: str) -> tuple[int, float]:
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"model": server.model, "messages": messages, "max_tokens": MAX_TOKENS})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status == 200 and wanted.setdefault(question, essence(content)) != essence(content):
            others.append(question)
        return response.status, float(response.headers.get("retry-after", 0))

    return asked


def essence(content: bytes) -> bytes:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key not in CHANGES}
        return [without(each) for each in value] if isinstance(value, list) else value

    return json.dumps(without(json.loads(content))).encode()


if __name__ == "__main__":
    main()
