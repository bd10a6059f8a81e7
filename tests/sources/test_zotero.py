from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from openbook.core.errors import SourceError
from openbook.sources.registry import open_source
from openbook.sources.zotero import ZoteroSource
from openbook.testing import check_source
from tests.sources.conftest import fetch

# The tables that are read, and what they refer to, with the columns of Zotero 7 (`userdata` 123, `system` 32).
TABLES = """
CREATE TABLE version (schema TEXT PRIMARY KEY, version INT NOT NULL);
CREATE TABLE libraries (libraryID INTEGER PRIMARY KEY, type TEXT NOT NULL, editable INT NOT NULL, filesEditable INT NOT NULL);
CREATE TABLE itemTypes (itemTypeID INTEGER PRIMARY KEY, typeName TEXT, templateItemTypeID INT, display INT DEFAULT 1);
CREATE TABLE fieldsCombined (fieldID INTEGER PRIMARY KEY, fieldName TEXT NOT NULL, label TEXT, fieldFormatID INT, custom INT NOT NULL);
CREATE TABLE baseFieldMappingsCombined (itemTypeID INT, baseFieldID INT, fieldID INT, PRIMARY KEY (itemTypeID, baseFieldID, fieldID));
CREATE TABLE creatorTypes (creatorTypeID INTEGER PRIMARY KEY, creatorType TEXT);
CREATE TABLE items (itemID INTEGER PRIMARY KEY, itemTypeID INT NOT NULL, dateAdded TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    dateModified TIMESTAMP DEFAULT CURRENT_TIMESTAMP, clientDateModified TIMESTAMP DEFAULT CURRENT_TIMESTAMP, libraryID INT NOT NULL, key TEXT NOT NULL,
    version INT NOT NULL DEFAULT 0, synced INT NOT NULL DEFAULT 0, UNIQUE (libraryID, key));
CREATE TABLE itemDataValues (valueID INTEGER PRIMARY KEY, value UNIQUE);
CREATE TABLE itemData (itemID INT, fieldID INT, valueID, PRIMARY KEY (itemID, fieldID));
CREATE TABLE itemNotes (itemID INTEGER PRIMARY KEY, parentItemID INT, note TEXT, title TEXT);
CREATE TABLE itemAttachments (itemID INTEGER PRIMARY KEY, parentItemID INT, linkMode INT, contentType TEXT, charsetID INT, path TEXT,
    syncState INT DEFAULT 0, storageModTime INT, storageHash TEXT, lastProcessedModificationTime INT);
CREATE TABLE tags (tagID INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE itemTags (itemID INT NOT NULL, tagID INT NOT NULL, type INT NOT NULL, PRIMARY KEY (itemID, tagID));
CREATE TABLE creators (creatorID INTEGER PRIMARY KEY, firstName TEXT, lastName TEXT, fieldMode INT, UNIQUE (lastName, firstName, fieldMode));
CREATE TABLE itemCreators (itemID INT NOT NULL, creatorID INT NOT NULL, creatorTypeID INT NOT NULL DEFAULT 1, orderIndex INT NOT NULL DEFAULT 0,
    PRIMARY KEY (itemID, creatorID, creatorTypeID, orderIndex), UNIQUE (itemID, orderIndex));
CREATE TABLE deletedItems (itemID INTEGER PRIMARY KEY, dateDeleted DEFAULT CURRENT_TIMESTAMP NOT NULL);
INSERT INTO version VALUES ('userdata', 123), ('system', 32);
INSERT INTO libraries VALUES (1, 'user', 1, 1);
INSERT INTO itemTypes (itemTypeID, typeName) VALUES (3, 'attachment'), (22, 'journalArticle'), (28, 'note'), (8, 'case');
INSERT INTO fieldsCombined VALUES (1, 'title', NULL, NULL, 0), (6, 'date', NULL, NULL, 0), (13, 'url', NULL, NULL, 0), (59, 'DOI', NULL, NULL, 0),
    (58, 'caseName', NULL, NULL, 0);
INSERT INTO baseFieldMappingsCombined VALUES (8, 1, 58);
INSERT INTO creatorTypes VALUES (8, 'author');
"""
LIBRARY = """
INSERT INTO items (itemID, itemTypeID, libraryID, key) VALUES (1, 22, 1, 'ARTICLE1'), (2, 3, 1, 'PDFPDF22'), (3, 3, 1, 'SNAPSH33'), (4, 28, 1, 'NOTENO44'),
    (5, 8, 1, 'CASECA55'), (6, 3, 1, 'EPUBEP66'), (7, 3, 1, 'LINKED77'), (8, 3, 1, 'DELETE88'), (9, 28, 1, 'OWNNOT99'), (10, 3, 1, 'ABSENT10'),
    (11, 3, 1, 'ALONEA11'), (12, 3, 1, 'WEBPAG12');
INSERT INTO itemDataValues VALUES (1, 'On Ferries'), (2, '2020-05-00 May 2020'), (3, 'https://doi.org/10.1000/182'), (4, 'https://example.org/ferries'),
    (5, 'Smith v. Harbor'), (6, 'Full Text PDF'), (7, '0000-00-00 undated'), (8, 'Tide table');
INSERT INTO itemData VALUES (1, 1, 1), (1, 6, 2), (1, 59, 3), (1, 13, 4), (5, 58, 5), (5, 6, 7), (2, 1, 6), (11, 1, 8);
INSERT INTO creators VALUES (1, 'Ada', 'Lovelace', 0), (2, '', 'Harbor Board', 1), (3, NULL, 'Homer', 0);
INSERT INTO itemCreators VALUES (1, 2, 8, 1), (1, 1, 8, 0), (5, 3, 8, 0);
INSERT INTO tags VALUES (1, 'ferries'), (2, 'boats');
INSERT INTO itemTags VALUES (1, 1, 0), (1, 2, 1), (9, 1, 0);
INSERT INTO itemAttachments (itemID, parentItemID, linkMode, contentType, path) VALUES (2, 1, 0, 'application/pdf', 'storage:Lovelace - Ferries.pdf'),
    (3, 1, 1, 'text/html', 'storage:page.html'), (6, 5, 0, 'application/epub+zip', 'storage:case.epub'), (7, 1, 2, 'application/pdf', '/home/x/paper.pdf'),
    (8, 1, 0, 'application/pdf', 'storage:gone.pdf'), (10, 5, 0, 'application/pdf', 'storage:absent.pdf'), (11, NULL, 0, 'text/plain', 'storage:tides.txt'),
    (12, 1, 3, 'text/html', NULL);
INSERT INTO itemNotes VALUES (4, 1, '<div data-schema-version="9"><p>Ærø</p></div>', 'Ærø'), (9, NULL, '<p>To do</p>', 'To do');
INSERT INTO deletedItems (itemID) VALUES (8);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "zotero.sqlite")) as connection:
        connection.executescript(TABLES + LIBRARY)
    files = {
        "PDFPDF22/Lovelace - Ferries.pdf": "%PDF",
        "SNAPSH33/page.html": "<p>page",
        "EPUBEP66/case.epub": "PK",
        "ALONEA11/tides.txt": "high",
    }
    for name, text in files.items():
        (tmp_path / "storage" / name).parent.mkdir(parents=True)
        (tmp_path / "storage" / name).write_text(text)
    return tmp_path


def test_attachments_and_notes_with_the_facts_of_their_works(folder: Path) -> None:
    url = f"zotero://{folder}"
    first = fetch(ZoteroSource(url))
    article = {
        "title": "On Ferries",
        "author": ["Ada Lovelace", "Harbor Board"],
        "date": "2020-05",
        "tags": ["boats", "ferries"],
        "url": "https://doi.org/10.1000/182",
    }
    assert {name.removeprefix(url): (first.read[name], item.metadata) for name, item in first.items.items()} == {
        "/storage/PDFPDF22/Lovelace - Ferries.pdf": (b"%PDF", article),
        "/storage/SNAPSH33/page.html": (b"<p>page", article),
        "/storage/EPUBEP66/case.epub": (b"PK", {"title": "Smith v. Harbor", "author": ["Homer"]}),
        "/storage/ALONEA11/tides.txt": (b"high", {"title": "Tide table"}),
        "/notes/NOTENO44": (
            '<!doctype html><meta charset="utf-8"><div data-schema-version="9"><p>Ærø</p></div>'.encode(),
            {"title": "On Ferries: Ærø"},
        ),
        "/notes/OWNNOT99": (
            b'<!doctype html><meta charset="utf-8"><p>To do</p>',
            {"title": "To do", "tags": ["ferries"]},
        ),
    }
    assert first.items[f"{url}/notes/NOTENO44"].suffix == ".html"
    assert {name.removeprefix(url): verdict.outcome for name, verdict in first.verdicts.items()} == {
        "/storage/LINKED77": "skipped",
        "/storage/ABSENT10/absent.pdf": "failed",
    }
    assert not fetch(ZoteroSource(url), first.known).read

    (folder / "storage" / "PDFPDF22" / "Lovelace - Ferries.pdf").write_text("%PDF with a highlight")
    with closing(sqlite3.connect(folder / "zotero.sqlite")) as connection, connection:
        connection.execute("UPDATE itemNotes SET note = '<p>Done</p>' WHERE itemID = 9")
        connection.execute("INSERT INTO deletedItems (itemID) VALUES (1)")
    second = fetch(ZoteroSource(url), first.known)
    assert second.read == {f"{url}/notes/OWNNOT99": b'<!doctype html><meta charset="utf-8"><p>Done</p>'}
    assert set(second.items) == {
        f"{url}/storage/EPUBEP66/case.epub",
        f"{url}/storage/ALONEA11/tides.txt",
        f"{url}/notes/OWNNOT99",
    }


def test_conformance(folder: Path) -> None:
    def change() -> str:
        (folder / "storage" / "ALONEA11" / "tides.txt").write_text("high and low")
        return f"zotero://{folder}/storage/ALONEA11/tides.txt"

    check_source(lambda: open_source(f"zotero://{folder}", {}), change, (folder / "zotero.sqlite").unlink)


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA locking_mode=EXCLUSIVE")
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("INSERT INTO tags VALUES (3, 'new')")
connection.commit()
print("held", flush=True)
sys.stdin.read()
"""


def test_zotero_may_be_running(folder: Path) -> None:
    """As Zotero 10 does, another process holds a lock, and writes through a log."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / "zotero.sqlite")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as zotero:
        assert zotero.stdout
        assert zotero.stdout.readline() == b"held\n"
        with (
            closing(sqlite3.connect(folder / "zotero.sqlite", timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("SELECT * FROM items").fetchall()
        before = sorted(folder.iterdir())
        assert len(fetch(ZoteroSource(f"zotero://{folder}")).read) == 6
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    "path",
    [
        "storage:../../secret.txt",
        "storage:/etc/passwd",
        "storage:link.txt",
        "/etc/passwd",
        "storage:",
        "storage:a\0b",
        "storage:..",
    ],
)
def test_paths_that_lead_elsewhere(path: str, folder: Path) -> None:
    (folder / "secret.txt").write_text("secret")
    (folder / "storage" / "PDFPDF22" / "link.txt").symlink_to(folder / "secret.txt")
    with closing(sqlite3.connect(folder / "zotero.sqlite")) as connection, connection:
        connection.execute("UPDATE itemAttachments SET path = ? WHERE itemID = 2", (path,))
    found = fetch(ZoteroSource(f"zotero://{folder}"))
    assert not any(b"secret" in data or b"root:" in data for data in found.read.values())
    assert len(found.read) == 5
    assert sum(verdict.outcome == "failed" for verdict in found.verdicts.values()) == 2


def test_a_key_that_leads_elsewhere(folder: Path) -> None:
    (folder / "secret.txt").write_text("secret")
    with closing(sqlite3.connect(folder / "zotero.sqlite")) as connection, connection:
        connection.execute("UPDATE items SET key = ? WHERE itemID = 2", (f"../../{folder.name}",))
        connection.execute("UPDATE itemAttachments SET path = 'storage:secret.txt' WHERE itemID = 2")
    assert b"secret" not in fetch(ZoteroSource(f"zotero://{folder}")).read.values()


def test_what_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError,
        match=r"holds no library of Zotero 5 or later: .*No such file.* Give Zotero's data folder\.",
    ):
        fetch(ZoteroSource(f"zotero://{tmp_path}"))
    with pytest.raises(SourceError, match=r"^zotero://Zotero must be zotero:// and an absolute path"):
        fetch(ZoteroSource("zotero://Zotero"))
    (tmp_path / "zotero.sqlite").write_bytes(b"text" * 1000)
    with pytest.raises(SourceError, match="file is not a database"):
        fetch(ZoteroSource(f"zotero://{tmp_path}"))
    (tmp_path / "zotero.sqlite").unlink()
    sqlite3.connect(tmp_path / "zotero.sqlite").close()
    with pytest.raises(SourceError, match="no such table"):
        fetch(ZoteroSource(f"zotero://{tmp_path}"))
