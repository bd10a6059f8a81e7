"""A page is drawn from the very bytes that were read, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.core.errors import NoPicture
from openbook.core.records import sha256_hex
from openbook.knowledge.cite.pictures import page_picture
from openbook.knowledge.store.integrity import StoredContent
from openbook.knowledge.store.names import content_key, display_path
from openbook.parsers.formats.pdf_pages import draw
from openbook.parsers.sandbox.protocol import Limits
from tests.knowledge.conftest import Library
from tests.knowledge.small_bases import reseal
from tests.parsers.pngs import decoded
from tests.parsers.samples import make_pdf

SHIP = make_pdf([["The ship has two masts."], ["It was built in 1921."]])


@pytest.fixture
def ship(library: Library) -> Path:
    path = library.write("ship.pdf", SHIP)
    library.add()
    return path


def origin_of(library: Library, path: Path, version: int | None = None) -> StoredContent:
    origin = library.base.content(display_path(path), version)
    assert origin is not None
    return origin


def is_drawn(path: Path, origin: StoredContent, page: int = 1) -> bool:
    return decoded(page_picture(display_path(path), origin, page))[0] == 1000


def refusal(path: Path, origin: StoredContent, page: int = 1, limits: Limits = Limits()) -> str:
    with pytest.raises(NoPicture) as caught:
        page_picture(display_path(path), origin, page, limits)
    return caught.value.code


def test_a_page_of_the_file_that_was_read(library: Library, ship: Path) -> None:
    note = library.write("note.txt", b"%PDF is a format.")
    library.add("note.txt")
    origin = origin_of(library, ship)
    assert decoded(page_picture(display_path(ship), origin, 2)) == draw(SHIP, 2)
    assert refusal(ship, origin, 3) == "page_not_found"
    assert refusal(note, origin_of(library, note)) == "not_a_pdf"
    assert refusal(ship, origin, limits=Limits(max_file_bytes=100)) == "file_unreadable"
    assert library.base.content("another.pdf") is None


def test_a_text_read_by_older_code_has_its_pages(library: Library, ship: Path) -> None:
    for code in ("reader 1 splitter 1 450", "reader 9 splitter 9 900 ocr"):
        with library.base.writing(1.0) as connection:
            key = content_key(ship, sha256_hex(SHIP), code)
            connection.execute("UPDATE contents SET key = ?, code = ?", (key, code))
            reseal(connection)
        origin = origin_of(library, ship)
        assert origin.code == code
        assert is_drawn(ship, origin)
        ship.write_bytes(SHIP.replace(b"two masts", b"six masts"))
        assert refusal(ship, origin) == "file_changed"
        ship.write_bytes(SHIP)


def test_one_changed_byte_is_another_file_whatever_its_date(library: Library, ship: Path) -> None:
    before = ship.stat()
    ship.write_bytes(SHIP.replace(b"1921", b"1922"))
    os.utime(ship, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ship.stat().st_size == before.st_size
    assert refusal(ship, origin_of(library, ship)) == "file_changed"
    library.add()  # each version asks for the bytes that it was read from
    assert refusal(ship, origin_of(library, ship, 1)) == "file_changed"
    newest = origin_of(library, ship)
    assert is_drawn(ship, newest, 2)
    ship.write_bytes(SHIP)
    assert is_drawn(ship, origin_of(library, ship, 1), 2)
    assert refusal(ship, newest) == "file_changed"


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are others there")
def test_a_file_in_place_of_the_read_one_is_not_drawn(library: Library) -> None:
    path = library.write(os.fsdecode(b"a\nFae\xe4hre \xe2\x80\x8b.Pdf"), SHIP)  # an odd name
    library.add()
    other = library.write("../other/pay.pdf", make_pdf([["Anna earns 12 crowns."]]))
    same = library.write("../other/copy.pdf", SHIP)
    origin = origin_of(library, path)
    assert is_drawn(path, origin)
    in_its_place: list[tuple[Callable[[], object], str]] = [
        (lambda: None, "file_unreadable"),
        (lambda: path.symlink_to(other), "file_changed"),
        (lambda: path.symlink_to(path), "file_unreadable"),
        (lambda: os.mkfifo(path), "file_unreadable"),
    ]
    for make, code in in_its_place:
        path.unlink(missing_ok=True)
        make()
        assert refusal(path, origin) == code
    path.unlink()
    path.symlink_to(same)  # the very bytes that were read, wherever they lie
    assert is_drawn(path, origin)
    path.unlink()
    path.mkdir()
    assert refusal(path, origin) == "file_unreadable"
