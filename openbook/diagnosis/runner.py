"""Ask a model every question three ways: alone (closed-book), with the documents (open-book), with the passage (oracle).

`run_probes` puts the same questions to the probes. What was answered is kept in a file, and a run that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from openbook.diagnosis.bench import Bench, Stopped, ask_alone, ask_with
from openbook.diagnosis.gold_passages import GoldFinder
from openbook.diagnosis.probes import PROBES, ProbeLine, ProbeRun, probe_question
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, ShownPassage, Wording, open_run_log
from openbook.errors import EngineError
from openbook.parallel import Cancelled, Progress, in_order, never
from openbook.records import Passage
from openbook.retrieval import near_enough

DEPTH = 20  # passages in which the rank of one that holds the answer is looked for
MAX_FAILED = 16  # questions in a row on which the model failed


def run_questions(
    questions: Sequence[Question],
    bench: Bench,
    questions_digest: str,
    *,
    path: Path,
    progress: Progress = lambda done, total: None,
) -> None:
    """Ask what the file at `path` does not have yet, in order.

    A request on which the model fails is recorded as that, and its question is asked again by the next run, once. If
    it fails on every request of many questions in a row, the questions are not the cause: raises EngineError.
    Raises ConfigError, KnowledgeError, StorageError.
    """
    bench = bench.pinned()
    finder = GoldFinder(bench.base, bench.embedder, bench.scope)
    streak = FailureStreak(bench.model.identity.name)
    numbers = {question.id: number for number, question in enumerate(questions, 1)}
    observe = partial(_observe, bench, finder)
    with open_run_log(path, bench.header(questions_digest), Observation) as log:

        def is_due(question: Question) -> bool:
            there = log.find(question.id)
            return there is None or there.question != question or bool(there.failure)

        with closing(in_order(observe, filter(is_due, questions), bench.at_once, never)) as observed:
            for question, seen in observed:
                replies = (reply for wording in seen.asked for reply in wording.replies)
                # If nothing was found to read, the model was not asked, and no token read.
                streak.add(numbers[question.id], [reply.failure for reply in replies if reply.prompt_tokens != 0])
                log.append(seen)
                progress(numbers[question.id], len(questions))


def _observe(bench: Bench, finder: GoldFinder, question: Question, cancelled: Cancelled) -> Observation:
    """Raises Stopped, KnowledgeError."""
    gold = finder.find(question)
    oracle_hits = list(gold.hits[: bench.passages])
    shown: dict[str, Passage] = {}
    asked: list[Wording] = []
    for wording in question.wordings:
        alone = ask_alone(bench, wording, cancelled)
        started = time.perf_counter()
        hits = bench.retrieve(wording, DEPTH)
        retrieve_s = time.perf_counter() - started
        rank = next((n for n, hit in enumerate(hits, 1) if gold.spans_in(hit.passage)), 0)
        opened = ask_with(bench, wording, near_enough(hits[: bench.passages], bench.options), cancelled)
        oracle = ask_with(bench, wording, oracle_hits, cancelled).reply if oracle_hits else None
        reply = replace(opened.reply, seconds=opened.reply.seconds + retrieve_s)
        found = tuple(hit.passage.id for hit in opened.given)
        asked.append(Wording(wording, alone, reply, oracle, found, rank, opened.cited))
        shown |= {hit.passage.id: hit.passage for hit in (*opened.given, *oracle_hits)}
    passages = (ShownPassage(p.id, p.document, p.page, p.start, p.text, gold.spans_in(p)) for p in shown.values())
    holding = tuple(hit.passage.id for hit in oracle_hits)
    return Observation(question, tuple(asked), tuple(passages), holding, gold.located)


def run_probes(
    questions: Sequence[Question],
    bench: Bench,
    questions_digest: str = "",
    probes: Iterable[str] = PROBES,
    *,
    path: Path | None = None,
    progress: Progress = lambda done, total: None,
    cancelled: Cancelled = never,
) -> ProbeRun:
    """Put the probes of these names to one question after the other.

    When `cancelled`, the result is of what was measured so far.

    Trials are kept in `path`, if it is given, and nothing in it is asked again but requests on which the model failed.
    Raises ConfigError if the file is of something else; EngineError when the model fails on many questions in a row;
    KnowledgeError, StorageError.
    """
    bench, names = bench.pinned(), sorted(set(probes), key=[*PROBES].index)
    header = bench.header(questions_digest)
    finder = GoldFinder(bench.base, bench.embedder, bench.scope)
    streak = FailureStreak(bench.model.identity.name)
    trials: dict[str, dict[str, Any]] = {}  # of each question, by its id
    stopped = False
    with ExitStack() as stack:
        log = stack.enter_context(open_run_log(path, header, ProbeLine)) if path else None

        def is_due(question: Question) -> bool:
            line = log.find(question.id) if log else None
            there = line.read(names) if line else {}
            if len(there) < len(names) or any(trial.failure for trial in there.values()):
                return True
            trials[question.id] = there
            return False

        numbers = {question.id: number for number, question in enumerate(questions, 1)}
        measure = partial(probe_question, names, bench, finder)
        to_ask = filter(is_due, questions)
        measured = stack.enter_context(closing(in_order(measure, to_ask, bench.at_once, cancelled)))
        try:
            for question, found in measured:
                shown = (t for name, t in found.items() if t.failure or t.outcome in PROBES[name].outcomes_shown)
                streak.add(numbers[question.id], [trial.failure for trial in shown])
                if log:
                    log.append(ProbeLine(question.id, found))
                trials[question.id] = found
                progress(numbers[question.id], len(questions))
        except Stopped:
            stopped = True
    in_turn = [trials[question.id] for question in questions if question.id in trials]
    results = {name: PROBES[name].of([each[name] for each in in_turn]) for name in names if in_turn or not stopped}
    return ProbeRun(header, len(in_turn), stopped, results)


@dataclass(slots=True)
class FailureStreak:
    """How many questions in a row the model failed on. Those that lie apart in the file are not in a row.

    A second run asks only what failed before, which lies apart. So a few questions that always fail do not stop it.
    """

    model: str
    questions: int = 0
    _last: int = -1

    def add(self, place: int, failures: Sequence[str]) -> None:
        """`failures`: for each request of a question why it failed, or an empty text. Raises EngineError if they are too many."""
        if failures:
            before = self.questions if place == self._last + 1 else 0
            self.questions = before + 1 if all(failures) else 0
        self._last = place
        if self.questions >= MAX_FAILED:
            raise EngineError(
                f"{self.model} failed on {self.questions} questions in a row, so the run stops here: {failures[-1]} "
                "What was answered is kept. When that is put right, run the same command to go on."
            )
