"""Names of documents (paths as text), contents (file bytes) and passages (text)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from openbook.core.errors import KnowledgeError, QuestionError, did_you_mean
from openbook.core.records import Digest, sha256_hex
from openbook.knowledge.store.interface import Connection
from openbook.sources.registry import is_address, without_revision

LISTING = "To list them: openbook ls"
_ESCAPED = re.compile(r"\\([ntr\\]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})")


def display_path(path: Path) -> str:
    """`path` with `/` between its parts and everything unprintable escaped. Two paths never look the same."""
    text = path.as_posix()
    return text if text.isprintable() and "\\" not in text else "".join(map(_shown, text))


def path_displayed(text: str) -> Path:
    """The inverse: `display_path(path_displayed(text)) == text` for every text that it makes."""
    return Path(_ESCAPED.sub(_meant, text))


def _meant(escape: re.Match[str]) -> str:
    byte = int(escape[0][2:], 16) if escape[0].startswith("\\x") else 0
    return chr(0xDC00 + byte) if byte >= 0x80 else escape[0].encode().decode("unicode_escape")


def _shown(character: str) -> str:
    code = ord(character)
    if character.isprintable() and character != "\\":
        return character
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it in names
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if 0x80 <= code <= 0xFF else character.encode("unicode_escape").decode()


def resolve(paths: Sequence[str], name: str, connection: Connection | None = None, listing: str = LISTING) -> list[str]:
    """The documents among `paths` that `name` means: a path as listed or on disk, a folder, or the end of one path.

    An address that ends with `/` is a folder. With a `connection`, the address of a source means all that came from it.

    Raises KnowledgeError when none or several match. `listing`: its sentence on how to list documents.
    """
    if connection is not None and is_address(name):
        sql = "SELECT DISTINCT path FROM documents WHERE json_extract(metadata, '$.source') = ?"
        rows = connection.execute(sql, (without_revision(name),))
        if found := {path for (path,) in rows if is_address(path)}.intersection(paths):
            return sorted(found)
    if not name.strip():
        raise KnowledgeError(f"The name of a document is empty. {listing}")
    for whole in (name, display_path(Path(os.path.abspath(name)))):
        if whole in paths and not whole.endswith("/"):
            return [whole]
        if below := [path for path in paths if path.startswith(whole.rstrip("/") + "/")]:
            return below
    ending = [path for path in paths if path.endswith("/" + name)]
    if len(ending) == 1:
        return ending
    if ending:
        raise KnowledgeError(
            f"{len(ending)} documents end in {name[:200]!r}: {', '.join(ending[:3])}. Give more of the path."
        )
    hint = did_you_mean(Path(name).name, {Path(path).name: path for path in paths})
    raise KnowledgeError(f"No document {name[:200]!r} in the knowledge base.{hint} {listing}")


def resolve_one(paths: Sequence[str], name: str, listing: str = LISTING) -> str:
    """The one document among `paths` that `name` means, as in `resolve`. Raises QuestionError."""
    if name in paths:
        return name  # also a page whose address ends with `/`
    try:
        found = resolve(paths, name, listing=listing)
    except KnowledgeError as error:
        raise QuestionError(str(error)) from error
    if len(found) > 1:
        raise QuestionError(f"{name[:200]!r} is a folder of {len(found):,} documents. Name one of them.")
    return found[0]


def passage_id(text_digest: str, start: int, end: int) -> str:
    """A hash of text and span, the same in every knowledge base."""
    return "p" + sha256_hex(f"{text_digest} {start} {end}".encode())[:20]


def content_key(path: Path, digest: Digest, by: str) -> Digest:
    """A hash of the file's digest, its suffix, and the code that parses and splits it."""
    return sha256_hex(f"{digest} {path.suffix.lower()} {by}".encode("utf-8", "surrogateescape"))
