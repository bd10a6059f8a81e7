"""Which passages count as given to the reader: those that it could read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from openbook.answer import Options
from openbook.diagnosis.bench import Bench
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, open_run_log, read_observations
from openbook.diagnosis.runner import run_questions
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase, add
from openbook.prompts import open_book_prompt
from openbook.records import Decoding, ReaderFormat
from openbook.testing import EchoEngine, HashEmbedder

READER = ReaderFormat("Answer from the passage.", "The passages do not say.")
SURE = "The harbour master of Ostrevik is Ruth Bane."
LONG = "The harbour master of Ostrevik in 1987 was Tomas Brandl" + ", who wrote a long report" * 12 + "."
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
        run_questions([QUESTION], bench, log)
    (found,) = read_observations(path)[1]
    return found


def test_read_one_by_one_a_passage_that_does_not_fit_is_not_given(tmp_path: Path, base: KnowledgeBase) -> None:
    large = bench_of(base, READER)
    tokens = {
        hit.passage.text: large.model.count_prompt_tokens(open_book_prompt(QUESTION.question, [hit.passage], READER))
        for hit in large.retrieve(QUESTION.question, 3)
    }
    small = bench_of(base, READER, context_tokens=tokens[SURE] + DECODING.max_tokens)
    assert small.strategy == "each"
    assert tokens[SHORT] < tokens[SURE] < tokens[LONG]

    whole, cut = observed(tmp_path / "large.jsonl", large), observed(tmp_path / "small.jsonl", small)
    ids = {passage.text: passage.id for passage in whole.passages}
    assert set(whole.asked[0].found) == set(ids.values())
    assert set(cut.asked[0].found) == {ids[SURE], ids[SHORT]}  # though the first is sure, so no more is read


def test_side_by_side_the_header_says_how_many_the_reader_learned_to_read(base: KnowledgeBase) -> None:
    readers = [dataclasses.replace(READER, passages=passages) for passages in (1, 2, 4)]
    headers = [bench_of(base, reader).header("digest") for reader in readers]
    assert [(each.strategy, each.passages) for each in headers] == [("each", 3), ("parallel", 2), ("parallel", 3)]
