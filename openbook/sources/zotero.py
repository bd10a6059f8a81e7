"""A Zotero library: stored attachments and notes, with what the library says about the works that they belong to.

Source: Zotero's `userdata.sql` and `system.sql`; the tables that are read here are alike from version 5 to 10.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from openbook.core.errors import SourceError
from openbook.core.records import Verdict, sha256_hex
from openbook.sources import Item, KnownItem, pieces, source_errors

_TRIES = 3
# Link modes: 3 is a page that is not stored, 4 a picture of a note.
_IMPORTED_FILE, _IMPORTED_URL, _LINKED_FILE = range(3)
_TABLES = {
    "attachments": "SELECT itemID, parentItemID, key, linkMode, path FROM itemAttachments JOIN items USING (itemID) WHERE path <> ''",
    "notes": "SELECT itemID, parentItemID, key, title, note FROM itemNotes JOIN items USING (itemID) WHERE note <> ''",
    "deleted": "SELECT itemID FROM deletedItems",
    # The title of a case is its `caseName`, and so on: the second table names the field that it stands for.
    "fields": """
        SELECT itemID, COALESCE(base.fieldName, own.fieldName), value
        FROM itemData JOIN items USING (itemID) JOIN itemDataValues USING (valueID) JOIN fieldsCombined own USING (fieldID)
        LEFT JOIN baseFieldMappingsCombined map ON map.itemTypeID = items.itemTypeID AND map.fieldID = own.fieldID
        LEFT JOIN fieldsCombined base ON base.fieldID = map.baseFieldID""",
    "author": """
        SELECT itemID, TRIM(COALESCE(firstName, '') || ' ' || COALESCE(lastName, ''))
        FROM itemCreators JOIN creators USING (creatorID) ORDER BY orderIndex""",
    "tags": "SELECT itemID, name FROM itemTags JOIN tags USING (tagID) ORDER BY name",
}


class ZoteroSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The library in Zotero's data folder, `zotero:///path`. Zotero may be running: what it has not yet written is not seen."""

    url: str

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        folder, base = Path(self.url.partition("://")[2]), self.url.rstrip("/")
        if not folder.is_absolute():
            raise SourceError(f"{self.url} must be zotero:// and an absolute path, such as zotero:///home/me/Zotero.")
        with source_errors(f"{self.url} holds no library of Zotero 5 or later", "Give Zotero's data folder."):
            rows = _rows(folder / "zotero.sqlite")
        deleted = {item for (item,) in rows["deleted"]}
        works: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        for item, name, value in rows["fields"]:
            works[item][name] = str(value)
        for table in ("author", "tags"):
            for item, name in rows[table]:
                works[item].setdefault(table, []).append(name)
        for item, parent, key, mode, path in rows["attachments"]:
            if deleted & {item, parent}:
                continue
            if mode in (_IMPORTED_FILE, _IMPORTED_URL):
                yield _attachment(folder / "storage", key, base, path, _metadata(works[parent or item]))
            elif mode == _LINKED_FILE:
                yield Verdict(f"{base}/storage/{key}", "skipped", "a link to a file outside Zotero: sync its folder")
        for item, parent, key, title, note in rows["notes"]:
            if deleted & {item, parent}:
                continue
            title = ": ".join(filter(None, [works[parent].get("title"), title]))
            about = _metadata({"title": title, "tags": works[item].get("tags")})
            data = b'<!doctype html><meta charset="utf-8">' + note.encode(errors="replace")
            yield Item(f"{base}/notes/{key}", sha256_hex(data), partial(tuple, [data]), ".html", about)


def _rows(database: Path) -> dict[str, list[Any]]:
    """The tables as they are on the disk: Zotero locks them while it runs, so no lock is asked for."""
    for _ in range(_TRIES):
        before = database.stat()
        with closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro&immutable=1", uri=True)) as connection:
            rows = {name: connection.execute(query).fetchall() for name, query in _TABLES.items()}
        if database.stat().st_mtime_ns == before.st_mtime_ns:
            return rows
    raise SourceError("Zotero is writing its library. Sync again in a minute.")


def _attachment(storage: Path, key: str, base: str, path: str, metadata: dict[str, str | list[str]]) -> Item | Verdict:
    file_name = path.partition(":")[2]
    name, file = f"{base}/storage/{key}/{file_name}", storage / key / file_name
    home = storage.resolve() / key  # `storage` may be a link to another disk, but nothing in it
    is_plain = re.fullmatch(r"\w+/storage:[^/\\\0]+", f"{key}/{path}")
    if not is_plain or file.resolve() != home / file_name or not file.is_file():
        return Verdict(name, "failed", "its file is not in Zotero's storage: open it in Zotero, which downloads it")
    fingerprint = "{0.st_size}:{0.st_mtime_ns}".format(file.stat())
    return Item(name, fingerprint, partial(pieces, partial(file.open, "rb")), file.suffix, metadata)


def _metadata(work: Mapping[str, Any]) -> dict[str, str | list[str]]:
    date = re.match(r"(?!0000)\d{4}(-(?!00)\d\d(-(?!00)\d\d)?)?", work.get("date", ""))  # of `2020-05-00 May 2020`
    doi = re.sub(r"(?i)^(https?://(dx\.)?doi\.org/|doi:\s*)", "", work.get("DOI", ""))
    found = {key: work.get(key) for key in ("title", "author", "tags", "url")}
    found |= {"date": date and date[0], "url": f"https://doi.org/{doi}" if doi else work.get("url")}
    return {key: value for key, value in found.items() if value}
