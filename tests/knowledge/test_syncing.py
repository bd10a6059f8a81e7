from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from openbook.errors import ConfigError, KnowledgeError, QuestionError
from openbook.knowledge import KnowledgeBase, Report, Rules, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.discovery import SyncedFolder, discover, display_path
from openbook.knowledge.ingest import Part, ingest
from openbook.knowledge.scope import checked_labels
from openbook.knowledge.sliced_run import in_slices
from openbook.knowledge.updates import folder_changes, forget_source, resolve, sources, sync_folders
from openbook.knowledge.versions import Retention, prune, restore
from openbook.parsers.sandbox import Limits
from openbook.testing import HashEmbedder


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


def names(base: KnowledgeBase, docs: Path) -> list[str]:
    return [path.removeprefix(f"{docs}/") for path in base.documents()]


def test_sync_makes_the_knowledge_base_equal_to_the_folder(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    assert sync(base, docs, embedder).version == 1
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
    assert names(base, docs) == ["a.txt", "deep/c.md", "new.txt"]
    texts = [h.passage.text for h in base.search("harbours ferries", embedder)[1]]
    assert not any("harbours" in text or "ferries" in text for text in texts)


def test_nothing_to_do_is_no_version_and_embeds_nothing(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    before = embedder.texts_embedded
    assert sync(base, docs, embedder).version == 1
    os.utime(docs / "a.txt")
    assert sync(base, docs, embedder).version == 1
    assert embedder.texts_embedded == before


def test_a_rename_says_from_where_to_where_and_embeds_nothing(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    before = embedder.texts_embedded
    (docs / "a.txt").rename(docs / "deep" / "renamed.txt")
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["deep/renamed.txt"] == ("added", "renamed from a.txt")
    assert outcomes(report, docs)["a.txt"] == ("removed", "renamed to deep/renamed.txt")
    assert embedder.texts_embedded == before


def test_the_same_content_is_stored_once_and_cited_by_every_path(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "copy.txt").write_text((docs / "a.txt").read_text())
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["copy.txt"] == ("duplicate", "a.txt")
    assert (base.status().documents, base.status().texts) == (4, 3)
    first = base.search("ferries", embedder)[1][0].passage
    assert (first.document, first.also_in) == (f"{docs}/a.txt", (f"{docs}/copy.txt",))
    (docs / "a.txt").unlink()
    sync(base, docs, embedder)
    first = base.search("ferries", embedder)[1][0].passage
    assert (first.document, first.also_in) == (f"{docs}/copy.txt", ())


def test_a_file_that_becomes_unreadable_keeps_its_text(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    (docs / "a.txt").write_bytes(b"")
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["a.txt"] == ("failed", "the file is empty; the text read before stays")
    assert "a.txt" in names(base, docs)
    (docs / "a.txt").write_text("It is back.")
    assert outcomes(sync(base, docs, embedder), docs)["a.txt"] == ("updated", "")
    assert base.status().not_in == ()


def test_a_failed_file_costs_a_stat_until_it_changes_or_a_retry(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    broken = docs / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 nothing more")
    assert outcomes(sync(base, docs, embedder), docs)["broken.pdf"] == ("failed", "not a readable PDF")
    told: list[tuple[str, int, int]] = []
    options = RunOptions(progress=lambda *step: told.append(step))
    report = sync(base, docs, embedder, options=options)
    assert outcomes(report, docs)["broken.pdf"] == ("failed", "not a readable PDF")
    assert not any(stage == "read" for stage, _, _ in told)
    sync(base, docs, embedder, options=RunOptions(retry=True, progress=lambda *step: told.append(step)))
    assert ("read", 1, 1) in told
    told.clear()
    sync(base, docs, embedder, options=RunOptions(Limits(timeout_s=30.0), progress=lambda *step: told.append(step)))
    assert ("read", 1, 1) in told  # other limits, another try


def test_what_the_machine_refused_is_tried_again_though_the_file_is_unchanged(base: KnowledgeBase, docs: Path) -> None:
    found = list(discover([docs]))
    (docs / "a.txt").unlink()

    result = in_slices(base, lambda run: ingest(run, base.sizing, RunOptions(), Part(found)), 1.0)
    failed = [verdict for verdict in result.verdicts if verdict.outcome == "failed"]
    assert [(Path(v.path).name, v.reason) for v in failed] == [("a.txt", "does not exist")]
    assert failed[0].path not in result.tried


def test_verdicts_of_files_that_went_away_are_forgotten(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "x.zip").write_bytes(b"PK\x03\x04")
    sync(base, docs, embedder)
    assert len(base.status().not_in) == 1
    (docs / "x.zip").unlink()
    sync(base, docs, embedder)
    assert base.status().not_in == ()


def test_rules_decide_what_is_in_and_are_remembered(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    report = sync(base, docs, embedder, Rules(include=("*.txt",), exclude=("b.*",)))
    assert outcomes(report, docs)["b.txt"] == ("removed", "left out by --exclude")
    assert outcomes(report, docs)["deep/c.md"] == ("removed", "left out by --include")
    assert names(base, docs) == ["a.txt"]
    assert sources(base) == [SyncedFolder(docs, Rules(("*.txt",), ("b.*",)))]
    sync(base, docs, embedder, Rules(exclude=("deep/",)))
    assert names(base, docs) == ["a.txt", "b.txt"]
    with pytest.raises(ConfigError, match="glob"):
        sync(base, docs, embedder, Rules(exclude=("!",)))


def test_an_ignore_file_rules_its_folder(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / ".openbookignore").write_text("# drafts\n*.md\nb.txt\n")
    (docs / "deep" / ".openbookignore").write_text("!c.md\n")
    report = sync(base, docs, embedder)
    assert names(base, docs) == ["a.txt", "deep/c.md"]
    assert outcomes(report, docs)["b.txt"] == ("skipped", "left out by .openbookignore")


def test_an_empty_folder_does_not_empty_the_knowledge_base(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    for path in sorted(docs.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(KnowledgeError, match="3 documents came from it"):
        sync(base, docs, embedder)
    assert len(base.documents()) == 3
    assert sync(base, docs, embedder, allow_empty=True).version == 2
    assert base.documents() == []
    docs.rmdir()
    with pytest.raises(KnowledgeError, match="No such file or folder"):
        sync(base, docs, embedder)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_what_cannot_be_looked_into_is_not_gone(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    (docs / "deep").chmod(0)
    try:
        report = sync(base, docs, embedder)
    finally:
        (docs / "deep").chmod(0o755)
    assert outcomes(report, docs)["deep"][0] == "failed"
    assert "deep/c.md" in names(base, docs)


def test_other_folders_are_left_alone(base: KnowledgeBase, docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    other = tmp_path / "docs-and-more"  # its name begins like the other's
    other.mkdir()
    (other / "z.txt").write_text("From elsewhere.")
    add(base, [other], embedder)
    sync(base, docs, embedder)
    (docs / "a.txt").unlink()
    sync(base, docs, embedder)
    assert f"{other}/z.txt" in base.documents()


def test_removed_is_gone_at_the_next_request_and_kept_in_older_versions(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    reader = KnowledgeBase.open(base.folder)
    assert "ferries" in reader.search("ferries", embedder)[1][0].passage.text
    assert remove(base, ["a.txt"]).version == 2
    assert not any("ferries" in h.passage.text for h in reader.search("ferries", embedder)[1])
    version, hits = reader.search("ferries", embedder, scope=Scope(as_of=1))
    assert version == 1
    assert "ferries" in hits[0].passage.text
    remove(base, [str(docs / "deep")])
    assert names(base, docs) == ["b.txt"]
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


def test_metadata_filters_and_touching_changes_nothing(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / "a.txt.meta.toml").write_text('status = "final"\ndate = 2026-03-01\n')
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["a.txt.meta.toml"][0] == "skipped"

    def found(where: str) -> set[str]:
        return {Path(h.passage.document).name for h in base.search("document", embedder, scope=Scope(where=where))[1]}

    assert found("status = 'final' and date >= 2026-02-01") == {"a.txt"}
    assert found("type = 'md'") == {"c.md"}
    assert found("not exists status") == {"b.txt", "c.md"}
    (docs / "a.txt.meta.toml").write_text('status = "draft"\n')
    assert outcomes(sync(base, docs, embedder), docs)["a.txt"] == ("updated", "")
    assert found("status = 'final'") == set()
    assert found("status = 'draft'") == {"a.txt"}
    with pytest.raises(QuestionError, match="--where"):
        found("status = ")


def test_labels_hide_documents_from_who_does_not_hold_all_of_them(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, RunOptions(labels=frozenset({"hr"})))
    (docs / "b.txt.meta.json").write_text('{"access_labels": ["hr", "board"]}')
    add(base, [docs / "b.txt"], embedder)

    def seen(*labels: str) -> set[str]:
        scope = Scope(labels=checked_labels(labels))
        assert {Path(p).name for p in base.documents(scope)} >= {"c.md"}
        return {Path(h.passage.document).name for h in base.search("document", embedder, scope=scope)[1]} - {"c.md"}

    assert seen() == set()
    assert seen("hr") == {"a.txt"}
    assert seen("board") == set()
    assert seen("hr", "board", "other") == {"a.txt", "b.txt"}
    add(base, [docs / "a.txt"], embedder)  # adding it again does not open it
    assert seen() == set()
    with pytest.raises(QuestionError, match="not an access label"):
        seen("HR or 1=1")


def test_labels_of_a_synced_folder_follow_its_rules(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder, options=RunOptions(labels=frozenset({"hr"})))
    assert base.search("document", embedder)[1] == []
    assert sync(base, docs, embedder).version == 2
    assert len(base.search("document", embedder)[1]) == 3


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


HR = RunOptions(labels=frozenset({"hr"}))


def open_to_all(base: KnowledgeBase, as_of: int | None = None) -> set[str]:
    return {Path(path).name for path in base.documents(Scope(as_of=as_of))}


def test_labels_of_a_first_sync_close_what_was_there_before(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    add(base, [docs], embedder)
    sync(base, docs, embedder, options=HR)
    assert open_to_all(base) == set()
    assert open_to_all(base, as_of=1) == set()  # nor in the version of before


def test_what_stays_though_it_cannot_be_read_is_closed_too(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    (docs / "a.txt").write_bytes(b"")
    report = sync(base, docs, embedder, options=HR)
    assert outcomes(report, docs)["a.txt"] == ("failed", "the file is empty; the text read before stays")
    assert open_to_all(base) == set()
    add(base, [docs / "a.txt"], embedder, RunOptions(labels=frozenset({"board"})))
    assert base.documents(Scope(labels=frozenset({"hr"}))) == [str(docs / "b.txt"), str(docs / "deep/c.md")]


def test_a_label_given_by_name_stays_until_it_is_taken_away(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, HR)
    remove(base, ["a.txt"])
    (docs / "a.txt").write_text("The same name with another text.")
    sync(base, docs, embedder)
    assert open_to_all(base) == {"b.txt", "c.md"}
    add(base, [docs / "a.txt"], embedder, RunOptions(unlabel=frozenset({"hr"})))
    for _ in range(2):
        assert open_to_all(base) == {"a.txt", "b.txt", "c.md"}
        sync(base, docs, embedder)


def test_labels_given_by_name_outlive_pruning_but_not_purging(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    sync(base, docs, embedder)
    add(base, [docs / "a.txt"], embedder, HR)
    remove(base, ["a.txt"])
    prune(base, Retention(versions=1))
    sync(base, docs, embedder)
    assert open_to_all(base) == {"b.txt", "c.md"}
    remove(base, ["a.txt"])
    prune(base, Retention(versions=1))
    assert purge(base, ["a.txt"]).labels == ("hr",)  # nothing but its name and its labels was left
    sync(base, docs, embedder)
    assert open_to_all(base) == {"a.txt", "b.txt", "c.md"}


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


def test_restoring_opens_nothing(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    sync(base, docs, embedder, options=HR)
    (docs / "a.txt").write_text("Something else.")
    sync(base, docs, embedder, options=HR)
    restore(base, 1)
    assert open_to_all(base) == set()
    assert "ferries" in (base.text(str(docs / "a.txt")) or "")


@pytest.mark.parametrize("name", ["", " ", "\n"])
def test_an_empty_name_is_no_document(name: str, base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    with pytest.raises(KnowledgeError, match="empty"):
        remove(base, [name])
    with pytest.raises(KnowledgeError, match="empty"):
        purge(base, [name])
    assert len(base.documents()) == 3


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
    assert len(base.documents()) == 4
    (docs / "a.txt").write_text("Changed.")
    (odd / "x.txt").unlink()
    odd.rmdir()
    report = sync_folders(base, sources(base), embedder)
    assert report.version == 2
    assert [(v.path, v.outcome) for v in report.verdicts if v.outcome in ("failed", "updated")] == [
        (str(docs / "a.txt"), "updated"), (display_path(odd), "failed")
    ]  # fmt: skip
    assert len(base.documents()) == 4
    forget_source(base, odd)
    assert sources(base) == [SyncedFolder(docs)]
    with pytest.raises(KnowledgeError, match="was not synced"):
        forget_source(base, odd)


def test_a_folder_inside_another_is_taken_in_once(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    wanted = [SyncedFolder(docs, Rules(exclude=("deep/",))), SyncedFolder(docs / "deep")]
    for _ in range(2):
        assert sync_folders(base, wanted, embedder).version == 1
        assert names(base, docs) == ["a.txt", "b.txt", "deep/c.md"]


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
    sync(base, docs, embedder)
    assert labels() == {"a.txt": [], "b.txt": [], "c.md": ["board"]}
    shutil.rmtree(docs / "deep")
    sync(base, docs, embedder)
    assert names(base, docs) == ["a.txt", "b.txt"]


def test_images_read_with_ocr_stay_without_it(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    sync(base, docs, embedder)
    with base.writing(5.0) as connection:  # as a run with OCR leaves it
        connection.execute("UPDATE documents SET path = replace(path, 'b.txt', 'b.png')")
    (docs / "b.txt").rename(docs / "b.png")
    report = sync(base, docs, embedder)
    assert outcomes(report, docs)["b.png"] == ("skipped", "an image: needs OCR")
    assert names(base, docs) == ["a.txt", "b.png", "deep/c.md"]


def test_equal_texts_of_other_bytes_are_cited_by_every_path(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "a2.txt").write_bytes((docs / "a.txt").read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    (docs / "a.txt").write_bytes((docs / "a.txt").read_bytes() + b"\n")
    sync(base, docs, embedder)
    hit = base.search("ferries", embedder)[1][0]
    assert (hit.passage.document, hit.passage.also_in) == (str(docs / "a.txt"), (str(docs / "a2.txt"),))
