from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers import PARSER_VERSION, PARSERS, SUFFIXES, parse_bytes, parse_file, unsupported
from openbook.parsers.characters import clean

from .samples import docx_bytes, make_pdf, new_docx

MB = 1_000_000


def refusal(path: Path, max_bytes: int = MB) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse_file(path, max_bytes=max_bytes)
    return str(caught.value)


def test_content_and_digest_come_from_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"The ferry leaves at nine.\r\n")
    content, digest = parse_file(path, max_bytes=MB)
    assert content.text == "The ferry leaves at nine.\n"
    assert content.title == "notes"
    assert digest == hashlib.sha256(b"The ferry leaves at nine.\r\n").hexdigest()


NEEDS_MORE = {".pdf", ".rtf", ".json", ".ipynb", ".eml", ".mbox", ".msg", ".vtt", ".srt"} | {
    f".{end}" for end in "docx docm pptx pptm xlsx xlsm xlsb xls odt odp ods epub".split()
}


def test_every_suffix_has_a_parser(tmp_path: Path) -> None:
    for suffix in SUFFIXES - NEEDS_MORE:
        path = tmp_path / f"a{suffix.upper()}"
        path.write_text("Some text.")
        assert parse_file(path, max_bytes=MB)[0].text.strip() == "Some text."
    assert NEEDS_MORE <= SUFFIXES
    assert PARSER_VERSION


def test_every_named_parser_exists() -> None:
    for target in set(PARSERS.values()):
        assert isinstance(target, str)
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize(
    "name", ["README", "LICENSE", "CHANGELOG", "Makefile", "Dockerfile", "a.xyz", "a.\x1b[2J", "a."]
)
def test_text_of_a_name_that_tells_no_format(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("Some text.")
    assert unsupported(Path(name)) == ""
    assert parse_file(tmp_path / name, max_bytes=MB)[0].text == "Some text."


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.PNG", "an image: needs OCR"),
        ("a.zip", "an archive: unpack it"),
        ("a.tar.gz", "an archive: unpack it"),
        ("a.mp3", "audio or video"),
        ("a.exe", "binary data, not text"),
    ],
)
def test_names_that_are_never_read(name: str, reason: str, tmp_path: Path) -> None:
    assert unsupported(Path(name)) == reason
    assert refusal(tmp_path / name) == reason


def test_images_may_be_read_with_ocr() -> None:
    assert unsupported(Path("a.png"), ocr=True) == ""
    assert unsupported(Path("a.zip"), ocr=True)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "an image: needs OCR"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "an image: needs OCR"),
        (b"\x1f\x8b\x08\0text", "an archive: unpack it"),
        (b"Rar!\x1a\x07\x01\0text", "an archive: unpack it"),
        (b"a.txt" + bytes(252) + b"ustar", "an archive: unpack it"),
        (b"ID3\x04\0\0text", "audio or video"),
        (b"\0\0\0\x20ftypisom", "audio or video"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a legacy Office file: save it as .docx, .xlsx or .pptx"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "encrypted with a password"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.doc", "a.csv", "README"])
def test_what_the_bytes_say_counts(data: bytes, reason: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert refusal(tmp_path / name) == reason


def test_other_formats_under_a_wrong_name() -> None:
    page = b"<!DOCTYPE html><title>Fares</title><p>Nine euros.</p>"
    assert parse_bytes(page, "page").media_type == "text/html"
    assert parse_bytes(page, "page.txt").media_type == "text/plain"  # named as what it is to be read as
    assert parse_bytes(b"#!/usr/bin/env python3\ndef go():\n    pass\n", "go").headings[0].title == "def go"
    assert parse_bytes(b"{\\rtf1 Nine euros.}", "a.doc").text.strip() == "Nine euros."


def test_attachments_inside_attachments_end() -> None:
    assert parse_bytes(b"text", "a.txt", 3).text == "text"
    with pytest.raises(UnreadableFile, match="more than 3 attachments inside one another"):
        parse_bytes(b"text", "a.txt", 4)


@given(st.binary(max_size=200), st.sampled_from(sorted(SUFFIXES)))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_a_reader_fail(data: bytes, suffix: str) -> None:
    for body in (data, b"From: a@b\n\n" + data, b"WEBVTT\n\n" + data, b"---\n" + data + b"\n---\n"):
        with contextlib.suppress(UnreadableFile):
            content = parse_bytes(body, f"a{suffix}")
            assert clean(content.text) == content.text
            assert all(0 <= mark.start < len(content.text) for mark in content.headings)
            assert list(content.headings) == sorted(content.headings, key=lambda mark: mark.start)


def test_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.txt") == "does not exist"


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    assert refusal(tmp_path / "folder.md") == "a folder, not a file"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert refusal(tmp_path / "a.txt") == "the file is empty"


@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".html"])
def test_only_white_space(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(" \n\t \n\n")
    assert refusal(path) == "holds no text"


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(200 * MB)
    assert refusal(path, 100 * MB) == "200.0 MB, over the limit of 100 MB"


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcde")
    assert parse_file(path, max_bytes=5)[0].text == "abcde"
    assert "over the limit" in refusal(path, 4)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert refusal(tmp_path / "pipe.txt") == "a named pipe, not a file"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no sockets in folders here")
def test_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.txt")
        assert refusal(Path("s.txt")) == "a socket, not a file"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices in folders here")
def test_a_link_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    assert refusal(tmp_path / "zero.txt") == "a device, not a file"


def test_a_link_that_leads_back_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    assert refusal(tmp_path / "loop.txt") == "a link that leads back to itself"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind this user")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")
    path.chmod(0)
    assert refusal(path) == "no permission to read it"


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\x02\x01\x01" + bytes(500),
        b"#!/bin/sh\nexec tail\n" * 20 + bytes(50_000),
        b"SQLite format 3\x00" + bytes(100),
    ],
)
def test_binary_data_under_a_text_suffix(tmp_path: Path, data: bytes) -> None:
    for suffix in (".txt", ".md", ".html"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(data)
        assert refusal(path) == "binary data, not text"


def test_a_pdf_named_txt_is_read_as_a_pdf(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(make_pdf([["The crane lifts nine tons."]]))
    content, _ = parse_file(path, max_bytes=MB)
    assert content.media_type == "application/pdf"
    assert content.text == "The crane lifts nine tons."


def test_a_word_document_named_md_is_read_as_one(tmp_path: Path) -> None:
    document = new_docx()
    document.add_paragraph("The crane lifts nine tons.")
    path = tmp_path / "report.md"
    path.write_bytes(docx_bytes(document))
    assert parse_file(path, max_bytes=MB)[0].text == "The crane lifts nine tons."


def test_any_other_archive_named_txt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"PK\x03\x04" + b"text " * 100)
    assert refusal(path) == "an archive: unpack it"


def test_reading_twice_gives_equal_content(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf([["One."], ["Two."]]))
    assert parse_file(path, max_bytes=MB) == parse_file(path, max_bytes=MB)


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.txt"))
    path.write_text("Some text.")
    assert parse_file(path, max_bytes=MB)[0].title == "caf"
