"""Every observation has exactly one verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, Reply, Wording
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


def with_wording(case: Observation, **texts: str) -> Observation:
    """The same asked a second time, with these answers."""
    first = case.asked[0]
    replies: dict[str, Any] = {mode: said(text) for mode, text in texts.items()}
    return replace(case, asked=(first, replace(first, text=f"In other words: {first.text}", **replies)))


def test_known_is_right_in_every_wording_and_a_wrong_one_decides() -> None:
    case = observation(1, closed=RIGHT)
    assert verdict_of(with_wording(case)).verdict == "known"
    unstable = with_wording(case, closed=WRONG)
    assert verdict_of(unstable).verdict == "fixed_by_retrieval"
    assert "not reliably right" in reason(unstable, verdict_of(unstable))
    case = with_wording(observation(1), opened=WRONG)
    found = verdict_of(case)
    assert (found.verdict, found.wording_index) == ("distracted", 1)
    assert "Asked as: In other words" in reason(case, found)
    case = observation(1, question="Is the pier open?", answers=("No",), opened="No.")
    abstained = replace(case, asked=(replace(case.asked[0], closed=Reply("I do not know.", True)),))
    assert verdict_of(abstained).verdict == "fixed_by_retrieval"
    assert "Alone wrong" in reason(abstained, verdict_of(abstained))


def test_an_answer_said_to_many_questions_is_right_by_chance() -> None:
    others = [observation(n, question=f"Is ship {n} large?", answers=("no",), closed="Yes.") for n in range(2, 9)]
    case = observation(1, question="Is the harbour deep?", answers=("yes",), closed="Yes.", opened="Yes.")
    assert verdict_of(case, others).verdict == "fixed_by_retrieval"
    same = [replace(o, question=replace(o.question, answers=("yes",))) for o in others]
    assert verdict_of(case, same).verdict == "known"  # those with this answer are no controls
    assert verdict_of(case, [observation(n) for n in range(2, 9)]).verdict == "known"
    rest = [observation(n, answers=(f"thing {n}",), closed=f"thing {n}") for n in range(19)]
    paris = observation(question="Where was Hugo born?", answers=("Besançon",), closed="In Paris.")
    question = Question("q", "Capital of France?", ("Paris",))
    assert not by_chance(question, [*rest, paris])  # one in twenty may hold it
    assert by_chance(question, [*rest[:18], paris])
    assert not by_chance(question, [])


def test_an_answer_from_memory_against_the_passage() -> None:
    noon = {"closed": WRONG, "opened": WRONG}
    case = observation(1, **noon, cited=())
    found = verdict_of(case)
    assert (found.verdict, found.from_memory) == ("distracted", True)
    assert "from memory against the passage" in reason(case, found)
    assert not verdict_of(observation(1, **noon)).from_memory
    unread = observation(1, **noon, cited=(), found=(), rank=0)
    assert verdict_of(unread) == QuestionVerdict("retriever_miss", right=False)
    given = observation(1, opened=WRONG, found=("p0", "p1"), rank=7)
    told = "was among the 2 given to the reader (the first one found is at rank 7)"
    assert told in reason(given, verdict_of(given))


def test_without_a_passage_an_invention_decides_in_any_order() -> None:
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
