"""Documents that declare themselves replaced or not in force. No text is compared, no sentence judged.

They declare it in metadata (`EDITION_KEYS`), or lie in a folder `archive` or `archived`: then a file of the same name replaces them if it is
outside of the archive, in or below its parent folder. An ambiguous name means the document in the same folder, if any. Cycles mean nothing.
`documents` are those with hits that the caller may see, by path.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from openbook.core.records import Citation, Hit, Metadata

MAX_NAMES = 20  # in one field
NOT_IN_FORCE = frozenset("superseded withdrawn archived obsolete deprecated draft rejected".split())  # as a `status`
_NUMBERED = ("number", "id", "pep", "rfc")  # fields with a document's number
_ARCHIVED = re.compile(r"(.*/|)archived?/(?:.*/)?([^/]+)", re.IGNORECASE)  # the archive's parent; the file's name


class DocumentInfo(NamedTuple):
    """`pages`: None without pages. `version`: the oldest kept one from which on it has this text; `created_at`: that version's time."""

    path: str
    title: str
    metadata: Metadata
    labels: tuple[str, ...] = ()
    media_type: str = ""
    bytes: int = 0
    characters: int = 0
    pages: int | None = None
    passages: int = 0
    version: int = 0
    created_at: str = ""

    def declared(self, *keys: str) -> list[str]:
        values = [value if isinstance(value, tuple) else (value,) for key, value in self.metadata if key in keys]
        return [part for value in values for item in value for part in map(str.strip, str(item).split(",")) if part]

    def names(self) -> set[str]:
        path = PurePosixPath(self.path)
        ends = [str(path), *("/".join(path.parts[at:]) for at in range(1, len(path.parts)))]
        numbers = [name for key in _NUMBERED for n in self.declared(key) for name in (n, f"{key} {n}")]
        return {name.casefold() for name in (*ends, path.stem, self.title, *numbers)}

    def numbers(self) -> frozenset[str]:
        return _numbers(PurePosixPath(self.path).stem, self.title, *self.declared(*_NUMBERED, "version"))


class Edition(NamedTuple):
    said: str  # the document and its declaration
    newer: tuple[str, ...]  # found documents in force instead
    numbers: frozenset[str]  # of the document, and of none of these


class Editions(NamedTuple):
    current: tuple[Hit, ...]  # without documents left out, whose places newer ones take
    left_out: frozenset[str]
    marks: Mapping[str, Edition]

    def notes(self, citations: Iterable[Citation]) -> list[str]:
        cited = [{citation.document, *citation.also_in} for citation in citations]
        older = {p for p in self.left_out if any(each & {*self.marks[p].newer} for each in cited)}
        said = {"Left out": older, "Cited": {min(each) for each in cited if each <= self.marks.keys()}}
        return [f"{how}: {'; '.join(self.marks[p].said for p in sorted(of))}." for how, of in said.items() if of]


def editions(question: str, hits: Sequence[Hit], documents: Mapping[str, DocumentInfo]) -> Editions:
    """Leave out documents whose newer edition was found, unless the question has a number that only the older one has."""
    holders = [{hit.passage.document, *hit.passage.also_in} for hit in hits]
    marks, asked = find_editions(documents), _numbers(question)
    left_out = frozenset(path for path, mark in marks.items() if mark.newer and not mark.numbers & asked)
    involved = left_out.union(*(marks[path].newer for path in left_out))
    moved = iter([hit for hit, each in zip(hits, holders, strict=True) if each & involved and not each <= left_out])
    found = (next(moved, None) if each & involved else hit for hit, each in zip(hits, holders, strict=True))
    return Editions(tuple(filter(None, found)), left_out, marks)


def find_editions(documents: Mapping[str, DocumentInfo]) -> dict[str, Edition]:
    newer, marks = _declared_newer(documents), dict[str, Edition]()
    titles = Counter(each.title for each in documents.values())
    shown = {path: f'"{each.title if titles[each.title] == 1 else path}"' for path, each in documents.items()}
    status = {path: NOT_IN_FORCE & {*map(str.casefold, each.declared("status"))} for path, each in documents.items()}
    for path, document in documents.items():
        reached, waiting = set[str](), [path]  # what replaced it, and what replaced that
        while waiting:
            waiting += (new := newer[waiting.pop()] - reached)
            reached |= new
        newest = sorted(p for p in reached if not (path in reached or newer[p] or status[p]))
        named = [] if path in reached else [f'"{name}"' for name in document.declared("superseded_by", "replaced_by")]
        by, until = " and ".join([shown[p] for p in newest] or named), ", ".join(document.declared("valid_until"))
        said = sorted(status[path] - {"superseded" if by else ""})
        said += [f"{what} {it}" for what, it in (("superseded by", by), ("valid until", until)) if it]
        if said:
            own = document.numbers().difference(*(documents[p].numbers() for p in newest))
            marks[path] = Edition(", ".join([shown[path], *said]), tuple(newest), own)
    return marks


def _declared_newer(documents: Mapping[str, DocumentInfo]) -> Mapping[str, set[str]]:
    called = defaultdict[str, list[str]](list)
    for path, document in documents.items():
        for name in document.names():
            called[name].append(path)

    def meant(document: DocumentInfo, *keys: str) -> Iterator[str]:
        for name in document.declared(*keys)[:MAX_NAMES]:
            fits = [path for path in called.get(name.casefold().lstrip("./"), ()) if path != document.path]
            nearby = [path for path in fits if PurePosixPath(path).parent == PurePosixPath(document.path).parent]
            yield from next((each for each in (fits, nearby) if len(each) == 1), ())

    @cache
    def outside(above: str, name: str) -> list[str]:
        return [p for p in called[name] if p.startswith(above) and not _ARCHIVED.fullmatch(p, len(above))]

    newer = {path: set(meant(document, "superseded_by", "replaced_by")) for path, document in documents.items()}
    for path, document in documents.items():
        for older in meant(document, "supersedes", "replaces"):
            newer[older].add(path)
        if (archived := _ARCHIVED.fullmatch(path)) and len(same := outside(archived[1], archived[2].casefold())) == 1:
            newer[path].update(same)
    return newer


def _numbers(*texts: str) -> frozenset[str]:
    return frozenset(number.lstrip("0") for text in texts for number in re.findall(r"\d+(?:\.\d+)*", text))
