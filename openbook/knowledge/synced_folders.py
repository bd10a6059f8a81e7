"""Synced folders and sources: those remembered from earlier runs, and those declared in `sources.toml`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openbook.core.codec import convert
from openbook.core.errors import ConfigError, KnowledgeError, QuestionError, SourceError
from openbook.knowledge.base import KnowledgeBase
from openbook.knowledge.index.scope import checked_labels
from openbook.knowledge.ingest.discovery import Rules, SyncedFolder, check_exists
from openbook.knowledge.ingest.mirror import forget_mirror, mirror_folder
from openbook.knowledge.store import schema
from openbook.knowledge.store.names import display_path
from openbook.sources.registry import COMMON, is_address, open_source, without_revision

SOURCES_FILE = "sources.toml"  # in the folder of a knowledge base


def synced_folders(base: KnowledgeBase) -> list[SyncedFolder]:
    rows = base.connection.execute("SELECT rules FROM sources ORDER BY folder")
    found = [SyncedFolder.from_json(text) for (text,) in rows]
    return [replace(each, folder=mirror_folder(base.folder, each.address)) if each.address else each for each in found]


def folder_labels(base: KnowledgeBase) -> Callable[[str], frozenset[str]]:
    """A function from a listed path to the labels of the synced folders around it."""
    known = [(each.prefix, each.labels) for each in synced_folders(base) if each.labels]
    return lambda path: frozenset[str]().union(*(labels for folder, labels in known if path.startswith(folder)))


def to_sync(
    base: KnowledgeBase,
    place: str | Path,
    rules: Rules = Rules(),
    labels: frozenset[str] = frozenset(),
    ocr: str = "",
    *,
    reset: bool = False,
) -> SyncedFolder:
    """A folder or, for an address, a source, with the globs, labels and OCR of its last sync where none are given, unless `reset`.

    What `sources.toml` says of a source holds before those. Raises KnowledgeError if there is no such folder.
    """
    before = [] if reset else synced_folders(base)
    if is_address(str(place)):
        wanted = SyncedFolder(mirror_folder(base.folder, str(place)), address=str(place))
        before = [*declared_sources(base.folder), *before]
    else:
        check_exists(Path(place))
        wanted = SyncedFolder(Path(os.path.abspath(place)))
    address, wanted = wanted.address, next((each for each in before if each.folder == wanted.folder), wanted)
    rules = rules if rules != Rules() else wanted.rules
    return replace(wanted, address=address, rules=rules, labels=labels or wanted.labels, ocr=ocr or wanted.ocr)


def all_to_sync(base: KnowledgeBase, ocr: str = "") -> list[SyncedFolder]:
    """All folders and sources that were synced, and those in `sources.toml`."""
    known = [*synced_folders(base), *declared_sources(base.folder, ocr)]
    return list({each.folder: each for each in known}.values())


def forget_synced_folder(base: KnowledgeBase, folder: str | Path) -> None:
    """Stop syncing it; documents stay, what was fetched is deleted. Raises KnowledgeError if it was not synced, or stands in `sources.toml`."""
    name = without_revision(str(folder)) if is_address(str(folder)) else display_path(Path(os.path.abspath(folder)))
    if any(without_revision(each.address) == name for each in declared_sources(base.folder)):
        raise KnowledgeError(f"{name} stands in sources.toml. Delete its entry there first.")
    was_fetched = is_address(name) and forget_mirror(mirror_folder(base.folder, name), name)
    with base.writing() as connection, schema.transaction(connection), connection.changing(()):
        if not connection.execute("DELETE FROM sources WHERE folder = ?", (name,)).rowcount and not was_fetched:
            known = [folder for (folder,) in connection.execute("SELECT folder FROM sources ORDER BY folder")]
            raise KnowledgeError(f"{name} was not synced. These were: {', '.join(known) or 'none'}.")


def declared_sources(base_folder: Path, ocr: str = "") -> list[SyncedFolder]:
    """The sources in `sources.toml` of a knowledge base. Raises ConfigError."""
    import tomllib

    file = base_folder / SOURCES_FILE
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}.") from error
    found: dict[Path, SyncedFolder] = {}
    for number, table in enumerate(convert(said, _SourcesFile, str(file), ConfigError).sources, start=1):
        common = {key: table.pop(key) for key in ("url", *COMMON) if key in table}
        given = convert(common, _Declared, f"{file}: source {number}", ConfigError)
        try:
            open_source(given.url, table)  # fetches nothing; checks the options
            labels = checked_labels(given.labels)
        except (ConfigError, SourceError, QuestionError) as error:
            raise ConfigError(f"{file}: {error}") from error
        if (folder := mirror_folder(base_folder, given.url)) in found:
            raise ConfigError(f"{file} has {without_revision(given.url)} twice. Keep one of them.")
        rules = Rules(given.include, given.exclude)
        found[folder] = SyncedFolder(folder, rules, labels, ocr, given.url, table)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _SourcesFile:
    sources: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class _Declared:
    url: str
    labels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
