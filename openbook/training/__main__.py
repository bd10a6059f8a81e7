"""`python -m openbook.training REQUEST`, started by `openbook train` in a separate process.

So the answering process never loads a framework that could change a weight. REQUEST is a `RunRequest` as JSON. Progress and
errors go to standard error, the result as JSON to standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.core.codec import decode
from openbook.core.config import available_cores
from openbook.core.errors import ConfigError, OpenBookError, StorageError
from openbook.models import ModelStore
from openbook.models.digest import hash_file
from openbook.models.runs import RESULT, RunRequest

if TYPE_CHECKING:
    from openbook.training.run import Event, ShouldStop, Watch

INTERRUPTED = 130
SAME_INTERRUPT_S = 1.0  # Ctrl-C arrives twice: from the terminal and from `openbook train`
LOG_EVERY_S = 60.0  # without a terminal


def _do(request: RunRequest) -> dict[str, Any] | None:
    """Do the request. Returns None in all but the first of several processes."""
    import torch  # takes seconds

    from openbook.training import run
    from openbook.training.distributed import connect
    from openbook.training.recipe import Data, load_recipe
    from openbook.training.report import write_report

    path, folder, store = Path(request.recipe), Path(request.folder), ModelStore(Path(request.store))
    recipe = load_recipe(path)
    if request.documents is not None:
        sha256 = hash_file(Path(request.documents)).sha256
        data = Data(file=request.documents, sha256=sha256, knowledge_base=request.knowledge_base)
        recipe = recipe.with_documents(data)
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(request.threads or max(1, available_cores() // processes_here))
    if request.dry_run:
        return run.dry_run(recipe, path.parent, store, _say, run.choose_device(request.device))
    with connect() as processes, _stop_on_interrupt() as should_stop:
        device = run.choose_device(request.device, processes)
        try:
            reference = run.train(
                recipe,
                path.parent,
                store,
                folder,
                _watcher(),
                resume=request.resume,
                should_stop=should_stop,
                processes=processes,
                device=device,
            )
        except run.RunStopped as stopped:
            _say(str(stopped))
            sys.exit(INTERRUPTED)
        if not processes.first:
            return None
    write_report(folder)
    missed = json.loads((folder / RESULT).read_bytes())["missed"]
    return {"model": reference.digest, "name": reference.name, "run": str(folder), "missed": missed}


@contextmanager
def _stop_on_interrupt() -> Iterator[ShouldStop]:
    """After Ctrl-C the function returns true and the run ends after this step. A second one ends it at once."""
    asked_at: list[float] = []

    def on_interrupt(_signal: int, _frame: object) -> None:
        now = time.monotonic()
        if asked_at and now - asked_at[0] > SAME_INTERRUPT_S:
            raise KeyboardInterrupt
        if not asked_at:
            asked_at.append(now)
            _say("\nThe run stops after this step, with a checkpoint. Ctrl-C again ends it at once.")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: bool(asked_at)
    finally:
        signal.signal(signal.SIGINT, before)


def _watcher() -> Watch:
    from openbook.training.loop import EvalResult
    from openbook.training.run import peak_memory_mib

    logged_at = time.monotonic()

    def watch(event: Event) -> None:
        nonlocal logged_at
        if isinstance(event, str):
            _say(event)
        elif isinstance(event, EvalResult):
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in sorted(event.numbers.items()))
            _say(f"step {event.step}: {numbers}")
        elif sys.stderr.isatty() or time.monotonic() - logged_at > LOG_EVERY_S:
            logged_at = time.monotonic()
            minutes = (event.steps - event.step) * event.seconds / 60
            state = f"loss {event.loss:.3f}, {event.tokens / event.seconds:.0f} tokens/s, {peak_memory_mib():,.0f} MiB"
            _say(f"step {event.step} of {event.steps}: {state}, {minutes:,.1f} minutes left", stays=False)

    return watch


def _say(sentence: str, *, stays: bool = True) -> None:
    """On a terminal the next line replaces one with `stays` false."""
    terminal = sys.stderr.isatty()
    sys.stderr.write(("\r\033[K" if terminal else "") + sentence + ("\n" if stays or not terminal else ""))
    sys.stderr.flush()


def main() -> None:
    try:
        found = _do(decode(" ".join(sys.argv[1:]), RunRequest, "the request", ConfigError))
    except OpenBookError as error:
        _say(f"Error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        _say(f"Error: The operating system refused: {error.strerror or error}{file}.")
        sys.exit(StorageError.exit_code)
    except KeyboardInterrupt:
        _say("Interrupted. The last checkpoint is kept. To continue: openbook train RECIPE --resume")
        sys.exit(INTERRUPTED)
    if found is not None:
        if sys.stderr.isatty():
            _say("", stays=False)  # clears the progress line
        sys.stdout.write(json.dumps(found) + "\n")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # All work is done, but connection threads may abort the process while Python shuts down.
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
