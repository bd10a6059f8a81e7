"""Files in object stores (S3, Google Cloud, Azure) and on servers (SFTP, WebDAV), through fsspec.

Each library finds credentials by itself, in the environment or the provider's own files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from openbook.core.errors import SourceError, first_line, needs_extra
from openbook.core.records import Verdict
from openbook.sources import Item, KnownItem, is_left_out, pieces, source_errors

_BLOCK_BYTES = 5 << 20  # of a file, for one request
_MAX_PREFETCH_BYTES = 1 << 30
_MAX_FOLDERS = 100_000
_TIMEOUT_S = 60.0
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_CONNECTION_STRING",
    "sftp": "an SSH agent or ~/.ssh; connect once with `ssh` to make the server known",
    "webdav": "~/.netrc, or the file that NETRC names",
}
_LOGGERS = ("fsspec", "s3fs", "gcsfs", "adlfs", "azure", "paramiko")
_FINGERPRINTS = ("ETag", "etag", "md5Hash")
_TIMES = ("LastModified", "mtime", "modified", "updated", "last_modified")  # S3, SFTP, WebDAV, Google, Azure


class FileSystemSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files below `url`, or the one it names. `endpoint`: of an S3 service other than Amazon's; else AWS_ENDPOINT_URL."""

    url: str
    endpoint: str = ""

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        scheme, base = self.url.partition(":")[0].partition("+")[0].lower(), self.url.rstrip("/")
        if self.endpoint and scheme != "s3":
            raise SourceError(f"{self.url} takes no endpoint {self.endpoint!r}: only s3:// does.")
        if not base.partition("://")[2].partition("/")[0]:
            raise SourceError(f"{self.url} names no bucket or server: write {self.url.partition(':')[0]}://NAME/PATH.")
        for library in _LOGGERS:  # they raise what they log, and logging would write it to standard error
            logging.getLogger(library).addHandler(logging.NullHandler())
        advice = f"Check the address and the credentials ({_CREDENTIALS[scheme]})."
        with source_errors(f"{self.url} cannot be listed", advice), ExitStack() as stack:
            with needs_extra(f"A source {scheme}://", "sources"):
                if scheme == "sftp":
                    files, root = _sftp(self.url, stack)
                elif scheme == "webdav":
                    files, root = _webdav(self.url.partition("+")[2], stack), ""
                else:
                    import fsspec

                    endpoint = {"endpoint_url": self.endpoint} if self.endpoint else {}
                    files = fsspec.filesystem(scheme, skip_instance_cache=True, **endpoint)
                    root = base.partition("://")[2]
            yield from (_tree if scheme in ("sftp", "webdav") else _objects)(files, root, base)


def _objects(files: Any, root: str, base: str) -> Iterator[Item | Verdict]:
    """The objects below `root`, by as few requests as the store allows."""
    found = files.find(root, detail=True)
    found = found if isinstance(found, dict) else {path: files.info(path) for path in found}  # adlfs, for a single blob
    if not found:  # there are no empty folders, so the address is more likely to be wrong
        raise SourceError(f"{base} holds no file, so nothing was changed. Check the address.")
    for path, info in found.items():
        below = path[len(root) :]
        if not path.endswith("/") and not is_left_out(below.removeprefix("/")):
            yield _item(files, base + below, path, info)


def _tree(files: Any, root: str, base: str) -> Iterator[Item | Verdict]:
    """The files below `root`, folder by folder. A folder below it that cannot be listed gets a verdict."""
    top = files.info(root)
    if top["type"] == "file":
        yield _item(files, base, root, top)
        return
    folders, seen = [root], {root}
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(files.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
        except Exception as error:
            if folder == root:
                raise
            yield Verdict(f"{base}/{folder[len(root) :].strip('/')}/", "failed", first_line(error)[:300])
            continue
        for info in entries:
            path = info["name"].rstrip("/")
            below = path[len(root) :].removeprefix("/")
            if path in seen or not path.startswith(f"{folder.rstrip('/')}/" if folder else "") or is_left_out(below):
                continue
            seen.add(path)
            if info["type"] == "directory":
                folders.append(path)
            elif info["type"] == "file":
                yield _item(files, f"{base}/{below}", path, info)
            else:
                yield Verdict(f"{base}/{below}", "skipped", f"a {info['type']}")
        if len(folders) > _MAX_FOLDERS:
            raise SourceError(f"{base} has more than {_MAX_FOLDERS:,} folders. Give the address of one of them.")


def _item(files: Any, name: str, path: str, info: Mapping[str, Any]) -> Item:
    time = next((info[key] for key in _TIMES if info.get(key)), "")
    modified = time.astimezone(UTC).isoformat() if isinstance(time, datetime) else str(time)
    stated = next((str(info[key]) for key in _FINGERPRINTS if info.get(key)), "")
    fingerprint = stated or (modified and f"{info['size']}:{modified}")
    read = partial(pieces, partial(files.open, path, "rb", block_size=_BLOCK_BYTES, size=info["size"]))
    return Item(name, fingerprint, read, PurePosixPath(path).suffix, {"modified": modified} if modified else {})


def _sftp(url: str, stack: ExitStack) -> tuple[Any, str]:
    """Only servers of ~/.ssh/known_hosts; their names, ports, users and keys may stand in ~/.ssh/config."""
    import paramiko
    from fsspec.implementations.sftp import SFTPFileSystem

    class KnownHosts(SFTPFileSystem):  # the one of fsspec trusts any server
        def _connect(self) -> None:
            self.client = stack.enter_context(paramiko.SSHClient())
            self.client.load_system_host_keys()
            times = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _TIMEOUT_S)
            self.client.connect(self.host, **times, **self.ssh_kwargs)
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(_TIMEOUT_S)

        def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
            stream = self.ftp.open(path, mode)
            if how["size"] < _MAX_PREFETCH_BYTES:  # it keeps a list of the parts
                stream.prefetch(how["size"], max_concurrent_requests=64)  # else each 32 kB wait for a reply
            return stream

    address, file = urlsplit(url), Path.home() / ".ssh" / "config"
    said = paramiko.SSHConfig.from_path(str(file)).lookup(address.hostname) if file.exists() else {}
    port, user = address.port or int(said.get("port", 22)), address.username or said.get("user")
    how = {"port": port, "username": user, "key_filename": said.get("identityfile"), "skip_instance_cache": True}
    return KnownHosts(said.get("hostname", address.hostname), **how), unquote(address.path).rstrip("/") or "/"


def _webdav(url: str, stack: ExitStack) -> Any:
    import httpx
    from webdav4.fsspec import WebdavFileSystem

    def stay(request: httpx.Request) -> None:
        if request.url.netloc != httpx.URL(url).netloc:
            there = f"{request.url.host}:{request.url.port or ''}".rstrip(":")
            raise SourceError(f"{url} leads to another server, {there}. Give that address if it is right.")

    netrc = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    how = {"timeout": _TIMEOUT_S, "event_hooks": {"request": [stay]}, "skip_instance_cache": True}
    files = WebdavFileSystem(url, auth=httpx.NetRCAuth(str(netrc)) if netrc.exists() else None, **how)
    stack.enter_context(files.client.http)
    return files
