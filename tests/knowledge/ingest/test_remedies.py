"""Every reason that something can be done about is told with what to do."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from openbook.core.config import DatabaseUrl
from openbook.core.errors import UnreadableFile
from openbook.core.records import sha256_hex
from openbook.knowledge.ingest.discovery import Rules
from openbook.knowledge.ingest.remedies import remedy
from openbook.parsers import parse_file
from tests.knowledge.conftest import Library
from tests.parsers.samples import ENCRYPTED_PDFS, make_pdf

REFUSED = {
    "scan.pdf": (make_pdf([None]), f"{sys.executable} -m pip install 'openbook[ocr]'"),
    "a b.png": (b"\x89PNG\r\n\x1a\n" + bytes(50), f"{sys.executable} -m pip install 'openbook[ocr]'"),
    "locked.pdf": (ENCRYPTED_PDFS[0], "openbook add COPY"),
    "large.txt": (b"x" * 2_000_000, "OPENBOOK_MAX_FILE_MB=1000 openbook add large.txt"),
    "a.zip": (b"PK\x03\x04", "openbook add COPY"),
    "a.mp3": (b"ID3\x03", "openbook add COPY"),
    "a.exe": (b"MZ\0\0", "openbook add COPY"),
    "a.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "openbook add COPY"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_file_has_a_command(name: str, tmp_path: Path) -> None:
    data, command = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableFile) as refused:
        parse_file(tmp_path / name, max_bytes=1_000_000)
    for reason in (str(refused.value), f"{refused.value}; the text read before stays"):
        assert command in remedy(reason, name)


def test_a_file_left_out_has_the_command_that_takes_it_in(library: Library) -> None:
    library.write(".openbookignore", "b.txt\n")
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        library.write(name, sha256_hex(name.encode()))
    library.write("d.txt.meta.toml", "broken = [")
    report = library.sync(Rules(exclude=("c.txt",)))
    reasons = {Path(each.path).name: each.reason for each in report.verdicts if each.reason}
    assert ".openbookignore" in remedy(reasons["b.txt"])
    assert "openbook sync FOLDER --reset" in remedy(reasons["c.txt"])
    assert remedy(reasons["d.txt"], "d.txt") == "Correct or delete the sidecar, then: openbook add d.txt."


def test_a_command_names_the_knowledge_base_and_no_password() -> None:
    url = DatabaseUrl("postgresql://ann:secret@host/books")
    said = remedy("no permission to read it", "a.txt", url)
    assert "openbook add --kb postgresql://ann@host/books a.txt" in said
    said = remedy("an archive: unpack it", "it's.zip", Path("my kb")).partition(": ")[2]
    assert shlex.split(said) == ["openbook", "add", "--kb", "my kb", "COPY."]
    said = remedy("took longer than 9 s", "it's.pdf", Path("my kb")).partition(": ")[2]
    assert shlex.split(said)[:6] == ["OPENBOOK_READ_TIMEOUT_S=600", "openbook", "add", "--kb", "my kb", "it's.pdf"]
    assert remedy("the file is empty") == remedy("") == ""
