"""Do slots keep an answer's bits apart from its companions, and what do they gain?

    python -m benchmarks.slots law [MODEL ...] [--slots 2 4 7] [--trials 300] [--lengths 5 60 250 600]
    python -m benchmarks.slots load [--model reader] [--slots 7] [--clients 1 4 16 64] [--seconds 30] [--rounds 2]
                                    [--limit 28] [--tokens 48] [--xllamacpp FOLDER]

  law   A trial computes two tokens behind one of the prompts, at any place among any number of companions, which hold prompts of
        other lengths and change between the two calls, in sequences that were emptied and filled again all the time. All
        trials of a prompt must have the same logits, bit for bit: those that it has when nobody else is there.
  load  `openbook serve` with slots and without, and llama.cpp's server with as many slots, if its package lies in FOLDER. All read
        the same two windows in one prompt (`together`), everything asked about before in other words; llama.cpp's server gets
        the very texts and searches nothing. Answers a second, and answers for each second of the server's processor time, which
        other programs on the machine disturb less. `--strategies each`: as the reader usually reads. `--tokens 160`: asks for long answers, at most so long.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.answers_per_second import MAX_TOKENS
from benchmarks.contender_openbook import counted_embedder
from benchmarks.processes import cpu_s
from benchmarks.serving import chat_body, http_asker, openbook_command, questions, serving, under_load
from benchmarks.stored import HANDBOOK, base_of, llamacpp_server, opened, stored
from openbook.answer import Options, pack, retrieve
from openbook.config import available_cores
from openbook.inference.frozen import SIDE_BY_SIDE
from openbook.inference.llamacpp import CALL_TOKENS, SHARED_CELLS
from openbook.inference.llamalib import Context, Model
from openbook.inference.slots import state_apart, usable_widths
from openbook.knowledge import KnowledgeBase, Scope
from openbook.records import Decoding

WINDOWS = 2  # so that what is kept of all prompts fits into the server's memory
LAW_MODELS = ("smollm2-135m-instruct", "reader", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["law", "load", "llama.cpp"])
    parser.add_argument("models", nargs="*", default=LAW_MODELS)
    parser.add_argument("--slots", type=int, nargs="+", default=[])
    parser.add_argument("--trials", type=int, default=300, help="for each number of slots")
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 60, 250, 600], help="of prompts, in tokens")
    parser.add_argument("--model", default="reader")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=int, default=28, help="about so many questions, spread over all")
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="most tokens of an answer")
    parser.add_argument("--xllamacpp", type=Path, help="where `pip install --target FOLDER xllamacpp` put it")
    parser.add_argument("--strategies", nargs="+", default=["together"])
    options = parser.parse_args()
    if options.what == "llama.cpp":
        serve_llamacpp(options.model, options.slots[0], options.xllamacpp)
    elif options.what == "law":
        found = [law(name, n, options) for name in options.models for n in options.slots or (2, 4, 7)]
        print(json.dumps({"question": "do slots keep bits apart", "rows": found}))
    else:
        print(json.dumps({"question": "what slots gain", "cores": available_cores(), "rounds": load(options)}))


# --- the law ----------------------------------------------------------------------------------------------------------


def law(name: str, slots: int, options: argparse.Namespace) -> dict[str, Any]:
    reference = stored(name)
    model, rng = Model((reference.merged or reference).main_file), random.Random(slots)
    threads = available_cores()
    reading = Context(
        model, context_tokens=SHARED_CELLS, call_tokens=CALL_TOKENS, sequences=SIDE_BY_SIDE, threads=threads
    )
    apart = Context(model, context_tokens=1024, call_tokens=slots, sequences=slots, threads=threads, apart=True)

    def token() -> int:
        return rng.randrange(model.vocabulary_size)

    least, most = usable_widths(reading, apart, slots, [token() for _ in range(24)])
    prompts = []
    for length in options.lengths:
        reading.clear()
        reading.read([token() for _ in range(length)])
        prompts.append((state_apart(reading.state(), slots), length))
    further = [(token(), token()) for _ in prompts]
    expected = {}
    for number, (state, length) in enumerate(prompts):
        apart.clear()
        apart.restore(state, length, 0)
        empty = [(s, [1]) for s in range(1, least)]
        expected[number] = digest(apart.evaluate([(0, [each]), *empty])[0] for each in further[number])

    def fill(sequence: int, prompt: int) -> None:
        apart.remove(sequence)
        apart.restore(*prompts[prompt], sequence)

    def trial() -> bool:
        width, mine = rng.randint(least, most), rng.randrange(len(prompts))
        place = rng.randrange(width)
        fill(place, mine)
        rows = []
        for step in range(2):
            for sequence in range(width):
                if sequence != place and (apart.position(sequence) > 1000 or rng.random() < 0.3):
                    fill(sequence, rng.randrange(len(prompts)))
            call = [(s, [further[mine][step] if s == place else token()]) for s in range(width)]
            rows.append(apart.evaluate(call)[place])
            width = rng.randint(max(least, place + 1), most)
        return digest(rows) == expected[mine]

    started = time.process_time()
    equal = sum(trial() for _ in range(options.trials))
    row = {"model": name, "slots": slots, "widths": [least, most], "trials": options.trials, "equal": equal}
    print(f"{row}, {time.process_time() - started:.0f} s of CPU", flush=True)
    for each in (reading, apart, model):
        each.close()
    return row


def digest(rows: Any) -> str:
    return hashlib.sha256(b"".join(row.tobytes() for row in rows)).hexdigest()


# --- load -------------------------------------------------------------------------------------------------------------


def load(options: argparse.Namespace) -> list[dict[str, Any]]:
    slots, rounds = (options.slots or [7])[0], []
    asked = questions(options.limit)
    if options.tokens > MAX_TOKENS:
        topics = sorted(path.stem.replace("-", " ") for path in HANDBOOK.rglob("*.md"))
        asked = [
            f"Write a long and detailed explanation, in many sentences, of everything about {topic} and why it matters."
            for topic in topics[:: max(1, len(topics) // options.limit)]
        ]
    with tempfile.TemporaryDirectory() as folder:
        kb = Path(folder) / "kb"
        embedder = counted_embedder()
        with closing(base_of(kb, [HANDBOOK], embedder)) as base:
            texts = {q: messages(options, q, base, embedder) for q in (*asked, *map(other_words, asked))}
        contenders = [(s, n) for s in options.strategies for n in (0, slots)]
        for number in range(options.rounds):
            row: dict[str, Any] = {}
            for strategy, n in contenders if number % 2 == 0 else contenders[::-1]:
                command = [*openbook_command(kb, options.model), "--slots", str(n)]
                with serving(command, options.model) as server:
                    name = f"{strategy}, {n} slots"
                    body_of = partial(body, options, strategy)
                    row[name] = measured(name, server.port, server.process, body_of, asked, options)
            if options.xllamacpp:
                with llamacpp_process(options, slots) as (port, process):
                    row["llama.cpp"] = measured("llama.cpp", port, process, texts.__getitem__, asked, options)
            rounds.append(row)
    show(rounds)
    return rounds


def other_words(question: str) -> str:
    return f"Please tell me: {question}"


def body(options: argparse.Namespace, strategy: str, question: str) -> dict[str, Any]:
    own = {"strategy": strategy, **({"passages": WINDOWS} if strategy == "together" else {})}
    return {**chat_body(options.model, question, options.tokens), "openbook": own}


_models: dict[str, Any] = {}


def messages(wanted: argparse.Namespace, question: str, base: KnowledgeBase, embedder: Any) -> dict[str, Any]:
    """What llama.cpp's server is asked: the prompt that OpenBook makes, as messages."""
    name = wanted.model
    if name not in _models:
        _models[name] = opened(name)
    model, decoding = _models[name], Decoding(max_tokens=wanted.tokens)
    options = Options(WINDOWS, "together", decoding)
    found = retrieve(question, model, base, embedder, options, earlier=(), scope=Scope(), reranker=None)
    prompt = pack(question, found.hits, model, decoding)[1] if found.hits else None
    system, user = (prompt.system, "".join(prompt.passages) + prompt.question) if prompt else ("", question)
    told = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"model": "x", "messages": told, "max_tokens": wanted.tokens, "temperature": 0, "cache_prompt": True}


def measured(
    name: str, port: int, process: int, body_of: Any, asked: Sequence[str], options: argparse.Namespace
) -> dict[int, tuple[float, float]]:
    """By the number of clients: answers a second, and answers for each second of processor time."""
    new_client = partial(http_asker, port, body_of)
    first = new_client()
    for question in asked:
        if (status := first(other_words(question))[0]) != 200:
            sys.exit(f"{name} answers {status}")
    found = {}
    for clients in options.clients:
        before = cpu_s(process)
        row = under_load(new_client, asked, clients, options.seconds)
        found[clients] = row["answers_per_s"], row["answers"] / (cpu_s(process) - before)
        shown = "answers/s {:6.2f}, for each second of processor time {:5.2f}".format(*found[clients])
        print(f"{name:<22} {clients:>3} clients: {shown}  {row['statuses']}", flush=True)
    return found


@contextmanager
def llamacpp_process(options: argparse.Namespace, slots: int) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "benchmarks.slots", "llama.cpp", "--model", options.model, "--slots", str(slots)]
    command += ["--xllamacpp", str(options.xllamacpp)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        port = int(next(line for line in process.stdout if line.startswith(b"port ")).split()[1])
        yield port, process.pid
        process.kill()


def serve_llamacpp(name: str, slots: int, folder: Path) -> None:
    sys.path.insert(0, str(folder))
    _models.clear()
    reference = stored(name)
    running = llamacpp_server((reference.merged or reference).main_file, 2048 * slots, slots)
    print("port", running.listening_address.rpartition(":")[2], flush=True)
    sys.stdin.read()
    os._exit(0)


def show(rounds: Sequence[dict[str, dict[int, tuple[float, float]]]]) -> None:
    first, *others = sorted(rounds[0])
    for clients in rounds[0][first]:
        for name in others:
            for place, kind in enumerate(("answers/s", "answers/processor second")):
                ratios = [each[name][clients][place] / each[first][clients][place] for each in rounds]
                shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                print(f"{clients:>3} clients, {kind}: {name} / {first}: {shown}")


if __name__ == "__main__":
    main()
