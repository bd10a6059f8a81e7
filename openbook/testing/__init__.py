"""Fakes that ship, and the conformance suites that fakes and real implementations both pass.

`EchoEngine` answers with the passages' sentence that shares most words with the question. `HashEmbedder` gives a bag of
hashed words. Both are deterministic and instant. To test a new engine, write a pytest class:
`class TestMine(EngineSuite): def make_engine(self): return Mine()`.
"""

from openbook.testing.blobs import BlobsSuite, MemoryBlobs
from openbook.testing.fakes import EchoEngine, HashEmbedder, echo_model
from openbook.testing.models import PROMPT, EmbedderSuite, EngineSuite
from openbook.testing.sources import FakeSource, check_source

__all__ = [
    "PROMPT",
    "BlobsSuite",
    "EchoEngine",
    "EmbedderSuite",
    "EngineSuite",
    "FakeSource",
    "HashEmbedder",
    "MemoryBlobs",
    "check_source",
    "echo_model",
]
