"""What the sources of files share: which names they leave out, reading in pieces, other libraries' errors as SourceError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from openbook.core.errors import OpenBookError, SourceError, first_line

PIECE_BYTES = 1 << 20
_LEFT_OUT = frozenset({"__pycache__", "node_modules"})


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
