"""The folder of a diagnosis: observations, then the numbers as JSON, the report to look at, and a table for a spreadsheet.

<folder>/observations-<model>.jsonl   what each model was seen to do (see `observations`)
         diagnosis.json               the numbers, and the verdict of each question (docs/formats/diagnosis.md)
         report.html                  the same to look at
         probes-<model>.jsonl         what its probes saw, if they were asked for (see `probe_run`)
         opinions-<judge>-of-<model>.jsonl   what a judge said of its answers, if one was asked (see `llm_judge`)
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from openbook import __version__
from openbook.diagnosis.advice import advice
from openbook.diagnosis.comparing import Comparison, Diagnosed, pairs_of
from openbook.diagnosis.deciding import judged, reason
from openbook.diagnosis.llm_judge import SecondOpinion
from openbook.diagnosis.observations import AGAIN, PREFIX, Header, Observation, header_of, read_observations
from openbook.diagnosis.probe_report import section
from openbook.diagnosis.probe_run import Probed
from openbook.diagnosis.probe_run import to_json as probes_to_json
from openbook.diagnosis.report import opinion_section, write_report
from openbook.diagnosis.summary import (
    FORMAT,
    MODES,
    ModelSummary,
    answer_in,
    outcomes_of,
    summarise,
    to_json,
)
from openbook.diagnosis.verdicts import Judged
from openbook.errors import ConfigError, StorageError
from openbook.files import replace_file, storage_errors
from openbook.records import ModelIdentity, sha256_hex

NUMBERS, REPORT = "diagnosis.json", "report.html"
GROUP_ROWS = 4096  # of a table in Parquet are in memory at a time
_COLUMNS = ["model", "id", "question", "accepted", "tags", "verdict", "silence", "right", *MODES, "rank", "reason"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that begins so for a formula


def observations_path(folder: Path, model: ModelIdentity) -> Path:
    """One file for each model, whatever its name."""
    return folder / f"{PREFIX}{_slug(model)}.jsonl"


def probes_path(folder: Path, model: ModelIdentity) -> Path:
    """What the probes of that model saw."""
    return folder / f"probes-{_slug(model)}.jsonl"


def opinions_path(folder: Path, judge: ModelIdentity, model: ModelIdentity) -> Path:
    """What the judge said of that model's answers."""
    return folder / f"opinions-{_slug(judge)}-of-{_slug(model)}.jsonl"


def _slug(model: ModelIdentity) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", model.name.lower()).strip("-.")[:60]
    return f"{slug}-{sha256_hex(f'{model.name} {model.digest}'.encode())[:8]}"


def observation_files(folder: Path) -> list[Path]:
    """Those of all models in the folder."""
    return sorted(path for path in folder.glob(f"{PREFIX}*.jsonl") if not path.name.endswith(AGAIN))


def of_other_models(files: Sequence[Path]) -> list[Path]:
    """What earlier runs observed, beside these files, of models of other names on the same questions.

    Raises ConfigError, StorageError.
    """
    headers = [read_observations(path)[0] for path in files]
    found = []
    for path in observation_files(files[0].parent):
        with suppress(ConfigError, StorageError):  # nothing that can be shown
            header = read_observations(path)[0]
            if header.questions == headers[0].questions and header.model.name not in {
                each.model.name for each in headers
            }:
                found.append(path)
    return found


def dropped(folder: Path, files: Sequence[Path], more: Mapping[str, More]) -> list[str]:
    """What the numbers in the folder hold, and those of these files will not. Raises ConfigError, StorageError."""
    headers = {each.model: each for each in (read_observations(path)[0] for path in files)}
    found = []
    for old, parts in _there(folder):
        new = headers.get(old.model)
        if new is None or new.questions != old.questions:
            found.append(f"{old.model.name} ({old.model.digest[:12] or 'no digest'})")
            continue
        missing = parts - more.get(old.model.name, More()).numbers().keys()
        found += [f"what {_PARTS[part]} of {old.model.name}" for part in sorted(missing)]
    return found


_PARTS = {"probes": "probes showed", "judge": "a judge said"}


def _there(folder: Path) -> list[tuple[Header, set[str]]]:
    """The header of each model in the folder's numbers, and what else was measured; nothing where there are none."""
    try:
        models = json.loads((folder / NUMBERS).read_bytes())["models"]
        return [(header_of(model["header"]), _PARTS.keys() & model.keys()) for model in models]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def judgements_in(path: Path, limit: int | None = None) -> Iterator[tuple[Observation, Judged]]:
    """Of the first `limit` questions, or of all."""
    return judged(islice(read_observations(path)[1], limit))


@dataclass(frozen=True, slots=True)
class More:
    """What else was measured of a model."""

    probed: Probed | None = None
    opinion: SecondOpinion | None = None

    def sections(self) -> tuple[str, ...]:
        """For the report."""
        found = [section(self.probed)] if self.probed else []
        return (*found, opinion_section(self.opinion)) if self.opinion else tuple(found)

    def numbers(self) -> dict[str, Any]:
        """For the JSON of the model."""
        found: dict[str, Any] = {"probes": probes_to_json(self.probed)} if self.probed else {}
        return {**found, "judge": asdict(self.opinion)} if self.opinion else found


def write_results(
    folder: Path,
    title: str,
    files: Sequence[Path],
    limit: int | None = None,
    more: Mapping[str, More] = {},
) -> tuple[list[ModelSummary], list[Comparison]]:
    """Numbers and report of these files of observations, one for each model. `more`: by the name of the model.

    Raises ConfigError, StorageError.
    """
    summaries = [summarise(read_observations(path)[0], judgements_in(path, limit)) for path in files]
    comparisons = pairs_of(summaries)
    content = json.dumps(numbers(title, summaries, comparisons, more), indent=1, ensure_ascii=False) + "\n"
    pages = [(summary, judgements_in(path, limit)) for summary, path in zip(summaries, files, strict=True)]
    sections = {name: each.sections() for name, each in more.items()}

    def write_numbers() -> None:
        with storage_errors(f"write {folder / NUMBERS}"):
            replace_file(folder / NUMBERS, content.encode("utf-8", "replace"))

    # `purge` sees by the numbers whether probes are in the report: they say so before it has any, and after it has none.
    probes = any(each.probed for each in more.values())
    if probes:
        write_numbers()
    write_report(folder / REPORT, title, pages, comparisons, sections)
    if not probes:
        write_numbers()
    return summaries, comparisons


def numbers(
    title: str,
    summaries: Sequence[ModelSummary],
    comparisons: Sequence[Comparison],
    more: Mapping[str, More] = {},
) -> dict[str, Any]:
    models = [
        {
            **to_json(each),
            "advice": [asdict(finding) for finding in advice(each)],
            **more.get(each.name, More()).numbers(),
        }
        for each in summaries
    ]
    return {
        "format": FORMAT,
        "openbook_version": __version__,
        "title": title,
        "models": models,
        "comparisons": [asdict(each) for each in comparisons],
    }


def read_outcomes(path: Path) -> list[Diagnosed]:
    """For each model in a `diagnosis.json`. Raises ConfigError, StorageError."""
    try:
        value = json.loads(path.read_bytes())
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']!r}; this version reads {FORMAT}")
        headers = [header_of(model["header"]) for model in value["models"]]
        return [
            Diagnosed(header.model.name, header, list(outcomes_of(model)))
            for header, model in zip(headers, value["models"], strict=True)
        ]
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is no {NUMBERS} of openbook diagnose: {error!r}.") from error


def write_csv(path: Path, files: Sequence[Path], limit: int | None = None) -> None:
    """One line for each model and question; `right` is empty where the model failed. Raises StorageError."""
    with storage_errors(f"write {path}"), path.open("w", encoding="utf-8", newline="", errors="replace") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        writer.writerows([_cell(value) for value in row] for row in _all_rows(files, limit))


def write_parquet(path: Path, files: Sequence[Path], limit: int | None = None) -> None:
    """The same table as Parquet, all columns texts, in groups of `GROUP_ROWS`; where `right` is empty, it is null.

    Raises ConfigError without pyarrow, StorageError.
    """
    arrow, parquet = parquet_library()
    schema = arrow.schema([(name, arrow.string()) for name in _COLUMNS])
    rows = _all_rows(files, limit)
    with storage_errors(f"write {path}"), parquet.ParquetWriter(path, schema) as writer:
        while group := [[None if value is None else str(value) for value in row] for row in islice(rows, GROUP_ROWS)]:
            columns = [list(column) for column in zip(*group, strict=True)]
            writer.write_table(arrow.table(columns, schema=schema))


def parquet_library() -> tuple[Any, Any]:
    """Raises ConfigError where it is not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow: pip install pyarrow. A table in CSV (--csv) needs nothing more."
        ) from error


def _all_rows(files: Sequence[Path], limit: int | None) -> Iterator[list[object]]:
    for file in files:
        yield from _rows(read_observations(file)[0].model.name, judgements_in(file, limit))


def _rows(name: str, judgements: Iterable[tuple[Observation, Judged]]) -> Iterator[list[object]]:
    for observation, found in judgements:
        question, wording = observation.question, observation.asked[found.wording]
        said = [answer_in(wording, mode) for mode in MODES]
        yield [
            name,
            question.id,
            wording.text,
            " | ".join(question.answers),
            " | ".join(question.tags),
            found.verdict,
            found.silence,
            None if found.verdict == "failed" else int(found.right),
            *(each.text if each else "" for each in said),
            wording.rank or "",
            reason(observation, found),
        ]


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
