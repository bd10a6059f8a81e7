"""The fakes pass the suites that the real things pass."""

from __future__ import annotations

from openbook.core.records import Embedder
from openbook.inference import Engine
from openbook.testing import EchoEngine, HashEmbedder
from tests.conformance.models import EmbedderSuite, EngineSuite


class TestEchoEngine(EngineSuite):
    def make_engine(self) -> Engine:
        return EchoEngine()


class TestHashEmbedder(EmbedderSuite):
    def make_embedder(self) -> Embedder:
        return HashEmbedder()
