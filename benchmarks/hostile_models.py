"""Does any model file end a process that imports or serves it?

    python -m benchmarks.hostile_models [--files 1000] [--real 100] [--json FILE]

So many files with one or two things changed (`tests/models/mutations.py`, by seeds 0, 1, ...): of a small llama, and the last
`--real` of the default model with all its weights. A process imports each as `openbook models import` does, with a trial in a
process of its own. What gets a name is opened as a server opens a model whose name means another one now, and answers. What the
trial refused comes into the store untried, and the same server must refuse it with a sentence. Should that process
end, its file is counted as an abort and another process goes on with the next.

  header    refused by the strict reader of headers
  ended     the trial's process was ended, by llama.cpp or by a limit: without it the server would have been
  engine    the trial's engine refused it with an error
  answers   loaded, named, and answered in the server

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.stored import stored
from openbook.core.errors import ContextOverflow, EngineError, InvalidModelFile
from openbook.core.records import Decoding, Prompt
from openbook.inference import FrozenModel, load_model
from openbook.inference.trial import check_usable
from openbook.models import ModelStore, import_gguf
from openbook.serving.model_reload import named_in_store
from tests.models.gguf_files import Recipe, llama
from tests.models.mutations import MUTATIONS, mutated, recipe_of

COLUMNS = ("header", "ended", "engine", "answers", "abort")
ENDED = ("it ended the process", "not loaded and asked within")
LONG = "What stands here is longer than one call of the engine, and in many scripts: ß Ж 漢 \U0001f600 \U000e0041. " * 3
PROMPTS = (Prompt("Answer.", (), "Who?"), Prompt("Answer.", (LONG, "A ferry."), "When does it leave?"))
LONG_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--real", type=int, default=100, help="so many of them are of the default model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started, rows = time.monotonic(), list[tuple[int, str, str, str]]()
    real = stored("smollm2-135m-instruct").main_file
    with tempfile.TemporaryDirectory() as folder:
        while len(rows) < options.files:
            rows += measured(len(rows), options.files, options.real, real, Path(folder))
    counts = Counter((kind, outcome) for _, kind, outcome, _ in rows)
    print(f"{'changed':<18}", *(f"{name:>8}" for name in COLUMNS))
    for kind in sorted(MUTATIONS):
        print(f"{kind:<18}", *(f"{counts[kind, name]:>8}" for name in COLUMNS))
    totals = Counter(outcome for _, _, outcome, _ in rows)
    print(f"{'all':<18}", *(f"{totals[name]:>8}" for name in COLUMNS))
    for seed, kind, outcome, said in rows:
        if outcome == "abort":
            print(f"seed {seed}, {kind}: {said}")
    value = {
        "question": "does a model file end a process that imports or serves it",
        "files": len(rows),
        "real": options.real,
        "outcomes": {name: totals[name] for name in COLUMNS},
        "trial_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
        "seconds": round(time.monotonic() - started),
    }
    if options.json:
        options.json.write_text(json.dumps(value | {"rows": rows}), encoding="utf-8")
    print(json.dumps(value))


def measured(first: int, files: int, real: int, model: Path, folder: Path) -> list[tuple[int, str, str, str]]:
    """(seed, what was changed, what became of it, what was said) from seed `first` on, until all are done or one ends the process."""
    mine, its = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(its, first, files, real, model, folder))
    process.start()
    its.close()
    rows = []
    try:
        while mine.poll(LONG_S):
            rows.append(mine.recv())
            if len(rows) % 50 == 0:
                print(f"{first + len(rows)} files", flush=True)
    except EOFError:
        pass
    process.join(1.0)  # it ended, or it is too late
    process.kill()
    process.join()
    if first + len(rows) < files:
        seed = first + len(rows)
        kind = sorted(MUTATIONS)[seed % len(MUTATIONS)]
        rows.append((seed, kind, "abort", f"the process ended with {process.exitcode}"))
    return rows


def serve(pipe: Connection, first: int, files: int, real: int, model: Path, folder: Path) -> None:
    whole = Recipe()
    for seed in range(first, files):
        if seed >= files - real and not whole.tensors[3:]:
            whole = recipe_of(model)
        kind, data = mutated(whole if seed >= files - real else llama(), seed)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "served.gguf"
            path.write_bytes(data)
            pipe.send((seed, kind, *outcome(path, ModelStore(Path(place) / "models"))))


def outcome(path: Path, store: ModelStore) -> tuple[str, str]:
    """(what became of the file, what was said)."""
    try:
        import_gguf(store, path, try_out=check_usable)
    except InvalidModelFile as error:
        return "header", str(error)
    except EngineError as error:
        import_gguf(store, path)  # by who tries nothing
        try:
            opened(store).close()
        except EngineError:
            return ("ended" if any(each in str(error) for each in ENDED) else "engine"), str(error)
        raise
    with closing(opened(store)) as model:
        for prompt in PROMPTS:
            with suppress(ContextOverflow):  # a context_length of 1 is a fact, and this its sentence
                model.complete(prompt, Decoding(max_tokens=8))
    return "answers", ""


def opened(store: ModelStore) -> FrozenModel:
    """As a server opens it. Raises EngineError."""
    source = named_in_store(store.root, "served", lambda: load_model(store.resolve("served"), context_tokens=2048))
    model = source.open("")
    assert model is not None
    return model


if __name__ == "__main__":
    main()
