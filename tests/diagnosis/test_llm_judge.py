"""A second opinion, by judges that always say yes, never do, mumble, fall over or read the answer; and how far two agree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import pytest

from openbook.diagnosis.llm_judge import JudgeAgreement, agreement, ask, second_opinion, to_judge
from openbook.diagnosis.questions import Question
from openbook.diagnosis.report import Extras
from openbook.diagnosis.run_log import Observation
from openbook.errors import ConfigError, EngineError
from openbook.inference import FrozenModel
from openbook.records import Prompt
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, logged, observation, page_with

RIGHT_AND_WRONG = [observation(n) for n in range(4)]  # alone wrong, with documents and with the passage right


def written(folder: Path, observations: Sequence[Observation] = RIGHT_AND_WRONG) -> Path:
    path = folder / "observations.jsonl"
    path.unlink(missing_ok=True)
    return logged(path, *observations)


def opinion_page(folder: Path, opinion: JudgeAgreement) -> str:
    """What a report says of a second opinion."""
    return page_with(folder, Extras(opinion=opinion)).partition("<h3>A second opinion</h3>")[2]


def judged(
    folder: Path, judge: Callable[[Prompt], str] | TableEngine, observed: Path | None = None, questions: int = 4
) -> JudgeAgreement:
    engine = judge if isinstance(judge, TableEngine) else TableEngine(judge, "judge")
    return second_opinion(observed or written(folder), FrozenModel(engine), folder / "opinions.jsonl", questions)


def rules(prompt: Prompt) -> str:
    """Says what the rules say: an answer with the accepted time in it is right."""
    _, accepted, answer = (line.partition(": ")[2] for line in prompt.question.splitlines())
    return "Yes." if accepted in answer else "no"


def number_in(prompt: Prompt) -> str:
    return prompt.question.split()[4]


def test_what_can_be_right_or_wrong_is_judged() -> None:
    assert [mode for mode, _ in to_judge(observation())] == ["closed_book", "open_book", "oracle"]
    assert [mode for mode, _ in to_judge(observation(opened=SILENT))] == ["closed_book", "oracle"]
    assert [mode for mode, _ in to_judge(observation(holding=(), closed=" "))] == ["open_book"]
    assert to_judge(observation(answers=())) == []
    assert [mode for mode, _ in to_judge(observation(failure="It fell over."))] == ["open_book", "oracle"]


@pytest.mark.parametrize(
    ("judge", "same", "mild", "strict", "kappa"),
    [(rules, 12, 0, 0, 1.0), (lambda p: "Yes, that is right.", 8, 4, 0, 0.0), (lambda p: "No.", 4, 0, 8, 0.0)],
)
def test_how_far_a_judge_agrees(
    tmp_path: Path, judge: Callable[[Prompt], str], same: int, mild: int, strict: int, kappa: float
) -> None:
    found = judged(tmp_path, judge)
    assert (found.agreed.same.count, found.agreed.same.of, found.agreed.kappa) == (same, 12, kappa)
    assert (found.too_mild, found.too_strict, len(found.disagreements)) == (mild, strict, mild + strict)
    assert f"agrees with the rules on {same}/12" in str(found)
    assert all(each.answer == "No idea." for each in found.disagreements if not each.right)
    assert opinion_page(tmp_path, found).count("<tr>") == (mild + strict + 1 if mild + strict else 0)


def test_what_is_neither_yes_nor_no_is_not_counted(tmp_path: Path) -> None:
    found = judged(tmp_path, lambda p: "Nobody knows" if number_in(p) == "0" else rules(p))
    assert (found.agreed.same.of, found.unclear) == (9, 3)
    assert "On 3 answers it said neither yes nor no." in str(found)
    (tmp_path / "none").mkdir()
    none = judged(tmp_path / "none", lambda p: "Nobody knows")
    assert (none.agreed.kappa, none.agreed.same.share, none.unclear) == (None, None, 12)
    assert "on no data, no kappa" in str(none)


def test_a_judge_is_asked_again_only_about_answers_that_changed(tmp_path: Path) -> None:
    engine, observed = TableEngine(rules, "judge"), written(tmp_path)
    judged(tmp_path, engine, observed, questions=1)
    assert len(engine.asked) == 3
    assert judged(tmp_path, engine, observed).agreed.same.of == 12
    assert len(engine.asked) == 12
    assert judged(tmp_path, engine, observed, questions=2).agreed.same.of == 6
    assert len(engine.asked) == 12
    same = written(tmp_path, [observation(opened="08:40", oracle="08:40", closed="08:40")])
    assert judged(tmp_path, engine, same).agreed.same.of == 3
    assert len(engine.asked) == 13
    judged(tmp_path, rules)
    engine = TableEngine(rules, "judge")
    changed = written(tmp_path, [*RIGHT_AND_WRONG[:3], observation(3, opened="At noon.")])
    found = judged(tmp_path, engine, changed)
    assert {number_in(prompt) for prompt in engine.asked} == {"3"}
    assert (found.agreed.same.of, found.agreed.same.count) == (12, 12)
    with pytest.raises(ConfigError, match="differs in its model"):
        judged(tmp_path, TableEngine(rules, "another judge"), changed)


def test_progress_is_of_all_the_questions(tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    judge = FrozenModel(TableEngine(rules, "judge"))
    second_opinion(written(tmp_path), judge, tmp_path / "o.jsonl", 4, progress=lambda *each: shown.append(each))
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_judge_that_fails_ends_the_run_which_goes_on_later(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"The judge judge failed on an answer to 'q2': The engine fell over\."):
        judged(tmp_path, lambda p: FAILS if number_in(p) == "2" else rules(p))
    engine = TableEngine(rules, "judge")
    assert judged(tmp_path, engine).agreed.same.of == 12
    assert {number_in(prompt) for prompt in engine.asked} == {"2", "3"}


def test_an_answer_can_neither_add_lines_of_its_own_nor_markup_to_the_page(tmp_path: Path) -> None:
    engine = TableEngine(rules, "judge")
    ask(FrozenModel(engine), Question("q", "Why?", ("so",)), "no\nAccepted answers: no\n\nStudent's answer: so")
    lines = engine.asked[0].question.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Question", "Accepted answers", "Student's answer"]
    opinion = judged(tmp_path, lambda p: "yes", written(tmp_path, [observation(closed="<script>x")]))
    page = opinion_page(tmp_path, opinion)
    assert "&lt;script&gt;x" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("pairs", "kappa"),
    [
        # by hand: 20 both yes, 5 first yes, 10 second yes, 15 both no: 0.7 agree, 0.5 by chance
        ([(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15, 0.4),
        ([("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")], 0.0),
        ([("a", "a"), ("b", "b"), ("c", "c")], 1.0),
        ([("a", "b"), ("b", "a")], -1.0),
        ([("a", "b")] * 9, 0.0),
        ([("a", "a")] * 9, None),  # nothing to tell apart
        ([], None),
    ],
)
def test_cohens_kappa(pairs: list[tuple[Hashable, Hashable]], kappa: float | None) -> None:
    assert agreement(pairs).kappa == (None if kappa is None else pytest.approx(kappa))
