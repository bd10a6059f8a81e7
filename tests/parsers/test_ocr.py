"""Tesseract is a fake on the path: a script that says what it was asked and what it was given. The models are the real ones, where installed."""

from __future__ import annotations

import importlib.metadata
import io
import os
import stat
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers import ocr, parse_bytes
from openbook.parsers.formats.pdf import parse_pdf
from openbook.parsers.ocr import best_engine, ocr_engine, ocr_image, ocr_pdf
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Limits

from .samples import make_pdf, page_texts

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
SCAN = make_pdf([None])
OWN_TEXT = ["A page that has a text of its own, long enough."]
ENGLISH = "tesseract eng of which eng"

with_fake = pytest.mark.skipif(os.name == "nt", reason="the fake program is a shell script")


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "tesseract"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def says(*pages: Sequence[tuple[str, int]]) -> str:
    """A script that gives these words of each page, with their confidence; `|` ends a line."""
    rows = ["level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"]
    for number, words in enumerate(pages, 1):
        rows.append(f"1\t{number}\t0\t0\t0\t0\t0\t0\t9\t9\t-1\t")
        line = 1
        for word, percent in words:
            rows.append(f"5\t{number}\t1\t1\t{line}\t1\t0\t0\t9\t9\t{percent}.0\t{word.removesuffix('|')}")
            line += word.endswith("|")
    return "printf '" + "\\n".join(rows).replace("\t", "\\t") + "\\n'"


def nothing() -> None: ...


@with_fake
def test_scanned_pages_are_drawn_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    script = f'(echo "$*"; head -c 2; wc -c) > {asked}; {says([("Two|", 90), ("masts.", 50)])}'
    install(tmp_path, script, monkeypatch)
    content = ocr_pdf(make_pdf([None, OWN_TEXT]), "a.pdf", "tesseract eng+deu of which eng", nothing)
    assert page_texts(content) == ["Two\nmasts.", OWN_TEXT[0]]
    assert content.metadata == (("ocr_confidence", 0.63), ("pages_read_by_ocr", 1))  # by the length of the words
    told, rest = asked.read_text().split("\n", 1)
    assert (told, rest[:2]) == ("stdin stdout -l eng+deu --psm 1 tsv", "P5")
    assert int(rest[2:]) + 2 in {len(f"P5\n2550 {height}\n255\n") + 2550 * height for height in (3300, 3301)}


def test_without_the_program_a_pdf_with_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    data = make_pdf([OWN_TEXT])
    assert ocr_pdf(data, "a.pdf", ENGLISH, nothing) == parse_pdf(data, "a.pdf")
    reason = "^needs OCR, and Tesseract is not installed$"
    for read, scan in ((ocr_pdf, SCAN), (ocr_image, PNG)):
        with pytest.raises(UnreadableFile, match=reason):
            read(scan, "a", ENGLISH, nothing)


@with_fake
@pytest.mark.parametrize(
    ("data", "read", "text", "pages", "kind"),
    [
        (b"II*\0", [[("One.", 90)], [("Two.", 90)]], "One.\n\nTwo.", ["One.", "Two."], "image/tiff"),
        (PNG, [[("One.\\033[2J", 90)]], "One. [2J", [], "image/png"),  # one image has no pages
    ],
)
def test_images_and_their_pages(
    data: bytes, read: Any, text: str, pages: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, says(*read), monkeypatch)
    content = ocr_image(data, "scan.tif", ENGLISH, nothing)
    assert (content.text, page_texts(content)) == (text, pages)
    assert (content.title, content.media_type, content.metadata) == ("scan", kind, (("ocr_confidence", 0.9),))


@with_fake
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
        ocr_image(PNG, "a.png", ENGLISH, nothing)
    with pytest.raises(UnreadableFile, match="OCR"):
        ocr_pdf(SCAN, "a.pdf", ENGLISH, nothing)


def test_what_is_no_image_and_no_language() -> None:
    with pytest.raises(UnreadableFile, match="not an image"):
        ocr_image(b"text", "a.png", ENGLISH, nothing)
    for languages in ("--help", "eng;ls", "../eng"):
        with pytest.raises(UnreadableFile, match="names no languages"):
            ocr_image(PNG, "a.png", ocr_engine(languages), nothing)


@with_fake
def test_a_slow_page_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "PAGE_TIMEOUT_S", 0.2)
    install(tmp_path, "exec sleep 60", monkeypatch)
    content = ocr_pdf(make_pdf([None, OWN_TEXT]), "a.pdf", ENGLISH, nothing)
    assert content.text.startswith("A page")
    assert content.metadata == (("pages_needing_ocr", 1),)
    with pytest.raises(UnreadableFile, match=r"longer than 0.2 s"):
        ocr_image(PNG, "a.png", ENGLISH, nothing)


@with_fake
def test_what_reads_scans_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(ocr, "best_engine", best_engine)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    list_of = "printf 'List of available languages (2):\\neng\\n{}osd\\n'"
    install(tmp_path, list_of.format(""), monkeypatch)
    assert ocr_engine("eng+deu") == "tesseract eng+deu of which eng"
    assert ocr_engine("") == ENGLISH
    install(tmp_path, list_of.format("deu\\nfra\\n"), monkeypatch)
    assert ocr_engine("") == "tesseract deu+eng+fra of which deu+eng+fra"
    install(tmp_path, list_of.format("deu\\nfra\\nspa\\n"), monkeypatch)
    assert ocr_engine("") == ENGLISH  # many at once read worse
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"9 of {package}")
    assert ocr_engine("") == "rapidocr 9 of rapidocr"
    assert ocr_engine("eng") == ENGLISH
    assert ocr_engine("none") == ""
    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setenv("PATH", "")
    assert ocr_engine("eng+deu") == "tesseract eng+deu of which "
    assert ocr_engine("") == ""


# --- the models -------------------------------------------------------------------------------------------------------


@pytest.fixture
def models() -> str:
    pytest.importorskip("rapidocr", reason="needs the extra ocr")
    return best_engine()


def drawn(pdf: bytes, kind: str = "PNG", turn: int = 0, **how: Any) -> bytes:
    """Its first page as an image file."""
    import pypdfium2

    page = pypdfium2.PdfDocument(pdf)[0]
    out = io.BytesIO()
    page.render(scale=2).to_pil().convert("L").rotate(turn, expand=True).save(out, kind, **how)
    return out.getvalue()


def scanned(*images: bytes) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    first, *rest = (Image.open(io.BytesIO(image)) for image in images)
    first.save(out, "PDF", resolution=144, save_all=True, append_images=rest)
    return out.getvalue()


LINES = ["The lighthouse keeper counted two masts", "and wrote the number 1921 in his book."]


@pytest.mark.laws
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_models_read_a_scan_however_it_was_turned(models: str, turn: int) -> None:
    image = drawn(make_pdf([LINES]), turn=turn)
    content = ocr_image(image, "scan.png", models, nothing)
    assert content.text == "\n".join(LINES)
    assert float(str(dict(content.metadata)["ocr_confidence"])) > 0.9
    again = ocr_image(image, "scan.png", models, nothing)
    assert again == content


@pytest.mark.laws
def test_the_models_read_only_pages_without_text_and_all_pages_of_a_tiff(models: str) -> None:
    from PIL import Image

    image = drawn(make_pdf([LINES]))
    content = ocr_pdf(scanned(image, image), "a.pdf", models, nothing)
    assert page_texts(content) == ["\n".join(LINES)] * 2
    assert dict(content.metadata)["pages_read_by_ocr"] == 2
    assert ocr_pdf(make_pdf([OWN_TEXT]), "a.pdf", models, nothing) == parse_pdf(make_pdf([OWN_TEXT]), "a.pdf")
    out = io.BytesIO()
    pages = [Image.open(io.BytesIO(image))] * 2
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    assert page_texts(ocr_image(out.getvalue(), "a.tif", models, nothing)) == ["\n".join(LINES)] * 2


def test_columns_of_prose_are_read_one_after_the_other_and_tables_by_row() -> None:
    from openbook.parsers.ocr.models import _rows

    prose = [(left, 20.0 * row, left + 200, 20.0 * row + 10, 0) for row in range(4) for left in (0.0, 230.0)]
    title = (0.0, -60.0, 430.0, -50.0, 0)
    assert [[box[:2] for box in row] for row in _rows([*prose, title])] == [
        [(0.0, -60.0)], *([(left, 20.0 * row)] for left in (0.0, 230.0) for row in range(4)),
    ]  # fmt: skip
    cells = [(left, 20.0 * row, left + 40, 20.0 * row + 10, 0) for row in range(4) for left in (0.0, 230.0)]
    assert [len(row) for row in _rows(cells)] == [2] * 4
    assert list(_rows([])) == []


def png_of(width: int, height: int) -> bytes:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""),
    )  # fmt: skip
    return PNG[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.mark.laws
@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about the broken images
def test_hostile_images(models: str) -> None:
    def refused(data: bytes) -> str:
        with pytest.raises(UnreadableFile) as caught:
            ocr_image(data, "a", models, nothing)
        return str(caught.value)

    assert refused(png_of(100_000, 100_000)) == "an image of 100000 by 100000 pixels, over the limit of 100 million"
    good = drawn(make_pdf([LINES]))
    for broken in (
        PNG,
        good[: len(good) // 2],
        b"\xff\xd8\xff\xe0" + bytes(50),
        b"II*\0\xff\xff\xff\x7f",
        b"GIF89a\1\0",
    ):
        assert refused(broken) == "a damaged image"
    for empty in (drawn(make_pdf([[]])), png_of(3, 3)):
        assert "without text" in refused(empty) or "damaged" in refused(empty)


@pytest.mark.laws
def test_pages_over_the_limit_are_counted_and_a_slow_page_costs_itself(
    models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openbook.parsers.ocr import models as ocr_models

    image = drawn(make_pdf([LINES]))
    monkeypatch.setattr(ocr, "MAX_PAGES", 1)
    content = ocr_pdf(scanned(image, image), "a.pdf", models, nothing)
    assert {("pages_needing_ocr", 1), ("pages_read_by_ocr", 1)} <= set(content.metadata)
    monkeypatch.setattr(ocr_models, "MAX_CPU_S", -1.0)
    with pytest.raises(UnreadableFile, match="no text"):
        ocr_pdf(scanned(image), "a.pdf", models, nothing)
    with pytest.raises(UnreadableFile, match="took longer"):
        ocr_image(image, "a.png", models, nothing)


def test_in_the_sandbox(models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its memory, with an address of a proxy that does not answer, and the text is the same there."""
    monkeypatch.setattr(ocr, "best_engine", best_engine)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    image = drawn(make_pdf([LINES]))
    (tmp_path / "a.pdf").write_bytes(scanned(image))
    with ParserPool(Limits(timeout_s=600), workers=1) as pool:
        outcome = pool.parse(tmp_path / "a.pdf")
    assert isinstance(outcome, tuple), outcome
    content: Content = outcome[0]
    assert content == parse_bytes((tmp_path / "a.pdf").read_bytes(), "a.pdf", ocr=models)
