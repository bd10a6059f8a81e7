"""A database that is gone or full: a sentence, nothing lost, and work resumes when it is back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from openbook.core.config import DatabaseUrl, Settings
from openbook.core.errors import StorageError
from openbook.core.parallel import StagedProgress
from openbook.knowledge import KnowledgeBase, RunOptions, sync
from openbook.knowledge.check import check
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.cluster.proxy import Proxy
from tests.conftest import ROOT
from tests.serving.conftest import running

pytestmark = pytest.mark.laws

QUESTION = "When does the ferry to island 3 leave?"


@pytest.fixture
def database(new_postgres_url: str) -> Iterator[Proxy]:
    """Before a database of its own."""
    with Proxy(f"{new_postgres_url}&connect_timeout=2") as proxy:
        yield proxy


def made(url: str, docs: Path, embedder: HashEmbedder, progress: StagedProgress = lambda *_: None) -> KnowledgeBase:
    base = KnowledgeBase.ensure(DatabaseUrl(url), embedder.identity)
    sync(base, docs, embedder, options=RunOptions(progress=progress))
    return base


def is_whole(base: KnowledgeBase, docs: Path) -> bool:
    """Every file is in it, once."""
    found = check(base)
    texts = sorted(filter(None, map(base.text, base.documents())))
    (contents,) = base.connection.execute("SELECT count(*) FROM contents").fetchone()
    return (
        (found.damaged, found.index_problems) == ((), ())
        and (base.version, contents) == (1, 6)
        and texts == sorted(path.read_text() for path in docs.iterdir())
    )


# --- the server -------------------------------------------------------------------------------------------------------


def test_server_answers_503_without_its_database_and_recovers(
    own_home: Path, database: Proxy, docs: Path, embedder: HashEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    base = made(database.url, docs, embedder)
    messages = [{"role": "user", "content": QUESTION}]
    with running(Configuration(Settings(home=own_home)), echo_model(), {"kb": base}) as server:
        requests = [
            ("POST", "/v1/search", {"query": QUESTION}),
            ("POST", "/v1/chat/completions", {"model": "echo", "messages": messages}),
            ("POST", "/v1/chat/completions", {"model": "echo", "messages": messages, "stream": True}),
            ("GET", "/v1/documents", None),
        ]
        before = [server.client.request(method, path, json=body) for method, path, body in requests]
        assert {each.status_code for each in before} == {200}
        database.is_broken = True
        for method, path, body in requests:
            response = server.client.request(method, path, json=body)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            error = response.json()["error"]
            assert (error["type"], error["code"]) == ("server_error", "storage_unavailable")
            assert "Try again" in error["message"]
            assert "127.0.0.1" not in response.text
        assert server.client.get("/health").status_code == 200
        database.is_broken = False
        after = [server.client.request(method, path, json=body) for method, path, body in requests]
        assert {each.status_code for each in after} == {200}
        assert after[0].content == before[0].content
    assert "failed: Cannot open postgresql://" in caplog.text
    base.close()


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["read", "embed"])
def test_run_resumes_after_losing_its_database(stage: str, database: Proxy, docs: Path, embedder: HashEmbedder) -> None:
    def progress(now: str, done: int, total: int) -> None:
        if now == stage and done * 2 >= total:
            database.is_broken = True

    with pytest.raises(StorageError, match=r"was lost: .* Run it again\."):
        made(database.url, docs, embedder, progress)
    database.is_broken = False
    with closing(made(database.url, docs, embedder)) as base:
        assert is_whole(base, docs)


FULL = """
CREATE FUNCTION openbook.no_room() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file "base/5/1": No space left on device' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER no_room BEFORE INSERT ON openbook.{table} EXECUTE FUNCTION openbook.no_room();
"""


@pytest.mark.parametrize("table", ["contents", "embeddings", "versions"])
def test_a_full_disk_of_the_database_is_a_sentence_and_nothing_is_lost(
    table: str, new_postgres_url: str, docs: Path, embedder: HashEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    KnowledgeBase.ensure(DatabaseUrl(new_postgres_url), embedder.identity).close()
    with psycopg.connect(new_postgres_url, autocommit=True) as connection:
        connection.execute(FULL.format(table=table).encode())
        with pytest.raises(StorageError, match=r"has run out of room: could not extend .* Free some and run it again"):
            made(new_postgres_url, docs, embedder)
        with closing(KnowledgeBase.open(DatabaseUrl(new_postgres_url))) as base:
            assert (base.version, base.documents()) == (0, [])
        assert caplog.text == ""
        connection.execute("DROP FUNCTION openbook.no_room CASCADE")
    with closing(made(new_postgres_url, docs, embedder)) as base:
        assert is_whole(base, docs)


@pytest.mark.slow
def test_after_each_kind_of_fault_the_state_is_that_of_one_machine_that_nothing_happened_to() -> None:
    command = [sys.executable, "benchmarks/cluster_faults.py", "docs", "--each", "1", "--files", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
