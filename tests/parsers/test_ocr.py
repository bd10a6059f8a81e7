"""The program is a fake on the path: a script that says what it was asked and what it was given."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers import ocr
from openbook.parsers.ocr import languages_here, ocr_image, ocr_pdf
from openbook.parsers.pdf import parse_pdf

from .samples import make_pdf, page_texts

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
SCAN = make_pdf([None])

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake program is a shell script")


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "tesseract"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_scanned_pages_are_drawn_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, 'head -c 2; echo " read with $*"', monkeypatch)
    content = ocr_pdf(make_pdf([None, ["A page that has a text of its own, long enough."]]), "a.pdf", "eng+deu")
    assert content.text == (
        "P5 read with stdin stdout -l eng+deu --psm 1\n\nA page that has a text of its own, long enough."
    )
    assert [content.text[page.start : page.end][:2] for page in content.pages] == ["P5", "A "]
    assert content.metadata == (("pages_read_by_ocr", 1),)
    install(tmp_path, "wc -c", monkeypatch)  # of the whole image
    given = int(ocr_pdf(SCAN, "a.pdf", "eng").text)
    assert given in {len(f"P5\n2550 {height}\n255\n") + 2550 * height for height in (3300, 3301)}


def test_without_the_program_a_pdf_with_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    data = make_pdf([["A page that has a text of its own."]])
    assert ocr_pdf(data, "a.pdf", "eng") == parse_pdf(data, "a.pdf")
    reason = "^needs OCR, and Tesseract is not installed$"
    for read, scan in ((ocr_pdf, SCAN), (ocr_image, PNG)):
        with pytest.raises(UnreadableFile, match=reason):
            read(scan, "a", "eng")


@pytest.mark.parametrize(
    ("data", "printed", "text", "pages", "kind"),
    [
        (b"II*\0", r"One.\n\fTwo.\n\f", "One.\n\nTwo.", ["One.", "Two."], "image/tiff"),
        (PNG, r"One.\033[2J\n\f", "One. [2J", [], "image/png"),  # one image has no pages
    ],
)
def test_images_and_their_pages(
    data: bytes, printed: str, text: str, pages: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, f"printf '{printed}'", monkeypatch)
    content = ocr_image(data, "scan.tif", "eng")
    assert (content.text, page_texts(content)) == (text, pages)
    assert (content.title, content.media_type) == ("scan", kind)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Error opening data file /x/xyz.traineddata >&2; exit 1", "no data for the languages eng"),
        ("echo first >&2; echo broken image >&2; exit 1", r"^OCR failed: broken image$"),
        ("exit 0", "without text"),
    ],
)
def test_failures_say_why(script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, script, monkeypatch)
    with pytest.raises(UnreadableFile, match=reason):
        ocr_image(PNG, "a.png", "eng")
    with pytest.raises(UnreadableFile, match="OCR"):
        ocr_pdf(SCAN, "a.pdf", "eng")


def test_what_is_no_image_and_no_language() -> None:
    with pytest.raises(UnreadableFile, match="not an image"):
        ocr_image(b"text", "a.png", "eng")
    for languages in ("", "--help", "eng;ls", "../eng"):
        with pytest.raises(UnreadableFile, match="names no languages"):
            ocr_image(PNG, "a.png", languages)


def test_a_slow_page_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "PAGE_TIMEOUT_S", 0.2)
    install(tmp_path, "exec sleep 60", monkeypatch)
    content = ocr_pdf(make_pdf([None, ["A page that has a text of its own, long enough."]]), "a.pdf", "eng")
    assert content.text.startswith("A page")
    assert content.metadata == (("pages_needing_ocr", 1),)
    with pytest.raises(UnreadableFile, match=r"longer than 0.2 s"):
        ocr_image(PNG, "a.png", "eng")


def test_what_is_available_is_told_by_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert languages_here("") == ""
    install(tmp_path, "printf 'List of available languages (2):\\neng\\nosd\\n'", monkeypatch)
    assert languages_here("eng+deu") == "eng+deu of which eng"
    monkeypatch.setenv("PATH", "")
    assert languages_here("eng+deu") == "eng+deu of which "
