"""An engine that answers from a table, and small observations to judge."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from openbook.answers.certainty import Signals
from openbook.answers.prompts import question_of_block, reading_prompt
from openbook.answers.retrieval import Options
from openbook.core.errors import EngineError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, EmbedderIdentity, ModelIdentity, Prompt, sha256_hex
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Header, Observation, Reply, ShownPassage, Wording, open_run_log
from openbook.diagnosis.runner import Bench
from openbook.inference import FrozenModel
from openbook.knowledge import KnowledgeBase
from openbook.testing import EchoEngine, HashEmbedder

FAILS = "<fails>"
SILENT = "The passages do not say."
WRONG = "It leaves at noon."
SURE = Signals(1.0, 1.0, 1.0, 0.0)
PROMPT_TOKENS = EchoEngine().count_prompt_tokens(reading_prompt("", []))  # without passages and question


class TableEngine(EchoEngine):
    """`answer(prompt)` is what it says; `FAILS` raises. `asked`: what it was asked, in order."""

    numeric_class = "table"

    def __init__(self, answer: Callable[[Prompt], str], name: str = "table", context_tokens: int = 100_000) -> None:
        super().__init__(context_tokens=context_tokens)
        self.identity = ModelIdentity(name, sha256_hex(name.encode()), "verified")
        self.asked: list[Prompt] = []
        self._says = answer

    def _answer(self, prompt: Prompt) -> str:
        self.asked.append(prompt)
        text = self._says(prompt)
        if text == FAILS:
            raise EngineError("The engine fell over.")
        return text


def question_in(prompt: Prompt) -> str:
    return question_of_block(prompt.question)


def table_model(closed: dict[str, str], opened: Callable[[str, str], str], name: str = "table") -> FrozenModel:
    """Alone it says `closed[question]`, or "No idea"; with passages `opened(question, the passages' text)`."""

    def answer(prompt: Prompt) -> str:
        asked = question_in(prompt)
        if not prompt.passages:
            return closed.get(asked, "No idea")
        return opened(asked, "\n".join(prompt.passages))

    return FrozenModel(TableEngine(answer, name))


class Keeps(EchoEngine):
    """Keeps what it computes, and notes what had been purged when the passages of a prompt were looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.purged = 0
        self.marks: list[str | None] = []

    def purge_mark(self) -> str:
        return str(self.purged)

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self.marks.append(prompt.purge_mark)
        return (yield from super().generate(prompt, decoding, cancelled))


def bench_with(model: FrozenModel, base: KnowledgeBase, **options: Any) -> Bench:
    """One to which every passage is near enough."""
    return Bench(model, base, HashEmbedder(), options=Options(min_similarity=-1.0, **options)).pinned()


HEADER = Header(
    model=ModelIdentity("table", sha256_hex(b"table"), "verified"),
    numeric_class="table",
    knowledge_base="kb",
    knowledge_base_version=1,
    embedder=EmbedderIdentity("hash", sha256_hex(b"hash"), 64),
    questions=sha256_hex(b"questions"),
    strategy="together",
    passages=2,
    min_similarity=0.2,
    context_tokens=4096,
    decoding=Decoding(stop=("\n",)),
)


def observation(number: int = 0, **changes: Any) -> Observation:
    """A question that is fixed by retrieval, unless `changes` to question, answers or wordings say otherwise."""
    fields = {
        "question": f"When does ferry {number} leave?",
        "answers": (f"0{number % 10}:40",),
        "closed": "No idea.",
        "opened": f"It leaves at 0{number % 10}:40.",
        "oracle": f"0{number % 10}:40",
        "failure": "",
        "rank": 1,
        "found": ("p1",),
        "holding": ("p1",),
        "tags": ("time",),
        "cited": (("p1", 0, 5),),
        "document": "/docs/ferry.md",
        **changes,
    }
    silent = fields["opened"] == SILENT
    wording = Wording(
        text=fields["question"],
        closed=Reply(fields["closed"], fields["closed"] == SILENT, 0.5, 12, 3, fields["failure"]),
        opened=Reply(fields["opened"], silent, 1.5, 100, 8),
        oracle=Reply(fields["oracle"], fields["oracle"] == SILENT, 1.0, 50, 4) if fields["holding"] else None,
        found=fields["found"],
        rank=fields["rank"],
        cited=fields["cited"],
    )
    text = f"Ferry {number} leaves at 0{number % 10}:40 from pier 3."
    kind = "answerable" if fields["answers"] else "unanswerable"
    question = Question(f"q{number}", fields["question"], fields["answers"], kind, (), None, fields["tags"])  # type: ignore[arg-type]
    seen = ShownPassage(
        "p1", fields["document"], None, 0, fields.get("text", text), ((0, 5),) if fields["holding"] else ()
    )
    located = "answers" if fields["holding"] else ""
    return Observation(question, (wording,), (seen,), fields["holding"], located)


def logged(path: Path, *observations: Observation) -> Path:
    """A file of these observations: a new one, or the old one with them added."""
    with open_run_log(path, HEADER, Observation) as log:
        for each in observations:
            log.append(each)
    return path


def mixed() -> list[Observation]:
    """3 fixed, 4 retriever misses (3 of them at rank 9), 2 reader gaps, 1 distracted, 1 silent and 1 invented, 1 failed."""
    cases = [observation(n, tags=("easy",)) for n in range(3)]
    cases += [observation(n, opened=WRONG, found=(), rank=9) for n in range(3, 6)]
    cases += [observation(6, opened=WRONG, found=(), rank=0)]
    cases += [observation(n, opened=WRONG, oracle=WRONG) for n in (7, 8)]
    cases += [observation(9, opened=WRONG)]
    cases += [observation(10, answers=(), opened=SILENT, holding=(), rank=0)]
    cases += [observation(11, answers=(), opened=WRONG, holding=(), rank=0)]
    return [*cases, observation(12, failure="The engine fell over.")]


def judged_cases() -> list[Observation]:
    """With a certainty 40 right, 2 wrong and 1 failed; without one 1 right and 2 declined, of which 1 rightly."""

    def sure(case: Observation) -> Observation:
        return replace(case, asked=(replace(case.asked[0], signals=SURE),))

    found = [sure(observation(n)) for n in range(40)]
    found += [sure(observation(n, opened="Never.")) for n in (40, 41)]
    found += [observation(42), observation(43, opened=SILENT), observation(44, opened=SILENT, holding=())]
    return [*found, sure(observation(45, failure="It fell over."))]
