"""Rerankers: the laws that every one keeps, and late interaction with a small and with the default embedder."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from openbook.errors import ConfigError
from openbook.inference import load_embedder
from openbook.inference.reranker import RERANKERS, LateInteractionReranker, load_reranker, max_sim
from openbook.models import ModelReference
from openbook.records import ModelIdentity, Reranker, sha256_hex
from openbook.testing import HashEmbedder


class WordReranker:
    """The share of the query's words that stand in the text."""

    identity = ModelIdentity(name="words", digest=sha256_hex(b"openbook word reranker 1"), evidence="verified")

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        asked = set(re.findall(r"\w+", query.lower()))
        return [len(asked & set(re.findall(r"\w+", text.lower()))) / max(len(asked), 1) for text in texts]


class RerankerSuite:
    """What every reranker must do. Subclass it in a test module and define `make_reranker`."""

    QUERY = "When does the ferry leave?"
    TEXTS = ("Quantum chromodynamics of gluons", "The ferry will leave at nine.", "", "Überraschung " * 400)

    def make_reranker(self) -> Reranker:
        raise TypeError("A RerankerSuite must define make_reranker.")

    def test_there_is_one_finite_score_for_each_text(self) -> None:
        scores = self.make_reranker().score(self.QUERY, self.TEXTS)
        assert len(scores) == len(self.TEXTS)
        assert all(isinstance(score, float) and np.isfinite(score) for score in scores)

    def test_a_score_is_a_function_of_query_and_text_alone(self) -> None:
        reranker = self.make_reranker()
        scores = list(reranker.score(self.QUERY, self.TEXTS))
        assert [reranker.score(self.QUERY, [text])[0] for text in self.TEXTS] == scores
        assert list(self.make_reranker().score(self.QUERY, self.TEXTS[::-1]))[::-1] == scores

    def test_the_text_that_fits_is_first(self) -> None:
        scores = list(self.make_reranker().score(self.QUERY, self.TEXTS))
        assert scores.index(max(scores)) == 1

    def test_no_texts_give_no_scores(self) -> None:
        assert list(self.make_reranker().score(self.QUERY, [])) == []

    def test_two_of_a_kind_have_one_identity(self) -> None:
        assert self.make_reranker().identity == self.make_reranker().identity


class HashTokenEmbedder(HashEmbedder):
    """The vectors of single words."""

    def embed_query_tokens(self, text: str) -> NDArray[np.float32]:
        return np.stack([self.embed_query(word) for word in text.split() or [""]])

    def embed_passage_tokens(self, text: str) -> NDArray[np.float32]:
        return self.embed_query_tokens(text)


class TestWordReranker(RerankerSuite):
    def make_reranker(self) -> Reranker:
        return WordReranker()


class TestLateInteraction(RerankerSuite):
    def make_reranker(self) -> Reranker:
        return LateInteractionReranker(HashTokenEmbedder(256))


@pytest.mark.model
class TestLateInteractionWithTheDefaultEmbedder(RerankerSuite):
    @pytest.fixture(autouse=True)
    def reference(self, embedder_reference: ModelReference) -> None:
        self.embedder_reference = embedder_reference

    def make_reranker(self) -> Reranker:
        return load_reranker("late-interaction", load_embedder(self.embedder_reference))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'late-interaction'"):
        load_reranker("late-interactoin", HashTokenEmbedder())


def test_every_name_in_the_table_opens() -> None:
    for name in RERANKERS:
        assert load_reranker(name, HashTokenEmbedder()).score("a", ["a", "b"])


def test_an_embedder_without_token_vectors_is_refused() -> None:
    with pytest.raises(ConfigError, match="'hash' gives no vectors of single tokens"):
        load_reranker("late-interaction", HashEmbedder())


def test_the_identity_names_the_embedder() -> None:
    first, second = (LateInteractionReranker(HashTokenEmbedder(size)).identity for size in (64, 128))
    assert first.digest != second.digest
    assert first.name == "hash/late-interaction"


def test_max_sim_by_hand() -> None:
    query = np.array([[1, 0], [0, 1]], np.float32)
    passage = np.array([[0.5, 0], [0.25, 1], [-1, 0]], np.float32)
    assert max_sim(query, passage) == 0.75


ROWS = st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=5)


@given(ROWS, ROWS)
def test_more_passage_never_lowers_the_score_and_order_does_not_matter(
    query: list[list[float]], passage: list[list[float]]
) -> None:
    asked, rows = np.array(query, np.float32), np.array(passage, np.float32)
    score = max_sim(asked, rows)
    assert score >= max_sim(asked, rows[:1]) - 1e-6
    assert max_sim(asked, rows[::-1]) == pytest.approx(score, abs=1e-6)
