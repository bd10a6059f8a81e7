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


V = QuestionVerdict
NOON, NOWHERE = {"closed": WRONG, "opened": WRONG}, {"holding": (), "rank": 0}
# (the verdict, part of its reason, the case, what is different in each further wording)
JUDGED: list[tuple[QuestionVerdict, str, dict[str, Any], list[dict[str, str]]]] = [
    (V("known", True), "Right without documents.", {"closed": RIGHT}, []),
    (V("known", True), "in all 2 wordings", {"closed": RIGHT}, [{}]),
    (V("known", True, "abstained"), "it said so", {"closed": RIGHT, "opened": SILENT, **NOWHERE}, []),
    (V("fixed_by_retrieval", True), "Alone wrong", {"closed": WRONG}, []),
    (V("fixed_by_retrieval", True), "not reliably right", {"closed": RIGHT}, [{"closed": WRONG}]),
    (V("fixed_by_retrieval", True), "Alone wrong",
     {"answers": ("do not say",), "closed": SILENT, "opened": "They do not say."}, []),
    (V("retriever_miss", False), "at rank 9; 0 were given", {"opened": WRONG, "found": (), "rank": 9}, []),
    (V("retriever_miss", False), "not among the first", {"opened": SILENT, "found": (), "rank": 0}, []),
    (V("retriever_miss", False), "", {**NOON, "cited": (), "found": (), "rank": 0}, []),
    (V("distracted", False), "", {"opened": SILENT}, []),
    (V("distracted", False), "", NOON, []),
    (V("distracted", False), "was among the 2 given to the reader (the first one found is at rank 7)",
     {"opened": WRONG, "found": ("p0", "p1"), "rank": 7}, []),
    (V("distracted", False, "", 1), "Asked as: In other words", {}, [{"opened": WRONG}]),
    (V("distracted", False, "", 0, True), "from memory against the passage", {**NOON, "cited": ()}, []),
    (V("reader_gap", False), "", {"opened": WRONG, "oracle": WRONG}, []),
    (V("reader_gap", False), "", {"opened": SILENT, "oracle": SILENT, "found": (), "rank": 0}, []),
    (V("harmed_by_retrieval", False), "answered wrong", {"closed": RIGHT, "opened": WRONG}, []),
    (V("harmed_by_retrieval", False), "do not tell", {"closed": RIGHT, "opened": SILENT}, []),
    (V("harmed_by_retrieval", False, "", 1), "", {"closed": RIGHT, "opened": SILENT, **NOWHERE}, [{"opened": WRONG}]),
    (V("harmed_by_retrieval", False), "", {"closed": RIGHT, "opened": WRONG, **NOWHERE}, [{"opened": SILENT}]),
    (V("not_in_the_knowledge_base", True, "abstained"), "", {"answers": (), "opened": SILENT, **NOWHERE}, []),
    (V("not_in_the_knowledge_base", False, "invented"), "", {"answers": (), "opened": WRONG, **NOWHERE}, []),
    (V("not_in_the_knowledge_base", True, "abstained"), "said so", {"opened": SILENT, **NOWHERE}, [{}]),
    (V("not_in_the_knowledge_base", False, "invented"), "", {"opened": WRONG, **NOWHERE}, [{"opened": SILENT}]),
    (V("not_in_the_knowledge_base", False, "invented", 1), "", {"opened": SILENT, **NOWHERE}, [{"opened": WRONG}]),
    (V("failed", False), "The engine fell over.", {"failure": "The engine fell over."}, []),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "why", "changes", "wordings"), JUDGED)
def test_each_verdict_is_forced_and_has_a_reason(
    expected: QuestionVerdict, why: str, changes: dict[str, Any], wordings: list[dict[str, str]]
) -> None:
    case = observation(1, **changes)
    first = case.asked[0]
    for texts in wordings:
        replies: dict[str, Any] = {mode: said(text) for mode, text in texts.items()}
        again = replace(first, text=f"In other words: {first.text}", **replies)
        case = replace(case, asked=(*case.asked, again))
    assert verdict_of(case) == expected
    assert why in reason(case, expected)
    assert reason(case, expected).endswith((".", ")"))
    assert {each.verdict for each, *_ in JUDGED} == set(VERDICTS)


def test_an_answer_said_to_many_questions_is_right_by_chance() -> None:
    others = [observation(n, question=f"Is ship {n} large?", answers=("no",), closed="Yes.") for n in range(2, 9)]
    case = observation(1, question="Is the harbour deep?", answers=("yes",), closed="Yes.", opened="Yes.")
    same = [replace(o, question=replace(o.question, answers=("yes",))) for o in others]  # these are no controls
    silent = [observation(n) for n in range(2, 9)]
    judged = [verdict_of(case, controls).verdict for controls in (others, same, silent)]
    assert judged == ["fixed_by_retrieval", "known", "known"]
    rest = [observation(n, answers=(f"thing {n}",), closed=f"thing {n}") for n in range(19)]
    paris = observation(question="Where was Hugo born?", answers=("Besançon",), closed="In Paris.")
    question = Question("q", "Capital of France?", ("Paris",))
    # one in twenty may hold it
    assert [by_chance(question, each) for each in ([*rest, paris], [*rest[:18], paris], [])] == [False, True, False]


@given(st.lists(st.integers(), max_size=40), st.integers(0, 8))
def test_neighbours_are_those_around(items: list[int], reach: int) -> None:
    numbered = list(enumerate(items))
    for at, (item, others) in enumerate(with_neighbours(numbered, reach)):
        assert item == numbered[at]
        assert others == numbered[max(0, at - reach) : at] + numbered[at + 1 : at + 1 + reach]
