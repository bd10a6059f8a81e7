"""Addresses, limits, who needs a key, whether receipts are kept."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from openbook.core.config import Settings
from openbook.knowledge.ingest.contents import RunOptions


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits. Above `running` and `waiting` (`concurrency.Places`), requests get 429.

    All but one of `uploads` may be of one caller; callers without a key count as one. `body_s` bounds slow senders,
    `answer_s` the writing of an answer, `body_bytes` JSON. `answer_tokens`: None: half of what the model's context holds.
    """

    running: int = 4
    waiting: int = 32
    body_s: float = 60.0
    answer_s: float = 300.0
    body_bytes: int = 1 << 20
    uploads: int = 2
    upload_s: float = 3600.0
    upload_bytes: int = 100_000_000
    upload_files: int = 64
    answer_tokens: int | None = None
    answers: int = 8  # to one question
    passages: int = 20
    hits: int = 100
    messages: int = 1000
    embedding_texts: int = 256
    embedding_chars: int = 32_000
    listed: int = 1000  # documents on one page of the list
    text_chars: int = 100_000  # of a document in one response
    picture_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """`labels`: those of callers without a key. `receipts`: the log's folder; None: none is kept. `ingest`: for uploads.

    `allowed_hosts`: additional accepted Host names.
    """

    settings: Settings
    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    require_key: bool = False
    labels: frozenset[str] = frozenset()
    receipts: Path | None = None
    bounds: Bounds = Bounds()
    ingest: RunOptions = RunOptions()

    @property
    def needs_key(self) -> bool:
        """Only a pure loopback server may go without keys: another name implies a network or a proxy."""
        return self.require_key or bool(self.allowed_hosts) or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    found = address(host)
    return host.lower() == "localhost" or (found is not None and found.is_loopback)


def address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """`host` as an IP address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
