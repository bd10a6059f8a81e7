"""Fakes, deterministic and instant, and a check for sources of your own.

`EchoEngine` answers with the passages' sentence that shares most words with the question. `HashEmbedder` gives a bag of
hashed words. `check_source` tests a document source.
"""

from openbook.testing.fakes import EchoEngine, HashEmbedder, echo_model
from openbook.testing.sources import FakeSource, check_source

__all__ = [
    "EchoEngine",
    "FakeSource",
    "HashEmbedder",
    "check_source",
    "echo_model",
]
