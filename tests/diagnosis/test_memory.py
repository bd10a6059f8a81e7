"""How much of a long run is in memory: a few numbers for each question, and none of its words."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from openbook.answer import Options
from openbook.diagnosis.llm_judge import SecondOpinion, second_opinion
from openbook.diagnosis.questions import Question
from openbook.diagnosis.results import write_csv, write_results
from openbook.diagnosis.run_log import open_run_log
from openbook.diagnosis.runner import BLOCK, Bench, run_questions
from openbook.diagnosis.verdicts import CONTROLS
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.knowledge import KnowledgeBase, add
from openbook.records import Completion, Decoding, Prompt
from openbook.testing import HashEmbedder
from tests.diagnosis.table_engine import HEADER, SILENT, TableEngine, observation

WORDS = "The harbour master of Ostrevik opens the lock at high water. " * 40


class Forgetful(TableEngine):
    """Always says the same, and keeps nothing of what it was asked. Garbage that waits is no growth, so it goes first."""

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        gc.collect()
        text = self._answer(prompt)
        yield text
        return Completion(text, "end", 1, 1, "", self.numeric_class)


def _asked(count: int) -> Iterator[Question]:
    for n in range(count):
        question = f"{WORDS[:600]} When does ferry {n} leave?"
        yield Question(f"q{n}", question, (f"{n % 24:02}:40",), tags=("time",))


def _peak_of(do: Callable[[], object]) -> int:
    """In bytes."""
    gc.freeze()  # what is there already: collecting then takes microseconds
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def test_a_longer_run_holds_no_more_words(tmp_path: Path, embedder: HashEmbedder) -> None:
    (tmp_path / "harbour.txt").write_text(WORDS)
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / "harbour.txt"], embedder)
    bench = Bench(FrozenModel(Forgetful(lambda prompt: SILENT)), base, embedder, options=Options(min_similarity=-1.0))

    def run(count: int) -> None:
        with open_run_log(tmp_path / f"{count}.jsonl", bench.header("digest")) as record:
            run_questions(_asked(count), bench, record)

    run(BLOCK)  # what is made once
    few, many = _peak_of(lambda: run(2 * BLOCK)), _peak_of(lambda: run(6 * BLOCK))
    assert (tmp_path / f"{BLOCK}.jsonl").stat().st_size / BLOCK > 2500
    assert (many - few) / (4 * BLOCK) < 500


def test_of_what_a_judge_says_otherwise_so_many_are_held_and_the_rest_is_counted(tmp_path: Path) -> None:
    def judged(count: int) -> SecondOpinion:
        folder = tmp_path / str(count)
        judge = FrozenModel(Forgetful(lambda prompt: "Yes."))  # also of the one of three that is wrong
        return second_opinion(folder / "observations.jsonl", judge, folder / "opinions.jsonl")

    for count in (120, 480):
        with open_run_log(tmp_path / str(count) / "observations.jsonl", HEADER) as record:
            for n in range(count):
                record.append(observation(n, question=f"{WORDS} When does ferry {n} leave?"))
    few, many = _peak_of(lambda: judged(120)), _peak_of(lambda: judged(480))
    assert (many - few) / 360 < 700  # the words of a question alone are 2,400
    found = judged(120)
    assert (len(found.disagreements), found.too_mild, found.agreed.same.of) == (100, 120, 360)


def test_results_of_more_questions_hold_their_outcomes_and_no_words(tmp_path: Path) -> None:
    def written(count: int) -> None:
        path = tmp_path / str(count) / "observations-a.jsonl"
        write_results(path.parent, "Diagnosis", [path])
        write_csv(path.parent / "table.csv", [path])

    few, many = 3 * CONTROLS, 5 * CONTROLS  # each is judged beside so many before and after it
    for count in (few, many):
        with open_run_log(tmp_path / str(count) / "observations-a.jsonl", HEADER) as record:
            for n in range(count):
                record.append(observation(n, text=WORDS * 2))
    written(few)  # templates are compiled once
    growth = _peak_of(lambda: written(many)) - _peak_of(lambda: written(few))
    assert growth / (many - few) < 2500  # the words of a passage alone are 4,880
