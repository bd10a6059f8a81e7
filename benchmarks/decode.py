"""How fast does the default reader read and write, and how near is that to what the machine's memory gives?

    python -m benchmarks.decode [--rounds 5]

Writing one token reads every weight once, so its time bounds the bandwidth that is achieved: bytes of the weights that are
multiplied (all tensors of the file; the embedding is also the output matrix) over seconds a token. The machine's: the best of ten copies of 512 MB by
NumPy on each core at once, read and written bytes together. Reading: tokens a second of a passage, of a question after
one passage, and of the questions after three, side by side.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.stored import merged_reader, stored
from openbook.core.config import available_cores
from openbook.inference.frozen import SIDE_BY_SIDE
from openbook.inference.llamacpp import CALL_TOKENS
from openbook.inference.llamalib import Adapter, Context, Model
from openbook.models import ModelReference, read_gguf

PASSAGE, QUESTION, WRITTEN = 250, 25, 12  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    reference = stored("reader")
    forms = {
        "merged": opened(reference, merged=True),
        "adapter on its base": opened(reference, merged=False),
    }
    times: dict[str, list[list[float]]] = {name: [] for name in forms}
    for number in range(options.rounds):
        for name in list(forms) if number % 2 == 0 else list(forms)[::-1]:
            times[name].append(one_round(*forms[name], random.Random(number)))
    peak = bandwidth()
    value: dict[str, object] = {"question": "speed of reading and writing", "cores": available_cores()}
    print(f"memory: {peak / 1e9:.1f} GB/s")
    for name, rounds in times.items():
        reading, one, three, writing, size = (statistics.median(column) for column in zip(*rounds, strict=True))
        used = weights(reference.merged if reference.merged and "merged" in name else reference.needed_base)
        print(
            f"{name:<20} passage {PASSAGE / reading:6.0f} tokens/s; question {one * 1e3:5.0f} ms after one, "
            f"{three * 1e3:5.0f} ms after three; written {1 / writing:5.0f} tokens/s = {used / writing / 1e9:.1f} GB/s, "
            f"{used / writing / peak:.0%} of the memory's; {size / PASSAGE / 1e3:.1f} kB a token kept"
        )
        value[name] = {"passage_s": reading, "one_s": one, "three_s": three, "token_s": writing, "bytes": used}
    print(json.dumps(value | {"memory_bytes_per_s": peak}))


def opened(reference: ModelReference, *, merged: bool) -> tuple[Model, Context]:
    if merged:
        model, adapter = Model(merged_reader()), None
    else:
        model = Model(reference.needed_base.main_file)
        adapter = Adapter(model, reference.main_file)
    context = Context(
        model,
        adapter,
        context_tokens=4096,
        call_tokens=CALL_TOKENS,
        sequences=SIDE_BY_SIDE,
        threads=available_cores(),
    )
    context.adapt(True)
    return model, context


def one_round(model: Model, context: Context, chance: random.Random) -> list[float]:
    """Seconds to read a passage, a question after one and after three, and to write a token; bytes of a passage's state."""

    def tokens(count: int) -> list[int]:
        return [chance.randrange(1000, model.vocabulary_size - 1000) for _ in range(count)]

    def asked(passages: int) -> float:
        context.clear()
        for sequence in range(passages):
            context.restore(state, PASSAGE, sequence)
        questions = [(sequence, tokens(QUESTION)) for sequence in range(passages)]
        return seconds(lambda: context.evaluate(questions))

    context.begin(lambda: False)
    passage = tokens(PASSAGE)
    reading = seconds(lambda: context.read(passage))
    state = context.state()
    one, three = asked(1), asked(3)
    writing = seconds(lambda: [context.evaluate([(0, [55])]) for _ in range(WRITTEN)]) / WRITTEN
    return [reading, one, three, writing, float(len(state))]


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def weights(reference: ModelReference) -> int:
    """Bytes of all tensors."""
    return sum(tensor.size_bytes for tensor in read_gguf(reference.main_file).tensors)


def bandwidth() -> float:
    """Bytes a second, read and written, when every core copies."""
    cores = available_cores()
    pairs = [(np.ones(64 << 20), np.empty(64 << 20)) for _ in range(cores)]
    moved = sum(2 * source.nbytes for source, _ in pairs)
    with ThreadPoolExecutor(cores) as pool:
        return max(
            moved / seconds(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))) for _ in range(10)
        )


if __name__ == "__main__":
    main()
