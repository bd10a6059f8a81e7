"""Where documents are fetched from. `openbook sync ADDRESS` mirrors a source's items and syncs the mirror."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from openbook.core.errors import OpenBookError, SourceError, first_line
from openbook.core.records import Verdict

PIECE_BYTES = 1 << 20
_LEFT_OUT = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Item:
    """A file at a source.

    `name`: its address, unique in the source; it names the document. `fingerprint`: changes when the bytes do; empty if unknown: then it is fetched each
    time. `read`: its bytes in pieces, called at once after the item is yielded, and only if the fingerprint is new. `suffix` (".html") decides the parser;
    empty: that of `name`. `metadata`: of the document: title, author, modified (ISO 8601), url, tags, ... `labels`: access labels that it must carry.
    `kept`: text that the source finds again in `known` the next time.
    """

    name: str
    fingerprint: str
    read: Callable[[], Iterable[bytes]]
    suffix: str = ""
    metadata: Mapping[str, str | float | list[str]] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    kept: str = ""


@dataclass(frozen=True, slots=True)
class KnownItem:
    """An item as it was fetched before, with its file."""

    fingerprint: str
    kept: str
    file: Path


class KnownItems(dict[str, KnownItem]):
    """Known items by name. `scratch`: a folder for folders of this run; the next run, or a purge, deletes what a killed run left there."""

    scratch: Path | None = None


class Source(Protocol):
    """A place with documents. Its options are its fields: a frozen msgspec.Struct with `url: str` first, unknown fields forbidden."""

    @property
    def url(self) -> str: ...

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        """All items, each once. An item that is not met any more is gone, and its document is removed.

        A Verdict `failed` of an item's name (or a folder of names, ending with "/") keeps what was fetched before. Raises SourceError when the
        source cannot be listed: then nothing is removed. Credentials come from the environment or the keyring, are never in `url`, errors or names.
        """
        ...


# --- what several sources share ------------------------------------------------------------------------------------------


def is_left_out(path: str) -> bool:
    """True if a part of `path` (with `/`) begins with a dot, or is a folder of caches or packages; as in a synced folder."""
    return any(part.startswith(".") or part in _LEFT_OUT for part in path.split("/"))


def pieces(opened: Callable[[], AbstractContextManager[Any]]) -> Iterator[bytes]:
    """The bytes of the file that `opened` opens."""
    with opened() as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


@contextmanager
def source_errors(what: str, advice: str = "") -> Iterator[None]:
    """Turn an error of any library into a SourceError: `<what>: <why>. <advice>`."""
    try:
        yield
    except OpenBookError:
        raise
    except Exception as error:
        raise SourceError(f"{what}: {first_line(error)[:300]}. {advice}".rstrip()) from error


def password(variable: str, host: str, user: str) -> str:
    """Of the environment's `variable`, else the keyring's entry of the service `host`; empty if neither is there."""
    found = os.environ.get(variable, "")
    if found or not user:
        return found
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return ""
    try:
        return keyring.get_password(host, user) or ""
    except KeyringError:  # a server without a keyring, or one that is locked
        return ""
