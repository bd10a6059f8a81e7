"""One diagnosis against another: only equal questions are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from openbook.diagnosis.comparing import Diagnosed, compare, pairs_of
from openbook.diagnosis.deciding import judged
from openbook.diagnosis.observations import Header, Observation
from openbook.diagnosis.report import notes_of, write_report
from openbook.diagnosis.results import numbers, read_outcomes
from openbook.diagnosis.summary import Outcome, summarise
from openbook.errors import ConfigError
from openbook.records import sha256_hex
from tests.diagnosis.table_engine import HEADER, observation
from tests.diagnosis.test_summary import WRONG, mixed

OTHERS = replace(HEADER, questions=sha256_hex(b"other questions"))


def outcomes(*rights: bool) -> list[Outcome]:
    return [Outcome(f"q{n}", "fixed_by_retrieval" if right else "distracted", right) for n, right in enumerate(rights)]


def of(found: Sequence[Outcome], header: Header = HEADER) -> Diagnosed:
    return Diagnosed("a model", header, found)


def seen(cases: Sequence[Observation], header: Header = HEADER) -> Diagnosed:
    return of(summarise(header, judged(cases)).outcomes, header)


def test_two_models_are_compared_on_what_both_were_asked() -> None:
    one, other = outcomes(True, True, False, False, True), outcomes(True, False, True, False)
    found = compare(of(one), of([*other, Outcome("q9", "known", True)]))
    assert (found.questions, found.both_right, found.only_first, found.only_second) == (4, 1, 1, 1)
    assert (found.left_out, found.notes) == (2, ())
    assert found.p == 1.0
    assert found.moved == (("distracted", "fixed_by_retrieval", 1), ("fixed_by_retrieval", "distracted", 1))
    nothing = compare(of([Outcome("q0", "failed", False)]), of(other))
    assert (nothing.questions, nothing.p) == (0, None)
    summary = summarise(HEADER, judged(mixed()))
    assert pairs_of([summary, summary])[0].only_first == 0


def test_equal_ids_of_other_questions_are_refused_with_both_digests() -> None:
    other = seen([observation(n, question=f"Who built bridge {n}?") for n in range(3)], OTHERS)
    with pytest.raises(ConfigError, match=f"{HEADER.questions[:12]} and {OTHERS.questions[:12]}.*same questions"):
        compare(seen([observation(n) for n in range(3)]), other)


def test_the_same_words_with_other_accepted_answers_are_another_question() -> None:
    with pytest.raises(ConfigError, match="none of them is the same"):
        compare(seen([observation(1)]), seen([observation(1, answers=("10:40",))], OTHERS))


def test_what_is_the_same_is_compared_whatever_its_id_and_the_rest_is_counted() -> None:
    """Of three and four questions two are the same; one of those moved to another line."""
    one = seen([observation(1), observation(2), observation(3, question="Who?")])
    moved = replace(observation(2, opened=WRONG), question=replace(observation(2).question, id="q9"))
    rest = [observation(3, question="What?"), observation(4)]
    found = compare(one, seen([observation(1), moved, *rest], OTHERS))
    assert (found.questions, found.both_right, found.only_first) == (2, 1, 1)
    assert found.left_out == 3


def test_a_question_that_is_asked_twice_is_compared_twice() -> None:
    twice = [observation(1), replace(observation(1), question=replace(observation(1).question, id="again"))]
    found = compare(seen(twice), seen([*twice, observation(2)], OTHERS))
    assert (found.questions, found.left_out) == (2, 1)


def test_files_that_do_not_say_which_questions_are_the_same_are_refused_with_advice(tmp_path: Path) -> None:
    for name, header in (("one", HEADER), ("other", OTHERS)):
        value = numbers("t", [summarise(header, judged([observation(1)]))], [])
        del value["models"][0]["outcomes"][0]["question"]
        (tmp_path / name).write_text(json.dumps(value, default=str))
    (one,), (other,) = read_outcomes(tmp_path / "one"), read_outcomes(tmp_path / "other")
    assert compare(one, one).questions == 1
    with pytest.raises(ConfigError, match="older OpenBook"):
        compare(one, other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"where": "type = 'pdf'"}, "The filters (--where) differ: none and type = 'pdf'."),
        ({"labels": ("board",)}, "The access labels (--label) differ: none and 'board'."),
        ({"strategy": "each"}, "The strategies of reading differ: together and each."),
        ({"passages": 9}, "The numbers of passages differ: 2 and 9."),
        ({"min_similarity": 0.5}, "The least similarities differ: 0.2 and 0.5."),
        ({"context_tokens": 2048}, "The sizes of the context, in tokens, differ: 4096 and 2048."),
        ({"decoding": replace(HEADER.decoding, max_tokens=9)}, "The decodings (max_tokens) differ: 400 and 9."),
        ({"decoding": replace(HEADER.decoding, stop=())}, r"The decodings (stop) differ: '\n' and none."),
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
    """One that is new must be named, or be the model's own."""
    own = {"model", "numeric_class", "format"}
    others: dict[str, Any] = {each.name: "other" for each in fields(Header) if each.name not in own}
    others |= {"decoding": replace(HEADER.decoding, seed=7), "embedder": replace(HEADER.embedder, name="other")}
    for field, other in others.items():
        assert compare(seen([observation(1)]), seen([observation(1)], replace(HEADER, **{field: other}))).notes, field


def test_questions_on_which_one_failed_are_counted(tmp_path: Path) -> None:
    fine = [observation(n) for n in range(4)]
    failed = [observation(0, failure="It fell over."), *fine[1:3], observation(9)]
    found = compare(seen(fine), seen(failed))
    assert (found.questions, found.failed, found.left_out) == (2, 1, 2)
    assert notes_of(found)[-1] == "Questions left out, because at least one of the two failed on them: 1."
    assert len(notes_of(found)) == 2


def test_other_versions_and_other_knowledge_bases_are_said_everywhere(tmp_path: Path) -> None:
    newer, elsewhere = replace(HEADER, knowledge_base_version=4), replace(HEADER, knowledge_base="handbook")
    cases = [observation(n) for n in range(2)]
    summaries = [summarise(header, judged(cases)) for header in (HEADER, newer, elsewhere)]
    one, two = pairs_of(summaries)
    assert one.notes == ("The versions of the knowledge base differ: 1 and 4.",)
    assert two.notes == ("The knowledge bases differ: kb (version 1) and handbook (version 1).",)
    assert json.loads(json.dumps(numbers("t", summaries, [one])["comparisons"]))[0]["notes"] == list(one.notes)
    write_report(tmp_path / "r.html", "t", [(summaries[0], judged(cases))], [one, replace(two, left_out=1234)])
    page = (tmp_path / "r.html").read_text()
    assert "differ: 1 and 4." in page
    assert "because only one of the two was asked them: 1,234." in page
