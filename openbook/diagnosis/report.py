"""A diagnosis as one HTML page (`templates/`) that needs nothing else: no network and no other file; it can be read with scripts turned off.

Questions, answers and documents are other people's words: every text is escaped, control characters become spaces, and the
page's own policy lets a browser run no script but the one that is part of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.diagnosis.advice import advice
from openbook.diagnosis.llm_judge import JudgeAgreement
from openbook.diagnosis.probes import PROBES, ProbeRun
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, Reply, ShownPassage
from openbook.diagnosis.scoring import is_right
from openbook.diagnosis.summary import MODES, SHARED, Comparison, ModelSummary
from openbook.diagnosis.verdicts import VERDICTS, QuestionVerdict, reason
from openbook.files import replacing, storage_errors

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_QUESTIONS = 250  # of one verdict and model
MAX_TRIALS = 100  # of one probe
PATH_PARTS = 3  # of a document's path are shown
_JOINERS = "\u200c\u200d"  # invisible, and part of the spelling of some languages
_MODE_NAMES = {"closed_book": "alone", "open_book": "with documents", "oracle": "with the right passage"}

QuestionVerdicts = Iterable[tuple[Observation, QuestionVerdict]]


@dataclass(frozen=True, slots=True)
class Extras:
    """What else was measured of a model."""

    probe_run: ProbeRun | None = None
    opinion: JudgeAgreement | None = None


def write_report(
    path: Path,
    title: str,
    models: Sequence[tuple[ModelSummary, QuestionVerdicts]],
    comparisons: Sequence[Comparison] = (),
    extras: Mapping[str, Extras] = {},
) -> None:
    """One part for each model, with the `extras` of its name. Questions are written as they come. Raises StorageError."""
    template = _environment().get_template("report.html")
    parts = [_model(summary, verdicts, extras.get(summary.name, Extras())) for summary, verdicts in models]
    page = template.generate(title=title, models=parts, comparisons=comparisons, most_questions=MAX_QUESTIONS)
    with storage_errors(f"write {path}"), replacing(path) as stream:
        stream.writelines(part.encode("utf-8", "replace") for part in page)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("openbook.diagnosis"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "words": lambda verdict: verdict.replace("_", " "),
        "commas": "{:,}".format,
        "digest": _digest,
        "json": partial(json.dumps, ensure_ascii=False),
    }
    environment.globals |= {
        "style": _asset("report.css"),
        "script": _asset("report.js"),
        "verdicts": VERDICTS,
        "modes": MODES,
        "advice": advice,
        "reason": reason,
        "mark": mark,
        "role": role,
        "place": place,
        "cited_in": cited_in,
        "marked_pieces": marked_pieces,
        "shared": SHARED,
        "mode_names": _MODE_NAMES,
        "probes": PROBES,
        "most_trials": MAX_TRIALS,
    }
    return environment


def _asset(name: str) -> str:
    from markupsafe import Markup

    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))  # noqa: S704  our own file


def _digest(content: str) -> str:
    """For a Content-Security-Policy: what a browser may use as style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def visible(value: object) -> str:
    """With a space for each character that cannot be seen."""
    return "".join(c if c.isprintable() or c in "\n\t" or c in _JOINERS else " " for c in str(value))


# --- what the templates show ------------------------------------------------------------------------------------------


def _model(summary: ModelSummary, verdicts: QuestionVerdicts, extras: Extras) -> dict[str, Any]:
    counts = [share.count for share in summary.overall.verdicts.values()]
    return {
        "summary": summary,
        "verdicts": _first_of_each_verdict(verdicts),
        "questions_left_out": sum(max(0, n - MAX_QUESTIONS) for n in (*counts, summary.overall.failed)),
        "extras": extras,
    }


def _first_of_each_verdict(verdicts: QuestionVerdicts) -> Iterator[tuple[Observation, QuestionVerdict]]:
    seen: Counter[str] = Counter()
    for observation, found in verdicts:
        seen[found.verdict] += 1
        if seen[found.verdict] <= MAX_QUESTIONS:
            yield observation, found


def mark(reply: Reply, question: Question) -> str:
    """The word that is shown beside a reply."""
    if reply.failure:
        return "failed"
    if reply.abstained:
        return "abstained"
    if not question.answers:
        return ""
    return "right" if is_right(reply.text, question) else "wrong"


def role(passage: ShownPassage, observation: Observation) -> str:
    """What became of the passage in each wording of the question, counted from 1 if there are several."""
    several = len(observation.asked) > 1
    ranks = [
        f"as number {wording.found.index(passage.id) + 1}{f' (wording {number})' if several else ''}"
        for number, wording in enumerate(observation.asked, 1)
        if passage.id in wording.found
    ]
    text = f"given to the reader {', '.join(ranks)}" if ranks else "not given to the reader"
    if passage.gold:
        text += ", holds the answer" if passage.id in observation.holding else ", holds an answer"
    return text


def place(passage: ShownPassage) -> str:
    parts = passage.document.split("/")
    document = passage.document if len(parts) <= PATH_PARTS else "…/" + "/".join(parts[-PATH_PARTS:])
    page = f", page {passage.page}" if passage.page else ""
    return f"{document}{page}, characters {passage.start}–{passage.start + len(passage.text)}"


def cited_in(passage: ShownPassage, observation: Observation) -> list[tuple[int, int]]:
    """The spans of the passage's text that the answers with documents are cited from."""
    return [(start, end) for each in observation.asked for id_, start, end in each.cited if id_ == passage.id]


def marked_pieces(
    text: str, gold: Iterable[tuple[int, int]], cited: Iterable[tuple[int, int]]
) -> list[tuple[str, str]]:
    """(marks, piece) that make up the text. Spans may overlap, and reach beyond the text."""
    kinds = {"gold": list(gold), "cited": list(cited)}
    cuts = {0, len(text)}
    cuts.update(min(max(0, cut), len(text)) for spans in kinds.values() for span in spans for cut in span)
    return [
        (" ".join(k for k, spans in kinds.items() if any(a <= start and end <= b for a, b in spans)), text[start:end])
        for start, end in pairwise(sorted(cuts))
    ]
