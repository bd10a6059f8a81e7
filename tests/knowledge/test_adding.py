from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from openbook.errors import KnowledgeError
from openbook.knowledge import KnowledgeBase, Report, RunOptions, add
from openbook.knowledge.check import check
from openbook.knowledge.docs_cache import for_documents
from openbook.knowledge.embeddings import embedding_key, reembed
from openbook.records import EmbedderIdentity, Vectors
from openbook.testing import HashEmbedder
from tests.knowledge.small_bases import DIMENSIONS, reseal


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The first document is about ferries.")
    (folder / "b.txt").write_text("The second document is about harbours.")
    return folder


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    return KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)


def outcomes(report: Report) -> dict[str, str]:
    return {Path(v.path).name: v.outcome for v in report.verdicts}


def test_one_run_is_one_version(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    report = add(base, [docs], embedder)
    assert report.version == base.version == 1
    assert outcomes(report) == {"a.txt": "added", "b.txt": "added"}


def test_a_changed_file_replaces_its_old_text(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    add(base, [docs], embedder)
    (docs / "a.txt").write_text("Now it is about lighthouses.")
    report = add(base, [docs], embedder)
    assert outcomes(report) == {"a.txt": "updated", "b.txt": "unchanged"}
    assert base.version == 2
    texts = [h.passage.text for h in base.search("ferries lighthouses document", embedder)[1]]
    assert "Now it is about lighthouses." in texts
    assert not any("ferries" in t for t in texts)
    assert base.text(str(docs / "a.txt"), version=1) == "The first document is about ferries."


def test_a_text_that_comes_back_is_not_embedded_again(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    add(base, [docs], embedder)
    original = (docs / "a.txt").read_text()
    (docs / "a.txt").write_text("Something else.")
    add(base, [docs], embedder)
    before = embedder.texts_embedded
    (docs / "a.txt").write_text(original)
    report = add(base, [docs], embedder)
    assert (report.passages_embedded, embedder.texts_embedded) == (0, before)
    assert base.search("ferries", embedder)[1][0].passage.text == original


def test_a_bad_file_gets_a_verdict_and_the_others_go_in(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "empty.txt").write_text("")
    (docs / "image.xyz").write_bytes(bytes(range(256)) * 4)
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nothing more")
    report = add(base, [docs], embedder)
    assert outcomes(report) == {
        "a.txt": "added",
        "b.txt": "added",
        "empty.txt": "failed",
        "broken.pdf": "failed",
        "image.xyz": "skipped",
    }
    assert all(v.reason for v in report.verdicts if v.outcome in ("failed", "skipped"))
    assert {Path(v.path).name for v in base.status().not_in} == {"empty.txt", "broken.pdf", "image.xyz"}
    (docs / "empty.txt").write_text("Not empty any more.")
    add(base, [docs], embedder)
    assert {Path(v.path).name for v in base.status().not_in} == {"broken.pdf", "image.xyz"}


def test_a_missing_path_is_an_error(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    with pytest.raises(KnowledgeError):
        add(base, [docs / "aa.txt"], embedder)
    assert base.version == 0


class StopsAfter:
    """An embedder that is interrupted after some batches."""

    def __init__(self, batches: int) -> None:
        self._inner = HashEmbedder()
        self._left = batches

    @property
    def identity(self) -> EmbedderIdentity:
        return self._inner.identity

    def embed_query(self, text: str) -> Vectors:
        return self._inner.embed_query(text)

    def embed_passages(self, texts: list[str]) -> Vectors:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._inner.embed_passages(texts)


def test_an_interrupted_run_commits_nothing_and_the_next_goes_on(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    for i in range(200):
        (docs / f"n{i:03}.txt").write_text(f"Document number {i} says {np.sqrt(i)}.")
    with pytest.raises(KeyboardInterrupt):
        add(base, [docs], StopsAfter(batches=2))  # type: ignore[arg-type]
    assert base.version == 0
    assert base.documents() == []
    assert base.search("document number", embedder) == (0, [])
    report = add(base, [docs], embedder)
    assert report.passages_embedded == 202 - 2 * 64
    assert len(base.documents()) == 202


def test_progress_ends_at_the_total(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    seen: list[tuple[str, int, int]] = []
    add(base, [docs], embedder, RunOptions(progress=lambda *step: seen.append(step)))
    assert ("read", 2, 2) in seen
    assert ("embed", 2, 2) in seen
    assert all(0 <= done <= total for _, done, total in seen)


def test_a_texts_title_is_its_own_or_that_of_the_file_it_is_in(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "alpha.txt").write_text("An untitled text about lighthouses.")
    add(base, [docs], embedder)
    (docs / "alpha.txt").rename(docs / "beta.txt")
    (docs / "alpha.txt").write_text("Another one.")
    add(base, [docs], embedder)
    assert [p.title for p in base.passages(str(docs / "beta.txt"))] == ["beta"]


def test_newer_code_reads_a_file_again_although_its_date_did_not_change(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(base, [docs], embedder)
    monkeypatch.setattr("openbook.knowledge.ingest.PARSER_VERSION", "99")
    assert set(outcomes(add(base, [docs], embedder)).values()) == {"updated"}


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
        assert outcomes(add(base, [scans], embedder, options)) == {"a.png": "failed"}
    assert for_documents([scans], cache, embedder, options)[0].documents() == []
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\n[ $1 = --list-langs ] && echo eng || echo The safe opens at nine.\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path}")
    assert outcomes(add(base, [scans], embedder, options)) == {"a.png": "added"}
    assert len(for_documents([scans], cache, embedder, options)[0].documents()) == 1


class Recorded(HashEmbedder):
    texts: list[str]

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        self.texts = [*getattr(self, "texts", ()), *texts]
        return super().embed_passages(texts)


ROWS = [f"Port {number} | {number}.50 | {number}.20" for number in range(60)]
TABLE = "\n".join(["Harbour | adult fare | child fare", *ROWS])


def table_base(folder: Path, embedder: Recorded) -> KnowledgeBase:
    (folder / "fares.txt").write_text(f"All fares\n=========\n\n{TABLE}\n\nDogs travel free.\n")
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    add(base, [folder / "fares.txt"], embedder)
    return base


def test_each_part_of_a_table_is_searched_with_its_header(tmp_path: Path) -> None:
    embedder = Recorded()
    base = table_base(tmp_path, embedder)
    with_rows = [text for text in embedder.texts if " | " in text]
    assert len(with_rows) > 2
    assert all(text.startswith("All fares\nHarbour | adult fare | child fare\nPort ") for text in with_rows[1:])
    hits = base.search("child fare", embedder)[1]
    assert {hit.bm25_rank is not None for hit in hits if "Port" in hit.passage.text} == {True}
    assert check(base).damaged == ()


def test_what_was_embedded_without_a_header_stays_whole(tmp_path: Path) -> None:
    embedder = Recorded()
    base = table_base(tmp_path, embedder)
    last = "Port 59 | 59.50 | 59.20"
    with_header = next(text for text in embedder.texts if last in text)
    without = with_header.replace("Harbour | adult fare | child fare\n", "")
    with base.writing(5.0) as connection:  # as a version that knew no headers stored it
        keys = embedding_key(without), embedding_key(with_header)
        connection.execute("UPDATE passages SET embedding_key = ? WHERE embedding_key = ?", keys)
        connection.execute("UPDATE embeddings SET embedding_key = ? WHERE embedding_key = ?", keys)
        reseal(connection)
    assert check(base).damaged == ()
    other = Recorded(DIMENSIONS)
    reembed(base, other)
    assert without in other.texts
    assert with_header not in other.texts
    assert check(KnowledgeBase.open(base.folder, other.identity)).damaged == ()
