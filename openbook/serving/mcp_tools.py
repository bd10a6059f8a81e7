"""The tools and prompts of the Model Context Protocol server, each a small function over what the caller may see.

A result has at most about 2,000 tokens, so that small models can use it, and says how to get the rest.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, Field
from pydantic_core import to_json

from openbook.answers.ask import search as search_for
from openbook.answers.retrieval import Corpus
from openbook.core.records import Answer, AnswerSentence, Confidence
from openbook.knowledge import KnowledgeBase, lookup
from openbook.knowledge.documents import DocumentChange, document_history
from openbook.knowledge.index.scope import Scope
from openbook.knowledge.lookup import Entry, Heading, Match
from openbook.knowledge.store.names import resolve_one
from openbook.knowledge.versions import diff as versions_diff
from openbook.knowledge.versions import history as kept_versions
from openbook.knowledge.versions import resolve_version
from openbook.knowledge.word_diff import Piece
from openbook.serving.versions import ListedVersion

MAX_PART = 20_000  # characters of a document, in one result that asks for so many

_RESULT_CHARS = 6_500
_SEARCHED = 50  # passages; always as many, so that the rest of a result is the rest of the same result

_Item = TypeVar("_Item")
_Name = Annotated[
    str, Field(max_length=1_000, description="A document: its path, or the end of it, such as the file name.")
]
_Skip = Annotated[int, Field(ge=0, description="How many results to leave out: `next` of the result before says so.")]


@dataclass(frozen=True, slots=True)
class Sight:
    """What one call sees: documents outside of `scope` do not exist for it. `check` raises when the call should end."""

    base: KnowledgeBase
    scope: Scope
    corpus: Callable[[], Corpus]
    ask: Callable[[str], Answer]
    check: Callable[[], None]


class Page(BaseModel, Generic[_Item]):
    """Of one `version`. `next`: what to change in the call to get the rest; null if this is all."""

    version: int
    found: list[_Item]
    next: dict[str, int] | None = None


def _page(version: int, items: Iterable[_Item], skip: int, *, more: bool = False) -> Page[_Item]:
    """As many of the items, which come after `skip` others, as fit. `more`: there are others after them."""
    listed = list(items)
    sizes = list(accumulate(len(to_json(each, indent=6)) for each in listed))
    shown = max(bisect_right(sizes, _RESULT_CHARS), 1)
    return Page(
        version=version, found=listed[:shown], next={"skip": skip + shown} if more or shown < len(listed) else None
    )


def _looked_up(
    sight: Sight, look: Callable[[KnowledgeBase, Scope, str], list[_Item]], name: str, skip: int
) -> Page[_Item]:
    with sight.base.snapshot():
        return _page(_version(sight), look(sight.base, sight.scope, name)[skip:], skip)


def _version(sight: Sight) -> int:
    return sight.base.kept_version(sight.scope.as_of)


# --- answers and passages ---------------------------------------------------------------------------------------------


class ToolCitation(BaseModel):
    """`quote` equals the document's text from `start` to `end`."""

    document: str
    page: int | None
    start: int
    end: int
    quote: str


class ToolAnswer(BaseModel):
    """`confidence`: "supported", "likely", "check it" or "not found"; `certainty`: how likely the answer is right, from 0 to 1.

    `sentences`: each with the index of its nearest quote in `citations`, and whether that supports it. `closest`: the
    nearest sentences if not found. `receipt`: input of `openbook replay`.
    """

    answer: str
    declined: bool
    abstained: bool
    certainty: float | None
    confidence: Confidence
    sentences: list[AnswerSentence]
    citations: list[ToolCitation]
    closest: list[ToolCitation]
    notes: list[str]
    receipt: dict[str, Any]


def ask(
    sight: Sight,
    question: Annotated[str, Field(description="One complete question: earlier questions are not remembered.")],
) -> ToolAnswer:
    """Answer a question from the user's documents with verbatim citations, or say that the documents do not hold the answer."""
    return ToolAnswer.model_validate(sight.ask(question).to_json())


class ToolHit(BaseModel):
    """`start` and `end`: characters of the document. `page` counts from 1."""

    document: str
    title: str
    headings: list[str]
    page: int | None
    start: int
    end: int
    text: str
    score: float


def search(
    sight: Sight,
    query: Annotated[str, Field(description="A question, or words to find.")],
    limit: Annotated[int, Field(ge=1, le=_SEARCHED, description="How many passages, best first.")] = 5,
    skip: _Skip = 0,
) -> Page[ToolHit]:
    """Find passages of the user's documents by meaning and by words."""
    version, hits = search_for(query, sight.corpus(), _SEARCHED)
    found = [ToolHit(**asdict(hit.passage), score=hit.score) for hit in hits[skip : skip + limit]]
    return _page(version, found, skip, more=len(hits) > skip + limit)


# --- looking up -------------------------------------------------------------------------------------------------------


def find(
    sight: Sight,
    name: Annotated[str, Field(description="A part of the path, or a pattern such as *.pdf")],
    skip: _Skip = 0,
) -> Page[str]:
    """Find documents by their names."""
    return _looked_up(sight, lookup.find, name, skip)


def list_(
    sight: Sight,
    folder: Annotated[str, Field(max_length=1_000, description="A folder. Default: the top.")] = "",
    skip: _Skip = 0,
) -> Page[Entry]:
    """List the folders and documents in one folder. Folders say how many documents are below them."""
    return _looked_up(sight, lookup.entries, folder, skip)


def grep(
    sight: Sight,
    words: Annotated[str, Field(description="The exact words, in any case.")],
    expression: Annotated[bool, Field(description="The words are a regular expression (RE2).")] = False,
    skip: _Skip = 0,
) -> Page[Match]:
    """Find all lines of all documents that have exactly these words, or match a regular expression."""
    found = lookup.grep(sight.base, sight.scope, words, expression=expression, limit=50, skip=skip, check=sight.check)
    return _page(found.version, found.matches, skip, more=found.more)


class ToolPart(BaseModel):
    """Characters `start` to `end` of `total`. `next`: what to change in the call to read on; null at the end."""

    document: str
    version: int
    page: int | None
    start: int
    end: int
    total: int
    text: str
    next: dict[str, int | None] | None


def read(
    sight: Sight,
    document: _Name,
    start: Annotated[int, Field(ge=0, description="The first character, from 0, of the document or page.")] = 0,
    length: Annotated[int, Field(ge=1, le=MAX_PART, description="The largest number of characters.")] = 5_000,
    page: Annotated[int | None, Field(ge=1, description="Only this page, for documents with pages.")] = None,
) -> ToolPart:
    """Read a document's text, or a part of it, for example around a passage that `search` or `grep` found."""
    part = lookup.read(sight.base, sight.scope, document, start=start, length=length, page=page)
    rest: dict[str, int | None] = {"start": part.end, **({} if page is None else {"page": None})}
    return ToolPart(**asdict(part), next=rest if part.end < part.total else None)


def outline(sight: Sight, document: _Name, skip: _Skip = 0) -> Page[Heading]:
    """The headings of a document, or its pages. `start` of a heading is `start` of `read`."""
    return _looked_up(sight, lookup.outline, document, skip)


# --- versions ---------------------------------------------------------------------------------------------------------


class ChangedDocument(BaseModel):
    """`change`: "added", "changed", "removed", or "metadata_changed" if the text is the same."""

    document: str
    change: str


class Differences(Page[ChangedDocument | Piece]):
    """From version `before` to `version`."""

    before: int


def diff(
    sight: Sight,
    before: Annotated[str | int, Field(description="The older version: its number, a tag or a time.")],
    document: Annotated[_Name, Field(description="Show the words of this document that changed.")] = "",
    skip: _Skip = 0,
) -> Differences:
    """Which documents changed since version `before`, until `as_of`; with `document`, which words of it changed."""
    base, scope = sight.base, sight.scope
    with base.snapshot():
        after, older = _version(sight), resolve_version(base, str(before))
        if not document:
            found = versions_diff(base, older, after, scope, sight.check, passages=False)
            kinds = ("added", "changed", "removed", "metadata_changed")
            items: list[ChangedDocument | Piece] = [
                ChangedDocument(document=path, change=kind) for kind in kinds for path in getattr(found, kind)
            ]
        else:
            items = [
                Piece(kind=each.kind, text=part, chars=len(part) or each.chars)
                for each in lookup.compare(base, document, older, after, scope)[1]
                for part in re.findall(r"(?s).{1,2000}", each.text) or [""]  # no piece is larger than a result
            ]
    page = _page(after, items[skip:], skip)
    return Differences(version=after, found=page.found, next=page.next, before=older)


def history(
    sight: Sight,
    document: Annotated[_Name, Field(description="Only the versions that changed this document.")] = "",
    skip: _Skip = 0,
) -> Page[ListedVersion | DocumentChange]:
    """The kept versions, newest first, until `as_of`; with `document`, what they did to it."""
    base, scope = sight.base, sight.scope
    with base.snapshot():
        last = _version(sight)
        if document:
            changes = [] if scope.where else document_history(base, document, scope.labels)
            changes = changes or document_history(base, resolve_one(base.documents(scope), document), scope.labels)
            return _page(last, [each for each in changes if each.version <= last][skip:], skip)
        kept = [each for each in kept_versions(base) if each.version <= last][skip:]
        seen = (replace(each, documents=base.count(replace(scope, as_of=each.version))) for each in kept[:50])
        return _page(last, map(ListedVersion.model_validate, seen), skip, more=len(kept) > 50)


TOOLS: tuple[Callable[..., Any], ...] = (ask, search, find, list_, grep, read, outline, diff, history)


# --- prompts ----------------------------------------------------------------------------------------------------------


def answer_with_sources(question: str) -> str:
    """Answer a question from the documents, with sources."""
    return (
        f'Answer this question from the user\'s documents: {question}\n\nCall `ask`. Unless its confidence is "supported", check it '
        "with `search`, `grep` and `read`. After each statement, name the document and the page, and quote the words that it rests on. "
        "If the documents do not hold the answer, say so."
    )


def compare_versions(before: str, after: str = "") -> str:
    """Say what changed between two versions of the documents."""
    return (
        f"Say what changed in the user's documents from version {before} to {after or 'the newest'}. Call `diff` with before={before!r}, "
        f"as_of={after!r}; then again for each changed document, with `document`, to see the words. Begin with what matters most."
    )


def find_all_places(words: str) -> str:
    """Find every place where the documents speak of something."""
    return (
        f"Find every place in the user's documents that speaks of: {words}\n\nCall `grep` with these words and their other forms, each "
        "time until `next` is null, and `search` for places in other words. List them by document, with page or line and the quoted words."
    )


PROMPTS = (answer_with_sources, compare_versions, find_all_places)
