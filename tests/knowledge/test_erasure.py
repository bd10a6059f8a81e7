from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from openbook.errors import KnowledgeError
from openbook.knowledge import KnowledgeBase, Scope, purge, schema, sync
from openbook.knowledge.docs_cache import caches_holding, delete_caches, for_documents
from openbook.knowledge.erasure import finish_purge
from openbook.knowledge.index_cache import IndexCache
from openbook.testing import HashEmbedder

SECRET = " ".join(f"The secret launch code number {i} is {i * 7919 % 10007}-zeppelin." for i in range(60))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    words = [f"word{i}" for i in range(400)]
    chance = random.Random(5)
    for i in range(40):
        (folder / f"plain{i:02}.txt").write_text(" ".join(chance.choices(words, k=80)) + ".")
    (folder / "very-secret-plan.txt").write_text(SECRET)
    return folder


@pytest.fixture
def base(tmp_path: Path, docs: Path, embedder: HashEmbedder) -> KnowledgeBase:
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    sync(base, docs, embedder)
    return base


def all_bytes(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


def test_purged_is_gone_from_every_byte_and_every_version(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    (docs / "very-secret-plan.txt").write_text(SECRET + " And one more.")
    sync(base, docs, embedder)
    vectors = [
        v
        for (v,) in base.connection.execute(
            "SELECT e.vector FROM embeddings e JOIN passages USING (embedding_key) JOIN contents c ON c.id = content_id "
            "WHERE c.text LIKE 'The secret%'"
        )
    ]
    assert len(vectors) > 5
    assert any(v in all_bytes(base.folder) for v in vectors)
    (docs / "very-secret-plan.txt").unlink()
    purged = purge(base, ["very-secret-plan.txt"])
    assert purged.documents == (f"{docs}/very-secret-plan.txt",)
    assert purged.on_disk == ()
    left = all_bytes(base.folder)
    for trace in (b"launch code", b"zeppelin", b"very-secret", *vectors):
        assert trace not in left
    assert purged.bytes >= len(left) // 2
    for version in (None, 1, 2):
        hits = base.search("secret launch code", embedder, scope=Scope(version))[1]
        assert not any("secret" in h.passage.text for h in hits)


def test_the_scan_would_find_what_is_left(base: KnowledgeBase, docs: Path) -> None:
    (base.folder / "left-behind.tmp").write_bytes(b"\x00" * 5001 + SECRET[300:400].encode())
    with pytest.raises(KnowledgeError, match=r"bytes of them are in .*left-behind\.tmp, from byte 50\d\d on"):
        purge(base, ["very-secret-plan.txt"])
    assert finish_purge(base)  # once more by whoever writes next


def test_the_scan_would_find_an_index_that_forgot_to_forget(
    base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IndexCache, "refresh", lambda *_, **__: None)
    with pytest.raises(KnowledgeError, match=r"bytes of them are in .*index"):
        purge(base, ["very-secret-plan.txt"])


def test_copies_are_named_first(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / "copy.txt").write_text(SECRET)
    sync(base, docs, embedder)
    with pytest.raises(KnowledgeError, match=r"also in .*copy\.txt.*--copies"):
        purge(base, ["very-secret-plan.txt"])
    assert len(base.documents()) == 42
    assert len(purge(base, ["very-secret-plan.txt"], copies=True).documents) == 2
    assert b"zeppelin" not in all_bytes(base.folder)


def test_shared_sentences_stay_with_their_other_owner(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / "quotes.txt").write_text("It was said: " + SECRET[:200])
    sync(base, docs, embedder)
    purge(base, ["very-secret-plan.txt"])
    assert base.search("secret launch", embedder)[1][0].passage.document.endswith("quotes.txt")


def test_caches_that_hold_it_are_dropped(
    base: KnowledgeBase, docs: Path, tmp_path: Path, embedder: HashEmbedder
) -> None:
    for_documents([docs], tmp_path / "cache", embedder)[0].close()
    for_documents([docs / "plain00.txt"], tmp_path / "cache", embedder)[0].close()
    assert b"zeppelin" in all_bytes(tmp_path / "cache")
    held = caches_holding(tmp_path / "cache", base, ["very-secret-plan.txt"])
    assert len(held) == 1
    delete_caches(tmp_path / "cache", held)
    assert b"zeppelin" not in all_bytes(tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "docs").iterdir())) == 1


def test_the_same_text_of_other_bytes_is_a_copy(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    text = (docs / "very-secret-plan.txt").read_text().replace(". ", ".\n") + "\n"
    (docs / "very-secret-plan.txt").write_text(text)
    (docs / "copy.md").write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    sync(base, docs, embedder)
    with pytest.raises(KnowledgeError, match=r"also in .*copy\.md"):
        purge(base, ["very-secret-plan.txt"])
    assert purge(base, ["very-secret-plan.txt"], copies=True).documents == (
        f"{docs}/copy.md", f"{docs}/very-secret-plan.txt"
    )  # fmt: skip
    assert b"zeppelin" not in all_bytes(base.folder)


def test_what_a_copy_became_later_stays(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    (docs / "copy.txt").write_text(SECRET)
    sync(base, docs, embedder)
    (docs / "copy.txt").write_text("By now a harmless text about gardens.")
    sync(base, docs, embedder)
    (docs / "very-secret-plan.txt").unlink()
    purged = purge(base, ["very-secret-plan.txt"], copies=True)
    assert len(purged.documents) == 2
    assert purged.on_disk == ()
    assert "gardens" in (base.text(f"{docs}/copy.txt") or "")
    assert b"zeppelin" not in all_bytes(base.folder)


def test_words_that_others_have_in_titles_and_headings_are_theirs(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder
) -> None:
    words = "About the merger with Quillon in the year 2026"
    (docs / "b.html").write_text(f"<title>{words}</title><h2>{words} and more</h2><p>Other text.</p>")
    (docs / "b.html.meta.toml").write_text('title = "Other"\n')
    (docs / "q.txt").write_text(words)
    sync(base, docs, embedder)
    assert purge(base, ["q.txt"]).passages == 1


def test_vectors_of_files_that_are_gone_are_in_no_cache(docs: Path, tmp_path: Path, embedder: HashEmbedder) -> None:
    cache = tmp_path / "cache"
    base, _ = for_documents([docs], cache, embedder)
    text = "SELECT e.vector FROM embeddings e JOIN passages USING (embedding_key) JOIN contents c ON c.id = content_id WHERE c.text LIKE 'The secret%'"
    vectors = [vector for (vector,) in base.connection.execute(text)]
    assert vectors
    (docs / "very-secret-plan.txt").unlink()
    base, _ = for_documents([docs], cache, embedder)
    assert not any(vector in all_bytes(base.folder) for vector in vectors)


def test_a_scan_takes_no_lock_of_sqlite_away(base: KnowledgeBase, docs: Path, embedder: HashEmbedder) -> None:
    """Else another process that closes the database takes itself for the last one, and deletes the log that is in use."""
    reader = base.connection
    assert reader.execute("SELECT count(*) FROM documents").fetchone() == (41,)
    purge(base, ["very-secret-plan.txt"])
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM documents').fetchall(); c.close()"
    subprocess.run([sys.executable, "-c", code, str(base.folder / schema.FILE_NAME)], check=True)
    assert (base.folder / f"{schema.FILE_NAME}-wal").exists()
    (docs / "plain00.txt").write_text("Another text.")
    assert sync(base, docs, embedder).version == base.version
