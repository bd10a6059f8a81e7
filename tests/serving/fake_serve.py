"""`openbook` over fakes, as a program of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Any

from openbook.answers import opening
from openbook.cli import main
from openbook.core.config import Settings
from openbook.inference import FrozenModel
from openbook.testing import EchoEngine, HashEmbedder


def opened(settings: Settings) -> FrozenModel:
    engine = EchoEngine()
    if settings.model == settings.fallback_model:
        engine.identity = replace(engine.identity, name=settings.model)
    return FrozenModel(engine)


fakes: Any = opening
fakes.open_embedder = lambda *_, **__: HashEmbedder()
fakes.model_opener = lambda settings, _: partial(opened, settings)

if __name__ == "__main__":
    main(sys.argv[1:])
