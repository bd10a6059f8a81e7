"""Does it change an answer's bits whether a passage was read before? Ours, llama.cpp's server and transformers.

    PYTHON -m benchmarks.exact_reading [--trials 3000] [--requests 40] [--contrast]

Requests of three kinds (each passage on its own, as `openbook ask` reads them; passages together; no passage) on passages of the
reader's dev data, one in six longer than a call of the engine, are answered once by an engine that keeps nothing. Then each trial asks one of them again under a condition drawn by chance:

  warm        everything may be kept from earlier trials
  evicted     some of what is kept was thrown away before
  restarted   a new engine, with what an earlier one left on disk
  beside      seven other requests are under way in other threads

and compares SHA-256 over all logits that decide something: which passage is answered, and up to three tokens. With `--contrast` (needs xllamacpp, torch and
transformers in PYTHON) the same question is put to others: does the usual prefix cache give the bits of the whole prompt?
They are asked for a prompt without cache, and again after another question on the same passages, when the cache hits.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.stored import llamacpp_server, stored
from openbook.answers.prompts import reading_prompt
from openbook.core.records import Decoding, Prompt, ReaderFormat, passage_block, question_block
from openbook.inference import load_model
from openbook.inference.kv_cache import KVCache
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelReference

DATA = ROOT / "recipes" / "data" / "reader-dev.jsonl.gz"
STEPS = 3
RESTART_EVERY = 100
CONDITIONS = ("warm", "evicted", "restarted", "beside")
Request = tuple[str, tuple[tuple[str, str], ...], str]  # kind, (title, text) of each passage, question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--contrast", action="store_true")
    options = parser.parse_args()
    reference = stored("reader")
    requests = some_requests(options.requests)
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"openbook": trials(reference, requests, options.trials, Path(folder))}
    if options.contrast:
        result["llama.cpp server"] = server(reference, requests)
        result["transformers"] = transformers(reference, requests)
    for name, value in result.items():
        print(f"{name}: {json.dumps(value)}")
    print(json.dumps(result))


def some_requests(count: int) -> list[Request]:
    rows = [json.loads(line) for line in gzip.decompress(DATA.read_bytes()).splitlines()]
    chance = random.Random(4)
    drawn = chance.sample(rows, 48)
    pool = [(row["title"], row["passage"][: chance.randint(100, 300)]) for row in drawn[:20]]
    # Longer than a call of the engine.
    pool += [(row["title"], " ".join(r["passage"] for r in (row, *drawn[24:27]))[:2000]) for row in drawn[20:24]]
    questions = [q["question"] for row in rows for q in row["questions"]]
    requests: list[Request] = []
    for number in range(count):
        kind = ("each", "together", "each", "alone")[number % 4]
        passages = chance.sample(pool, chance.randint(1, 4)) if kind != "alone" else []
        requests.append((kind, tuple(passages), chance.choice(questions)))
    return requests


def digest(engine: LlamaCppEngine, reader: ReaderFormat, request: Request) -> str:
    kind, passages, question = request
    if kind == "each":
        prompts = [reading_prompt(question, [passage], reader) for passage in passages]
        found, decoding = hashlib.sha256(), Decoding(max_tokens=STEPS)
        for _ in engine.generate_each(prompts, decoding, look=lambda row: found.update(row.tobytes())):
            pass
        return found.hexdigest()
    prompt = reading_prompt(question, list(passages), reader) if passages else Prompt("Answer.", (), question)
    return hashlib.sha256(engine.logits(prompt, STEPS).tobytes()).hexdigest()


def opened(reference: ModelReference, states: KVCache) -> tuple[LlamaCppEngine, ReaderFormat]:
    model = load_model(reference, states=states)
    assert isinstance(model.engine, LlamaCppEngine)
    assert model.reader is not None
    return model.engine, model.reader


def trials(reference: ModelReference, requests: list[Request], count: int, folder: Path) -> dict[str, Any]:
    engine, reader = opened(reference, KVCache(None, memory_bytes=0))
    expected = [digest(engine, reader, request) for request in requests]
    engine.close()
    states = KVCache(folder, memory_bytes=64 << 20, disk_bytes=256 << 20)
    engine, _ = opened(reference, states)
    chance = random.Random(5)
    done, wrong = Counter[str](), Counter[str]()
    started = time.perf_counter()
    number = 0
    while sum(done.values()) < count:
        number += 1
        if number % RESTART_EVERY == 0:
            engine.close()
            states = KVCache(folder, memory_bytes=64 << 20, disk_bytes=256 << 20)
            engine, _ = opened(reference, states)
            condition = "restarted"
        else:
            condition = chance.choices(CONDITIONS[:2] + CONDITIONS[3:], (8, 4, 1))[0]
        if condition == "evicted":
            for file in folder.rglob("*.state"):
                if chance.random() < 0.15:
                    states.drop(bytes.fromhex(file.stem))
        chosen = [chance.randrange(len(requests)) for _ in range(8 if condition == "beside" else 1)]
        with ThreadPoolExecutor(len(chosen)) as pool:
            found = list(pool.map(functools.partial(digest, engine, reader), [requests[i] for i in chosen]))
        done[condition] += len(chosen)
        wrong[condition] += sum(f != expected[i] for f, i in zip(found, chosen, strict=True))
        if number % 100 == 0:
            print(
                f"{sum(done.values())} trials, {sum(wrong.values())} other, {time.perf_counter() - started:.0f} s",
                flush=True,
            )
    engine.close()
    total, other = sum(done.values()), sum(wrong.values())
    bound = 3 / total if other == 0 else None  # the rule of three: 95 %
    return {"trials": dict(done), "other bits": dict(wrong), "rate below (95 %)": bound, "requests": len(requests)}


def server(reference: ModelReference, requests: list[Request]) -> dict[str, Any]:
    """Log-probabilities of the 10 likeliest first tokens, with the cache and without."""
    running = llamacpp_server(reference.needed_base.main_file, 4096)

    def asked(request: Request, question: str, *, cached: bool) -> str:
        user = "".join(passage_block(*passage) for passage in request[1]) + question_block(question)
        value = {"messages": [{"role": "user", "content": user}], "max_tokens": 1, "temperature": 0}
        value |= {"cache_prompt": cached, "logprobs": True, "top_logprobs": 10}
        return json.dumps(running.handle_chat_completions(value)["choices"][0]["logprobs"], sort_keys=True)

    together = [request for request in requests if request[1]]
    other = 0
    for request in together:
        alone = asked(request, request[2], cached=False)
        asked(request, "Who said so?", cached=True)
        other += asked(request, request[2], cached=True) != alone
    return {"requests": len(together), "other bits": other}


def transformers(reference: ModelReference, requests: list[Request]) -> dict[str, Any]:
    """Logits after the prompt, computed at once and on the kept prefix (DynamicCache)."""
    torch: Any = import_module("torch")
    cache: Any = import_module("transformers").DynamicCache
    network_module: Any = import_module("openbook.training.network")
    tokenizing: Any = import_module("openbook.inference.tokenizer")
    path = reference.needed_base.main_file
    network, tokenizer = network_module.load_network(path), tokenizing.open_tokenizer(path)
    together = [request for request in requests if request[1]]
    other = 0
    with torch.no_grad():
        for _, passages, question in together:
            blocks = tokenizer.blocks(reading_prompt(question, list(passages), None))
            prefix, last = [token for block in blocks[:-1] for token in block], blocks[-1]
            whole = network(torch.tensor([prefix + last])).logits[0, -1]
            kept = network(torch.tensor([prefix]), past_key_values=cache(), use_cache=True).past_key_values
            rest = network(torch.tensor([last]), past_key_values=kept, use_cache=True).logits[0, -1]
            other += not torch.equal(whole, rest)
    return {"requests": len(together), "other bits": other}


if __name__ == "__main__":
    main()
