from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import ConfigError, KnowledgeError, StorageError
from openbook.core.records import Vectors
from openbook.knowledge import Report, Scope, add, remove
from openbook.knowledge.check import check
from openbook.knowledge.docs_cache import for_documents
from openbook.knowledge.ingest.contents import FileBatch, Ingest, RunOptions
from openbook.knowledge.ingest.discovery import Rules, SyncedFolder, discover
from openbook.knowledge.ingest.long_run import in_slices
from openbook.knowledge.store.names import display_path
from openbook.knowledge.synced_folders import forget_synced_folder, synced_folders
from openbook.knowledge.updates import sync_folders
from openbook.knowledge.versions import restore
from openbook.parsers import ocr
from openbook.parsers.sandbox.protocol import Limits
from openbook.testing import HashEmbedder
from tests.knowledge.conftest import Library
from tests.parsers.samples import make_pdf
from tests.parsers.test_ocr import install, says

HR = RunOptions(labels=frozenset({"hr"}))
ALL = {"a.txt", "b.txt", "c.md"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
EMPTY_NOW = ("failed", "the file is empty; the text read before stays")


@pytest.fixture
def library(library: Library) -> Library:
    library.write("a.txt", "The first document is about ferries.")
    library.write("b.txt", "The second document is about harbours.")
    library.write("deep/c.md", "# Storms\n\nThe third document is about storms.")
    return library


def outcomes(library: Library, report: Report) -> dict[str, tuple[str, str]]:
    inside = f"{library.docs}/"
    return {v.path.removeprefix(inside): (v.outcome, v.reason.replace(inside, "")) for v in report.verdicts}


def synced(library: Library, *, rules: Rules = Rules(), **options: Any) -> dict[str, tuple[str, str]]:
    return outcomes(library, library.sync(rules, RunOptions(**options)))


def open_to_all(library: Library, as_of: int | None = None) -> set[str]:
    return set(library.names(Scope(as_of)))


def not_indexed(library: Library) -> set[str]:
    return {Path(verdict.path).name for verdict in library.base.status().not_indexed}


def test_sync_makes_the_knowledge_base_equal_to_the_folder(library: Library) -> None:
    told: list[tuple[str, int, int]] = []
    report = library.sync(options=RunOptions(progress=lambda *step: told.append(step)))
    assert (report.version, report.passages_embedded) == (1, 3)
    assert {("read", 3, 3), ("embed", 3, 3)} <= set(told)
    assert all(0 <= done <= total for _, done, total in told)
    changed = library.write("a.txt", "The first document is about bridges.")  # of the same size, and older, it seems
    os.utime(changed, (1_000_000, 1_000_000))
    (library.docs / "b.txt").unlink()
    library.write("new.txt", "A new one.")
    report = library.sync()
    assert outcomes(library, report) == {
        "a.txt": ("updated", ""),
        "b.txt": ("removed", ""),
        "deep/c.md": ("unchanged", ""),
        "new.txt": ("added", ""),
    }
    assert report.version == library.base.version == 2
    assert library.names() == ["a.txt", "c.md", "new.txt"]
    texts = " ".join(library.texts("harbours ferries bridges"))
    assert [word in texts for word in ("bridges", "harbours", "ferries")] == [True, False, False]
    assert library.base.text(library.path("a.txt"), version=1) == "The first document is about ferries."


def test_known_texts_are_not_embedded_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.sync()
    before = library.embedder.texts_embedded
    os.utime(library.docs / "a.txt")
    assert library.sync().version == 1  # nothing changed
    (library.docs / "a.txt").rename(library.docs / "deep" / "renamed.txt")
    renamed = synced(library)
    assert renamed["deep/renamed.txt"] == ("added", "renamed from a.txt")
    assert renamed["a.txt"] == ("removed", "renamed to deep/renamed.txt")
    remove(library.base, ["renamed.txt"])
    assert outcomes(library, library.add())["deep/renamed.txt"] == ("added", "")
    assert library.embedder.texts_embedded == before
    # Newer code reads a file again although its date did not change, and is old enough to be believed.
    for path in library.docs.rglob("*.*"):
        os.utime(path, (1_000_000, 1_000_000))
    for _ in range(2):
        assert {verdict.outcome for verdict in library.add().verdicts} == {"unchanged"}
    monkeypatch.setattr("openbook.knowledge.ingest.contents.PARSER_VERSION", "99")
    assert {verdict.outcome for verdict in library.add().verdicts} == {"updated"}


def test_one_text_is_stored_once_and_cited_by_every_path(library: Library) -> None:
    for name in ("a.txt", "copy.txt"):
        library.write(name, "The first document is about ferries.\n")
    library.write("d.txt", "The first document is about ferries.\r\n")  # other bytes, the same text
    assert synced(library)["copy.txt"] == ("duplicate", "a.txt")
    assert (library.base.status().documents, library.base.status().texts) == (5, 4)

    def cited() -> tuple[str, ...]:
        passage = library.hits("ferries")[0].passage
        return tuple(Path(path).name for path in (passage.document, *passage.also_in))

    assert cited() == ("a.txt", "copy.txt", "d.txt")
    (library.docs / "a.txt").unlink()
    library.sync()
    assert cited() == ("copy.txt", "d.txt")


def test_a_bad_file_has_a_verdict_until_it_is_good_or_gone(library: Library) -> None:
    library.write("empty.txt", "")
    library.write("image.xyz", bytes(range(256)) * 4)
    library.write("broken.pdf", "%PDF-1.7 nothing more")
    assert {path: why for path, why in synced(library).items() if why[0] != "added"} == {
        "empty.txt": ("failed", "the file is empty"),
        "broken.pdf": ("failed", "not a readable PDF"),
        "image.xyz": ("skipped", "binary data, not text"),
    }
    assert not_indexed(library) == {"empty.txt", "broken.pdf", "image.xyz"}
    library.write("empty.txt", "Not empty any more.")
    (library.docs / "image.xyz").unlink()
    library.write("a.txt", "")
    assert synced(library)["a.txt"] == EMPTY_NOW
    assert "a.txt" in library.names()
    assert not_indexed(library) == {"broken.pdf", "a.txt"}
    library.write("a.txt", "It is back.")
    assert synced(library)["a.txt"] == ("updated", "")

    def is_read(**options: Any) -> bool:
        told: list[tuple[str, int, int]] = []
        verdicts = synced(library, progress=lambda *step: told.append(step), **options)
        assert verdicts["broken.pdf"] == ("failed", "not a readable PDF")
        return ("read", 1, 1) in told

    assert not is_read()  # a failed file costs a stat until it changes, or a retry
    assert is_read(retry=True)
    assert is_read(limits=Limits(timeout_s=30.0))  # other limits, another try


def test_an_unchanged_file_that_the_machine_refused_is_tried_again(library: Library) -> None:
    found, base = list(discover([library.docs])), library.base
    (library.docs / "a.txt").unlink()
    taken = in_slices(base, lambda run: Ingest(run, base.sizing, RunOptions(), {}, []).add(FileBatch(found)), 1.0)
    (failed,) = [verdict for verdict in taken.verdicts.values() if verdict.outcome == "failed"]
    assert (Path(failed.path).name, failed.reason) == ("a.txt", "does not exist")
    assert failed.path not in taken.tried


@pytest.mark.skipif(os.name == "nt", reason="the fake program is a shell script")
def test_ocr_installed_later_reads_only_what_needs_it(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(library.docs)
    lines = ["A page that has a text of its own, long enough."]
    for name, data in (
        ("mixed.pdf", make_pdf([lines, None])),
        ("scan.pdf", make_pdf([None])),
        ("text.pdf", make_pdf([lines])),
    ):
        library.write(name, data)
    library.write("a.png", PNG)
    before = synced(library)
    assert before["a.png"] == ("skipped", "an image: needs OCR")
    assert before["scan.pdf"] == ("failed", "no text, only images: needs OCR")
    assert before["mixed.pdf"] == ("added", "pages with images only, not read: 1")
    assert {synced(library)[name][0] for name in ("mixed.pdf", "text.pdf")} == {"unchanged"}
    monkeypatch.setenv("PATH", "")
    named = RunOptions(ocr="eng")
    for _ in range(2):  # Tesseract is asked for by name, and is not there
        assert outcomes(library, library.add("a.png", options=named))["a.png"][0] == "failed"
    assert for_documents([library.docs / "a.png"], tmp_path / "cache", library.embedder, named)[0].documents() == []

    install(tmp_path, f"[ $1 = --list-langs ] && echo eng || {says([('nine', 90)])}", monkeypatch)
    assert len(for_documents([library.docs / "a.png"], tmp_path / "cache", library.embedder, named)[0].documents()) == 1
    monkeypatch.setattr(ocr, "best_engine", lambda: "tesseract eng of which eng")
    first = synced(library)
    assert first["a.png"] == ("added", "read by OCR, confidence 0.9")
    assert first["scan.pdf"] == ("added", "pages read by OCR: 1, confidence 0.9")
    assert first["mixed.pdf"] == ("updated", "pages read by OCR: 1, confidence 0.9")
    assert first["text.pdf"][0] == "unchanged"
    assert {outcome for outcome, _ in synced(library).values()} == {"unchanged"}
    library.write("copy.pdf", make_pdf([lines]))  # known bytes, read before there was OCR
    assert synced(library)["copy.pdf"] == ("duplicate", "text.pdf")

    install(tmp_path, "exit 0", monkeypatch)
    library.write("b.png", PNG + b"more")
    assert synced(library)["b.png"] == ("skipped", "an image without text that OCR can read")
    monkeypatch.setattr(ocr, "best_engine", lambda: "")
    library.write("a.png", PNG + b"other")
    assert synced(library)["a.png"] == ("skipped", "an image: needs OCR")
    assert "a.png" in library.names()  # the text read before stays


def test_rules_are_remembered_and_ignore_files_apply(library: Library) -> None:
    library.sync()
    verdicts = synced(library, rules=Rules(include=("*.txt",), exclude=("b.*",)))
    assert verdicts["b.txt"] == ("removed", "left out by an exclude glob")
    assert verdicts["deep/c.md"] == ("removed", "left out by the include globs")
    assert library.names() == ["a.txt"]
    assert synced_folders(library.base) == [SyncedFolder(library.docs, Rules(("*.txt",), ("b.*",)))]
    with pytest.raises(ConfigError, match="glob"):
        synced(library, rules=Rules(exclude=("!",)))
    library.write(".openbookignore", "# drafts\n*.md\nb.txt\n")
    library.write("deep/.openbookignore", "!c.md\n")
    assert synced(library)["b.txt"] == ("skipped", "left out by .openbookignore")
    assert library.names() == ["a.txt", "c.md"]


def test_an_empty_folder_does_not_empty_the_knowledge_base(library: Library) -> None:
    other = library.write("../docs-and-more/z.txt", "From elsewhere.")  # the folder's name begins like the other's
    add(library.base, [other], library.embedder)
    library.sync()
    shutil.rmtree(library.docs)
    library.docs.mkdir()
    with pytest.raises(KnowledgeError, match="3 documents came from it"):
        library.sync()
    assert len(library.base.documents()) == 4
    remove(library.base, [str(library.docs)])
    assert library.names() == ["z.txt"]
    library.docs.rmdir()
    with pytest.raises(KnowledgeError, match="No such file or folder"):
        library.sync()
    with pytest.raises(KnowledgeError, match="No such file or folder"):
        library.add("aa.txt")


def test_a_removed_document_is_gone_for_open_readers_too(library: Library) -> None:
    library.sync()
    reader = library.reopened()
    assert "ferries" in reader.search("ferries", library.embedder)[1][0].passage.text
    assert remove(library.base, ["a.txt"]).version == 2
    assert not any("ferries" in hit.passage.text for hit in reader.search("ferries", library.embedder)[1])
    remove(library.base, [library.path("deep")])
    assert library.names() == ["b.txt"]
    with pytest.raises(KnowledgeError, match="No document"):
        remove(library.base, ["a.txt"])


def test_a_version_stands_if_its_indexes_cannot_be_written(library: Library) -> None:
    library.sync()
    shutil.rmtree(library.base.indexes.folder / "index")
    (library.base.indexes.folder / "index").write_text("in the way")
    library.write("lamp.txt", "The lamp is green.")
    with pytest.raises(StorageError, match=r"indexes cannot be written to .*index.*The new version stands"):
        library.sync()
    assert library.base.version == 2
    assert library.hits("lamp", limit=1)[0].passage.document == library.path("lamp.txt")


def test_a_folder_that_cannot_be_read_keeps_its_documents(library: Library) -> None:
    library.sync()
    os.mkfifo(library.docs / "deep" / ".openbookignore")
    assert synced(library)["deep"][0] == "failed"
    assert "c.md" in library.names()
    os.mkfifo(library.docs / ".openbookignore")
    told = r"docs cannot be read: its \.openbookignore cannot be read: a named pipe"
    with pytest.raises(KnowledgeError, match=told):
        library.sync()
    remove(library.base, [str(library.docs)])
    with pytest.raises(KnowledgeError, match=told):  # without documents too
        library.sync()


def test_a_changed_sidecar_updates_its_document_and_a_link_is_named(library: Library) -> None:
    for target in ("nowhere", "b.txt"):
        (library.docs / "a.txt.meta.toml").unlink(missing_ok=True)
        (library.docs / "a.txt.meta.toml").symlink_to(target)
        outcome, reason = synced(library)["a.txt"]
        assert (outcome, "sidecar a.txt.meta.toml" in reason, "a link" in reason) == ("failed", True, True), reason
    (library.docs / "a.txt.meta.toml").unlink()
    for status in ("final", "draft"):
        library.write("a.txt.meta.toml", f'status = "{status}"\n')
        assert synced(library)["a.txt.meta.toml"][0] == "skipped"
        assert library.names(Scope(where=f"status = '{status}'")) == ["a.txt"]
    assert library.names(Scope(where="status = 'final'")) == []


def test_labels_of_a_sync_apply_to_older_versions_and_unreadable_files(library: Library) -> None:
    library.sync()
    library.write("a.txt", "")
    assert synced(library, labels=HR.labels)["a.txt"] == EMPTY_NOW
    assert open_to_all(library) == open_to_all(library, as_of=1) == set()
    assert library.sync(options=HR).version == 2
    library.add("a.txt", options=RunOptions(labels=frozenset({"board"})))
    assert library.names(Scope(labels=HR.labels)) == ["b.txt", "c.md"]
    restore(library.base, 1)
    assert open_to_all(library) == set()
    assert library.base.text(library.path("a.txt")) == "The first document is about ferries."


def test_several_folders_make_one_version_without_the_missing_ones(library: Library) -> None:
    base, docs = library.base, library.docs
    odd = docs.parent / "odd\\\u00a0\n\udcff"  # the name is shown in another way than it is written
    odd.mkdir()
    (odd / "x.txt").write_text("From an oddly named folder.")
    wanted = [SyncedFolder(docs), SyncedFolder(odd, labels=HR.labels)]
    assert sync_folders(base, wanted, library.embedder).version == 1
    assert synced_folders(base) == sorted(wanted, key=lambda each: display_path(each.folder))
    assert open_to_all(library) == ALL
    library.write("a.txt", "Changed.")
    shutil.rmtree(odd)
    report = sync_folders(base, synced_folders(base), library.embedder)
    assert report.version == 2
    assert [(v.path, v.outcome) for v in report.verdicts if v.outcome in ("failed", "updated")] == [
        (library.path("a.txt"), "updated"), (display_path(odd), "failed")
    ]  # fmt: skip
    assert len(base.documents(Scope(labels=HR.labels))) == 4
    forget_synced_folder(base, odd)
    assert synced_folders(base) == [SyncedFolder(docs)]
    with pytest.raises(KnowledgeError, match="was not synced"):
        forget_synced_folder(base, odd)


def test_an_inner_folder_keeps_its_rules_and_has_both_labels(library: Library) -> None:
    def labels() -> dict[str, list[str]]:
        rows = library.base.connection.execute("SELECT path, labels FROM documents WHERE removed_in IS NULL")
        return {Path(path).name: json.loads(text) for path, text in rows}

    library.write("deep/x.txt", "Left out by the inner folder.")
    inner = SyncedFolder(library.docs / "deep", Rules(exclude=("x.txt",)), frozenset({"board"}))
    sync_folders(library.base, [inner], library.embedder)
    library.sync(options=HR)
    assert labels() == {"a.txt": ["hr"], "b.txt": ["hr"], "c.md": ["board", "hr"]}
    library.write("deep/c.md", "# Changed")
    sync_folders(library.base, [inner], library.embedder)  # alone, it still lies in the other
    assert labels() == {"a.txt": ["hr"], "b.txt": ["hr"], "c.md": ["board", "hr"]}
    library.sync(Rules(exclude=("deep/",)))
    assert labels() == {"a.txt": [], "b.txt": [], "c.md": ["board"]}
    shutil.rmtree(library.docs / "deep")
    library.sync()
    assert library.names() == ["a.txt", "b.txt"]


class Recorded(HashEmbedder):
    texts: list[str]

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        self.texts = [*getattr(self, "texts", ()), *texts]
        return super().embed_passages(texts)


HEADER = "Harbour | adult fare | child fare\n"


def test_each_part_of_a_table_is_embedded_with_its_header(tmp_path: Path) -> None:
    embedder, rows = Recorded(), [f"Port {number} | {number}.50 | {number}.20" for number in range(60)]
    library = Library(tmp_path, embedder)
    table = "All fares\n=========\n\n" + HEADER + "\n".join(rows) + "\n\nDogs travel free.\n"
    library.write("fares.txt", table)
    library.add()
    with_rows = [text for text in embedder.texts if " | " in text]
    assert len(with_rows) > 2
    assert all(text.startswith(f"All fares\n{HEADER}Port ") for text in with_rows[1:])
    hits = library.hits("child fare")
    assert {hit.bm25_rank is not None for hit in hits if "Port" in hit.passage.text} == {True}
    assert check(library.base).damaged == ()
