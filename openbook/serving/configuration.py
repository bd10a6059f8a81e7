"""What a server allows: addresses, limits, who needs a key, whether receipts are kept."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from openbook.config import Settings
from openbook.knowledge.ingest.contents import RunOptions


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request, and all together, may cost. A request over a bound is refused with a message.

    `running` requests compute at a time and `waiting` wait for a place (`concurrency.Places`); more are answered 429.
    `uploads` are received and read at a time, all but one of them of one caller, each within `upload_s`. All callers without
    a key count as one. `body_s` bounds slow senders, `answer_s` the writing of one answer. `body_bytes` is for JSON.
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
    answer_tokens: int = 1024
    passages: int = 20
    hits: int = 100
    messages: int = 1000
    embedding_texts: int = 256
    embedding_chars: int = 32_000
    listed: int = 1000  # documents of one page of the list
    text_chars: int = 100_000  # of a document in one answer
    picture_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """`settings.home` holds the keys and, while they are read, uploads. `labels`: what callers without a key hold.

    `allowed_hosts`: additional accepted Host names. `receipts`: the folder of a log, or
    None to keep none. `ingest`: how uploads are read.
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
        """Only a server for this machine alone may go without keys: behind another name there is a network or a proxy."""
        return self.require_key or bool(self.allowed_hosts) or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    found = address(host)
    return host.lower() == "localhost" or (found is not None and found.is_loopback)


def address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that `host` is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
