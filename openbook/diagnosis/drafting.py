"""Questions proposed from a knowledge base, for a person to review: never used before somebody has read them.

Rules, and on request a model, make a question whose answer is a span of a passage. Filters keep those that can be
understood alone, do not give the answer away, have one answer, and whose passage the retriever finds. Deterministic: the
same knowledge base, embedder, model and seed give the same drafts.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import PurePath

import numpy as np

from openbook.diagnosis.clauses import plain
from openbook.diagnosis.drafts import Draft, Gold
from openbook.diagnosis.judging import needs_title, reason_against
from openbook.diagnosis.phrasing import proposals
from openbook.diagnosis.posing import answer_spans, answers_so, pose
from openbook.diagnosis.proposing import Proposal, Voice, voice
from openbook.diagnosis.scoring import equal_value, normalised
from openbook.diagnosis.swapping import Names, may_be_answered, swapped
from openbook.diagnosis.tables import table_proposals
from openbook.errors import ContextOverflow
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.scope import EVERYTHING
from openbook.knowledge.sentences import sentence_spans
from openbook.records import Embedder, Hit, Passage, sha256_hex

FOUND_AMONG = 10  # the passage must be among so many first hits for its question
UNANSWERABLE = 0.1  # share of the drafts
FROM_TABLES = 0.25  # at most
POSED = 3  # questions that a model poses at most, for each draft wanted
OTHERWISE = "other passages answer it otherwise"
OTHER_LANGUAGE = "the document is not in English"
_ENGLISH = re.compile(r"\b(?:the|of|and|is|are|was|were|for|with|by|from|be|at|to)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Drafting:
    """`rejected`: how many proposals were turned down, by reason. `not_english`: documents that the rules cannot read."""

    drafts: tuple[Draft, ...]
    rejected: Mapping[str, int]
    documents: int
    not_english: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A proposal and the sentence, or line of a table, that it is made from. Without a question a model is to pose it."""

    proposal: Proposal
    passage: Passage
    start: int
    end: int
    source: str


def draft(
    base: KnowledgeBase,
    embedder: Embedder,
    count: int,
    *,
    seed: int = 0,
    model: FrozenModel | None = None,
    scope: Scope = EVERYTHING,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Drafting:
    """At most `count` drafts, spread over the documents that `scope` sees; one in ten has no answer there.

    With `model` it poses questions for spans that no rule asks for. Raises KnowledgeError, EngineError.
    """
    scope = replace(scope, as_of=base.kept_version(scope.as_of))  # whatever is committed meanwhile
    documents = base.documents(scope)
    work = _Work(base, embedder, scope, model, _short_names(documents), np.random.default_rng(seed))
    order = [documents[i] for i in work.chance.permutation(len(documents))]
    without = int(count * UNANSWERABLE)
    order = work.fill(order, count - without, lambda: progress(len(work.drafts), count))
    unanswerable = list(work.unanswerable(without))
    work.fill(order, count - len(unanswerable), lambda: progress(len(work.drafts), count))
    progress(count, count)
    return Drafting(
        (*work.drafts, *unanswerable), dict(work.rejected.most_common()), len(documents), tuple(work.not_english)
    )


@dataclass(slots=True)
class _Work:
    base: KnowledgeBase
    embedder: Embedder
    scope: Scope
    model: FrozenModel | None
    names_of: Mapping[str, str]
    chance: np.random.Generator
    drafts: list[Draft] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    used: set[tuple[str, int]] = field(default_factory=set)  # sentences, by document and start
    tried: set[tuple[str, int, str]] = field(default_factory=set)
    visited: set[str] = field(default_factory=set)
    tables: int = 0
    posed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    not_english: list[str] = field(default_factory=list)
    names: Names = field(default_factory=Names)

    def fill(self, order: Sequence[str], wanted: int, progress: Callable[[], None]) -> list[str]:
        """Go over the documents in turn until there are `wanted` drafts or no more. Those that may have more."""
        rest, quota = list(order), max(1, (wanted - len(self.drafts)) // max(1, len(order)))
        while rest and len(self.drafts) < wanted:
            more: list[str] = []
            for document in rest:
                left = wanted - len(self.drafts)
                if left <= 0 or self.take(document, min(quota, left), wanted):
                    more.append(document)
                progress()
            rest, quota = more, quota + 1
        return rest

    def take(self, document: str, quota: int, wanted: int) -> bool:
        """Accept up to `quota` more from a document. Whether it may have yet more."""
        text = self.base.text(document, self.scope.as_of)
        if text is None:
            return False
        if not in_english(text):
            self.not_english.append(document)
            self.rejected[OTHER_LANGUAGE] += 1
            return False
        if document not in self.visited:
            self.visited.add(document)
            self.names.read(text)
        accepted = 0
        candidates = list(self._candidates(document, text))
        shuffled = [candidates[i] for i in self.chance.permutation(len(candidates))]
        for candidate in sorted(shuffled, key=lambda each: each.source == "model"):  # rules cost nothing
            if accepted == quota:
                return True
            if candidate.source == "table" and self.tables >= FROM_TABLES * wanted:
                continue
            if candidate.source == "model" and self.posed >= POSED * wanted:
                return False
            key = (document, candidate.proposal.start, candidate.proposal.question)
            if key in self.tried or (document, candidate.start) in self.used:
                continue
            self.tried.add(key)
            accepted += self._accept(candidate, text)
        return False

    def _candidates(self, document: str, text: str) -> Iterator[_Candidate]:
        inside = voice(text)
        for passage in self.base.passages(document, self.scope.as_of):
            ruled: set[int] = set()
            for start, end in sentence_spans(text, passage.start, passage.end):
                for proposal in proposals(plain(text, start, end), inside):
                    ruled.add(start)
                    yield _Candidate(proposal, passage, start, end, "rule")
            yield from _from_tables(text, passage, inside)
            if self.model is not None:
                for start, end in sentence_spans(text, passage.start, passage.end):
                    if start not in ruled and text[end - 1] in ".!":
                        yield from _to_pose(text, passage, start, end)

    def _accept(self, candidate: _Candidate, text: str) -> bool:
        """Whether the candidate became a draft; why not is counted."""
        proposal, passage = candidate.proposal, candidate.passage
        answer = " ".join(text[proposal.start : proposal.end].split())
        try:
            question, reason = self._examined(candidate, answer)
        except ContextOverflow:
            return self._reject("its passage does not fit into the model's context")
        if reason:
            return self._reject(reason)
        self.asked.add(normalised(question))
        self.used.add((passage.document, candidate.start))
        self.tables += candidate.source == "table"
        quote = text[candidate.start : candidate.end]
        gold = Gold(self.names_of[passage.document], passage.page, candidate.start, candidate.end, quote)
        answers = tuple(dict.fromkeys([answer, *(" ".join(each.split()) for each in proposal.also)]))
        kind = PurePath(passage.document).suffix.lstrip(".").lower()
        tags = tuple(dict.fromkeys(tag for tag in (kind, *proposal.tags, f"by-{candidate.source}") if tag))
        self.drafts.append(Draft(_id(question, quote), question, "answerable", answers, gold, tags))
        return True

    def _examined(self, candidate: _Candidate, answer: str) -> tuple[str, str]:
        """(the question, with the title of its document where it needs one; why to reject it, or nothing)."""
        proposal, passage = candidate.proposal, candidate.passage
        if not passage.start <= candidate.start <= proposal.start < proposal.end <= candidate.end <= passage.end:
            return proposal.question, "its answer does not stand in the passage"
        question = proposal.question
        if self.model is not None and not question:
            self.posed += 1
            question = pose(self.model, passage, answer)
            if not question:
                return "", "the model wrote no question"
        if reason := reason_against(question, answer, proposal.also):
            return question, reason
        if needs_title(question) and passage.title not in question:
            question = with_title(question, passage.title)
        reason = self._reason_of_search(question, answer, passage)
        if reason == OTHERWISE and passage.title not in question:
            question = with_title(question, passage.title)
            reason = self._reason_of_search(question, answer, passage)
        if not reason and candidate.source == "model" and self.model is not None:
            reason = (
                "" if answers_so(self.model, passage, question, answer) else "the model itself answers it otherwise"
            )
        return question, reason

    def _reject(self, reason: str) -> bool:
        self.rejected[reason] += 1
        return False

    def _reason_of_search(self, question: str, answer: str, passage: Passage) -> str:
        if normalised(question) in self.asked:
            return "asked already"
        hits = self._search(question)
        if all(hit.passage.id != passage.id for hit in hits):
            return f"its passage is not among the first {FOUND_AMONG} found"
        for hit in hits:
            if _titled(question) and (hit.passage.title != passage.title or hit.passage.id == passage.id):
                continue
            for other, said in _asked_in(hit.passage):
                if normalised(other) in normalised(question) and _differ(said, answer):
                    return OTHERWISE
        return ""

    def _search(self, question: str) -> Sequence[Hit]:
        return self.base.search(question, self.embedder, FOUND_AMONG, self.scope)[1]

    def unanswerable(self, count: int) -> Iterator[Draft]:
        """Accepted questions asked of another thing, for which no passage that is found tells it."""
        for i in self.chance.permutation(len(self.drafts)):
            source = self.drafts[i]
            for question, name in swapped(source.question, self.names) if "table" not in source.tags else ():
                if count <= 0:
                    return
                hits = self._search(question)
                if normalised(question) in self.asked or may_be_answered(question, name, hits):
                    continue
                self.asked.add(normalised(question))
                tags = ("unanswerable", "near-miss", "confirm", "by-rule")
                yield Draft(_id(question, ""), question, "unanswerable", (), None, tags)
                count -= 1
                break


def in_english(text: str) -> bool:
    """Whether the commonest English words are common in it, or it has too few words to tell."""
    words = re.findall(r"[^\W\d]+", text[:50_000])
    return len(words) < 30 or len(_ENGLISH.findall(text[:50_000])) >= 0.09 * len(words)


def with_title(question: str, title: str) -> str:
    inner = question if re.match(r"[A-Z]{2}", question) else question[:1].lower() + question[1:]
    return f"According to “{title}”, {inner}"


def _titled(question: str) -> bool:
    return question.startswith(("According to “", "In “", "In the table “"))


def _from_tables(text: str, passage: Passage, inside: Voice) -> Iterator[_Candidate]:
    heading = re.sub(r"^[\d.]+ ", "", passage.headings[-1]) if passage.headings else ""
    for proposal in table_proposals(text, passage.start, passage.end, heading, passage.title, inside):
        start = max(passage.start, text.rfind("\n", 0, proposal.start) + 1)
        stop = text.find("\n", proposal.end)
        end = min(passage.end, len(text) if stop < 0 else stop)
        line = text[start:end]
        yield _Candidate(proposal, passage, start + len(line) - len(line.lstrip()), start + len(line.rstrip()), "table")


def _to_pose(text: str, passage: Passage, start: int, end: int) -> Iterator[_Candidate]:
    sentence = plain(text, start, end)
    for first, last in answer_spans(sentence):
        yield _Candidate(Proposal("", *sentence.span(first, last)), passage, start, end, "model")


@lru_cache(maxsize=2048)
def _asked_in(passage: Passage) -> tuple[tuple[str, str], ...]:
    """(question, answer) of all that the rules find in a passage."""
    found = []
    inside = voice(passage.text)
    for start, end in sentence_spans(passage.text, 0, len(passage.text)):
        for proposal in proposals(plain(passage.text, start, end), inside):
            found.append((proposal.question, " ".join(passage.text[proposal.start : proposal.end].split())))
    return tuple(found)


def _differ(one: str, other: str) -> bool:
    return normalised(one) != normalised(other) and not equal_value(one, [other])


def _id(question: str, quote: str) -> str:
    return "d" + sha256_hex(f"{question}\0{quote}".encode())[:10]


def _short_names(documents: Sequence[str]) -> dict[str, str]:
    """The path of each below the folder that holds them all; a name that is the end of another's stays whole."""
    paths = [PurePath(document) for document in documents]
    try:
        folder = os.path.commonpath([path.parent for path in paths]) if paths else ""
    except ValueError:  # on different drives, or not all absolute
        folder = ""
    short = {str(path): path.relative_to(folder).as_posix() if folder else str(path) for path in paths}
    ends = Counter("/" + "/".join(path.parts[-n:]) for path in paths for n in range(1, len(path.parts) + 1))
    return {document: name if ends["/" + name] <= 1 else document for document, name in short.items()}
