"""A page is drawn from the very bytes that were read, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openbook.errors import NoPicture
from openbook.knowledge import KnowledgeBase, add
from openbook.knowledge.base import Origin
from openbook.knowledge.discovery import display_path
from openbook.knowledge.ingest import content_key
from openbook.knowledge.pictures import page_picture
from openbook.parsers.page_image import draw
from openbook.parsers.sandbox import Limits
from openbook.records import sha256_hex
from openbook.testing import HashEmbedder
from tests.knowledge.small_bases import reseal
from tests.parsers.pngs import decoded
from tests.parsers.samples import make_pdf

SHIP = make_pdf([["The ship has two masts."], ["It was built in 1921."]])


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    base = KnowledgeBase.ensure(tmp_path / "kb", HashEmbedder().identity)
    yield base
    base.close()


def written(path: Path, data: bytes = SHIP) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def origin_of(base: KnowledgeBase, path: Path, version: int | None = None) -> Origin:
    origin = base.origin(display_path(path), version)
    assert origin is not None
    return origin


def refusal(path: Path, origin: Origin, page: int = 1, limits: Limits = Limits()) -> str:
    with pytest.raises(NoPicture) as caught:
        page_picture(display_path(path), origin, page, limits)
    return caught.value.code


def test_a_page_of_the_file_that_was_read(base: KnowledgeBase, tmp_path: Path) -> None:
    path, note = written(tmp_path / "docs" / "ship.pdf"), written(tmp_path / "docs" / "note.txt", b"%PDF is a format.")
    add(base, [path, note], HashEmbedder())
    drawn = draw(SHIP, 2)
    png = page_picture(display_path(path), origin_of(base, path), 2)
    assert decoded(png) == (drawn.width, drawn.height, drawn.pixels)
    assert refusal(path, origin_of(base, path), 3) == "page_not_found"
    assert refusal(note, origin_of(base, note)) == "not_a_pdf"
    assert refusal(path, origin_of(base, path), limits=Limits(max_file_bytes=100)) == "file_unreadable"
    assert base.origin("another.pdf") is None


def test_what_older_code_read_is_known_by_what_is_recorded_of_it(base: KnowledgeBase, tmp_path: Path) -> None:
    path = written(tmp_path / "docs" / "ship.pdf")
    add(base, [path], HashEmbedder())
    for code in ("reader 1 splitter 1 450", "reader 9 splitter 9 900 ocr"):
        with base.writing(1.0) as connection:
            key = content_key(path, sha256_hex(SHIP), code)
            connection.execute("UPDATE contents SET key = ?, code = ?", (key, code))
            reseal(connection)
        origin = origin_of(base, path)
        assert origin.code == code
        assert decoded(page_picture(display_path(path), origin, 1))[0] == 1000
        path.write_bytes(SHIP.replace(b"two masts", b"six masts"))
        assert refusal(path, origin) == "file_changed"
        path.write_bytes(SHIP)


def test_one_other_byte_is_another_file_whatever_its_date_says(base: KnowledgeBase, tmp_path: Path) -> None:
    path = written(tmp_path / "docs" / "ship.pdf")
    add(base, [path], HashEmbedder())
    before = path.stat()
    path.write_bytes(SHIP.replace(b"1921", b"1922"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert refusal(path, origin_of(base, path)) == "file_changed"
    add(base, [path], HashEmbedder())  # each version asks for the bytes that it was read from
    assert refusal(path, origin_of(base, path, 1)) == "file_changed"
    newest = origin_of(base, path)
    assert decoded(page_picture(display_path(path), newest, 2))[0] == 1000
    path.write_bytes(SHIP)
    assert decoded(page_picture(display_path(path), origin_of(base, path, 1), 2))[0] == 1000
    assert refusal(path, newest) == "file_changed"


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are others there")
def test_what_takes_the_files_place_is_not_shown(base: KnowledgeBase, tmp_path: Path) -> None:
    path = written(
        Path(os.fsdecode(os.fsencode(tmp_path / "docs") + b"/a\nFae\xe4hre \xe2\x80\x8b.Pdf"))
    )  # an odd name
    other = written(tmp_path / "other" / "pay.pdf", make_pdf([["Anna earns 12 crowns."]]))
    same = written(tmp_path / "other" / "copy.pdf")
    add(base, [path], HashEmbedder())
    origin = origin_of(base, path)
    assert decoded(page_picture(display_path(path), origin, 1))[0] == 1000
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
    assert decoded(page_picture(display_path(path), origin, 1))[0] == 1000
    path.unlink()
    path.mkdir()
    assert refusal(path, origin) == "file_unreadable"
