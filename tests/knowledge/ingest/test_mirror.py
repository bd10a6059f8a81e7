"""The items of a source become documents named by addresses, and stay as they were when the source or the run fails."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import pytest

from openbook.core.config import load_settings
from openbook.core.errors import ConfigError, KnowledgeBaseBusy, KnowledgeError, SourceError, StorageError
from openbook.core.records import Verdict
from openbook.knowledge import Report, remove
from openbook.knowledge.cite.pictures import page_picture
from openbook.knowledge.index.scope import Scope
from openbook.knowledge.ingest import fetch as fetching
from openbook.knowledge.ingest import mirror
from openbook.knowledge.ingest.contents import RunOptions
from openbook.knowledge.ingest.discovery import Rules
from openbook.knowledge.ingest.fetch import FetchLimits, fetch
from openbook.knowledge.ingest.mirror import mirror_folder, mirrored_files, opened_mirror
from openbook.knowledge.synced_folders import all_to_sync, forget_synced_folder, synced_folders, to_sync
from openbook.knowledge.updates import sync_folders
from openbook.parsers.sandbox.protocol import Limits
from openbook.proofs.absence import look_for
from openbook.proofs.purge import purge_everywhere
from openbook.sources import Item, registry
from openbook.testing.sources import FAKE, HELD
from tests.conftest import ROOT
from tests.knowledge.conftest import Library
from tests.parsers.samples import make_pdf

SITE = "fake://site"
Pieces: TypeAlias = Callable[[], Iterable[bytes]]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.SCHEMES, "fake", FAKE)
    yield
    HELD.clear()


class Site:
    """Items in memory at `fake://site`; `reads`: the names of those that were read."""

    def __init__(self, library: Library, url: str = SITE) -> None:
        self.library, self.url = library, url
        self.reads: list[str] = []
        HELD[url] = []

    def put(self, name: str, text: str | bytes = b"", read: Pieces | None = None, **fields: object) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        name = name if "://" in name or name.startswith("!") else f"{self.url}/{name}"

        def reads() -> Iterable[bytes]:
            self.reads.append(name)
            return read() if read else [data]

        self.drop(name)
        HELD[self.url].append(Item(name, fields.pop("fingerprint", str(hash(data))), reads, **fields))  # type: ignore[arg-type]

    def drop(self, name: str) -> None:
        HELD[self.url] = [each for each in HELD[self.url] if not (isinstance(each, Item) and each.name.endswith(name))]

    def sync(self, options: RunOptions = RunOptions(), rules: Rules = Rules(), *, reset: bool = False) -> Report:
        wanted = to_sync(self.library.base, self.url, rules, options.labels, reset=reset)
        return sync_folders(self.library.base, [wanted], self.library.embedder, options)

    def outcomes(self, **arguments: object) -> dict[str, str]:
        return {each.path.removeprefix(f"{self.url}/"): each.outcome for each in self.sync(**arguments).verdicts}  # type: ignore[arg-type]

    def text(self, name: str) -> str | None:
        return self.library.base.text(f"{self.url}/{name}")


@pytest.fixture
def site(library: Library) -> Site:
    return Site(library)


def test_items_become_documents_and_follow_their_source(site: Site) -> None:
    for i in range(100):
        site.put(f"{i}.txt", f"Item {i} has the number {i * 7}.")
    assert site.sync().version == 1
    assert len(site.library.base.documents()) == len(site.reads) == 100
    assert site.text("7.txt") == "Item 7 has the number 49."
    site.reads.clear()

    def parses(*_: object) -> None:
        raise AssertionError("An unchanged item was parsed.")

    report = site.sync(RunOptions(parsers=parses, progress=lambda stage, *_: parses() if stage == "digest" else None))  # type: ignore[arg-type]
    assert (report.version, site.reads, {each.outcome for each in report.verdicts}) == (1, [], {"unchanged"})
    site.put("7.txt", "Another text.")
    site.drop("/8.txt")
    changed = {name: outcome for name, outcome in site.outcomes().items() if outcome != "unchanged"}
    assert changed == {"7.txt": "updated", "8.txt": "removed"}
    assert site.reads == [f"{SITE}/7.txt"]
    assert len(list(mirror_folder(site.library.base.folder, SITE).iterdir())) == 99 + 2  # lines and lock


def test_a_new_item_is_read_before_the_next_one_is_listed(site: Site) -> None:
    order: list[str] = []
    fingerprints, suffixes = ["a", "b", "c", "d"], [".txt"] * 4

    class Listing(list[Item | Verdict | Exception]):
        def __iter__(self) -> Iterator[Item | Verdict | Exception]:
            for at, fingerprint in enumerate(fingerprints):
                order.append(f"list {at}")
                yield Item(f"{SITE}/{at}", fingerprint, partial(read, at), suffixes[at])

    def read(at: int) -> Iterator[bytes]:
        order.append(f"read {at}")
        yield f"Text {at}.".encode()

    HELD[SITE] = Listing()
    site.sync()
    assert order == [f"{what} {at}" for at in range(4) for what in ("list", "read")]
    order.clear()
    fingerprints[1], suffixes[2] = "new", ".md"
    site.sync()
    assert order == ["list 0", "list 1", "read 1", "list 2", "read 2", "list 3"]


def test_metadata_labels_and_type_come_with_an_item(site: Site) -> None:
    said = {"author": "Ada", "modified": "2024-05-06T07:08:09+00:00", "type": "forged", "tags": ["a", "b"]}
    site.put("page", "<html><title>Leave</title><p>Thirty days.</p></html>", suffix=".html", metadata=said)
    site.put("repository.git#Makefile", "all: book")
    site.put("secret.txt", "The safe has the code 1234.", labels=frozenset({"hr"}))
    site.put("odd.txt", "No label.", labels=frozenset({"Not A Label"}))
    site.sync(RunOptions(labels=frozenset({"staff"})))
    info = site.library.base.document_info(None, Scope(labels=frozenset({"staff", "hr"})))
    page = dict(info[f"{SITE}/page"].metadata)
    assert dict(info[f"{SITE}/repository.git#Makefile"].metadata)["type"] == ""
    assert (page["author"], page["source"], page["type"], page["name"]) == ("Ada", SITE, "html", "page")
    assert (page["modified"], page["title"], page["tags"]) == ("2024-05-06T07:08:09+00:00", "Leave", ("a", "b"))
    assert site.library.base.labels() == {
        f"{SITE}/page": ["staff"],
        f"{SITE}/repository.git#Makefile": ["staff"],
        f"{SITE}/secret.txt": ["hr", "staff"],
    }
    site.put("page", "<html><title>Leave</title><p>Thirty days.</p></html>", suffix=".html", labels=frozenset({"hr"}))
    site.sync()
    assert site.library.base.labels()[f"{SITE}/page"] == ["hr", "staff"]  # its fingerprint is as before


def test_globs_match_below_the_address_and_excluded_items_are_not_read(site: Site) -> None:
    for name in ("guide/a.txt", "guide/old/b.txt", "blog/c.txt", "logo.png"):
        site.put(name, f"This is {name}.")
    rules = Rules(("guide/**", "*.png"), ("old/",))
    assert site.outcomes(rules=rules) == {
        "blog/c.txt": "skipped", "guide/a.txt": "added", "guide/old/b.txt": "skipped", "logo.png": "skipped"
    }  # fmt: skip
    assert site.reads == [f"{SITE}/guide/a.txt"]
    assert synced_folders(site.library.base)[0].rules == rules
    assert site.outcomes(reset=True)["blog/c.txt"] == "added"
    site.drop("logo.png")
    site.sync()
    assert [each.path for each in site.library.base.status().not_indexed] == []


def test_a_failing_source_removes_nothing(site: Site) -> None:
    site.put("a.txt", "The first text.")
    site.put("b.txt", "The second text.")
    site.sync()
    HELD[SITE].insert(1, ConnectionError("no route to https://user:S3cret@host"))
    with pytest.raises(SourceError, match=r"fake://site could not be listed \(no route to https://\.\.\.@host\)"):
        site.sync()
    HELD[SITE].clear()
    with pytest.raises(KnowledgeError, match="fake://site is empty, but 2 documents came from it"):
        site.sync()
    HELD[SITE].append(Verdict(SITE, "failed", "it is away"))
    with pytest.raises(SourceError, match="it is away"):
        site.sync()
    assert len(site.library.base.documents()) == 2
    site.reads.clear()
    site.put("a.txt", "The first text.")
    HELD[SITE][0] = Verdict(f"{SITE}/b.txt", "failed", "no permission")
    assert site.outcomes() == {"a.txt": "unchanged", "b.txt": "failed"}
    assert (site.reads, site.text("b.txt")) == ([], "The second text.")


def test_among_several_places_one_that_fails_is_a_verdict(site: Site) -> None:
    site.put("a.txt", "The first text.")
    site.library.write("b.txt", "The second text.")
    other = Site(site.library, "fake://other")
    HELD[other.url].append(ValueError("a bug"))
    folders = [to_sync(site.library.base, each) for each in (SITE, other.url, site.library.docs)]
    report = sync_folders(site.library.base, folders, site.library.embedder)
    assert {each.path: each.outcome for each in report.verdicts}[other.url] == "failed"
    assert len(site.library.base.documents()) == 2
    assert {each.name for each in all_to_sync(site.library.base)} == {SITE, str(site.library.docs)}
    assert site.library.base.status().sources == (str(site.library.docs), SITE)


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 100_000


def broken() -> Iterator[bytes]:
    yield b"The beginning"
    raise OSError("the line is cut")


BELOW = ("\x1b[2J", "x" * 10_000, "\udc80")
HOSTILE_NAMES = ["!\0", "!a", "!../../etc/passwd", "fake://[/x.txt", *(f"{SITE}/{name}" for name in BELOW)]


def test_a_hostile_item_affects_no_other(site: Site, tmp_path: Path) -> None:
    for name in HOSTILE_NAMES:
        site.put(name, "Hostile.")
    HELD[SITE].append(Item(str(tmp_path / "stays.txt"), "1", lambda: [b"Taken over."]))
    for name, text in (("../../up.txt", "Below."), ("Case.txt", "Upper."), ("case.txt", "Lower.")):
        site.put(name, text)
    HELD[SITE].append(replace(HELD[SITE][-1], read=lambda: [b"Twice."]))  # type: ignore[type-var]
    site.put("endless.txt", read=endless)
    site.put("broken.txt", read=broken)
    site.put("text.txt", read=lambda: ["no bytes"])  # type: ignore[list-item]
    site.put("bad.txt", "A text.", metadata={"title": "\udc80\0" * 5000, "x" * 500: "y" * 5000})
    site.put("large.txt", "A text.", metadata={"x": ["y" * 5000] * 500})
    options = RunOptions(replace(Limits(), max_file_bytes=1_000_000))
    found = site.outcomes(options=options)
    added = {name for name, outcome in found.items() if outcome == "added"}
    assert added == {"../../up.txt", "Case.txt", "case.txt", "bad.txt"}
    assert all(name.isprintable() for name in found)
    assert (site.text("Case.txt"), site.text("case.txt")) == ("Upper.", "Lower.")
    reasons = {each.path.removeprefix(f"{SITE}/"): each.reason for each in site.library.base.status().not_indexed}
    assert reasons["endless.txt"] == "more than 1 MB, over the limit of 1 MB"
    assert reasons["broken.txt"] == "it could not be fetched: the line is cut"
    assert reasons["text.txt"] == "its source gave str, not bytes"
    left = mirror_folder(site.library.base.folder, SITE).iterdir()
    assert [path.name for path in left if path.name.startswith(".")] == [".lock"]
    site.reads.clear()
    site.sync(options)
    assert f"{SITE}/endless.txt" not in site.reads  # its fingerprint and the limit are as before


def test_a_hanging_read_and_an_endless_list_are_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ended, now = threading.Event(), [0.0]
    monkeypatch.setattr(fetching, "time", SimpleNamespace(monotonic=lambda: now[0], time_ns=time.time_ns))

    def hangs() -> Iterator[bytes]:
        now[0] += FetchLimits().idle_s
        ended.wait()
        yield b""

    site.put("hangs.txt", read=hangs)
    site.put("after.txt", "The text after it.")
    wanted = to_sync(site.library.base, SITE)
    found = fetch(wanted).found
    ended.set()
    assert [type(each).__name__ for each in found] == ["Verdict", "FoundFile"]
    with pytest.raises(SourceError, match="more than 1 items"):
        fetch(wanted, limits=FetchLimits(items=1))


def test_cancelling_keeps_the_items_fetched(site: Site) -> None:
    ended = threading.Event()
    for i in range(5):
        site.put(f"{i}.txt", f"Item {i} of five.")

    def check() -> None:
        if len(site.reads) == 3:
            ended.set()
            raise KeyboardInterrupt

    HELD[SITE].insert(3, Item(f"{SITE}/slow.txt", "1", lambda: [b"Slow."] if ended.wait() else []))
    with pytest.raises(KeyboardInterrupt):
        site.sync(RunOptions(check_cancelled=check))
    assert site.library.base.version == 0
    before, site.reads = site.reads, []
    site.sync()
    assert set(before).isdisjoint(site.reads)
    assert len(site.library.base.documents()) == 6


KILLED = """
import sys
from pathlib import Path
from openbook.knowledge.ingest.discovery import SyncedFolder
from openbook.knowledge.ingest.fetch import fetch
from openbook.sources.registry import SCHEMES
from openbook.testing.sources import FAKE
SCHEMES["fake"] = FAKE
fetch(SyncedFolder(Path(sys.argv[1]), address=sys.argv[2], options={"pause_s": 0.02, "log": sys.argv[3]}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_run_resumes(library: Library, tmp_path: Path) -> None:
    for i in range(100):
        library.write(f"{i:03}.txt", f"Document {i} has its own text.")
    address, log = f"fake://{library.docs}", tmp_path / "reads"
    folder = mirror_folder(library.base.folder, address)
    command = [sys.executable, "-c", KILLED, str(folder), address, str(log)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while not log.exists() or log.read_text().count("\n") < 10:
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(KnowledgeBaseBusy, match=f"Another process fetches {address}"):
            fetch(to_sync(library.base, address))
        process.send_signal(signal.SIGKILL)
    with (folder / "items.jsonl").open("ab") as lines:
        lines.write(b'{"name":"half of a li')
    before = log.read_text().split()
    wanted = replace(to_sync(library.base, address), options={"log": str(log)})
    sync_folders(library.base, [wanted], library.embedder)
    again = log.read_text().split()[len(before) :]
    assert len(library.base.documents()) == 100
    assert set(again).isdisjoint(before[:-1])  # all but the one that was being read


def test_removing_and_forgetting(site: Site) -> None:
    for name in ("", "docs/", "docs/a.txt", "docs/b.txt", "c.txt"):
        site.put(f"{SITE}/{name}", f"The page at {name or 'the top'}.", suffix=".txt")
    feed = Site(site.library, "fake://feed.xml")
    feed.put("fake://elsewhere/post", "A post that is elsewhere.", suffix=".txt")
    site.sync()
    feed.sync()
    base = site.library.base
    below = {f"{SITE}/docs/{name}" for name in ("", "a.txt", "b.txt")}
    assert {each.path for each in remove(base, [f"{SITE}/docs/"]).verdicts} == below
    assert [each.path for each in remove(base, [feed.url]).verdicts] == ["fake://elsewhere/post"]
    assert site.outcomes()["docs/a.txt"] == "added"
    forget_synced_folder(base, SITE)
    assert not mirror_folder(base.folder, SITE).exists()
    assert len(base.documents()) == 5
    with pytest.raises(KnowledgeError, match="fake://site was not synced"):
        forget_synced_folder(base, SITE)
    assert len(remove(base, [SITE]).verdicts) == 5


def test_a_name_belongs_to_the_source_that_has_it(site: Site) -> None:
    site.put("a.txt", "The code of the safe is 1234.")
    site.sync(RunOptions(labels=frozenset({"hr"})))
    other = Site(site.library, "fake://other")
    other.put(f"{SITE}/a.txt", "Nothing secret.")
    other.put("b.txt", "Another text.")
    other.sync()
    assert site.text("a.txt") == "The code of the safe is 1234."
    assert site.library.base.labels() == {f"{SITE}/a.txt": ["hr"]}
    forget_synced_folder(site.library.base, SITE)
    other.sync()
    assert site.text("a.txt") == "Nothing secret."
    verdicts = {each.path: each for each in site.sync(RunOptions(labels=frozenset({"hr"}))).verdicts}
    assert verdicts[f"{SITE}/a.txt"].outcome == "failed"  # its text is to be seen without the label
    assert "lacks hr: exclude it there, or give that source the label" in verdicts[f"{SITE}/a.txt"].reason


@pytest.mark.parametrize("is_at_source", [True, False])
def test_a_purge_deletes_fetched_files_and_proves_it(site: Site, is_at_source: bool) -> None:
    secret = "The agreement with Miller ends on the third of March, whatever was said before."
    site.put("miller/agreement.txt", secret, metadata={"author": "Someone With A Long Name"})
    page = f"<html><a href='{SITE}/miller/agreement.txt'>it</a><p>The %s of all pages.</p>%s</html>"
    site.put("index.html", page % ("index", f"<!--{secret}-->"))
    site.put("list.html", page % ("list", ""))
    site.put("failed.zip2", b"%PDF-1.4\n\0" + secret.encode())
    site.sync()
    base = site.library.base
    with opened_mirror(mirror_folder(base.folder, SITE)), pytest.raises(KnowledgeBaseBusy):
        purge_everywhere(base, [f"{SITE}/miller/agreement.txt"], load_settings(), lock_timeout_s=0.1)
    if not is_at_source:
        site.drop("agreement.txt")
        site.sync()
    killed = mirror_folder(base.folder, SITE) / ".git-x" / "objects" / "pack.zip2"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(zlib.compress(secret.encode()))
    places, beyond, _ = look_for(base, secret, load_settings())
    assert (bool(places), [each.path.suffix for each in beyond]) == (True, [".zip2"] * 2)
    done = purge_everywhere(base, [f"{SITE}/miller/agreement.txt"], load_settings())
    assert done.proved
    assert done.purged.still_on_disk == ((f"{SITE}/miller/agreement.txt",) if is_at_source else ())
    assert look_for(base, secret, load_settings())[:2] == ([], [])
    assert not killed.exists()
    names = [f"{SITE}/{name}" for name in ("miller/agreement.txt", "list.html", "index.html")]
    assert set(mirrored_files(base.folder, names)) == {f"{SITE}/list.html"}  # the index's bytes hold the text
    if is_at_source:
        assert site.outcomes()["miller/agreement.txt"] == "added"


def test_pages_of_a_fetched_pdf_are_drawn(site: Site) -> None:
    site.put("report", make_pdf([["Anna earns 12 crowns."]]), suffix=".pdf")
    site.sync()
    base = site.library.base
    content = base.content(f"{SITE}/report")
    assert content is not None
    assert page_picture(f"{SITE}/report", content, 1, folder=base.folder).startswith(b"\x89PNG")


def test_a_full_disk_is_reported_and_loses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("a.txt", "The first text.")
    site.sync()
    site.put("b.txt", "The second text.")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mirror.Mirror, "set", full)
        with pytest.raises(StorageError, match="the disk is full"):
            site.sync()
    assert site.outcomes() == {"a.txt": "unchanged", "b.txt": "added"}


def test_sources_toml_declares_sources(site: Site) -> None:
    site.put("a.txt", "The first text.")
    site.put("b.txt", "The second text.")
    base, file = site.library.base, site.library.base.folder / "sources.toml"
    file.write_text(f'[[sources]]\nurl = "{SITE}"\nlabels = ["hr"]\nexclude = ["b.txt"]\npause_s = 0.0\n')
    sync_folders(base, all_to_sync(base), site.library.embedder)
    assert base.labels() == {f"{SITE}/a.txt": ["hr"]}
    assert (synced_folders(base)[0].options, all_to_sync(base)) == ({"pause_s": 0.0}, synced_folders(base))
    assert to_sync(base, SITE, reset=True).labels == {"hr"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[source]]\nurl = 'fake://x'", "unknown key 'source'. Did you mean 'sources'"),
        ("[[sources]]\nlabels = ['a']", "source 1 lacks the key 'url'"),
        ("[[sources]]\nurl = 'fake://x'\nlables = ['a']", "unknown option 'lables'. Did you mean 'labels'"),
        ("[[sources]]\nurl = 'fake://x'\nlabels = ['A b']", "is not an access label"),
        ("[[sources]]\nurl = 'fake://x'\nlabels = 'a'", "labels must be a list"),
        ("[[sources]]\nurl = 'docs'", "No source has the scheme"),
        ("[[sources]]\nurl = 'fake://x'\n[[sources]]\nurl = 'fake://x'", "has fake://x twice"),
        ("[[sources]]\nurl='git+https://h/x@1#a'\n[[sources]]\nurl='git+https://h/x@2#a'", "git.https://h/x#a twice"),
        ("[[sources]\n", "cannot be read as TOML"),
    ],
)
def test_an_error_in_sources_toml_is_named(library: Library, text: str, says: str) -> None:
    file = library.base.folder / "sources.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        all_to_sync(library.base)
    assert str(error.value).startswith(str(file))
