"""One diagnosis against another: only equal questions are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from openbook.diagnosis.report import write_report
from openbook.diagnosis.results import numbers
from openbook.diagnosis.run_log import Header, Observation
from openbook.diagnosis.summary import ModelOutcomes, Outcome, compare, summarise
from openbook.diagnosis.verdicts import judge_all
from openbook.errors import ConfigError
from openbook.records import sha256_hex
from tests.diagnosis.table_engine import HEADER, observation
from tests.diagnosis.test_summary import WRONG

OTHERS = replace(HEADER, questions=sha256_hex(b"other questions"))


def outcomes(*rights: bool) -> list[Outcome]:
    return [
        Outcome(f"q{n}", "fixed_by_retrieval" if right else "distracted", right, f"w{n}")
        for n, right in enumerate(rights)
    ]


def of(found: Sequence[Outcome]) -> ModelOutcomes:
    return ModelOutcomes("a model", HEADER, found)


def seen(cases: Sequence[Observation], header: Header = HEADER) -> ModelOutcomes:
    return ModelOutcomes("a model", header, summarise(header, judge_all(cases)).outcomes)


def test_two_models_are_compared_on_what_both_were_asked() -> None:
    one, other = outcomes(True, True, False, False, True), outcomes(True, False, True, False)
    found = compare(of(one), of([*other, Outcome("q9", "known", True, "w9")]))
    assert (found.questions, found.both_right, found.only_first, found.only_second) == (4, 1, 1, 1)
    assert (found.left_out, found.notes, found.p, found.p_text) == (2, (), 1.0, "1.000")
    assert found.moved == (("distracted", "fixed_by_retrieval", 1), ("fixed_by_retrieval", "distracted", 1))
    nothing = compare(of([Outcome("q0", "failed", False, "w0")]), of(other))
    assert (nothing.questions, nothing.p, nothing.p_text) == (0, None, "no data")


def test_other_questions_are_refused_whatever_their_ids() -> None:
    other = [observation(n, question=f"Who built bridge {n}?") for n in range(3)]
    with pytest.raises(ConfigError, match=f"{HEADER.questions[:12]} and {OTHERS.questions[:12]}.*same questions"):
        compare(seen([observation(n) for n in range(3)]), seen(other, OTHERS))
    with pytest.raises(ConfigError, match="none of them is the same"):  # the same words, other accepted answers
        compare(seen([observation(1)]), seen([observation(1, answers=("10:40",))], OTHERS))


def test_what_is_the_same_is_compared_whatever_its_id_and_the_rest_is_counted() -> None:
    """Of three and four questions two are the same; one of those moved to another line."""
    one = seen([observation(1), observation(2), observation(3, question="Who?")])
    moved = replace(observation(2, opened=WRONG), question=replace(observation(2).question, id="q9"))
    found = compare(one, seen([observation(1), moved, observation(3, question="What?"), observation(4)], OTHERS))
    assert (found.questions, found.both_right, found.only_first, found.left_out) == (2, 1, 1, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"where": "type = 'pdf'"}, "The filters (--where) differ: none and type = 'pdf'."),
        ({"labels": ("board",)}, "The access labels (--label) differ: none and 'board'."),
        ({"strategy": "each"}, "The strategies of reading differ: together and each."),
        ({"knowledge_base_version": 4}, "The versions of the knowledge base differ: 1 and 4."),
        ({"decoding": replace(HEADER.decoding, max_tokens=9)}, "The decodings differ: Decoding("),
        ({"embedder": replace(HEADER.embedder, dimensions=32)}, "dimensions) and hash ("),
        ({"questions": OTHERS.questions}, f"(digests {HEADER.questions[:12]} and {OTHERS.questions[:12]})"),
        ({"model": replace(HEADER.model, name="other"), "numeric_class": "other"}, None),
    ],
)
def test_all_that_differs_besides_the_model_is_named(change: dict[str, Any], says: str | None) -> None:
    cases = [observation(1)]
    notes = compare(seen(cases), seen(cases, replace(HEADER, **change))).notes
    assert len(notes) == (says is not None)
    assert not says or says in notes[0]


def test_every_field_of_a_header_is_looked_at() -> None:
    """A new one must be named, or be the model's own."""
    own = {"model", "numeric_class", "format"}
    others: dict[str, Any] = {each.name: "other" for each in fields(Header) if each.name not in own}
    others |= {"decoding": replace(HEADER.decoding, seed=7), "embedder": replace(HEADER.embedder, name="other")}
    for field, other in others.items():
        assert compare(seen([observation(1)]), seen([observation(1)], replace(HEADER, **{field: other}))).notes, field


def test_questions_on_which_one_failed_are_counted() -> None:
    fine = [observation(n) for n in range(4)]
    failed = [observation(0, failure="It fell over."), *fine[1:3], observation(9)]
    found = compare(seen(fine), seen(failed))
    assert (found.questions, found.failed, found.left_out) == (2, 1, 2)
    assert found.all_notes()[-1] == "Questions left out, because at least one of the two failed on them: 1."
    assert len(found.all_notes()) == 2


def test_notes_are_in_the_numbers_and_on_the_page(tmp_path: Path) -> None:
    cases = [observation(n) for n in range(2)]
    summaries = [summarise(header, judge_all(cases)) for header in (HEADER, replace(HEADER, knowledge_base_version=4))]
    found = compare(*summaries)
    assert json.loads(json.dumps(numbers("t", summaries, [found])["comparisons"]))[0]["notes"] == list(found.notes)
    write_report(tmp_path / "r.html", "t", [(summaries[0], judge_all(cases))], [replace(found, left_out=1234)])
    page = (tmp_path / "r.html").read_text()
    assert "differ: 1 and 4." in page
    assert "because only one of the two was asked them: 1,234." in page
