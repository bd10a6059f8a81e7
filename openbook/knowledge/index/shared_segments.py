"""Segments that machines share: objects named by their bytes, and manifests that list them.

`<base id>/segments/<SHA-256>.npy` holds an array. `<base id>/manifests/<number>.json` names all arrays of all segments; the highest number is in
force. A manifest never changes: of two writers with the same number one is refused and continues from the other's. Each machine copies the
current segments into its index folder, where `segment_files.read` checks and maps them.

What cannot be fetched is built from the rows. Write access to the store can change the order of results but no text, which comes from the rows.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from openbook.core.codec import decode
from openbook.core.errors import KnowledgeBaseBusy, KnowledgeError, StorageError
from openbook.core.files import make_folder, replace_file
from openbook.core.locks import exclusive_lock
from openbook.core.records import Digest, canonical_json
from openbook.knowledge.index import segment_files
from openbook.knowledge.index.blobs import Blobs
from openbook.knowledge.index.segment_builder import IndexSource
from openbook.knowledge.index.segment_files import FileDigest, Files, SavedSegment, SegmentWriter
from openbook.knowledge.index.segments import LAYOUT, contents_of

LOG = logging.getLogger("openbook.knowledge")
GRACE_S = 3600  # unnamed objects stay this long, for machines that are fetching them
TRIES = 8  # to commit, while others commit
_AT_A_TIME = 4  # objects that are fetched or put
_WAIT_S = 600.0  # for another process of this machine that fetches or writes
_MAX_MANIFEST_BYTES = 16 << 20
_NAME = re.compile(r"(\d{10})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCK, _RECORD = ".sharing", ".shared.json"  # above the index folder, and in it


@dataclass(frozen=True, slots=True)
class Manifest:
    """`about` as in `state.json`. `retired`: digests of removed files, with the time in seconds since 1970. `token`: of the writer."""

    about: list[int | str]
    segments: list[Files]
    retired: dict[Digest, int]
    token: str

    def __post_init__(self) -> None:
        for files in self.segments:
            if files.keys() != LAYOUT.keys():
                raise ValueError("it names other arrays than a segment has")
            if not all(file.size > 0 and _SHA256.fullmatch(file.digest) for file in files.values()):
                raise ValueError("it names a file with an impossible size or digest")


@dataclass(frozen=True, slots=True)
class _Record:
    url: str
    number: int


_NOTHING = Manifest([], [], {}, "")


def pull(blobs: Blobs, folder: Path, source: IndexSource, *, again: bool = False) -> None:
    """Bring the index folder below `folder` to the manifest in force. `again` checks local files too.

    Errors of store or disk are logged: a reader builds missing segments from the rows.
    """
    try:
        with _shared(blobs, folder, source) as shared:
            shared.pull(again=again)
    except (KnowledgeError, StorageError, OSError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        why = f"{text.removesuffix('.')}. What is not on this machine is built from the rows, which takes longer and finds the same."
        _warn(blobs, why)


def check_reachable(blobs: Blobs, base_id: str) -> None:
    """Raise StorageError when the store cannot be listed."""
    next(blobs.list(_manifests(base_id)), None)


def problems(blobs: Blobs, folder: Path, source: IndexSource) -> list[str]:
    """See `SharedSegments.problems`. Fetches every byte, and brings the index folder to the manifest."""
    with _shared(blobs, folder, source) as shared:
        shared.pull(again=True)
        return list(shared.problems())


def refresh(
    blobs: Blobs,
    folder: Path,
    source: IndexSource,
    renew: Callable[[], list[SavedSegment]],
    *,
    forget: bool = False,
    replace_all: bool = False,
) -> list[SavedSegment]:
    """Fetch the store's segments, update the index folder with `renew`, and publish the result.

    Store errors are logged, and the next refresh retries; with `forget`, which must delete there, StorageError is raised. `forget` first deletes
    the index here. `replace_all` replaces everything in the store. Needs the write lock. Raises as `renew`, and OSError.
    """
    with _shared(blobs, folder, source) as shared:
        if forget:
            segment_files.delete_index(folder)
        failure = f"Cannot use {blobs.url}: other writers change it all the time."
        for _ in range(TRIES):
            saved = None
            try:
                shared.pull(own=True, replace_all=replace_all)
                saved = renew()
                if shared.publish(saved, forget=forget, replace_all=replace_all):
                    return saved
            except StorageError as error:
                failure = str(error)
                break
        saved = renew() if saved is None else saved  # if `renew` failed, this raises the same
    if forget:
        raise StorageError(
            f"{failure} No version has the documents any more, but bytes of them may still be in {blobs.url}. When it can be used "
            "again, add or sync something: that deletes them there. Then purge again, for the proof."
        )
    _warn(blobs, f"{failure} New segments are on this machine alone until the next add or sync can put them there.")
    return saved


@contextmanager
def _shared(blobs: Blobs, folder: Path, source: IndexSource) -> Iterator[SharedSegments]:
    make_folder(segment_files.index_folder(folder))
    with exclusive_lock(folder / _LOCK, _WAIT_S) as held:
        if not held:
            raise KnowledgeBaseBusy(
                f"Another process fetches segments into {folder}. Wait for it, then run this again."
            )
        yield SharedSegments(blobs, folder, source)


def _warn(blobs: Blobs, what: str) -> None:
    LOG.warning("The index in %s: %s", blobs.url, what)


class SharedSegments:
    """The shared index of one knowledge base. The caller holds the lock on the folder."""

    def __init__(self, blobs: Blobs, folder: Path, source: IndexSource) -> None:
        self._blobs, self._folder, self._source = blobs, folder, source
        self._number, self._manifest = 0, _NOTHING
        self._bad: set[Digest] = set()  # objects that are missing or do not match their name

    def pull(self, *, own: bool = False, again: bool = False, replace_all: bool = False) -> None:
        """Bring the index folder to the manifest in force, without segments whose files are missing or wrong.

        `own` is for writers: unnamed segments stay, unless the manifest has their contents. `replace_all` leaves the folder as it is. After an error the
        folder has at least what it had.
        """
        if not own and not again and self._recorded() == max(self._numbers(), default=0):
            return
        self._number, self._manifest = self._newest()
        if replace_all or not self._number:
            return
        local, problems = segment_files.read(self._folder, self._source, every_byte=again)
        left = {_key(_files(each)): each for each in local}
        writer, found, failure = SegmentWriter(self._folder, self._source), list[SavedSegment](), None
        for files in self._named():
            if (here := left.pop(_key(files), None)) is not None:
                found.append(here)
                continue
            try:
                found.append(writer.adopt(files, self._fetch))
            except StorageError as error:
                failure = error
                break
            except (KeyError, ValueError, EOFError) as error:
                self._bad.update(file.digest for file in files.values())
                _warn(
                    self._blobs,
                    f"A segment is not what was put there ({error}) and is left out. The next add or sync repairs it.",
                )
        if own or failure or self._bad or not self._is_ours:
            held = contents_of(each.segment for each in found)
            found += [each for each in left.values() if not np.isin(each.segment.contents, held).any()]
        if problems or [each.entry.name for each in found] != [each.entry.name for each in local]:
            writer.switch(found)
        writer.clean(found)
        if failure:
            raise failure
        self._record()

    def publish(self, saved: Sequence[SavedSegment], *, forget: bool = False, replace_all: bool = False) -> bool:
        """Put what the store lacks, and commit a manifest of `saved`. False: another writer was first; pull and try again.

        Unnamed objects are deleted after `GRACE_S`, with `forget` at once. `replace_all` puts every file. Call `pull` first.
        """
        sizes = {each.key: each.size for each in self._blobs.list(self._segment_key())}
        lacking: dict[str, Path] = {}
        for each in saved:
            for array, file in each.entry.files.items():
                key = self._segment_key(file.digest)
                if replace_all or sizes.get(key) != file.size or file.digest in self._bad:
                    lacking[key] = self._folder / "index" / each.entry.name / f"{array}.npy"
        _in_parallel(self._blobs.put, lacking.items())
        segments = [_files(each) for each in saved]
        # A new number makes readers retry what they could not use.
        as_before = self._named() == segments and self._number > 0 and not (self._bad or replace_all)
        if as_before and not forget:
            return True
        if not as_before and not self._commit(segments, forget=forget):
            return False
        self._sweep(segments, forget=forget)
        return True

    def _commit(self, segments: list[Files], *, forget: bool) -> bool:
        now, needed, old = int(time.time()), _digests(segments), dict[Digest, int]()
        if not forget:
            old = dict.fromkeys(_digests(self._manifest.segments), now) | self._manifest.retired
        retired = {file: since for file, since in old.items() if since > now - GRACE_S and file not in needed}
        manifest = Manifest(segment_files.about(self._source), segments, retired, secrets.token_hex(8))
        number, data = self._number + 1, canonical_json(asdict(manifest))
        key = self._manifest_key(number)
        try:  # a put that was sent again, because its reply was lost, finds its own data
            won = self._blobs.put(key, data, if_absent=True) or self._blobs.get(key) == data
        except KeyError:
            won = False
        # An old number, whose manifest was deleted, is free too.
        if not won or max(self._numbers(), default=0) != number:
            return False
        self._number, self._manifest = number, manifest
        self._record()
        return True

    def _sweep(self, segments: list[Files], *, forget: bool) -> None:
        """Delete older manifests and unneeded objects: with `forget` at once, else after fetches can have ended."""
        for number in self._numbers():
            if number < self._number:
                self._blobs.delete(self._manifest_key(number))
        needed = _digests(segments) | (set() if forget else set(self._manifest.retired))
        keys, until = {self._segment_key(digest) for digest in needed}, time.time() - GRACE_S
        for each in list(self._blobs.list(self._segment_key())):
            if each.key not in keys and (forget or each.modified < until):
                self._blobs.delete(each.key)

    def _fetch(self, files: Iterable[tuple[Digest, Path]]) -> None:
        _in_parallel(self._blobs.fetch, [(self._segment_key(digest), path) for digest, path in files])

    # --- verification -----------------------------------------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """Objects of the manifest in force that are missing or wrong."""
        copy = self._folder / "index" / ".checking"
        for file in sorted({file for files in self._named() for file in files.values()}):
            key = self._segment_key(file.digest)
            try:
                self._blobs.fetch(key, copy)
                if (copy.stat().st_size, segment_files.file_digest(copy)) != file:
                    yield f"{self._blobs.url}: {key} is not what was put there"
            except KeyError:
                yield f"{self._blobs.url}: {key} is not there"
            finally:
                copy.unlink(missing_ok=True)

    def objects(self, saved: Sequence[SavedSegment]) -> tuple[int, int, list[str]]:
        """(objects of this knowledge base, their bytes, the keys that are no manifest and no file of `saved`)."""
        ours = {self._segment_key(file.digest) for each in saved for file in each.entry.files.values()}
        ours |= {self._manifest_key(number) for number in self._numbers()}
        found = list(self._blobs.list(f"{self._source.base_id}/"))
        return len(found), sum(each.size for each in found), [each.key for each in found if each.key not in ours]

    # --- manifests ----------------------------------------------------------------------------------------------------

    def _newest(self) -> tuple[int, Manifest]:
        """The number and manifest in force; an empty manifest if it is missing or unreadable."""
        for _ in range(TRIES):
            if not (numbers := self._numbers()):
                return 0, _NOTHING
            number = max(numbers)
            key = self._manifest_key(number)
            try:
                if numbers[number] > _MAX_MANIFEST_BYTES:
                    raise ValueError(f"{key} has {numbers[number]:,} bytes, which no manifest has.")
                manifest = decode(self._blobs.get(key), Manifest, key, ValueError)
            except KeyError:  # a newer one came, and it was deleted
                continue
            except ValueError as error:
                _warn(self._blobs, f"{error} The next add or sync replaces it.")
                return number, _NOTHING
            return number, manifest
        raise StorageError(f"Cannot use {self._blobs.url}: its manifests change faster than they can be read.")

    def _numbers(self) -> dict[int, int]:
        prefix = _manifests(self._source.base_id)
        sizes = {each.key.removeprefix(prefix): each.size for each in self._blobs.list(prefix)}
        return {int(found[1]): size for name, size in sizes.items() if (found := _NAME.fullmatch(name))}

    @property
    def _is_ours(self) -> bool:
        return self._manifest.about == segment_files.about(self._source)

    def _named(self) -> list[Files]:
        return self._manifest.segments if self._is_ours else []

    def _manifest_key(self, number: int) -> str:
        return f"{_manifests(self._source.base_id)}{number:010}.json"

    def _segment_key(self, digest: Digest | None = None) -> str:
        return f"{self._source.base_id}/segments/" + (f"{digest}.npy" if digest else "")

    # --- record of the index folder -----------------------------------------------------------------------------------

    def _recorded(self) -> int | None:
        """The recorded manifest number, if it is of this store and the folder is unchanged since."""
        index = self._folder / "index"
        try:
            record = decode((index / _RECORD).read_bytes(), _Record, _RECORD, ValueError)
        except (OSError, ValueError):
            return None
        return record.number if record.url == self._blobs.url and (index / "state.json").is_file() else None

    def _record(self) -> None:
        record = _Record(self._blobs.url, self._number)
        replace_file(self._folder / "index" / _RECORD, canonical_json(asdict(record)))


def _manifests(base_id: str) -> str:
    return f"{base_id}/manifests/"


def _files(saved: SavedSegment) -> Files:
    return {array: FileDigest(file.size, file.digest) for array, file in saved.entry.files.items()}


def _key(files: Files) -> tuple[tuple[str, FileDigest], ...]:
    return tuple(sorted(files.items()))


def _digests(segments: Iterable[Files]) -> set[Digest]:
    return {file.digest for files in segments for file in files.values()}


def _in_parallel(work: Callable[[str, Path], object], each: Iterable[tuple[str, Path]]) -> None:
    """Run the work a few items at a time. After the first error no more start; it is raised."""
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        going = [pool.submit(work, key, path) for key, path in each]
        try:
            for done in going:
                done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
