"""Pictures of PDF pages, drawn on demand.

A knowledge base keeps no file bytes. A page can be shown while its file is at its path with the ingested bytes, or while the server keeps the uploaded
file: they are read once, compared by their digest, and those very bytes are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from openbook.core.errors import NoPicture, NoSuchPage, UnreadableFile
from openbook.core.records import sha256_hex
from openbook.knowledge.ingest.mirror import mirrored_files
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.store.names import content_key, path_displayed
from openbook.parsers.files import file_bytes
from openbook.parsers.pages import draw_page
from openbook.parsers.sandbox.protocol import Limits
from openbook.sources.registry import is_address

_T = TypeVar("_T")
_NONE = "The page cannot be shown as a picture"


def page_picture(
    document: str,
    content: StoredContent,
    page: int,
    limits: Limits = Limits(),
    stop: Callable[[], bool] = lambda: False,
    kept: Path | None = None,
    folder: Path | None = None,
) -> bytes:
    """Page `page` (from 1) of a document (its path) with `content`, as PNG. Raises NoPicture with the reason.

    `kept`: a folder of uploaded files by their `kept_name`, read if the document's own file does not fit. `folder`: of the knowledge base, where
    fetched files are.

    The caller checks access to the document. Ends early when `stop` returns true.
    """
    return from_file(document, content, limits, lambda data: draw_page(data, page, limits, stop), kept, folder)


def kept_name(key: str) -> str:
    return f"{sha256_hex(key.encode())}.pdf"


def from_file(
    document: str,
    content: StoredContent,
    limits: Limits,
    make: Callable[[bytes], _T],
    kept: Path | None = None,
    folder: Path | None = None,
) -> _T:
    """What `make` makes of the bytes that were read. Other parameters and errors as for `page_picture`."""
    if content.media_type != "application/pdf":
        raise NoPicture("This document is not a PDF, so it has no pages to show.", "not_a_pdf")
    own = [path_displayed(document)]
    if is_address(document):
        fetched = mirrored_files(folder, [document]) if folder else {}
        own = [fetched.get(document, Path(f"{document}.pdf"))]
    problem: NoPicture | None = None  # of the document's own file
    for place in [*own, *([kept / kept_name(content.key)] if kept else [])]:
        try:
            data = file_bytes(place, limits.max_file_bytes)
        except UnreadableFile as error:
            message = f"{_NONE}: its file cannot be read any more ({error}), and only the text of it is kept."
            problem = problem or NoPicture(message, "file_unreadable")
            continue
        # The content names the code that read the bytes, so this holds across versions of OpenBook. Its id may follow.
        if content.key.startswith(content_key(own[0], sha256_hex(data), content.code)):
            break
        message = f"{_NONE}: its file is not, byte for byte, the one that this text was read from."
        problem = problem or NoPicture(message, "file_changed")
    else:
        assert problem is not None
        raise problem
    try:
        return make(data)
    except NoSuchPage as error:
        raise NoPicture(f"This document has no such page: {error}.", "page_not_found") from error
    except UnreadableFile as error:
        raise NoPicture(f"{_NONE}: {error}.", "page_not_drawn") from error
