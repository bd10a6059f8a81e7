from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.index.bm25 import Bm25, Weights
from openbook.knowledge.index.segment_builder import build
from openbook.knowledge.index.segments import RowsInScope
from openbook.knowledge.index.words import MAX_QUERY_WORDS, Vocabulary, is_function_word, query_terms, query_words
from tests.knowledge.small_bases import Base, Text


def terms_of(text: str) -> set[int]:
    vocabulary = Vocabulary()
    numbers = vocabulary.numbers(text)
    return {int(term) for term in vocabulary.terms()[numbers]}


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The ferries were crossing.", "ferry crosses"), ("O\u2019Brien's boat", "o'brien"),
        ("l'eau est froide", "EAU"), ("don't panic", "don't"), ("call max_input_chars here", "max input chars"),
        ("\uff26\uff35\uff2c\uff2c width", "full"), ("stra\u00dfe", "STRASSE"), ("cafe\u0301", "caf\u00e9"),
        ("昨日は水曜日でした", "水曜日"), ("昨日は水曜日でした", "水"), ("서울에서 만나요", "서울"), ("version 3.13", "3.13"),
    ],
)  # fmt: skip
def test_a_query_finds_the_words_of_a_text(text: str, query: str) -> None:
    wanted = set(query_terms(query))
    assert wanted
    assert wanted <= terms_of(text)


def test_question_words_are_left_out_unless_nothing_else_is_there() -> None:
    assert query_words("Who is the mayor?") == ["mayor"]
    assert query_words("What's that?") == ["what", "that"]
    assert query_words("Who are you") == ["who", "are", "you"]
    assert query_words(" ?! ") == []
    assert is_function_word("whose")
    assert not is_function_word("bridge")


def test_nothing_in_a_query_is_an_operator_and_its_length_is_bounded() -> None:
    assert query_words('title:"x" AND (NOT y*) ^2') == ["title", "x", "y", "2"]
    assert len(query_words("word " * 100_000)) == MAX_QUERY_WORDS


@given(st.text())
def test_any_text_has_terms_and_any_text_finds_itself(text: str) -> None:
    assert set(query_terms(text)) <= terms_of(text)


@cache
def many(count: int, mask: bool) -> tuple[Bm25, int]:
    """Passages of random words, common and rare, in several segments; with `mask`, every third row is dead."""
    chance, base = np.random.default_rng(3), Base()
    vocabulary = [f"word{i}" for i in range(60)]
    weights = 1.0 / np.arange(1, 61)
    texts = [" ".join(chance.choice(vocabulary, 12, p=weights / weights.sum())) for _ in range(count)]
    contents = [base.add(Text("", (((), text),))) for text in texts]
    parts, at = [], 0
    for chosen in (contents[: count // 2], contents[count // 2 :]):
        segment = next(build(base.source(), chosen))
        parts.append(RowsInScope(segment, np.arange(len(segment)) % 3 > 0 if mask else None, at))
        at += len(segment)
    return Bm25(parts), at


def weights_of(query: str, index: Bm25) -> Weights:
    terms = query_terms(query)
    return index.statistics(terms).weights(terms)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("limit", [1, 5, 40])
def test_the_fast_search_finds_exactly_the_best(mask: bool, limit: int) -> None:
    index, rows = many(400, mask)
    everything = np.arange(rows)
    in_scope = np.arange(rows) % 200 % 3 > 0 if mask else np.ones(rows, dtype=np.bool_)
    queries = "word0 word59 word7|word0 word1 word2|word58|word0|word3 word3 word40 word1 word2 absent"
    for query in queries.split("|"):
        weights = weights_of(query, index)
        scores = np.where(in_scope, index.scores(weights, everything), 0.0)
        best = np.sort(scores[scores > 0])[::-1][:limit]
        found, found_scores = index.search(weights, limit)
        assert np.array_equal(found_scores, scores[found])
        assert np.array_equal(np.sort(found_scores)[::-1][:limit], best)
        assert scores.max() < weights.ceiling


def test_a_word_counts_255_times_at_most_and_long_passages_are_bounded() -> None:
    base = Base()
    content = base.add(Text("", (((), "ferry " * 70_000),)))
    segment = next(build(base.source(), [content]))
    assert segment.counts.tolist() == [255]
    assert segment.lengths.tolist() == [0xFFFF]


def test_nothing_to_find() -> None:
    empty = Bm25([])
    assert empty.rows == 0
    assert empty.search(weights_of("ferry", empty), 5)[0].size == 0
    index, _ = many(10, False)
    for query, limit in (("absent", 5), ("", 5), ("word0", 0)):
        assert index.search(weights_of(query, index), limit)[0].size == 0
