from __future__ import annotations

import importlib
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import paramiko
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from openbook.core.errors import SourceError
from openbook.sources.filesystems import FileSystemSource
from openbook.sources.registry import open_source
from openbook.testing import check_source
from tests.sources.conftest import ObjectStore, fetch
from tests.sources.imap_servers import free_port, wait_for
from tests.sources.sftp_server import sftp_server


@pytest.fixture
def bucket(object_store: ObjectStore) -> Any:
    """The bucket's client; empty."""
    files = fsspec.filesystem("s3", endpoint_url=object_store.endpoint, skip_instance_cache=True)
    yield files
    for key in files.find("openbook"):
        files.call_s3("delete_object", Bucket="openbook", Key=key.partition("/")[2])


def put(files: Any, data: Mapping[str, bytes]) -> None:
    for key, body in data.items():
        files.call_s3("put_object", Bucket="openbook", Key=key, Body=body)


@pytest.mark.laws
def test_s3(bucket: Any, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    long, base = b"# B" + b" long" * 2_000_000, "s3://openbook"
    put(bucket, {"docs/a.txt": b"first", "docs/deep/b.md": long, "other/c.txt": b"text"})
    source = open_source(f"{base}/docs", {"endpoint": object_store.endpoint})
    found = fetch(source)
    assert found.read == {f"{base}/docs/a.txt": b"first", f"{base}/docs/deep/b.md": long}
    assert str(found.items[f"{base}/docs/a.txt"].metadata["modified"]).endswith("+00:00")
    gone = found.items[f"{base}/docs/deep/b.md"]
    bucket.rm("openbook/docs/deep/b.md")
    with pytest.raises(FileNotFoundError):
        list(gone.read())
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_store.endpoint)
    assert fetch(FileSystemSource(f"{base}/docs/a.txt")).read == {f"{base}/docs/a.txt": b"first"}
    assert set(fetch(FileSystemSource(base)).read) == {f"{base}/docs/a.txt", f"{base}/other/c.txt"}
    for url, says in (
        (f"{base}/none", "^s3://openbook/none holds no file, so nothing was changed. Check the address.$"),
        ("s3://nowhere", "^s3://nowhere cannot be listed: The specified bucket does not exist"),
    ):
        with pytest.raises(SourceError, match=says):
            fetch(FileSystemSource(url))

    def change() -> str:
        put(bucket, {"docs/a.txt": b"other"})
        return f"{base}/docs/a.txt"

    put(bucket, {"docs/b.txt": b"text"})
    secrets = ["only-for-tests", "hunter2"]
    check_source(lambda: source, change, lambda: monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2"), secrets)
    with pytest.raises(SourceError, match=r"signature.*AWS_ACCESS_KEY_ID"):
        fetch(source)


@pytest.mark.laws
def test_hostile_keys(bucket: Any, object_store: ObjectStore) -> None:
    kept = ["a", "a/b.txt", "line\nfeed.txt", "bell\a.txt", "sp ace#1?.txt", "ünï%41.txt"]
    left_out = ["folder/", ".git/config", "a/.hidden", "node_modules/m.js", "a/__pycache__/x.py", "...txt"]
    put(bucket, {f"h/{key}": key.encode() for key in kept + left_out})
    assert fetch(FileSystemSource("s3://openbook/h/", object_store.endpoint)).read == {
        f"s3://openbook/h/{key}": key.encode() for key in kept
    }


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_object_stores_share_the_code(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their own servers are not here: their names stand for fsspec's file system in memory."""

    class Memory(MemoryFileSystem):
        protocol = scheme
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.lstrip("/")

    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, scheme, Memory)
    files = Memory(skip_instance_cache=True)
    files.pipe({"bucket/docs/a.txt": b"first", "bucket/docs/.b.txt": b"hidden"})
    source = FileSystemSource(f"{scheme}://bucket/docs")
    first = fetch(source)
    assert first.read == {f"{scheme}://bucket/docs/a.txt": b"first"}


@contextmanager
def webdav(filer: str, folder: Path) -> Iterator[int]:
    program, port = shutil.which("weed", path=sysconfig.get_path("scripts")), free_port()
    options = f"-port={port} -filer={filer} -ip.bind=127.0.0.1 -filer.path=/buckets/openbook".split()
    command = [str(program), "webdav", *options, f"-cacheDir={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield port
        finally:
            server.kill()


@pytest.mark.laws
def test_webdav(bucket: Any, object_store: ObjectStore, tmp_path: Path) -> None:
    put(bucket, {"my docs/a.txt": b"first", "my docs/deep/ü.txt": b"second", "my docs/.hidden/c.txt": b"text"})
    with ExitStack() as stack:
        port = stack.enter_context(webdav(object_store.filer, tmp_path))
        url = f"webdav+http://127.0.0.1:{port}/my%20docs"
        source = open_source(url, {})
        first = fetch(source)
        assert first.read == {f"{url}/a.txt": b"first", f"{url}/deep/ü.txt": b"second"}
        assert fetch(FileSystemSource(f"{url}/a.txt")).read == {f"{url}/a.txt": b"first"}
        with pytest.raises(SourceError, match=r"/none cannot be listed: .*~/\.netrc"):
            fetch(FileSystemSource(f"{url}/none"))

        def change() -> str:
            put(bucket, {"my docs/a.txt": b"other"})
            return f"{url}/a.txt"

        check_source(lambda: source, change, stack.close)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a key for SSH."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / ".ssh" / "id_ecdsa"))
    return tmp_path


def test_sftp_of_a_known_host(home: Path) -> None:
    docs = home / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "closed").mkdir()
    (docs / ".hidden").mkdir()
    (docs / ".hidden" / "c.txt").write_text("hidden")
    (docs / "a.txt").write_text("first")
    (docs / "deep" / "b.txt").write_bytes(b"long" * 100_000)
    (docs / "link.txt").symlink_to("/etc/passwd")
    key = paramiko.ECDSAKey.generate()
    with sftp_server(home, key) as port:
        url = f"sftp://reader@127.0.0.1:{port}/docs"
        with pytest.raises(SourceError, match=r"not found in known_hosts.*connect once with `ssh`"):
            fetch(FileSystemSource(url))

        hosts = paramiko.HostKeys()
        hosts.add(f"[127.0.0.1]:{port}", key.get_name(), key)
        hosts.save(str(home / ".ssh" / "known_hosts"))
        first = fetch(FileSystemSource(url))
        assert first.read == {f"{url}/a.txt": b"first", f"{url}/deep/b.txt": b"long" * 100_000}
        assert {path: verdict.outcome for path, verdict in first.verdicts.items()} == {
            f"{url}/closed/": "failed",
            f"{url}/link.txt": "skipped",
        }
        (home / ".ssh" / "config").write_text(f"Host library\n  HostName 127.0.0.1\n  Port {port}\n  User reader\n")
        assert set(fetch(FileSystemSource("sftp://library/docs/deep")).read) == {"sftp://library/docs/deep/b.txt"}

        def change() -> str:
            (docs / "a.txt").write_text("the other")
            return f"{url}/a.txt"

        check_source(lambda: FileSystemSource(url), change, lambda: docs.rename(home / "away"))
        hosts.clear()
        hosts.add(f"[127.0.0.1]:{port}", key.get_name(), paramiko.ECDSAKey.generate())
        hosts.save(str(home / ".ssh" / "known_hosts"))
        with pytest.raises(SourceError, match="does not match"):
            fetch(FileSystemSource(url))
