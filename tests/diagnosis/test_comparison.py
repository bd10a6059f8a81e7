"""One diagnosis against another: only equal questions are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from openbook.core.errors import ConfigError
from openbook.core.records import sha256_hex
from openbook.diagnosis.run_log import Header, Observation
from openbook.diagnosis.summary import ModelOutcomes, compare, summarise
from openbook.diagnosis.verdicts import verdicts_of
from tests.diagnosis.table_engine import HEADER, WRONG, observation

OTHERS = replace(HEADER, questions=sha256_hex(b"other questions"))


def asked(count: int, *wrong: int) -> list[Observation]:
    return [observation(n, opened=WRONG) if n in wrong else observation(n) for n in range(count)]


def seen(cases: Sequence[Observation], header: Header = HEADER) -> ModelOutcomes:
    return ModelOutcomes("a model", header, summarise(header, verdicts_of(cases)).outcomes)


def test_two_models_are_compared_on_what_both_were_asked() -> None:
    found = compare(seen(asked(5, 2, 3)), seen([*asked(4, 1, 3), observation(9)]))
    assert (found.questions, found.both_right, found.only_first, found.only_second) == (4, 1, 1, 1)
    assert (found.left_out, found.notes, found.p, found.p_text) == (2, (), 1.0, "1.000")
    assert found.moved == (("distracted", "fixed_by_retrieval", 1), ("fixed_by_retrieval", "distracted", 1))
    fell = observation(0, failure="It fell over.")
    nothing = compare(seen([fell]), seen(asked(4)))
    assert (nothing.questions, nothing.p, nothing.p_text) == (0, None, "no data")
    partly = compare(seen(asked(4)), seen([fell, *asked(4)[1:3], observation(9)]))
    assert (partly.questions, partly.failed, partly.left_out) == (2, 1, 2)
    assert partly.all_notes()[-1] == "Questions left out, because at least one of the two failed on them: 1."
    assert replace(partly, p=0.0001).p_text == "< 0.001"


def test_other_questions_are_refused_whatever_their_ids() -> None:
    other = [observation(n, question=f"Who built bridge {n}?") for n in range(3)]
    with pytest.raises(ConfigError, match=f"{HEADER.questions[:12]} and {OTHERS.questions[:12]}.*same questions"):
        compare(seen(asked(3)), seen(other, OTHERS))
    with pytest.raises(ConfigError, match="none of them is the same"):  # the same words, other accepted answers
        compare(seen([observation(1)]), seen([observation(1, answers=("10:40",))], OTHERS))


def test_what_is_the_same_is_compared_whatever_its_id_and_the_rest_is_counted() -> None:
    """Of three and four questions two are the same; one of those moved to another line."""
    one = seen([observation(1), observation(2), observation(3, question="Who?")])
    moved = replace(observation(2, opened=WRONG), question=replace(observation(2).question, id="q9"))
    found = compare(one, seen([observation(1), moved, observation(3, question="What?"), observation(4)], OTHERS))
    assert (found.questions, found.both_right, found.only_first, found.left_out) == (2, 1, 1, 3)


DIFFERING: dict[str, tuple[Any, str]] = {
    "knowledge_base": ("other", "They differ in knowledge base: kb and other."),
    "knowledge_base_version": (4, "They differ in knowledge base version: 1 and 4."),
    "embedder": (replace(HEADER.embedder, dimensions=32), "64 dimensions) and hash ("),
    "questions": (OTHERS.questions, f"(digests {HEADER.questions[:12]} and {OTHERS.questions[:12]})"),
    "strategy": ("each", "They differ in strategy: together and each."),
    "passages": (9, "They differ in passages: 2 and 9."),
    "min_similarity": (0.5, "They differ in min similarity: 0.2 and 0.5."),
    "context_tokens": (99, "They differ in context tokens: 4096 and 99."),
    "decoding": (replace(HEADER.decoding, max_tokens=9), "They differ in decoding: Decoding("),
    "where": ("type = 'pdf'", "They differ in where: none and type = 'pdf'."),
    "labels": (("board",), "They differ in labels: none and 'board'."),
}


def test_all_that_differs_besides_the_model_is_named() -> None:
    cases = [observation(1)]
    own: dict[str, Any] = {"model": replace(HEADER.model, name="other"), "numeric_class": "other"}
    assert {*own, *DIFFERING, "format"} == {each.name for each in fields(Header)}
    assert compare(seen(cases), seen(cases, replace(HEADER, **own))).notes == ()
    for field, (other, says) in DIFFERING.items():
        (note,) = compare(seen(cases), seen(cases, replace(HEADER, **{field: other}))).notes
        assert says in note
