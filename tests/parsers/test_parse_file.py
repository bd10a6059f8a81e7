from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pkgutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.parsers import PARSER_VERSION, PARSERS, SUFFIXES, parse_bytes, parse_file
from openbook.parsers.characters import clean
from openbook.parsers.files import unsupported_reason

from .samples import (
    CONTAINER,
    ENCRYPTED_PDFS,
    FIXTURES,
    body_xml,
    book,
    chapter,
    damaged,
    deck,
    docx_of_xml,
    make_pdf,
    odf_file,
    packed,
    refusal,
    shape,
    workbook,
)

MB = 1_000_000
OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def refusal_of(path: Path, max_bytes: int = MB) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse_file(path, max_bytes=max_bytes)
    return str(caught.value)


def test_content_and_digest_come_from_the_same_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.txt"))  # a name that is not Unicode
    path.write_bytes(b"The ferry leaves at nine.\r\n")
    content, digest = parse_file(path, max_bytes=MB)
    assert content.text == "The ferry leaves at nine.\n"
    assert content.title == "caf"
    assert digest == hashlib.sha256(b"The ferry leaves at nine.\r\n").hexdigest()
    assert parse_file(path, max_bytes=MB) == (content, digest)


NEEDS_MORE = {
    f".{end}"
    for end in "pdf rtf json ipynb eml mbox msg docx docm pptx pptm xlsx xlsm xlsb xls odt odp ods epub".split()
}


def test_every_suffix_has_a_parser() -> None:
    for suffix in SUFFIXES - NEEDS_MORE:
        assert parse_bytes(b"Some text.", f"a{suffix}").text.strip() == "Some text."
    assert NEEDS_MORE <= SUFFIXES
    assert PARSER_VERSION
    for target in set(PARSERS.values()):
        assert callable(pkgutil.resolve_name(target))


def test_which_names_are_read(tmp_path: Path) -> None:
    for name in ("README", "Makefile", "a.xyz", "a.\x1b[2J", "a.", "a.TXT"):
        (tmp_path / name).write_text("Some text.")
        assert unsupported_reason(Path(name)) == ""
        assert parse_file(tmp_path / name, max_bytes=MB)[0].text == "Some text."
    for name, reason in (
        ("a.PNG", "an image: needs OCR"),
        ("a.tar.gz", "an archive: unpack it"),
        ("a.mp3", "audio is not read: transcribe it first"),
        ("a.mov", "video is not read: transcribe it first"),
        ("a.heic", "an image in a format that OCR does not read: save it as PNG"),
        ("a.exe", "binary data, not text"),
    ):
        assert unsupported_reason(Path(name)) == refusal_of(tmp_path / name) == reason
        assert unsupported_reason(Path(name), ocr=True) == ("" if name == "a.PNG" else reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "an image: needs OCR"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "an image: needs OCR"),
        (b"\x1f\x8b\x08\0text", "an archive: unpack it"),
        (b"Rar!\x1a\x07\x01\0text", "an archive: unpack it"),
        (b"a.txt" + bytes(252) + b"ustar", "an archive: unpack it"),
        (b"PK\x03\x04" + b"text " * 100, "an archive: unpack it"),
        (b"ID3\x04\0\0text", "audio is not read: transcribe it first"),
        (b"RIFF\0\0\0\0WAVE", "audio is not read: transcribe it first"),
        (b"\0\0\0\x20ftypisom", "video is not read: transcribe it first"),
        (OLE2 + bytes(600), "a legacy Office file: save it as .docx, .xlsx or .pptx"),
        (OLE2 + "EncryptedPackage".encode("utf-16-le"), "encrypted with a password"),
        (b"\x7fELF\x02\x01\x01" + bytes(500), "binary data, not text"),
        (b"#!/bin/sh\nexec tail\n" * 20 + bytes(50_000), "binary data, not text"),
        (b"SQLite format 3\x00" + bytes(100), "binary data, not text"),
        (b" \n\t \n\n", "holds no text"),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.html", "README"])
def test_what_the_bytes_say_counts(data: bytes, reason: str, name: str) -> None:
    assert refusal(data, name) == reason


EPUB = {"a.xhtml": chapter("<p>x</p>")}
LOCKED = '<e><EncryptedData><CipherReference URI="OEBPS/a.xhtml"/></EncryptedData></e>'
ENCRYPTED_ODF = "<manifest:m NS><manifest:encryption-data/></manifest:m>"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.docx", packed({"word/styles.xml": "<x/>"}), "not a Word document"),
        ("a.docx", docx_of_xml("<x>" * 50_000), "a damaged Word document"),
        ("a.epub", book(EPUB, more={"META-INF/encryption.xml": LOCKED}), "locked by its publisher (DRM)"),
        ("a.epub", packed({"x": ""}), "not an EPUB book"),
        ("a.epub", packed({"META-INF/container.xml": "<x"}), "a damaged EPUB book"),
        ("a.epub", packed({"META-INF/container.xml": CONTAINER}), "a damaged EPUB book"),
        ("a.odt", odf_file("text", "", more={"META-INF/manifest.xml": ENCRYPTED_ODF}), "encrypted with a password"),
        ("a.odt", odf_file("text", "", more={"encrypted-package": ""}), "encrypted with a password"),
        ("a.odt", odf_file("drawing", ""), "not an OpenDocument text, presentation or spreadsheet"),
        ("a.odt", packed({"x": ""}), "not an OpenDocument file"),
        ("a.odt", odf_file("text", "", more={"content.xml": "<x"}), "a damaged OpenDocument file"),
        ("a.pptx", packed({"ppt/presentation.xml": "<x"}), "a damaged PowerPoint presentation"),
        ("a.pptx", packed({"ppt/x": ""}), "not a PowerPoint presentation"),
        ("a.xlsx", packed({"xl/x": "<x/>"}), "a damaged workbook"),
        ("a.xlsx", workbook({"S": "<sheetData><row"}), "a damaged workbook"),
        ("a.xlsx", OLE2 + "Workbook".encode("utf-16-le") + bytes(600), "a damaged workbook"),
        (
            "a.xlsx",
            workbook({"S": "<sheetData/>"}, more={"xl/media/a": "0" * 30_000_000}),
            "unpacks from 0.0 MB to 30.0 MB, like a zip bomb",
        ),
        ("a.pdf", make_pdf([[], []]), "no text, only images: needs OCR"),
        ("a.pdf", make_pdf([None, None]), "no text, only images: needs OCR"),
        *(("a.pdf", data, "encrypted with a password") for data in ENCRYPTED_PDFS),
        ("a.pdf", b"%PDF-1.7\n", "not a readable PDF"),
        ("a.pdf", b"%PDF-1.4\n" + b"\x00\xff" * 5000, "not a readable PDF"),
        ("a.pdf", b"%PDF-1.4\n<html></html>", "not a readable PDF"),
    ],
)
def test_a_file_that_is_not_of_its_format_says_why(name: str, data: bytes, reason: str) -> None:
    assert refusal(data, name) == reason


def test_other_formats_under_a_wrong_name() -> None:
    page = b"<!DOCTYPE html><title>Fares</title><p>Nine euros.</p>"
    assert parse_bytes(page, "page").media_type == "text/html"
    assert parse_bytes(page, "page.txt").media_type == "text/plain"  # named as what it is to be read as
    assert parse_bytes(b"#!/usr/bin/env python3\ndef go():\n    pass\n", "go").headings[0].title == "def go"
    for data, name in (
        (b"{\\rtf1 Nine euros.}", "a.doc"),
        (docx_of_xml(body_xml("<w:p><w:r><w:t>Nine euros.</w:t></w:r></w:p>")), "a.md"),
        (make_pdf([["Nine euros."]]), "a.txt"),
    ):
        assert parse_bytes(data, name).text == "Nine euros."


# --- any bytes --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.sampled_from(sorted(SUFFIXES)))
@settings(max_examples=200)
def test_no_bytes_make_a_parser_fail(data: bytes, suffix: str) -> None:
    for body in (data, b"PK\x03\x04" + data, b"From: a@b\n\n" + data, b"---\n" + data + b"\n---\n"):
        with contextlib.suppress(UnreadableFile):
            content = parse_bytes(body, f"a{suffix}")
            assert clean(content.text) == content.text
            assert all(0 <= mark.start < len(content.text) for mark in content.headings)
            assert list(content.headings) == sorted(content.headings, key=lambda mark: mark.start)


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from("cell_type source outputs data text text/plain output_type metadata cells".split()),
    inner | st.sampled_from(["code", "markdown", "error"]), max_size=4), max_leaves=20))  # fmt: skip
def test_notebooks_of_any_shape_are_read_or_refused(value: object) -> None:
    for book_of in (value, {"cells": value}, {"cells": [value], "metadata": value}):
        with contextlib.suppress(UnreadableFile):
            parse_bytes(json.dumps(book_of).encode(), "a.ipynb")


SECRET = '<!DOCTYPE a [<!ENTITY s SYSTEM "file:///etc/passwd"><!ENTITY f "the bomb">{}]>'
GROWING = SECRET.format('<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)))
SHEET = '<worksheet><sheetData><row r="1"><c r="A1" t="str"><v>a&s;&f;</v></c></row></sheetData></worksheet>'


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.xml", f"{SECRET.format('')}<a>before &s; after</a>".encode()),
        ("a.xml", f"{GROWING}<a>&a9;</a>".encode()),
        ("a.html", f"{GROWING}<html><body><p>x &a9; &s; y</p></body></html>".encode()),
        ("a.docx", docx_of_xml(SECRET.format("") + body_xml("<w:p><w:r><w:t>&s;&f;</w:t></w:r></w:p>"))),
        ("a.xlsx", workbook({"S": ""}, more={"xl/worksheets/sheet1.xml": SECRET.format("") + SHEET})),
        ("a.epub", book({"a.xhtml": SECRET.format("") + "<p>&s;</p>"})),
    ],
)
def test_entities_are_neither_fetched_nor_grown(name: str, data: bytes) -> None:
    with contextlib.suppress(UnreadableFile):
        text = parse_bytes(data, name).text
        assert "root:" not in text
        assert "haha" not in text


MARKS = ("x", "`", "# ", "[(", "=", "#\t# ", "- ")
CODE = ("a" * 100_000, "public " * 50 + "\n", "(" * 390 + "\n", "a:b-c.d" * 50 + "\n", "{\\b ")
CELLS = ('"', ',"', '"a\n', ",", ",\n")
HEADERS = ("Subject: =?a?b?", "Subject: =?utf-8?q?a?= ", "To: <", "Date: 1 ")
MULTIPARTS = "".join(f'Content-Type: multipart/mixed; boundary="{i}"\n\n--{i}\n' for i in range(500))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, before + mark * (1_500_000 // len(mark)))
          for mark in MARKS for name, before in (("a.md", ""), ("a.md", "# ["), ("a.txt", ""), ("a.txt", "# ["))),
        *((name, f"{before}00:00.000\n{line * (100_000 // len(line))}")
          for line in CODE for name, before in (("a.py", ""), ("a.rtf", "{\\rtf1 "))),
        *(("a.csv", cell * 100_000) for cell in CELLS),
        *(("a.eml", f"From: a@b\n{name}: {value * 20_000}\n\n") for name, value in (header.split(": ") for header in HEADERS)),
        ("a.eml", f"From: a@b\n{MULTIPARTS}"),
    ],
    ids=lambda value: value[:25],
)  # fmt: skip
def test_hostile_lines_take_linear_time(name: str, text: str) -> None:
    with contextlib.suppress(UnreadableFile):
        parse_bytes(text.encode(), name)


@pytest.mark.parametrize("depth", [240, 20_000])
@pytest.mark.parametrize("tag", ["div", "ul><li", "p><font", "table", "w:tbl", "text:list", "text:span"])
def test_deep_nesting_is_text_or_a_reason(tag: str, depth: int) -> None:
    opened, closed = f"<{tag}>" * depth, f"</{tag.partition('>')[0]}>" * depth
    assert "deep" in parse_bytes(f"{opened}deep{closed}".encode(), "a.xml").text
    for name, data in (
        ("a.html", f"<html>{opened}deep<p>after</p>".encode()),
        ("a.odt", odf_file("text", f"<text:p>{opened}<text:p>deep</text:p>{closed}</text:p>")),
        ("a.docx", docx_of_xml(body_xml(f"{opened}<w:p>deep</w:p>{closed}"))),
        ("a.json", b"[" * depth + b"]" * depth),
        ("a.ipynb", b'{"cells":' + b"[" * depth),
        ("a.md", b"---\na: " + b"[" * depth + b"\n---\ndeep"),
    ):
        with contextlib.suppress(UnreadableFile):
            parse_bytes(data, name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", docx_of_xml(body_xml("<w:p><w:r><w:t>Some text.</w:t></w:r></w:p>"))),
        ("a.pptx", deck(shape("Some text."))),
        ("a.xlsx", workbook({"S": "<sheetData/>"})),
        ("a.odt", odf_file("text", "<text:p>Some text.</text:p>")),
        ("a.epub", book({"a.xhtml": chapter("<p>Some text.</p>")})),
        ("a.pdf", make_pdf([["First page."], ["Second page."]], outline=[("First", 0)])),
        ("a.msg", (FIXTURES / "attachments.msg").read_bytes()),
    ],
)
def test_damaged_files_are_text_or_a_reason(name: str, data: bytes) -> None:
    for broken in damaged(data, max(23, len(data) // 60)):
        with contextlib.suppress(UnreadableFile):
            content = parse_bytes(broken, name)
            assert all(0 <= mark.start < len(content.text) for mark in content.headings)


# --- files ------------------------------------------------------------------------------------------------------------


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcde")
    assert parse_file(path, max_bytes=5)[0].text == "abcde"
    with path.open("wb") as file:
        file.truncate(200 * MB)
    assert refusal_of(path, 100 * MB) == "200.0 MB, over the limit of 100 MB"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a socket's path must be short


@pytest.mark.skipif(os.name != "posix", reason="other platforms have other things in folders")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (Path.mkdir, "a folder, not a file"),
        (os.mkfifo, "a named pipe, not a file"),
        (_socket, "a socket, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a file"),
        (lambda path: path.symlink_to(path), "a link that leads back to itself"),
    ],
)
def test_what_is_no_regular_file(
    make: Callable[[Path], None], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.md")
    assert refusal_of(tmp_path / "a.md") == reason


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")
    path.chmod(0)
    assert refusal_of(path) == "no permission to read it"
