"""A diagnosis on the terminal: a bar and a table for each model, what to do, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.cli.display import console, printable, say, short_path

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from openbook.diagnosis.comparison import Comparison
    from openbook.diagnosis.probes import ProbeRun
    from openbook.diagnosis.report import Extras
    from openbook.diagnosis.summary import Group, ModelSummary, Share

_COLOURS = {
    "known": "green",
    "fixed_by_retrieval": "bright_green",
    "not_in_the_knowledge_base": "bright_black",
    "retriever_miss": "yellow",
    "distracted": "bright_red",
    "reader_gap": "red",
    "harmed_by_retrieval": "magenta",
}
_LETTERS = dict(zip(_COLOURS, "KFNMDGH", strict=True))  # instead, where there are no colours
_BAR = 60  # characters
_SMALL_BAR = 14
_MOST_TAGS = 15
_MOST_MOVES = 10


def print_diagnosis(
    summaries: Sequence[ModelSummary],
    comparisons: Sequence[Comparison],
    folder: Path,
    more: Mapping[str, Extras] = {},
) -> None:
    from openbook.diagnosis.results import NUMBERS, REPORT

    out = console()
    for summary in summaries:
        _print_model(out, summary)
        _print_more(out, more.get(summary.name))
    if comparisons:
        print_comparisons(comparisons)
    say(out, f"\nreport  {short_path(str(folder / REPORT))}\nnumbers {short_path(str(folder / NUMBERS))}", style="dim")


def _print_model(out: Console, summary: ModelSummary) -> None:
    from openbook.diagnosis.advice import advice

    group = summary.overall
    failed = f", {group.failed} failed and not counted" if group.failed else ""
    say(out, f"\n{printable(summary.name)}: {group.questions} questions{failed}", style="bold")
    coloured = out.is_terminal and not out.no_color
    say(out, _bar(group, _BAR, coloured=coloured))
    out.print(_verdicts(group, coloured=coloured))
    if len(summary.by_kind) > 1:
        out.print(_groups("kind", summary.by_kind, coloured=coloured))
    if summary.by_tag:
        out.print(_groups("tag", summary.by_tag, coloured=coloured))
    for finding in advice(summary):
        say(out, f"• {printable(str(finding))}")


def _print_more(out: Console, more: Extras | None) -> None:
    if more and more.probe_run:
        print_probes(more.probe_run)
    if more and more.opinion:
        say(out, f"\n{printable(str(more.opinion))}")


def print_probes(probed: ProbeRun) -> None:
    """For each probe a table and what it means."""
    from openbook.diagnosis.probes import PROBES

    out = console()
    stopped = " before it was stopped" if probed.stopped else ""
    say(out, f"\n{printable(probed.header.model.name)}: {probed.questions} questions probed{stopped}", style="bold")
    for name, result in probed.results.items():
        say(out, f"\n{PROBES[name].title}", style="cyan")
        table = _table("", "questions", "share", "95 %")
        for what, share in result.rows():
            table.add_row(what, f"{share.count}/{share.of}", *_in_words(share))
        out.print(table)
        say(out, printable(result.meaning()))
        if result.left_out:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in result.left_out.items())
            say(out, f"Left out: {printable(reasons)}", style="dim")


def _in_words(found: Share) -> tuple[str, str]:
    """(the share, its interval)."""
    if found.share is None or found.low is None or found.high is None:
        return "no data", ""
    return f"{found.share:.1%}", f"{100 * found.low:.0f} to {100 * found.high:.0f}"


def _verdicts(group: Group, *, coloured: bool) -> Table:
    from rich.text import Text

    from openbook.diagnosis.summary import SHARED

    table = _table("", "verdict", "questions", "share", "95 %")
    for verdict in SHARED:
        found = group.verdicts[verdict]
        mark = Text("■" if coloured else _LETTERS[verdict], _COLOURS[verdict])
        table.add_row(mark, verdict.replace("_", " "), str(found.count), *_in_words(found))
    return table


def _groups(name: str, groups: Mapping[str, Group], *, coloured: bool) -> Table:
    from rich.text import Text

    table = _table(name, "questions", "right or rightly silent", "")
    most = sorted(groups.items(), key=lambda each: (-each[1].questions, each[0]))
    for key, group in most[:_MOST_TAGS]:
        table.add_row(
            Text(printable(key)),
            str(group.questions),
            Text(str(group.right)),
            _bar(group, _SMALL_BAR, coloured=coloured),
        )
    if len(most) > _MOST_TAGS:
        table.caption = f"and {len(most) - _MOST_TAGS} more in the report"
    return table


def _bar(group: Group, width: int, *, coloured: bool) -> Text:
    """Blocks in the verdicts' colours, or their letters; each verdict that occurs has its share of them, rounded where it ends."""
    from rich.text import Text

    from openbook.diagnosis.summary import SHARED

    text, share_so_far, drawn = Text(), 0.0, 0
    for verdict in SHARED:
        share_so_far += group.verdicts[verdict].share or 0.0
        end = round(width * share_so_far)
        text.append(("█" if coloured else _LETTERS[verdict]) * (end - drawn), _COLOURS[verdict])
        drawn = end
    return text


def print_comparisons(comparisons: Sequence[Comparison]) -> None:
    from rich.text import Text

    out = console()
    for each in comparisons:
        first, second = printable(each.first), printable(each.second)
        say(out, f"\n{first} against {second}, {each.questions} questions", style="bold")
        table = _table("", "questions")
        table.add_row("right in both", str(each.both_right))
        table.add_row(Text(f"only {first}"), str(each.only_first))
        table.add_row(Text(f"only {second}"), str(each.only_second))
        out.print(table)
        for note in each.all_notes():
            say(out, printable(note), style="yellow")
        say(out, f"McNemar's test, two-sided: p = {each.p_text}")
        for before, after, count in each.moved[:_MOST_MOVES]:
            say(out, f"{count:>5}  {before.replace('_', ' ')} → {after.replace('_', ' ')}")


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head, justify="right" if head in ("questions", "share") else "left")
    return table
