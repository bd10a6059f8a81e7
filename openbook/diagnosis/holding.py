"""Which passages of a knowledge base hold the answer to a question, and where in them it stands.

By the question's gold span if it has one; where the document has changed, by its quote, of which a passage need hold only a
part. Without either, the passages that
hold an accepted answer are looked for among the `LOOKED_THROUGH` best for the question, and for the question with each of
the first accepted answers; of them only those in documents that speak of what the question is about, since the words of an
answer ("Springfield", "two", "politician") stand in many that do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from openbook.diagnosis.questions import Gold, Question
from openbook.diagnosis.verdicts import NO_SPACES, holds_any, plain
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.scope import Scope
from openbook.knowledge.words import is_function_word
from openbook.records import Digest, Embedder, Hit, Passage

LOOKED_THROUGH = 100  # passages of one search
ANSWERS_LOOKED_FOR = 3
MOST_MARKS = 20  # in one passage
MOST_HOLDING = 20  # passages that are remembered of one question
MOST_DOCUMENTS = 20  # in which a quote is looked for
_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d_][\w’'-]*")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Holding:
    """`hits`: passages that hold an answer, best first. `located`: by the gold `span`, its `quote`, or the `answers`.

    `speaks`: whether a passage is of a document that speaks of what the question is about.
    """

    question: Question
    hits: tuple[Hit, ...] = ()
    located: str = ""
    spans: Mapping[Digest, tuple[Span, ...]] = field(default_factory=dict)
    speaks: Callable[[Passage], bool] = field(default=lambda passage: True, repr=False, compare=False)

    def marks(self, passage: Passage) -> tuple[Span, ...]:
        """Where in the passage's text the answer stands; none: it does not hold it.

        Located by gold, a passage with the same text elsewhere counts as well.
        """
        if self.located == "answers":
            return answer_spans(passage.text, self.question.answers) if self.speaks(passage) else ()
        if not passage.parts:
            return self.spans.get(passage.digest, ())
        inside = [hit.passage for hit in self.hits if hit.passage.digest in passage.parts]
        starts = [(passage.text.find(part.text), part.digest) for part in inside]
        return tuple((at + start, at + end) for at, digest in starts for start, end in self.spans[digest])


class Finder:
    """Looks for what holds answers in the documents that `scope` sees; `scope.as_of` is a version."""

    def __init__(self, base: KnowledgeBase, embedder: Embedder, scope: Scope) -> None:
        self._base, self._embedder, self._scope = base, embedder, scope
        self._by_name: dict[str, list[str]] = {}
        for path in base.documents(scope):
            self._by_name.setdefault(path.rpartition("/")[2], []).append(path)

    def find(self, question: Question) -> Holding:
        if not question.answers:
            return Holding(question)
        if question.gold is not None:
            for document in self._paths(question.gold.document):
                if (found := self._in_document(question, question.gold, document)) is not None:
                    return found
            if question.gold.quote and (found := self._by_quote(question, question.gold.quote)) is not None:
                return found
        return self._by_answers(question)

    def _paths(self, name: str) -> list[str]:
        """Documents whose path is `name` or ends with it."""
        name = name.replace("\\", "/").removeprefix("./")
        same_file = self._by_name.get(name.rpartition("/")[2], []) if name else []
        return [path for path in same_file if path == name or path.endswith("/" + name.lstrip("/"))]

    def _in_document(self, question: Question, gold: Gold, document: str) -> Holding | None:
        text = self._text(document)
        start, end, located = gold.start, gold.end, "span"
        if gold.quote and text[start:end] != gold.quote:
            start, end, located = text.find(gold.quote), text.find(gold.quote) + len(gold.quote), "quote"
        if not 0 <= start < end <= len(text):
            return None
        hits, spans = self._reached(document, start, end)
        return Holding(question, tuple(hits), located, spans)

    def _reached(self, document: str, start: int, end: int) -> tuple[list[Hit], dict[Digest, tuple[Span, ...]]]:
        """The passages that a span of the document's text reaches into, and where it stands in each."""
        passages = [p for p in self._base.passages(document, self._scope.as_of) if p.start < end and p.end > start]
        spans: dict[Digest, tuple[Span, ...]] = {
            p.digest: ((max(0, start - p.start), min(p.end, end) - p.start),) for p in passages
        }
        return [_hit(passage) for passage in passages], spans

    def _by_quote(self, question: Question, quote: str) -> Holding | None:
        """Where the quote stands, whatever the spaces between its words, and however many passages it reaches into."""
        pattern = re.compile(_spaced(quote))
        spans: dict[Digest, tuple[Span, ...]] = {}
        hits: dict[str, Hit] = {}
        documents = dict.fromkeys(hit.passage.document for hit in self._search([quote]))
        for document in islice(documents, MOST_DOCUMENTS):
            if found := pattern.search(self._text(document)):
                reached, where = self._reached(document, *found.span())
                hits |= {hit.passage.id: hit for hit in reached}
                spans |= where
        return Holding(question, tuple(hits.values())[:MOST_HOLDING], "quote", spans) if hits else None

    def _by_answers(self, question: Question) -> Holding:
        queries = [question.question]
        queries += [f"{question.question} {answer}" for answer in question.answers[:ANSWERS_LOOKED_FOR]]
        about, known = Topic.of(question), dict[str, bool]()

        def speaks(passage: Passage) -> bool:
            if about.is_in(_whole(passage)):
                return True
            if passage.document not in known:
                known[passage.document] = about.is_in(self._text(passage.document))
            return known[passage.document]

        hits = [h for h in self._search(queries) if holds_any(h.passage.text, question.answers) and speaks(h.passage)]
        return Holding(question, tuple(hits[:MOST_HOLDING]), "answers" if hits else "", speaks=speaks)

    def _text(self, document: str) -> str:
        return self._base.text(document, self._scope.as_of) or ""

    def _search(self, queries: Iterable[str]) -> list[Hit]:
        found: dict[str, Hit] = {}
        for query in queries:
            for hit in self._base.search(query, self._embedder, LOOKED_THROUGH, self._scope)[1]:
                found.setdefault(hit.passage.id, hit)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Topic:
    """What a question is about: the names in it, or without any its other telling words, in lower case and without endings.

    `needed`: how many of them a text must hold to be about it; half of the names, or one of the other words, which may then
    go on in another way (`whole` is false). Where nothing has a capital, as in a search box, any word may be a name, and
    most of them are needed.
    """

    words: tuple[str, ...]
    needed: int
    whole: bool = True

    @classmethod
    def of(cls, question: Question) -> Topic:
        asked, answers = plain(question.question), " ".join(question.answers).casefold()
        if NO_SPACES.search(asked):
            return cls((), 0)  # words cannot be told apart
        first, *others = [*_WORD.findall(asked), ""]
        telling = [
            w for w in (first, *others) if w and not is_function_word(w.casefold()) and w.casefold() not in answers
        ]
        names = dict.fromkeys(w.casefold().removesuffix("'s") for w in telling if w in others and w[0].isupper())
        if asked.islower() and telling:
            words = dict.fromkeys(w.removesuffix("'s") for w in telling)
            return cls(tuple(words), len(words) // 2 + 1)
        if names:
            return cls(tuple(names), (len(names) + 1) // 2)
        stems = dict.fromkeys(w.casefold()[: max(4, len(w) - 3)] for w in telling)
        return cls(tuple(stems), min(1, len(stems)), whole=False)

    def is_in(self, text: str) -> bool:
        text = plain(text).casefold()
        end = r"\b" if self.whole else ""
        return sum(re.search(rf"\b{re.escape(word)}{end}", text) is not None for word in self.words) >= self.needed


def _whole(passage: Passage) -> str:
    return "\n".join((passage.title, *passage.headings, passage.text))


def answer_spans(text: str, answers: Sequence[str]) -> tuple[Span, ...]:
    """Where accepted answers stand in the text. If one is held, but not letter by letter, the whole text."""
    if not holds_any(text, answers):
        return ()
    words = sorted((a for a in answers if plain(a).strip()), key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){_spaced(w)}(?!\w)" for w in words)
    found = islice(re.finditer(pattern, text, re.IGNORECASE), MOST_MARKS) if pattern else ()
    spans = tuple((match.start(), match.end()) for match in found)
    return spans or ((0, len(text)),)


def _spaced(words: str) -> str:
    """A pattern for the words, whatever the spaces between them."""
    return r"\s+".join(map(re.escape, _SPACES.split(words.strip())))


def _hit(passage: Passage) -> Hit:
    return Hit(passage, 0.0, None, None, None)
