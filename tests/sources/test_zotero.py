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

LIBRARY = Path(__file__).with_name("zotero-7.sql").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "zotero.sqlite")) as connection:
        connection.executescript(LIBRARY)
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


def change(folder: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(folder / "zotero.sqlite")) as connection, connection:
        connection.execute(statement, values)


def test_attachments_and_notes_with_the_facts_of_their_works(folder: Path) -> None:
    url = f"zotero://{folder}"
    found = fetch(ZoteroSource(url))
    article = {
        "title": "On Ferries",
        "author": ["Ada Lovelace", "Harbor Board"],
        "date": "2020-05",
        "tags": ["boats", "ferries"],
        "url": "https://doi.org/10.1000/182",
    }
    assert {name.removeprefix(url): (found.read[name], item.metadata) for name, item in found.items.items()} == {
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
    assert found.items[f"{url}/notes/NOTENO44"].suffix == ".html"
    assert {name.removeprefix(url): verdict.outcome for name, verdict in found.verdicts.items()} == {
        "/storage/LINKED77": "skipped",
        "/storage/ABSENT10/absent.pdf": "failed",
    }
    change(folder, "INSERT INTO deletedItems (itemID) VALUES (1)")
    left = "/notes/OWNNOT99", "/storage/ALONEA11/tides.txt", "/storage/EPUBEP66/case.epub"
    assert sorted(fetch(ZoteroSource(url)).items) == [url + path for path in left]


def test_conformance(folder: Path) -> None:
    def renew() -> str:
        (folder / "storage" / "ALONEA11" / "tides.txt").write_text("high and low")
        return f"zotero://{folder}/storage/ALONEA11/tides.txt"

    check_source(lambda: open_source(f"zotero://{folder}", {}), renew, (folder / "zotero.sqlite").unlink)


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


@pytest.mark.parametrize("key", ["PDFPDF22", "../../{}"])
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", *(f"storage:{each}" for each in ("../../secret.txt", "/etc/passwd", "link.txt", "", "a\0b", "..", "secret.txt"))],
)  # fmt: skip
def test_paths_and_keys_that_lead_elsewhere(path: str, key: str, folder: Path) -> None:
    (folder / "secret.txt").write_text("secret")
    (folder / "storage" / "PDFPDF22" / "link.txt").symlink_to(folder / "secret.txt")
    change(folder, "UPDATE items SET key = ? WHERE itemID = 2", key.format(folder.name))
    change(folder, "UPDATE itemAttachments SET path = ? WHERE itemID = 2", path)
    found = fetch(ZoteroSource(f"zotero://{folder}"))
    assert not any(b"secret" in data or b"root:" in data for data in found.read.values())
    assert len(found.read) == 5
    assert sum(verdict.outcome == "failed" for verdict in found.verdicts.values()) == 2


def test_what_is_no_library(tmp_path: Path) -> None:
    for data, why in ((None, ".*"), (b"text" * 1000, "file is not a database"), (b"", "no such table.*")):
        if data is not None:
            (tmp_path / "zotero.sqlite").write_bytes(data)
        with pytest.raises(
            SourceError, match=f"holds no library of Zotero 5 or later: {why}. Give Zotero's data folder"
        ):
            fetch(ZoteroSource(f"zotero://{tmp_path}"))
