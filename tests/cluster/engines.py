"""Models for replicas, which import this module in processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path

from openbook.core.derived import DerivedFolder
from openbook.core.errors import ModelNotVerified
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, ModelIdentity, Prompt
from openbook.inference import FrozenModel, load_model
from openbook.inference.kv_cache import KVCache
from openbook.models import ModelStore
from openbook.testing import EchoEngine

WHO = "Who answers?"  # asks for the number of the replica's process
WAIT = "Wait for me."


class ToldEngine(EchoEngine):
    """Says which process it is in when asked. On `WAIT` it says so, and waits until it is cancelled; files show both."""

    def __init__(self, folder: Path, number: int = 1) -> None:
        super().__init__()
        self.identity = ModelIdentity("echo", f"{number:064x}", "verified")
        self._folder = folder

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        if WHO not in prompt.question and WAIT not in prompt.question:
            return (yield from super().generate(prompt, decoding, cancelled))
        text = f"{os.getpid()} "
        yield text
        if WAIT in prompt.question:
            here = f"{os.getpid()}-{time.monotonic_ns()}"
            (self._folder / f"waits-{here}").touch()
            while not cancelled():
                time.sleep(0.01)
            (self._folder / f"waits-{here}").rename(self._folder / f"cancelled-{here}")
        return Completion(text, "end", 1, 1, "0" * 64, self.numeric_class)


def told_model(folder: Path, number: int = 1) -> FrozenModel:
    return FrozenModel(ToldEngine(folder, number))


def follow(derived: Path, purge_mark: str) -> None:
    DerivedFolder(derived).follow(purge_mark)


def no_model() -> FrozenModel:
    raise ModelNotVerified("A byte of it is another one.")


def stored_model(root: Path, digest: str, states: Path) -> FrozenModel:
    """With one thread."""
    return load_model(ModelStore(root).resolve(digest), context_tokens=1024, threads=1, states=KVCache(states))
