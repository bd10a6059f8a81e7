"""Models for runs of commands, which replicas open in processes of their own, and a command line that uses them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from openbook import inference
from openbook.answers import opening
from openbook.cli import context, main, on_cluster
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Digest, ModelIdentity, Prompt, sha256_hex
from openbook.inference import FrozenModel
from openbook.testing import EchoEngine
from tests.diagnosis.bases import EMBEDDER, DraftEngine

FATAL = "Harbour 5"  # what reads of it is killed where there is a file `kill`, which it deletes
HELD = "Harbour 9"  # a question about it waits while there is a file `hold`


class RunEngine(DraftEngine):
    """Says what stands in the passages, drafts from them, and notes in `folder` what it reads ahead."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.identity = ModelIdentity("run", sha256_hex(b"run"), "verified")
        self._folder = folder

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self._meet(prompt, cancelled)
        return (yield from super().generate(prompt, decoding, cancelled))

    def read_ahead(self, prompt: Prompt) -> int:
        self._meet(prompt, never)
        (self._folder / f"read-{sha256_hex(prompt.passages[0].encode())}").touch()
        return super().read_ahead(prompt)

    def _meet(self, prompt: Prompt, cancelled: Cancelled) -> None:
        if FATAL in "".join((*prompt.passages, prompt.question)) and (killing := self._folder / "kill").exists():
            killing.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        while HELD in prompt.question and (self._folder / "hold").exists() and not cancelled():
            time.sleep(0.01)


def open_on_node(folder: Path, name: str, digest: Digest, flags: dict[str, int]) -> FrozenModel:
    return FrozenModel(RunEngine(folder))


def fakes(folder: Path) -> dict[tuple[object, str], object]:
    """What stands for the models and the embedder, by the object and its attribute."""
    return {
        (context, "open_embedder"): lambda *_: EMBEDDER,
        (opening, "open_embedder"): lambda *_: EMBEDDER,
        (opening, "model_opener"): lambda *_: lambda: FrozenModel(RunEngine(folder)),
        (context, "ready_model"): lambda *_: SimpleNamespace(name="run", digest=sha256_hex(b"run")),
        (opening, "open_stored"): lambda *_: FrozenModel(RunEngine(folder)),
        (on_cluster, "open_on_node"): partial(open_on_node, folder),
        (inference, "prompt_counter"): lambda _: EchoEngine().count_prompt_tokens,
    }


def run_command(folder: Path, command: list[str]) -> None:
    """For a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for (where, name), fake in fakes(folder).items():
            patch.setattr(where, name, fake)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell runs in the background
        main(command)
