"""Files of repositories on the model hub, through `huggingface_hub` and with the user's own settings for it."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.errors import PullError, StorageError
from openbook.files import is_disk_refusal, storage_errors
from openbook.models.digest import Progress
from openbook.models.sources import HubSource, folder_bytes

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

POLL_S = 0.2
ANSWER_S = 6.0  # after which the hub counts as out of reach


def find_hub(source: HubSource, *, endpoint: str | None = None) -> tuple[HubSource, int]:
    """(the source with its revision resolved to a commit, the size in bytes). Raises PullError."""
    from huggingface_hub import hf_hub_url

    with _hub_errors(source):
        found = _metadata(hf_hub_url(source.repository, source.path, revision=source.revision, endpoint=endpoint))
    if not found.commit_hash or found.size is None:
        raise PullError(f"The hub names no commit or size for {source}. Check HF_ENDPOINT: is it a model hub?")
    return dataclasses.replace(source, revision=found.commit_hash), found.size


def _metadata(url: str) -> HfFileMetadata:
    """What the hub says of a file, soon: the library's own limit holds for each address of the hub anew. Raises OSError."""
    from huggingface_hub import get_hf_file_metadata

    answers: queue.SimpleQueue[HfFileMetadata | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(get_hf_file_metadata(url, timeout=ANSWER_S))
        except Exception as error:  # noqa: BLE001  raised again below
            answers.put(error)

    threading.Thread(target=ask, name="openbook-hub", daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_S)
    except queue.Empty:
        raise TimeoutError(f"the hub did not answer within {ANSWER_S:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def fetch_hub(
    source: HubSource, *, workspace: Path, total_bytes: int, progress: Progress, endpoint: str | None = None
) -> Path:
    """Downloads the file into a folder of `workspace`. Raises PullError, StorageError."""
    from huggingface_hub import hf_hub_download

    folder = workspace / "hub"
    with storage_errors(f"write to {workspace}"):
        folder.mkdir()
    with _hub_errors(source), _watched(folder, total_bytes, progress), _quiet():
        path = hf_hub_download(
            source.repository, source.path, revision=source.revision, local_dir=folder, endpoint=endpoint
        )
    progress(total_bytes, total_bytes)
    return Path(path)


@contextmanager
def _watched(folder: Path, total_bytes: int, progress: Progress) -> Iterator[None]:
    """Reports the growth of the folder from a thread of its own, so that an interrupt still meets the download."""
    done = threading.Event()

    def watch() -> None:
        shown = 0
        while not done.wait(POLL_S):
            shown = max(shown, min(folder_bytes(folder), total_bytes))
            progress(shown, total_bytes)

    watcher = threading.Thread(target=watch, name="openbook-download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextmanager
def _quiet() -> Iterator[None]:
    """The library draws progress bars of its own; ours is enough."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, documented, not listed in __all__
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The transport below the library differs from version to version; its errors share a base with HfHubHTTPError.
    transport = [
        base
        for base in HfHubHTTPError.__mro__
        if base.__name__ in ("HTTPError", "RequestException") and issubclass(base, Exception)
    ]
    failures: tuple[type[Exception], ...] = (OSError, HFValidationError, *transport)
    try:
        yield
    except failures as error:
        if isinstance(error, OSError) and is_disk_refusal(error):
            raise StorageError(f"Cannot store {source}: {error.strerror}.") from error
        raise PullError(_sentence(source, error)) from error


def _sentence(source: HubSource, error: Exception) -> str:
    from huggingface_hub import errors

    # In this order: some of these are kinds of others further down.
    sentences: tuple[tuple[type[Exception], str], ...] = (
        (
            errors.GatedRepoError,
            f"{source.repository} is gated: accept its terms on its page, then log in with `hf auth login`.",
        ),
        (
            errors.RepositoryNotFoundError,
            f"The hub has no repository {source.repository!r}, or it is private. Check it, or log in (`hf auth login`).",
        ),
        (errors.RevisionNotFoundError, f"{source.repository} has no revision {source.revision!r}."),
        (errors.OfflineModeIsEnabled, f"Cannot fetch {source}: HF_HUB_OFFLINE is set. Unset it and pull again."),
        (  # the library's word for: no connection, and nothing in its cache
            errors.LocalEntryNotFoundError,
            f"Cannot reach the hub to fetch {source}. Check the connection and HF_ENDPOINT.",
        ),
        (errors.EntryNotFoundError, f"{source.repository} has no file {source.path!r}. Check the path on its page."),
        (errors.HFValidationError, f"{source.repository!r} cannot be a repository: {error}"),
    )
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    otherwise = f"Cannot fetch {source}: {first_line}. Check the connection and HF_ENDPOINT."
    return next((sentence for kind, sentence in sentences if isinstance(error, kind)), otherwise)
