"""What facts and skills cost, on the terminal: a table for each, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.cli.display import console, printable, say, short_path

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from openbook.diagnosis.teaching.fact_arms import FactArm
    from openbook.diagnosis.teaching.page import Measured


def print_measured(measured: Measured, folder: Path) -> None:
    from openbook.diagnosis.teaching.findings import points
    from openbook.diagnosis.teaching.page import NUMBERS, REPORT, fact_rows, skill_rows

    out = console()
    if measured.facts:
        say(out, "\nThe price of a fact", style="bold")
        out.print(
            _table(
                *fact_rows(measured.facts), ("", "recall", "known facts", "CPU-s a fact", "MB to teach", "MB to ask")
            )
        )
        _print_curves(out, measured.facts)
    for skill in dict.fromkeys(arm.skill for arm in measured.skills):
        say(out, printable(f"\nThe price of a skill: {skill}"), style="bold")
        rows = skill_rows([arm for arm in measured.skills if arm.skill == skill])
        out.print(_table(*rows, ("model", "given", "right", "MB to teach", "MB to ask")))
    for finding in measured.findings:
        found = finding.difference
        verdict = f": {finding.outcome}, {points(found, signed=True)}" if found else "."
        say(out, printable(f"• {finding.claim}{verdict}"), style="bold")
        say(out, printable(finding.seen), indent=2)
    if measured.left_out:
        say(out, f"Left out, because the time was too short: {', '.join(measured.left_out)}", style="yellow")
    for note in measured.notes:
        say(out, printable(note), style="dim")
    say(out, f"\nreport  {short_path(str(folder / REPORT))}\nnumbers {short_path(str(folder / NUMBERS))}", style="dim")


def _print_curves(out: Console, arms: Sequence[FactArm]) -> None:
    """Of each form the recall over exposures, where there are several."""
    from openbook.cli.display import sparkline
    from openbook.diagnosis.teaching.findings import mean_of

    for form in dict.fromkeys(arm.form for arm in arms if arm.remedy == "training"):
        of_it = sorted((arm for arm in arms if arm.form == form), key=lambda arm: arm.exposures)
        if len(of_it) > 1:
            curve = sparkline([mean_of(arm.recall).mean for arm in of_it], out.encoding)
            say(out, f"recall, {form}: {curve} with {', '.join(str(arm.exposures) for arm in of_it)} exposures")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[str]) -> Table:
    """The columns that fit on a terminal; all of them are in the report."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="dim")
    columns = [heads.index(head) for head in shown]
    for head in shown:
        table.add_column(head.replace("MB ", "MB\n"), no_wrap=True)
    for row in rows:
        table.add_row(*(printable(row[column]) for column in columns))
    return table
