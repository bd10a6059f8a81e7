"""How long until the first word, when the passages were read before and the question is new?

    PYTHON -m benchmarks.first_token [--rounds 2] [--passages 1 2 4 8 16] [--plot FILE.png]

PYTHON is that of an environment with openbook and xllamacpp (a prebuilt llama.cpp server in the process). Both read the
default reader, from the same merged file, with the same number of threads. 24 passages of about 250 tokens
each (paragraphs of the reader's training data); every request draws some of them at random and asks a new question:

  openbook  each passage on its own, side by side. warm: all were read before; cold: none was
  server    the same passages one after another in one prompt, prompt caching on, all read in the requests before. same:
            the same passages in the same order as in the request before, its best case; cold: none was read before

Time to the first token is that of the whole request with one token of answer. Each run is a process of its own; within a
round the contenders follow each other, and ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, result_of
from benchmarks.stored import llamacpp_server, merged_reader, stored
from openbook.answers.prompts import reading_prompt
from openbook.core.config import available_cores
from openbook.core.records import Decoding, ReaderFormat, passage_block, question_block
from openbook.inference import load_model
from openbook.inference.kv_cache import KVCache
from openbook.inference.tokenizer import open_tokenizer
from openbook.models import ModelReference

DATA = ROOT / "recipes" / "data" / "reader-train.jsonl.gz"
POOL = 24
TOKENS = 250
REQUESTS = {1: 6, 2: 6, 4: 6, 8: 3, 16: 2}
ONE = Decoding(max_tokens=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--passages", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        name, seed = options.child
        contender: Callable[..., dict[str, Any]] = {"openbook": openbook, "server": server}[name]
        print(json.dumps(contender(options.passages, random.Random(int(seed)))))
        return
    rounds = []
    for number in range(options.rounds):
        names = ("openbook", "server") if number % 2 == 0 else ("server", "openbook")
        own = partial(result_of, "benchmarks.first_token", "--passages", *options.passages, "--child")
        rounds.append({name: own(name, number) for name in names})
    show(rounds, options.passages)
    value = {"question": "seconds to the first token", "cores": available_cores(), "rounds": rounds}
    print(json.dumps(value))
    if options.plot:
        plot(rounds, options.passages, options.plot)


def pool(reference: ModelReference, size: int = POOL) -> tuple[list[tuple[str, str]], list[str]]:
    """(title and text of `size` passages of about `TOKENS` tokens each, questions)."""
    tokenizer = open_tokenizer(reference.needed_base.main_file).model
    texts: list[tuple[str, str]] = []
    questions: list[str] = []
    for line in gzip.decompress(DATA.read_bytes()).splitlines():
        row = json.loads(line)
        tokens = tokenizer.tokenize(row["passage"], control=False)
        if len(tokens) >= TOKENS:
            text = b"".join(tokenizer.piece(token) for token in tokens[:TOKENS]).decode("utf-8", "ignore")
            texts.append((row["title"], text))
        questions += [q["question"] for q in row["questions"]]
    chance = random.Random(1)
    return chance.sample(texts, size), chance.sample(questions, 400)


def openbook(counts: list[int], chance: random.Random) -> dict[str, Any]:
    reference = stored("reader")
    texts, questions = pool(reference)
    model = load_model(reference, states=KVCache(None, memory_bytes=4 << 30))
    cold_model = load_model(reference, states=KVCache(None, memory_bytes=0))

    def timed(chosen: list[tuple[str, str]], *, warm: bool) -> float:
        question = questions.pop()
        prompts = [reading_prompt(question, [each], model.reader) for each in chosen]
        started = time.perf_counter()
        stream = (model if warm else cold_model).stream_each(prompts, ONE)
        for _ in stream:
            pass
        return time.perf_counter() - started

    for each in texts:
        model.read_ahead(reading_prompt("?", [each], model.reader))
    found = {}
    for count in counts:
        timed(chance.sample(texts, count), warm=True)
        found[str(count)] = {
            "warm": [timed(chance.sample(texts, count), warm=True) for _ in range(REQUESTS[count])],
            "cold": [timed(chance.sample(texts, count), warm=False) for _ in range(2)],
        }
    return found


def server(counts: list[int], chance: random.Random) -> dict[str, Any]:
    reference = stored("reader")
    texts, questions = pool(reference)
    model = load_model(reference)
    system = (model.reader or ReaderFormat("", "")).instruction
    model.close()
    running = llamacpp_server(merged_reader(), 8192)

    def timed(chosen: list[tuple[str, str]]) -> float:
        user = "".join(passage_block(*each) for each in chosen) + question_block(questions.pop())
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        started = time.perf_counter()
        running.handle_chat_completions({"messages": messages, "max_tokens": 1, "temperature": 0, "cache_prompt": True})
        return time.perf_counter() - started

    found = {}
    for count in counts:
        cold = timed(chance.sample(texts, count))
        warm = [timed(chance.sample(texts, count)) for _ in range(REQUESTS[count])]
        again = chance.sample(texts, count)
        timed(again)
        same = [timed(again) for _ in range(3)]
        found[str(count)] = {"warm": warm, "same": same, "cold": [cold]}
    return found


def show(rounds: list[dict[str, Any]], counts: list[int]) -> None:
    rows = (("openbook", "warm"), ("openbook", "cold"), ("server", "warm"), ("server", "same"), ("server", "cold"))
    print("passages".ljust(20) + "".join(f"{count:>16}" for count in counts))
    for name, kind in rows:
        cells = [[s for r in rounds for s in r[name][str(count)][kind]] for count in counts]
        print(f"{name} {kind}".ljust(20) + "".join(f"{statistics.median(c):>9.2f} s     " for c in cells))
    for label, other in (("server warm", ("server", "warm")), ("server same", ("server", "same"))):
        ratios = []
        for count in counts:
            of_rounds = [
                statistics.median(r[other[0]][str(count)][other[1]])
                / statistics.median(r["openbook"][str(count)]["warm"])
                for r in rounds
            ]
            ratios.append(f"{statistics.median(of_rounds):.1f} ({min(of_rounds):.1f}-{max(of_rounds):.1f})")
        print(f"{label} / warm".ljust(20) + "".join(f"{ratio:>16}" for ratio in ratios))


def plot(rounds: list[dict[str, Any]], counts: list[int], path: Path) -> None:
    import_module("matplotlib").use("Agg")
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, kind, label in (
        ("server", "warm", "llama.cpp server, prompt caching, passages read before"),
        ("server", "same", "llama.cpp server, the same passages in the same order again"),
        ("openbook", "cold", "OpenBook, passages never read"),
        ("openbook", "warm", "OpenBook, passages read before"),
    ):
        medians = [statistics.median(s for r in rounds for s in r[name][str(c)][kind]) for c in counts]
        axes.plot(counts, medians, marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="passages of 250 tokens", ylabel="seconds to the first token")
    axes.set_xticks(counts, [str(c) for c in counts])
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
