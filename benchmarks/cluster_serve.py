"""What do replicas on a cluster keep of what the one-process server promises, and what does affinity save?

    python -m benchmarks.cluster_serve [--replicas 2] [--clients 16] [--seconds 180] [--questions 40] [--rounds 5]
                                       [--model reader] [--only affinity | load]

Asked are example questions on the handbook. All replicas run on this machine.

  affinity  each of the 84 questions so many rounds, in shuffled order, four at a time, for each number of replicas: how many
            states of passages are computed, over how many there are, when requests go where their first passage was read,
            and when they go anywhere. The engine notes which states it would have computed and computes none; each
            replica keeps its own, as on machines of their own
  load      so many clients ask without a pause, of the one-process server and of the one with replicas; one that is sent
            away (429) waits as long as it is told. At most 16 tokens an answer; every engine has one thread, so that all
            compute in one numeric class. Answers a second, statuses, and whether every answer has the bytes that the
            one-process server gave a single client; the time of CPU that the server's own process took for an answer

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import secrets
import sys
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.contender_openbook import counted_embedder
from benchmarks.processes import cpu_s
from benchmarks.serving import Ask, Server, chat_body, http_asker, questions, serving, show_load, under_load
from benchmarks.stored import HANDBOOK, base_of
from openbook.answers.ask import ask
from openbook.answers.retrieval import Corpus
from openbook.cluster import replicas
from openbook.cluster.connection import connect, disconnect
from openbook.core.config import available_cores
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Prompt, ReaderFormat, sha256_hex
from openbook.inference import FrozenModel
from openbook.inference.frozen import ReadEach
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.testing import EchoEngine

MAX_TOKENS = 16
SIDE_BY_SIDE = 4  # questions at a time, to measure affinity
CHANGES = ("created", "timings")  # all that may differ between two answers to one request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[2])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="reader")
    parser.add_argument("--only", choices=["affinity", "load"])
    options = parser.parse_args()
    os.environ["OPENBOOK_THREADS"] = "1"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  without it Ray's workers give way to all others
    value: dict[str, Any] = {"question": "what replicas cost and save", "cores": available_cores(), **vars(options)}
    with tempfile.TemporaryDirectory() as folder:
        kb, embedder = Path(folder) / "kb", counted_embedder()
        base_of(kb, [HANDBOOK], embedder).close()
        if options.only != "load":
            value["affinity"] = affinity(options, kb, Path(folder))
        if options.only != "affinity":
            value["load"] = load(options, kb)
    print(json.dumps(value))


# --- affinity ---------------------------------------------------------------------------------------------------------


class NotedEngine(EchoEngine):
    """Computes nothing. Writes the key of each state that an engine would have computed into a file of this process."""

    def __init__(self, notes: Path) -> None:
        super().__init__(context_tokens=1 << 20)
        self._notes, self._kept = notes / str(os.getpid()), set[str]()

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        key = sha256_hex(prompt.system.encode())
        for passage in prompt.passages:
            key = sha256_hex((key + passage).encode())
            if key not in self._kept:
                self._kept.add(key)
                with self._notes.open("a", encoding="ascii") as stream:
                    stream.write(f"{key}\n")
        return (yield from super().generate(prompt, decoding, cancelled))

    def generate_each(
        self, prompts: Sequence[Prompt], decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        found = yield from super().generate_each(prompts, decoding, cancelled)
        for prompt in prompts[: found.read]:
            yield from self.generate(prompt, Decoding(max_tokens=1), lambda: True)  # notes it and writes nothing
        return found


def noted_model(notes: Path, reader: ReaderFormat | None) -> FrozenModel:
    return FrozenModel(NotedEngine(notes), reader)


def affinity(options: argparse.Namespace, kb: Path, folder: Path) -> list[dict[str, Any]]:
    routes = {"by passage": replicas.affinity_key, "anywhere": lambda prompts: secrets.token_hex()}
    readers = {"checked": None, "each": ReaderFormat("Answer from the passage.", "The passages do not say.")}
    asked = questions(0) * options.rounds
    random.Random(5).shuffle(asked)
    found = []
    connect("local")
    try:
        for count in options.replicas:
            cluster = replicas.Replicas.on_cluster(count, count, 1)
            for (strategy, reader), (route, key) in itertools.product(readers.items(), routes.items()):
                (notes := folder / f"{count} {strategy} {route}").mkdir()
                with patch.object(replicas, "affinity_key", key):
                    answer_all(cluster, partial(noted_model, notes, reader), kb, asked)
                states = [path.read_text(encoding="ascii").split() for path in notes.iterdir()]
                computed, distinct = sum(map(len, states)), len(set().union(*states))
                row = {"replicas": count, "strategy": strategy, "route": route, "answers": len(asked)}
                row |= {"computed": computed, "distinct": distinct, "times": round(computed / distinct, 2)}
                row["largest_share"] = round(max(map(len, states)) / computed, 2)
                found.append(row)
                print("affinity  " + "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    finally:
        disconnect()
    return found


def answer_all(cluster: replicas.Replicas, open_model: replicas.OpenModel, kb: Path, asked: Sequence[str]) -> None:
    count, embedder = EchoEngine().count_prompt_tokens, counted_embedder()
    with (
        closing(cluster.open(open_model, bool, digest="0" * 64, count=count, states=KVCache())) as model,
        closing(KnowledgeBase.open(kb)) as base,
        ThreadPoolExecutor(SIDE_BY_SIDE) as pool,
    ):
        list(pool.map(lambda each: ask(each, model, Corpus(base, embedder)), asked))


# --- load -------------------------------------------------------------------------------------------------------------


def load(options: argparse.Namespace, kb: Path) -> dict[str, Any]:
    asked = questions(options.questions)
    command = [sys.executable, "-m", "openbook", "serve", "--port", "0", "--kb", str(kb), "--model", options.model]
    count = str(options.replicas[0])
    on_cluster = [*command, "--cluster", "local", "--replicas", count]
    wanted: dict[str, bytes] = {}
    found: dict[str, Any] = {}
    for name, each in (("one process", command), (f"{count} replicas", on_cluster)):
        with serving(each, options.model) as server:
            others: list[str] = []
            first = checked_asker(server, wanted, others)
            for question in asked:
                first(question)
            before = cpu_s(server.process)
            row = under_load(lambda: checked_asker(server, wanted, others), asked, options.clients, options.seconds)  # noqa: B023
            spent_s = (cpu_s(server.process) - before) / max(1, row["answers"])
        show_load(name, [row])
        print(
            f"{name:<22} {len(others)} answers with other bytes; {spent_s:.3f} s of CPU each in the server", flush=True
        )
        found[name] = {**row, "other_bytes": len(others), "server_cpu_s": spent_s}
    return found


def checked_asker(server: Server, wanted: dict[str, bytes], others: list[str]) -> Ask:
    """A client of its own. The first answer to a question is wanted of all; a question with another one goes to `others`."""

    def look(question: str, content: bytes) -> None:
        if wanted.setdefault(question, essence(content)) != essence(content):
            others.append(question)

    return http_asker(server.port, partial(chat_body, server.model, max_tokens=MAX_TOKENS), look)


def essence(content: bytes) -> bytes:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(each) for key, each in value.items() if key not in CHANGES}
        return [without(each) for each in value] if isinstance(value, list) else value

    return json.dumps(without(json.loads(content))).encode()


if __name__ == "__main__":
    main()
