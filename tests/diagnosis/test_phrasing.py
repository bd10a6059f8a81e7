from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.clauses import clause, plain
from openbook.diagnosis.phrasing import proposals
from openbook.diagnosis.proposing import voice
from openbook.diagnosis.tables import table_proposals

ASKED = [
    ("A clerk has 28 days of paid leave in each year.", "How many days of paid leave does a clerk have in each year?", "28"),
    ("Sea staff may take no more than 12 days of leave.", "At most how many days of leave may sea staff take?", "12"),
    ("The trial period lasts four months.", "How long does the trial period last?", "four months"),
    ("212 passengers have had their money back.", "How many passengers have had their money back?", "212"),
    ("In 2024 there were 63 cards.", "How many cards were there in 2024?", "63"),
    ("A bicycle costs €3.50 on every route.", "How much does a bicycle cost on every route?", "€3.50"),
    ("The rate for a car is 38 cents per kilometre.", "What is the rate for a car?", "38 cents per kilometre"),
    ("Found items are kept for 60 days.", "For how long are found items kept?", "60 days"),
    ("Gritting must be finished 30 minutes before the first sailing.", "How long before the first sailing must gritting be finished?", "30 minutes"),
    ("The purser must report within 6 minutes of the alarm.", "Within what time of the alarm must the purser report?", "6 minutes"),
    ("The mess serves lunch from 11:30 to 13:15.", "During which hours does the mess serve lunch?", "11:30 to 13:15"),
    ("The backup starts at 01:40 and is over by 03:15.", "At what time does the backup start?", "01:40"),
    ("Days carried over lapse on 30 April.", "On which date do days carried over lapse?", "30 April"),
    ("The contract runs from 1 July 2024 to 30 June 2027.", "From which date does the contract run?", "1 July 2024"),
    ("The bracket was added in 2019.", "In which year was the bracket added?", "2019"),
    ("A restore is rehearsed four times a year.", "How often is a restore rehearsed?", "four times a year"),
    ("IT support is on extension 4620.", "On which extension is IT support?", "4620"),
    ("All points must run firmware 7.3.2.", "Which firmware must all points run?", "7.3.2"),
    ("Orders are placed by the duty controller.", "By whom are orders placed?", "the duty controller"),
    ("Your line manager approves claims up to €750.", "Who approves claims up to €750?", "Your line manager"),
    ("The supplier is Østlund Bunker AS of Haugmoen.", "What is the name of the supplier?", "Østlund Bunker AS"),
    ("A fadder is a colleague from another department.", "What is a fadder?", "a colleague from another department"),
    ("The plough lives in the freight shed.", "Where does the plough live?", "in the freight shed"),
    ("- **Pay.** Pay day is the 25th of the month.", "On which day of the month is pay day?", "the 25th"),
    ("Guests are limited to 8 Mbit/s for each device.", "To how many Mbit/s are guests limited for each device?", "8 Mbit/s"),
]  # fmt: skip


def asked(text: str) -> list[tuple[str, str]]:
    found = proposals(plain(text, 0, len(text)), voice(text))
    return [(each.question, text[each.start : each.end]) for each in found]


@pytest.mark.parametrize(("sentence", "question", "answer"), ASKED)
def test_a_statement_becomes_a_question(sentence: str, question: str, answer: str) -> None:
    assert (question, answer) in asked(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "Is there a place for wheelchairs?",
        "It is kept for 60 days.",
        "This costs €5.",
        "Take the fee of €6.",
        "If the count is wrong, count again.",
        'We will speak again at 17:45."',
        "The longest had four pages.",
        "Der Kapitän kommt um 10:30 an Bord.",
        "The committee thought that 22 lifejackets have perished straps.",
    ],
)
def test_what_is_no_plain_statement_is_left_alone(sentence: str) -> None:
    assert asked(sentence) == []


def test_only_the_beginning_of_a_sentence_is_lowered() -> None:
    inside = voice(
        "Samples of oil are kept. The Kilverry boat sails; at Kilverry samples are drawn. Kvitto gives numbers."
    )
    assert inside("Samples of oil") == "samples of oil"
    assert inside("The Kilverry boat") == "the Kilverry boat"
    assert inside("Kilverry") == "Kilverry"
    assert inside("Kvitto") == "Kvitto"
    assert inside("Østlund Bunker") == "Østlund Bunker"


def test_a_participle_before_the_verb_is_not_taken_for_it() -> None:
    sentence = "Refunds issued outside the euro area failed with error TB-4017."
    found = clause(plain(sentence, 0, len(sentence)))
    assert found is not None
    assert (found.subject_text, found.auxiliary, found.base) == ("Refunds issued outside the euro area", "did", "fail")


WORDS = "The crew it 28 € days of 01:40 at on 3 May 2024 has have is are kept takes Isolde Marr , . - ( | ** by for in two than".split()


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(max_size=60))
def test_whatever_is_proposed_has_its_answer_in_the_text(text: str) -> None:
    for each in proposals(plain(text, 0, len(text)), voice(text)):
        assert 0 <= each.start < each.end <= len(text)
        assert each.question.endswith("?")
        assert "  " not in each.question


def tables(text: str) -> list[tuple[str, str]]:
    found = table_proposals(text, 0, len(text), "Staff", "House", voice(text + " the room and the number"))
    return [(each.question, text[each.start : each.end]) for each in found]


def test_the_cells_of_a_table_are_asked_by_row_and_column() -> None:
    text = "| Name | Room | Ext. |\n|---|---|---|\n| Ailsa | **W3** | 4101 |\n| Tomasz | W6 | — |\n| Ailsa B | W6 | |\n"
    assert tables(text) == [
        ("In the table “Staff”, what is the room given for “Ailsa”?", "W3"),
        ("In the table “Staff”, what is given under “Ext.” for “Ailsa”?", "4101"),
        ("In the table “Staff”, what is the room given for “Tomasz”?", "W6"),
        ("In the table “Staff”, what is the room given for “Ailsa B”?", "W6"),
    ]


def test_columns_of_spaces_and_fields() -> None:
    text = "====================\nRated power   315 kW\nWeight        2,180 kg\n====================\n\n:Serial number: CV-320\nPart A: Alarm\n"
    assert tables(text) == [
        ("In “House”, what is given as “Rated power”?", "315 kW"),
        ("In “House”, what is given as “Weight”?", "2,180 kg"),
        ("In “House”, what is given as “Serial number”?", "CV-320"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "A | B | C\n",
        "| A14 | Oil low | Stop |\n| A22 | Hot | Wait |\n"[:0],
        "| Name | Room |\n|---|---|\n| Ailsa | W3 |\n| Ailsa | W6 |\n",
        "one two three\n\nfour five\n",
        "mode   = trunk\nallow  = 30, 90\n",
    ],
)
def test_no_table_no_questions(text: str) -> None:
    assert tables(text) == []


def test_rows_whose_header_is_in_an_earlier_passage_are_left_alone() -> None:
    text = (
        "| Code | Meaning | Do |\n|---|---|---|\n| A11 | Low | Top up |\n| A14 | Hot | Stop |\n| A22 | Cold | Wait |\n"
    )
    start = text.index("| A14")
    assert list(table_proposals(text, start, len(text), "", "House", voice(text))) == []


@pytest.mark.parametrize(
    "text", ["Key: " + " " * 50_000 + "x", "a  " * 50_000, "| " * 50_000, "A-" * 50_000, "the A" * 20_000]
)
def test_long_lines_are_no_tables_and_no_statements(text: str) -> None:
    assert tables(text) == []
    assert asked(text) == []


@given(st.text(alphabet="ab| \t\n-=:*A3", max_size=80))
def test_any_text_can_be_read_as_a_table(text: str) -> None:
    for each in table_proposals(text, 0, len(text), "", "T", voice(text)):
        assert text[each.start : each.end].strip()
