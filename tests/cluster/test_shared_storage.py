"""Rows in PostgreSQL, segments in S3, and machines that have nothing in common but these."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbook.core.config import DatabaseUrl
from openbook.core.errors import KnowledgeBaseInvalid
from openbook.knowledge import KnowledgeBase, purge, sync
from openbook.knowledge.index import segment_files
from openbook.knowledge.index.segment_files import file_digest
from openbook.testing import HashEmbedder

SECRET = " ".join(f"The secret launch code number {i} is {i * 7919 % 10007}-zeppelin." for i in range(20))


def test_two_machines_share_segments_and_a_purge_reaches_all_of_them(
    tmp_path: Path, new_postgres_url: str, object_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder, docs = HashEmbedder(), tmp_path / "docs"
    docs.mkdir()
    for number in range(5):
        (docs / f"plain{number}.txt").write_text(f"The ferry number {number} leaves at {number} o'clock sharp.")
    (docs / "secret.txt").write_text(SECRET)
    shared = object_store_url.replace("?", "/machines?")
    user = object_store_url.replace("//", "//key:hunter2%40", 1).replace("?", "/machines?")
    place = DatabaseUrl(f"{new_postgres_url}&blobs={user}")

    def machine(name: str) -> KnowledgeBase:
        monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / name))
        return KnowledgeBase.ensure(DatabaseUrl(new_postgres_url) if name != "first" else place, embedder.identity)

    first = machine("first")
    assert "hunter2" not in str(first.connection.execute("SELECT * FROM meta").fetchall())
    sync(first, docs, embedder)
    second = machine("second")
    assert second.indexes.blobs is not None
    assert second.indexes.blobs.url == shared
    assert second.folder != first.folder
    question = "When does ferry number 3 leave?"
    assert second.search(question, embedder) == first.search(question, embedder)
    assert any("secret" in hit.passage.text for hit in second.search("secret launch code", embedder)[1])
    files = [
        {
            digest
            for each in segment_files.read(base.indexes.folder, base.indexes.source(base.connection))[0]
            for _, digest, _ in each.entry.files.values()
        }
        for base in (first, second)
    ]
    assert files[0] == files[1] != set()
    (docs / "secret.txt").unlink()
    purged = purge(first, ["secret.txt"])
    assert purged.objects == len(list(second.indexes.blobs.list(f"{second.id}/"))) > 0
    assert second.search(question, embedder) == first.search(question, embedder)
    for base in (first, second):
        assert not any("secret" in hit.passage.text for hit in base.search("secret launch code", embedder)[1])
        held = {path.name for path in (base.indexes.folder / "index").glob("segment-*/*.npy")}
        assert held
        assert files[0].isdisjoint(map(file_digest, (base.indexes.folder / "index").glob("segment-*/vectors.npy")))
        base.close()
    with pytest.raises(
        KnowledgeBaseInvalid, match=r"shares its segments in s3://openbook/machines\?.*, not in s3://elsewhere"
    ):
        KnowledgeBase.open(DatabaseUrl(f"{new_postgres_url}&blobs={shared.replace('openbook/', 'elsewhere/')}"))
