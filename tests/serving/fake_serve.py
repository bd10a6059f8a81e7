"""`openbook` over fakes, as a program of its own."""

from __future__ import annotations

import sys
from typing import Any

from openbook import resources
from openbook.cli import main
from openbook.testing import HashEmbedder, echo_model

fakes: Any = resources
fakes.open_embedder = lambda *_, **__: HashEmbedder()
fakes.model_opener = lambda *_, **__: echo_model

if __name__ == "__main__":
    main(sys.argv[1:])
