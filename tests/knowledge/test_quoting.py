from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openbook.knowledge.quoting import quote
from openbook.records import Passage

TEXT = (
    "Annual leave. Every full-time employee has 28 days of paid leave a year. Until 2023 it was 24 days.\n\n"
    "The mayor, Lila Ortega, opened the bridge on 14 March 2026. It cost 310 million dollars."
)


def passage(text: str = TEXT, start: int = 100) -> Passage:
    return Passage("p1", "doc.txt", "Doc", start, start + len(text), 3, (), text)


def quotes(answer: str, question: str = "") -> list[str]:
    return [c.quote for c in quote(answer, question, [passage()]).citations]


def test_the_sentence_that_holds_the_answer_is_quoted() -> None:
    assert quotes("Lila Ortega opened the bridge.", "Who opened the bridge?") == [
        "The mayor, Lila Ortega, opened the bridge on 14 March 2026."
    ]


def test_a_short_answer_is_enough() -> None:
    assert quotes("28 days", "How many days of leave?") == [
        "Every full-time employee has 28 days of paid leave a year."
    ]


def test_a_number_that_is_not_there_has_no_support() -> None:
    result = quote("Every full-time employee has 29 days of paid leave.", "How many days?", [passage()])
    assert result.citations == ()
    assert result.unsupported == ("Every full-time employee has 29 days of paid leave.",)


def test_an_invented_name_has_no_support() -> None:
    assert quotes("The bridge was opened by Tomas Brandl.", "Who opened the bridge?") == []


def test_an_answer_in_the_questions_words_is_judged_by_all_of_them() -> None:
    question = "Did the mayor Lila Ortega open the bridge?"
    assert quotes("The mayor Lila Ortega opened the bridge.", question) == [
        "The mayor, Lila Ortega, opened the bridge on 14 March 2026."
    ]
    assert quotes("The governor closed the tunnel.", "Did the governor close the tunnel?") == []


def test_a_denial_does_not_support_what_it_denies() -> None:
    ferry = passage("Passengers may not take dogs into the saloon. Found items not collected are kept for 60 days.")

    def supported(answer: str) -> bool:
        return not quote(answer, "", [ferry]).unsupported

    assert supported("Passengers may not take dogs into the saloon.")
    assert not supported("Passengers may take dogs into the saloon.")
    assert supported("Found items are kept for 60 days.")
    assert not supported("Found items are not kept for 60 days.")
    assert supported("Passengers can't take dogs into the saloon.")


def test_a_yes_or_no_is_supported_by_what_it_is_about() -> None:
    assert quotes("Yes.", "Did the mayor open the bridge?") == [
        "The mayor, Lila Ortega, opened the bridge on 14 March 2026."
    ]
    assert quotes("Yes.", "Are dogs allowed in the saloon?") == []


def test_an_inflected_word_still_supports() -> None:
    assert quotes("It costs 310 million dollars.", "What is the price?") == ["It cost 310 million dollars."]


def test_parts_are_judged_one_by_one() -> None:
    result = quote("Lila Ortega opened it. It has nine pillars.", "Tell me about the bridge", [passage()])
    assert len(result.citations) == 1
    assert result.unsupported == ("It has nine pillars.",)


def test_no_passages_no_support() -> None:
    assert quote("Something.", "What?", []).unsupported == ("Something.",)


@given(st.text(), st.text(), st.lists(st.text(), max_size=3), st.integers(0, 10**6))
def test_every_quote_stands_at_its_span(answer: str, question: str, texts: list[str], start: int) -> None:
    passages = [passage(text, start) for text in texts]
    for citation in quote(answer, question, passages).citations:
        at = citation.start - start, citation.end - start
        assert any(p.text[at[0] : at[1]] == citation.quote for p in passages)
        assert citation.quote


def test_a_quote_about_another_matter_does_not_support() -> None:
    fares = passage("Bicycle\n\nA bicycle costs 3.50 euros on every route. A car ticket costs 26.50 euros.")
    assert quote("A car ticket costs 3.50 euros.", "What does a car ticket cost?", [fares]).citations == ()
    assert quote("A car ticket costs 26.50 euros.", "What does a car ticket cost?", [fares]).unsupported == ()


def test_the_heading_may_name_the_matter_but_is_no_answer() -> None:
    text = "### Found items\n\nThey are kept for 60 days."
    below = Passage("p1", "doc.md", "Doc", 0, len(text), None, ("Found items",), text)
    assert quote("Found items are kept 60 days.", "How long are found items kept?", [below]).unsupported == ()
    assert quote("### Found items", "What does it say?", [below]).citations == ()


def test_a_citation_names_every_document_with_the_text() -> None:
    passage = Passage("p", "a.txt", "a", 0, 25, None, (), "The ferry leaves at nine.", ("copy/b.txt",))
    quoted = quote("The ferry leaves at nine.", "When does the ferry leave?", [passage])
    assert [(c.document, c.also_in) for c in quoted.citations] == [("a.txt", ("copy/b.txt",))]
