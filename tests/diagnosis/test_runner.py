"""A run over questions: what is asked, what is written down, and that a run goes on where it was killed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from openbook.answer import Options, ask
from openbook.deletion import diagnoses_showing
from openbook.diagnosis import runner
from openbook.diagnosis.probes import ProbeRun
from openbook.diagnosis.questions import Gold, Question
from openbook.diagnosis.report import Extras
from openbook.diagnosis.results import read_outcomes, write_results
from openbook.diagnosis.run_log import (
    Observation,
    Wording,
    open_run_log,
    read_observations,
)
from openbook.diagnosis.runner import Bench, run_questions
from openbook.diagnosis.verdicts import judge_all
from openbook.errors import ConfigError, EngineError, KnowledgeError, StorageError
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope, add, remove
from openbook.prompts import reading_prompt
from openbook.records import Decoding, Prompt, ReaderFormat
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import ROOT
from tests.diagnosis.table_engine import FAILS, SILENT, TableEngine, observation, question_in, table_model

TEXTS = {
    "bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.",
    "library.md": "# Library\n\nThe library holds 2.3 million books. It is closed on Mondays.",
    "ferry.txt": "The ferry to Hessay leaves at 09:40 from pier 3. Dogs may not enter the saloon.",
}
BRIDGE = Question("bridge", "Who opened the bridge?", ("Lila Ortega",))
LIBRARY = Question("library", "When is the library closed?", ("Mondays", "on Monday"))
FERRY = Question(
    "ferry",
    "When does the ferry to Hessay leave?",
    ("09:40",),
    phrasings=("At what time does the ferry sail to Hessay?",),
)
NOWHERE = Question("nowhere", "Who designed the lighthouse of Ostrevik?", kind="unanswerable")
WORLD = Question("world", "What is the capital of France?", ("Paris",), kind="world")
QUESTIONS = [BRIDGE, LIBRARY, FERRY, NOWHERE, WORLD]
READER = ReaderFormat("Answer from the passage.", SILENT)

PROMPT_TOKENS = EchoEngine().count_prompt_tokens(reading_prompt("", []))  # without passages and question


def made(folder: Path, embedder: HashEmbedder) -> KnowledgeBase:
    docs = folder / "docs"
    docs.mkdir()
    for name, text in TEXTS.items():
        (docs / name).write_text(text)
    base = KnowledgeBase.ensure(folder / "kb", embedder.identity)
    add(base, [docs], embedder)
    return base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Read only: no test of this module changes it."""
    return made(tmp_path_factory.mktemp("base"), HashEmbedder())


def echo(asked: str, passages: str) -> str:
    """With passages, the right answer where one of them holds it."""
    answers = {q.question: q.answers[0] for q in QUESTIONS if q.answers} | {FERRY.phrasings[0]: "09:40"}
    answer = answers.get(asked, SILENT)
    return answer if answer in passages else SILENT


def run(path: Path, bench: Bench, questions: Sequence[Question] = QUESTIONS) -> list[Observation]:
    with open_run_log(path, bench.header("digest")) as record:
        assert run_questions(questions, bench, record, total=len(questions))
    return list(read_observations(path)[1])


def verdicts(observations: Sequence[Observation]) -> dict[str, str]:
    return {o.question.id: found.verdict for o, found in judge_all(observations)}


def test_each_question_is_asked_three_ways(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    model = table_model({WORLD.question: "Paris."}, echo)
    found = {
        o.question.id: o
        for o in run(tmp_path / "o.jsonl", Bench(model, base, embedder, options=Options(min_similarity=-1.0)))
    }
    assert verdicts(list(found.values())) == {
        "bridge": "fixed_by_retrieval",
        "library": "fixed_by_retrieval",
        "ferry": "fixed_by_retrieval",
        "nowhere": "not_in_the_knowledge_base",
        "world": "known",
    }
    bridge = found["bridge"]
    assert bridge.located == "answers"
    assert bridge.asked[0].rank >= 1
    seen = next(p for p in bridge.passages if p.id in bridge.holding)
    assert [seen.text[a:b] for a, b in seen.gold] == ["Lila Ortega"]
    assert len(found["ferry"].asked) == 2
    assert found["world"].asked[0].oracle is None
    assert found["world"].asked[0].closed.prompt_tokens
    engine = model.engine
    assert isinstance(engine, TableEngine)
    without = [not prompt.passages for prompt in engine.asked]
    assert without == sorted(without, reverse=True)  # first all without documents


@pytest.mark.parametrize("reader", [None, READER])
def test_open_book_is_what_ask_answers(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder, reader: ReaderFormat | None
) -> None:
    model = echo_model(reader=reader)
    found = run(tmp_path / "o.jsonl", Bench(model, base, embedder))
    for each in found:
        answer = ask(each.question.question, model, base, embedder)
        first = each.asked[0]
        assert (first.opened.text, first.opened.abstained) == (answer.answer, answer.abstained)
        read = tuple(h.passage.id for h in answer.passages)
        assert first.found[: len(read)] == read
        starts = {h.passage.id: h.passage.start for h in answer.passages}
        assert first.cited == tuple(
            (c.passage_id, c.start - starts[c.passage_id], c.end - starts[c.passage_id]) for c in answer.citations
        )
        alone = ask(each.question.question, model)
        assert first.closed.text == alone.answer


def test_gold_is_found_by_span_quote_and_answers(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    text = TEXTS["bridge.txt"]
    start = text.index("mayor")
    golds = {
        "span": Gold("docs/bridge.txt", start, start + 5, "mayor"),
        "moved": Gold("bridge.txt", 0, 5, "mayor"),
        "quote": Gold("", quote="by  mayor\nLila"),
        "gone": Gold("other.txt", 0, 5, "no such words"),
        "beyond": Gold("bridge.txt", 5000, 6000),
        "no-quote": Gold("./docs/bridge.txt", start, start + 5),
    }
    questions = [Question(key, f"Who opened it, {key}?", ("Lila Ortega",), gold=gold) for key, gold in golds.items()]
    bench = Bench(table_model({}, echo), base, embedder, options=Options(min_similarity=-1.0))
    found = {o.question.id: o for o in run(tmp_path / "o.jsonl", bench, questions)}
    located = {key: each.located for key, each in found.items()}
    assert located == {
        "span": "span", "moved": "quote", "quote": "quote", "gone": "answers", "beyond": "answers", "no-quote": "span",
    }  # fmt: skip
    for key in ("span", "moved", "no-quote"):
        seen = next(p for p in found[key].passages if p.gold)
        assert [seen.text[a:b] for a, b in seen.gold] == ["mayor"]


def test_an_answer_that_no_passage_holds(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    question = Question("x", "Who painted the bridge?", ("Tomas Brandl",))
    bench = Bench(
        table_model({}, lambda asked, passages: "Lila Ortega"), base, embedder, options=Options(min_similarity=-1.0)
    )
    (found,) = judge_all(run(tmp_path / "o.jsonl", bench, [question]))
    assert (found[1].verdict, found[1].silence) == ("not_in_the_knowledge_base", "invented")


def test_a_passage_that_is_not_given_to_the_reader(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    gold = Gold("bridge.txt", 0, 20)
    question = Question("x", "Is the library closed on Mondays?", ("14 March 2026",), gold=gold)

    def reads(asked: str, passages: str) -> str:
        return "14 March 2026" if "14 March" in passages else "Yes."

    bench = Bench(table_model({}, reads), base, embedder, options=Options(passages=1, min_similarity=-1.0))
    ((observation, found),) = judge_all(run(tmp_path / "o.jsonl", bench, [question]))
    assert found.verdict == "retriever_miss"
    assert observation.asked[0].rank > 1


def test_a_passage_that_does_not_fit_was_not_given(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    question = Question("x", "Is the library closed on Mondays?", ("14 March 2026",), gold=Gold("bridge.txt", 0, 20))

    def reads(prompt: Prompt) -> str:
        return "14 March 2026" if "14 March" in "".join(prompt.passages) else "Yes."

    empty = EchoEngine().count_prompt_tokens(reading_prompt(question.question, []))
    engine = TableEngine(reads, context_tokens=empty + 42)
    options = Options(passages=3, min_similarity=-1.0, decoding=Decoding(max_tokens=16))
    ((observation, found),) = judge_all(
        run(tmp_path / "o.jsonl", Bench(FrozenModel(engine), base, embedder, options=options), [question])
    )
    assert found.verdict == "retriever_miss"
    assert len(observation.asked[0].found) < observation.asked[0].rank


def test_other_languages(tmp_path: Path, embedder: HashEmbedder) -> None:
    (tmp_path / "a.txt").write_text("法国的首都是巴黎。\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Η γέφυρα άνοιξε τον Μάρτιο.\n", encoding="utf-8")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / "a.txt", tmp_path / "b.txt"], embedder)
    questions = [
        Question("zh", "法国的首都是哪里？", ("巴黎",)),
        Question("el", "Πότε άνοιξε η γέφυρα;", ("τον Μάρτιο",)),
    ]
    model = table_model({}, lambda asked, passages: "巴黎" if "法国" in asked else "Άνοιξε τον Μάρτιο")
    bench = Bench(model, base, embedder, options=Options(min_similarity=-1.0))
    assert set(verdicts(run(tmp_path / "o.jsonl", bench, questions)).values()) == {"fixed_by_retrieval"}


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_are_recorded_and_counted_apart(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    def answer(prompt: Prompt) -> str:
        asked = question_in(prompt)
        return FAILS if asked == BRIDGE.question else echo(asked, "\n".join(prompt.passages))

    bench = Bench(FrozenModel(TableEngine(answer)), base, embedder, options=Options(min_similarity=-1.0))
    found = run(tmp_path / "o.jsonl", bench)
    assert verdicts(found)["bridge"] == "failed"
    assert verdicts(found)["library"] == "fixed_by_retrieval"
    assert found[0].failure == "The engine fell over."


def test_a_context_that_is_too_small_is_a_failure(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    bench = Bench(
        echo_model(context_tokens=PROMPT_TOKENS + 20),
        base,
        embedder,
        options=Options(decoding=Decoding(max_tokens=30), min_similarity=-1.0),
    )
    found = run(tmp_path / "o.jsonl", bench, [BRIDGE])
    assert "one passage take" in found[0].failure


def test_a_model_that_always_fails_stops_the_run(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MOST_FAILED", 3)
    bench = Bench(FrozenModel(TableEngine(lambda prompt: FAILS)), base, embedder)
    with pytest.raises(EngineError, match="3 questions in a row"):
        run(tmp_path / "o.jsonl", bench)
    assert list(read_observations(tmp_path / "o.jsonl")[1]) == []
    few = run(tmp_path / "few.jsonl", bench, QUESTIONS[:2])
    assert set(verdicts(few).values()) == {"failed"}


MANY = [dataclasses.replace(BRIDGE, id=f"q{n}") for n in range(40)]


def test_an_engine_that_dies_between_the_halves_of_a_block_stops_the_run(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    engine = TableEngine(lambda prompt: FAILS if len(engine.asked) > 40 else echo(question_in(prompt), ""))
    bench = Bench(FrozenModel(engine), base, embedder, options=Options(min_similarity=-1.0))
    path = tmp_path / "o.jsonl"
    with pytest.raises(EngineError, match=r"16 questions in a row.*The engine fell over"):
        run(path, bench, MANY)
    there = list(read_observations(path)[1])
    assert 0 < sum(not each.failure for each in there) < 8  # two requests each, after 32 without documents
    assert sum(bool(each.failure) for each in there) < 16


def test_what_failed_is_asked_again_in_its_place_and_nothing_else(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    broken = {BRIDGE.question, FERRY.phrasings[0], NOWHERE.question}

    def answer(prompt: Prompt) -> str:
        asked = question_in(prompt)
        return FAILS if asked in broken else echo(asked, "\n".join(prompt.passages))

    engine = TableEngine(answer)
    bench = Bench(FrozenModel(engine), base, embedder, options=Options(min_similarity=-1.0))
    path = tmp_path / "o.jsonl"
    first = run(path, bench, QUESTIONS[:4])
    assert [bool(each.failure) for each in first] == [True, False, True, True]
    broken -= {BRIDGE.question, FERRY.phrasings[0]}
    engine.asked.clear()
    second = run(path, bench)
    assert [each.question for each in second] == QUESTIONS
    assert [bool(each.failure) for each in second] == [False, False, False, True, False]
    assert second[1] == first[1]
    again = {BRIDGE.question, FERRY.question, FERRY.phrasings[0], NOWHERE.question, WORLD.question}
    assert {question_in(prompt) for prompt in engine.asked} == again
    engine.asked.clear()
    assert without_times(run(path, bench)) == without_times(second)
    assert {question_in(prompt) for prompt in engine.asked} == {NOWHERE.question}  # once more, and no further
    assert sum(not prompt.passages for prompt in engine.asked) == 1
    assert [each.name for each in tmp_path.iterdir() if not each.name.startswith(".")] == ["o.jsonl"]


def test_questions_that_always_fail_do_not_stop_a_run_that_asks_only_them_again(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MOST_FAILED", 2)
    fails = {BRIDGE.question, FERRY.question, FERRY.phrasings[0], WORLD.question}
    model = table_model(dict.fromkeys(fails, FAILS), lambda asked, passages: FAILS if asked in fails else SILENT)
    bench = Bench(model, base, embedder, options=Options(min_similarity=-1.0))
    for _ in range(2):
        found = run(tmp_path / "o.jsonl", bench)
        assert [bool(each.failure) for each in found] == [True, False, True, False, True]


def test_killed_at_every_byte_while_a_line_is_replaced(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    bench = Bench(table_model({}, echo), base, embedder, options=Options(passages=1, min_similarity=-1.0))
    header = bench.header("digest")
    whole = run(tmp_path / "whole.jsonl", bench, QUESTIONS[:4])
    path, beside = tmp_path / "o.jsonl", tmp_path / "o.again.jsonl"
    failed = [observation(n, failure="It fell over.") if n in (1, 3) else each for n, each in enumerate(whole)]
    with open_run_log(path, header) as record:
        for each in failed:
            record.append(each)
    old = path.read_bytes().splitlines(keepends=True)
    new = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    written = b"".join(new[:4])
    starts = {0, *(len(b"".join(new[:n])) for n in range(1, 5))}
    for end in sorted({*range(0, len(written), 97), *starts}):
        path.write_bytes(b"".join(old))
        beside.write_bytes(written[:end])
        assert list(read_observations(path)[1]) == failed  # until the next run
        with open_run_log(path, header) as record:
            assert record.done == 4
        lines = written[:end].count(b"\n")
        assert path.read_bytes() == b"".join(new[:lines] + old[lines:])
        assert not beside.exists()
    beside.write_bytes(written)
    path.unlink()  # to begin anew
    with open_run_log(path, header) as record:
        assert (record.done, beside.exists()) == (0, False)


def test_a_stopped_run_keeps_what_it_had_asked_again(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    path = tmp_path / "o.jsonl"
    dead = Bench(FrozenModel(TableEngine(lambda prompt: FAILS)), base, embedder, options=Options(min_similarity=-1.0))
    run(path, dead)
    engine = TableEngine(lambda prompt: echo(question_in(prompt), "\n".join(prompt.passages)))
    bench = dataclasses.replace(dead, model=FrozenModel(engine))
    with open_run_log(path, bench.header("digest")) as record:
        assert not run_questions(QUESTIONS, bench, record, cancelled=lambda: len(engine.asked) >= 14)
    there = list(read_observations(path)[1])
    assert [each.question for each in there] == QUESTIONS
    answered = [not each.failure for each in there]
    assert answered == sorted(answered, reverse=True)
    assert 0 < sum(answered) < 5


def test_an_error_of_something_else_is_not_one_of_writing(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    header = Bench(table_model({}, echo), base, embedder).header("digest")
    with pytest.raises(OSError, match="a wire was cut"), open_run_log(tmp_path / "o.jsonl", header):
        raise OSError("a wire was cut")


# --- stopped, killed, gone on with ------------------------------------------------------------------------------------


def without_times(observations: Sequence[Observation]) -> list[Observation]:
    def timeless(wording: Wording) -> Wording:
        oracle = wording.oracle and dataclasses.replace(wording.oracle, seconds=0.0)
        closed, opened = (dataclasses.replace(each, seconds=0.0) for each in (wording.closed, wording.opened))
        return dataclasses.replace(wording, closed=closed, opened=opened, oracle=oracle)

    return [dataclasses.replace(each, asked=tuple(map(timeless, each.asked))) for each in observations]


@pytest.mark.parametrize("requests", range(0, 18, 2))
def test_a_cancelled_run_goes_on_to_the_same_end(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder, requests: int
) -> None:
    bench = Bench(table_model({WORLD.question: "Paris."}, echo), base, embedder, options=Options(min_similarity=-1.0))
    whole = run(tmp_path / "whole.jsonl", bench)
    left = requests

    def cancelled() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    path = tmp_path / "o.jsonl"
    with open_run_log(path, bench.header("digest")) as record:
        assert not run_questions(QUESTIONS, bench, record, cancelled=cancelled)
    assert without_times(run(path, bench)) == without_times(whole)


def test_killed_at_every_byte_of_the_last_line(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    bench = Bench(table_model({}, echo), base, embedder, options=Options(passages=1, min_similarity=-1.0))
    path = tmp_path / "o.jsonl"
    whole = without_times(run(path, bench, QUESTIONS[:2]))
    content = path.read_bytes()
    last = content[:-1].rindex(b"\n") + 1
    header = bench.header("digest")
    for end in range(last, len(content)):
        path.write_bytes(content[:end])
        with open_run_log(path, header) as record:
            assert record.done == 1
        assert path.read_bytes() == content[:last]
    path.write_bytes(content[: len(content) - 7])
    assert len(list(read_observations(path)[1])) == 1  # half a line is no observation
    assert without_times(run(path, bench, QUESTIONS[:2])) == whole
    header_end = content.index(b"\n")
    for end in range(0, header_end, 40):  # killed in the header
        path.write_bytes(content[:end])
        assert len(run(path, bench, [BRIDGE])) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: dataclasses.replace(h, questions="other"), "another questions"),
        (lambda h: dataclasses.replace(h, knowledge_base_version=7), r"another knowledge base version.*--as-of 1"),
        (lambda h: dataclasses.replace(h, passages=9), "another passages"),
        (lambda h: dataclasses.replace(h, model=dataclasses.replace(h.model, digest="0" * 64)), "another model"),
        (lambda h: dataclasses.replace(h, decoding=Decoding(max_tokens=5)), "another decoding"),
    ],
)
def test_a_run_of_something_else_is_refused(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder, change: Callable[..., object], says: str
) -> None:
    bench = Bench(table_model({}, echo), base, embedder)
    run(tmp_path / "o.jsonl", bench, [BRIDGE])
    before = (tmp_path / "o.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=says), open_run_log(tmp_path / "o.jsonl", change(bench.header("digest"))):  # type: ignore[arg-type]
        pass
    assert (tmp_path / "o.jsonl").read_bytes() == before


def test_a_knowledge_base_that_changes(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = made(tmp_path, embedder)
    bench = Bench(table_model({}, echo), base, embedder, options=Options(min_similarity=-1.0)).pinned()
    path = tmp_path / "o.jsonl"
    run(path, bench, [BRIDGE])
    remove(base, [str(tmp_path / "docs" / "ferry.txt")])
    newest = dataclasses.replace(bench, scope=Scope())
    with pytest.raises(ConfigError, match="another knowledge base version"):
        run(path, newest)
    assert verdicts(run(path, bench))["ferry"] == "fixed_by_retrieval"  # the version it began with
    with pytest.raises(KnowledgeError, match="is not kept"):
        dataclasses.replace(bench, scope=Scope(as_of=99)).pinned()


def test_files_that_are_no_observations(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    bench = Bench(table_model({}, echo), base, embedder)
    path = tmp_path / "o.jsonl"
    for content in (b"a shopping list\n", b"{}\n", b'{"format": 9}\n', b"[1]\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="does not begin as a file of observations"):
            run(path, bench)
        assert path.read_bytes() == content
    path.unlink()
    run(path, bench, [BRIDGE])
    with path.open("ab") as stream:
        stream.write(b'{"question": 3}\n')
    with pytest.raises(ConfigError, match="line 3"):
        list(read_observations(path)[1])
    with pytest.raises(StorageError, match="Cannot read"):
        read_observations(tmp_path / "missing.jsonl")


def test_two_processes_do_not_write_one_file(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    header = Bench(table_model({}, echo), base, embedder).header("digest")
    with (
        open_run_log(tmp_path / "o.jsonl", header),
        pytest.raises(StorageError, match="Another process"),
        open_run_log(tmp_path / "o.jsonl", header),
    ):
        pass


def test_files_of_the_first_version_are_read() -> None:
    header, observations = read_observations(ROOT / "tests/golden/observations-1.jsonl")
    first, second = observations
    assert (header.model.name, first.question.gold) == ("table", Gold("ferry.md", 0, 5, "Ferry"))
    assert [found.verdict for _, found in judge_all([first, second])] == [
        "fixed_by_retrieval",
        "not_in_the_knowledge_base",
    ]
    (outcomes,) = read_outcomes(ROOT / "tests/golden/diagnosis-1.json")
    assert [each.verdict for each in outcomes.outcomes] == ["fixed_by_retrieval", "not_in_the_knowledge_base"]


def test_purging_cannot_tell_what_probes_have_read(tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder) -> None:
    bench = Bench(table_model({}, echo), base, embedder, options=Options(min_similarity=-1.0))
    folder = tmp_path / "diagnoses" / "one"
    observed = folder / "observations-a.jsonl"
    run(observed, bench, [BRIDGE])
    header = observed.read_bytes().splitlines(keepends=True)[0]
    (folder / "opinions-b-of-a.jsonl").write_bytes(header + b'{"question":"bridge","says":{}}\n')
    assert diagnoses_showing(tmp_path / "diagnoses", ["Something else."]) == []
    (folder / "probes-a.jsonl").write_bytes(header + b'{"question":"bridge","trials":{}}\n')
    assert diagnoses_showing(tmp_path / "diagnoses", ["Something else."]) == [folder]


def test_purging_finds_the_answers_of_probes_in_the_numbers(
    tmp_path: Path, base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    bench = Bench(table_model({}, echo), base, embedder, options=Options(min_similarity=-1.0))
    folder, numbers = tmp_path / "diagnoses" / "one", tmp_path / "diagnoses" / "one" / "diagnosis.json"
    observed = folder / "observations-a.jsonl"
    run(observed, bench, [BRIDGE])
    (tmp_path / "diagnoses" / "notes.txt").write_text("mine")

    def showing() -> bool:
        found = diagnoses_showing(tmp_path / "diagnoses", ["Something else."])
        assert found in ([], [folder])
        return bool(found)

    write_results(folder, "Ferries", [observed])
    assert not showing()
    header = read_observations(observed)[0]
    write_results(folder, "Ferries", [observed], extras={header.model.name: Extras(ProbeRun(header, 1, False, {}))})
    assert showing()  # what the report shows of probes that another run made
    write_results(folder, "Ferries", [observed])
    assert not showing()
    os.truncate(numbers, 1 << 28)
    assert showing()
    for content in ("{", "[]", '{"models": [1]}', "[" * 100_000):
        numbers.write_text(content)
        assert showing(), content
