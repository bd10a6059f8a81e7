"""Every outcome of every probe, forced by engines that read, remember, ignore and invent; and runs that go on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbook.answer import Options
from openbook.diagnosis.probes import (
    AMONG,
    DISTRACTORS,
    PROBES,
    Abstention,
    Counterfactual,
    Noise,
    ProbeRun,
    altered,
    checked_names,
    own_rank,
    paired,
    run_probes,
    tells,
    to_json,
)
from openbook.diagnosis.questions import Question
from openbook.diagnosis.report import write_probes_page
from openbook.diagnosis.runner import Bench
from openbook.errors import ConfigError, EngineError, StorageError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.prompts import reading_prompt
from openbook.records import Decoding, Passage, Prompt, ReaderFormat
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, question_in

HARBOURS = "Arvik Brekkan Corrie Dunvar Eskmoor Fyrholm Grimsund Hessay Islund Jorvane".split()
TIMES = {harbour: f"{6 + n:02d}:{10 + n}" for n, harbour in enumerate(HARBOURS)}
QUESTIONS = [Question(f"q-{h}", f"When does the ferry to {h} leave?", (TIMES[h],)) for h in HARBOURS]
NOWHERE = Question("nowhere", "When does the ferry to Zandvoort leave?", kind="unanswerable")
TWICE = "Arvik"  # two documents tell its time
READER = ReaderFormat("Answer from the passage.", SILENT)
Answers = Callable[[Prompt], str]

PROMPT_TOKENS = EchoEngine().count_prompt_tokens(reading_prompt("", []))  # without passages and question


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Read only: no test of this module changes it."""
    folder = tmp_path_factory.mktemp("base")
    docs = folder / "docs"
    docs.mkdir()
    for number, (harbour, leaves) in enumerate(TIMES.items()):
        (docs / f"{harbour}.txt").write_text(f"The ferry to {harbour} leaves at {leaves} from pier {number}.")
    (docs / "again.txt").write_text(f"Travellers note that the ferry to {TWICE} leaves at {TIMES[TWICE]} on time.")
    embedder = HashEmbedder()
    made = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    add(made, [docs], embedder)
    return made


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


def model_of(answer: Answers) -> FrozenModel:
    return FrozenModel(TableEngine(answer))


def bench_of(base: KnowledgeBase, answer: Answers | FrozenModel, **options: Any) -> Bench:
    model = answer if isinstance(answer, FrozenModel) else model_of(answer)
    return Bench(model, base, HashEmbedder(), options=Options(min_similarity=-1.0, **options))


def run(base: KnowledgeBase, answer: Answers | FrozenModel, *names: str, **options: Any) -> ProbeRun:
    return run_probes(QUESTIONS, bench_of(base, answer, **options), "digest", names or tuple(PROBES))


def counted(result: Any, field: str) -> dict[str, int]:
    return {key: share.count for key, share in getattr(result, field).items()}


# --- counterfactual ---------------------------------------------------------------------------------------------------


def counterfactual(base: KnowledgeBase, answer: Answers) -> Counterfactual:
    result = run(base, answer, "counterfactual").results["counterfactual"]
    assert isinstance(result, Counterfactual)
    return result


def test_a_model_that_reads_follows_the_altered_passage(base: KnowledgeBase) -> None:
    result = counterfactual(base, reads)
    assert counted(result, "followed") == {"passage": 10, "weights": 0, "neither": 0, "abstained": 0}
    assert result.followed["passage"].low == pytest.approx(0.722, abs=0.001)
    assert all(t.kind == "time" and t.new != t.old == t.before and t.after == t.new for t in result.trials)
    assert "No answer came from memory" in result.meaning()


def test_a_model_that_answers_from_memory_follows_its_weights(base: KnowledgeBase) -> None:
    result = counterfactual(base, remembers)
    assert counted(result, "followed") == {"passage": 0, "weights": 10, "neither": 0, "abstained": 0}
    assert "memory that answers" in result.meaning()


def test_an_answer_that_is_the_closed_book_one_follows_the_weights(base: KnowledgeBase) -> None:
    def doubts(prompt: Prompt) -> str:
        leaves = told(prompt)
        return leaves if leaves == TIMES[harbour_in(prompt)] else "Shortly after breakfast"

    assert counted(counterfactual(base, doubts), "followed")["weights"] == 10


def test_other_answers_follow_neither(base: KnowledgeBase) -> None:
    def muddles(prompt: Prompt) -> str:
        leaves = told(prompt)
        return leaves if leaves == TIMES[harbour_in(prompt)] or not leaves else "Shortly after breakfast"

    def silent(prompt: Prompt) -> str:
        leaves = told(prompt)
        return leaves if leaves == TIMES[harbour_in(prompt)] else SILENT

    def both(prompt: Prompt) -> str:
        return f"{told(prompt)} or {TIMES[harbour_in(prompt)]}"

    assert counted(counterfactual(base, muddles), "followed")["neither"] == 10
    assert counted(counterfactual(base, silent), "followed")["abstained"] == 10
    assert counted(counterfactual(base, both), "followed")["neither"] == 10
    some = counterfactual(base, lambda p: remembers(p) if harbour_in(p) < "G" else reads(p))
    assert counted(some, "followed")["weights"] == 6
    assert "memory that answers" in some.meaning()
    few = counterfactual(base, lambda p: remembers(p) if harbour_in(p) < "D" else reads(p))
    assert "not sure to change" in few.meaning()


LEAVE = "28 days of paid leave per calendar year"


@pytest.mark.parametrize(
    ("text", "accepted", "says", "outcome"),
    [
        ("Staff have 28 days of leave.", "28 days", lambda new: re.findall(r"\d+", new)[0], "passage"),
        ("The tank holds 1,500 litres.", "1,500 litres", lambda new: re.sub("[^0-9]", "", new), "passage"),
        ("The pump starts at 14:00.", "14:00", lambda new: f"{int(new[:2]) - 12}:{new[3:5]} pm", "passage"),
        ("The pump starts at 14:00.", "14:00", lambda new: "2 pm", "weights"),
        (f"Staff have {LEAVE}.", LEAVE, lambda new: new, "passage"),
        (f"Staff have {LEAVE}.", LEAVE, lambda new: LEAVE, "weights"),
    ],
)
def test_old_and_new_value_are_judged_alike(
    text: str, accepted: str, says: Callable[[str], str], outcome: str, tmp_path: Path
) -> None:
    """`says` gets what stands in the altered passage in place of the accepted answer."""
    before, after = text.split(accepted)

    def answer(prompt: Prompt) -> str:
        stands = "\n".join(prompt.passages).partition(before)[2].partition(after)[0]
        return accepted if stands in ("", accepted) else says(stands)

    (tmp_path / "rules.txt").write_text(text)
    embedder = HashEmbedder()
    made = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(made, [tmp_path / "rules.txt"], embedder)
    found = run_probes(
        [Question("q", "What is the rule?", (accepted,))], bench_of(made, answer), "d", ["counterfactual"]
    )
    result = found.results["counterfactual"]
    assert isinstance(result, Counterfactual)
    assert counted(result, "followed") == {"passage": 0, "weights": 0, "neither": 0, "abstained": 0, outcome: 1}


def test_what_says_the_value_in_another_way_tells_it() -> None:
    for text, accepted in (
        ("Staff have twenty-eight days.", "28 days"),
        ("Due 2024-04-30.", "30 April 2024"),
        ("It opens at 2 pm.", "14:00"),
        ("It costs 1500 euros.", "€1,500"),
    ):
        assert tells(Passage("p", "d", "", 0, len(text), None, (), text), [accepted])
        assert not tells(Passage("p", "d", "", 0, 9, None, (), "It is so."), [accepted])
    both = "Staff have 28 days of leave (twenty-eight days in all)."
    passage = Passage("p", "d", "", 0, len(both), None, (), both)
    assert altered(passage, Question("q", "How long?", ("28 days",)), []) is None


def test_what_cannot_be_altered_or_is_not_read_right_is_left_out(base: KnowledgeBase) -> None:
    pier = Question("pier", "What does the ferry to Corrie leave from?", ("pier",))
    result = run_probes([NOWHERE, pier], bench_of(base, reads), "", ["counterfactual"]).results["counterfactual"]
    assert isinstance(result, Counterfactual)
    assert result.left_out == {"no passage holds the answer": 1, "no value that can be altered": 1}
    assert result.followed["passage"].share is None
    assert "could be altered" in result.meaning()
    assert counterfactual(base, ignores).left_out == {"not read right as it is": 10}


# --- abstention -------------------------------------------------------------------------------------------------------


def abstention(base: KnowledgeBase, answer: Answers) -> Abstention:
    result = run(base, answer, "abstention").results["abstention"]
    assert isinstance(result, Abstention)
    return result


def test_without_the_passage_a_model_abstains_invents_or_remembers(base: KnowledgeBase) -> None:
    assert counted(abstention(base, reads), "outcomes") == {"abstained": 10, "invented": 0, "recalled": 0}
    assert counted(abstention(base, remembers), "outcomes") == {"abstained": 0, "invented": 0, "recalled": 10}
    invents = abstention(base, ignores)
    assert counted(invents, "outcomes") == {"abstained": 0, "invented": 10, "recalled": 0}
    assert invents.cited.count == 0
    assert "do not rely" in invents.meaning()


def test_an_invented_answer_can_carry_a_citation(base: KnowledgeBase) -> None:
    def first_time(prompt: Prompt) -> str:
        found = re.search(r"leaves at ([\d:]+)", "\n".join(prompt.passages))
        return found[1] if found else SILENT

    result = abstention(base, first_time)
    assert (result.outcomes["invented"].count, result.cited.count) == (10, 10)
    assert "even carry a citation" in result.meaning()


def test_every_passage_that_holds_the_answer_is_withheld(base: KnowledgeBase) -> None:
    engine = TableEngine(reads)
    run_probes(QUESTIONS[:1], bench_of(base, FrozenModel(engine)), "", ["abstention"])
    assert engine.asked
    assert not any(TIMES[TWICE] in passage for prompt in engine.asked for passage in prompt.passages)


def test_nothing_to_withhold_or_nothing_else_to_read_is_left_out(base: KnowledgeBase) -> None:
    far = Bench(model_of(reads), base, HashEmbedder(), options=Options(min_similarity=2.0))
    result = run_probes([NOWHERE, QUESTIONS[0]], far, "", ["abstention"]).results["abstention"]
    assert isinstance(result, Abstention)
    assert result.left_out == {"no other passage is near the question": 1, "no passage holds the answer": 1}
    assert "could be withheld" in result.meaning()


# --- position and noise -----------------------------------------------------------------------------------------------


def cells(result: Noise) -> dict[tuple[str, int, int], tuple[int, int]]:
    return {(c.strategy, c.rank, c.distractors): (c.right.count, c.right.of) for c in result.cells}


def noise(base: KnowledgeBase, answer: Answers | FrozenModel, **options: Any) -> Noise:
    result = run(base, answer, "noise", **options).results["noise"]
    assert isinstance(result, Noise)
    return result


def test_a_model_that_reads_everything_does_not_mind_others(base: KnowledgeBase) -> None:
    result = noise(base, reads)
    wanted = [("together", 0, n) for n in (0, 1, 3, 7)] + [("together", rank, 3) for rank in (1, 2, 3, 4)]
    assert cells(result) == dict.fromkeys(wanted, (10, 10))
    assert "7 distractors: -0 points [" not in result.meaning()
    assert "7 distractors: +0 points [" in result.meaning()
    assert "which may be chance" in result.meaning()
    assert [name for name, _ in result.rows()][:2] == ["together, alone", "together, among 1 distractor"]


def test_a_model_that_reads_the_first_passage_alone_pays_for_position(base: KnowledgeBase) -> None:
    result = noise(base, lambda p: told(p, p.passages[:1]) or SILENT)
    found = cells(result)
    assert [found["together", rank, 3] for rank in (1, 2, 3, 4)] == [(10, 10), (0, 10), (0, 10), (0, 10)]
    position = result.position_costs["together"]
    assert position is not None
    assert (position.mean, position.n) == (1.0, 10)
    assert position.low > 0.5
    assert "rank 4 instead of 1: -100 points [" in result.meaning()
    abstained = {(c.rank, c.distractors): c.abstained.count for c in result.cells}
    assert abstained[4, 3] == 10


def test_a_model_that_many_passages_confuse_pays_for_noise(base: KnowledgeBase) -> None:
    result = noise(base, lambda p: reads(p) if len(p.passages) < 4 else "At noon.")
    found = cells(result)
    assert [found["together", 0, n][0] for n in (0, 1, 3, 7)] == [10, 10, 0, 0]
    assert "7 distractors: -100 points [" in result.meaning()
    assert "Fewer passages" in result.meaning()
    helped = noise(base, lambda p: reads(p) if len(p.passages) > 4 else SILENT)
    assert "7 distractors: +100 points [" in helped.meaning()
    assert "Fewer passages" not in helped.meaning()


def test_a_trained_reader_is_measured_in_both_strategies(base: KnowledgeBase) -> None:
    result = noise(base, echo_model(reader=READER, context_tokens=100_000))
    assert {cell.strategy for cell in result.cells} == {"each", "together"}
    assert set(result.noise_costs) == {"each", "together"}
    assert "Read each," in result.meaning()


def test_what_does_not_fit_into_the_context_is_not_measured(base: KnowledgeBase) -> None:
    small = FrozenModel(TableEngine(reads, context_tokens=PROMPT_TOKENS + 56))
    found = cells(noise(base, small, decoding=Decoding(max_tokens=20)))
    assert ("together", 0, 0) in found
    assert ("together", 0, 7) not in found
    none = noise(base, FrozenModel(TableEngine(reads, context_tokens=30)), decoding=Decoding(max_tokens=20))
    assert none.cells == ()
    assert none.left_out == {"the passage does not fit into the context": 10}
    assert none.meaning() == "No question has enough passages around it to measure."


def test_distractors_keep_their_order_around_the_passage(base: KnowledgeBase) -> None:
    asked: list[Prompt] = []
    run(base, lambda prompt: asked.append(prompt) or reads(prompt), "noise")  # type: ignore[func-returns-value]
    mine = [prompt for prompt in asked if "to Eskmoor" in question_in(prompt)]
    four = [prompt.passages for prompt in mine if len(prompt.passages) == 4]
    gold = [[f"to Eskmoor leaves at {TIMES['Eskmoor']}" in passage for passage in each].index(True) for each in four]
    assert gold == [0, 1, 2, 3]
    assert (
        len(
            {
                tuple(p.partition("]")[2] for n, p in enumerate(each) if n != at)
                for each, at in zip(four, gold, strict=True)
            }
        )
        == 1
    )


def test_each_rank_comes_as_often() -> None:
    ranks = [own_rank(f"q{n}", 3) for n in range(4000)]
    assert all(900 < ranks.count(rank) < 1100 for rank in (1, 2, 3, 4))
    assert AMONG in DISTRACTORS


def test_a_difference_has_an_interval_even_where_nothing_differs() -> None:
    none, some, turned = paired(0, 0, 50), paired(9, 1, 50), paired(1, 9, 50)
    assert none.low < 0.0 == none.mean < none.high < 0.1
    assert 0.0 < some.low < some.mean == 0.16 < some.high < 0.3
    assert (turned.mean, turned.low, turned.high) == (-some.mean, -some.high, -some.low)


# --- all of them ------------------------------------------------------------------------------------------------------


def test_the_knowledge_base_and_the_model_are_as_before(base: KnowledgeBase) -> None:
    files = {path: path.read_bytes() for path in sorted(base.folder.rglob("*")) if path.is_file()}
    before = base.version
    probed = run(base, reads)
    assert list(probed.results) == list(PROBES)
    assert base.version == before
    assert {path: path.read_bytes() for path in sorted(base.folder.rglob("*")) if path.is_file()} == files


def test_a_run_that_is_stopped_says_what_it_has(base: KnowledgeBase) -> None:
    engine = TableEngine(reads)
    bench = bench_of(base, FrozenModel(engine))
    probed = run_probes(QUESTIONS, bench, cancelled=lambda: len(engine.asked) > 30)
    assert probed.stopped
    assert 0 < probed.questions < 10
    first = run_probes(QUESTIONS, bench, cancelled=lambda: True)
    assert (first.stopped, first.questions, first.results) == (True, 0, {})


def test_failures_are_counted_apart(base: KnowledgeBase) -> None:
    probed = run(base, lambda p: FAILS if "Corrie" in p.question else reads(p))
    found = to_json(probed)["probes"]
    assert [found[name]["left_out"] for name in PROBES] == [{"the model failed": 1}] * 3
    assert found["counterfactual"]["followed"]["passage"]["of"] == 9


@pytest.mark.parametrize("name", PROBES)
def test_a_failure_in_the_middle_of_a_question_is_one(base: KnowledgeBase, name: str) -> None:
    for good in range(1, 3):
        calls: list[Prompt] = []

        def later(prompt: Prompt, calls: list[Prompt] = calls, good: int = good) -> str:
            calls.append(prompt)
            return reads(prompt) if len(calls) <= good else FAILS

        result: Any = run_probes(QUESTIONS[1:2], bench_of(base, later), "", [name]).results[name]
        if len(calls) > good:
            assert result.left_out == {"the model failed": 1}
            assert result.trials[0].failure == "The engine fell over."


def test_there_is_a_sentence_for_no_data(base: KnowledgeBase) -> None:
    probed = run_probes([], bench_of(base, reads))
    assert [bool(result.meaning()) for result in probed.results.values()] == [True] * 3
    assert all(share.share is None for result in probed.results.values() for _, share in result.rows())
    assert "NaN" not in json.dumps(to_json(probed))


def test_unknown_probes_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'abstention'"):
        checked_names(["abstension"])
    assert checked_names(["noise", "abstention", "noise"]) == ("abstention", "noise")


# --- kept in a file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> TableEngine:
    return TableEngine(reads)


@pytest.fixture
def bench(base: KnowledgeBase, engine: TableEngine) -> Bench:
    return bench_of(base, FrozenModel(engine))


def kept_run(path: Path, bench: Bench, stop_after: float = float("inf"), questions: int = 3) -> ProbeRun:
    engine = bench.model.engine
    assert isinstance(engine, TableEngine)
    return run_probes(
        QUESTIONS[:questions], bench, "digest", path=path, cancelled=lambda: len(engine.asked) >= stop_after
    )


def test_a_stopped_run_goes_on_and_gives_what_one_run_gives(tmp_path: Path, bench: Bench, engine: TableEngine) -> None:
    whole = run_probes(QUESTIONS[:3], bench, "digest")
    requests, engine.asked = len(engine.asked), []
    path = tmp_path / "probes.jsonl"
    steps = [kept_run(path, bench, stop_after=requests // 8)]
    while steps[-1].stopped and len(steps) < 9:
        steps.append(kept_run(path, bench, stop_after=len(engine.asked) + len(steps) * requests // 8))
    assert len(steps) > 2
    assert to_json(steps[-1]) == to_json(whole)
    engine.asked = []
    assert to_json(kept_run(path, bench)) == to_json(whole)
    assert engine.asked == []


def test_more_questions_later_ask_only_for_them(tmp_path: Path, bench: Bench, engine: TableEngine) -> None:
    path = tmp_path / "probes.jsonl"
    assert kept_run(path, bench, questions=1).questions == 1
    lines = path.read_bytes()
    path.write_bytes(lines + b'{"question":"q-Bre')  # what a killed process leaves
    engine.asked = []
    assert kept_run(path, bench, questions=3).questions == 3
    assert path.read_bytes().startswith(lines)
    assert engine.asked != []
    assert not any("Arvik" in prompt.question for prompt in engine.asked)


def test_a_model_that_only_fails_is_asked_again(tmp_path: Path, base: KnowledgeBase) -> None:
    many = [replace(QUESTIONS[1], id=f"q{n}") for n in range(40)]
    path = tmp_path / "probes.jsonl"
    with pytest.raises(EngineError, match="16 questions in a row"):
        run_probes(many, bench_of(base, lambda prompt: FAILS), "digest", ["abstention"], path=path)
    bench = bench_of(base, reads)
    again = run_probes(many, bench, "digest", ["abstention"], path=path)
    assert to_json(again) == to_json(run_probes(many, bench, "digest", ["abstention"]))


def test_a_failure_between_answers_is_kept_and_asked_again(
    tmp_path: Path, bench: Bench, engine: TableEngine, base: KnowledgeBase
) -> None:
    whole = to_json(run_probes(QUESTIONS[:3], bench, "digest"))
    failing = TableEngine(lambda prompt: FAILS if "Brekkan" in prompt.question else reads(prompt))
    down = bench_of(base, FrozenModel(failing))
    path = tmp_path / "probes.jsonl"
    first = to_json(kept_run(path, down))
    assert first != whole
    lines = path.read_bytes().splitlines()
    failing.asked = []
    assert to_json(kept_run(path, down)) == first
    assert failing.asked != []
    assert all("Brekkan" in prompt.question for prompt in failing.asked)
    engine.asked = []
    assert to_json(kept_run(path, bench)) == whole
    assert all("Brekkan" in prompt.question for prompt in engine.asked)
    now = path.read_bytes().splitlines()
    assert [old == new for old, new in zip(lines, now, strict=True)].count(False) == 1


def test_files_of_the_version_with_five_probes_are_gone_on_with(
    tmp_path: Path, bench: Bench, engine: TableEngine
) -> None:
    path = tmp_path / "probes.jsonl"
    whole = to_json(kept_run(path, bench))
    header, *lines = path.read_text().splitlines()
    old = [json.loads(line) for line in lines]
    for each in old:
        each["trials"]["causality"] = {"id": each["question"], "outcome": "changed"}
    path.write_text("\n".join([header, *map(json.dumps, old), ""]))
    engine.asked = []
    assert to_json(kept_run(path, bench)) == whole
    assert engine.asked == []


# --- as a page --------------------------------------------------------------------------------------------------------


def test_the_page_escapes_and_reaches_for_nothing(base: KnowledgeBase, tmp_path: Path) -> None:
    probed = run(base, lambda p: f"<script>alert(1)</script>\x1b[31m {TIMES.get(harbour_in(p), 'none')}")
    write_probes_page(tmp_path / "probes.html", "Probes <b>", replace(probed, stopped=True))
    page = (tmp_path / "probes.html").read_text()
    assert "stopped before all were probed" in page
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "Probes &lt;b&gt;" in page
    assert not re.search(r"https?://|src=|href=|url\(", page)
    for title in ("Counterfactual", "Abstention", "Position and noise"):
        assert f"<h3>{title}" in page
    with pytest.raises(StorageError):
        write_probes_page(tmp_path / "probes.html" / "page.html", "", probed)
