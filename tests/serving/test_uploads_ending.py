"""An upload whose client has left ends between two slices and leaves nothing; while it lasts, it blocks no one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from openbook.core.records import Vectors
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.check import check
from openbook.serving import server as server_module
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import LONG_S, Running, Serve, add_file, connected, eventually, running
from tests.serving.test_documents import listed, upload

SLOW = ("slow.txt", b"\n\n".join(b"Part %d of the slow text. " % i + b"word " * 80 for i in range(200)))


class SlowEmbedder(HashEmbedder):
    """Waits in each batch of the slow text until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        if any("slow text" in text for text in texts):
            self.begun.release()
            assert self.go_on.acquire(timeout=LONG_S)
        return super().embed_passages(texts)

    def end(self) -> None:
        self.go_on.release(100)


@pytest.fixture
def embedder() -> SlowEmbedder:
    return SlowEmbedder()


@pytest.fixture
def server(serve: Serve, embedder: SlowEmbedder) -> Iterator[Running]:
    yield serve(embedder=embedder)
    embedder.end()


def uploading() -> tuple[str, bytes]:
    """(head, body) of a form with the slow text."""
    part = f'--x0x\r\nContent-Disposition: form-data; name="file"; filename="{SLOW[0]}"\r\n\r\n'.encode()
    body = part + SLOW[1] + b"\r\n--x0x--\r\n"
    kind = f"Content-Type: multipart/form-data; boundary=x0x\nContent-Length: {len(body)}"
    return f"POST /v1/documents HTTP/1.1\nHost: localhost\n{kind}\n\n", body


def stored(base: KnowledgeBase) -> list[int]:
    tables = ("versions", "contents", "passages", "embeddings")
    return [base.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]


def upload_files(home: Path) -> list[str]:
    return [path.name for path in (home / "uploads").rglob("*") if path.is_file() and path.name != ".lock"]


def test_upload_ends_when_its_client_leaves_and_leaves_nothing(
    server: Running, base: KnowledgeBase, embedder: SlowEmbedder, own_home: Path
) -> None:
    before = stored(base)
    connection = connected(server, *uploading())
    assert embedder.begun.acquire(timeout=LONG_S)
    assert upload_files(own_home) == ["slow.txt"]
    assert stored(base) != before  # its text is stored ahead
    connection.close()
    for _ in range(3):  # what came before these, the server has seen: that its client left
        assert server.client.get("/health").status_code == 200
    embedder.end()
    eventually(lambda: server.service.uploading.running == 0)
    assert stored(base) == before
    assert upload_files(own_home) == []
    assert upload(server, ("new.txt", b"The lamp is green."))[0]["outcome"] == "added"


def test_upload_ends_with_the_server_and_leaves_nothing(
    configuration: Configuration,
    base: KnowledgeBase,
    embedder: SlowEmbedder,
    own_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "GRACE_S", 0)  # the server does not wait for answers in progress
    monkeypatch.setattr(server_module, "CANCELLING_S", LONG_S)
    before = stored(base)
    with ThreadPoolExecutor(2) as threads:
        with running(configuration, echo_model(), {"kb": base}, embedder) as server:
            sent = threads.submit(httpx.post, f"{server.url}/v1/documents", files={"file": SLOW}, timeout=LONG_S)
            assert embedder.begun.acquire(timeout=LONG_S)
            # The batch in progress ends after the server has begun to.
            threads.submit(server.service.ends.wait, LONG_S).add_done_callback(lambda _: embedder.end())
        assert sent.result(LONG_S).json()["error"]["code"] == "shutting_down"
    assert stored(base) == before
    assert upload_files(own_home) == []


def test_upload_blocks_no_other_caller_and_no_other_change(
    server: Running, base: KnowledgeBase, embedder: SlowEmbedder, tmp_path: Path
) -> None:
    bridge, ferry = base.documents()[:2]
    theirs, mine = server.key("write"), server.key("write")
    with ThreadPoolExecutor(2) as threads:
        sent = threads.submit(upload, server, SLOW, headers=theirs)
        assert embedder.begun.acquire(timeout=LONG_S)
        second = threads.submit(upload, server, ("second.txt", b"Another text."), headers=theirs)
        eventually(lambda: server.service.uploading.waiting == 1)  # theirs waits for theirs
        assert upload(server, ("lamp.txt", b"The lamp is green."), headers=mine)[0]["outcome"] == "added"
        add_file(base, tmp_path / "door.txt", "The door is blue.")  # as another process does
        purged = server.client.post("/v1/documents/purge", json={"documents": [bridge]})
        assert (purged.status_code, purged.json()["documents"]) == (200, [bridge])
        embedder.go_on.release()
        assert embedder.begun.acquire(timeout=LONG_S)
        assert server.client.post("/v1/documents/remove", json={"documents": [ferry]}).status_code == 200
        assert not sent.done()
        assert not second.done()
        embedder.end()
        assert [each.result(LONG_S)[0]["outcome"] for each in (sent, second)] == ["added", "added"]
    assert {Path(path).name for path in listed(server)} == {"slow.txt", "second.txt", "lamp.txt", "door.txt"}
    assert check(base).damaged == ()
