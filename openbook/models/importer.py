"""Adding models to the store: pulled by name, imported from a file, written by training, or merged.

First the caller's `try_out` loads the model (`openbook.inference.trial.check_usable`) from a reference to files outside the
store, and raises a ModelError if no engine can run it. Catalogue models marked as tried need no trial. Without `try_out`,
a model must be tried when it is opened.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from openbook import __version__
from openbook.core.errors import ConfigError, InvalidModelFile, PullError, StorageError, UnknownModel, did_you_mean
from openbook.core.files import storage_errors
from openbook.core.parallel import Progress
from openbook.models import writer
from openbook.models.aliases import MAX_NAME_CHARS, checked_name
from openbook.models.catalogue import CATALOGUE, CatalogueEntry
from openbook.models.describe import check_importable, describe, kind_of
from openbook.models.gguf_writer import AdapterUpdates, Quantisation, write_merged
from openbook.models.lineage import TrainingRecord, training_record_of
from openbook.models.manifest import FILES, TRAINING_RECORD, Kind, KnowledgeCutoff, Manifest, Source
from openbook.models.reader_metadata import reader_of
from openbook.models.sources import download_from_hub, fetch_first, find_on_hub, parse_hub, place_of, sources_of
from openbook.models.store import ModelReference, ModelStore, staging_folder
from openbook.models.verify import raise_not_verified

Announce = Callable[[str], None]
TryOut = Callable[[ModelReference], None]
MERGED_FOR_READING: Quantisation = "Q8_0"  # the fastest, and the most exact of its size


# --- files -------------------------------------------------------------------------------------------------------------


def import_gguf(
    store: ModelStore,
    path: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    knowledge_cutoff: str | None = None,
    progress: Progress = lambda done, total: None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Copy a GGUF file into the store, verify the copy and name it (default: the file's name in lower case).

    It may be an adapter that OpenBook trained, without its base. `knowledge_cutoff` is YYYY-MM-DD. Raises InvalidModelFile;
    ConfigError for an invalid name, and if the store has another license or cutoff for these weights.
    """
    name = _name_of(path) if name is None else checked_name(name)
    try:
        cutoff = KnowledgeCutoff(knowledge_cutoff, "whoever imported the file" if knowledge_cutoff else "")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not path.is_file():
        raise StorageError(f"{path} is not a file.")
    if name in CATALOGUE:
        raise ConfigError(
            f"{name!r} is a model of the catalogue. Give the file another name: openbook models import FILE --name NAME"
        )
    # Before the copy, which is slow for a large file.
    main = FILES[kind_of(check_importable(path))][0]
    with staging_folder(store.root) as folder:
        with storage_errors(f"copy {path.name} into {store.root}"):
            shutil.copyfile(path, folder / main)
        # Describe the copy: the original may change while it is read.
        source = Source("local-file", {main: _unicode(path.name)})
        licence = licence and _unicode(licence)
        manifest = describe(folder, name=name, source=source, licence=licence, cutoff=cutoff, progress=progress)
        if (store.root / manifest.digest).is_dir():
            _refuse_other_claims(store.resolve(manifest.digest), licence, knowledge_cutoff)
        return _install(store, name, manifest, folder, try_out)


def _unicode(text: str) -> str:
    """Text as a manifest can hold it."""
    return os.fsencode(text).decode(errors="replace")


def _refuse_other_claims(stored: ModelReference, licence: str | None, knowledge_cutoff: str | None) -> None:
    manifest = stored.manifest
    for what, given, kept in (
        ("licence", licence, manifest.licence),
        ("knowledge cut-off", knowledge_cutoff, manifest.knowledge_cutoff.date),
    ):
        if given not in (None, kept):
            raise ConfigError(
                f"These weights are stored already, as {stored.name}, and what is stored never changes. Its {what} is "
                f"{kept or 'not stated'}, not {given[:120]!r}: leave that out, or remove the model first, with all of its "
                f"names (openbook models remove {stored.name})."
            )


def store_trained(
    store: ModelStore,
    path: Path,
    record: TrainingRecord,
    *,
    kind: Kind,
    manifest_name: str,
    licence: str,
    cutoff: KnowledgeCutoff,
    name: str | None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Copy the GGUF file that training or `merge` wrote into the store, with its record.

    `name` None: it is stored without a name.
    """
    with staging_folder(store.root) as folder, storage_errors(f"copy {path.name} into {store.root}"):
        main = FILES[kind][0]
        shutil.copyfile(path, folder / main)
        (folder / TRAINING_RECORD).write_bytes(record.to_json())
        source = Source(
            "training", dict.fromkeys((main, TRAINING_RECORD), f"made by the recipe {record.recipe_digest}")
        )
        manifest = describe(
            folder, name=manifest_name, source=source, licence=licence, cutoff=cutoff, lineage=record.parent
        )
        if manifest.lineage != record.parent:
            raise InvalidModelFile(f"{path.name} belongs to {manifest.lineage}, and its record says {record.parent}.")
        return _install(store, name, manifest, folder, try_out)


def merge(
    store: ModelStore,
    reference: ModelReference,
    quantisation: Quantisation,
    name: str | None,
    *,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Store an adapter and its base as one model, or a model in another `quantisation`. Raises ConfigError if the name is taken."""
    if name is not None and (checked_name(name) in CATALOGUE or name in store.names()):
        raise ConfigError(
            f"The name {name!r} is taken. Choose another; then run `openbook models promote`, which compares the two."
        )
    store.check_fast(reference)
    is_adapter = reference.manifest.kind == "adapter"
    base = reference.needed_base if is_adapter else reference
    if try_out is not None:
        try_out(reference)
    # The new model inherits what the old one learned, and its gate.
    before = training_record_of(reference) or TrainingRecord({}, None, (), "", 0, 0, 0, "", {}, None, ())
    recipe = {"name": "merged" if is_adapter else "quantised", "quantisation": quantisation}
    record = dataclasses.replace(
        before,
        recipe=recipe | ({"gate": before.recipe["gate"]} if "gate" in before.recipe else {}),
        parent=reference.digest,
        code=f"openbook {__version__}",
        seed=0,
        steps=0,
        tokens=0,
        numeric_class="",
    )
    with staging_folder(store.root) as scrap, storage_errors(f"write a model to {store.root}"):
        path = scrap / "model.gguf"
        updates = AdapterUpdates(reference.main_file, base.main_file) if is_adapter else {}
        write_merged(path, base.main_file, updates, quantisation=quantisation, reader=reader_of(reference.main_file))
        return store_trained(
            store,
            path,
            record,
            kind="language-model",
            manifest_name=name or f"{reference.manifest.name}-{quantisation.lower()}"[:MAX_NAME_CHARS],
            licence=reference.manifest.licence,
            cutoff=reference.manifest.knowledge_cutoff,
            name=name,
            try_out=try_out,
        )


def _install(
    store: ModelStore, name: str | None, manifest: Manifest, files: Path, try_out: TryOut | None
) -> ModelReference:
    """Try the model in the folder `files`, move it into the store, verify it, and only then name it."""
    if try_out is not None:
        base = store.base_of(manifest) if manifest.kind == "adapter" else None
        try_out(ModelReference(name or manifest.name, manifest.digest, files, manifest, base))
    folder = writer.install(store.root, manifest, files)
    if found := store.findings(ModelReference(manifest.name, manifest.digest, folder, manifest)):
        raise_not_verified(manifest.digest[:12], found)  # no name may mean it yet
    return store.set_name(name, manifest.digest) if name else store.resolve(manifest.digest)


def _name_of(path: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]", "-", path.name.lower().removesuffix(".gguf"))[:MAX_NAME_CHARS].strip(".-_")
    try:
        return checked_name(name)
    except ConfigError as error:
        raise ConfigError(
            f"Cannot make a model name out of {path.name!r}. Give one: openbook models import FILE --name NAME"
        ) from error


# --- names -------------------------------------------------------------------------------------------------------------


def pull(
    store: ModelStore,
    name: str,
    *,
    progress: Progress = lambda done, total: None,
    announce: Announce = lambda line: None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Return the catalogue's model of that name, or of an `hf://...` source, downloading it if the store lacks it.

    `announce` gets one line before a download: what, size, source, license. Raises UnknownModel, PullError, ModelNotVerified.
    """
    if name.startswith("hf://"):
        return _pull_hub(store, name, progress, announce, try_out)
    entry = CATALOGUE.get(name)
    if entry is None:
        hint = did_you_mean(name, CATALOGUE) or f" Known are {', '.join(sorted(CATALOGUE))}."
        raise UnknownModel(
            f"The catalogue has no model {name[:120]!r}.{hint} Any GGUF file: openbook models pull "
            "hf://OWNER/REPOSITORY/FILE.gguf, or openbook models import FILE."
        )
    found = _find_stored(store, name)
    if found is not None:
        stored = {target: each.sha256 for target, each in found.manifest.files.items()}
        if any(stored.get(file.target) != file.sha256 for file in entry.files):
            raise PullError(
                f"The name {name!r} means another model here ({found.digest[:12]}) than in the catalogue. "
                f"Remove it (`openbook models remove {name} --yes`) and pull again."
            )
    reference = found or _pull_entry(store, entry, progress, announce, try_out)
    return _with_base(store, reference, progress, announce, try_out)


def ensure(
    store: ModelStore,
    name: str,
    *,
    progress: Progress = lambda done, total: None,
    announce: Announce = lambda line: None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Return the stored model of that name or digest, checked; if only the catalogue has it, pull it.

    A reader's adapter is merged with its base once. Raises as `pull` does.
    """
    if found := _find_stored(store, name):
        return _with_base(store, found, progress, announce, try_out)
    if name in CATALOGUE or name.startswith("hf://"):
        return pull(store, name, progress=progress, announce=announce, try_out=try_out)
    return store.resolve(name)  # raises UnknownModel with suggestions


def _find_stored(store: ModelStore, name: str) -> ModelReference | None:
    try:
        reference = store.resolve(name)
    except UnknownModel:
        return None
    store.check_fast(reference)
    return reference


def _with_base(
    store: ModelStore, reference: ModelReference, progress: Progress, announce: Announce, try_out: TryOut | None
) -> ModelReference:
    """Add the base of a reader's adapter, and the merged model, which is faster, if the disk has room."""
    entry = CATALOGUE.get(reference.name)
    if reference.manifest.kind == "adapter" and reference.base is None and entry is not None and entry.base:
        ensure(store, entry.base, progress=progress, announce=announce)
        reference = store.resolve(reference.name)
    if reference.base is None or reference.merged is not None or reader_of(reference.main_file) is None:
        return reference
    announce(f"Merging {reference.name} with its base, once, so that it reads faster.")
    try:
        return store.remember_merged(reference, merge(store, reference, MERGED_FOR_READING, None, try_out=try_out))
    except StorageError as error:
        announce(f"It will be slower: {error}")
        return reference


def _pull_entry(
    store: ModelStore, entry: CatalogueEntry, progress: Progress, announce: Announce, try_out: TryOut | None
) -> ModelReference:
    if entry.download_bytes:
        places = ", ".join(place_of(sources_of(file)[0]) for file in entry.files if file.download_bytes)
        announce(
            f"Fetching {entry.description}: {entry.download_bytes / 1e6:.1f} MB from {places}, licence {entry.licence}."
        )
    with staging_folder(store.root) as folder:
        origins = {file.target: fetch_first(file, folder, progress, announce) for file in entry.files}
        manifest = describe(
            folder,
            name=entry.name,
            source=Source("catalogue", origins),
            licence=entry.licence,
            cutoff=KnowledgeCutoff(entry.knowledge_cutoff, entry.cutoff_claimed_by),
            embedding=entry.embedding,
            architecture=entry.architecture,
            quantisation=entry.quantisation,
        )
        return _install(store, entry.name, manifest, folder, None if entry.tried else try_out)


def _pull_hub(
    store: ModelStore, text: str, progress: Progress, announce: Announce, try_out: TryOut | None
) -> ModelReference:
    wanted = parse_hub(text)
    if not wanted.path.lower().endswith(".gguf"):
        raise PullError(f"{text[:200]!r} is not a GGUF file. Give the path of a file that ends in .gguf.")
    name = _name_of(Path(wanted.path))
    if found := _find_stored(store, name):
        origin = found.manifest.source.origins[found.manifest.main_file]
        place, _, commit = origin.partition("@")
        if place == str(dataclasses.replace(wanted, revision=None)) and (
            wanted.revision in (None, commit) or find_on_hub(wanted)[0].revision == commit
        ):
            return found
        raise PullError(  # a name must not silently change to another repository's file
            f"The name {name!r} already means the model from {origin}. Remove that one first "
            f"(openbook models remove {name}), or download this one and import it under another name."
        )
    if name in CATALOGUE:  # nor may it replace a catalogue name
        raise PullError(
            f"{name!r} is a model of the catalogue. Pull that one (openbook models pull {name}), or download this file and "
            "import it under another name: openbook models import FILE --name NAME."
        )
    source, total_bytes = find_on_hub(wanted)
    announce(
        f"Fetching {name}: {total_bytes / 1e6:.1f} MB from {place_of(source)}, licence as stated there. Its digest is not known "
        "beforehand: what arrives now is what the name will mean."
    )
    with staging_folder(store.root) as folder:
        path = download_from_hub(source, folder / "download", total_bytes, progress)
        try:
            main = FILES[kind_of(check_importable(path))][0]
            path.rename(folder / main)
            manifest = describe(folder, name=name, source=Source("first-use", {main: str(source)}))
        except InvalidModelFile as error:
            raise InvalidModelFile(f"{source} is not a model OpenBook can use: {error}") from error
        return _install(store, name, manifest, folder, try_out)
