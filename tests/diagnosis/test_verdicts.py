"""Exactly one verdict for whatever was observed, and each of them when it should be."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, Reply, Wording
from openbook.diagnosis.scoring import is_right, same_answer, text_holds_any
from openbook.diagnosis.summary import SHARED, summarise
from openbook.diagnosis.verdicts import (
    VERDICTS,
    QuestionVerdict,
    Verdict,
    by_chance,
    reason,
    verdict_of,
    verdicts_of,
    with_neighbours,
)
from tests.conftest import ROOT
from tests.diagnosis.table_engine import HEADER, SILENT, observation

RIGHT, WRONG = "It leaves at 01:40.", "It leaves at noon."


def said(text: str) -> Reply:
    return Reply(text, text == SILENT)


REPLIES = st.sampled_from([*map(said, (RIGHT, WRONG, SILENT) * 4), Reply(failure="The engine fell over.")])
OTHERS = [observation(n, closed=RIGHT) for n in range(2, 9)]  # to which the model said the same


@st.composite
def seen(draw: st.DrawFn) -> Observation:
    """Whatever can be observed: an oracle for all wordings or none, passages reached only where some hold the answer."""
    held = draw(st.booleans())
    oracle, found = REPLIES if held else st.none(), st.sampled_from([(), ("p1",)])
    asked = st.builds(
        Wording, st.just("When?"), REPLIES, REPLIES, oracle, found, cited=st.sampled_from([(), (("p1", 0, 5),)])
    )
    case = observation(1, holding=("p1",) if held else (), answers=draw(st.sampled_from([(), ("01:40",)])))
    return replace(case, asked=tuple(draw(st.lists(asked, min_size=1, max_size=4))))


@given(seen(), st.sampled_from([[], OTHERS]))
def test_every_combination_has_exactly_one_verdict(each: Observation, others: list[Observation]) -> None:
    found = verdict_of(each, others)
    assert found.verdict in VERDICTS
    assert (found.verdict == "failed") == bool(each.failure)
    assert found.verdict != "known" or not others
    if found.verdict == "not_in_the_knowledge_base":
        assert found.without_passage in ("abstained", "invented")
        assert found.right == (found.without_passage == "abstained")
    if found.verdict in ("retriever_miss", "distracted", "reader_gap", "harmed_by_retrieval", "failed"):
        assert not found.right
    assert 0 <= found.wording_index < len(each.asked)


@given(st.lists(seen(), max_size=20))
def test_shares_sum_to_one(many: list[Observation]) -> None:
    group = summarise(HEADER, verdicts_of(many)).overall
    assert sum(group.verdicts[v].count for v in SHARED) + group.failed == group.questions == len(many)
    if group.questions > group.failed:
        assert sum(group.verdicts[v].share or 0.0 for v in SHARED) == pytest.approx(1.0)
    else:
        assert all(each.share is None for each in group.verdicts.values())


FORCED: list[tuple[Verdict, str, dict[str, object]]] = [
    ("known", "", {"closed": RIGHT}),
    ("known", "abstained", {"closed": RIGHT, "opened": SILENT, "holding": (), "rank": 0}),
    ("fixed_by_retrieval", "", {"closed": WRONG}),
    ("retriever_miss", "", {"opened": WRONG, "found": (), "rank": 9}),
    ("retriever_miss", "", {"opened": SILENT, "found": (), "rank": 0}),
    ("distracted", "", {"opened": WRONG}),
    ("distracted", "", {"opened": SILENT}),
    ("reader_gap", "", {"opened": WRONG, "oracle": WRONG}),
    ("reader_gap", "", {"opened": SILENT, "oracle": SILENT, "found": (), "rank": 0}),
    ("harmed_by_retrieval", "", {"closed": RIGHT, "opened": WRONG}),
    ("harmed_by_retrieval", "", {"closed": RIGHT, "opened": SILENT}),
    ("harmed_by_retrieval", "", {"closed": RIGHT, "opened": WRONG, "holding": (), "rank": 0}),
    ("not_in_the_knowledge_base", "abstained", {"answers": (), "opened": SILENT, "holding": (), "rank": 0}),
    ("not_in_the_knowledge_base", "invented", {"answers": (), "opened": WRONG, "holding": (), "rank": 0}),
    ("not_in_the_knowledge_base", "abstained", {"opened": SILENT, "holding": (), "rank": 0}),
    ("not_in_the_knowledge_base", "invented", {"opened": WRONG, "holding": (), "rank": 0}),
    ("failed", "", {"failure": "The engine fell over."}),
]


@pytest.mark.parametrize(("verdict", "silence", "changes"), FORCED)
def test_each_verdict_is_forced_and_has_a_reason(verdict: Verdict, silence: str, changes: dict[str, object]) -> None:
    case = observation(1, **changes)
    ((_, found),) = verdicts_of([case])
    assert (found.verdict, found.without_passage) == (verdict, silence)
    assert reason(case, found).endswith((".", ")"))
    assert {each for each, _, _ in FORCED} == set(VERDICTS)


def test_a_rank_among_those_found_is_not_called_one_among_those_given() -> None:
    case = observation(1, opened=WRONG, found=("p0", "p1"), rank=7)
    told = "was among the 2 given to the reader (the first one found is at rank 7)"
    assert told in reason(case, verdict_of(case))


def with_wording(case: Observation, **texts: str) -> Observation:
    """The same asked a second time, with these answers."""
    first = case.asked[0]
    replies: dict[str, Any] = {mode: said(text) for mode, text in texts.items()}
    return replace(case, asked=(first, replace(first, text=f"In other words: {first.text}", **replies)))


def test_known_is_right_in_every_wording_and_the_one_that_is_wrong_decides() -> None:
    case = observation(1, closed=RIGHT)
    assert verdict_of(with_wording(case)).verdict == "known"
    unstable = with_wording(case, closed=WRONG)
    assert verdict_of(unstable).verdict == "fixed_by_retrieval"
    assert "not reliably right" in reason(unstable, verdict_of(unstable))
    case = with_wording(observation(1), opened=WRONG)
    found = verdict_of(case)
    assert (found.verdict, found.wording_index) == ("distracted", 1)
    assert "Asked as: In other words" in reason(case, found)


def test_what_is_said_to_everything_is_right_by_chance() -> None:
    others = [observation(n, question=f"Is ship {n} large?", answers=("no",), closed="Yes.") for n in range(2, 9)]
    case = observation(1, question="Is the harbour deep?", answers=("yes",), closed="Yes.", opened="Yes.")
    assert verdict_of(case, others).verdict == "fixed_by_retrieval"
    same = [replace(o, question=replace(o.question, answers=("yes",))) for o in others]
    assert verdict_of(case, same).verdict == "known"  # those with this answer are no controls
    assert verdict_of(case, [observation(n) for n in range(2, 9)]).verdict == "known"


def test_one_answer_in_twenty_may_hold_it() -> None:
    question = Question("q", "Capital of France?", ("Paris",))
    rest = [observation(n, answers=(f"thing {n}",), closed=f"thing {n}") for n in range(19)]
    paris = observation(question="Where was Hugo born?", answers=("Besançon",), closed="In Paris.")
    assert not by_chance(question, [*rest, paris])
    assert by_chance(question, [*rest[:18], paris])
    assert not by_chance(question, [])
    noes = [observation(n, answers=(f"harbour {n}",), closed="No, it is shut.") for n in range(9)]
    assert by_chance(Question("q", "Is the pier open?", ("No",)), noes)


def test_an_answer_from_memory_against_the_passage() -> None:
    case = observation(1, closed="It leaves at noon.", opened="It leaves at noon.", cited=())
    found = verdict_of(case)
    assert (found.verdict, found.from_memory) == ("distracted", True)
    assert "from memory against the passage" in reason(case, found)
    cited = observation(1, closed="It leaves at noon.", opened="It leaves at noon.")
    assert not verdict_of(cited).from_memory
    unread = observation(1, closed="It leaves at noon.", opened="It leaves at noon.", cited=(), found=(), rank=0)
    assert verdict_of(unread) == QuestionVerdict("retriever_miss", right=False)


RIGHT_ANSWERS = [  # (answer, accepted)
    ("It leaves at 09:40 sharp.", "09:40"),
    ("The Paris.", "paris"),
    ("首都是巴黎。", "巴黎"),
    ("Sie liegt in „Köln“.", "Köln"),
    ("الجواب هو القاهرة؟", "القاهرة"),
    ("ﬁnal", "final"),
    ("The council keeps its letters for ten years in Hessay", "the council keeps all letters for ten years in hessay"),
    ("The captain’s cabin.", "the captain's cabin"),
    ("9:00-17:00", "9:00–17:00"),
    ("co‑operative", "co-operative"),
    ("1\u202f500 euros", "1500 euros"),
    ("5½ hours", "5.5 hours"),
    ("STRASSE", "Straße"),
    ("İstanbul", "Istanbul"),
    ("1,500, as every year", "1500"),
    ("John A. Smith", "A. Smith"),
    ("It starts at 9 a.m. sharp.", "9 am"),
    ("Ask IT first.", "IT"),
    ("it", "IT"),
    ("It needs vitamin A to grow.", "Vitamin A"),
    ("12 may attend.", "12"),
    ("on 5 may 2024", "5 May 2024"),
    ("until 22:00", "22:00"),
]
WRONG_ANSWERS = [
    ("It leaves at 109:40.", "09:40"),
    ("", "Paris"),
    ("Paris", "!?"),
    ("a long answer that says nothing of it", "the council keeps all letters for ten years in hessay"),
    ("The ferry leaves at 10:40 from the north quay.", "The ferry leaves at 09:40 from the north quay."),
    ("Station B", "Station A"),
    ("", "the"),
    ("Version 15", "Version 1.5"),
    ("350 €", "3,50 €"),
    ("1/2", "12"),
    ("Unit 12", "Unit 1/2"),
    (".5", "5"),
    ("B-", "B+"),
    ("1\u00a0500 euros", "500 euros"),
    ("106", "10⁶"),
    ("10⁶", "106"),
    ("2015年", "15年"),
    ("十二", "二"),
    ("It is the finance department.", "IT"),
    ("I'm not sure.", "No"),
    ("It is not stated in the passage.", "No"),
    ("$5m", "$5"),
    ("1.5", "1.500"),
]


@pytest.mark.parametrize(("answer", "accepted"), RIGHT_ANSWERS)
def test_right_in_another_spelling(answer: str, accepted: str) -> None:
    assert is_right(answer, Question("q", "What?", (accepted,)))


@pytest.mark.parametrize(("answer", "accepted"), WRONG_ANSWERS)
def test_wrong_however_much_it_looks_like_it(answer: str, accepted: str) -> None:
    assert not is_right(answer, Question("q", "What?", (accepted,)))


def test_what_only_repeats_the_question_says_nothing() -> None:
    where = Question("q", "Where is Denmark, South Carolina?", ("South Carolina", "Bamberg County"))
    assert not is_right("Denmark, South Carolina is a town of the United States.", where)
    assert is_right("Denmark is in South Carolina.", where)
    assert is_right("South Carolina", where)
    assert is_right("Denmark, South Carolina is a town in Bamberg County.", where)
    assert is_right("Denmark, South Carolina, is in the state of South Carolina.", where)
    which = Question("q", "Is the tower in Arvik or in Brekkan?", ("Arvik",), phrasings=("Which of them has a tower?",))
    assert is_right("It is in Arvik.", which)
    assert is_right("Arvik.", which)


def test_what_the_documentation_says_is_right_and_wrong() -> None:
    text = (ROOT / "docs/formats/diagnosis.md").read_text(encoding="utf-8")
    rows = text.partition("| accepted | right | wrong |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) == 7
    for row in rows:
        accepted, right, wrong = (re.findall("`([^`]+)`", cell) for cell in row.split("|")[1:4])
        for answers, expected in ((right or accepted, True), (wrong, False)):
            for each, answer in zip(accepted if len(accepted) > 1 else accepted * len(answers), answers, strict=True):
                assert is_right(answer, Question("q", "What?", (each,))) is expected, (answer, each)


def test_equal_answers() -> None:
    assert same_answer("Noon.", "It leaves at noon")
    assert same_answer("09:40", "The ferry to the island leaves at 09:40 every day of the week but Sunday.")
    assert not same_answer("28 days", "28 days or 30 days")
    assert not same_answer("Noon.", "At nine")
    assert not same_answer("4", "On 4 May 2024")
    assert not same_answer("the mayor", "It was built by a company of the town whose mayor had asked for it in spring.")
    assert not text_holds_any("", [""])


def test_an_abstention_is_never_known() -> None:
    case = observation(1, question="Is the pier open?", answers=("No",), opened="No.")
    case = replace(case, asked=(replace(case.asked[0], closed=Reply("I do not know.", True)),))
    assert verdict_of(case).verdict == "fixed_by_retrieval"
    assert "Alone wrong" in reason(case, verdict_of(case))


def test_where_no_passage_holds_it_an_invention_decides_whatever_the_order() -> None:
    case = observation(1, holding=(), rank=0)

    def judged(closed: str, *opened: str) -> QuestionVerdict:
        wordings = (replace(case.asked[0], closed=said(closed), opened=said(text)) for text in opened)
        return verdict_of(replace(case, asked=tuple(wordings)))

    for opened, wording in (((SILENT, WRONG), 1), ((WRONG, SILENT), 0)):
        assert judged("No idea.", *opened) == QuestionVerdict("not_in_the_knowledge_base", False, "invented", wording)
        assert judged(RIGHT, *opened) == QuestionVerdict("harmed_by_retrieval", False, "", wording)
    assert judged("No idea.", SILENT, SILENT) == QuestionVerdict("not_in_the_knowledge_base", True, "abstained", 0)


@given(st.lists(st.integers(), max_size=40), st.integers(0, 8))
def test_neighbours_are_those_around(items: list[int], reach: int) -> None:
    numbered = list(enumerate(items))
    for at, (item, others) in enumerate(with_neighbours(numbered, reach)):
        assert item == numbered[at]
        assert others == numbered[max(0, at - reach) : at] + numbered[at + 1 : at + 1 + reach]
