"""API keys: shown once, kept as hashes in `<home>/api-keys.json`.

A key is `ob-<id>-<secret>`: the id is public and names it in logs, the secret has 256 random bits, so one round of
SHA-256 is as good as a slow hash.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from openbook.errors import ConfigError, did_you_mean
from openbook.knowledge.locking import file_lock
from openbook.knowledge.scope import checked_labels
from openbook.models.durable import replace_file, storage_errors
from openbook.records import Digest, sha256_hex

FILE_NAME = "api-keys.json"
FORMAT = 1
MAX_KEY_CHARS = 200

Right: TypeAlias = Literal["read", "write", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)  # each includes those before it

_KEY = re.compile(r"ob-([0-9a-f]{8})-([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key. `labels`: the access labels that its holder may see."""

    id: str
    name: str
    hash: Digest
    right: Right
    labels: tuple[str, ...]
    created_at: str


def looks_like_key(token: str) -> bool:
    return token.startswith("ob-")


class KeyFile:
    """The keys of one home folder. Safe to use from several threads; what another process changes is seen at once."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE_NAME
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._keys: tuple[ApiKey, ...] = ()

    def keys(self) -> tuple[ApiKey, ...]:
        """Raises ConfigError when the file is damaged: then nobody gets in. StorageError."""
        with self._lock, storage_errors(f"read the keys in {self.path}"):
            try:
                status = self.path.stat()
            except FileNotFoundError:
                return ()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._keys = _parsed(self.path.read_bytes(), self.path)
                self._seen = seen
            return self._keys

    def find(self, token: str) -> ApiKey | None:
        """The key that `token` is, compared in constant time, or None."""
        match = _KEY.fullmatch(token[:MAX_KEY_CHARS])
        name, digest = (match[1] if match else ""), sha256_hex(token.encode("utf-8", "surrogatepass"))
        found = None
        for key in self.keys():  # all of them, so that the time does not tell which ids there are
            if hmac.compare_digest(key.hash, digest) and key.id == name:
                found = key
        return found

    def new(self, name: str, right: str, labels: Iterable[str] = ()) -> tuple[ApiKey, str]:
        """(what is kept, the key itself, which is nowhere else). Raises ConfigError, QuestionError, StorageError."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"The name of a key is 1 to 64 printable characters, not {name!r}.")
        if right not in RIGHTS:
            raise ConfigError(f"{right!r} is no right.{did_you_mean(right, RIGHTS)} There are: {', '.join(RIGHTS)}.")
        token = f"ob-{secrets.token_hex(4)}-{secrets.token_urlsafe(32)}"
        at = datetime.now(UTC).isoformat(timespec="seconds")
        held = tuple(sorted(checked_labels(labels)))
        key = ApiKey(token[3:11], name, sha256_hex(token.encode()), RIGHTS[RIGHTS.index(right)], held, at)
        self._change(lambda keys: (*keys, key))
        return key, token

    def revoke(self, key_id: str) -> ApiKey:
        """Raises ConfigError when there is none of that id."""
        found = {key.id: key for key in self.keys()}
        if key_id not in found:
            raise ConfigError(f"No key {key_id!r}.{did_you_mean(key_id, found)} To list them: openbook keys list")
        self._change(lambda keys: tuple(key for key in keys if key.id != key_id))
        return found[key_id]

    def _change(self, change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> None:
        with storage_errors(f"write the keys in {self.path}"):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with file_lock(self.path.parent, 30.0):
                keys = [asdict(key) for key in change(self.keys())]
                data = json.dumps({"format": FORMAT, "keys": keys}, indent=1).encode() + b"\n"
                mask = os.umask(0o077)
                try:
                    replace_file(self.path, data)
                finally:
                    os.umask(mask)


def _parsed(data: bytes, path: Path) -> tuple[ApiKey, ...]:
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}")
        keys = tuple(ApiKey(**{**each, "labels": tuple(each["labels"])}) for each in value["keys"])
        for key in keys:
            checked_labels(key.labels)
            if key.right not in RIGHTS or not re.fullmatch(r"[0-9a-f]{64}", key.hash):
                raise ValueError(f"the key {key.id}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a file of keys ({error}). Delete it and make new ones: openbook keys new"
        ) from error
    return keys
