"""`openbook` over fakes, as a program of its own. The model takes its time, so that requests are under way when something happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from typing import Any

from openbook.cli import context, main
from openbook.inference import FrozenModel
from openbook.parallel import Cancelled, never
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


fakes: Any = context
fakes.open_embedder = lambda *_, **__: HashEmbedder()
fakes.model_opener = lambda *_, **__: lambda: FrozenModel(SlowEngine())

if __name__ == "__main__":
    main(sys.argv[1:])
