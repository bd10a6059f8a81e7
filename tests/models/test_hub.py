"""Against a hub of our own: the few addresses that the client asks for, served from this machine."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from openbook.errors import InvalidModelFile, PullError
from openbook.models import ModelStore, ensure, hub, pull
from openbook.models.hub import fetch_hub, find_hub
from openbook.models.sources import Expected, HubSource, fetch
from tests.models.gguf_files import Recipe

COMMIT = "c0ffee" + "0" * 34
CONTENT = Recipe().build()


@dataclass
class Hub:
    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> (status, X-Error-Code)
    requests: list[str] = field(default_factory=list)
    address: str = ""


def handler_for(state: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            state.requests.append(self.path)
            if self.path in state.refusals:
                status, code = state.refusals[self.path]
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = state.files.get(self.path)
            self.send_response(404 if data is None else 200)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    return Handler


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(state))
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    for revision in ("main", COMMIT):
        state.files[f"/o/r/resolve/{revision}/sub/Tiny-Model.gguf"] = CONTENT
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def test_finds_and_fetches(fake: Hub, tmp_path: Path) -> None:
    source, size = find_hub(HubSource("o/r", "sub/Tiny-Model.gguf"), endpoint=fake.address)
    assert (source.revision, size) == (COMMIT, len(CONTENT))
    seen: list[tuple[int, int]] = []
    path = fetch_hub(
        source,
        workspace=tmp_path,
        total_bytes=size,
        progress=lambda done, total: seen.append((done, total)),
        endpoint=fake.address,
    )
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(tmp_path)
    assert seen[-1] == (size, size)


@pytest.mark.parametrize(
    ("status", "code", "match"),
    [
        (404, "EntryNotFound", r"o/r has no file 'x\.gguf'"),
        (404, "RepoNotFound", "no repository 'o/r', or it is private"),
        (404, "RevisionNotFound", "has no revision"),
        (403, "GatedRepo", "o/r is gated: accept its terms"),
        (500, "", "Check the connection"),
    ],
)
def test_refusals_become_sentences(fake: Hub, status: int, code: str, match: str) -> None:
    fake.refusals["/o/r/resolve/main/x.gguf"] = (status, code)
    with pytest.raises(PullError, match=match):
        find_hub(HubSource("o/r", "x.gguf"), endpoint=fake.address)


def test_no_connection(fake: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PullError, match="Check the connection and HF_ENDPOINT"):
        find_hub(HubSource("o/r", "x.gguf"), endpoint="http://127.0.0.1:9")


def test_a_hub_that_says_nothing_is_waited_for_shortly(fake: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PullError, match=r"the hub did not answer within 0\.2 s"):
            find_hub(HubSource("o/r", "x.gguf"), endpoint=address)


def test_fetches_what_the_catalogue_names_and_nothing_of_another_size(at_fake: Hub, tmp_path: Path) -> None:
    source = HubSource("o/r", "sub/Tiny-Model.gguf")
    (tmp_path / "a").mkdir()

    def get(expected: Expected) -> bytes:
        fetch(
            source,
            tmp_path / "a" / "model.gguf",
            expected=expected,
            workspace=tmp_path / "a",
            download_bytes=1,
            progress=lambda done, total: None,
        )
        return (tmp_path / "a" / "model.gguf").read_bytes()

    with pytest.raises(PullError, match=f"has {len(CONTENT)} bytes, not the 5 that the catalogue names"):
        get(Expected("0" * 64, 5))
    assert get(Expected(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))) == CONTENT
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    with pytest.raises(PullError, match="is not the file that the catalogue names"):
        get(Expected("0" * 64, len(CONTENT)))


@pytest.fixture
def at_fake(fake: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """`pull` asks the fake, as if HF_ENDPOINT, which is read when the client is first imported, named it."""
    for name in ("find_hub", "fetch_hub"):
        real = getattr(hub, name)
        monkeypatch.setattr(hub, name, lambda *a, _real=real, **k: _real(*a, endpoint=fake.address, **k))
    return fake


def test_pulls_and_records_trust_on_first_use(at_fake: Hub, store: ModelStore) -> None:
    lines: list[str] = []
    reference = pull(store, "hf://o/r/sub/Tiny-Model.gguf", announce=lines.append)
    assert reference.name == "tiny-model"
    assert reference.manifest.source.trust == "first-use"
    assert dict(reference.manifest.source.origins) == {"model.gguf": f"hf://o/r/sub/Tiny-Model.gguf@{COMMIT}"}
    assert len(lines) == 1
    assert "tiny-model: 0.0 MB from o/r" in lines[0]
    asked = len(at_fake.requests)
    assert pull(store, "hf://o/r/sub/Tiny-Model.gguf", announce=lines.append) == reference
    assert ensure(store, "hf://o/r/sub/Tiny-Model.gguf") == reference
    assert (len(at_fake.requests), len(lines)) == (asked, 1)
    assert list(store.root.glob(".incoming-*")) == []


def test_a_name_does_not_pass_to_another_repository(at_fake: Hub, store: ModelStore) -> None:
    pull(store, "hf://o/r/sub/Tiny-Model.gguf")
    for other in ("hf://evil/r/sub/Tiny-Model.gguf", "hf://o/r/sub/Tiny-Model.gguf@v2"):
        with pytest.raises(PullError, match="already means the model from hf://o/r"):
            pull(store, other)


def test_what_is_no_gguf_is_refused(at_fake: Hub, store: ModelStore) -> None:
    for revision in ("main", COMMIT):
        at_fake.files[f"/o/r/resolve/{revision}/bad.gguf"] = b"<html>"
    with pytest.raises(InvalidModelFile, match=r"hf://o/r/bad\.gguf@c0ffee.* is not a model OpenBook can use"):
        pull(store, "hf://o/r/bad.gguf")
    with pytest.raises(PullError, match="not a GGUF file"):
        pull(store, "hf://o/r/model.safetensors")
    assert store.names() == {}
