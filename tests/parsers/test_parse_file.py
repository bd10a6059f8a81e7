from __future__ import annotations

import errno
import hashlib
import os
import pkgutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers import PARSER_VERSION, PARSERS, SUFFIXES, parse_bytes, parse_file
from openbook.parsers.files import unsupported_reason

from .samples import body_xml, docx_of_xml, make_pdf, refusal

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


def test_threads_do_not_disturb_each_other() -> None:
    data = make_pdf([[f"Page {i}."] for i in range(20)])
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: parse_bytes(data, "a.pdf").text, range(16)))) == 1


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


def test_what_the_system_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.txt").write_text("x")
    for code, reason in (
        (errno.EACCES, "no permission to read it"),
        (errno.EIO, "the disk could not read it"),
        (errno.EMFILE, "too many open files"),
        (errno.ENOENT, "does not exist"),
    ):

        def fail(*_: object, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            assert refusal_of(tmp_path / "secret.txt") == reason
