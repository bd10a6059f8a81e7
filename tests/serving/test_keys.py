"""Keys that end, keys that get a new secret, and the file that keeps them. The clock is an argument."""

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
from tests.serving.conftest import Running
from tests.serving.test_documents import TOWER, upload

GOLDEN = Path(__file__).parent.parent / "golden"
START = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)


class Clock:
    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def test_a_key_ends_to_the_second_and_one_without_days_does_not(tmp_path: Path) -> None:
    clock = Clock()
    keys = KeyFile(tmp_path, clock)
    ends, token = keys.new("Anna", "read", days=7)
    stays, _ = keys.new("Bert", "read")
    assert (ends.expires_at, stays.expires_at) == ("2026-11-08T09:30:00+00:00", None)
    for after, left in (
        (timedelta(), 7),
        (timedelta(seconds=1), 7),
        (timedelta(days=6), 1),
        (timedelta(days=7, seconds=-1), 1),
        (timedelta(days=7), 0),
        (timedelta(days=700), 0),
    ):
        clock.at = START + after
        assert keys.days_left(ends) == left, after
        assert keys.days_left(stays) is None
    assert keys.find(token) == ends  # known still: so that its holder can be told


def test_a_key_file_that_another_process_changes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openbook.serving.keys, "_LOCK_TIMEOUT_S", 0.1)
    with exclusive_lock(tmp_path / ".lock", 1.0), pytest.raises(StorageError, match=r"keys in .*api-keys\.json"):
        KeyFile(tmp_path).new("Anna", "read")


def test_what_makes_no_key(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    for days in (0, -1, 36_501, 10**12):
        with pytest.raises(ConfigError, match="days"):
            keys.new("Anna", "read", days=days)
    for name, right in (("", "read"), ("a\nb", "read"), ("x", "raed")):
        with pytest.raises(ConfigError):
            keys.new(name, right)
    with pytest.raises(ConfigError, match="keys list"):
        keys.revoke("nobody")
    assert keys.keys() == ()


def test_the_server_refuses_a_key_from_its_end_on_and_says_so(keyed: Running) -> None:
    home, ten_days_ago = keyed.keys.path.parent, Clock(datetime.now(UTC) - timedelta(days=10))
    for days, status in ((11, 200), (10, 401), (1, 401)):
        key, token = KeyFile(home, ten_days_ago).new("Anna", "read", days=days)
        response = keyed.client.get("/v1/models", headers={"authorization": f"Bearer {token}"})
        assert response.status_code == status, days
        if status == 401:
            error = response.json()["error"]
            assert error["code"] == "expired_api_key"
            assert str(key.expires_at)[:10] in error["message"]
            assert f"openbook keys rotate {key.id}" in error["message"]
            assert response.headers["www-authenticate"] == "Bearer"
            wrong = keyed.client.get("/v1/models", headers={"authorization": f"Bearer {token[:-1]}_"})
            assert wrong.json()["error"]["code"] == "invalid_api_key"  # only who has the secret is told


def test_a_new_secret_keeps_who_somebody_is_and_ends_the_old_one_at_once(tmp_path: Path) -> None:
    clock = Clock()
    keys = KeyFile(tmp_path, clock)
    old, before = keys.new("Anna", "write", ["hr"], days=30)
    other, untouched = keys.new("Bert", "read")
    clock.at += timedelta(days=40)  # also one that ended
    new, after = keys.rotate(old.id)
    assert (new.id, new.name, new.right, new.labels) == (old.id, "Anna", "write", ("hr",))
    assert keys.find(before) is None
    assert keys.find(after) == new
    assert new.expires_at == (clock.at + timedelta(days=30)).isoformat()
    assert keys.find(untouched) == other
    assert keys.keys() == (new, other)
    forever, _ = keys.rotate(other.id)
    assert forever.expires_at is None
    with pytest.raises(ConfigError, match="keys list"):
        keys.rotate("nobody")


def test_whoever_gets_a_new_secret_still_owns_the_documents(keyed: Running) -> None:
    key, token = keyed.keys.new("Anna", "write")
    before = {"authorization": f"Bearer {token}"}
    upload(keyed, ("tower.txt", TOWER), headers=before)
    after = {"authorization": f"Bearer {keyed.keys.rotate(key.id)[1]}"}
    assert keyed.client.get("/v1/models", headers=before).status_code == 401
    (changed,) = upload(keyed, ("tower.txt", TOWER + b" It is red."), headers=after)
    assert changed["outcome"] == "updated"  # in place of the old one, not beside it


def test_several_who_change_keys_at_once_lose_none(tmp_path: Path) -> None:
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


def test_the_file_of_now_is_the_golden_one(tmp_path: Path) -> None:
    golden = (GOLDEN / "api-keys-2.json").read_bytes()
    (tmp_path / FILE_NAME).write_bytes(golden)
    keys = KeyFile(tmp_path, Clock())
    key, _ = keys.new("gone again", "read")
    keys.revoke(key.id)
    assert keys.path.read_bytes() == golden
    found = keys.keys()
    assert [key.expires_at for key in found] == [None, "2026-12-31T09:30:00+00:00"]


TOKEN = "ob-0badc0de-golden-secret-of-format-1__________________"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 2', '"format": 1'),
        ('"format": 2', '"format": 3'),
        ('"right": "write"', '"right": "root"'),
        ('"expires_at": null', '"expires_at": "soon"'),
        ('"expires_at": null', '"expires_at": "2026-12-31T09:30:00"'),  # of no zone
        ('"expires_at": null', '"expires_in": null'),
        ('"expires_at": "2026-12-31', '"expires_at": null, "expires_at": "2026-12-31'),  # as it says later
        ('"id": "00c0ffee"', '"id": "0badc0de"'),
        ('"labels": []', '"labels": "hr"'),
    ],
)
def test_a_file_of_keys_that_may_be_read_in_two_ways_lets_nobody_in(tmp_path: Path, old: str, new: str) -> None:
    text = (GOLDEN / "api-keys-2.json").read_text()
    assert old in text
    (tmp_path / FILE_NAME).write_text(text.replace(old, new, 1))
    keys = KeyFile(tmp_path)
    for attempt in (keys.keys, lambda: keys.find(TOKEN), lambda: keys.new("Eve", "admin")):
        with pytest.raises(ConfigError, match="is not a valid key file"):
            attempt()


def test_it_holds_no_secret_and_is_the_owners_alone_whatever_the_umask_and_the_mode_before(tmp_path: Path) -> None:
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
