"""Finds what to read for a question: the best passages, or the windows of whole documents that it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from openbook.answers.certainty import CertaintyLimits
from openbook.answers.overview import Kind, windows_of
from openbook.answers.prompts import MAX_QUESTION_CHARS, without_noise
from openbook.answers.reading import OverviewPlan, PassagePlan, Plan, strategy_of
from openbook.core.config import Settings, Strategy
from openbook.core.records import Decoding, Embedder, Hit
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope
from openbook.knowledge.cite.editions import Editions, editions
from openbook.knowledge.index.scope import UNLABELLED

PASSAGES = 4  # to read; windows for all strategies but "each"
MIN_HITS = 12  # to search for, so that a replaced document is found together with its newer edition
MAX_EARLIER = 2  # user turns that a question may refer back to
GAIN = 0.15  # of cosine: a self-contained question hardly ever gains this much (research/log.md)
MAX_SHOWN_CHARS = 200  # of each line of the query
_ASKED: dict[Kind, str] = {
    "summary": r"(?:please\s+)?(?:summari[sz]e|sum up|give me a summary of|a? ?summary of)\s+(.+?)[.?!]*",
    "comparison": r"(?:please\s+)?compare\s+(.+?)\s+(?:with|and|to)\s+(.+?)[.?!]*",
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one question.

    `passages`: the most that the model reads; 0 means `PASSAGES`. `min_similarity`: cosine below which a passage does
    not count as found. `strategy`:
    "each": read passages one by one until one surely holds the answer, and answer from the surest.
    "parallel": read windows side by side, and answer from all.
    "together": read windows in one prompt.
    "checked": as "together", but decline by the model's probe, as "parallel" does without a trained reader.
    "auto": for a trained reader as it was trained, for a server "together", for any other model "checked".
    `instruction`: for models that are not trained readers. `earlier`: the user's questions before this one. `limits`:
    of certainty, for its words.
    """

    passages: int = 0
    strategy: Strategy = "auto"
    decoding: Decoding = field(default_factory=Decoding)
    min_similarity: float = 0.2
    instruction: str = ""
    earlier: tuple[str, ...] = ()
    limits: CertaintyLimits = CertaintyLimits()

    @classmethod
    def of(cls, settings: Settings) -> Options:
        limits = CertaintyLimits(settings.supported_from, settings.likely_from)
        decoding = Decoding(max_tokens=settings.max_tokens)
        return cls(settings.passages, settings.strategy, decoding, limits=limits)


@dataclass(frozen=True, slots=True)
class Corpus:
    """`embedder` is that of the knowledge base."""

    base: KnowledgeBase
    embedder: Embedder
    scope: Scope = UNLABELLED

    def search(self, query: str, limit: int, *, windows: bool = False) -> tuple[int, list[Hit]]:
        """Return (version, the best passages, best first). `windows`: each with its neighbors."""
        return self.base.search(query, self.embedder, limit, self.scope, windows=windows)

    def documents(self) -> list[str]:
        return self.base.documents(self.scope)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What to read, of which version. `editions`: documents replaced by others, if passages were searched for."""

    plan: Plan
    version: int | None = None
    editions: Editions | None = None
    notes: Sequence[str] = ()


def retrieve(question: str, model: FrozenModel, corpus: Corpus, options: Options) -> Retrieval:
    """Raises QuestionError, KnowledgeError."""
    strategy = strategy_of(options.strategy, model, options.decoding)
    earlier = [cleaned for turn in options.earlier if (cleaned := without_noise(turn))]

    def query_of(text: str) -> str:
        return search_query(earlier, text, lambda query: nearness(corpus.search(query, MIN_HITS)[1]))

    def best_document(topic: str) -> str | None:
        hits = ranked_hits(query_of(topic), corpus, options, strategy)[1].current
        return hits[0].passage.document if near_enough(hits[:1], options) else None

    overview = (
        None if model.reader or options.decoding.schema else overview_of(question, corpus.documents, best_document)
    )
    if overview is not None:
        kind, documents = overview
        version = corpus.base.kept_version(corpus.scope.as_of)
        hits, notes = windows_of([corpus.base.passages(document, version) for document in documents])
        of = f"Summary of {documents[0]}." if kind == "summary" else f"Comparison of {' and '.join(documents)}."
        return Retrieval(OverviewPlan(kind, hits, question), version, notes=[of, *notes])
    query = query_of(question)
    version, found = ranked_hits(query, corpus, options, strategy)
    hits = near_enough(found.current[: options.passages or PASSAGES], options)
    turns = [line[:MAX_SHOWN_CHARS] for line in query.splitlines() if line.strip()]
    notes = [] if query == question else [f"Searched for together: {' / '.join(turns)}"]
    return Retrieval(PassagePlan(strategy, hits, query), version, found, notes)


def overview_of(
    question: str, documents: Callable[[], Iterable[str]], found: Callable[[str], str | None]
) -> tuple[Kind, list[str]] | None:
    """Return (the kind of overview, the documents meant), or None for other questions.

    `found`: the best document for a topic; a summary need not name its document. None also if a name fits several
    documents.
    """
    for kind, pattern in _ASKED.items():
        if match := re.fullmatch(pattern, question.strip(), re.IGNORECASE):
            known = list(documents())
            named = [_named(name, known) for name in match.groups()]
            if kind == "summary" and not named[0]:
                best = found(match[1])
                named = [[best] if best else []]
            meant = [each[0] for each in named if len(each) == 1]
            return (kind, meant) if len(set(meant)) == len(match.groups()) else None
    return None


def _named(name: str, documents: Iterable[str]) -> list[str]:
    name = re.sub(r"^(?:the\s+)?(?:file|document)\s+", "", name.strip(), flags=re.IGNORECASE)
    wanted = _plain(name.strip(" \"'`\u201c\u201d"))
    found = [
        d for d in documents if wanted in (_plain(d), _plain(PurePosixPath(d).name), _plain(PurePosixPath(d).stem))
    ]
    return found or [d for d in documents if _plain(d).endswith("/" + wanted)]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.replace("\\", "/")).casefold().strip()


def ranked_hits(
    query: str, corpus: Corpus, options: Options, strategy: str, at_least: int = MIN_HITS
) -> tuple[int, Editions]:
    """Return (version, hits, best first): passages for the strategy "each", else windows around them.

    `Editions` separates the hits of documents that a newer one replaced. A document without a hit near enough
    replaces none.
    """
    limit = max(options.passages or PASSAGES, at_least)
    version, hits = corpus.search(query, limit, windows=strategy != "each")
    documents = {path for hit in near_enough(hits, options) for path in (hit.passage.document, *hit.passage.also_in)}
    return version, editions(query, hits, corpus.base.document_info(documents, replace(corpus.scope, as_of=version)))


def nearness(hits: Sequence[Hit]) -> float:
    """The cosine of the nearest hit; 0.0 without one."""
    return max((hit.similarity or 0.0 for hit in hits), default=0.0)


def near_enough(hits: Sequence[Hit], options: Options) -> list[Hit]:
    return [h for h in hits if h.similarity is None or h.similarity >= options.min_similarity]


def search_query(earlier: Sequence[str], question: str, nearness: Callable[[str], float]) -> str:
    """`question` alone, or after the query of the turn before it if that finds much nearer passages.

    "And on Sundays?" needs the question before it. `earlier`: the user's turns, oldest first. `nearness`: the cosine of
    a query's nearest passage.
    """
    query = ""
    for turn in (*earlier[-MAX_EARLIER:], question):
        room = MAX_QUESTION_CHARS - len(turn) - 1
        together = f"{query[-room:]}\n{turn}" if query.strip() and room > 0 else turn
        query = together if together != turn and nearness(together) - nearness(turn) >= GAIN else turn
    return query
