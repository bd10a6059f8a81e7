"""Every outcome of every probe, forced by engines that read, remember, ignore and invent; and runs that go on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from openbook.diagnosis.bench import Bench
from openbook.diagnosis.perturb import altered
from openbook.diagnosis.probes import (
    DISTRACTORS,
    PROBES,
    Abstention,
    Counterfactual,
    Noise,
    ProbeRun,
    own_rank,
    to_json,
)
from openbook.diagnosis.questions import Question
from openbook.diagnosis.report import Extras
from openbook.diagnosis.runner import run_probes
from openbook.errors import EngineError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.records import Decoding, Passage, Prompt, ReaderFormat
from openbook.retrieval import Options
from openbook.testing import echo_model
from tests.conftest import base_with
from tests.diagnosis.table_engine import FAILS, PROMPT_TOKENS, SILENT, TableEngine, bench_with, page_with, question_in

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
_Result = TypeVar("_Result", Counterfactual, Abstention, Noise)


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


def bench_of(base: KnowledgeBase, answer: Answers | FrozenModel, **options: Any) -> Bench:
    return bench_with(answer if isinstance(answer, FrozenModel) else FrozenModel(TableEngine(answer)), base, **options)


def run(base: KnowledgeBase, answer: Answers, *names: str) -> ProbeRun:
    return run_probes(QUESTIONS, bench_of(base, answer), "digest", names or PROBES)


def result_of(
    kind: type[_Result],
    base: KnowledgeBase,
    answer: Answers | FrozenModel,
    asked: Sequence[Question] = QUESTIONS,
    **options: Any,
) -> _Result:
    """Of one probe."""
    name = kind.__name__.lower()
    result = run_probes(asked, bench_of(base, answer, **options), "digest", [name]).results[name]
    assert isinstance(result, kind)
    return result


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
    result = result_of(Counterfactual, base, answer)
    assert counted(result.followed) == followed
    assert meaning in result.meaning()
    assert all(trial.kind == "time" and trial.new != trial.old for trial in result.trials)


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
    result = result_of(Counterfactual, base_with(tmp_path, {"rules.txt": text}), answer, asked)
    assert counted(result.followed) == {outcome: 1}


def passage_of(text: str) -> Passage:
    return Passage("p", "d", "", 0, len(text), None, (), text)


def test_a_passage_that_would_still_hold_the_answer_is_not_altered() -> None:
    def copy(text: str, *answers: str, question: str = "How many days?") -> object:
        return altered(passage_of(text), Question("q", question, answers), [])

    assert copy("You have 28 days off.", "28 days", "28")
    assert copy("You have 28 days off; 28 people do.", "28 days", "28")  # then both are another number
    assert copy("You have 28 days off until 28 March 2026.", "28 days", "28") is None
    assert copy("You have 28 days off (twenty-eight days in all).", "28 days", "twenty-eight days") is None
    assert copy("It opens at 14:00, which is 2 pm.", "14:00", "2 pm") is None
    assert copy("It costs $1,500, so 1500 dollars.", "$1,500") is None
    assert copy("You have some days off.", "28 days") is None
    assert copy("You have 28 days off.", "28 days", question="Are there 28 days or 14?") is None
    assert copy("It is green.", "green") is None


def test_what_cannot_be_altered_or_is_not_read_right_is_left_out(base: KnowledgeBase) -> None:
    pier = Question("pier", "What does the ferry to Corrie leave from?", ("pier",))
    result = result_of(Counterfactual, base, reads, [NOWHERE, pier])
    assert result.left_out == {"no passage holds the answer": 1, "no value that can be altered": 1}
    assert result.followed["passage"].share is None
    assert "could be altered" in result.meaning()
    assert result_of(Counterfactual, base, ignores).left_out == {"not read right as it is": ASKED}


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
    result = result_of(Abstention, base, FrozenModel(engine))
    assert (counted(result.outcomes), result.cited.count) == (outcomes, cited)
    assert meaning in result.meaning()
    mine = [prompt for prompt in engine.asked if harbour_in(prompt) == TWICE]
    assert mine  # every passage that holds the answer is withheld
    assert not any(TIMES[TWICE] in passage for prompt in mine for passage in prompt.passages)


def test_nothing_to_withhold_or_nothing_else_to_read_is_left_out(base: KnowledgeBase) -> None:
    far = replace(bench_of(base, reads), options=Options(min_similarity=2.0))
    result = run_probes([NOWHERE, QUESTIONS[0]], far, "", ["abstention"]).results["abstention"]
    assert result.left_out == {"no other passage is near the question": 1, "no passage holds the answer": 1}
    assert "could be withheld" in result.meaning()


# --- position and noise -----------------------------------------------------------------------------------------------


def cells(result: Noise) -> dict[tuple[int, int], int]:
    """How many were right, by rank and number of distractors."""
    assert all(cell.right.of == ASKED for cell in result.cells)
    return {(cell.rank, cell.distractors): cell.right.count for cell in result.cells}


RANKS = [(rank, 3) for rank in (1, 2, 3, 4)]


def test_a_model_that_reads_everything_does_not_mind_others(base: KnowledgeBase) -> None:
    result = result_of(Noise, base, reads)
    assert cells(result) == dict.fromkeys([*((0, n) for n in DISTRACTORS), *RANKS], ASKED)
    assert "7 distractors: +0 points [" in result.meaning()
    assert "which may be chance" in result.meaning()
    assert [name for name, _ in result.rows()][:2] == ["checked, alone", "checked, among 1 distractor"]


def test_a_model_that_reads_the_first_passage_alone_pays_for_position(base: KnowledgeBase) -> None:
    result = result_of(Noise, base, lambda p: told(p, p.passages[:1]) or SILENT)
    assert [cells(result)[way] for way in RANKS] == [ASKED, 0, 0, 0]
    position = result.position_costs["checked"]
    assert position is not None
    assert (position.mean, position.n) == (1.0, ASKED)
    assert position.low > 0.0
    assert "rank 4 instead of 1: -100 points [" in result.meaning()
    assert [cell.abstained.count for cell in result.cells if (cell.rank, cell.distractors) == (4, 3)] == [ASKED]


def test_a_model_that_many_passages_confuse_pays_for_noise(base: KnowledgeBase) -> None:
    result = result_of(Noise, base, lambda p: reads(p) if len(p.passages) < 4 else "At noon.")
    assert [cells(result)[0, n] for n in DISTRACTORS] == [ASKED, ASKED, 0, 0]
    assert "7 distractors: -100 points [" in result.meaning()
    assert "Fewer passages" in result.meaning()
    helped = result_of(Noise, base, lambda p: reads(p) if len(p.passages) > 4 else SILENT)
    assert "7 distractors: +100 points [" in helped.meaning()
    assert "Fewer passages" not in helped.meaning()


def test_a_trained_reader_is_measured_in_every_strategy_that_it_can_read_by(base: KnowledgeBase) -> None:
    reader = ReaderFormat("Answer from the passage.", SILENT)
    result = result_of(Noise, base, echo_model(reader=reader, context_tokens=100_000))
    assert {cell.strategy for cell in result.cells} == set(result.noise_costs) == {"each", "together"}
    assert "With the strategy each, 7 distractors" in result.meaning()
    parallel = result_of(Noise, base, echo_model(reader=replace(reader, passages=4), context_tokens=100_000))
    ranks = {(cell.strategy, cell.distractors) for cell in parallel.cells}
    assert {n for strategy, n in ranks if strategy == "parallel"} == {0, 1, 3}  # it reads four passages at most


def test_what_does_not_fit_into_the_context_is_not_measured(base: KnowledgeBase) -> None:
    small = FrozenModel(TableEngine(reads, context_tokens=PROMPT_TOKENS + 56))
    found = cells(result_of(Noise, base, small, decoding=Decoding(max_tokens=20)))
    assert (0, 0) in found
    assert (0, 7) not in found
    none = result_of(Noise, base, FrozenModel(TableEngine(reads, context_tokens=30)), decoding=Decoding(max_tokens=20))
    assert none.cells == ()
    assert none.left_out == {"the passage does not fit into the context": ASKED}
    assert none.meaning() == "No question has enough passages around it to measure."


def test_a_server_s_model_is_never_given_fewer_passages_than_are_counted(base: KnowledgeBase) -> None:
    """Its prompt is longer, since it is asked to name its excerpts."""
    roomy = TableEngine(reads)
    result_of(Noise, base, FrozenModel(roomy), decoding=Decoding(max_tokens=20))
    longest = max(map(roomy.count_prompt_tokens, roomy.asked))
    engine = TableEngine(reads, context_tokens=longest + 20)
    engine.identity = replace(engine.identity, evidence="claimed")
    result_of(Noise, base, FrozenModel(engine), decoding=Decoding(max_tokens=20))
    assert {len(prompt.passages) for prompt in engine.asked} == {1, 2, 4}


def test_distractors_keep_their_order_around_the_passage(base: KnowledgeBase) -> None:
    engine = TableEngine(reads)
    result_of(Noise, base, FrozenModel(engine))
    four = [p.passages for p in engine.asked if harbour_in(p) == "Corrie" and len(p.passages) == 4]
    gold = [[f"to Corrie leaves at {TIMES['Corrie']}" in passage for passage in each].index(True) for each in four]
    assert gold == [0, 1, 2, 3]
    others = [[p.partition("]")[2] for n, p in enumerate(each) if n != at] for each, at in zip(four, gold, strict=True)]
    assert others == [others[0]] * 4


# --- all of them ------------------------------------------------------------------------------------------------------


def test_the_knowledge_base_is_as_before_and_there_is_a_sentence_for_no_data(base: KnowledgeBase) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in base.folder.rglob("*") if path.is_file()}

    before = files()
    assert list(run(base, reads).results) == list(PROBES)
    assert files() == before
    assert list(run(base, reads, "noise", "abstention", "noise").results) == ["abstention", "noise"]
    probed = run_probes([], bench_of(base, reads))
    assert [bool(result.meaning()) for result in probed.results.values()] == [True] * 3
    assert all(share.share is None for result in probed.results.values() for _, share in result.rows())
    assert "NaN" not in json.dumps(to_json(probed))


def test_each_rank_comes_as_often() -> None:
    ranks = [own_rank(f"q{n}", 3) for n in range(4000)]
    assert all(900 < ranks.count(rank) < 1100 for rank in (1, 2, 3, 4))


def test_a_run_that_is_stopped_says_what_it_has(base: KnowledgeBase) -> None:
    engine = TableEngine(reads)
    bench = bench_of(base, FrozenModel(engine))
    probed = run_probes(QUESTIONS, bench, cancelled=lambda: len(engine.asked) > 15)
    assert probed.stopped
    assert 0 < probed.questions < ASKED
    first = run_probes(QUESTIONS, bench, cancelled=lambda: True)
    assert (first.stopped, first.questions, first.results) == (True, 0, {})


@pytest.mark.parametrize("good", range(3))
@pytest.mark.parametrize("name", PROBES)
def test_a_failure_is_counted_apart_at_whichever_request(base: KnowledgeBase, name: str, good: int) -> None:
    calls: list[Prompt] = []

    def later(prompt: Prompt) -> str:
        calls.append(prompt)
        return reads(prompt) if len(calls) <= good else FAILS

    result: Any = run_probes(QUESTIONS[1:2], bench_of(base, later), "", [name]).results[name]
    if len(calls) > good:
        assert result.left_out == {"the model failed": 1}
        assert result.trials[0].failure == "The engine fell over."


# --- kept in a file ---------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_and_asks_nothing_again(tmp_path: Path, base: KnowledgeBase) -> None:
    engine, path = TableEngine(reads), tmp_path / "probes.jsonl"
    bench = bench_of(base, FrozenModel(engine))
    whole = to_json(run_probes(QUESTIONS, bench, "digest"))
    requests, engine.asked = len(engine.asked), []
    first = run_probes(QUESTIONS, bench, "digest", path=path, cancelled=lambda: len(engine.asked) > requests // 2)
    assert (first.stopped, first.questions) == (True, 2)
    path.write_bytes(path.read_bytes() + b'{"question":"q-Cor')  # what a killed process leaves
    engine.asked = []
    assert to_json(run_probes(QUESTIONS, bench, "digest", path=path)) == whole
    assert {harbour_in(prompt) for prompt in engine.asked} == set(HARBOURS[2:ASKED])
    header, *lines = path.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    for each in old:  # the first version had five probes
        each["trials"]["causality"] = {"id": each["question"], "outcome": "changed"}
    path.write_text("\n".join([header, *map(json.dumps, old), ""]))
    engine.asked = []
    assert to_json(run_probes(QUESTIONS, bench, "digest", path=path)) == whole
    assert engine.asked == []


def test_a_model_that_only_fails_is_asked_again(tmp_path: Path, base: KnowledgeBase) -> None:
    many = [replace(QUESTIONS[1], id=f"q{n}") for n in range(20)]
    path = tmp_path / "probes.jsonl"
    with pytest.raises(EngineError, match="16 questions in a row"):
        run_probes(many, bench_of(base, lambda prompt: FAILS), "digest", ["abstention"], path=path)
    again: Any = run_probes(many, bench_of(base, reads), "digest", ["abstention"], path=path).results["abstention"]
    assert counted(again.outcomes) == {"abstained": 20}


def test_a_failure_between_answers_is_kept_and_asked_again(tmp_path: Path, base: KnowledgeBase) -> None:
    path, broken = tmp_path / "probes.jsonl", ["Brekkan"]
    engine = TableEngine(lambda prompt: FAILS if harbour_in(prompt) in broken else reads(prompt))
    bench = bench_of(base, FrozenModel(engine))

    def once() -> ProbeRun:
        engine.asked = []
        return run_probes(QUESTIONS[:3], bench, "digest", path=path)

    assert [result.left_out for result in once().results.values()] == [{"the model failed": 1}] * 3
    assert [result.left_out for result in once().results.values()] == [{"the model failed": 1}] * 3
    assert {harbour_in(prompt) for prompt in engine.asked} == {"Brekkan"}
    broken.clear()
    found = to_json(once())
    assert {harbour_in(prompt) for prompt in engine.asked} == {"Brekkan"}
    assert found == to_json(run_probes(QUESTIONS[:3], bench, "digest"))


# --- as a page --------------------------------------------------------------------------------------------------------


def test_the_page_escapes_and_reaches_for_nothing(tmp_path: Path, base: KnowledgeBase) -> None:
    probed = run(base, lambda p: f"<script>alert(1)</script>\x1b[31m {TIMES.get(harbour_in(p), 'none')}")
    page = page_with(tmp_path, Extras(replace(probed, stopped=True))).partition("<h2>Probes of")[2]
    for there in ("stopped before all were probed", "&lt;script&gt;alert(1)"):
        assert there in page
    assert not re.search(r"<script|\x1b|https?://|src=|href=|url\(", page)
    for title in ("Counterfactual", "Abstention", "Position and noise"):
        assert f"<h3>{title}" in page
