"""One folder with everything that can be wrong with a file: each costs itself and gets a verdict, the others go in."""

from __future__ import annotations

import io
import os
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from openbook.knowledge import RunOptions
from openbook.knowledge.check import check
from openbook.knowledge.index import segment_files
from openbook.knowledge.store.names import display_path
from openbook.parsers.sandbox.protocol import Limits
from tests.knowledge.conftest import Library
from tests.parsers.samples import ENCRYPTED_PDFS, body_xml, docx_of_xml, make_pdf

GOOD = "The ferry leaves at nine."
LAUGHS = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol"}">' for i in range(10))


@pytest.fixture(autouse=True)
def parsers() -> None:
    """In processes of their own, as the program does."""


def escaping_docx() -> bytes:
    buffer = io.BytesIO(docx_of_xml(body_xml(f"<w:p><w:r><w:t>{GOOD}</w:t></w:r></w:p>")))
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in ("../../escaped.txt", "/tmp/escaped.txt", "word/../../escaped.txt"):
            archive.writestr(name, "This must not be written anywhere.")
    return buffer.getvalue()


# name -> (bytes, outcome, part of the reason)
FILES: dict[str, tuple[bytes, str, str]] = {
    "good.txt": (GOOD.encode(), "added", ""),
    "locked.pdf": (ENCRYPTED_PDFS[1], "failed", "encrypted with a password"),
    "cut.docx": (docx_of_xml(body_xml("<w:p/>"))[:300], "failed", "not a Word document"),
    "zero.pdf": (b"", "failed", "the file is empty"),
    "zero.txt": (b"", "failed", "the file is empty"),
    "blank.md": (b" \n\n\t\n", "failed", "holds no text"),
    "deep.json": (b"[" * 200_000 + b"]" * 200_000, "added", ""),
    "deep.html": (b"<div>" * 100_000 + GOOD.encode(), "added", ""),
    "bomb.docx": (docx_of_xml(body_xml(""), more={"word/media/a": bytes(30_000_000)}), "failed", "like a zip bomb"),
    "laughs.docx": (docx_of_xml(f"<!DOCTYPE w [{LAUGHS}]>{body_xml('<w:p/>')}"), "failed", "XML entities"),
    "laughs.xml": (f"<!DOCTYPE w [{LAUGHS}]><w>&e9;</w>".encode(), "failed", ""),
    "escaping.docx": (escaping_docx(), "added", ""),
    "pages.pdf": (make_pdf([[f"Page {i} of many."] for i in range(2_000)]), "added", ""),
    "broken-xref.pdf": (make_pdf([[GOOD]]).replace(b"xref", b"xxxx"), "added", ""),
    "garbage.pdf": (b"%PDF-1.7\n" + os.urandom(5_000), "failed", "not a readable PDF"),
    "is-a-pdf.txt": (make_pdf([["A document under the wrong name."]]), "added", ""),
    "is-text.pdf": (b"Only text, no pages.", "failed", "not a readable PDF"),
    "is-noise.csv": (bytes(range(256)) * 40, "failed", ""),
    "odd\nname\t\x1b[31m.txt": (b"A name with control characters.", "added", ""),
    "gnp\u202etxt.exe.md": (b"A name that reads backwards.", "added", ""),
    "latin1.txt": ("Die Fähre fährt um neun; über Öland nach Ærø.".encode("latin-1"), "added", ""),
    "utf16.txt": (GOOD.replace("nine", "ten").encode("utf-16"), "added", ""),
    "nul.txt": (b"A text with a \x00 in it.", "added", ""),
}


@pytest.fixture
def bad(library: Library) -> Path:
    folder = library.docs
    for name, (data, _, _) in FILES.items():
        library.write(name, data)
    with (folder / "gigabyte.txt").open("wb") as file:
        file.truncate(1_000_000_000)
    with open(os.fsencode(folder) + b"/n\xe4me-\xff.txt", "wb") as file:  # noqa: PTH123  a name that is not UTF-8
        file.write(b"A name in another encoding.")
    (folder / "loop").symlink_to(folder)
    (folder / "self.txt").symlink_to(folder / "self.txt")
    (folder / "gone.txt").symlink_to(folder / "nowhere.txt")
    os.mkfifo(folder / "pipe.txt")
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="these names and files need Linux")
def test_each_costs_itself_and_says_why(bad: Path, tmp_path: Path, library: Library) -> None:
    report = library.sync(options=RunOptions(Limits(timeout_s=600.0, memory_mb=1024)))
    verdicts = {verdict.path: verdict for verdict in report.verdicts}
    for name, (_, outcome, reason) in FILES.items():
        verdict = verdicts[display_path(bad / name)]
        assert (verdict.outcome, reason in verdict.reason) == (outcome, True), verdict
        assert outcome == "added" or verdict.reason
    assert "1000.0 MB, over the limit" in verdicts[display_path(bad / "gigabyte.txt")].reason
    for name in ("loop", "self.txt", "gone.txt", "pipe.txt"):
        assert verdicts[display_path(bad / name)].outcome in ("skipped", "failed")
    assert len(verdicts) == len(FILES) + 6
    assert sum(verdict.outcome == "added" for verdict in report.verdicts) == library.base.status().documents
    # Nothing that a terminal would act on, and no surrogate that JSON or a log could not hold.
    for path in verdicts:
        path.encode("utf-8")
        assert path.isprintable()
        assert "\u202e" not in path
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not Path("/tmp/escaped.txt").exists()
    assert library.sync().version == report.version
    assert check(library.base).damaged == ()
    assert library.hits(GOOD)[0].passage.text.startswith(GOOD)


def test_files_that_change_and_vanish_while_they_are_read(library: Library) -> None:
    stop = threading.Event()
    names = [f"{i:02}.txt" for i in range(40)]
    for name in names:
        library.write(name, f"Document {name} before.\n" * 200)

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            path = library.docs / names[turn % 40]
            if turn % 3:
                path.write_text(f"Document {path.name} in turn {turn}.\n" * 200)
            else:
                path.unlink(missing_ok=True)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(4):
            library.sync()
    finally:
        stop.set()
        thread.join()
    for name in names:
        library.write(name, f"Document {name} after.\n")
    library.sync()  # what was changed meanwhile, perhaps within one tick of the clock, is seen now
    assert [library.base.text(library.path(name)) for name in names] == [f"Document {name} after.\n" for name in names]
    assert len(library.base.documents()) == 40
    assert check(library.base).damaged == ()


@pytest.mark.parametrize(("array", "is_noticed"), [("ordinals", True), ("terms", False)])
def test_an_index_that_rots_under_its_old_date_costs_no_answer(
    library: Library, monkeypatch: pytest.MonkeyPatch, array: str, is_noticed: bool
) -> None:
    monkeypatch.setattr(segment_files, "_READ_UP_TO", 0)  # as a large one: its bytes are not read when it is opened
    for i in range(40):
        library.write(f"{i}.txt", f"Topic number {i * 17} is here.\n\nIt has a second paragraph, {i}.\n")
    library.sync()
    before = library.hits("topic number 170")
    (path,) = (library.base.indexes.folder / "index").rglob(f"{array}.npy")
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:128] + b"\xff" * (len(data) - 128))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    library.base = library.reopened()
    assert (library.hits("topic number 170") == before) is is_noticed  # else only a check of every byte can see it
    assert check(library.base).repaired
    assert library.hits("topic number 170") == before
    assert check(library.base).index_problems == ()
