from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from openbook.errors import ConfigError, KnowledgeError, QuestionError
from openbook.knowledge import KnowledgeBase, Report, Rules, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.check import check
from openbook.knowledge.discovery import SyncedFolder, discover, display_path
from openbook.knowledge.docs_cache import for_documents
from openbook.knowledge.embeddings import embedding_key, reembed
from openbook.knowledge.ingest import FileBatch, Ingest
from openbook.knowledge.scope import checked_labels
from openbook.knowledge.sliced_run import in_slices
from openbook.knowledge.updates import folder_changes, forget_source, resolve, sources, sync_folders
from openbook.knowledge.versions import Retention, prune, restore
from openbook.parsers.sandbox import Limits
from openbook.records import Vectors
from openbook.testing import HashEmbedder
from tests.knowledge.small_bases import DIMENSIONS, reseal

HR = RunOptions(labels=frozenset({"hr"}))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("The first document is about ferries.")
    (folder / "b.txt").write_text("The second document is about harbours.")
    (folder / "deep" / "c.md").write_text("# Storms\n\nThe third document is about storms.")
    return folder


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    return KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)


def outcomes(report: Report, docs: Path) -> dict[str, tuple[str, str]]:
    inside = f"{docs}/"
    return {v.path.removeprefix(inside): (v.outcome, v.reason.replace(inside, "")) for v in report.verdicts}


def names(base: KnowledgeBase) -> list[str]:
    return [Path(path).name for path in base.documents(Scope(labels=frozenset({"hr", "board"})))]


def open_to_all(base: KnowledgeBase, as_of: int | None = None) -> set[str]:
    return {Path(path).name for path in base.documents(Scope(as_of=as_of))}


def not_in(base: KnowledgeBase) -> set[str]:
    return {Path(verdict.path).name for verdict in base.status().not_in}


# --- what changes -----------------------------------------------------------------------------------------------------


def test_sync_makes_the_knowledge_base_equal_to_the_folder(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    told: list[tuple[str, int, int]] = []
    report = sync(base, docs, embedder, options=RunOptions(progress=lambda *step: told.append(step)))
    assert (report.version, report.passages_embedded) == (1, 3)
    assert {("read", 3, 3), ("embed", 3, 3)} <= set(told)
    assert all(0 <= done <= total for _, done, total in told)
    (docs / "a.txt").write_text("Now it is about lighthouses.")
    (docs / "b.txt").unlink()
    (docs / "new.txt").write_text("A new one.")
    report = sync(base, docs, embedder)
    assert outcomes(report, docs) == {
        "a.txt": ("updated", ""),
        "b.txt": ("removed", ""),
        "deep/c.md": ("unchanged", ""),
        "new.txt": ("added", ""),
    }
    assert report.version == base.version == 2
    assert names(base) == ["a.txt", "c.md", "new.txt"]
    texts = " ".join(h.passage.text for h in base.search("harbours ferries lighthouses", embedder)[1])
    assert [word in texts for word in ("lighthouses", "harbours", "ferries")] == [True, False, False]
    assert base.text(str(docs / "a.txt"), version=1) == "The first document is about ferries."


def test_what_is_known_is_not_embedded_again(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    before = embedder.texts_embedded
    os.utime(docs / "a.txt")
    assert sync(base, docs, embedder).version == 1  # nothing changed
    (docs / "a.txt").rename(docs / "deep" / "renamed.txt")
    renamed = outcomes(sync(base, docs, embedder), docs)
    assert renamed["deep/renamed.txt"] == ("added", "renamed from a.txt")
    assert renamed["a.txt"] == ("removed", "renamed to deep/renamed.txt")
    remove(base, ["renamed.txt"])
    assert outcomes(add(base, [docs], embedder), docs)["deep/renamed.txt"] == ("added", "")
    assert embedder.texts_embedded == before


def test_the_same_text_is_stored_once_and_cited_by_every_path(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    for name in ("a.txt", "copy.txt"):
        (docs / name).write_bytes(b"The first document is about ferries.\n")
    (docs / "d.txt").write_bytes(b"The first document is about ferries.\r\n")  # other bytes, the same text
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["copy.txt"] == ("duplicate", "a.txt")
    assert (base.status().documents, base.status().texts) == (5, 4)

    def cited() -> tuple[str, ...]:
        passage = base.search("ferries", embedder)[1][0].passage
        return tuple(Path(path).name for path in (passage.document, *passage.also_in))

    assert cited() == ("a.txt", "copy.txt", "d.txt")
    (docs / "a.txt").unlink()
    sync(base, docs, embedder)
    assert cited() == ("copy.txt", "d.txt")


def test_a_texts_title_is_its_own_or_that_of_the_file_it_is_in(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    add(base, [docs], embedder)
    (docs / "a.txt").rename(docs / "beta.txt")
    (docs / "a.txt").write_text("Another one.")
    add(base, [docs], embedder)
    assert [p.title for p in base.passages(str(docs / "beta.txt"))] == ["beta"]


def test_newer_code_reads_a_file_again_although_its_date_did_not_change(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(base, [docs], embedder)
    monkeypatch.setattr("openbook.knowledge.ingest.PARSER_VERSION", "99")
    assert {verdict.outcome for verdict in add(base, [docs], embedder).verdicts} == {"updated"}


def test_an_interrupted_run_commits_nothing_and_the_next_goes_on(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    class StopsAfterTwoBatches(HashEmbedder):
        batches = 2

        def embed_passages(self, texts: Sequence[str]) -> Vectors:
            if self.batches == 0:
                raise KeyboardInterrupt
            self.batches -= 1
            return super().embed_passages(texts)

    (docs / "many.txt").write_text("\n\n".join(f"Part {i}. " + f"word{i} " * 60 for i in range(200)))
    with pytest.raises(KeyboardInterrupt):
        add(base, [docs], StopsAfterTwoBatches())
    assert (base.version, base.documents(), base.search("part", embedder)) == (0, [], (0, []))
    report = add(base, [docs], embedder)
    assert report.passages_embedded == embedder.texts_embedded == base.status().passages - 2 * 64
    assert len(base.documents()) == 4


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_a_bad_file_gets_a_verdict_until_it_is_good_or_gone(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "empty.txt").write_text("")
    (docs / "image.xyz").write_bytes(bytes(range(256)) * 4)
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nothing more")
    report = sync(base, docs, embedder)
    assert {path: why for path, why in outcomes(report, docs).items() if why[0] != "added"} == {
        "empty.txt": ("failed", "the file is empty"),
        "broken.pdf": ("failed", "not a readable PDF"),
        "image.xyz": ("skipped", "binary data, not text"),
    }
    assert not_in(base) == {"empty.txt", "broken.pdf", "image.xyz"}
    (docs / "empty.txt").write_text("Not empty any more.")
    (docs / "image.xyz").unlink()
    (docs / "a.txt").write_bytes(b"")
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["a.txt"] == ("failed", "the file is empty; the text read before stays")
    assert "a.txt" in names(base)
    assert not_in(base) == {"broken.pdf", "a.txt"}
    (docs / "a.txt").write_text("It is back.")
    assert outcomes(sync(base, docs, embedder), docs)["a.txt"] == ("updated", "")


def test_a_failed_file_costs_a_stat_until_it_changes_or_a_retry(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nothing more")
    sync(base, docs, embedder)

    def is_read(**options: object) -> bool:
        told: list[tuple[str, int, int]] = []
        run = RunOptions(progress=lambda *step: told.append(step), **options)  # type: ignore[arg-type]
        report = sync(base, docs, embedder, options=run)
        assert outcomes(report, docs)["broken.pdf"] == ("failed", "not a readable PDF")
        return ("read", 1, 1) in told

    assert not is_read()
    assert is_read(retry=True)
    assert is_read(limits=Limits(timeout_s=30.0))  # other limits, another try


def test_what_the_machine_refused_is_tried_again_though_the_file_is_unchanged(base: KnowledgeBase, docs: Path) -> None:
    found = list(discover([docs]))
    (docs / "a.txt").unlink()
    taken = in_slices(base, lambda run: Ingest(run, base.sizing, RunOptions(), {}).add(FileBatch(found)), 1.0)
    failed = [verdict for verdict in taken.verdicts.values() if verdict.outcome == "failed"]
    assert [(Path(v.path).name, v.reason) for v in failed] == [("a.txt", "does not exist")]
    assert failed[0].path not in taken.tried


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_what_cannot_be_looked_into_is_not_gone(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    (docs / "deep").chmod(0)
    try:
        report = sync(base, docs, embedder)
    finally:
        (docs / "deep").chmod(0o755)
    assert outcomes(report, docs)["deep"][0] == "failed"
    assert "c.md" in names(base)


@pytest.mark.skipif(os.name == "nt", reason="the fake program is a shell script")
def test_what_failed_without_tesseract_is_tried_again_when_it_is_there(
    base: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, path = tmp_path / "scans", os.environ["PATH"]
    scans.mkdir()
    (scans / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    options, cache = RunOptions(ocr="eng"), tmp_path / "cache"
    monkeypatch.setenv("PATH", "")
    for _ in range(2):
        assert outcomes(add(base, [scans], embedder, options), scans)["a.png"][0] == "failed"
    assert for_documents([scans], cache, embedder, options)[0].documents() == []
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\n[ $1 = --list-langs ] && echo eng || echo The safe opens at nine.\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path}")
    assert outcomes(add(base, [scans], embedder, options), scans)["a.png"] == ("added", "")
    assert len(for_documents([scans], cache, embedder, options)[0].documents()) == 1
    (scans / "note.txt").write_text("A note.")
    assert outcomes(sync(base, scans, embedder), scans)["a.png"] == ("skipped", "an image: needs OCR")
    assert names(base) == ["a.png", "note.txt"]  # what was read with OCR stays without it


# --- which files ------------------------------------------------------------------------------------------------------


def test_rules_and_ignore_files_decide_what_is_in_and_are_remembered(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    report = sync(base, docs, embedder, Rules(include=("*.txt",), exclude=("b.*",)))
    assert outcomes(report, docs)["b.txt"] == ("removed", "left out by --exclude")
    assert outcomes(report, docs)["deep/c.md"] == ("removed", "left out by --include")
    assert names(base) == ["a.txt"]
    assert sources(base) == [SyncedFolder(docs, Rules(("*.txt",), ("b.*",)))]
    with pytest.raises(ConfigError, match="glob"):
        sync(base, docs, embedder, Rules(exclude=("!",)))
    (docs / ".openbookignore").write_text("# drafts\n*.md\nb.txt\n")
    (docs / "deep" / ".openbookignore").write_text("!c.md\n")
    assert outcomes(sync(base, docs, embedder), docs)["b.txt"] == ("skipped", "left out by .openbookignore")
    assert names(base) == ["a.txt", "c.md"]


def test_an_empty_folder_does_not_empty_the_knowledge_base(
    base: KnowledgeBase, docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    other = tmp_path / "docs-and-more"  # its name begins like the other's
    other.mkdir()
    (other / "z.txt").write_text("From elsewhere.")
    add(base, [other], embedder)
    sync(base, docs, embedder)
    for path in sorted(docs.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(KnowledgeError, match="3 documents came from it"):
        sync(base, docs, embedder)
    assert len(base.documents()) == 4
    sync(base, docs, embedder, allow_empty=True)
    assert names(base) == ["z.txt"]
    docs.rmdir()
    with pytest.raises(KnowledgeError, match="No such file or folder"):
        sync(base, docs, embedder)
    with pytest.raises(KnowledgeError, match="No such file or folder"):
        add(base, [docs / "aa.txt"], embedder)


def test_removed_is_gone_at_the_next_request_and_kept_in_older_versions(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    reader = KnowledgeBase.open(base.folder)
    assert "ferries" in reader.search("ferries", embedder)[1][0].passage.text
    assert remove(base, ["a.txt"]).version == 2
    assert not any("ferries" in h.passage.text for h in reader.search("ferries", embedder)[1])
    version, hits = reader.search("ferries", embedder, scope=Scope(as_of=1))
    assert (version, "ferries" in hits[0].passage.text) == (1, True)
    remove(base, [str(docs / "deep")])
    assert names(base) == ["b.txt"]
    for change in (remove, purge):
        for name in ("", " ", "\n"):
            with pytest.raises(KnowledgeError, match="empty"):
                change(base, [name])
    with pytest.raises(KnowledgeError, match="No document"):
        remove(base, ["a.txt"])


def test_a_document_is_named_by_path_folder_or_the_end_of_one_path() -> None:
    paths = ["/x/a.txt", "/x/deep/a.txt", "/x/deep/b.txt"]
    assert resolve(paths, "/x/a.txt") == ["/x/a.txt"]
    assert resolve(paths, "/x/deep/") == ["/x/deep/a.txt", "/x/deep/b.txt"]
    assert resolve(paths, "b.txt") == ["/x/deep/b.txt"]
    with pytest.raises(KnowledgeError, match="2 documents end in"):
        resolve(paths, "a.txt")
    with pytest.raises(KnowledgeError, match=r"Did you mean 'b\.txt'"):
        resolve(paths, "bb.txt")


def test_watching_tells_of_changes_once_they_are_over(docs: Path) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, (docs / "new.txt").write_text, ["new"])
    limit = threading.Timer(30.0, stop.set)
    limit.start()
    try:
        told = folder_changes([docs], quiet_ms=50, stop=stop)
        assert next(told) == 0  # watching has begun
        timer.start()
        assert next(count for count in told if count) >= 1
    finally:
        stop.set()
        limit.cancel()
        timer.join()


def test_metadata_of_a_sidecar_filters(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / "a.txt.meta.toml").write_text('status = "final"\ndate = 2026-03-01\n')
    assert outcomes(sync(base, docs, embedder), docs)["a.txt.meta.toml"][0] == "skipped"

    def found(where: str) -> set[str]:
        return {Path(h.passage.document).name for h in base.search("document", embedder, scope=Scope(where=where))[1]}

    assert found("status = 'final' and date >= 2026-02-01") == {"a.txt"}
    assert found("type = 'md'") == {"c.md"}
    assert found("not exists status") == {"b.txt", "c.md"}
    (docs / "a.txt.meta.toml").write_text('status = "draft"\n')
    assert outcomes(sync(base, docs, embedder), docs)["a.txt"] == ("updated", "")
    assert (found("status = 'final'"), found("status = 'draft'")) == (set(), {"a.txt"})
    with pytest.raises(QuestionError, match="--where"):
        found("status = ")


# --- access labels (see also tests/properties/test_visibility_laws.py) ------------------------------------------------


def test_labels_hide_documents_from_who_does_not_hold_all_of_them(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, HR)
    (docs / "b.txt.meta.json").write_text('{"access_labels": ["hr", "board"]}')
    add(base, [docs / "b.txt"], embedder)

    def seen(*labels: str) -> set[str]:
        scope = Scope(labels=checked_labels(labels))
        hits = {Path(h.passage.document).name for h in base.search("document", embedder, scope=scope)[1]}
        assert {Path(p).name for p in base.documents(scope)} == hits
        return hits - {"c.md"}

    assert [seen(), seen("hr"), seen("board")] == [set(), {"a.txt"}, set()]
    assert seen("hr", "board", "other") == {"a.txt", "b.txt"}
    add(base, [docs / "a.txt"], embedder)  # adding it again does not open it
    assert seen() == set()
    with pytest.raises(QuestionError, match="not an access label"):
        seen("HR or 1=1")


def test_labels_of_a_sync_close_what_was_there_before_and_what_cannot_be_read_now(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    (docs / "a.txt").write_bytes(b"")
    report = sync(base, docs, embedder, options=HR)
    assert outcomes(report, docs)["a.txt"] == ("failed", "the file is empty; the text read before stays")
    assert open_to_all(base) == open_to_all(base, as_of=1) == set()
    assert sync(base, docs, embedder, options=HR).version == 2
    add(base, [docs / "a.txt"], embedder, RunOptions(labels=frozenset({"board"})))
    assert base.documents(Scope(labels=frozenset({"hr"}))) == [str(docs / "b.txt"), str(docs / "deep/c.md")]
    restore(base, 1)
    assert open_to_all(base) == set()
    assert base.text(str(docs / "a.txt")) == "The first document is about ferries."


def test_a_label_given_by_name_stays_until_it_is_taken_away_or_purged(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    everybody = {"a.txt", "b.txt", "c.md"}
    sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, HR)
    remove(base, ["a.txt"])
    prune(base, Retention(versions=1))
    (docs / "a.txt").write_text("The same name with another text.")
    sync(base, docs, embedder)
    assert open_to_all(base) == everybody - {"a.txt"}
    add(base, [docs / "a.txt"], embedder, RunOptions(unlabel=frozenset({"hr"})))
    for _ in range(2):
        assert open_to_all(base) == everybody
        sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, HR)
    remove(base, ["a.txt"])
    prune(base, Retention(versions=1))
    assert purge(base, ["a.txt"]).labels == ("hr",)  # nothing but its name and its labels was left
    sync(base, docs, embedder)
    assert open_to_all(base) == everybody


def test_a_labelled_document_that_goes_while_another_comes_is_named(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, HR)
    (docs / "a.txt").rename(docs / "z.txt")
    assert sync(base, docs, embedder).left_labelled == ()  # renamed: the labels followed
    (docs / "z.txt").rename(docs / "y.txt")
    (docs / "y.txt").write_text("The same document, renamed and edited between two runs.")
    assert sync(base, docs, embedder).left_labelled == (str(docs / "z.txt"),)


# --- several folders --------------------------------------------------------------------------------------------------


def test_several_folders_make_one_version_and_one_that_is_gone_costs_the_others_nothing(
    base: KnowledgeBase, docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    odd = tmp_path / "odd\\\u00a0\n\udcff"  # the name is shown in another way than it is written
    odd.mkdir()
    (odd / "x.txt").write_text("From an oddly named folder.")
    wanted = [SyncedFolder(docs), SyncedFolder(odd, labels=frozenset({"hr"}))]
    assert sync_folders(base, wanted, embedder).version == 1
    assert sources(base) == sorted(wanted, key=lambda each: display_path(each.folder))
    assert open_to_all(base) == {"a.txt", "b.txt", "c.md"}
    (docs / "a.txt").write_text("Changed.")
    (odd / "x.txt").unlink()
    odd.rmdir()
    report = sync_folders(base, sources(base), embedder)
    assert report.version == 2
    assert [(v.path, v.outcome) for v in report.verdicts if v.outcome in ("failed", "updated")] == [
        (str(docs / "a.txt"), "updated"), (display_path(odd), "failed")
    ]  # fmt: skip
    assert len(base.documents(Scope(labels=frozenset({"hr"})))) == 4
    forget_source(base, odd)
    assert sources(base) == [SyncedFolder(docs)]
    with pytest.raises(KnowledgeError, match="was not synced"):
        forget_source(base, odd)


def test_a_folder_inside_another_keeps_its_rules_and_has_the_labels_of_both(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    def labels() -> dict[str, list[str]]:
        rows = base.connection.execute("SELECT path, labels FROM documents WHERE removed_in IS NULL")
        return {Path(path).name: json.loads(text) for path, text in rows}

    (docs / "deep" / "x.txt").write_text("Left out by the inner folder.")
    inner = SyncedFolder(docs / "deep", Rules(exclude=("x.txt",)), frozenset({"board"}))
    sync_folders(base, [inner], embedder)
    sync(base, docs, embedder, options=HR)
    assert labels() == {"a.txt": ["hr"], "b.txt": ["hr"], "c.md": ["board", "hr"]}
    (docs / "deep" / "c.md").write_text("# Changed")
    sync_folders(base, [inner], embedder)  # alone, it still lies in the other
    assert labels() == {"a.txt": ["hr"], "b.txt": ["hr"], "c.md": ["board", "hr"]}
    sync(base, docs, embedder, Rules(exclude=("deep/",)))
    assert labels() == {"a.txt": [], "b.txt": [], "c.md": ["board"]}
    shutil.rmtree(docs / "deep")
    sync(base, docs, embedder)
    assert names(base) == ["a.txt", "b.txt"]


# --- tables -----------------------------------------------------------------------------------------------------------


class Recorded(HashEmbedder):
    texts: list[str]

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        self.texts = [*getattr(self, "texts", ()), *texts]
        return super().embed_passages(texts)


HEADER = "Harbour | adult fare | child fare\n"


def test_each_part_of_a_table_is_searched_with_its_header(tmp_path: Path) -> None:
    embedder, rows = Recorded(), [f"Port {number} | {number}.50 | {number}.20" for number in range(60)]
    table = "All fares\n=========\n\n" + HEADER + "\n".join(rows) + "\n\nDogs travel free.\n"
    (tmp_path / "fares.txt").write_text(table)
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / "fares.txt"], embedder)
    with_rows = [text for text in embedder.texts if " | " in text]
    assert len(with_rows) > 2
    assert all(text.startswith(f"All fares\n{HEADER}Port ") for text in with_rows[1:])
    hits = base.search("child fare", embedder)[1]
    assert {hit.bm25_rank is not None for hit in hits if "Port" in hit.passage.text} == {True}
    assert check(base).damaged == ()

    # What a version that knew no headers stored stays whole.
    with_header = next(text for text in embedder.texts if rows[-1] in text)
    without = with_header.replace(HEADER, "")
    with base.writing(5.0) as connection:
        keys = embedding_key(without), embedding_key(with_header)
        connection.execute("UPDATE passages SET embedding_key = ? WHERE embedding_key = ?", keys)
        connection.execute("UPDATE embeddings SET embedding_key = ? WHERE embedding_key = ?", keys)
        reseal(connection)
    assert check(base).damaged == ()
    other = Recorded(DIMENSIONS)
    reembed(base, other)
    assert (without in other.texts, with_header in other.texts) == (True, False)
    assert check(KnowledgeBase.open(base.folder, other.identity)).damaged == ()
