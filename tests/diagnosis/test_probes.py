"""Every outcome of every probe, forced by engines that read, remember, ignore and invent; and resumed runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from openbook.answers.retrieval import Options
from openbook.core.records import Passage, Prompt
from openbook.diagnosis.perturb import altered
from openbook.diagnosis.probes import PROBES, ProbeRun, Result, run_probes
from openbook.diagnosis.questions import Question
from openbook.diagnosis.runner import Bench
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from tests.conftest import base_with
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, bench_with, question_in

HARBOURS = "Arvik Brekkan Corrie Dunvar Eskmoor Fyrholm Grimsund Hessay".split()
TIMES = {harbour: f"{6 + n:02d}:{10 + n}" for n, harbour in enumerate(HARBOURS)}
ASKED = 4
QUESTIONS = [Question(f"q-{h}", f"When does the ferry to {h} leave?", (TIMES[h],)) for h in HARBOURS[:ASKED]]
NOWHERE = Question("nowhere", "When does the ferry to Zandvoort leave?", kind="unanswerable")
TWICE = "Arvik"  # two documents tell its time
TEXTS = {
    f"{h}.txt": f"The ferry to {h} leaves at {leaves} from pier {n}." for n, (h, leaves) in enumerate(TIMES.items())
}
TEXTS["again.txt"] = f"Travellers note that the ferry to {TWICE} leaves at {TIMES[TWICE]} on time."
Answers = Callable[[Prompt], str]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Read only: no test of this module changes it."""
    return base_with(tmp_path_factory.mktemp("base"), TEXTS)


def harbour_in(prompt: Prompt) -> str:
    found = re.search(r"to (\w+) leave", question_in(prompt))
    return found[1] if found else ""


def told(prompt: Prompt, passages: Iterable[str] | None = None) -> str:
    """What the passages say about the harbour that is asked for."""
    text = "\n".join(prompt.passages if passages is None else passages)
    found = re.search(rf"ferry to {harbour_in(prompt)} leaves at ([\d:]+)", text)
    return found[1] if found else ""


def reads(prompt: Prompt) -> str:
    return told(prompt) or (SILENT if prompt.passages else "No idea.")


def remembers(prompt: Prompt) -> str:
    """Answers about ferries from memory, whatever it is given."""
    return TIMES.get(harbour_in(prompt)) or reads(prompt)


def ignores(prompt: Prompt) -> str:
    return "At noon, as ever."


def bench_of(base: KnowledgeBase, answer: Answers | FrozenModel) -> Bench:
    return bench_with(answer if isinstance(answer, FrozenModel) else FrozenModel(TableEngine(answer)), base)


def run(asked: Sequence[Question], bench: Bench, path: Path | None = None) -> ProbeRun:
    """`path`: a file to keep the trials in; without it, a new one."""
    with TemporaryDirectory() as folder:
        return run_probes(asked, bench, "digest", path=path or Path(folder) / "probes.jsonl")


def result_of(
    name: str,
    base: KnowledgeBase,
    answer: Answers | FrozenModel,
    asked: Sequence[Question] = QUESTIONS,
) -> Result:
    """Of one probe."""
    return run(asked, bench_of(base, answer)).results[name]


def in_words(name: str, found: Result) -> str:
    return PROBES[name].meaning(found)


def counted(shares: Any) -> dict[str, int]:
    """The counts of those that are not 0."""
    return {key: share.count for key, share in shares.items() if share.count}


# --- counterfactual ---------------------------------------------------------------------------------------------------


def doubts(prompt: Prompt) -> str:
    """Says alone what it says against the altered passage."""
    return told(prompt) if told(prompt) == TIMES[harbour_in(prompt)] else "Shortly after breakfast"


def muddles(prompt: Prompt) -> str:
    return doubts(prompt) if prompt.passages else ""


def silent(prompt: Prompt) -> str:
    return told(prompt) if told(prompt) == TIMES[harbour_in(prompt)] else SILENT


def both(prompt: Prompt) -> str:
    return f"{told(prompt)} or {TIMES[harbour_in(prompt)]}"


def before(last: str) -> Answers:
    """Remembers the harbours before that letter, and reads of the others."""
    return lambda prompt: remembers(prompt) if harbour_in(prompt) < last else reads(prompt)


@pytest.mark.parametrize(
    ("answer", "followed", "meaning"),
    [
        (reads, {"passage": ASKED}, "No answer came from memory"),
        (remembers, {"weights": ASKED}, "memory that answers"),
        (doubts, {"weights": ASKED}, "memory that answers"),
        (muddles, {"neither": ASKED}, ""),
        (silent, {"abstained": ASKED}, ""),
        (both, {"neither": ASKED}, ""),
        (before("D"), {"weights": 3, "passage": 1}, "memory that answers"),
        (before("B"), {"weights": 1, "passage": 3}, "not sure to change"),
    ],
)
def test_whom_an_answer_follows(base: KnowledgeBase, answer: Answers, followed: dict[str, int], meaning: str) -> None:
    result = result_of("counterfactual", base, answer)
    assert counted(result.shares) == followed
    assert meaning in in_words("counterfactual", result)
    assert all(trial.kind == "number" and trial.new != trial.old for trial in result.trials)


LEAVE = "28 days of paid leave per calendar year"


@pytest.mark.parametrize(
    ("text", "accepted", "says", "outcome"),
    [
        ("Staff have 28 days of leave.", "28 days", lambda new: f"They have {new}.", "passage"),
        ("The tank holds 1,500 litres.", "1,500 litres", lambda new: new.replace(",", ""), "passage"),
        ("The tank holds 1,500 litres.", "1,500 litres", lambda new: "1500 litres", "weights"),
        (f"Staff have {LEAVE}.", LEAVE, lambda new: new, "passage"),
        (f"Staff have {LEAVE}.", LEAVE, lambda new: LEAVE, "weights"),
    ],
)
def test_old_and_new_value_are_judged_alike(
    text: str, accepted: str, says: Callable[[str], str], outcome: str, tmp_path: Path
) -> None:
    """`says` gets what stands in the altered passage in place of the accepted answer."""
    head, tail = text.split(accepted)

    def answer(prompt: Prompt) -> str:
        stands = "\n".join(prompt.passages).partition(head)[2].partition(tail)[0]
        return accepted if stands in ("", accepted) else says(stands)

    asked = [Question("q", "What is the rule?", (accepted,))]
    result = result_of("counterfactual", base_with(tmp_path, {"rules.txt": text}), answer, asked)
    assert counted(result.shares) == {outcome: 1}


@pytest.mark.parametrize(
    ("text", "answers", "is_altered"),
    [
        ("You have 28 days off.", ("28 days", "28"), True),
        ("You have 28 days off; 28 people do.", ("28 days", "28"), True),  # then both are another number
        ("You have 28 days off until 28 March 2026.", ("28 days", "28"), True),
        ("You have 28 days off (twenty-eight days in all).", ("28 days", "twenty-eight days"), False),
        ("It opens at 14:00, which is 2 pm.", ("14:00", "2 pm"), False),
        ("It costs $1,500, so 1500 dollars.", ("$1,500",), False),
        ("You have some days off.", ("28 days",), False),
        ("They ask for 30 litres.", ("30 litres",), False),  # as the question does
        ("It is green.", ("green",), False),
    ],
)
def test_a_passage_that_would_still_hold_the_answer_is_not_altered(
    text: str, answers: tuple[str, ...], is_altered: bool
) -> None:
    passage = Passage("p", "d", "", 0, len(text), None, (), text)
    assert bool(altered(passage, Question("q", "How many days, or 30 litres?", answers), [])) is is_altered


def test_questions_that_cannot_be_probed_are_left_out(base: KnowledgeBase) -> None:
    pier = Question("pier", "What does the ferry to Corrie leave from?", ("pier",))
    result = result_of("counterfactual", base, reads, [NOWHERE, pier])
    assert result.left_out == {"no passage holds the answer": 1, "no value that can be altered": 1}
    assert result.shares["passage"].share is None
    assert "could be altered" in in_words("counterfactual", result)
    assert result_of("counterfactual", base, ignores).left_out == {"not read right as it is": ASKED}
    far = replace(bench_of(base, reads), options=Options(min_similarity=2.0))
    result = run([NOWHERE, QUESTIONS[0]], far).results["abstention"]
    assert result.left_out == {"no other passage is near the question": 1, "no passage holds the answer": 1}
    assert "could be withheld" in in_words("abstention", result)


# --- abstention -------------------------------------------------------------------------------------------------------


def first_time(prompt: Prompt) -> str:
    found = re.search(r"leaves at ([\d:]+)", "\n".join(prompt.passages))
    return found[1] if found else SILENT


@pytest.mark.parametrize(
    ("answer", "outcomes", "cited", "meaning"),
    [
        (reads, {"abstained": ASKED}, 0, "the model abstains in 4/4"),
        (remembers, {"recalled": ASKED}, 0, ""),
        (ignores, {"invented": ASKED}, 0, "do not rely"),
        (first_time, {"invented": ASKED}, ASKED, "even carry a citation"),
    ],
)
def test_without_the_passage_a_model_abstains_invents_or_remembers(
    base: KnowledgeBase, answer: Answers, outcomes: dict[str, int], cited: int, meaning: str
) -> None:
    engine = TableEngine(answer)
    result = result_of("abstention", base, FrozenModel(engine))
    assert (counted(result.shares), result.cited.count) == (outcomes, cited)
    assert meaning in in_words("abstention", result)
    mine = [prompt.passages for prompt in engine.asked if harbour_in(prompt) == TWICE and len(prompt.passages) > 1]
    assert mine  # every passage that holds the answer is withheld
    assert not any(TIMES[TWICE] in passage for passages in mine for passage in passages)


# --- both ------------------------------------------------------------------------------------------------------


def test_the_knowledge_base_is_as_before_and_there_is_a_sentence_for_no_data(base: KnowledgeBase) -> None:
    before = {path: path.read_bytes() for path in base.folder.rglob("*") if path.is_file()}
    assert list(run(QUESTIONS, bench_of(base, reads)).results) == list(PROBES)
    assert {path: path.read_bytes() for path in base.folder.rglob("*") if path.is_file()} == before
    probed = run([], bench_of(base, reads))
    assert all(in_words(*each) for each in probed.results.items())
    assert "NaN" not in json.dumps(probed.to_json())


@pytest.mark.parametrize("good", range(3))
def test_a_failure_is_counted_apart_at_whichever_request(base: KnowledgeBase, good: int) -> None:
    calls: list[Prompt] = []

    def later(prompt: Prompt) -> str:
        calls.append(prompt)
        return reads(prompt) if len(calls) <= good else FAILS

    first, second = run(QUESTIONS[1:2], bench_of(base, later)).results.values()
    assert first.left_out == ({"the model failed": 1} if good < 2 else {})
    assert second.left_out == {"the model failed": 1}
    assert second.trials[0].failure == "The engine fell over."


# --- kept in a file ---------------------------------------------------------------------------------------------------


def test_a_stopped_run_resumes_and_asks_nothing_again(tmp_path: Path, base: KnowledgeBase) -> None:
    def interrupted(prompt: Prompt) -> str:
        if harbour_in(prompt) == HARBOURS[2]:
            raise KeyboardInterrupt
        return reads(prompt)

    engine, path = TableEngine(reads), tmp_path / "probes.jsonl"
    bench = bench_of(base, FrozenModel(engine))
    whole = run(QUESTIONS, bench).to_json()
    with pytest.raises(KeyboardInterrupt):
        run(QUESTIONS, bench_of(base, interrupted), path)
    path.write_bytes(path.read_bytes() + b'{"question":"q-Cor')  # what a killed process leaves
    for asked in (set(HARBOURS[2:ASKED]), set()):
        engine.asked = []
        assert run(QUESTIONS, bench, path).to_json() == whole
        assert {harbour_in(prompt) for prompt in engine.asked} == asked
