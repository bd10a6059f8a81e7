"""What comes of observations: the numbers as JSON, the report to look at, and a table for a spreadsheet.

The folder of a diagnosis, as files (docs/formats/diagnosis.md):

<folder>/observations-<model>.jsonl   what each model answered (see `run_log`)
         diagnosis.json               the numbers, and the verdict of each question
         report.html                  the same to look at
         probes-<model>.jsonl         what its probes saw, if they were asked for (see `probes`)
         opinions-<judge>-of-<model>.jsonl   what a judge said of its answers, if one was asked (see `llm_judge`)
"""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from openbook import __version__
from openbook.codec import convert, parse_json
from openbook.diagnosis.advice import advice
from openbook.diagnosis.probes import to_json as probes_to_json
from openbook.diagnosis.report import Extras, write_report
from openbook.diagnosis.run_log import Observation, read_observations
from openbook.diagnosis.summary import FORMAT, MODES, Comparison, ModelOutcomes, ModelSummary, compare, summarise
from openbook.diagnosis.verdicts import QuestionVerdict, reason, verdicts_of
from openbook.errors import ConfigError, StorageError
from openbook.files import replace_file, storage_errors
from openbook.records import ModelIdentity, sha256_hex

NUMBERS, REPORT = "diagnosis.json", "report.html"
# How the names begin of files that grow by lines.
OBSERVATIONS, PROBES, OPINIONS = "observations-", "probes-", "opinions-"
_COLUMNS = ["model", "id", "question", "accepted", "tags", "verdict", "silence", "right", *MODES, "rank", "reason"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that begins so for a formula


def observations_path(folder: Path, model: ModelIdentity) -> Path:
    """One file for each model, whatever its name."""
    return folder / f"{OBSERVATIONS}{_slug(model)}.jsonl"


def probes_path(folder: Path, model: ModelIdentity) -> Path:
    return folder / f"{PROBES}{_slug(model)}.jsonl"


def opinions_path(folder: Path, judge: ModelIdentity, model: ModelIdentity) -> Path:
    return folder / f"{OPINIONS}{_slug(judge)}-of-{_slug(model)}.jsonl"


def _slug(model: ModelIdentity) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", model.name.lower()).strip("-.")[:60]
    return f"{slug}-{sha256_hex(f'{model.name} {model.digest}'.encode())[:8]}"


def observation_files(folder: Path) -> list[Path]:
    """Those of all models in the folder."""
    # While 0.1.0 replaced lines it wrote a second file beside the first. That is left over only where it was killed.
    return sorted(path for path in folder.glob(f"{OBSERVATIONS}*.jsonl") if not path.name.endswith(".again.jsonl"))


def of_other_models(files: Sequence[Path]) -> list[Path]:
    """What earlier runs in the same folder observed of other models on the same questions. Raises ConfigError, StorageError."""
    headers = [read_observations(path)[0] for path in files]
    names = {each.model.name for each in headers}
    found = []
    for path in observation_files(files[0].parent):
        with suppress(ConfigError, StorageError):  # nothing that can be shown
            header, lines = read_observations(path)
            if header.questions == headers[0].questions and header.model.name not in names:
                deque(lines, maxlen=0)  # raises where one is damaged
                found.append(path)
    return found


def verdicts_in(path: Path, limit: int | None = None) -> Iterator[tuple[Observation, QuestionVerdict]]:
    """Of the first `limit` questions, or of all."""
    return verdicts_of(islice(read_observations(path)[1], limit))


def write_results(
    folder: Path,
    title: str,
    files: Sequence[Path],
    limit: int | None = None,
    extras: Mapping[str, Extras] = {},
) -> tuple[list[ModelSummary], list[Comparison], dict[str, Any]]:
    """From a file of observations for each model, with `extras` by its name. Returns also the `numbers` that were written.

    Raises ConfigError, StorageError.
    """
    summaries = [summarise(read_observations(path)[0], verdicts_in(path, limit)) for path in files]
    comparisons = [compare(summaries[0], other) for other in summaries[1:]]
    value = numbers(title, summaries, comparisons, extras)
    content = json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    def write_numbers() -> None:
        with storage_errors(f"write {folder / NUMBERS}"):
            replace_file(folder / NUMBERS, content.encode("utf-8", "replace"))

    # `purge` sees by the numbers whether probes are in the report: they say so before it has any, and after it has none.
    probed = any(each.probe_run for each in extras.values())
    if probed:
        write_numbers()
    pages = [(summary, verdicts_in(path, limit)) for summary, path in zip(summaries, files, strict=True)]
    write_report(folder / REPORT, title, pages, comparisons, extras)
    if not probed:
        write_numbers()
    return summaries, comparisons, value


def numbers(
    title: str,
    summaries: Sequence[ModelSummary],
    comparisons: Sequence[Comparison],
    extras: Mapping[str, Extras] = {},
) -> dict[str, Any]:
    models = []
    for summary in summaries:
        model = {**asdict(summary), "advice": [asdict(finding) for finding in advice(summary)]}
        more = extras.get(summary.name, Extras())
        if more.probe_run:
            model["probes"] = probes_to_json(more.probe_run)
        if more.opinion:
            model["judge"] = asdict(more.opinion)
        models.append(model)
    return {
        "format": FORMAT,
        "openbook_version": __version__,
        "title": title,
        "models": models,
        "comparisons": [asdict(each) for each in comparisons],
    }


def read_outcomes(path: Path) -> list[ModelOutcomes]:
    """For each model in a `diagnosis.json`. Raises ConfigError, StorageError."""
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


def write_csv(path: Path, files: Sequence[Path], limit: int | None = None) -> None:
    """One line for each model and question; `right` is empty if the model failed. Raises StorageError."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for file in files:
        name = read_observations(file)[0].model.name
        for observation, found in verdicts_in(file, limit):
            question, wording = observation.question, observation.asked[found.wording_index]
            replies = [wording.reply(mode) for mode in MODES]
            row: list[object] = [
                name,
                question.id,
                wording.text,
                " | ".join(question.answers),
                " | ".join(question.tags),
                found.verdict,
                found.without_passage,
                None if found.verdict == "failed" else int(found.right),
                *(reply.text if reply else "" for reply in replies),
                wording.rank or "",
                reason(observation, found),
            ]
            writer.writerow([f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in row])
    with storage_errors(f"write {path}"):
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666
        replace_file(path, text.getvalue().encode("utf-8", "replace"), mode=mode)
