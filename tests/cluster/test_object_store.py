from __future__ import annotations

import logging
import signal
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from openbook.cluster import object_store
from openbook.cluster.local import start_object_store, stop_server
from openbook.cluster.object_store import open_s3
from openbook.core.errors import ConfigError, StorageError
from openbook.knowledge.index.blobs import Blobs, open_blobs
from tests.conformance.blobs import BlobsSuite


def below(url: str, prefix: str = "") -> str:
    """The URL of a place of its own in the bucket."""
    return url.replace("?", f"/{prefix or uuid.uuid4().hex}?")


def refusals(blobs: Blobs, says: str) -> str:
    """What each kind of request fails with."""
    works: tuple[Callable[[], object], ...] = (
        lambda: blobs.put("a", b""),
        lambda: blobs.get("a"),
        lambda: list(blobs.list("")),
        lambda: blobs.delete("a"),
    )
    said = []
    for work in works:
        with pytest.raises(StorageError, match=says) as refused:
            work()
        said.append(f"{refused.value} {refused.value.__cause__}")
    return " ".join(said)


class TestS3Blobs(BlobsSuite):
    @pytest.fixture(autouse=True)
    def _url(self, object_store_url: str) -> None:
        self.url = object_store_url

    def make_blobs(self) -> Blobs:
        return open_s3(below(self.url))


def test_two_prefixes_of_a_bucket_stay_apart(object_store_url: str) -> None:
    one, two, deep = (open_blobs(below(object_store_url, f"apart{part}")) for part in ("", "2", "/deep"))
    one.put("a/key", b"one")
    two.put("a/key", b"two")
    deep.put("key", b"deep")
    assert (one.get("a/key"), two.get("a/key")) == (b"one", b"two")
    assert [each.key for each in one.list("")] == ["a/key", "deep/key"]
    assert [each.key for each in two.list("")] == ["a/key"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://?endpoint=http://127.0.0.1:1", "names no bucket"),
        ("s3://bucket?endpont=http://127.0.0.1:1", r"no parameter 'endpont'\. Did you mean 'endpoint'"),
        ("s3://bucket?endpoint=127.0.0.1:1", "must be http://HOST:PORT"),
        ("s3://bucket?endpoint=http://key:hunter2@127.0.0.1:1", "without credentials"),
        ("s3://key@bucket", "KEY:SECRET@ before the bucket, both"),
        ("s3://key:hunter2@bucket?secret_access_key=hunter2", "no parameter 'secret_access_key'"),
        ("s3://key:hunter2@?region=here", "names no bucket"),
        ("s3://key:hunter2/more@bucket", "no valid name of a bucket"),
        ("s3://key:hunter2#more@bucket", "no valid name of a bucket"),
        ("s3://ab", "3 to 63 letters"),
        ("s3://[hunter2", "cannot be read"),
    ],
)
def test_a_url_that_is_none_is_said_without_its_credentials(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        open_blobs(url)
    assert "hunter2" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_said(object_store_url: str) -> None:
    blobs = open_s3(object_store_url.replace("//openbook", "//anotherone"))
    refusals(blobs, r"^Cannot use s3://anotherone\?endpoint=.*: there is no such bucket\.$")


def test_credentials_are_asked_for_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theuser")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    try:
        url = start_object_store(tmp_path)
        open_s3(url).put("a", b"of the environment")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        blobs = open_s3(url.replace("//", "//theuser:hunter2hunter2@", 1))
        assert blobs.get("a") == b"of the environment"
        assert blobs.url == url
        said = [repr(blobs), str(vars(blobs))]
        for user, why in (
            ("theuser:hunter3hunter3@", "the secret access key is wrong"),
            ("nobody:hunter3hunter3@", "the store does not know this access key"),
            ("", "the store denies access"),
        ):
            wrong = open_s3(url.replace("//", f"//{user}", 1))
            said.append(refusals(wrong, why))
        assert "hunter" not in " ".join([*said, caplog.text, (tmp_path / "log").read_text()])
    finally:
        stop_server(tmp_path, signal.SIGKILL)


def test_a_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_REQUEST_S", 0.3)
    monkeypatch.setattr(object_store, "_RETRY_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        blobs = open_s3(f"s3://bucket?endpoint=http://127.0.0.1:{silent.getsockname()[1]}")
        refusals(blobs, "cannot be reached, or does not answer in time")


def test_a_store_is_started_once_and_has_what_it_took_after_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        url = start_object_store(tmp_path)
        assert start_object_store(tmp_path) == url
        large = bytes(range(256)) * (1 << 14)
        open_s3(url).put("small", b"one")
        open_s3(url).put("large", large)
        stop_server(tmp_path, signal.SIGKILL)
        stop_server(tmp_path, signal.SIGKILL)
        with monkeypatch.context() as hurried:
            hurried.setattr(object_store, "_RETRY_S", 0.5)
            stopped = open_s3(url)
        with pytest.raises(StorageError):
            stopped.get("small")
        assert start_object_store(tmp_path) == url
        assert (open_s3(url).get("small"), open_s3(url).get("large")) == (b"one", large)
    finally:
        stop_server(tmp_path, signal.SIGKILL)


def test_it_listens_on_the_loopback_interface_alone(object_store_url: str) -> None:
    port = urlsplit(object_store_url).query.rpartition(":")[2]
    others = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1", "127.0.1.1"}:
        with pytest.raises(OSError, match="refused"), socket.create_connection((str(address), int(port)), timeout=2):
            pass
