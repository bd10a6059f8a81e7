"""Scans that would take all memory or time: each is refused or read within the limits, and the next file is read."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers import ocr
from openbook.parsers.ocr import best_engine
from openbook.parsers.sandbox import pool
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Limits
from tests.parsers.samples import make_pdf

PICTURE = b"/Width 2 /Height 2 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 4 >>\nstream\n\x00\xff\xff\x00"
PAGE = b"/MediaBox [0 0 612 792]"


@pytest.fixture(autouse=True)
def parsers() -> None:
    """In processes of their own, as the program does."""


def scan(picture: bytes, page: bytes = PAGE) -> bytes:
    return make_pdf([None]).replace(PICTURE, picture).replace(PAGE, page)


def packed(size: int, kind: bytes = b"/Filter /FlateDecode", start: bytes = b"") -> bytes:
    data = start or zlib.compress(bytes(size))
    return kind + b" /Length %d >>\nstream\n" % len(data) + data


GREY = b"/Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 1 "
HOSTILE = {
    "bomb": scan(GREY % (100_000, 100_000) + packed(100_000 * 12_500)),
    "huge page": scan(PICTURE, b"/MediaBox [0 0 100000 100000]"),
    "corrupt picture": scan(GREY % (999, 999) + packed(0, b"/Filter /DCTDecode", b"\xff\xd8\xff\xe0" + bytes(99))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_scan_costs_itself_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    monkeypatch.setattr(ocr, "best_engine", best_engine)
    (tmp_path / "a.pdf").write_bytes(HOSTILE[name])
    (tmp_path / "b.txt").write_text("Some text.")
    with ParserPool(Limits(timeout_s=600.0), workers=1) as parsers:
        first, second = (parsers.parse(tmp_path / file) for file in ("a.pdf", "b.txt"))
    assert isinstance(first, UnreadableFile)
    assert "no text" in str(first) or "memory" in str(first)
    assert isinstance(second, tuple)
    assert second[0].text == "Some text."


def test_ocr_may_not_go_on_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that only ever says that it makes progress is ended."""
    (tmp_path / "worker.py").write_text(
        "import sys, time\nfrom openbook.parsers.sandbox import tasks\n"
        "def answer(question, settings, progress):\n    while True:\n        progress()\n        time.sleep(0.05)\n"
        "tasks.answer = answer\ntasks.main(sys.argv[1:])\n"
    )
    monkeypatch.setattr(pool, "MAX_PAGES", 2)
    command = [sys.executable, str(tmp_path / "worker.py")]
    with ParserPool(Limits(timeout_s=0.5), workers=1, command=command) as parsers:
        outcome = parsers.parse(tmp_path / "a.pdf")
    assert isinstance(outcome, UnreadableFile)
    assert str(outcome) == "took longer than 0.5 s to read"
