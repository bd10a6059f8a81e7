"""What a person sees of a knowledge base: reports of runs, its state, its versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openbook.cli.display import console, print_json, print_verdicts, printable, say, short_path, with_advice

if TYPE_CHECKING:
    from openbook.inference.kv_cache import CacheStats
    from openbook.knowledge import Report
    from openbook.knowledge.base import Status
    from openbook.knowledge.check import CheckResult
    from openbook.knowledge.versions import Difference, Version
    from openbook.models.lineage import Learned
    from openbook.purging import PurgedEverywhere
    from openbook.records import Verdict

_SHOWN_CHANGES = 40
_SHOWN_CHARS = 160


def show_report(report: Report, folder: Path, *, as_json: bool, verbose: bool) -> None:
    if as_json:
        print_json({"knowledge_base": str(folder), **dataclasses.asdict(report)})
        return
    print_verdicts(report.verdicts if verbose else _told(report.verdicts), only_problems=not verbose)
    print_tally(report, folder)
    if report.left_labelled:
        say(
            console(),
            printable(
                f"{', '.join(map(short_path, report.left_labelled[:3]))} had access labels given by name and went, while new "
                "documents came without. If one is the same under another name, give it the labels: openbook add FILE --label"
            ),
            style="yellow",
        )
    if report.open_copies:
        say(
            console(),
            printable(
                f"The label closes a document and not its text: {', '.join(map(short_path, report.open_copies[:3]))} holds the same "
                "text and carries no label. To close it too: openbook add FILE --label"
            ),
            style="yellow",
        )


def _told(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Without the files that a glob leaves out, as was asked: they are counted."""
    return [v for v in verdicts if not (v.outcome == "skipped" and v.reason.startswith("left out by "))]


def print_tally(report: Report, folder: Path) -> None:
    from openbook.knowledge.updates import verdict_counts

    tally = ", ".join(f"{count} {outcome}" for outcome, count in verdict_counts(report.verdicts)) or "no files found"
    read = _characters(report.characters, report.source_characters)
    say(
        console(),
        f"{tally}.{f' {read}.' if report.source_characters else ''} {printable(short_path(str(folder)))} is at version {report.version}.",
    )


def _characters(read: int, held: int) -> str:
    return f"{read:,} characters of text" + (f" ({held:,} with markup)" if held != read else "")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def print_status(folder: Path, status: Status) -> None:
    out = console()
    copies = f" ({status.texts:,} different)" if status.texts != status.documents else ""
    rows = {
        "Knowledge base": short_path(str(folder)),
        "Version": f"{status.version} ({status.versions_kept} kept)",
        "Documents": f"{status.documents:,}{copies}",
        "Passages": f"{status.passages:,}",
        "Text": _characters(status.characters, status.source_characters),
        "Embedder": f"{status.embedder.name} ({status.embedder.digest[:12]}, {status.embedder.dimensions} dimensions)",
        "On disk": f"{status.bytes_on_disk / 1e6:,.1f} MB",
    }
    if status.sources:
        rows["Synced from"] = ", ".join(map(short_path, status.sources))
    for name, value in rows.items():
        say(out, printable(f"{name:<15} {value}"))
    if status.not_in:
        say(out, f"\nNot in it ({len(status.not_in)}):")
        for line in _grouped(status.not_in):
            say(out, printable(f"  {line}"))


def print_states(kept: CacheStats, most_mb: int) -> None:
    """What models computed of passages, of all knowledge bases together."""
    mean = f", {kept.bytes / kept.states / 1e6:.1f} MB each" if kept.states else ""
    mean += f", {kept.bytes / kept.tokens / 1e3:.1f} kB a token" if kept.tokens else ""
    say(console(), f"{'Read ahead':<15} {kept.states:,} of at most {most_mb:,} MB: {kept.bytes / 1e6:,.1f} MB{mean}")


def _grouped(verdicts: Sequence[Verdict]) -> list[str]:
    """One line for each failure; skipped files by reason, since there are often many of a kind."""
    lines = [f"failed   {short_path(v.path)}: {with_advice(v.reason)}" for v in verdicts if v.outcome == "failed"]
    reasons: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.outcome != "failed":
            reasons.setdefault(verdict.reason, []).append(short_path(verdict.path))
    for reason, paths in sorted(reasons.items()):
        lines.append(f"skipped  {len(paths)} file{'s' if len(paths) > 1 else ''}: {with_advice(reason)}")
        lines += [f"           {path}" for path in paths]
    return lines


def print_documents(paths: Sequence[str], labels: Mapping[str, Sequence[str]]) -> None:
    for path in paths:
        say(console(), printable(f"{path}  [{', '.join(labels[path])}]" if path in labels else path))


def print_history(versions: Sequence[Version], limit: int) -> None:
    out = console()
    for each in versions[:limit]:
        tags = f"  [{', '.join(each.tags)}]" if each.tags else ""
        say(
            out,
            f"{each.version:>6}  {each.created_at.replace('+00:00', 'Z')}  {each.documents:>7,} documents  {each.summary}{tags}",
        )
    if len(versions) > limit:
        say(out, f"... and {len(versions) - limit} older; --limit shows more.")


def print_difference(found: Difference) -> None:
    out = console()
    say(
        out,
        f"From version {found.before} to {found.after}: {_count(len(found.added), 'document')} added, {len(found.changed)} changed, "
        f"{len(found.removed)} removed, {len(found.described)} with other metadata or labels; {_count(len(found.passages_added), 'passage')} added, {len(found.passages_removed)} removed.",
    )
    for sign, paths, style in (
        ("+", found.added, "green"),
        ("~", found.changed, "yellow"),
        ("@", found.described, "yellow"),
        ("-", found.removed, "red"),
    ):
        for path in paths:
            say(out, printable(f"{sign} {short_path(path)}"), style=style)
    for sign, passages, style in (("+", found.passages_added, "green"), ("-", found.passages_removed, "red")):
        of_changed = [each for each in passages if each.document in found.changed]  # the others are added or gone whole
        document = ""
        for change in of_changed[:_SHOWN_CHANGES]:
            flat = " ".join(printable(change.text).split())
            text = flat if len(flat) <= _SHOWN_CHARS else flat[:_SHOWN_CHARS].rpartition(" ")[0] + "…"
            if change.document != document:
                document = change.document
                say(out, f"\n{sign} {printable(short_path(document))}", style=style)
            say(out, text, indent=4)
        if len(of_changed) > _SHOWN_CHANGES:
            say(out, f"... and {len(of_changed) - _SHOWN_CHANGES} more; --json lists all.")


def print_purged(done: PurgedEverywhere) -> None:
    from openbook.knowledge.erasure import BEYOND_REACH

    out, purged = console(), done.purged
    many = len(purged.documents)
    say(
        out,
        f"{_count(many, 'document')} and {_count(purged.passages, 'passage')} purged from every version; version {purged.version} begins.",
    )
    scanned = f"{_count(done.files, 'file')}, {done.bytes:,} bytes scanned"
    if done.proved:
        say(
            out,
            f"Proof: {scanned}; of their text, names, keys and vectors nothing is left that no other document holds.",
        )
    else:
        say(out, f"Not proved: {scanned}, but these may hold traces of them:", style="red")
        for each in done.not_clean:
            say(out, printable(f"{each.path} ({each.reason}): {each.advice}"), indent=2, style="red")
    for number, one, several in (
        (done.caches, "cached knowledge base of --docs", "cached knowledge bases of --docs"),
        (done.runs, "stopped training run's documents", "stopped training runs' documents"),
        (done.states, "state that models computed of them", "states that models computed of them"),
        (done.diagnoses, "diagnosis that showed their text", "diagnoses that showed their text"),
        (done.unfinished, "file that a killed process left", "files that killed processes left"),
    ):
        if number:
            say(out, f"Deleted too: {number:,} {one if number == 1 else several}.")
    if weights := done.unreached.get("weights"):
        say(
            out,
            f"Not scanned: {_count(weights, 'file')} of models' numbers. A model that has learned from them is named.",
        )
    if purged.on_disk:
        more = len(purged.on_disk) - 3
        names = ", ".join(map(short_path, purged.on_disk[:3])) + (f" and {more} more" if more > 0 else "")
        lost = f"; without the labels {', '.join(purged.labels)}, unless you give them again" if purged.labels else ""
        say(
            out,
            printable(f"Still on this disk, and taken in again by the next add or sync over it{lost}: {names}"),
            style="yellow",
        )
    for learned in done.carried:
        say(out, printable(_carried(learned)))
    say(out, BEYOND_REACH, style="dim")


def _carried(learned: Learned) -> str:
    if learned.found is None:
        return f"Whether the model {learned.name} has learned from it is {learned.note}."
    return (
        f"The model {learned.name} ({learned.model[:12]}) has learned from it, and a model cannot forget. Train it again "
        f"without these documents, or remove it: openbook models remove {learned.name}"
    )


def print_check(checked: CheckResult) -> None:
    out = console()
    if checked.damaged:
        say(out, "\nDamaged:", style="red")
        for line in checked.damaged:
            say(out, printable(f"  {line}"))
        return
    say(out, f"\nChecked: {checked.contents:,} texts and {checked.passages:,} passages are what their digests say.")
    for problem in checked.index_problems:
        say(out, printable(f"  index: {problem}"), style="yellow")
    if checked.index_problems:
        mended = (
            "The indexes were built anew."
            if checked.repaired
            else "The indexes could not be written; answers come from the truth."
        )
        say(out, mended)
