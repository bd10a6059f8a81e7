"""Purging everywhere: one that is refused has deleted nothing, and one that was killed is finished by running it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from openbook.errors import KnowledgeBaseBusy, KnowledgeError, StorageError
from openbook.inference.states import States
from openbook.knowledge import KnowledgeBase, add, schema
from openbook.knowledge.cached import for_documents
from openbook.knowledge.locking import file_lock
from openbook.models import ModelStore
from openbook.purging import Places, finish, purge_everywhere
from openbook.runs import DOCUMENTS
from openbook.testing import HashEmbedder

SECRET = "The safe of the harbour office opens with the number zeppelin-7341."
OTHER = "The bridge is 40 metres long."


class Killed(BaseException):
    """What ends a process, as far as the code can tell."""


@dataclass(frozen=True)
class Home:
    """A knowledge base of `docs`, and traces of the secret in every place that a purge looks into."""

    folder: Path
    base: KnowledgeBase
    places: Places
    secret: str
    embedder: HashEmbedder

    def bytes(self) -> dict[str, bytes]:
        """Of each file but those that SQLite and locks keep beside what they are for."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {str(path): path.read_bytes() for path in found if path.parent != self.base.folder}

    def purge(self, lock_timeout_s: float = 0.2, *, copies: bool = False) -> None:
        purge_everywhere(self.base, [self.secret], self.places, copies=copies, lock_timeout_s=lock_timeout_s)

    def state_is_kept(self) -> bool:
        states = States(self.places.states.folder)
        states.begin()
        return states.get(b"k" * 32) is not None

    def keep_a_state(self) -> None:
        states = States(self.places.states.folder)
        digests = [passage.digest for passage in self.base.passages(self.secret)]
        states.put(b"k" * 32, b"what was read of zeppelin", digests, states.begin())

    def is_clean(self) -> bool:
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.name != "secret.txt")
        return not any(b"zeppelin" in path.read_bytes() for path in files)


@pytest.fixture
def home(tmp_path: Path, embedder: HashEmbedder) -> Home:
    folder = tmp_path / "home"
    docs = folder / "docs"
    docs.mkdir(parents=True)
    (docs / "secret.txt").write_text(SECRET)
    (docs / "bridge.txt").write_text(OTHER)
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    add(base, [docs], embedder)
    for_documents([docs], folder / "cache", embedder)[0].close()
    states = States(folder / "states")
    places = Places(folder / "cache", folder / "runs", folder / "diagnoses", states, ModelStore(folder / "models"))
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "runs" / "one" / DOCUMENTS).write_text(json.dumps({"text": SECRET}) + "\n")
    for name, text in (("shows", SECRET), ("another", OTHER)):
        (folder / "diagnoses" / name).mkdir(parents=True)
        lines = [{"format": 1}, {"passages": [{"text": text}]}]
        (folder / "diagnoses" / name / "observations-a.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        (folder / "diagnoses" / name / "report.html").write_text(text)
    made = Home(folder, base, places, f"{docs}/secret.txt", embedder)
    made.keep_a_state()
    assert made.state_is_kept()
    return made


def test_a_purge_leaves_nothing_anywhere(home: Home) -> None:
    assert not home.is_clean()
    done = purge_everywhere(home.base, [home.secret], home.places)
    assert (done.caches, done.states, done.diagnoses) == (2, 1, 1)
    assert home.is_clean()
    assert not home.state_is_kept()
    assert (home.folder / "diagnoses" / "another" / "report.html").exists()


def _copy(home: Home) -> str:
    (home.folder / "docs" / "copy.txt").write_text(SECRET)
    add(home.base, [home.folder / "docs"], home.embedder)
    return "--copies"


def _reader(home: Home) -> str:
    reader = schema.connect(home.base.folder, writable=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM contents").fetchone()
    return "holds on to older pages"


def _index_elsewhere(home: Home) -> str:
    (home.base.folder / "index").rename(home.folder / "elsewhere")
    (home.base.folder / "index").symlink_to(home.folder / "elsewhere")
    return "is a link"


def _documents_that_cannot_be_read(home: Home) -> str:
    (home.folder / "runs" / "two" / DOCUMENTS).mkdir(parents=True)
    return "Cannot read the documents"


def _diagnosis_behind_a_link(home: Home) -> str:
    place = home.folder / "diagnoses" / "shows"
    place.rename(home.folder / "moved")
    place.symlink_to(home.folder / "moved")
    return "is a link to a folder"


@pytest.mark.parametrize(
    "refusing", [_copy, _reader, _index_elsewhere, _documents_that_cannot_be_read, _diagnosis_behind_a_link]
)
def test_a_refused_purge_has_deleted_nothing(home: Home, refusing: Callable[[Home], str]) -> None:
    said = refusing(home)
    before, version = home.bytes(), home.base.version
    with pytest.raises((KnowledgeError, StorageError), match=said):
        home.purge()
    assert home.bytes() == before
    assert (home.base.version, home.base.text(home.secret)) == (version, SECRET)
    assert home.state_is_kept()


def test_a_purge_that_waits_for_another_writer_has_deleted_nothing(home: Home) -> None:
    before = home.bytes()
    with file_lock(home.base.folder, 1.0), pytest.raises(KnowledgeBaseBusy):
        home.purge()
    assert home.bytes() == before
    assert home.state_is_kept()


def test_a_purge_of_an_unknown_document_has_deleted_nothing(home: Home) -> None:
    before = home.bytes()
    with pytest.raises(KnowledgeError, match="No document"):
        purge_everywhere(home.base, ["nothing.txt"], home.places)
    assert home.bytes() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="who is root may delete everything")
def test_a_purge_that_may_not_delete_a_cache_has_deleted_nothing(home: Home) -> None:
    before = home.bytes()
    (home.folder / "cache" / "docs").chmod(0o500)
    try:
        with pytest.raises(StorageError, match="permission denied"):
            home.purge()
    finally:
        (home.folder / "cache" / "docs").chmod(0o700)
    assert home.bytes() == before


@pytest.mark.parametrize("of", range(1, 6))  # a state, a cache's mark and name, a run's documents, a diagnosis' name
def test_a_purge_that_was_killed_while_it_deletes_elsewhere_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, of: int
) -> None:
    calls = 0

    def killing(taking: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == of:
                raise Killed
            return taking(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killing(Path.unlink))
        patched.setattr(Path, "rename", killing(Path.rename))
        with pytest.raises(Killed):
            home.purge()
    assert home.base.text(home.secret) == SECRET  # so that it still says what to look for
    home.purge()
    assert home.is_clean()
    assert not home.state_is_kept()


@pytest.mark.parametrize("of", [1, 2])
def test_a_folder_that_was_half_deleted_goes_with_the_next_purge(
    home: Home, monkeypatch: pytest.MonkeyPatch, of: int
) -> None:
    calls = 0

    def killed(folder: Path) -> None:
        nonlocal calls
        calls += 1
        next(folder.glob("*.*")).unlink()
        if calls == of:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("openbook.models.durable.shutil.rmtree", killed)
        with pytest.raises(Killed):
            home.purge()
    assert list(home.folder.rglob(".deleting-*"))
    home.purge()
    assert home.is_clean()
    assert not list(home.folder.rglob(".deleting-*"))


def test_what_was_read_between_is_forgotten_when_a_killed_purge_is_finished(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [passage.digest for passage in home.base.passages(home.secret)]

    def killed(self: KnowledgeBase, connection: object, timeout_s: float) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(KnowledgeBase, "forget", killed)
        with pytest.raises(Killed):
            home.purge()
    states = States(home.folder / "states")  # a request that found the passages before the documents left the versions
    states.put(b"k" * 32, b"what was read of zeppelin", digests, states.begin())
    assert home.state_is_kept()
    assert finish(home.base, home.places)
    assert not finish(home.base, home.places)
    assert home.is_clean()
    assert not home.state_is_kept()
