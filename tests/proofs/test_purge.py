"""Purging everywhere: one that is refused has deleted nothing, and one that was killed is finished by running it again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest

from openbook.core.config import Settings
from openbook.core.derived import DerivedFolder
from openbook.core.errors import KnowledgeBaseBusy, KnowledgeError, StorageError
from openbook.core.files import replacing
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, RunOptions, add
from openbook.knowledge.docs_cache import for_documents
from openbook.knowledge.erasure import purge_is_unfinished
from openbook.knowledge.store import schema
from openbook.knowledge.store.write_lock import file_lock
from openbook.knowledge.versions import tag
from openbook.models.lineage import Membership
from openbook.models.runs import DOCUMENTS
from openbook.proofs import absence
from openbook.proofs import purge as purge_module
from openbook.proofs.purge import PurgedEverywhere, finish_purge_everywhere, proof_of, purge_everywhere
from openbook.testing import HashEmbedder
from tests.conftest import base_with

SECRET = "The safe of the harbour office opens with the number zeppelin-7341."
OTHER = "The bridge is 40 metres long."
NOT_ROOT = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="who is root may do everything")


class Killed(BaseException):
    """What ends a process, as far as the code can tell."""


@dataclass(frozen=True)
class Home:
    """A knowledge base of `docs`, and traces of the secret in every place that a purge looks into."""

    folder: Path
    base: KnowledgeBase
    settings: Settings
    secret: str
    embedder: HashEmbedder

    def contents(self) -> dict[str, bytes]:
        """Of each file but those that SQLite and locks keep beside what they are for."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {str(path): path.read_bytes() for path in found if path.parent != self.base.folder}

    def purge(self, document: str = "") -> PurgedEverywhere:
        return purge_everywhere(self.base, [document or self.secret], self.settings, lock_timeout_s=0.2)

    def killed_purge(self) -> None:
        with pytest.raises(Killed):
            self.purge()

    @property
    def states(self) -> KVCache:
        """As another process has it."""
        return KVCache(self.settings.derived_dir)

    def keep_a_state(self) -> None:
        states = self.states
        states.put(b"k" * 32, b"what was read of zeppelin", states.purge_mark())

    def state_is_kept(self) -> bool:
        return self.states.get(b"k" * 32) is not None

    def is_clean(self) -> bool:
        files = (path for path in self.folder.rglob("*") if path.is_file() and path.name != "secret.txt")
        return not any(b"zeppelin" in path.read_bytes() for path in files)


@pytest.fixture
def home(tmp_path: Path, embedder: HashEmbedder) -> Home:
    folder, docs = tmp_path / "home", tmp_path / "docs"
    base = base_with(docs, {"secret.txt": SECRET, "bridge.txt": OTHER}, place=folder / "kb")
    for_documents([docs], folder / "derived", embedder)[0].close()
    (folder / "runs" / "one").mkdir(parents=True)
    (folder / "runs" / "one" / DOCUMENTS).write_text(json.dumps({"text": SECRET}) + "\n")
    for name, text in (("shows", SECRET), ("another", OTHER)):
        (folder / "diagnoses" / name).mkdir(parents=True)
        lines = [{"format": 1}, {"passages": [{"text": text}]}]
        (folder / "diagnoses" / name / "observations-a.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        (folder / "diagnoses" / name / "report.html").write_text(text)
    made = Home(folder, base, Settings(folder), f"{docs}/secret.txt", embedder)
    made.keep_a_state()
    assert made.state_is_kept()
    return made


def test_a_purge_leaves_nothing_anywhere(home: Home) -> None:
    assert not home.is_clean()
    for place in (home.folder, home.folder / "diagnoses"):  # what a killed process was writing
        (place / ".x.json.99999999-0123abcd").write_text(SECRET)
    deleted = home.purge().deleted
    assert deleted.unfinished == 2
    assert (deleted.caches, deleted.runs, deleted.states, deleted.diagnoses) == (1, 1, 1, 1)
    assert home.is_clean()
    assert not home.state_is_kept()
    assert (home.folder / "diagnoses" / "another" / "report.html").exists()


def _copy(home: Home) -> None:
    Path(home.secret).with_name("copy.txt").write_text(SECRET)
    add(home.base, [Path(home.secret).parent], home.embedder)


def _reader(home: Home) -> None:
    reader = schema.connect(home.base.folder, writable=False)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM contents").fetchone()


def _moved(place: str) -> Callable[[Home], None]:
    """A link to a folder instead of the folder."""

    def move(home: Home) -> None:
        (home.folder / place).rename(home.folder / "elsewhere")
        (home.folder / place).symlink_to(home.folder / "elsewhere")

    return move


def _unreadable(place: str) -> Callable[[Home], None]:
    """A link to itself instead of the file."""

    def link(home: Home) -> None:
        path = home.folder / place
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)

    return link


def _closed(home: Home) -> None:
    (home.folder / "derived" / "docs").chmod(0o500)


@pytest.mark.parametrize(
    ("refusing", "said"),
    [
        (_copy, "--copies"),
        (_reader, "holds on to older pages"),
        (_moved("kb/derived"), "is a link"),
        (_moved("derived/docs"), "is a link"),
        (_moved("diagnoses/shows"), "is a link to a folder"),
        (_unreadable(f"runs/two/{DOCUMENTS}"), "Cannot look through"),
        (_unreadable("diagnoses/another/report.html"), "Cannot look through"),
        pytest.param(_closed, "permission denied", marks=NOT_ROOT),
    ],
)
def test_a_refused_purge_has_deleted_nothing(home: Home, refusing: Callable[[Home], None], said: str) -> None:
    refusing(home)
    before, version = home.contents(), home.base.version
    with pytest.raises((KnowledgeError, StorageError), match=said):
        home.purge()
    (home.folder / "derived" / "docs").chmod(0o700)
    assert home.contents() == before
    assert (home.base.version, home.base.text(home.secret)) == (version, SECRET)
    assert home.state_is_kept()


def test_a_purge_that_waits_or_knows_no_such_document_has_deleted_nothing(home: Home) -> None:
    before = home.contents()
    with file_lock(home.base.folder, 1.0), pytest.raises(KnowledgeBaseBusy):
        home.purge()
    with pytest.raises(KnowledgeError, match="No document"):
        home.purge("nothing.txt")
    assert home.contents() == before
    assert home.state_is_kept()


@pytest.mark.parametrize("of", range(1, 8))
def test_a_purge_that_was_killed_while_it_deletes_elsewhere_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, of: int
) -> None:
    """Of the caches' name and files, the states' name and files, a run's documents, a diagnosis' name and files."""
    calls = 0

    def killing(taking: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any, **kwargs: Any) -> object:
            nonlocal calls
            calls += 1
            if calls == of:
                if taking is rmtree:
                    next(path for path in args[0].rglob("*.*") if path.is_file()).unlink()  # half of it is gone
                raise Killed
            return taking(*args, **kwargs)

        return call

    rmtree = shutil.rmtree
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killing(Path.unlink))
        patched.setattr(Path, "rename", killing(Path.rename))
        patched.setattr(shutil, "rmtree", killing(rmtree))
        home.killed_purge()
    assert home.base.text(home.secret) == SECRET  # so that it still says what to look for
    home.purge()
    assert home.is_clean()
    assert not home.state_is_kept()
    assert not list(home.folder.rglob(".deleting-*"))


@pytest.mark.parametrize("killed_in", [(KnowledgeBase, "forget"), (purge_module, "look_at_all")])
@pytest.mark.parametrize("another_writes", [False, True])
def test_what_was_read_between_is_forgotten_when_a_killed_purge_is_finished(
    home: Home, monkeypatch: pytest.MonkeyPatch, another_writes: bool, killed_in: tuple[object, str]
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(*killed_in, killed)
        home.killed_purge()
    assert purge_is_unfinished(home.base)
    home.keep_a_state()  # of a request that found the passages before the documents left the versions
    if another_writes:
        tag(home.base, "x")  # finishes the purge in the knowledge base, and nothing else
    assert home.state_is_kept()
    assert finish_purge_everywhere(home.base, home.settings)
    assert not purge_is_unfinished(home.base)
    assert not finish_purge_everywhere(home.base, home.settings)
    assert home.is_clean()
    assert not home.state_is_kept()


# --- every file is deleted, scanned, or listed ------------------------------------------------------------------------


def listed(done: PurgedEverywhere) -> dict[str, str]:
    return {each.path.name: each.reason for each in done.out_of_reach}


def test_every_file_is_counted(home: Home) -> None:
    (home.folder / "api-keys.json").write_text("{}")
    (home.folder / "models" / "names").mkdir(parents=True)
    (home.folder / "models" / "names" / "reader.json").write_text("{}")
    done = home.purge()
    assert done.proved
    assert done.out_of_reach == ()
    assert done.unreached == {}
    counts = {each.place: each.files for each in done.scanned}
    there = [path for path in home.folder.rglob("*") if path.is_file()]
    assert done.files >= len(there) - 3  # SQLite's files beside its own come and go
    assert counts["home"] == counts["models"] == 1
    assert counts["derived"] == 2  # a lock and the mark


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", f'model = "{SECRET}"'.encode()),
        ("notes.txt", SECRET.encode("utf-16")),
        ("notes.json", json.dumps({"a": f"\u201c{SECRET}"}).encode()),
        ("models/notes.txt", SECRET.encode()),
        ("derived/notes.txt", SECRET.encode()),
        ("derived/mine/notes.txt", SECRET.encode()),
        ("states/notes.txt", SECRET.encode()),
        ("cache/notes.txt", SECRET.encode()),
        ("uploads/notes.txt", b"x" * 9000 + SECRET.encode()[:60]),
        ("somewhere/deep/.hidden", SECRET.encode()),
        ("log/receipts.jsonl", SECRET.encode()),
    ],
)
def test_what_it_does_not_own_is_listed_and_nothing_is_proved(home: Home, name: str, content: bytes) -> None:
    path = home.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    done = home.purge()
    assert not done.proved
    (found,) = done.out_of_reach
    assert (found.path, found.reason) == (path, "traces")
    assert "from byte" in found.advice
    assert ("log of receipts" in found.advice) == name.startswith("log")
    assert path.read_bytes() == content


def test_another_knowledge_base_in_the_home_is_named(home: Home) -> None:
    other = KnowledgeBase.ensure(home.folder / "other", home.embedder.identity)
    add(other, [Path(home.secret)], home.embedder)
    other.close()
    done = home.purge()
    assert not done.proved
    assert all(f"--kb {home.folder / 'other'}" in each.advice for each in done.out_of_reach)


@pytest.mark.parametrize(
    ("made", "listed_as", "proved"),
    [
        (lambda at: (at / "config.toml").write_text(SECRET[:40]), {}, True),  # a phrase that others may use too
        (lambda at: (at / "runs" / "one" / "model.gguf").write_text("GGUF"), {"model.gguf": "weights"}, True),
        (lambda at: (at / "elsewhere").symlink_to(at.parent / "docs"), {"elsewhere": "link"}, False),
        (lambda at: (at / "receipts.jsonl").write_text(f"{at.parent}/docs/secret.txt"), {"receipts.jsonl": "traces"}, False),
        pytest.param(lambda at: (at / "closed").mkdir(0), {"closed": "unreadable"}, False, marks=NOT_ROOT),
        (lambda at: os.mkfifo(at / "pipe"), {}, True),
    ],
)  # fmt: skip
def test_what_is_listed_and_what_that_proves(
    home: Home, made: Callable[[Path], object], listed_as: dict[str, str], proved: bool
) -> None:
    made(home.folder)
    done = home.purge()
    for closed in home.folder.glob("closed"):
        closed.chmod(0o700)
    assert (listed(done), done.proved) == (listed_as, proved)


def test_a_diagnosis_that_holds_traces_anywhere_goes_and_so_do_the_checkpoints_of_a_stopped_run(home: Home) -> None:
    (home.folder / "diagnoses" / "another" / "report.html").write_text(f"<p>{SECRET}</p>")
    checkpoint = home.folder / "runs" / "one" / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "parameters.safetensors").write_bytes(b"numbers")
    assert home.purge().proved
    assert home.is_clean()
    assert not (home.folder / "diagnoses" / "another").exists()
    assert not checkpoint.exists()


def test_a_proof_names_only_models_that_are_known_to_have_learned_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = [Membership("a" * 64, "unknown", None, 3), Membership("b" * 64, "known", 2, 3)]
    monkeypatch.setattr(purge_module, "models_trained_on", lambda *_: carried)
    done = home.purge()
    assert done.carried == tuple(carried)
    assert proof_of(done, home.base).models_that_learned_it == ("b" * 64,)


# --- writers that live ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["runs/one/.lock", "diagnoses/another/.observations-a.jsonl.lock"])
def test_a_purge_is_refused_while_a_run_or_diagnosis_is_under_way(home: Home, place: str) -> None:
    lock = filelock.FileLock(home.folder / place)
    before = home.contents()
    with lock, pytest.raises(KnowledgeBaseBusy, match=r"works in .*(one|another)"):
        home.purge()
    assert home.contents() == before
    assert home.purge().proved


@pytest.mark.skipif(os.name != "posix", reason="Windows has no lock that is shared")
def test_a_purge_is_refused_while_documents_are_read_for_docs(home: Home) -> None:
    before = home.contents()
    with (
        DerivedFolder(home.settings.derived_dir).writing(),
        pytest.raises(KnowledgeBaseBusy, match="without a knowledge base"),
    ):
        home.purge()
    assert home.contents() == before
    assert home.state_is_kept()
    assert home.purge().proved


def test_documents_are_not_read_for_docs_while_a_purge_is_under_way(home: Home) -> None:
    options = RunOptions(lock_timeout_s=0.1)
    with DerivedFolder(home.settings.derived_dir).purging(1.0), pytest.raises(KnowledgeBaseBusy, match="A purge is"):
        for_documents([Path(home.secret)], home.settings.derived_dir, home.embedder, options)


def test_what_a_server_computes_of_a_document_while_it_is_purged_is_kept_nowhere(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, looked = home.states, absence.look_at_all
    mark = server.purge_mark()  # of a request that found the passages before

    def put(key: bytes) -> None:
        server.put(key * 32, b"what was read of zeppelin", mark)

    def look_at_all(*given: Any) -> Any:
        put(b"a")
        assert home.states.purge_mark() != mark  # before the knowledge base forgets that there was something to delete
        return looked(*given)

    put(b"b")
    monkeypatch.setattr(purge_module, "look_at_all", look_at_all)
    assert home.purge().proved
    put(b"c")
    server.purge_mark()  # the next request
    assert [server.get(key * 32) for key in (b"a", b"b", b"c")] == [None] * 3
    assert home.is_clean()
    server.put(b"d" * 32, b"state", server.purge_mark())
    assert home.states.get(b"d" * 32) == b"state"


def test_what_a_living_process_writes_is_listed_and_nothing_is_proved(home: Home) -> None:
    report = home.folder / "diagnoses" / "another" / "report.html"
    upload = home.folder / "uploads" / "kb" / "local"
    upload.mkdir(parents=True)
    (upload / "mine.txt").write_text("Something else.")
    with replacing(report) as stream, file_lock(upload, 0.0):
        stream.write(b"not yet whole")
        done = home.purge()
    assert not done.proved
    assert {each.reason for each in done.out_of_reach} == {"in use"}
    assert {each.path.parent for each in done.out_of_reach} == {report.parent, upload.parent}
    assert report.read_bytes() == b"not yet whole"
    assert (upload / "mine.txt").exists()
