from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openbook.core.records import Embedder, Passage
from openbook.knowledge.cite.quotes import AnswerSupport, cite_sentences, closest
from openbook.testing import HashEmbedder

LEAVE = "Every full-time employee has 28 days of paid leave a year."
OPENED = "The mayor, Lila Ortega, opened the bridge on 14 March 2026."
TEXT = f"Annual leave. {LEAVE} Until 2023 it was 24 days.\n\n{OPENED} It cost 310 million dollars."
RULES = "Passengers must check in at least 30 minutes before departure. Some cabins have a balcony."
FARES = """| Ticket | 2024 | 2023 |
|---|---|---|
| Adult | $12 | $11 |
| Child | $6 | $5 |
"""


def passage(text: str = TEXT, start: int = 100) -> Passage:
    return Passage("p1", "doc.txt", "Doc", start, start + len(text), 3, (), text)


def support(found: AnswerSupport) -> list[str]:
    return [sentence.support for sentence in found.sentences]


@pytest.mark.parametrize(
    ("answer", "question", "expected", "does"),
    [
        ("Lila Ortega opened the bridge.", "Who opened the bridge?", OPENED, "backed"),
        ("28 days", "How many days of leave?", LEAVE, "backed"),
        ("The mayor Lila Ortega opened the bridge.", "Did Lila Ortega open the bridge?", OPENED, "backed"),
        ("The bridge was opened by Tomas Brandl.", "Who opened the bridge?", OPENED, "near"),
        ("Every full-time employee has 29 days of paid leave.", "How many days?", LEAVE, "near"),
        ("Zebras graze.", "What do zebras do?", None, "none"),
    ],
)
def test_the_nearest_sentence_is_quoted_and_backs_it_or_not(
    answer: str, question: str, expected: str | None, does: str
) -> None:
    found = cite_sentences(answer, question, [passage()])
    assert [citation.quote for citation in found.citations] == ([expected] if expected else [])
    assert support(found) == [does]
    assert support(cite_sentences(answer, question, [])) == ["none"]


@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.integers(0, 10**6))
def test_every_quote_stands_at_its_span(answer: str, question: str, texts: list[str], start: int) -> None:
    passages = [passage(text, start) for text in texts]
    found = cite_sentences(answer, question, passages)
    for citation in found.citations:
        at = citation.start - start, citation.end - start
        assert any(p.text[at[0] : at[1]] == citation.quote for p in passages)
        assert citation.quote
    for each in found.sentences:
        assert 0 <= each.score <= 1
        assert answer[each.start : each.end].strip()


def test_a_heading_gives_its_words_but_is_not_quoted() -> None:
    text = "### Found items\n\nThey are kept for 60 days."
    below = Passage("p1", "doc.md", "Doc", 0, len(text), None, ("Found items",), text)
    found = cite_sentences("Found items are kept 60 days.", "How long are found items kept?", [below])
    assert (support(found), found.citations[0].quote) == (["backed"], "They are kept for 60 days.")


def test_the_row_of_a_table_is_quoted_and_its_header_gives_words() -> None:
    found = cite_sentences("A child ticket was $6 in 2024.", "What does a child pay?", [passage(FARES)])
    assert [c.quote for c in found.citations] == ["| Child | $6 | $5 |"]
    assert support(found) == ["backed"]


def test_each_sentence_names_its_citation() -> None:
    answer = "- It cost 310 million dollars [1].\n- Nine zebras graze.\n```\nLila Ortega opened the bridge.\n```"
    found = cite_sentences(answer, "Tell me about the bridge", [passage()])
    assert [each.citation for each in found.sentences] == [0, None, 1]
    assert [answer[each.start : each.end] for each in found.sentences][-1] == "Lila Ortega opened the bridge."


def test_the_share_of_the_question_around_the_quotes() -> None:
    for question, asked in (("What did the bridge cost in dollars?", 1.0), ("What do zebras graze?", 0.0)):
        answer = "It cost 310 million dollars. Lila opened the bridge."
        assert cite_sentences(answer, question, [passage()]).asked == asked


def test_of_two_equal_passages_the_marked_one_is_cited() -> None:
    passages = [Passage(f"p{i}", f"{i}.txt", "", 0, len(TEXT), None, (), TEXT, (f"copy/{i}.txt",)) for i in range(3)]
    for marks, expected in (((), 0), ([(28, frozenset({3}))], 2)):
        found = cite_sentences("It cost 310 million dollars.", "What did it cost?", passages, marks=marks)
        assert [(c.document, c.also_in) for c in found.citations] == [(f"{expected}.txt", (f"copy/{expected}.txt",))]


def test_similar_meaning_helps_where_words_differ(real_embedder: Embedder) -> None:
    sentence = "Workers with a full-time contract get 28 days of paid vacation every year."
    alone = cite_sentences(sentence, "", [passage()])
    found = cite_sentences(sentence, "", [passage()], embed=real_embedder.embed_passages)
    assert [c.quote for c in found.citations] == [LEAVE]
    assert found.sentences[0].score > alone.sentences[0].score


def test_the_closest_sentences_are_verbatim_and_nearest_first() -> None:
    embedder = HashEmbedder()
    for embed in (None, embedder.embed_passages):
        found = closest("Who opened the bridge?", [passage(), passage(RULES)], embed)
        assert found[0].quote == OPENED
        assert len(found) == 3
    assert closest("Who?", [], embedder.embed_passages) == ()


SENTENCES = (
    "The harbour has {} berths for small boats.", "A repair of the lamp costs {} euros.", "The survey took {} days in spring.",
    "About {} visitors saw the old tower.", "The pump moves {} litres an hour.",
)  # fmt: skip
NUMBERS = st.integers(2, 10**6)


@given(st.lists(NUMBERS, min_size=5, max_size=5), st.integers(0, 4), NUMBERS)
def test_a_number_is_backed_only_by_its_sentence(numbers: list[int], which: int, other: int) -> None:
    text = " ".join(sentence.format(n) for sentence, n in zip(SENTENCES, numbers, strict=True))
    assert support(cite_sentences(SENTENCES[which].format(numbers[which]), "", [passage(text)])) == ["backed"]
    assume(other not in numbers)
    assert support(cite_sentences(SENTENCES[which].format(other), "", [passage(text)])) == ["near"]


@given(st.permutations(range(5)), st.integers(0, 4), st.booleans())
def test_the_order_of_passages_does_not_matter(order: list[int], which: int, altered: bool) -> None:
    sentence = SENTENCES[which].format(which + (7 if altered else 2))
    texts = [SENTENCES[n].format(n + 2) for n in order]
    passages = [Passage(f"p{t}", "a.txt", "", 0, len(t), None, (), t) for t in texts]
    found = cite_sentences(sentence, "", passages, embed=HashEmbedder().embed_passages)
    assert support(found) == ["near" if altered else "backed"]
    assert found.citations[0].quote == SENTENCES[which].format(which + 2)


@pytest.mark.parametrize("piece", ["a", "1,", "| ", "`", "$(1", "not ", "A.b_", "- x: ", "\n```\n", "1 and ", "  x"])
def test_hostile_text_takes_no_time(piece: str) -> None:
    """A pattern that runs away would not end; the test's own limit is the suite's."""
    text = piece * (4_000 // len(piece))
    cite_sentences(text[:2_000], text[:500], [passage(text)])
