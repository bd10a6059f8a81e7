"""One folder with everything that can be wrong with a file: each costs itself and gets a verdict, the others go in."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.knowledge.check import check
from openbook.knowledge.discovery import display_path
from openbook.parsers.sandbox import Limits
from openbook.testing import HashEmbedder
from tests.conftest import ROOT
from tests.parsers.samples import body_xml, docx_of_xml, make_pdf

FIXTURES = ROOT / "tests" / "parsers" / "fixtures"
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
    "locked.pdf": ((FIXTURES / "encrypted-aes256.pdf").read_bytes(), "failed", "encrypted with a password"),
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
def bad(tmp_path: Path) -> Path:
    folder = tmp_path / "bad"
    folder.mkdir()
    for name, (data, _, _) in FILES.items():
        (folder / name).write_bytes(data)
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
def test_each_costs_itself_and_says_why(bad: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    report = sync(base, bad, embedder, options=RunOptions(Limits(timeout_s=30.0, memory_mb=1024)))
    verdicts = {verdict.path: verdict for verdict in report.verdicts}
    for name, (_, outcome, reason) in FILES.items():
        verdict = verdicts[display_path(bad / name)]
        assert (verdict.outcome, reason in verdict.reason) == (outcome, True), verdict
        assert outcome == "added" or verdict.reason
    assert "1000.0 MB, over the limit" in verdicts[display_path(bad / "gigabyte.txt")].reason
    for name in ("loop", "self.txt", "gone.txt", "pipe.txt"):
        assert verdicts[display_path(bad / name)].outcome in ("skipped", "failed")
    assert len(verdicts) == len(FILES) + 6
    assert sum(verdict.outcome == "added" for verdict in report.verdicts) == base.status().documents
    # Nothing that a terminal would act on, and no surrogate that JSON or a log could not hold.
    for path in verdicts:
        path.encode("utf-8")
        assert path.isprintable()
        assert "\u202e" not in path
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not Path("/tmp/escaped.txt").exists()
    assert sync(base, bad, embedder).version == report.version
    assert check(base).damaged == ()
    assert base.search(GOOD, embedder, 3)[1][0].passage.text.startswith(GOOD)


def test_files_that_change_and_vanish_while_they_are_read(tmp_path: Path, embedder: HashEmbedder) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(40):
        (docs / f"{i:02}.txt").write_text(f"Document {i} before.\n" * 200)
    stop = threading.Event()

    def change() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            path = docs / f"{turn % 40:02}.txt"
            if turn % 3:
                path.write_text(f"Document {turn % 40} in turn {turn}.\n" * 200)
            else:
                path.unlink(missing_ok=True)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
        for _ in range(4):
            sync(base, docs, embedder, allow_empty=True)
    finally:
        stop.set()
        thread.join()
    for i in range(40):
        (docs / f"{i:02}.txt").write_text(f"Document {i} after.\n")
    sync(base, docs, embedder)  # what was changed meanwhile, perhaps within one tick of the clock, is seen now
    assert [base.text(path) for path in sorted(base.documents())] == [f"Document {i} after.\n" for i in range(40)]
    assert check(base).damaged == ()


def test_a_file_with_a_date_of_long_ago_is_new_all_the_same(tmp_path: Path, embedder: HashEmbedder) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    (docs / "a.txt").write_text("First.")
    sync(base, docs, embedder)
    (docs / "a.txt").write_text("Other.")  # of the same size
    os.utime(docs / "a.txt", (1_000_000, 1_000_000))
    report = sync(base, docs, embedder)
    assert [verdict.outcome for verdict in report.verdicts] == ["updated"]


@pytest.mark.parametrize("damage", ["missing", "cut", "noise", "state", "foreign", "rot"])
def test_a_damaged_index_costs_time_and_no_answer(damage: str, tmp_path: Path, embedder: HashEmbedder) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for i in range(40):
        (docs / f"{i}.txt").write_text(f"Topic number {i * 17} is here.\n\nIt has a second paragraph, {i}.\n")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    sync(base, docs, embedder)
    before = [(hit.passage.id, hit.score) for hit in base.search("topic number 170", embedder, 10)[1]]
    base.close()
    index = tmp_path / "kb" / "index"
    files = [path for path in sorted(index.rglob("*")) if path.is_file()]
    for path in files:
        if (path.name == "state.json") != (damage == "state"):
            continue
        path.chmod(0o644)
        status = path.stat()
        if damage == "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif damage in ("noise", "state"):
            path.write_bytes(os.urandom(path.stat().st_size))
        elif damage == "rot":  # other bytes under the same date, as a failing disk gives them
            header, body = path.read_bytes()[:128], path.read_bytes()[128:]
            path.write_bytes(header + os.urandom(len(body)))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        elif damage == "foreign":
            path.write_text(json.dumps({"not": "ours"}))
        else:
            path.unlink()
    base = KnowledgeBase.open(tmp_path / "kb")
    found = [(hit.passage.id, hit.score) for hit in base.search("topic number 170", embedder, 10)[1]]
    assert found == before or damage == "rot"  # which only a check of every byte can see
    checked = check(base)
    assert [(hit.passage.id, hit.score) for hit in base.search("topic number 170", embedder, 10)[1]] == before
    assert checked.repaired or not checked.index_problems
    assert check(base).index_problems == ()
