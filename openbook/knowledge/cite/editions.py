"""Documents that declare themselves replaced or not in force. No text is compared, no sentence judged.

They declare it in metadata (`EDITION_KEYS`), or lie in a folder `archive` or `archived`: then a file of the same name replaces them if it is
outside of the archive, in or below its parent folder. An ambiguous name means the document in the same folder, if any. Cycles mean nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from openbook.records import Citation, Hit, Metadata

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
        """Names that declarations may use: ends of its path, its file name without suffix, its title, its numbers."""
        path = PurePosixPath(self.path)
        ends = [str(path), *(str(path.relative_to(above)) for above in path.parents)]
        numbers = [name for key in _NUMBERED for n in self.declared(key) for name in (n, f"{key} {n}")]
        return {name.casefold() for name in (*ends, path.stem, self.title, *numbers)}

    def numbers(self) -> set[str]:
        return _numbers(PurePosixPath(self.path).stem, self.title, *self.declared(*_NUMBERED, "version"))


class Edition(NamedTuple):
    said: str  # the document and its declaration
    newer: tuple[str, ...]  # found documents in force instead


class Editions(NamedTuple):
    hits: tuple[Hit, ...]  # as found, but left-out documents after newer ones
    current: tuple[Hit, ...]  # without documents left out
    left_out: frozenset[str]
    marks: Mapping[str, Edition]

    def notes(self, citations: Iterable[Citation]) -> list[str]:
        """Notes on documents left out for cited ones, and on declarations of cited ones."""
        cited = [{citation.document, *citation.also_in} for citation in citations]
        older = {p for p in self.left_out if any(each & {*self.marks[p].newer} for each in cited)}
        said = {"Left out": older, "Cited": {min(each) for each in cited if each <= self.marks.keys()}}
        return [f"{how}: {'; '.join(self.marks[p].said for p in sorted(of))}." for how, of in said.items() if of]


def editions(question: str, hits: Sequence[Hit], documents: Mapping[str, DocumentInfo]) -> Editions:
    """Leave out documents whose newer edition was found, unless the question has a number that only the older one has.

    `documents`: those with the hits that the caller may see, by path.
    """
    holders = [{hit.passage.document, *hit.passage.also_in} for hit in hits]
    marks = find_editions(
        {path: document for path, document in documents.items() if any(path in each for each in holders)}
    )
    own = {
        p: documents[p].numbers().difference(*(documents[n].numbers() for n in mark.newer)) for p, mark in marks.items()
    }
    left_out = frozenset(path for path in marks if marks[path].newer and not own[path] & _numbers(question))
    involved = left_out.union(*(marks[path].newer for path in left_out))
    moved = iter(sorted((i for i, each in enumerate(holders) if each & involved), key=lambda i: holders[i] <= left_out))
    order = [next(moved) if each & involved else i for i, each in enumerate(holders)]
    ordered = [(hits[i], holders[i] <= left_out) for i in order]
    return Editions(tuple(h for h, _ in ordered), tuple(h for h, out in ordered if not out), left_out, marks)


def find_editions(documents: Mapping[str, DocumentInfo]) -> dict[str, Edition]:
    links = _links(documents)
    titles = Counter(document.title for document in documents.values())
    shown = {
        path: f'"{document.title if titles[document.title] == 1 else path}"' for path, document in documents.items()
    }
    status = {
        path: NOT_IN_FORCE.intersection(map(str.casefold, documents[path].declared("status"))) for path in documents
    }
    marks = dict[str, Edition]()
    for path, document in documents.items():
        reached, waiting = set[str](), [path]  # what replaced it, and what replaced that
        while waiting:
            waiting += (new := links.get(waiting.pop(), set()) - reached)
            reached |= new
        newest = sorted(p for p in reached if not (path in reached or p in links or status[p]))
        named = [] if path in reached else [f'"{name}"' for name in document.declared("superseded_by", "replaced_by")]
        by, until = " and ".join([shown[p] for p in newest] or named), ", ".join(document.declared("valid_until"))
        said = sorted(status[path] - {"superseded" if by else ""})
        said += [f"{what} {it}" for what, it in (("superseded by", by), ("valid until", until)) if it]
        if said:
            marks[path] = Edition(", ".join([shown[path], *said]), tuple(newest))
    return marks


def _links(documents: Mapping[str, DocumentInfo]) -> dict[str, set[str]]:
    links, called = defaultdict[str, set[str]](set), defaultdict[str, list[str]](list)
    for path, document in documents.items():
        for name in document.names():
            called[name].append(path)

    def meant(document: DocumentInfo, *keys: str) -> set[str]:
        names = {name.casefold().lstrip("./") for name in document.declared(*keys)[:MAX_NAMES]}
        fits = [[path for path in called.get(name, ()) if path != document.path] for name in names]
        nearby = [
            [p for p in paths if PurePosixPath(p).parent == PurePosixPath(document.path).parent] for paths in fits
        ]
        return {paths[0] for paths in (*nearby, *fits) if len(paths) == 1}

    @cache
    def outside(above: str, name: str) -> list[str]:
        inside = (p for p in called.get(name, ()) if p.startswith(above))
        return [p for p in inside if not _ARCHIVED.fullmatch(p, len(above))]

    for path, document in documents.items():
        links[path] |= meant(document, "superseded_by", "replaced_by")
        for older in meant(document, "supersedes", "replaces"):
            links[older].add(path)
        if archived := _ARCHIVED.fullmatch(path):
            same = outside(archived[1], archived[2].casefold())
            links[path].update(same if len(same) == 1 else ())
    return {path: newer for path, newer in links.items() if newer}


def _numbers(*texts: str) -> set[str]:
    return {number.lstrip("0") for text in texts for number in re.findall(r"\d+(?:\.\d+)*", text)}
