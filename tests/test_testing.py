"""The fakes pass the suites that the real things pass."""

from __future__ import annotations

from openbook.inference import Engine
from openbook.records import Embedder, Reranker
from openbook.testing import EchoEngine, EmbedderSuite, EngineSuite, HashEmbedder, RerankerSuite, WordReranker


class TestEchoEngine(EngineSuite):
    def make_engine(self) -> Engine:
        return EchoEngine()


class TestHashEmbedder(EmbedderSuite):
    def make_embedder(self) -> Embedder:
        return HashEmbedder()


class TestWordReranker(RerankerSuite):
    def make_reranker(self) -> Reranker:
        return WordReranker()
