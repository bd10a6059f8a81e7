"""The results of a diagnosis: one HTML page, and the numbers as JSON.

Questions, answers and documents are untrusted: every text is escaped, control characters become spaces, and the content
security policy allows only the page's own script. The page is self-contained, and readable without scripts.

The folder of a diagnosis (docs/formats/diagnosis.md):

<folder>/observations-<model>.jsonl   each model's answers (see `run_log`)
         diagnosis.json               the numbers, and the verdict of each question
         report.html                  the same as a page
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook import __version__
from openbook.answers.certainty import CertaintyLimits
from openbook.core.codec import convert, parse_json
from openbook.core.errors import ConfigError
from openbook.core.files import replace_file, replacing, storage_errors
from openbook.core.records import ModelIdentity, sha256_hex
from openbook.diagnosis.advice import advice
from openbook.diagnosis.questions import Question
from openbook.diagnosis.run_log import Observation, Reply, ShownPassage, read_observations
from openbook.diagnosis.scoring import is_right
from openbook.diagnosis.summary import (
    FORMAT,
    MODES,
    SHARED,
    Comparison,
    ModelOutcomes,
    ModelSummary,
    compare,
    summarise,
)
from openbook.diagnosis.verdicts import VERDICTS, QuestionVerdict, reason, verdicts_of

if TYPE_CHECKING:
    from jinja2 import Environment

NUMBERS, REPORT = "diagnosis.json", "report.html"
OBSERVATIONS = "observations-"  # prefix of files that grow by lines
MAX_QUESTIONS = 250  # shown for each verdict and model
PATH_PARTS = 3  # of a document's path, to show
_JOINERS = "\u200c\u200d"  # invisible, but part of some languages' spelling
_MODE_NAMES = {"closed_book": "alone", "open_book": "with documents", "oracle": "with the right passage"}

QuestionVerdicts = Iterable[tuple[Observation, QuestionVerdict]]


# --- the folder -------------------------------------------------------------------------------------------------------


def observations_path(folder: Path, model: ModelIdentity) -> Path:
    return folder / f"{OBSERVATIONS}{_slug(model)}.jsonl"


def _slug(model: ModelIdentity) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", model.name.lower()).strip("-.")[:60]
    return f"{slug}-{sha256_hex(f'{model.name} {model.digest}'.encode())[:8]}"


def write_results(
    folder: Path,
    title: str,
    files: Sequence[Path],
    limit: int | None = None,
    limits: CertaintyLimits = CertaintyLimits(),
) -> tuple[list[ModelSummary], list[Comparison], dict[str, Any]]:
    """Write the numbers and the page, from one file of observations per model. `limits`: of certainty.

    Returns summaries, comparisons and the numbers. Raises ConfigError.
    """
    summaries = [summarise(read_observations(path)[0], _verdicts_in(path, limit), limits) for path in files]
    comparisons = [compare(summaries[0], other) for other in summaries[1:]]
    models = [{**asdict(each), "advice": [asdict(finding) for finding in advice(each)]} for each in summaries]
    value: dict[str, Any] = {"format": FORMAT, "openbook_version": __version__, "title": title}
    value |= {"models": models, "comparisons": [asdict(each) for each in comparisons]}
    content = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    pages = [(summary, _verdicts_in(path, limit)) for summary, path in zip(summaries, files, strict=True)]
    write_report(folder / REPORT, title, pages, comparisons)
    with storage_errors(f"write {folder / NUMBERS}"):
        replace_file(folder / NUMBERS, content.encode("utf-8", "replace"))
    return summaries, comparisons, value


def _verdicts_in(path: Path, limit: int | None = None) -> Iterator[tuple[Observation, QuestionVerdict]]:
    return verdicts_of(islice(read_observations(path)[1], limit))


def read_outcomes(path: Path) -> list[ModelOutcomes]:
    """Read a `diagnosis.json`. Raises ConfigError."""
    with storage_errors(f"read {path}"):
        content = path.read_bytes()
    value = parse_json(content, str(path), ConfigError)
    try:
        if value["format"] != FORMAT:
            raise ConfigError(f"{path} has the format {value['format']!r}; this version reads {FORMAT}.")
        models = [
            {"name": each["header"]["model"]["name"], "header": each["header"], "outcomes": each["outcomes"]}
            for each in value["models"]
        ]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a {NUMBERS} that openbook diagnose wrote: it lacks 'format', or 'models' with 'header' and 'outcomes'."
        ) from error
    return [convert(each, ModelOutcomes, f"{path}.models[{at}]", ConfigError) for at, each in enumerate(models)]


# --- the page ---------------------------------------------------------------------------------------------------------


def write_report(
    path: Path,
    title: str,
    models: Sequence[tuple[ModelSummary, QuestionVerdicts]],
    comparisons: Sequence[Comparison] = (),
) -> None:
    """Questions are streamed."""
    parts = []
    for summary, verdicts in models:
        counts = [share.count for share in summary.overall.verdicts.values()]
        parts.append(
            {
                "summary": summary,
                "verdicts": _first_of_each_verdict(verdicts),
                "questions_left_out": sum(max(0, n - MAX_QUESTIONS) for n in (*counts, summary.overall.failed)),
            }
        )
    template = _environment().get_template("report.html")
    page = template.generate(title=title, models=parts, comparisons=comparisons, most_questions=MAX_QUESTIONS)
    with storage_errors(f"write {path}"), replacing(path) as stream:
        stream.writelines(part.encode("utf-8", "replace") for part in page)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def asset(name: str) -> str:
        return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))  # noqa: S704  our own file

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
        "style": asset("report.css"),
        "script": asset("report.js"),
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
    }
    return environment


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def visible(value: object) -> str:
    """The value as text, with a space for each invisible character."""
    return "".join(c if c.isprintable() or c in "\n\t" or c in _JOINERS else " " for c in str(value))


def _first_of_each_verdict(verdicts: QuestionVerdicts) -> Iterator[tuple[Observation, QuestionVerdict]]:
    seen: Counter[str] = Counter()
    for observation, found in verdicts:
        seen[found.verdict] += 1
        if seen[found.verdict] <= MAX_QUESTIONS:
            yield observation, found


def mark(reply: Reply, question: Question) -> str:
    if reply.failure:
        return "failed"
    if reply.abstained:
        return "abstained"
    if not question.answers:
        return ""
    return "right" if is_right(reply.text, question) else "wrong"


def role(passage: ShownPassage, observation: Observation) -> str:
    """The passage's rank (from 1) in each wording's input, in words."""
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
    return [(start, end) for each in observation.asked for id_, start, end in each.cited if id_ == passage.id]


def marked_pieces(
    text: str, gold: Iterable[tuple[int, int]], cited: Iterable[tuple[int, int]]
) -> list[tuple[str, str]]:
    """Cut the text into (marks, piece). Spans may overlap, and reach beyond the text."""
    kinds = {"gold": list(gold), "cited": list(cited)}
    cuts = {0, len(text)}
    cuts.update(min(max(0, cut), len(text)) for spans in kinds.values() for span in spans for cut in span)
    return [
        (" ".join(k for k, spans in kinds.items() if any(a <= start and end <= b for a, b in spans)), text[start:end])
        for start, end in pairwise(sorted(cuts))
    ]
