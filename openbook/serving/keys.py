"""API keys `ob-<id>-<secret>`, shown once and kept as hashes (docs/formats/api-keys.md).

The public id appears in logs and owns uploads. The secret has 256 random bits, so one SHA-256 is as good as a slow
hash.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from openbook.core.codec import decode
from openbook.core.errors import ConfigError, QuestionError, StorageError, did_you_mean
from openbook.core.files import make_folder, replace_file, storage_errors
from openbook.core.locks import exclusive_lock
from openbook.core.records import Digest, sha256_hex
from openbook.knowledge.index.scope import checked_labels

FILE_NAME = "api-keys.json"
FORMAT = 2
MAX_KEY_CHARS = 200
MAX_DAYS = 36_500
_LOCK_TIMEOUT_S = 30.0

Right: TypeAlias = Literal["read", "write", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)  # each includes those to its left

_KEY = re.compile(r"ob-([0-9a-f]{8})-([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key's record. `created_at`: when the secret was made. It is refused from `expires_at` on; None: it never expires."""

    id: str
    name: str
    hash: Digest
    right: Right
    labels: tuple[str, ...]
    created_at: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class _File:
    format: int
    keys: tuple[ApiKey, ...]


class KeyFile:
    """The keys of one home folder. Thread-safe; sees changes by other processes at once."""

    def __init__(self, home: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = home / FILE_NAME
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._keys: tuple[ApiKey, ...] = ()

    def keys(self) -> tuple[ApiKey, ...]:
        """All keys. Raises ConfigError when the file is damaged: then no key is accepted."""
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
        """The key of `token`, compared in constant time, or None. It may have expired: see `days_left`."""
        match = _KEY.fullmatch(token[:MAX_KEY_CHARS])
        key_id, digest = (match[1] if match else ""), sha256_hex(token.encode("utf-8", "surrogatepass"))
        found = None
        for key in self.keys():  # all of them, so that the time does not reveal which ids exist
            if hmac.compare_digest(key.hash, digest) and key.id == key_id:
                found = key
        return found

    def days_left(self, key: ApiKey) -> int | None:
        """Days until the key expires, rounded up. 0: it has expired; None: it never expires."""
        if key.expires_at is None:
            return None
        left = datetime.fromisoformat(key.expires_at) - self._clock()
        return max(0, math.ceil(left / timedelta(days=1)))

    def new(self, name: str, right: str, labels: Iterable[str] = (), *, days: int | None = None) -> tuple[ApiKey, str]:
        """Return (record, token); the token is stored nowhere. `days`: lifetime; None: unlimited. Raises ConfigError, QuestionError."""
        if not _NAME.fullmatch(name):
            raise ConfigError(f"The name of a key is 1 to 64 printable characters, not {name!r}.")
        if right not in RIGHTS:
            raise ConfigError(f"Unknown right {right!r}.{did_you_mean(right, RIGHTS)} There are: {', '.join(RIGHTS)}.")
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise ConfigError(f"A key lasts 1 to {MAX_DAYS:,} days, not {days}.")
        held = tuple(sorted(checked_labels(labels)))
        with self._edit() as keys:
            while (key_id := secrets.token_hex(4)) in keys:
                pass
            lasts = None if days is None else timedelta(days=days)
            blank = ApiKey(key_id, name, "", right, held, "", None)
            keys[key_id], token = self._with_secret(blank, lasts)
        return keys[key_id], token

    def rotate(self, key_id: str) -> tuple[ApiKey, str]:
        """Replace the secret now, with the same lifetime. Raises ConfigError for an unknown id."""
        with self._edit() as keys:
            old = _named(key_id, keys)
            lasts: timedelta | None = None
            if old.expires_at is not None:
                lasts = datetime.fromisoformat(old.expires_at) - datetime.fromisoformat(old.created_at)
            keys[key_id], token = self._with_secret(old, lasts)
        return keys[key_id], token

    def revoke(self, key_id: str) -> ApiKey:
        """Delete the key. Raises ConfigError for an unknown id."""
        with self._edit() as keys:
            return keys.pop(_named(key_id, keys).id)

    def _with_secret(self, key: ApiKey, lasts: timedelta | None) -> tuple[ApiKey, str]:
        token = f"ob-{key.id}-{secrets.token_urlsafe(32)}"
        now = self._clock().replace(microsecond=0)
        ends = None if lasts is None else (now + lasts).isoformat()
        return replace(key, hash=sha256_hex(token.encode()), created_at=now.isoformat(), expires_at=ends), token

    @contextmanager
    def _edit(self) -> Iterator[dict[str, ApiKey]]:
        """Keys by id, under a lock; written if the block succeeds."""
        with storage_errors(f"write the keys in {self.path}"):
            make_folder(self.path.parent)
            with exclusive_lock(self.path.with_name(".lock"), _LOCK_TIMEOUT_S) as held:
                if not held:
                    raise StorageError(
                        f"Another process is changing the keys in {self.path}. Wait for it, then try again."
                    )
                keys = {key.id: key for key in self.keys()}
                yield keys
                value = {"format": FORMAT, "keys": [asdict(key) for key in keys.values()]}
                replace_file(self.path, json.dumps(value, indent=1).encode() + b"\n", mode=0o600)


def _named(key_id: str, keys: dict[str, ApiKey]) -> ApiKey:
    if key_id not in keys:
        raise ConfigError(f"No key {key_id!r}.{did_you_mean(key_id, keys)} To list them: openbook keys list")
    return keys[key_id]


def _parsed(data: bytes, path: Path) -> tuple[ApiKey, ...]:
    try:
        file = decode(data, _File, "The file", ValueError)
        if file.format != FORMAT:
            raise ValueError(f"format {file.format}")
        for key in file.keys:
            checked_labels(key.labels)
            times = [datetime.fromisoformat(each) for each in (key.created_at, key.expires_at) if each is not None]
            if not re.fullmatch(r"[0-9a-f]{64}", key.hash) or any(each.tzinfo is None for each in times):
                raise ValueError(f"the key {key.id}")
        if len({key.id for key in file.keys}) < len(file.keys):
            raise ValueError("two keys of one id")
    except (ValueError, QuestionError) as error:
        raise ConfigError(
            f"{path} is not a valid key file ({error}). Restore it from a backup, or use the OpenBook that wrote it; or delete it "
            "and make new keys: openbook keys new NAME"
        ) from error
    return file.keys
