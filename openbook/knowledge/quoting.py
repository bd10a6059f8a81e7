"""Finding the words that support a statement: a verbatim span of a passage, or the finding that there is none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from openbook.knowledge.bm25 import is_function_word
from openbook.knowledge.splitting import sentence_spans
from openbook.records import Citation, Passage

MIN_TOPIC = 0.5  # more than this share of what it repeats of the question must stand there or in the headings above
MIN_COVERAGE = 0.7  # share of the statement's new words that a quote must hold
MAX_QUOTE_SENTENCES = 2
_WORD = re.compile(r"\d+(?:[.,:/-]\d+)*|\w+n['\u2019]t|\w+")
_NEGATIONS = frozenset({"not", "no", "never", "without", "neither", "nor", "cannot"})


@dataclass(frozen=True, slots=True)
class Quoted:
    """Citations for the parts of an answer that have support, and the parts that have none."""

    citations: tuple[Citation, ...] = ()
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Window:
    passage: Passage
    start: int
    end: int
    words: frozenset[str]
    lead: frozenset[str]  # of all its sentences but the last
    topic: frozenset[str]  # of the title and headings it stands under
    plain: str  # the window's words, joined by single spaces, between spaces


def quote(answer: str, question: str, passages: Sequence[Passage]) -> Quoted:
    """Cite each sentence of `answer` from `passages` (best first), or list it as unsupported.

    A quote supports a sentence when it holds all of the sentence's numbers and at least `MIN_COVERAGE` of the words
    that the sentence adds to the question, and does not deny what the sentence says. Every citation's quote stands verbatim at its span.
    """
    windows = [w for p in passages for w in _windows(p)]
    asked = {stem(w) for w in _words(question) if not is_function_word(w)}
    citations: dict[tuple[str, int, int], Citation] = {}
    unsupported: list[str] = []
    for start, end in sentence_spans(answer, 0, len(answer)) or [(0, len(answer))]:
        sentence = answer[start:end]
        window = _best(sentence, asked, windows)
        if window is None:
            unsupported.append(sentence)
            continue
        citation = _citation(window)
        citations.setdefault((citation.document, citation.start, citation.end), citation)
    return Quoted(tuple(citations.values()), tuple(unsupported))


def _best(sentence: str, asked: set[str], windows: Sequence[_Window]) -> _Window | None:
    """The window that supports `sentence` best; among equals the first, and the shorter."""
    words = _words(sentence)
    content = {stem(w) for w in words if not is_function_word(w)} - {"yes", "no"}
    new = content - asked or content  # an answer in the question's words is judged by all of them
    if not content and words and words[0] in ("yes", "no"):
        new = asked  # what is affirmed or denied is the question
    if not new:
        return None
    numbers = {w for w in new if w[0].isdigit()}
    plain = f" {' '.join(words)} "
    best: tuple[float, _Window] | None = None
    for window in windows:
        if not numbers <= window.words or _contradicts(words, window):
            continue
        if new & window.lead == new & window.words:  # its last sentence adds nothing; what comes after is no context
            continue
        coverage = len(new & window.words) / len(new)
        if coverage < MIN_COVERAGE or _off_topic(content & asked, window):
            continue
        context = len(asked & window.words) / (len(asked) or 1)
        score = coverage + context + (1.0 if plain in window.plain else 0.0) - len(window.words) / 1000
        if best is None or score > best[0]:
            best = (score, window)
    return best[1] if best else None


def _off_topic(repeated: set[str], window: _Window) -> bool:
    """Whether the quote is about something else: the price of a bicycle does not support the price of a car."""
    return bool(repeated) and len(repeated & (window.words | window.topic)) <= MIN_TOPIC * len(repeated)


def _contradicts(words: Sequence[str], window: _Window) -> bool:
    """Whether one of the two denies what the other says: a negation right before a word that both have."""
    if words[:1] in (["yes"], ["no"]):
        return False
    said = {stem(w) for w in words}
    denied, denied_there = _denied(words), _denied(window.plain.split())
    return bool((denied_there & said) - denied or (denied & window.words) - denied_there)


def _denied(words: Sequence[str]) -> set[str]:
    """Stems of the words that follow a negation within two words."""
    found: set[str] = set()
    for i, word in enumerate(words):
        if word in _NEGATIONS or word.endswith(("n't", "n\u2019t")):
            found |= {stem(w) for w in words[i + 1 : i + 3] if not is_function_word(w)}
    return found


def _windows(passage: Passage) -> list[_Window]:
    """Every run of up to MAX_QUOTE_SENTENCES sentences; spans count in the document's text."""
    headings = [_words(h) for h in passage.headings]
    spans = [
        (start, end)
        for start, end in sentence_spans(passage.text, 0, len(passage.text))
        if _words(passage.text[start:end]) not in headings  # a heading names a matter and states nothing
    ]
    topic = frozenset(stem(w) for text in (passage.title, *passage.headings) for w in _words(text))
    windows: list[_Window] = []
    for first in range(len(spans)):
        for last in range(first, min(first + MAX_QUOTE_SENTENCES, len(spans))):
            start, end = spans[first][0], spans[last][1]
            words = _words(passage.text[start:end])
            stems = frozenset(map(stem, words))
            lead = frozenset(map(stem, _words(passage.text[start : spans[last][0]])))
            windows.append(_Window(passage, start, end, stems, lead, topic, f" {' '.join(words)} "))
    return windows


def _citation(window: _Window) -> Citation:
    passage = window.passage
    return Citation(
        document=passage.document,
        page=passage.page,
        start=passage.start + window.start,
        end=passage.start + window.end,
        quote=passage.text[window.start : window.end],
        passage_id=passage.id,
        also_in=passage.also_in,
    )


def stems(text: str) -> frozenset[str]:
    """The words of `text` that carry its matter, in a form that `opened` and `opens` share."""
    return frozenset(stem(word) for word in _words(text) if not is_function_word(word))


def _words(text: str) -> list[str]:
    return [w.casefold() for w in _WORD.findall(unicodedata.normalize("NFKC", text))]


def stem(word: str) -> str:
    """A light stem: enough to match `opened` with `opens`, never a number with another."""
    if word[0].isdigit():
        return word.replace(",", "")
    for suffix in ("ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word
