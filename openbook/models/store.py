"""The store of frozen models: one folder for each model, named by its digest, and names that point to them.

    <root>/<digest>/manifest.json, model.gguf   written once, mode 0444, never changed
    <root>/names/<name>.json                    the digests that a name means and meant
    <root>/names/.lock                          held while a name changes or a model is deleted
    <root>/stamps/<digest>.json                 file times and sizes at the last full verification
    <root>/trials/<digest>.json                 files that loaded and answered once, in a separate process
    <root>/merged/<digest>                      an adapter's merged model, by its digest
    <root>/.incoming-*/                         a model on its way in or out; never listed

Only the importer writes models, through `openbook.models.writer`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from openbook.core.errors import InvalidModelFile, ModelNotVerified, StorageError, UnknownModel, did_you_mean
from openbook.core.files import make_folder, replace_file, storage_errors
from openbook.core.locks import delete_abandoned, hold_new_folder
from openbook.core.parallel import Progress
from openbook.core.records import Digest
from openbook.models import aliases
from openbook.models.aliases import is_digest, name_problem
from openbook.models.catalogue import CATALOGUE
from openbook.models.manifest import Manifest, read_manifest
from openbook.models.verify import (
    Stamp,
    full_findings,
    raise_not_verified,
    read_cached,
    stamp_path,
    take_stamp,
    trial_path,
    write_cached,
)

MIN_PREFIX_CHARS = 6
INCOMING = ".incoming-"  # prefix of a folder on its way in or out
ABANDONED_AFTER_S = 24 * 3600.0  # Windows locks no folder, so only age tells


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A stored model. `path` is its folder, with `manifest.json` and the files it lists.

    For an adapter, `base` is its model, or None if the store lacks it. `merged` is both as one model, which computes the same
    faster, or None.
    """

    name: str
    digest: Digest
    path: Path
    manifest: Manifest
    base: ModelReference | None = None
    merged: ModelReference | None = None

    @property
    def main_file(self) -> Path:
        return self.path / self.manifest.main_file

    @property
    def needed_base(self) -> ModelReference:
        """The base of an adapter. Raises UnknownModel if it is missing."""
        if self.base is None:
            raise UnknownModel(
                f"{self.name!r} is an adapter of the model {(self.manifest.lineage or '')[:12]}, which is not here. Pull or "
                "import that model first."
            )
        return self.base


class ModelStore:
    """The models under one folder, which is created with the first model."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def names(self) -> dict[str, Digest]:
        """Every name and its digest, sorted by name. Raises ModelNotVerified for a damaged name."""
        histories = {name: aliases.read_history(self.root, name) for name in aliases.all_names(self.root)}
        return {name: history[-1] for name, history in histories.items() if history}

    def named_models(self) -> dict[str, ModelReference | str]:
        """Every name, sorted, with its model or a reason why it cannot be read."""
        found: dict[str, ModelReference | str] = {}
        for name in aliases.all_names(self.root):
            try:
                found[name] = self.resolve(name)
            except (ModelNotVerified, UnknownModel) as error:
                found[name] = str(error)
        return found

    def resolve(self, name: str) -> ModelReference:
        """Return the model by name, or by 6 or more first digits of its digest. Raises UnknownModel, ModelNotVerified."""
        return self._reference(*self._name_and_digest(name))

    def set_name(self, name: str, digest: Digest) -> ModelReference:
        """Make `name` mean the stored model `digest`."""
        reference = self._reference(aliases.checked_name(name), digest)
        if aliases.read_history(self.root, name)[-1:] != (digest,):
            with aliases.changing(self.root):
                reference = self._reference(name, digest)  # it may have been deleted by now
                aliases.append_history(self.root, name, digest)
        return reference

    def rollback(self, name: str) -> ModelReference:
        """Make `name` mean its previous model; repeat to go further back. Raises UnknownModel if there is none."""
        with aliases.changing(self.root):
            history = aliases.read_history(self.root, name)
            kept: list[Digest] = []  # the history without undone steps
            for digest in history:
                kept = kept[:-1] if kept[-2:-1] == [digest] else [*kept, digest]
            if len(kept) < 2:
                raise UnknownModel(
                    f"{name[:120]!r} has no earlier model to go back to. To point it at another model, run: openbook models promote"
                    if history
                    else f"No model is called {name[:120]!r}."
                )
            reference = self._reference(name, kept[-2])
            aliases.append_history(self.root, name, reference.digest)
        return reference

    def history(self, name: str) -> tuple[Digest, ...]:
        """All digests the name meant, oldest first."""
        return aliases.read_history(self.root, name) if not name_problem(name) else ()

    def all_models(self) -> tuple[ModelReference, ...]:
        """Every readable model, by digest; `name` is a current name, or the digest's first digits."""
        names: dict[Digest, str] = {}
        for name in reversed(aliases.all_names(self.root)):
            with suppress(ModelNotVerified):  # a damaged name means nothing, and hides no model
                names |= dict.fromkeys(aliases.read_history(self.root, name)[-1:], name)
        found = []
        for digest in self._stored(""):
            with suppress(ModelNotVerified, UnknownModel):
                found.append(self._reference(names.get(digest, digest[:12]), digest))
        return tuple(found)

    def check_removable(self, name: str) -> tuple[bool, Digest]:
        """Return (True if `name` is a name, the digest). Raises UnknownModel, also for the digest of a named model."""
        found, digest = self._name_and_digest(name)
        if found and found != name:
            raise UnknownModel(f"The model {digest[:12]} has the name {found!r}. Remove it by that name.")
        return bool(found), digest

    def remove(self, name: str) -> tuple[Digest, ...]:
        """Remove the name, and delete each model that no other name means or has meant. Return the deleted digests.

        A model without a name is given by its digest; old names forget it. While another name is damaged, no model is deleted,
        because that name might mean it. Errors precede any change, unless the disk fails half-way.
        """
        self.check_removable(name)  # an unknown name must not wait for a lock or create its folder
        with aliases.changing(self.root):
            named, digest = self.check_removable(name)
            gone = self._only_meant_by(name, aliases.read_history(self.root, name) if named else (digest,), past=named)
            merged = [each.digest for digest in gone if (each := self._merged_of(digest)) is not None]
            gone += self._only_meant_by(name, tuple(merged), past=True)
            if named:
                aliases.delete_name(self.root, name)
            else:
                for digest in gone:
                    aliases.forget_in_histories(self.root, digest)
            for digest in gone:
                self._delete(digest)
        return gone

    def findings(self, reference: ModelReference, progress: Progress = lambda done, total: None) -> tuple[str, ...]:
        """Read every byte and return each difference from the digest as a sentence; empty if there is none."""
        before = take_stamp(reference.path, reference.manifest)
        found = full_findings(reference.path, reference.digest, progress)
        if not found and before is not None and take_stamp(reference.path, reference.manifest) == before:
            write_cached(stamp_path(self.root, reference.digest), before)
        return found

    def check_fast(self, reference: ModelReference) -> None:
        """Raise ModelNotVerified for any `findings`. Takes milliseconds while the files are unchanged since the last verification."""
        stamp = read_cached(stamp_path(self.root, reference.digest), Stamp)
        fresh = stamp is not None and stamp == take_stamp(reference.path, reference.manifest)
        if not fresh and (found := self.findings(reference)):
            raise_not_verified(self._shown_name(reference.name, reference.digest), found)
        for part in filter(None, (reference.base, reference.merged)):
            self.check_fast(part)

    def _name_and_digest(self, text: str) -> tuple[str, Digest]:
        """Return (the name, or the first name of the digest, or ""; the digest)."""
        if not name_problem(text) and (history := aliases.read_history(self.root, text)):
            return text, history[-1]
        matching = self._stored(text) if len(text) >= MIN_PREFIX_CHARS else ()
        if len(matching) > 1:
            raise UnknownModel(f"{len(matching)} models have a digest that begins with {text}. Give more of it.")
        if matching:
            return next((name for name, digest in self.names().items() if digest == matching[0]), ""), matching[0]
        if text in CATALOGUE:
            raise UnknownModel(f"The model {text!r} is not stored yet. Fetch it: openbook models pull {text}")
        names = aliases.all_names(self.root)
        hint = did_you_mean(text, {*names, *CATALOGUE})
        if not hint:
            hint = f" Known are {', '.join(sorted({*names, *CATALOGUE}))}."
        raise UnknownModel(f"No model is called {text[:120]!r}.{hint}")

    def _only_meant_by(self, name: str, candidates: tuple[Digest, ...], *, past: bool) -> tuple[Digest, ...]:
        """The candidates that no other name means (`past`: or has meant); none while another name is damaged.

        An intact base that an adapter needs is left out.
        """
        others = [other for other in aliases.all_names(self.root) if other != name]
        try:
            histories = [aliases.read_history(self.root, other) for other in others]
            kept = {digest for history in histories for digest in (history if past else history[-1:])}
            staying = [self._manifest(digest) for digest in self._stored("") if digest not in candidates]
            needed = {each.lineage for each in staying if each.kind == "adapter"}
            kept |= {digest for digest in candidates if digest in needed and self._is_whole(digest)}
        except ModelNotVerified:
            return ()
        return tuple(dict.fromkeys(digest for digest in candidates if digest not in kept))

    def _is_whole(self, digest: Digest) -> bool:
        try:
            self.check_fast(self._reference("", digest))
        except ModelNotVerified:
            return False
        return True

    def _stored(self, prefix: str) -> tuple[Digest, ...]:
        if not is_digest(prefix.ljust(64, "0")):
            return ()
        with storage_errors(f"list the models in {self.root}"):
            folders = sorted(path.name for path in self.root.glob(f"{prefix}*") if path.is_dir())
        return tuple(name for name in folders if is_digest(name))

    def _manifest(self, digest: Digest, name: str = "") -> Manifest:
        if not (self.root / digest).is_dir():
            raise UnknownModel(f"The model {name or digest!r} ({digest[:12]}) is not in {self.root}. Pull it again.")
        try:
            return read_manifest(self.root / digest, digest)
        except InvalidModelFile as error:
            raise_not_verified(name or digest, (str(error),))

    def _reference(self, name: str, digest: Digest) -> ModelReference:
        manifest = self._manifest(digest, name)
        found = ModelReference(name or manifest.name, digest, self.root / digest, manifest)
        if manifest.kind != "adapter":
            return found
        return replace(found, base=self.base_of(manifest), merged=self._merged_of(digest))

    def remember_merged(self, adapter: ModelReference, merged: ModelReference) -> ModelReference:
        with storage_errors(f"write to {self.root}"):
            replace_file(self.root / "merged" / adapter.digest, merged.digest.encode())
        return replace(adapter, merged=self._merged_of(adapter.digest))

    def _merged_of(self, adapter: Digest) -> ModelReference | None:
        """The merged model of an adapter; None also if damaged, so that it is made again."""
        try:
            digest = (self.root / "merged" / adapter).read_text("ascii")
            manifest = read_manifest(self.root / digest, digest) if is_digest(digest) else None
        except (OSError, ValueError, InvalidModelFile, StorageError):
            return None
        if manifest is None or manifest.kind != "language-model" or manifest.lineage != adapter:
            return None
        return ModelReference(digest[:12], digest, self.root / digest, manifest)

    def base_of(self, adapter: Manifest) -> ModelReference | None:
        digest = adapter.lineage
        if not digest or not (self.root / digest).is_dir():
            return None
        manifest = self._manifest(digest)
        if manifest.kind != "language-model":
            raise_not_verified(adapter.name, (f"its base {digest[:12]} is an {manifest.kind}, not a language model",))
        return ModelReference(self._shown_name(manifest.name, digest), digest, self.root / digest, manifest)

    def _shown_name(self, name: str, digest: Digest) -> str:
        """`name` if it means this model now, else the digest's first digits: a manifest's name may now mean another model."""
        with suppress(ModelNotVerified):  # a damaged name means nothing
            if aliases.read_history(self.root, name)[-1:] == (digest,):
                return name
        return digest[:12]

    def _delete(self, digest: Digest) -> None:
        """Hide the model in one step, then delete it. The next writer clears what a crash leaves."""
        with storage_errors(f"delete the model {digest[:12]}"):
            for path in (stamp_path(self.root, digest), trial_path(self.root, digest), self.root / "merged" / digest):
                path.unlink(missing_ok=True)
        if (self.root / digest).is_dir():
            with staging_folder(self.root) as away, storage_errors(f"delete the model {digest[:12]}"):
                (self.root / digest).rename(away / digest)


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """A private folder in the store, deleted at the end. Also clears leftovers of dead processes.

    The lock, held while its process lives, tells leftovers from work in progress even between containers.
    """
    with storage_errors(f"write to the model store {root}"):
        make_folder(root)
        clear_leftovers(root)
        folder = root / f"{INCOMING}{os.getpid()}-{secrets.token_hex(8)}"
        lock = hold_new_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def clear_leftovers(root: Path) -> None:
    """Delete leftovers of killed processes, as far as possible."""
    for folder in root.glob(f"{INCOMING}*"):
        with suppress(OSError):
            if os.name == "posix":
                delete_abandoned(folder)
            elif time.time() - folder.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(folder)
