"""Blobs in an S3-compatible bucket, through obstore."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from openbook.core.errors import ConfigError, StorageError, did_you_mean, needs_extra
from openbook.core.files import replacing
from openbook.knowledge.index.blobs import Entry, check_key

if TYPE_CHECKING:
    from obstore.store import S3Store

_CONNECT_S, _REQUEST_S, _RETRY_S = 3.0, 20.0, 10.0
_TRIES = 3  # after the first, within `_RETRY_S`
_PIECE = 8 << 20  # bytes per request: so `_REQUEST_S` bounds a store's slowness, not an object's size
_PIECES = 4  # at a time
_PARAMETERS = ("endpoint", "region")
_CODE, _STATUS = re.compile(r"<Code>(\w+)</Code>"), re.compile(r"status code: (\d{3}[ \w]*)")
_WHY = {
    "NoSuchBucket": "there is no such bucket",
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "InvalidAccessKeyId": "the store does not know this access key",
    "AccessDenied": "the store denies access; give credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY that may read and write it",
}
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,63}")
_SIGNED = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE")


def open_s3(url: str) -> S3Blobs:
    """Blobs below `s3://[KEY:SECRET@]BUCKET[/PREFIX][?endpoint=URL][&region=NAME]`. No request is sent yet.

    Without a key, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like are used; without these but with an endpoint,
    requests are unsigned. Raises ConfigError, whose text never holds credentials.
    """
    parts = urlsplit(url)
    bucket = parts.netloc.rpartition("@")[2]
    if not bucket:
        raise ConfigError("The URL of the storage names no bucket. Write s3://BUCKET/PREFIX")
    if not _BUCKET.fullmatch(bucket) or "@" in parts.path:  # a secret with a slash looks like this
        raise ConfigError(
            "The URL of the storage has no valid name of a bucket: 3 to 63 letters, digits, '.' and '-'. If it has credentials, set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead."
        )
    shown = f"s3://{bucket}{parts.path}"  # the rest may hold misplaced credentials
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _PARAMETERS:
            raise ConfigError(f"{shown}: there is no parameter {name!r}.{did_you_mean(name, _PARAMETERS)}")
    endpoint = options.get("endpoint", "")
    if endpoint and (urlsplit(endpoint).scheme not in ("http", "https") or "@" in endpoint):
        raise ConfigError(f"{shown}: the endpoint must be http://HOST:PORT or https://HOST, without credentials.")
    if bool(parts.username) != bool(parts.password):
        raise ConfigError(f"{shown}: credentials are KEY:SECRET@ before the bucket, both of them.")
    with needs_extra(shown, "cluster"):
        from obstore.store import S3Store
    config: dict[str, Any] = {name: value for name, value in options.items() if value}
    if parts.username:
        config |= {"access_key_id": unquote(parts.username), "secret_access_key": unquote(parts.password or "")}
    elif endpoint and not any(os.environ.get(name) for name in _SIGNED):
        config["skip_signature"] = True
    store = S3Store(
        bucket,
        prefix=unquote(parts.path).strip("/") or None,
        client_options={
            "allow_http": endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "timeout": timedelta(seconds=_REQUEST_S),
        },
        retry_config={"max_retries": _TRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
        **config,
    )
    query = urlencode({name: options[name] for name in _PARAMETERS if options.get(name)}, safe="/:")
    return S3Blobs(store, f"{shown}?{query}" if query else shown)


class S3Blobs:
    """`Blobs` in a bucket. Thread-safe."""

    def __init__(self, store: S3Store, url: str) -> None:
        self.url, self._store = url, store

    def get(self, key: str) -> bytes:
        with self._errors(key):
            return bytes(self._store.get(check_key(key)).bytes())

    def fetch(self, key: str, path: Path) -> None:
        with self._errors(key):
            size = int(self._store.head(check_key(key))["size"])
        with replacing(path) as stream:
            for start in range(0, size, _PIECE):
                with self._errors(key):
                    piece = self._store.get_range(key, start=start, end=min(start + _PIECE, size))
                stream.write(piece)

    def put(self, key: str, data: bytes | Path, *, if_absent: bool = False) -> bool:
        from obstore.exceptions import AlreadyExistsError

        check_key(key)
        mode = "create" if if_absent else "overwrite"
        with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as source, self._errors(key):
            try:
                self._store.put(key, source, mode=mode, chunk_size=_PIECE, max_concurrency=_PIECES)
            except AlreadyExistsError:
                return False
        return True

    def delete(self, key: str) -> None:
        with suppress(KeyError), self._errors(key):
            self._store.delete(check_key(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        folder = prefix.rpartition("/")[
            0
        ]  # obstore lists by whole path segments; what follows the last `/` is compared here
        with self._errors(prefix):
            found = [each for chunk in self._store.list(folder or None) for each in chunk]
        found.sort(key=lambda each: each["path"])
        for each in found:
            if each["path"].startswith(prefix):
                yield Entry(each["path"], each["size"], each["last_modified"].timestamp())

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            code, status = (found[1] if (found := each.search(str(error))) else "" for each in (_CODE, _STATUS))
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise KeyError(key) from None
            said = code or status.strip()
            why = _WHY.get(code) or (
                f"it answers {said}" if said else "it cannot be reached, or does not answer in time"
            )
            raise StorageError(f"Cannot use {self.url}: {why}.") from None
