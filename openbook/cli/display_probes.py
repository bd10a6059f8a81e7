"""What probes found, on the terminal: for each a table and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openbook.cli.display import console, printable, say

if TYPE_CHECKING:
    from rich.table import Table

    from openbook.diagnosis.probe_run import Probed
    from openbook.diagnosis.probing import Result


def print_probes(probed: Probed) -> None:
    from openbook.diagnosis.probe_report import TITLES

    out = console()
    name = printable(probed.header.model.name)
    stopped = " before it was stopped" if probed.stopped else ""
    say(out, f"\n{name}: {probed.questions} questions probed{stopped}", style="bold")
    for probe, result in probed.results.items():
        say(out, f"\n{TITLES[probe]}", style="cyan")
        out.print(_table(result))
        say(out, printable(result.meaning()))
        left_out = getattr(result, "left_out", {})
        if left_out:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items())
            say(out, f"Left out: {printable(reasons)}", style="dim")


def _table(result: Result) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for head in ("count", "share", "95 %"):
        table.add_column(head, justify="right", no_wrap=True)
    for what, share in result.rows():
        shown, between = "no data", ""
        if share.share is not None and share.low is not None and share.high is not None:
            shown, between = f"{share.share:.1%}", f"{100 * share.low:.0f} to {100 * share.high:.0f}"
        table.add_row(what, f"{share.count}/{share.of}", shown, between)
    return table
