"""A run over questions: its requests, its records, and how it resumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from openbook.answers.ask import ask
from openbook.answers.certainty import certainty
from openbook.answers.prompts import open_book_prompt, reading_prompt
from openbook.answers.retrieval import Corpus
from openbook.core.errors import ConfigError, EngineError, KnowledgeError, StorageError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, Prompt, ReaderFormat
from openbook.diagnosis import runner
from openbook.diagnosis.questions import Gold, Question
from openbook.diagnosis.run_log import Observation, Wording, open_run_log, read_observations
from openbook.diagnosis.runner import Bench, run_questions
from openbook.diagnosis.verdicts import verdicts_of
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, Scope, remove
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import base_with
from tests.diagnosis.table_engine import (
    FAILS,
    HEADER,
    SILENT,
    Keeps,
    TableEngine,
    bench_with,
    logged,
    observation,
    question_in,
    table_model,
)

TEXTS = {
    "bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.",
    "library.md": "# Library\n\nThe library holds 2.3 million books. It is closed on Mondays.",
    "ferry.txt": "The ferry to Hessay leaves at 09:40 from pier 3. Dogs may not enter the saloon.",
}
BRIDGE = Question("bridge", "Who opened the bridge?", ("Lila Ortega",))
LIBRARY = Question("library", "When is the library closed?", ("Mondays", "on Monday"))
SAILS = "At what time does the ferry sail to Hessay?"
FERRY = Question("ferry", "When does the ferry to Hessay leave?", ("09:40",), phrasings=(SAILS,))
NOWHERE = Question("nowhere", "Who designed the lighthouse of Ostrevik?", kind="unanswerable")
WORLD = Question("world", "What is the capital of France?", ("Paris",), kind="world")
QUESTIONS = [BRIDGE, LIBRARY, FERRY, NOWHERE, WORLD]
READER = ReaderFormat("Answer from the passage.", SILENT)
FELL_OVER = "The engine fell over."


def made(folder: Path) -> KnowledgeBase:
    return base_with(folder, {f"docs/{name}": text for name, text in TEXTS.items()})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    """Read only: no test of this module changes it."""
    return made(tmp_path_factory.mktemp("base"))


def echo(asked: str, passages: str) -> str:
    """With passages, the right answer where one of them holds it."""
    answers = {q.question: q.answers[0] for q in QUESTIONS if q.answers} | {SAILS: "09:40"}
    answer = answers.get(asked, SILENT)
    return answer if answer in passages else SILENT


def good(prompt: Prompt) -> str:
    """Knows the capital of France, and else says what stands in the passages."""
    asked = question_in(prompt)
    if not prompt.passages:
        return "Paris." if asked == WORLD.question else "No idea."
    return echo(asked, "\n".join(prompt.passages))


def run(path: Path, bench: Bench, questions: Sequence[Question] = QUESTIONS) -> list[Observation]:
    run_questions(questions, bench.pinned(), "digest", path=path)
    return list(read_observations(path)[1])


def verdicts(observations: Sequence[Observation]) -> dict[str, str]:
    return {o.question.id: found.verdict for o, found in verdicts_of(observations)}


def test_a_purge_during_a_run_counts_as_later(tmp_path: Path, base: KnowledgeBase) -> None:
    class Purging(Keeps):
        def generate(
            self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
        ) -> Generator[str, None, Completion]:
            self.purged += 1
            return (yield from super().generate(prompt, decoding, cancelled))

    engine = Purging()
    run(tmp_path / "o.jsonl", bench_with(FrozenModel(engine), base), [BRIDGE])
    assert (set(engine.marks), engine.purged) == ({"0"}, 3)


def test_each_question_is_asked_three_ways(tmp_path: Path, base: KnowledgeBase) -> None:
    bench = bench_with(FrozenModel(TableEngine(good)), base)
    found = {each.question.id: each for each in run(tmp_path / "o.jsonl", bench)}
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


@pytest.mark.parametrize("reader", [None, READER])
def test_open_book_is_what_ask_answers(tmp_path: Path, base: KnowledgeBase, reader: ReaderFormat | None) -> None:
    model, embedder = echo_model(reader=reader), HashEmbedder()
    for each in run(tmp_path / "o.jsonl", Bench(model, base, embedder)):
        answer = ask(each.question.question, model, Corpus(base, embedder))
        first = each.asked[0]
        assert (first.opened.text, first.opened.abstained) == (answer.answer, answer.abstained)
        read = tuple(h.passage.id for h in answer.passages)
        assert first.found[: len(read)] == read
        starts = {h.passage.id: h.passage.start for h in answer.passages}
        assert first.cited == tuple(
            (c.passage_id, c.start - starts[c.passage_id], c.end - starts[c.passage_id]) for c in answer.citations
        )
        assert (certainty(first.signals)[0] if first.signals else None) == answer.certainty
        assert first.closed.text == ask(each.question.question, model).answer


def test_a_reader_is_given_as_many_passages_as_it_learned_to_read(tmp_path: Path, base: KnowledgeBase) -> None:
    bench = bench_with(echo_model(reader=dataclasses.replace(READER, passages=2)), base, passages=4)
    (found,) = run(tmp_path / "o.jsonl", bench, [BRIDGE])
    answer = ask(BRIDGE.question, bench.model, Corpus(base, bench.embedder), bench.options)
    assert found.asked[0].found == tuple(hit.passage.id for hit in answer.passages)
    readers = [dataclasses.replace(READER, passages=passages) for passages in (1, 2, 4)]
    headers = [bench_with(echo_model(reader=reader), base, passages=3).header("digest") for reader in readers]
    assert [(each.strategy, each.passages) for each in headers] == [("each", 3), ("parallel", 2), ("parallel", 3)]


def test_read_one_by_one_a_passage_that_does_not_fit_is_not_given(tmp_path: Path) -> None:
    sure, short = "The harbour master of Ostrevik is Ruth Bane.", "The harbour of Ostrevik has a master."
    long = "The harbour master of Ostrevik in 1987 was Tomas Brandl" + ", who wrote a long report" * 12 + "."
    base = base_with(tmp_path, {"sure.txt": sure, "long.txt": long, "short.txt": short})
    question = Question("master", "Who is the harbour master of Ostrevik?", ("Tomas Brandl",))
    (hit,) = (hit for hit in base.search(question.question, HashEmbedder())[1] if hit.passage.text == sure)
    tokens = EchoEngine().count_prompt_tokens(open_book_prompt(question.question, [hit.passage], READER))
    for context_tokens, given in ((4096, {sure, long, short}), (tokens + 16, {sure, short})):
        model = echo_model(reader=READER, context_tokens=context_tokens)
        bench = bench_with(model, base, passages=3, decoding=Decoding(max_tokens=16))
        (seen,) = run(tmp_path / f"{context_tokens}.jsonl", bench, [question])
        texts = {passage.id: passage.text for passage in seen.passages}
        assert {texts[id_] for id_ in seen.asked[0].found} == given  # though the first is sure, so no more is read


@pytest.mark.parametrize(("passages", "context_tokens"), [(1, 100_000), (3, 42)])
def test_a_passage_not_given_to_the_reader_is_a_miss(
    tmp_path: Path, base: KnowledgeBase, passages: int, context_tokens: int
) -> None:
    """Because there are others before it, or because it does not fit."""
    question = Question("x", "Is the library closed on Mondays?", ("14 March 2026",), gold=Gold("bridge.txt", 0, 20))
    empty = EchoEngine().count_prompt_tokens(reading_prompt(question.question, []))

    def reads(prompt: Prompt) -> str:
        return "14 March 2026" if "14 March" in "".join(prompt.passages) else "Yes."

    model = FrozenModel(TableEngine(reads, context_tokens=empty + context_tokens))
    bench = bench_with(model, base, passages=passages, decoding=Decoding(max_tokens=16))
    ((seen, found),) = verdicts_of(run(tmp_path / "o.jsonl", bench, [question]))
    assert found.verdict == "retriever_miss"
    assert len(seen.asked[0].found) < seen.asked[0].rank


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_dead_engine_stops_the_run_which_keeps_what_was_answered(
    tmp_path: Path, base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_FAILED", 4)
    many = [dataclasses.replace(BRIDGE, id=f"q{n}") for n in range(12)]
    engine = TableEngine(lambda prompt: FAILS if len(engine.asked) > 9 else echo(question_in(prompt), ""))
    path = tmp_path / "o.jsonl"  # three requests a question
    with pytest.raises(EngineError, match=r"4 questions in a row.*The engine fell over"):
        run(path, bench_with(FrozenModel(engine), base), many)
    assert [bool(each.failure) for each in read_observations(path)[1]] == [False] * 3 + [True] * 3
    fails = {BRIDGE.question, FERRY.question, SAILS, WORLD.question}
    model = table_model(dict.fromkeys(fails, FAILS), lambda asked, passages: FAILS if asked in fails else SILENT)
    monkeypatch.setattr(runner, "MAX_FAILED", 2)
    for _ in range(2):  # a second run asks only the failed questions, which are not consecutive
        found = run(tmp_path / "others.jsonl", bench_with(model, base))
        assert [bool(each.failure) for each in found] == [True, False, True, False, True]


def test_only_failed_questions_are_asked_again_in_their_place(tmp_path: Path, base: KnowledgeBase) -> None:
    broken = {BRIDGE.question, SAILS, NOWHERE.question}

    def answer(prompt: Prompt) -> str:
        asked = question_in(prompt)
        return FAILS if asked in broken else echo(asked, "\n".join(prompt.passages))

    engine = TableEngine(answer)
    bench = bench_with(FrozenModel(engine), base)
    path = tmp_path / "o.jsonl"
    first = run(path, bench, QUESTIONS[:4])
    assert [each.failure for each in first] == [FELL_OVER, "", FELL_OVER, FELL_OVER]
    assert verdicts(first)["bridge"] == "failed"
    broken -= {BRIDGE.question, SAILS}
    engine.asked.clear()
    second = run(path, bench)
    assert [each.question for each in second] == QUESTIONS
    assert [each.failure for each in second] == ["", "", "", FELL_OVER, ""]
    assert second[1] == first[1]
    again = {BRIDGE.question, FERRY.question, SAILS, NOWHERE.question, WORLD.question}
    assert {question_in(prompt) for prompt in engine.asked} == again
    engine.asked.clear()
    assert without_times(run(path, bench)) == without_times(second)
    assert {question_in(prompt) for prompt in engine.asked} == {NOWHERE.question}  # once more, and no further
    assert sum(not prompt.passages for prompt in engine.asked) == 1


# --- stopped, killed, resumed ------------------------------------------------------------------------------------


def without_times(observations: Sequence[Observation]) -> list[Observation]:
    def timeless(wording: Wording) -> Wording:
        oracle = wording.oracle and dataclasses.replace(wording.oracle, seconds=0.0)
        closed, opened = (dataclasses.replace(each, seconds=0.0) for each in (wording.closed, wording.opened))
        return dataclasses.replace(wording, closed=closed, opened=opened, oracle=oracle)

    return [dataclasses.replace(each, asked=tuple(map(timeless, each.asked))) for each in observations]


def test_an_interrupted_run_resumes_to_the_same_end(tmp_path: Path, base: KnowledgeBase) -> None:
    bench = bench_with(FrozenModel(TableEngine(good)), base)
    whole = without_times(run(tmp_path / "whole.jsonl", bench))
    for requests in (0, 7, 15):
        path, left = tmp_path / f"{requests}.jsonl", [None] * requests

        def interrupted(prompt: Prompt, left: list[None] = left) -> str:
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return good(prompt)

        with pytest.raises(KeyboardInterrupt):
            run(path, bench_with(FrozenModel(TableEngine(interrupted)), base))
        assert without_times(run(path, bench)) == whole


def test_a_kill_at_any_byte_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    one, failed, good = observation(1), observation(2, failure=FELL_OVER), observation(2)
    logged(path, one, failed)
    before = len(path.read_bytes())
    logged(path, good)
    content = path.read_bytes()
    assert list(read_observations(path)[1]) == [one, good]
    for end in range(before, len(content), 7):
        path.write_bytes(content[:end])
        assert list(read_observations(path)[1]) == [one, failed]  # half a line is no observation
        logged(path)
        assert path.read_bytes() == content[:before]
    for end in range(0, content.index(b"\n"), 40):  # killed in the header
        path.write_bytes(content[:end])
        logged(path, one)
        assert list(read_observations(path)[1]) == [one]
    with open_run_log(path, HEADER, Observation) as log:
        log.append(good)
        assert (log.find("q2"), log.find("q3")) == (good, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"questions": "other"}, "differs in its questions"),
        ({"knowledge_base_version": 7}, r"differs in its knowledge base version: 1, now 7\..*as of version 1\."),
        ({"passages": 9}, "differs in its passages"),
        (
            {"model": dataclasses.replace(HEADER.model, digest="0" * 64)},
            r"differs in its model.*now table \(000000000000\)",
        ),
        ({"decoding": Decoding(max_tokens=5)}, "differs in its decoding"),
    ],
)
def test_a_run_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "o.jsonl"
    logged(path, observation(1))
    before = path.read_bytes()
    header = dataclasses.replace(HEADER, **change)
    with pytest.raises(ConfigError, match=says), open_run_log(path, header, Observation):
        pass
    assert path.read_bytes() == before


def test_a_knowledge_base_that_changes(tmp_path: Path) -> None:
    base = made(tmp_path)
    bench = bench_with(table_model({}, echo), base).pinned()
    path = tmp_path / "o.jsonl"
    run(path, bench, [BRIDGE])
    remove(base, [str(tmp_path / "docs" / "ferry.txt")])
    newest = dataclasses.replace(bench, scope=Scope())
    with pytest.raises(ConfigError, match="differs in its knowledge base version"):
        run(path, newest)
    assert verdicts(run(path, bench))["ferry"] == "fixed_by_retrieval"  # the version it began with
    with pytest.raises(KnowledgeError, match="is not kept"):
        dataclasses.replace(bench, scope=Scope(as_of=99)).pinned()


def test_other_files_and_files_of_another_writer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    for content in (b"a shopping list\n", b"{}\n", b'{"format": 9}\n', b"[1]\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="cannot be read as a file of openbook diagnose"):
            logged(path)
        assert path.read_bytes() == content
    path.unlink()
    logged(path, observation(1))
    path.write_bytes(path.read_bytes() + b'{"question": 3}\n')
    with pytest.raises(ConfigError, match="line 3"):
        list(read_observations(path)[1])
    with pytest.raises(StorageError, match="Cannot read"):
        read_observations(tmp_path / "missing.jsonl")
    with (
        open_run_log(tmp_path / "new.jsonl", HEADER, Observation),
        pytest.raises(StorageError, match="Another process"),
    ):
        logged(tmp_path / "new.jsonl")
    with pytest.raises(OSError, match="a wire was cut"), open_run_log(tmp_path / "new.jsonl", HEADER, Observation):
        raise OSError("a wire was cut")  # an error of something else is not one of writing
