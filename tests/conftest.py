"""Fixtures. No test sees the user's own settings or home; tests marked `model` share one home inside the clone.

Each process computes with one thread: threads that wait for each other on a core that is shared cost more than they give.
`--laws` runs the tests marked `laws` instead; `--all` runs all, those marked `slow` too, and properties with more examples.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from openbook.core.config import Place, available_cores
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Embedder, ModelIdentity, Prompt, ReaderFormat, sha256_hex
from openbook.inference import FrozenModel, load_embedder
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.knowledge import KnowledgeBase, add
from openbook.models import ModelReference, ModelStore, ensure
from openbook.models.catalogue import KNOWN_FILES
from openbook.parsers import ocr
from openbook.parsers.sandbox import tasks
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Parsed, decode_answer
from openbook.testing import EchoEngine, HashEmbedder

ROOT = Path(__file__).parent.parent
MODEL_HOME = ROOT / ".cache" / "test-home"

EXAMPLES, EXAMPLES_OF_ALL = 25, 100
# A disk in memory, on Linux: a knowledge base waits dozens of times until what it wrote is safe.
MEMORY = Path("/dev/shm")
MAX_SCRATCH_BYTES = 4_000_000_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--laws", action="store_true", help="run the tests marked laws instead: the many cases of each law"
    )
    parser.addoption("--all", action="store_true", help="run all tests, and properties with more examples")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores, since tests of servers and of a cluster wait a third of their time."""
    return (3 * available_cores() + 1) // 2


def pytest_configure(config: pytest.Config) -> None:
    # No deadline: a time limit on a shared machine fails for reasons that are not in the code.
    # The same examples each time, so that a failure belongs to the change before it; --all draws new ones.
    explore = bool(config.getoption("--all"))
    settings.register_profile(
        "openbook",
        deadline=None,
        derandomize=not explore,
        suppress_health_check=[HealthCheck.too_slow],
        max_examples=EXAMPLES_OF_ALL if explore else EXAMPLES,
    )
    settings.load_profile("openbook")
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MAX_SCRATCH_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the workers of pytest-xdist start
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.sched_getaffinity = lambda pid: {0}  # what the engines count


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all") and not any("::" in str(each) for each in config.args):
        suite = "laws" if config.getoption("--laws") else "default"
        config.hook.pytest_deselected(items=[item for item in items if suite_of(item) != suite])
        items[:] = [item for item in items if suite_of(item) == suite]
    longest = ("test_readme.py", "test_visibility_laws.py")  # they begin first
    items.sort(key=lambda item: item.path.name not in longest)


def pytest_collection_finish() -> None:
    """A knowledge base that is closed collects garbage; without this it would look at all imported modules each time."""
    gc.collect()
    gc.freeze()


def suite_of(item: pytest.Item) -> str:
    return next((name for name in ("slow", "laws") if item.get_closest_marker(name)), "default")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("OPENBOOK_"):
            monkeypatch.delenv(name)
    home = tmp_path / "openbook-home"
    monkeypatch.setenv("OPENBOOK_HOME", str(home))
    monkeypatch.setenv("OPENBOOK_THREADS", "1")
    monkeypatch.setenv("OPENBOOK_MODEL", "reader")  # small and quick; the default takes ten times as long
    return home


@pytest.fixture(autouse=True)
def without_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed. Tests of OCR say what there is."""
    monkeypatch.setattr(ocr, "best_engine", lambda: "")


@pytest.fixture(autouse=True)
def parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are parsed here. Modules that need the processes have a fixture `parsers` of their own, which does nothing."""
    monkeypatch.setattr(ParserPool, "parse_all", parse_here)


def parse_here(pool: ParserPool, paths: Iterable[Path]) -> Iterator[tuple[Path, Parsed]]:
    """By the code of a parser's process, which takes most of a second to start."""
    settings = json.loads(pool._command[-1])
    for path in paths:
        yield path, decode_answer(tasks.answer(os.fsencode(path), settings))


def link_models(home: Path) -> None:
    """Links to the session's models, which take gigabytes, without what another process is writing among them."""
    hidden = shutil.ignore_patterns(".*")
    shutil.copytree(MODEL_HOME / "models", home / "models", ignore=hidden, copy_function=os.link)


@pytest.fixture
def home_of_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with the session's models, on their disk; a test may remove one."""
    with tempfile.TemporaryDirectory(dir=MODEL_HOME.parent) as folder:
        link_models(Path(folder))
        monkeypatch.setenv("OPENBOOK_HOME", folder)
        yield Path(folder)


@pytest.fixture
def embedder() -> HashEmbedder:
    return HashEmbedder()


def named_model(name: str, engine: EchoEngine | None = None, reader: ReaderFormat | None = None) -> FrozenModel:
    engine = engine or EchoEngine()
    engine.identity = ModelIdentity(name, sha256_hex(name.encode()), "verified")
    return FrozenModel(engine, reader)


class DecliningEngine(EchoEngine):
    """Finds no answer in any passage."""

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        return super().generate(replace(prompt, passages=()), decoding, cancelled)


def base_with(
    folder: Path, files: Mapping[str, str], embedder: Embedder | None = None, place: Place | None = None
) -> KnowledgeBase:
    """A knowledge base, in `folder`/kb if no `place` is named, of files that are written into `folder`: path there -> text."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    embedder = embedder or HashEmbedder()
    base = KnowledgeBase.ensure(place or folder / "kb", embedder.identity)
    add(base, [folder / name for name in files], embedder)
    return base


def flip(path: Path, at: int = -1, bits: int = 1) -> None:
    """Change a byte of a file, which may be written once only."""
    data = bytearray(path.read_bytes())
    data[at] ^= bits
    path.unlink()
    path.write_bytes(data)


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel takes no more than 1 MiB a file, as a disk that fills up midway."""
    resource = pytest.importorskip("resource", reason="no limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def printed(code: str, *arguments: object) -> list[str]:
    """The lines that this code prints in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()


@contextmanager
def served(server: HTTPServer) -> Iterator[int]:
    """Its port, at which it answers on a thread until the block ends."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "a home" / "models")


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    return ModelStore(MODEL_HOME / "models")


def stored(store: ModelStore, name: str) -> ModelReference:
    """The model, fetched by one process only."""
    MODEL_HOME.mkdir(parents=True, exist_ok=True)
    with FileLock(MODEL_HOME / "fetching.lock"):
        return ensure(store, name)


@pytest.fixture(scope="session")
def model_reference(model_store: ModelStore) -> ModelReference:
    return stored(model_store, "smollm2-135m-instruct")


@pytest.fixture(scope="session")
def reader_reference(model_store: ModelStore) -> ModelReference:
    return stored(model_store, "reader")


@pytest.fixture(scope="session")
def instruct_reference(model_store: ModelStore) -> ModelReference:
    return stored(model_store, "qwen2.5-coder-1.5b-instruct")


@pytest.fixture(scope="session")
def embedder_reference(model_store: ModelStore) -> ModelReference:
    return stored(model_store, "minilm-l6-int8")


@pytest.fixture(scope="session")
def real_embedder(embedder_reference: ModelReference) -> Embedder:
    return load_embedder(embedder_reference)


@pytest.fixture(scope="session")
def engine(model_reference: ModelReference) -> Iterator[LlamaCppEngine]:
    engine = open_engine(model_reference)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def small_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelReference]:
    """A reader of random numbers, its base, and both merged: what holds for bits holds for these, in milliseconds."""
    from tests.models.gguf_files import store_small_reader

    reference = store_small_reader(tmp_path_factory.mktemp("small"))
    parts = [each for each in (reference, reference.base, reference.merged) if each is not None]
    files = {each.manifest.files[each.manifest.main_file].sha256 for each in parts}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openbook.inference.trial.KNOWN_FILES", KNOWN_FILES | files)  # they need no trial
        yield reference


@pytest.fixture(params=["small", pytest.param("trained", marks=[pytest.mark.model, pytest.mark.laws])])
def reader(request: pytest.FixtureRequest) -> ModelReference:
    """A reader of random numbers; among the laws, the trained one too."""
    found: ModelReference = request.getfixturevalue(
        {"small": "small_reader", "trained": "reader_reference"}[request.param]
    )
    return found


def threads_for(reference: ModelReference) -> int:
    """One for a model of random numbers: its threads would wait for each other, spinning, while other tests compute."""
    return 1 if reference.main_file.stat().st_size < 1 << 20 else 0


def open_engine(reference: ModelReference, context_tokens: int = 2048, **options: Any) -> LlamaCppEngine:
    identity = ModelIdentity(reference.name, reference.digest, "verified")
    more: dict[str, Any] = {"context_tokens": context_tokens, "threads": threads_for(reference)} | options
    return LlamaCppEngine(reference.main_file, identity=identity, **more)


def llama_engine(model: FrozenModel) -> LlamaCppEngine:
    assert isinstance(model.engine, LlamaCppEngine)
    return model.engine
