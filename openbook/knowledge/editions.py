"""Documents that contradict each other because one took the place of the other: which is the older, and what it said.

Every mark has evidence: what a document says of itself (`imprint.py`), or two names that differ in version, year or date
only. An older date alone makes nothing older: two articles on two matters are no editions of each other. Where pieces of
evidence disagree there is no mark. A function of its arguments: no clock, and no document that the caller was not given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, Protocol, TypeVar

from openbook.knowledge.imprint import PROPOSALS, DocumentHead, Imprint, imprint, names, same_matter
from openbook.knowledge.quoting import stems
from openbook.knowledge.sentences import sentence_spans
from openbook.records import Citation, Passage

ONE_MATTER = 0.25  # share of words that passages of two editions have in common when they speak of one matter
NEAR = 3  # nor do passages that a question finds so many ranks apart differ in their matter
SAME_STATEMENT = 0.5  # the same for two sentences, numbers apart
FEW_WORDS = 3  # a row of a table: below it, all words must be the same

_ASKS_OLDER = re.compile(
    r"\b(?:old|older|previous|former|earlier|archived|superseded|withdrawn|outdated|obsolete|draft|proposed) (?:[\w-]+ )?"
    r"(?:policy|version|edition|document|rules?|rates?|prices?|fares?|fees?|guide|manual|list|limit|value|text|one|pep|rfc|api)\b"
    r"|\b(?:previously|formerly|originally|used to be|what (?:has )?changed|differences? between)\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")


@dataclass(frozen=True, slots=True)
class Edition:
    """A document that another one took the place of, or that is not in force. `newer`: those in force in its place, if known.

    `reason` completes "This document is ...": `archived, valid until 2025-02-28`. `word`: the one adjective for it.
    """

    word: str
    reason: str
    newer: tuple[str, ...] = ()

    @property
    def is_proposal(self) -> bool:
        return self.word in PROPOSALS


class _Found(Protocol):
    @property
    def passage(self) -> Passage: ...


Found = TypeVar("Found", bound=_Found)


@dataclass(frozen=True, slots=True)
class Editions(Generic[Found]):
    """`hits`: as found, but what is older comes after what took its place where both speak of one matter. `marks`: by document."""

    hits: tuple[Found, ...]
    marks: Mapping[str, Edition]

    def mark(self, passage: Passage) -> Edition | None:
        """None when a document that holds the passage is in force, as far as is known."""
        marks = [self.marks.get(document) for document in (passage.document, *passage.also_in)]
        return None if None in marks else marks[0]

    def place(self, passage: Passage) -> str:
        """What the model is told after the place of a passage: ` (archived, valid until 2025-02-28)`, or nothing."""
        mark = self.mark(passage)
        return f" ({mark.reason})" if mark else ""

    def older_note(self, citations: Sequence[Citation]) -> str | None:
        """`The archived "Leave policy (2023)" said: "..."`: what older documents stated instead of the first cited sentence that changed."""
        for citation in citations:
            cited = {citation.document, *citation.also_in}
            for hit in self.hits:
                mark = self.mark(hit.passage)
                if mark is None or mark.is_proposal or not cited & {*mark.newer}:
                    continue
                if said := _other_statement(citation.quote, hit.passage.text):
                    name = PurePosixPath(hit.passage.document).name
                    title = hit.passage.title if hit.passage.title != PurePosixPath(name).stem else name
                    shown = f"{title}, {name}" if title != name else name
                    return f'Older: "{said}" ({shown}: {mark.reason})'
        return None


def editions(question: str, hits: Sequence[Found], heads: Mapping[str, DocumentHead]) -> Editions[Found]:
    """Mark and order what was found. `heads`: of the documents that hold the hits and that the caller may see, by path.

    A question that names an older edition, or asks what changed, leaves the order as it is.
    """
    imprints = {path: imprint(heads[path]) for path in sorted(heads)}
    marks = marked(imprints)
    result = Editions(tuple(hits), marks)
    if _ASKS_OLDER.search(question):
        return result
    asked_for = {path for path, mark in marks.items() if _names_edition(question, imprints[path], mark, imprints)}
    return Editions(_ordered(result, stems(question), asked_for), marks)


def marked(imprints: Mapping[str, Imprint]) -> dict[str, Edition]:
    """The documents that are older or not in force, with what took their place among the others. Independent of their order."""
    links: dict[str, dict[str, str]] = {}
    for path, one in sorted(imprints.items()):
        explicit = {other.path: reason for other in imprints.values() if (reason := _replaced(one, other))}
        weak = {other.path: reason for other in imprints.values() if (reason := _outlived(one, other))}
        links[path] = explicit or weak
    found: dict[str, Edition] = {}
    for path, one in sorted(imprints.items()):
        newer = _ends(path, links)
        if newer is None or (len(newer) > 1 and not any(_replaced(one, imprints[other]) for other in links[path])):
            newer = ()  # a circle, or several that may be meant
        reason = links[path].get(newer[0], "") or next(iter(links[path].values()), "") if newer else ""
        if one.status or reason:
            word = one.status or "older"
            until = f", valid until {one.until}" if one.until and word not in PROPOSALS else ""
            found[path] = Edition(word, (one.status or reason) + _instead(one, newer, imprints) + until, newer)
    return found


def _instead(one: Imprint, newer: tuple[str, ...], imprints: Mapping[str, Imprint]) -> str:
    if one.status != "superseded" or not (newer or one.replaced_by):
        return ""
    return " by " + (" and ".join(imprints[path].title for path in newer) if newer else one.replaced_by[:60].strip())


def _replaced(old: Imprint, new: Imprint) -> str:
    """Why `new` takes the place of `old`, when one of the two says so."""
    if names(old.replaced_by, new, old):
        return "superseded"
    if (
        names(new.replaces, old, new)
        and new.status not in {*PROPOSALS, "withdrawn"}
        and not names(new.replaced_by, old, new)
    ):
        return "superseded"
    return ""


def _outlived(old: Imprint, new: Imprint) -> str:
    """Why `new` is the later of two documents of one name, when all that is known of the two agrees."""
    if new.status or not same_matter(old, new) or names(new.replaced_by, old, new):
        return ""
    if old.status:
        return old.status
    if old.current:
        return ""
    votes: list[tuple[bool | None, str]] = [
        (_before(old.version, new.version), f"older: version {_dotted(old.version)}, newer is {_dotted(new.version)}"),
        (_before(_only(old.years), _only(new.years)), f"older: {''.join(old.years)}, newer is {''.join(new.years)}"),
        (_before_date(old.date, new.date), f"older: {old.date}, newer is {new.date}"),
        (None if old.put_away == new.put_away else old.put_away, "older: put away in the archive"),
    ]
    if any(vote is False for vote, _ in votes):
        return ""
    return next((reason for vote, reason in votes if vote), "")


def _before(old: tuple[int, ...], new: tuple[int, ...]) -> bool | None:
    """None when one is not known or both are the same."""
    return None if not old or not new or old == new else old < new


def _only(years: frozenset[str]) -> tuple[int, ...]:
    return tuple(map(int, years)) if len(years) == 1 else ()


def _before_date(old: str, new: str) -> bool | None:
    shared = min(len(old), len(new))
    return None if not shared or old[:shared] == new[:shared] else old < new


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _ends(path: str, links: Mapping[str, Mapping[str, str]]) -> tuple[str, ...] | None:
    """The newest that a document leads to, sorted; None when it leads to itself."""
    reached: set[str] = set()
    waiting = [*links[path]]
    while waiting:
        other = waiting.pop()
        if other not in reached:
            reached.add(other)
            waiting += links[other]
    return None if path in reached else tuple(sorted(other for other in reached if not links[other]))


def _names_edition(question: str, old: Imprint, mark: Edition, imprints: Mapping[str, Imprint]) -> bool:
    """Whether the question is about this older one: it says its year, version or number, which no newer one has."""
    newer = [imprints[path] for path in mark.newer]
    years = {*_YEAR.findall(question)}
    if years & old.years - {year for one in newer for year in one.years}:
        return True
    if years and any(one.date[:4] and max(years) < one.date[:4] for one in newer):
        return True
    numbers = {*re.findall(r"(?:version|edition|revision|v) ?(\d+(?:\.\d+)*)", question, re.IGNORECASE)}
    if _dotted(old.version) in numbers:
        return True
    asked = {*re.findall(r"\w+", question.casefold())}
    return any(value in asked and key in asked for key, value in old.identifiers.items() if value.isdigit())


def _ordered(found: Editions[Found], asked: frozenset[str], asked_for: set[str]) -> tuple[Found, ...]:
    """Within the places of hits of two editions that speak of one matter: first those of the newer, then those of the older.

    A newer passage takes the rank of the older one that it corresponds to, so that it is read when the older one was found first.
    """
    hits = found.hits
    words = [_words_of(hit.passage) for hit in hits]
    rank = dict[int, int]()
    older: list[int] = []
    for i, hit in enumerate(hits):
        mark = found.mark(hit.passage)
        if mark is None or hit.passage.document in asked_for:
            continue
        shares = {
            j: _share(words[i], words[j])
            for j, other in enumerate(hits)
            if found.mark(other.passage) is None and {other.passage.document, *other.passage.also_in} & {*mark.newer}
        }
        same = {
            j: share for j, share in shares.items() if share >= ONE_MATTER or _tells_as_much(asked, words[j], words[i])
        }
        if same:
            best = max(same, key=lambda j: (same[j], -j))
            older.append(i)
            rank[best] = min(rank.get(best, best), i)
    newer = sorted(rank, key=lambda j: (rank[j], j))
    places = sorted([*newer, *older])
    moved = dict(zip(places, [*newer, *older], strict=True))
    return tuple(hits[moved.get(i, i)] for i in range(len(hits)))


def _tells_as_much(asked: frozenset[str], new: frozenset[str], old: frozenset[str]) -> bool:
    return bool(asked & new) and asked & new >= asked & old


def _words_of(passage: Passage) -> frozenset[str]:
    return stems(" ".join([*passage.headings[-1:], passage.text]))


def _share(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0


def _other_statement(quote: str, text: str) -> str:
    """The sentence of `text` that says the same as `quote` with another value, verbatim; nothing if one says just the same."""
    stated = stems(quote)
    best = (0.0, "")
    for start, end in sentence_spans(text, 0, len(text)):
        said = stems(text[start:end])
        if said == stated:
            return ""
        share = _same_but_values(stated, said)
        if share > best[0]:
            best = (share, text[start:end])
    return best[1]


def _same_but_values(a: frozenset[str], b: frozenset[str]) -> float:
    """How much two statements share beside their values, if it is enough and each has a value that the other lacks."""
    (plain_a, numbers_a), (plain_b, numbers_b) = _split(a), _split(b)
    share = _share(plain_a, plain_b)
    if share < (1.0 if min(len(plain_a), len(plain_b)) < FEW_WORDS else SAME_STATEMENT):
        return 0.0
    sides = (
        (numbers_a - numbers_b, numbers_b - numbers_a)
        if numbers_a | numbers_b
        else (plain_a - plain_b, plain_b - plain_a)
    )
    return share if all(sides) else 0.0


def _split(words: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    numbers = frozenset(word for word in words if word[0].isdigit())
    return words - numbers, numbers
