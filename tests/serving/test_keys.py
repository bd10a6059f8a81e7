"""Keys that expire, keys that get a new secret, and the file that keeps them. The clock is an argument."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import openbook.serving.keys
from openbook.core.errors import ConfigError, StorageError
from openbook.core.locks import exclusive_lock
from openbook.serving.keys import FILE_NAME, KeyFile
from tests.serving.conftest import Running, code
from tests.serving.test_documents import TOWER, upload

GOLDEN = Path(__file__).parent.parent / "golden"
START = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
TOKEN = "ob-0badc0de-golden-secret-of-format-1__________________"


class Clock:
    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def test_key_expires_to_the_second_or_never(tmp_path: Path) -> None:
    clock = Clock()
    keys = KeyFile(tmp_path, clock)
    ends, token = keys.new("Anna", "read", days=7)
    stays, _ = keys.new("Bert", "read")
    assert (ends.expires_at, stays.expires_at) == ("2026-11-08T09:30:00+00:00", None)
    for days, seconds, left in ((0, 0, 7), (0, 1, 7), (6, 0, 1), (7, -1, 1), (7, 0, 0), (700, 0, 0)):
        clock.at = START + timedelta(days=days, seconds=seconds)
        assert (keys.days_left(ends), keys.days_left(stays)) == (left, None), days
    assert keys.find(token) == ends  # known still: so that its holder can be told


def test_invalid_keys_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyFile(tmp_path)
    for days in (0, -1, 36_501, 10**12):
        with pytest.raises(ConfigError, match="days"):
            keys.new("Anna", "read", days=days)
    for name, right in (("", "read"), ("a\nb", "read"), ("x", "raed")):
        with pytest.raises(ConfigError):
            keys.new(name, right)
    for unknown in (keys.revoke, keys.rotate):
        with pytest.raises(ConfigError, match="keys list"):
            unknown("nobody")
    assert keys.keys() == ()
    monkeypatch.setattr(openbook.serving.keys, "_LOCK_TIMEOUT_S", 0.1)
    with exclusive_lock(tmp_path / ".lock", 1.0), pytest.raises(StorageError, match=r"keys in .*api-keys\.json"):
        keys.new("Anna", "read")


def test_server_refuses_an_expired_key_and_tells_only_its_holder(keyed: Running) -> None:
    home, ten_days_ago = keyed.keys.path.parent, Clock(datetime.now(UTC) - timedelta(days=10))
    for days, status in ((11, 200), (10, 401)):
        key, token = KeyFile(home, ten_days_ago).new("Anna", "read", days=days)
        response = keyed.get("/v1/models", {"authorization": f"Bearer {token}"})
        assert response.status_code == status, days
    assert code(response) == (401, "expired_api_key")
    told = response.json()["error"]["message"]
    assert (str(key.expires_at)[:10] in told, f"openbook keys rotate {key.id}" in told) == (True, True)
    assert code(keyed.get("/v1/models", {"authorization": f"Bearer {token[:-1]}_"})) == (401, "invalid_api_key")


def test_new_secret_keeps_the_holder_and_ends_the_old_one(tmp_path: Path, keyed: Running) -> None:
    clock = Clock()
    keys = KeyFile(tmp_path, clock)
    old, before = keys.new("Anna", "write", ["hr"], days=30)
    other, untouched = keys.new("Bert", "read")
    clock.at += timedelta(days=40)  # also one that has expired
    new, after = keys.rotate(old.id)
    assert (new.id, new.name, new.right, new.labels) == (old.id, "Anna", "write", ("hr",))
    assert (keys.find(before), keys.find(after), keys.find(untouched)) == (None, new, other)
    assert (new.expires_at, keys.keys()) == ((clock.at + timedelta(days=30)).isoformat(), (new, other))
    assert keys.rotate(other.id)[0].expires_at is None
    key, token = keyed.keys.new("Anna", "write")
    upload(keyed, ("tower.txt", TOWER), headers=(first := {"authorization": f"Bearer {token}"}))
    second = {"authorization": f"Bearer {keyed.keys.rotate(key.id)[1]}"}
    assert keyed.get("/v1/models", first).status_code == 401
    (changed,) = upload(keyed, ("tower.txt", TOWER + b" It is red."), headers=second)
    assert changed["outcome"] == "updated"  # it still owns its uploads


def test_concurrent_changes_lose_no_key(tmp_path: Path) -> None:
    first, _ = KeyFile(tmp_path).new("first", "read")

    def work(number: int) -> str:
        keys = KeyFile(tmp_path)
        if number % 3 == 0:
            keys.rotate(first.id)
        return keys.new(f"n{number}", "read")[1]

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(work, range(12)))
    keys = KeyFile(tmp_path)
    assert len(keys.keys()) == 13
    assert all(keys.find(token) for token in found)


def test_current_file_is_the_golden_one(tmp_path: Path) -> None:
    golden = (GOLDEN / "api-keys-2.json").read_bytes()
    (tmp_path / FILE_NAME).write_bytes(golden)
    keys = KeyFile(tmp_path, Clock())
    keys.revoke(keys.new("gone again", "read")[0].id)
    assert keys.path.read_bytes() == golden
    found = keys.keys()
    assert [key.expires_at for key in found] == [None, "2026-12-31T09:30:00+00:00"]


def test_damaged_or_ambiguous_file_admits_no_one(tmp_path: Path) -> None:
    text = (GOLDEN / "api-keys-2.json").read_text()
    for old, new in (
        ('"format": 2', '"format": 3'),
        ('"format": 2', '"format": 1'),
        ('"right": "write"', '"right": "root"'),
        ('"expires_at": null', '"expires_at": "soon"'),
        ('"expires_at": null', '"expires_at": "2026-12-31T09:30:00"'),  # of no zone
        ('"expires_at": null', '"expires_in": null'),
        ('"expires_at": "2026-12-31', '"expires_at": null, "expires_at": "2026-12-31'),  # twice
        ('"id": "00c0ffee"', '"id": "0badc0de"'),
        ('"labels": []', '"labels": "hr"'),
    ):
        assert old in text
        (tmp_path / FILE_NAME).write_text(text.replace(old, new, 1))
        keys = KeyFile(tmp_path)
        for attempt in (keys.keys, lambda keys=keys: keys.find(TOKEN), lambda keys=keys: keys.new("Eve", "admin")):
            with pytest.raises(ConfigError, match="is not a valid key file"):
                attempt()


def test_file_holds_no_secret_and_only_its_owner_reads_it_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        keys = KeyFile(tmp_path / "home")
        key, token = keys.new("Anna", "read")
        assert token.split("-", 2)[2] not in keys.path.read_text()  # the secret itself may hold a dash
        for change in (lambda: keys.new("Bert", "read"), lambda: keys.rotate(key.id), lambda: keys.revoke(key.id)):
            assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
            keys.path.chmod(0o666)
            change()
        assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
        assert os.umask(0) == 0  # of the process, whose other threads write meanwhile
    finally:
        os.umask(mask)
