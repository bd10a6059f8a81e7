"""Terminal output: lines, progress, answers, problems.

Plain when piped or NO_COLOR is set. Documents cannot steer the terminal.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.answers.answer_text import printable
from openbook.core.config import DatabaseUrl, Place

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.status import Status
    from rich.text import Text

    from openbook.core.records import Answer, Citation, Hit, Verdict
    from openbook.knowledge.word_diff import Piece

LINE_S = 30.0  # between lines of progress, without a terminal
_CONTEXT_CHARS = 160  # on each side of a quote or changed passage
_HIT_CHARS = 400
_MAX_PROBLEMS = 20
_RULE = re.compile(r"^[ \t]*[-=~^\"'`#*+:.|_ ]{4,}[ \t]*$", re.MULTILINE)
_STAGES = {
    "fetch": "Fetching",
    "verify": "Verifying",
    "items": "Fetching items",
    "digest": "Comparing files",
    "read": "Reading files",
    "embed": "Embedding passages",
    "gate": "Comparing answers",
    "precompute": "Precomputing",
    "copy": "Copying rows",
    "compare": "Comparing rows",
    "diagnose": "Asking questions",
    "probe": "Probing answers",
    "draft": "Drafting questions",
}


# --- lines ------------------------------------------------------------------------------------------------------------


@functools.cache
def console() -> Console:
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with an error, but a reader that has enough is none

    return Plain(highlight=False)


@functools.cache
def error_console() -> Console:
    """Progress and notes: standard output holds only the answer."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: Text | str, style: str = "", *, indent: int = 0) -> None:
    """Print wrapped on a terminal, in whole lines otherwise."""
    from rich.padding import Padding
    from rich.text import Text

    out, line = console(), text if isinstance(text, Text) else Text(text)
    line.plain = printable(line.plain)
    if out.is_terminal:
        out.print(Padding(line, (0, 0, 0, indent)) if indent else line, style=style)
    else:
        out.print(Text(" " * indent).append_text(line), style=style, soft_wrap=True)


def say_each(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def table(rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of rows with equally many cells, in aligned columns."""
    from rich.cells import cell_len

    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    padded = ([cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)] for row in texts)
    return ["  ".join(row).rstrip() for row in padded]


def say_in_pager(lines: Sequence[str]) -> None:
    """Print lines; in a pager if the terminal is too small for them."""
    text = "".join(f"{printable(line)}\n" for line in lines)
    if not lines:
        note("Nothing was found.")
    if console().is_terminal and len(lines) >= console().height:
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


def note(text: str, style: str = "") -> None:
    """Print one line on standard error."""
    error_console().print(printable(text), style=style, markup=False, soft_wrap=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on standard error, unless `yes`. Raises click.Abort (exit code 130) for anything but a yes."""
    if not yes and not click.confirm(question, err=True):
        note("Nothing was changed.")
        raise click.Abort


def show(as_json: bool, value: object, in_words: Callable[..., None], *of: Any) -> None:
    """Print `value` as JSON, or call `in_words(*of)`."""
    if as_json:
        utf_8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
        click.echo(json.dumps(value, ensure_ascii=not utf_8, indent=2, default=_plain))
    else:
        in_words(*of)


def _plain(value: Any) -> object:
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return str(value) if isinstance(value, Path | DatabaseUrl) else dict(value)


def count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def short_path(path: str | Place) -> str:
    """Relative to the working folder if it is below it."""
    if isinstance(path, DatabaseUrl):
        return str(path)
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def short_paths(paths: Sequence[str]) -> str:
    """The first three, and how many more."""
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(map(short_path, paths[:3])) + more


# --- while something is done ------------------------------------------------------------------------------------------


@contextmanager
def progress(stage: str) -> Iterator[Callable[[int, int], None]]:
    """As `stages`, for one stage."""
    with stages() as show:
        yield functools.partial(show, stage)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on standard error, created on first use so that quick work loads nothing; without a terminal, rare lines."""
    opened: list[Progress] = []
    last_line = [time.monotonic()]
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        of_bytes = stage in ("fetch", "verify")
        if not sys.stderr.isatty():  # a log wants neither bars nor the empty lines they leave
            if time.monotonic() - last_line[0] >= LINE_S:
                last_line[0] = time.monotonic()
                unit, word = (1_000_000, " MB") if of_bytes else (1, "")
                of = f" of {total // unit:,}" if total else ""
                note(f"{_STAGES[stage]}: {done // unit:,}{of}{word}")
            return
        if not opened:
            from rich import progress as bars

            amount = [bars.DownloadColumn(), bars.TransferSpeedColumn()] if of_bytes else [bars.MofNCompleteColumn()]
            columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), *amount, bars.TimeRemainingColumn())
            opened.append(bars.Progress(*columns, console=error_console(), transient=True))
            opened[0].start()
        if stage not in tasks:
            tasks[stage] = opened[0].add_task(_STAGES[stage], total=total or None)
        opened[0].update(tasks[stage], completed=done, total=total or None)

    try:
        yield show
    finally:
        for each in opened:
            each.stop()


@contextmanager
def while_reading(*, quiet: bool = False) -> Iterator[LiveAnswer]:
    """A spinner until the first words, then the words."""
    out = console() if sys.stdout.isatty() and not quiet else None
    reading = error_console().status("Reading...") if sys.stderr.isatty() and not quiet else nullcontext()
    with reading as spinner:
        yield LiveAnswer(out, spinner)


class LiveAnswer:
    """Shows words as they come: on the terminal `out`, or the last ones next to a spinner."""

    def __init__(self, out: Console | None, spinner: Status | None) -> None:
        self._out, self._spinner = out, spinner
        self._text, self._reading = "", "Reading"
        self._printed = self._column = 0

    def show(self, piece: str) -> None:
        from rich.text import Text

        self._text += piece
        if self._out is not None:
            if self._spinner is not None:
                self._spinner.stop()
            whole_words = len(self._text) - len(re.findall(r"\S*\Z", self._text)[0])
            self._print(self._out, self._text[:whole_words])
        elif self._spinner is not None:
            self._spinner.update(Text(self._text[-(self._spinner.console.width - 4) :]))

    def found(self, _searched: str, hits: Sequence[Hit]) -> None:
        self._reading = f"Reading {count(len(hits), 'passage')}"
        if self._spinner is not None:
            self._spinner.update(f"{self._reading}...")

    def progress(self, done: int, total: int) -> None:
        if self._spinner is not None:
            self._spinner.update(f"{self._reading}: {done:,} of {total:,} tokens...")

    def end(self, answer: str) -> bool:
        """Print the rest, or the whole answer if the model's words differ from it. False: nothing was printed."""
        if self._out is None or not self._printed:
            return False
        goes_on = answer.startswith(self._text[: self._printed])
        if goes_on:
            self._print(self._out, answer)
        self._out.print()
        if not goes_on:
            self._out.print(printable(answer), style="bold", markup=False)
        return True

    def _print(self, out: Console, text: str) -> None:
        """Print what is new, wrapped at words."""
        from rich.cells import cell_len

        for part in re.findall(r"\n|[^\S\n]+|\S+", printable(text[self._printed :])):
            if part == "\n" or (self._column + cell_len(part) > out.width and self._column):
                out.print()
                self._column = 0
                if part.isspace():
                    continue
            out.print(part, style="bold", end="", markup=False, soft_wrap=True)
            self._column += cell_len(part)
        self._printed = len(text)


# --- answers ----------------------------------------------------------------------------------------------------------


_COLOURS = {"supported": "green", "likely": "green", "check it": "yellow", "not found": "yellow"}


def print_answer(answer: Answer, live: LiveAnswer | None = None) -> None:
    """`live`: the part already on the terminal."""
    from rich.text import Text

    from openbook.answers.certainty import MEANING, UNMEASURED
    from openbook.answers.reading import CLOSED_BOOK

    if live is None or not live.end(answer.answer):
        say(answer.answer, "bold")
    passages = {h.passage.id: h for h in answer.passages}
    quoted = [(each, answer.citations[each.citation]) for each in answer.sentences if each.citation is not None]
    backing = [citation for each, citation in quoted if each.support == "backed"]
    for number, citation in enumerate(_joined(answer.citations, passages), start=1):
        is_backing = any(
            each.passage_id == citation.passage_id and citation.start <= each.start and each.end <= citation.end
            for each in backing
        )
        only = "" if is_backing else ", only near"
        say(Text.assemble("\n", (f"[{number}] {_place(citation)}", "cyan"), (only, "yellow")))
        say(_quote_in_context(citation, passages.get(citation.passage_id)), indent=4)
    for sentence in answer.sentences:
        if sentence.support == "none":
            part = answer.answer[sentence.start : sentence.end]
            say(f"\nCould not be matched with a passage: {_flat(part)}", "yellow")
    for remark in answer.notes:
        say(f"\n{remark}", "yellow")
    if answer.closest:
        say("\nClosest in your documents:")
        for citation in answer.closest:
            say(f'"{_flat(citation.quote)}" ({_place(citation)})', indent=4)
    elif answer.passages and not answer.citations:
        say("\nRead, but not cited:", "dim")
        for hit in answer.passages:
            say(_hit_place(hit), "dim", indent=4)
            say(excerpt(hit.passage.text), "dim", indent=8)
    if answer.receipt.strategy != CLOSED_BOOK:
        sure = "" if answer.certainty is None else f" ({answer.certainty:.0%})"
        measured = answer.certainty is not None or answer.declined
        meaning = MEANING[answer.confidence] if measured else UNMEASURED
        say(f"\n{answer.confidence.capitalize()}{sure}: {meaning}", _COLOURS[answer.confidence])
    say(f"\n{_provenance(answer)}", "dim")


def _joined(citations: Sequence[Citation], passages: Mapping[str, Hit]) -> list[Citation]:
    """Merge adjacent or overlapping quotes of one passage."""
    joined: list[Citation] = []
    order = list(dict.fromkeys(citation.passage_id for citation in citations))
    for citation in sorted(citations, key=lambda c: (order.index(c.passage_id), c.start)):
        last = joined[-1] if joined else None
        hit = passages.get(citation.passage_id)
        if last is None or hit is None or last.passage_id != citation.passage_id or citation.start > last.end + 2:
            joined.append(citation)
            continue
        end, start = max(last.end, citation.end), hit.passage.start
        joined[-1] = dataclasses.replace(last, end=end, quote=hit.passage.text[last.start - start : end - start])
    return joined


def _provenance(answer: Answer) -> str:
    receipt, model = answer.receipt, answer.receipt.model
    parts = [f"{model.name} ({model.digest[:12] + ', ' if model.digest else ''}{model.evidence})"]
    if receipt.knowledge_base_version is not None:
        parts.append(f"knowledge base version {receipt.knowledge_base_version}")
    if answer.timings is not None:
        parts.append(f"{answer.timings.total_s:.1f} s")
    return " · ".join(parts)


def _quote_in_context(citation: Citation, hit: Hit | None) -> Text:
    from rich.text import Text

    before = after = ""
    if hit is not None:
        text, start = hit.passage.text, citation.start - hit.passage.start
        before = _flat(text[:start]).lstrip()
        if len(before) > _CONTEXT_CHARS:
            before = "…" + before[-_CONTEXT_CHARS:].partition(" ")[2]
        after = _shortened(_flat(text[start + len(citation.quote) :]).rstrip())
    return Text.assemble((before, "dim"), (_flat(citation.quote), "reverse"), (after, "dim"))


def _flat(text: str) -> str:
    """One line without rules of headings and tables. The record stays verbatim."""
    return re.sub(r"\s+", " ", printable(_RULE.sub("", text)))


def excerpt(text: str, most: int = _CONTEXT_CHARS) -> str:
    return _shortened(_flat(text).strip(), most)


def _shortened(text: str, most: int = _CONTEXT_CHARS) -> str:
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + "…"


def _place(citation: Citation) -> str:
    page = f" · page {citation.page}" if citation.page else ""
    also = f" · also in {short_paths(citation.also_in)}" if citation.also_in else ""
    return f"{short_path(citation.document)}{page} · characters {citation.start}–{citation.end}{also}"


def _hit_place(hit: Hit) -> str:
    page = f", page {hit.passage.page}" if hit.passage.page else ""
    headings = f" › {' › '.join(hit.passage.headings)}" if hit.passage.headings else ""
    return f"{short_path(hit.passage.document)}{page}{headings}"


def print_hits(query: str, hits: Sequence[Hit]) -> None:
    from rich.text import Text

    if not hits:
        say(f"Nothing found for {query!r}.")
    for number, hit in enumerate(hits, start=1):
        ranks = f"dense {hit.dense_rank or '–'}, words {hit.bm25_rank or '–'}"
        say(Text.assemble((f"[{number}] {_hit_place(hit)}", "cyan"), (f"  ({ranks})", "dim")))
        say(excerpt(hit.passage.text, _HIT_CHARS), indent=4)


# --- files ------------------------------------------------------------------------------------------------------------


def print_problems(verdicts: Sequence[Verdict], place: Place | None = None) -> None:
    """Show failed files on standard error; excluded ones are only counted. `place`: the knowledge base, if it persists."""
    from openbook.knowledge.ingest.discovery import LEFT_OUT_BY

    problems = [
        each for each in verdicts if each.outcome in ("skipped", "failed") and not each.reason.startswith(LEFT_OUT_BY)
    ]
    for each in problems[:_MAX_PROBLEMS]:
        note(
            f"{each.outcome:<9} {short_path(each.path)}: {each.reason}", "red" if each.outcome == "failed" else "yellow"
        )
    if len(problems) > _MAX_PROBLEMS:
        all_of_them = f"; all are listed by: openbook status --kb {shlex.quote(str(place))}" if place else ""
        note(f"... and {len(problems) - _MAX_PROBLEMS} more{all_of_them}")
    for said in remedies(problems, place):
        note(said)


def remedies(problems: Sequence[Verdict], place: Place | None) -> list[str]:
    """What helps against each reason, once, naming the file if there is only one with that reason."""
    from openbook.knowledge.ingest.remedies import remedy

    by_reason: dict[str, list[str]] = {}
    for each in problems:
        by_reason.setdefault(each.reason, []).append(short_path(each.path))
    found = (remedy(each, files[0] if len(files) == 1 else "FILE", place) for each, files in by_reason.items())
    return [said for said in dict.fromkeys(found) if said]


def print_words(pieces: Iterable[Piece]) -> None:
    """Removed words in red and added ones in green; without colors as `[-removed-]` and `{+added+}`."""
    from rich.text import Text

    out = console()
    plain = out.color_system is None or out.no_color
    line = Text()
    for each in pieces:
        if each.kind == "skipped":
            end = "" if line.plain.endswith("\n") or not line else "\n"
            line.append(f"{end}... {each.chars:,} characters ...\n", "dim")
        elif each.kind == "removed":
            line.append(f"[-{each.text}-]" if plain else each.text, "red strike")
        elif each.kind == "added":
            line.append(f"{{+{each.text}+}}" if plain else each.text, "green")
        else:
            line.append(each.text)
    for part in line.split("\n"):
        say(part, indent=4)


def characters(read: int, held: int) -> str:
    """Characters read, and those of the files if more."""
    return f"{read:,} characters of text" + (f" ({held:,} with markup)" if held != read else "")
