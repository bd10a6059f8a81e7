"""`openbook` over fakes, as a program: what a test of several processes starts, and what its workers are started with.

The model takes its time, so that requests are under way when something happens.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Generator
from typing import Any

from openbook.cli import context, main
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.records import Completion, Decoding, Prompt
from openbook.testing import HashEmbedder
from tests.diagnosis.bases import DraftEngine

TAKES_S = 0.05


class SlowEngine(DraftEngine):
    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        time.sleep(TAKES_S)
        return (yield from super().generate(prompt, decoding, cancelled))


if __name__ == "__main__":
    serve: Any = importlib.import_module("openbook.cli.serve")
    fakes: Any = context
    serve.PROGRAM = (sys.executable, __file__)
    fakes.open_embedder = lambda *_, **__: HashEmbedder()
    fakes.model_opener = lambda *_, **__: lambda: FrozenModel(SlowEngine())
    main(sys.argv[1:])
