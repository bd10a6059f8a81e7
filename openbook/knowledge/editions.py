"""Documents that contradict each other because one took the place of the other: which is the older, and what it said.

Every mark has evidence: what a document says of itself (`imprint.py`), or two names that differ in version, year or date
only. An older date alone makes nothing older: two articles on two matters are no editions of each other. Where pieces of
evidence disagree there is no mark. The result depends on the arguments alone: not on the clock, nor on documents that the caller may not see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from openbook.knowledge.claims import stem, words_of
from openbook.knowledge.imprint import PROPOSALS, YEAR, DocumentHead, Imprint, imprint, is_named, same_matter
from openbook.knowledge.sentences import sentence_spans
from openbook.knowledge.values import SMALL_NUMBERS
from openbook.knowledge.words import is_function_word
from openbook.records import Citation, Hit, Passage

ONE_MATTER = 0.25  # passages of two editions that share this much of their words are on one matter
# Two sentences make one statement when the shorter one shares this many of its words, numbers apart; all, if it has few.
SAME_STATEMENT = 0.5
FEW_WORDS = 3
SAME = (2.0, 2.0)

OLDER = "older"  # known from its name or date only; every other word is in one of the two documents

_ASKS_OLDER = re.compile(
    r"\b(?:old|older|previous|former|earlier|archived|superseded|withdrawn|outdated|obsolete|draft|proposed) (?:[\w-]+ )?"
    r"(?:policy|version|edition|document|rules?|rates?|prices?|fares?|fees?|guide|manual|list|limit|value|text|one|pep|rfc|api)\b"
    r"|\b(?:previously|formerly|originally|used to be|what (?:has )?changed|differences? between)\b",
    re.IGNORECASE,
)
_NUMBERS = {stem(word): str(number) for word, number in SMALL_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Edition:
    """A document that was replaced, or is not in force. `newer`: what replaced it, if it is known.

    `reason` completes "This document is ...": `archived, valid until 2025-02-28`. `word`: the one adjective for it.
    """

    word: str
    reason: str
    newer: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Editions:
    """`hits`: as found, but an older passage comes after the newer one on the same matter. `marks`: by document.

    `current`: those of `hits` that a model should read. An older passage on the same matter is left out: a small model
    takes the older value even when it comes last and is marked.
    """

    hits: tuple[Hit, ...]
    marks: Mapping[str, Edition]
    current: tuple[Hit, ...]

    def mark(self, passage: Passage) -> Edition | None:
        """None when a document that holds the passage is in force, as far as is known."""
        marks = [self.marks.get(document) for document in (passage.document, *passage.also_in)]
        return None if None in marks else marks[0]

    def older_note(self, citations: Sequence[Citation]) -> str | None:
        """What the older document said instead of the first cited sentence that changed: `Older: "24 days ..." (Leave policy (2023), ...)`.

        None when nothing older was found, when it says the same, or when no sentence of it clearly is about the same.
        """
        for citation in citations:
            cited, quoted = {citation.document, *citation.also_in}, _words_and_numbers(citation.quote)
            best = ((0.0, 0.0), "", "")
            for hit in self.hits:
                passage, mark = hit.passage, self.mark(hit.passage)
                if mark is None or mark.word in PROPOSALS or not cited & {*mark.newer}:
                    continue
                for start, end in sentence_spans(passage.text, 0, len(passage.text)):
                    likeness = _likeness(quoted, _words_and_numbers(passage.text[start:end]))
                    if likeness > best[0]:
                        best = (likeness, passage.text[start:end], f"{_shown(passage)}: {mark.reason}")
            if best[1] and best[0] != SAME:
                return f'Older: "{best[1]}" ({best[2]})'
        return None


def editions(question: str, hits: Sequence[Hit], heads: Mapping[str, DocumentHead]) -> Editions:
    """Mark and order what was found. `heads`: of the documents that hold the hits and that the caller may see, by path.

    A question that names an older edition, or asks what changed, leaves the order as it is.
    """
    imprints = {path: imprint(heads[path]) for path in sorted(heads)}
    marks = find_marks(imprints)
    found = Editions(tuple(hits), marks, tuple(hits))
    if _ASKS_OLDER.search(question):
        return found
    asked_for = {path for path, mark in marks.items() if _names_edition(question, imprints[path], mark, imprints)}
    ordered, outdated = list(hits), set[str]()
    for path in sorted(marks.keys() - asked_for):
        outdated |= _put_after(path, ordered, found, matter_words(question))
    current = tuple(hit for hit in ordered if hit.passage.id not in outdated)
    return Editions(tuple(ordered), marks, current)


def find_marks(imprints: Mapping[str, Imprint]) -> dict[str, Edition]:
    """The documents that are older or not in force, by path, in whatever order they are given."""
    explicit, links = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
    for path, one in imprints.items():
        explicit[path] = {other.path: reason for other in imprints.values() if (reason := _replaced(one, other))}
        links[path] = explicit[path] or {
            other.path: reason for other in imprints.values() if (reason := _outlived(one, other))
        }
    found: dict[str, Edition] = {}
    for path, one in sorted(imprints.items()):
        newer = _ends(path, links)
        if newer is None or (len(newer) > 1 and not explicit[path]):
            newer = ()  # a circle, or several that may be meant
        reason = links[path].get(newer[0], "") or next(iter(links[path].values()), "") if newer else ""
        if one.status or reason:
            word = one.status or (reason if reason == "superseded" else OLDER)
            until = f", valid until {one.until}" if one.until and word not in PROPOSALS else ""
            found[path] = Edition(word, (one.status or reason) + _instead(one, newer, imprints) + until, newer)
    return found


def _instead(one: Imprint, newer: tuple[str, ...], imprints: Mapping[str, Imprint]) -> str:
    if one.status != "superseded" or not (newer or one.replaced_by):
        return ""
    return " by " + (" and ".join(imprints[path].title for path in newer) if newer else one.replaced_by[:60].strip())


def _replaced(old: Imprint, new: Imprint) -> str:
    """Why `new` takes the place of `old`, when one of the two says so."""
    says_so = new.status not in {*PROPOSALS, "withdrawn"} and is_named(new.replaces, old, new)
    if is_named(old.replaced_by, new, old) or (says_so and not is_named(new.replaced_by, old, new)):
        return "superseded"
    return ""


def _outlived(old: Imprint, new: Imprint) -> str:
    """Why `new` is the later of two documents of one name, when all that is known of the two agrees."""
    if new.status or not same_matter(old, new) or is_named(new.replaced_by, old, new):
        return ""
    if old.status:
        return old.status
    if old.current:
        return ""
    votes = [(_before(old.version, new.version), f"version {_dotted(old)}, newer is {_dotted(new)}")]
    if old.name == new.name:  # else each may be about its own time: the elections of two years
        votes.append((_before(_year(old), _year(new)), f"{_year(old)}, newer is {_year(new)}"))
        votes.append((_before(old.date, new.date), f"{old.date}, newer is {new.date}"))
    if old.in_archive != new.in_archive:
        votes.append((old.in_archive, "put away in the archive"))
    if any(vote is False for vote, _ in votes):
        return ""
    return next((f"older: {reason}" for vote, reason in votes if vote), "")


def _before(old: str | tuple[int, ...], new: str | tuple[int, ...]) -> bool | None:
    """None when one is not known, or says no more than that it may be the other: May 2024 and 2024."""
    shared = min(len(old), len(new))
    return None if not shared or old[:shared] == new[:shared] else old < new  # type: ignore[operator]


def _year(one: Imprint) -> str:
    return min(one.years) if len(one.years) == 1 else ""


def _dotted(one: Imprint) -> str:
    return ".".join(map(str, one.version))


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
    years = {*YEAR.findall(question)}
    if years & old.years - {year for one in newer for year in one.years}:
        return True
    if years and any(one.date[:4] and max(years) < one.date[:4] for one in newer):
        return True
    numbers = {*re.findall(r"(?:version|edition|revision|v) ?(\d+(?:\.\d+)*)", question, re.IGNORECASE)}
    if _dotted(old) in numbers:
        return True
    asked = {*re.findall(r"\w+", question.casefold())}
    return any(value in asked and key in asked for key, value in old.identifiers.items() if value.isdigit())


def _put_after(path: str, hits: list[Hit], found: Editions, asked: frozenset[str]) -> set[str]:
    """Move hits of the older document `path` behind those of the newer ones. Returns the ids of older passages that a newer one replaces.

    A newer passage takes the rank of the older one that is most like it, so that it is read when the older one was found first.
    Where only names and dates tell which is older, passages on different matters stay where they are.
    """
    mark = found.marks[path]
    newer_words = {
        j: _words_of(hit.passage)
        for j, hit in enumerate(hits)
        if found.mark(hit.passage) is None and {hit.passage.document, *hit.passage.also_in} & {*mark.newer}
    }
    older: list[int] = []
    outdated = set[str]()
    rank = dict[int, int]()
    for i, hit in enumerate(hits):
        if hit.passage.document != path or found.mark(hit.passage) is None:
            continue
        words = _words_of(hit.passage)
        shares = {j: _share(words, others) for j, others in newer_words.items()}
        # One that shares few words is on the matter too if it has every word of the question that the older one has.
        telling = {j for j, others in newer_words.items() if asked & others and asked & words <= others}
        alike = [j for j, share in shares.items() if share >= ONE_MATTER or j in telling]
        if alike:
            outdated.add(hit.passage.id)
        elif mark.word != OLDER:
            alike = list(newer_words)[:1]  # the one that was found first
        if alike:
            best = max(alike, key=lambda j: (shares[j], -j))
            older.append(i)
            rank[best] = min(rank.get(best, best), i)
    order = [*sorted(rank, key=lambda j: (rank[j], j)), *older]
    for rank_now, hit in zip(sorted(order), [hits[i] for i in order], strict=True):
        hits[rank_now] = hit
    return outdated


def _words_of(passage: Passage) -> frozenset[str]:
    return matter_words(" ".join([*passage.headings[-1:], passage.text]))


def _share(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0


def _shown(passage: Passage) -> str:
    path = PurePosixPath(passage.document)
    return path.name if passage.title in ("", path.stem) else f"{passage.title}, {path.name}"


def _words_and_numbers(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(its words, its numbers), `six` and `6` alike."""
    words = {_NUMBERS.get(word, word) for word in matter_words(text)}
    numbers = frozenset(word for word in words if word[0].isdigit())
    return frozenset(words - numbers), numbers


def _likeness(
    a: tuple[frozenset[str], frozenset[str]], b: tuple[frozenset[str], frozenset[str]]
) -> tuple[float, float]:
    """How alike two statements are that say the same with other values, higher is more; (0, 0) when they do not, or `SAME`."""
    if a == b:
        return SAME
    (words_a, numbers_a), (words_b, numbers_b) = a, b
    all_a, all_b = words_a | numbers_a, words_b | numbers_b
    shorter, shared = min(len(words_a), len(words_b)), len(words_a & words_b)
    one_label = shorter == 1 and words_a != words_b  # a row of a table has its label alone
    if not shorter or one_label or shared < shorter * (SAME_STATEMENT if shorter >= FEW_WORDS else 1):
        return 0.0, 0.0
    ours, theirs = (numbers_a, numbers_b) if numbers_a and numbers_b else (all_a, all_b)
    if ours <= theirs or theirs <= ours:
        return 0.0, 0.0
    return shared / shorter, _share(all_a, all_b)


def matter_words(text: str) -> frozenset[str]:
    """The words of `text` that carry its matter, numbers among them."""
    return frozenset(stem(word) for word in words_of(text) if not is_function_word(word))
