"""The report: `price.json` with all numbers, and `price.html`, which needs nothing else and runs no script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openbook import __version__
from openbook.diagnosis.report import keep, table, text
from openbook.diagnosis.report_style import STYLE
from openbook.diagnosis.teaching import plot
from openbook.diagnosis.teaching.fact_arms import FactArm
from openbook.diagnosis.teaching.findings import (
    Finding,
    cost_of,
    cpu_seconds_each,
    difference,
    fact_findings,
    mean_of,
    name_of,
    points,
    skill_findings,
)
from openbook.diagnosis.teaching.skill_arms import GIVEN, SkillArm
from openbook.models.durable import replace_file, storage_errors

FORMAT = 1
NUMBERS, REPORT = "price.json", "price.html"
MOST_SHOWN = 40  # answers of one arm


@dataclass(frozen=True, slots=True)
class Measured:
    """`about`: what was measured with what, for people. `left_out`: parts for which the budget was too small."""

    about: Mapping[str, str]
    facts: Sequence[FactArm] = ()
    skills: Sequence[SkillArm] = ()
    left_out: Sequence[str] = ()
    notes: Sequence[str] = field(default=())

    @property
    def findings(self) -> list[Finding]:
        return [*(fact_findings(self.facts) if self.facts else []), *skill_findings(self.skills)]


def to_json(measured: Measured) -> dict[str, Any]:
    arms: dict[str, Sequence[FactArm | SkillArm]] = {"facts": measured.facts, "skills": measured.skills}
    return {
        "format": FORMAT,
        "openbook_version": __version__,
        **asdict(measured),
        **{key: [{**asdict(arm), "cost": asdict(cost_of(arm))} for arm in of_it] for key, of_it in arms.items()},
        "findings": [finding.to_json() for finding in measured.findings],
    }


def write_results(folder: Path, measured: Measured) -> None:
    """Raises StorageError."""
    content = json.dumps(to_json(measured), indent=1, ensure_ascii=False) + "\n"
    with storage_errors(f"write to {folder}"):
        replace_file(folder / NUMBERS, content.encode("utf-8", "replace"))
        replace_file(folder / REPORT, "".join(f"{part}\n" for part in _page(measured)).encode("utf-8", "replace"))


def _page(measured: Measured) -> Iterator[str]:
    title = "What does a fact cost, and what a skill?"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}{plot.STYLE}</style></head><body><h1>{title}</h1>"
    yield '<p class="soft">The same facts taught by training and supplied by retrieval; the same tasks with documents and after training.</p>'
    yield '<div class="figures">'
    if any(arm.remedy != "none" for arm in measured.facts):
        yield "<figure><figcaption>The price of a fact: new questions answered right</figcaption>"
        yield f"{plot.facts_svg(measured.facts)}{plot.facts_legend(measured.facts)}</figure>"
    if measured.skills:
        yield "<figure><figcaption>The price of a skill: new examples done right</figcaption>"
        yield f"{plot.skills_svg(measured.skills)}</figure>"
    yield "</div>"
    yield from _findings(measured.findings)
    if measured.facts:
        yield from _facts(measured.facts)
    if measured.skills:
        yield from _skills(measured.skills)
    for name in measured.left_out:
        yield f'<p class="soft">Left out, because the time was too short: {text(name)}</p>'
    yield "<h2>What was measured with what</h2>"
    yield table(["", ""], [[key, value] for key, value in measured.about.items()])
    yield "".join(f'<p class="soft">{text(note)}</p>' for note in measured.notes)
    yield "</body></html>"


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    yield "<h2>What it says, at this scale</h2>"
    rows = [
        [
            f"{text(each.claim)}<br><span class='soft'>{text(each.seen)}</span>",
            keep(points(each.difference, signed=True)) if each.difference else "",
            f'<b class="{each.outcome}">{"" if each.outcome == "no data" else each.outcome}</b>',
        ]
        for each in findings
    ]
    yield table(["", "difference in its direction", ""], rows, raw=True)


def fact_rows(arms: Sequence[FactArm]) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of the table of facts, in words."""
    heads = [
        "",
        "recall",
        "left after deletion",
        "known facts",
        "reading",
        "seconds a fact",
        "CPU-s a fact",
        "s an answer",
        "MB to teach",
        "MB to ask",
    ]
    alone = next((arm for arm in arms if arm.remedy == "none"), None)
    rows = []
    for arm in arms:
        cost, n = cost_of(arm), max(1, len(arm.recall))
        changed = points(mean_of(arm.reading)) if arm.reading else "as the base"
        if alone is not None and arm.remedy == "training" and arm.reading:
            changed = points(difference(arm.reading, alone.reading), signed=True)
        rows.append(
            [
                name_of(arm),
                points(mean_of(arm.recall)),
                points(mean_of(arm.left)),
                points(mean_of(arm.known)) if arm.known else "as the base",
                changed,
                _number(None if cost.seconds is None else cost.seconds / n, ".2f"),
                _number(cpu_seconds_each(arm), ".2f"),
                f"{arm.seconds_each:.2f}",
                _mb(cost.peak_mb),
                _mb(arm.asking_mb),
            ]
        )
    return heads, rows


def skill_rows(arms: Sequence[SkillArm]) -> tuple[list[str], list[list[str]]]:
    heads = [
        "skill",
        "model",
        "given",
        "right",
        "its document was read",
        "CPU-s of training",
        "MB to teach",
        "MB to ask",
    ]
    rows = []
    for arm in arms:
        found = points(mean_of(arm.found)) if arm.found else ""
        cost = cost_of(arm)
        spent = "" if cost.cpu_seconds == 0 else _number(cost.cpu_seconds, ",.0f")
        row = [arm.skill, arm.model, GIVEN[arm.given], points(mean_of(arm.right)), found, spent]
        rows.append([*row, _mb(cost.peak_mb), _mb(arm.asking_mb)])
    return heads, rows


def _number(value: float | None, form: str) -> str:
    return "not measured" if value is None else f"{value:{form}}"


def _mb(peak: float) -> str:
    return f"{peak:,.0f}" if peak else ""


def _facts(arms: Sequence[FactArm]) -> Iterator[str]:
    yield "<h2>The price of a fact</h2>"
    yield (
        '<p class="soft">Recall: of each fact the questions, none of them part of a lesson, that are answered right. Known '
        "facts: of those that the base answers. Reading: right answers with the passage, for trained models the difference to "
        "the base. Costs are of teaching: the whole training process, or adding the document; they are not measured "
        "where OpenBook was killed before it ended. MB are the most memory that the process held which taught, or "
        "asked. With 95 % intervals.</p>"
    )
    heads, rows = fact_rows(arms)
    yield table(heads, [[text(row[0]), *(keep(text(cell)) for cell in row[1:])] for row in rows], raw=True)
    yield '<details class="q"><summary>Every answer</summary>'
    for arm in arms:
        yield from _said(name_of(arm), arm.said)
    yield "</details>"


def _skills(arms: Sequence[SkillArm]) -> Iterator[str]:
    yield "<h2>The price of a skill</h2>"
    heads, rows = skill_rows(arms)
    yield table(heads, rows)
    yield '<details class="q"><summary>Every answer</summary>'
    for arm in arms:
        yield from _said(f"{arm.skill}: {arm.model}, {GIVEN[arm.given]}", arm.said)
    yield "</details>"


def _said(name: str, said: Sequence[Any]) -> Iterator[str]:
    rows = [[told.question, told.answer, "right" if told.right else "wrong"] for told in said[:MOST_SHOWN]]
    more = f", the first {MOST_SHOWN} of {len(said)}" if len(said) > MOST_SHOWN else ""
    yield f'<details class="q"><summary>{text(name)}{more}</summary>{table(["question", "answer", ""], rows)}</details>'
