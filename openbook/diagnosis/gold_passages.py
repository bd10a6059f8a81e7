"""Finds the passages that hold the answer to a question, and the answer's spans.

A gold span decides, or its quote if the document has changed. Otherwise passages that hold an accepted answer are
searched for, first in documents on the question's topic. If there are none, an answer with a digit or several words
counts anywhere ("#670", "Ada Brandl"): a plain word ("Springfield", "two") occurs in many unrelated passages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from openbook.core.records import Digest, Embedder, Hit, Passage
from openbook.diagnosis.questions import Question
from openbook.diagnosis.scoring import NO_SPACES, keyboard_form, plain_words, text_holds_any
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.index.scope import Scope
from openbook.knowledge.index.words import is_function_word

LOOKED_THROUGH = 100  # passages of one search
ANSWERS_LOOKED_FOR = 3
MAX_MARKS = 20  # per passage
MAX_PASSAGES = 20  # kept per question
MAX_DOCUMENTS = 20  # to search for a quote
_WORD = re.compile(r"[^\W\d_][\w’'-]*")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class GoldPassages:
    """`hits`: passages that hold an answer, best first. `located`: by the gold `span`, its `quote`, or the `answers`.

    `counts`: for `answers`, true if a passage that holds one counts.
    """

    question: Question
    hits: tuple[Hit, ...] = ()
    located: str = ""
    spans: Mapping[Digest, tuple[Span, ...]] = field(default_factory=dict)
    counts: Callable[[Passage], bool] = field(default=lambda passage: True, repr=False, compare=False)

    def spans_in(self, passage: Passage) -> tuple[Span, ...]:
        """The spans of the answer in the passage's text.

        A passage with the same text in another document counts too.
        """
        if self.located == "answers":
            return answer_spans(passage.text, self.question.answers) if self.counts(passage) else ()
        if not passage.parts:
            return self.spans.get(passage.digest, ())
        inside = [hit.passage for hit in self.hits if hit.passage.digest in passage.parts]
        starts = [(passage.text.find(part.text), part.digest) for part in inside]
        return tuple((at + start, at + end) for at, digest in starts for start, end in self.spans[digest])


class GoldFinder:
    """`scope.as_of` is a version."""

    def __init__(self, base: KnowledgeBase, embedder: Embedder, scope: Scope) -> None:
        self._base, self._embedder, self._scope = base, embedder, scope
        self._documents = base.documents(scope)

    def find(self, question: Question) -> GoldPassages:
        gold = question.gold
        if not question.answers:
            return GoldPassages(question)
        if gold is not None:
            for document in documents_named(self._documents, gold.document):
                text, start, end, located = self._text(document), gold.start, gold.end, "span"
                if gold.quote and text[start:end] != gold.quote:
                    start, located = text.find(gold.quote), "quote"
                    end = start + len(gold.quote)
                if 0 <= start < end <= len(text):
                    hits, spans = self._reached(document, start, end)
                    return GoldPassages(question, tuple(hits), located, spans)
            if gold.quote and (found := self._by_quote(question, gold.quote)) is not None:
                return found
        return self._by_answers(question)

    def _reached(self, document: str, start: int, end: int) -> tuple[list[Hit], dict[Digest, tuple[Span, ...]]]:
        """The passages that overlap a span of the document, and the span in each."""
        passages = [p for p in self._base.passages(document, self._scope.as_of) if p.start < end and p.end > start]
        spans: dict[Digest, tuple[Span, ...]] = {
            p.digest: ((max(0, start - p.start), min(p.end, end) - p.start),) for p in passages
        }
        return [Hit(passage, 0.0, None, None, None) for passage in passages], spans

    def _by_quote(self, question: Question, quote: str) -> GoldPassages | None:
        """Find a quote, whatever its white space, even across passages."""
        pattern = re.compile(_words_pattern(quote))
        spans: dict[Digest, tuple[Span, ...]] = {}
        hits: dict[str, Hit] = {}
        documents = dict.fromkeys(hit.passage.document for hit in self._search([quote]))
        for document in islice(documents, MAX_DOCUMENTS):
            if found := pattern.search(self._text(document)):
                reached, where = self._reached(document, *found.span())
                hits |= {hit.passage.id: hit for hit in reached}
                spans |= where
        return GoldPassages(question, tuple(hits.values())[:MAX_PASSAGES], "quote", spans) if hits else None

    def _by_answers(self, question: Question) -> GoldPassages:
        queries = [question.question]
        queries += [f"{question.question} {answer}" for answer in question.answers[:ANSWERS_LOOKED_FOR]]
        telling = [each for each in question.answers if re.search(r"[ \d]", plain_words(keyboard_form(each)))]
        is_about, known = topic_of(question), dict[str, bool]()

        def on_topic(passage: Passage) -> bool:
            if is_about("\n".join((passage.title, *passage.headings, passage.text))):
                return True
            if passage.document not in known:
                known[passage.document] = is_about(self._text(passage.document))
            return known[passage.document]

        def holds_telling(passage: Passage) -> bool:
            return text_holds_any(passage.text, telling)

        holding = [hit for hit in self._search(queries) if text_holds_any(hit.passage.text, question.answers)]
        for counts in (on_topic, holds_telling):
            if hits := tuple(hit for hit in holding if counts(hit.passage)):
                return GoldPassages(question, hits[:MAX_PASSAGES], "answers", counts=counts)
        return GoldPassages(question)

    def _text(self, document: str) -> str:
        return self._base.text(document, self._scope.as_of) or ""

    def _search(self, queries: Iterable[str]) -> list[Hit]:
        found: dict[str, Hit] = {}
        for query in queries:
            for hit in self._base.search(query, self._embedder, LOOKED_THROUGH, self._scope)[1]:
                found.setdefault(hit.passage.id, hit)
        return list(found.values())


def documents_named(documents: Iterable[str], name: str) -> list[str]:
    """Documents whose path is `name` or ends with it. Backslashes count as slashes."""
    names = {each.removeprefix("./") for each in (name, name.replace("\\", "/"))} - {""}
    return [path for path in documents if any(path == each or path.endswith("/" + each.lstrip("/")) for each in names)]


def topic_of(question: Question) -> Callable[[str], bool]:
    """A test if a text is on the question's topic: it holds half of the question's names; or, without names, one of its
    content words, whatever its ending.

    If the question has no capitals, any word may be a name, and more than half are needed.
    """
    asked, answers = keyboard_form(question.question), " ".join(question.answers).casefold()
    if NO_SPACES.search(asked):
        return lambda text: True  # such scripts do not separate words
    first, *others = [*_WORD.findall(asked), ""]
    telling = [w for w in (first, *others) if w and not is_function_word(w.casefold()) and w.casefold() not in answers]
    words = dict.fromkeys(w.casefold().removesuffix("'s") for w in telling if w in others and w[0].isupper())
    needed, end = (len(words) + 1) // 2, r"\b"
    if asked.islower() and telling:
        words = dict.fromkeys(w.removesuffix("'s") for w in telling)
        needed = len(words) // 2 + 1
    elif not words:
        words = dict.fromkeys(w.casefold()[: max(4, len(w) - 3)] for w in telling)
        needed, end = min(1, len(words)), ""

    def is_in(text: str) -> bool:
        text = keyboard_form(text).casefold()
        return sum(re.search(rf"\b{re.escape(word)}{end}", text) is not None for word in words) >= needed

    return is_in


# --- answers and quotes in texts --------------------------------------------------------------------------------------


def answer_spans(text: str, answers: Sequence[str]) -> tuple[Span, ...]:
    """Spans of accepted answers in the text; the whole text if it holds one only in another form."""
    if not text_holds_any(text, answers):
        return ()
    longest_first = sorted((a for a in answers if keyboard_form(a).strip()), key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){_words_pattern(words)}(?!\w)" for words in longest_first)
    found = islice(re.finditer(pattern, text, re.IGNORECASE), MAX_MARKS) if pattern else ()
    return tuple(match.span() for match in found) or ((0, len(text)),)


def places_of(text: str, answer: str) -> list[Span]:
    """Spans of an answer's words, whatever the spaces between them."""
    words = _words_pattern(answer.strip().rstrip("."))
    if not words:
        return []
    pattern = words if NO_SPACES.search(answer) else rf"(?<!\w){words}(?!\w)"
    return [found.span() for found in re.finditer(pattern, text)]


def _words_pattern(words: str) -> str:
    return r"\s+".join(map(re.escape, words.split()))
