"""Which passages count as given to the reader: those that it could read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from openbook.answer import Options, ask
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, open_run_log, read_observations
from openbook.diagnosis.runner import Bench, run_questions
from openbook.diagnosis.verdicts import judge_all
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.prompts import open_book_prompt
from openbook.records import Decoding, ReaderFormat
from openbook.testing import EchoEngine, HashEmbedder, echo_model

READER = ReaderFormat("Answer from the passage.", "The passages do not say.")
SURE = "The harbour master of Ostrevik is Ruth Bane."
LONG = "The harbour master of Ostrevik in the year 1987 was Tomas Brandl, " + "who wrote a long report on it, " * 12
SHORT = "The harbour of Ostrevik has a master."
QUESTION = Question("master", "Who is the harbour master of Ostrevik?", ("Tomas Brandl",))
DECODING = Decoding(max_tokens=16)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("base")
    paths = [folder / f"{name}.txt" for name in ("sure", "long", "short")]
    for path, text in zip(paths, (SURE, LONG, SHORT), strict=True):
        path.write_text(text)
    base = KnowledgeBase.ensure(folder / "kb", HashEmbedder().identity)
    add(base, paths, HashEmbedder())
    return base


def bench_of(base: KnowledgeBase, reader: ReaderFormat, context_tokens: int = 4096) -> Bench:
    model = FrozenModel(EchoEngine(context_tokens=context_tokens), reader)
    options = Options(passages=3, min_similarity=-1.0, decoding=DECODING)
    return Bench(model, base, HashEmbedder(), options=options)


def observed(path: Path, bench: Bench) -> Observation:
    with open_run_log(path, bench.header("digest"), Observation) as log:
        assert run_questions([QUESTION], bench, log)
    (found,) = read_observations(path)[1]
    return found


def test_read_one_by_one_a_passage_that_does_not_fit_is_not_given(tmp_path: Path, base: KnowledgeBase) -> None:
    whole = observed(tmp_path / "whole.jsonl", bench_of(base, READER))
    texts = {passage.text: passage.id for passage in whole.passages}
    assert set(whole.asked[0].found) == set(texts.values())
    assert judge_all([whole]).__next__()[1].verdict != "retriever_miss"

    shorter = {hit.passage.text: hit.passage for hit in bench_of(base, READER).retrieve(QUESTION.question, 3)}
    room = max(
        echo_model().count_prompt_tokens(open_book_prompt(QUESTION.question, [passage], READER))
        for text, passage in shorter.items()
        if text != LONG.strip()
    )
    bench = bench_of(base, READER, room + DECODING.max_tokens)
    assert bench.strategy == "each"
    small = observed(tmp_path / "small.jsonl", bench)
    assert set(small.asked[0].found) == {texts[SURE], texts[SHORT]}  # the second was not read: the first is sure
    answer = ask(QUESTION.question, bench.model, base, bench.embedder, bench.options)
    assert [hit.passage.text for hit in answer.passages] == [SURE]
    assert judge_all([small]).__next__()[1].verdict == "retriever_miss"


def test_side_by_side_the_header_says_how_many_the_reader_learned_to_read(base: KnowledgeBase) -> None:
    headers = [
        bench_of(base, dataclasses.replace(READER, passages=passages)).header("digest") for passages in (1, 2, 4)
    ]
    assert [(each.strategy, each.passages) for each in headers] == [("each", 3), ("parallel", 2), ("parallel", 3)]
