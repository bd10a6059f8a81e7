"""What a person sees. The answer first, then its sources with the quote marked; plain when piped or NO_COLOR is set."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openbook.errors import KnowledgeBaseInvalid

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from openbook.knowledge import KnowledgeBase
    from openbook.records import Answer, Citation, Hit, Verdict

_CONTEXT_CHARS = 160  # shown around a quote on each side
_SHOWN_PROBLEMS = 20
_RULE = re.compile(r"^[ \t]*[-=~^\"'`#*+:.|_ ]{4,}[ \t]*$", re.MULTILINE)
_STYLES = {"failed": "red", "skipped": "yellow"}


def console() -> Console:
    """Standard output. Lines wrap on a terminal and stay whole in a pipe or file."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit with an error; a reader that has enough is none

    return Plain(highlight=False)


def say(out: Console, text: Text | str, *, indent: int = 0, style: str | None = None) -> None:
    from rich.padding import Padding
    from rich.text import Text

    text = Text(text) if isinstance(text, str) else text
    if not out.is_terminal:
        out.print(Text(" " * indent).append_text(text), style=style, soft_wrap=True)
    elif indent:
        out.print(Padding(text, (0, 0, 0, indent)), style=style)
    else:
        out.print(text, style=style)


def print_json(value: dict[str, Any]) -> None:
    import click

    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def must_hold_documents(base: KnowledgeBase, where: str) -> None:
    if not base.documents():
        raise KnowledgeBaseInvalid(f"Nothing readable in {where}: no document went in, so there is nothing to ask.")


class Words:
    """The words of an answer as they come: printed on `out`, a terminal, or the last of them beside the spinner."""

    def __init__(self, out: Console | None, spinner: Status | None) -> None:
        self._out, self._spinner = out, spinner
        self._text = ""
        self._printed = self._column = 0

    def show(self, piece: str) -> None:
        from rich.text import Text

        self._text += piece
        if self._out is not None:
            if self._spinner is not None:
                self._spinner.stop()
            self._print(self._text[: re.search(r"\S*\Z", self._text).start()])  # type: ignore[union-attr]  # it always matches
        elif self._spinner is not None:
            self._spinner.update(Text(self._text[-(self._spinner.console.width - 4) :]))

    def parts(self, done: int, total: int) -> None:
        if self._spinner is not None:
            self._spinner.update(f"Reading part {min(done + 1, total)} of {total}...")

    def end(self, answer: str) -> bool:
        """Whether the answer stands on the terminal now. Another one stands under what a model said in words of its own."""
        if self._out is None or not self._printed:
            return False
        if answer.startswith(self._text[: self._printed]):
            self._text = answer
            self._print(answer)
            self._out.print()
        else:
            self._out.print()
            say(self._out, answer, style="bold")
        return True

    def _print(self, text: str) -> None:
        """What of the text is not printed yet; a word that does not fit into the line begins the next."""
        from rich.style import Style

        assert self._out is not None
        style = Style(bold=True)
        for part in re.findall(r"\n|[^\S\n]+|\S+", printable(text[self._printed :])):
            if part == "\n" or (self._column + len(part) > self._out.width and self._column):
                self._out.print()
                self._column = 0
                if part.isspace():
                    continue
            self._out.print(part, style=style, end="", markup=False, soft_wrap=True)
            self._column += len(part)
        self._printed = len(text)


def show_answer(answer: Answer, *, as_json: bool, words: Words | None = None) -> None:
    if as_json:
        print_json(answer.to_json())
    else:
        print_answer(answer, words)


def print_answer(answer: Answer, words: Words | None = None) -> None:
    """`words`: what of it stands on the terminal already."""
    from rich.text import Text

    out = console()
    unproved = bool(answer.passages) and not answer.abstained and not answer.citations
    if words is not None and words.end(answer.answer):
        if unproved:
            say(out, "\nCheck it: the passages do not support what the model answers.", style="yellow")
    else:
        if unproved:  # the warning comes before the words it is about
            say(out, "Check it: the passages do not support what the model answers:", style="yellow")
        say(out, printable(answer.answer), style="dim" if unproved else "bold")
    passages = {h.passage.id: h for h in answer.passages}
    for number, citation in enumerate(_joined(answer.citations, passages), start=1):
        say(out, Text.assemble("\n", (f"[{number}] {_place(citation)}", "cyan")))
        say(out, _quote_in_context(citation, passages.get(citation.passage_id)), indent=4)
    for part in () if unproved else answer.unsupported:
        say(out, f"\nNo support found in the passages for: {printable(part)}", style="yellow")
    for note in answer.notes:
        say(out, f"\n{printable(note)}", style="yellow")
    if answer.closest:
        say(out, "\nClosest in your documents:")
        for citation in answer.closest:
            say(out, f'"{printable(_flat(citation.quote))}" ({_place(citation)})', indent=4)
    elif answer.passages and not answer.citations:
        say(out, "\nRead, but not cited:", style="dim")
        for hit in answer.passages:
            say(out, _hit_place(hit), indent=4, style="dim")
            say(out, _head(_without_rules(hit.passage.text).strip()), indent=8, style="dim")
    say(out, f"\n{_provenance(answer)}", style="dim")


def _joined(citations: Sequence[Citation], passages: Mapping[str, Hit]) -> list[Citation]:
    """Quotes that follow each other in one passage, or overlap, as one."""
    joined: list[Citation] = []
    for citation in sorted(citations, key=lambda c: (_first_place(citations, c), c.start)):
        last = joined[-1] if joined else None
        hit = passages.get(citation.passage_id)
        if last is None or hit is None or last.passage_id != citation.passage_id or citation.start > last.end + 2:
            joined.append(citation)
            continue
        end, base = max(last.end, citation.end), hit.passage.start
        joined[-1] = replace(last, end=end, quote=hit.passage.text[last.start - base : end - base])
    return joined


def _first_place(citations: Sequence[Citation], citation: Citation) -> int:
    """Where the first quote from the same passage stands."""
    return next(i for i, each in enumerate(citations) if each.passage_id == citation.passage_id)


def _provenance(answer: Answer) -> str:
    receipt, model = answer.receipt, answer.receipt.model
    parts: list[str] = [] if receipt.strategy == "closed-book" else [answer.confidence]
    parts += [f"{model.name} ({model.digest[:12] + ', ' if model.digest else ''}{model.evidence})"]
    if receipt.knowledge_base_version is not None:
        parts.append(f"knowledge base version {receipt.knowledge_base_version}")
    if answer.timings is not None:
        parts.append(f"{answer.timings.total_s:.1f} s")
    return printable(" · ".join(parts))


def _quote_in_context(citation: Citation, hit: Hit | None) -> Any:
    from rich.text import Text

    before = after = ""
    if hit is not None:
        text, start = hit.passage.text, citation.start - hit.passage.start
        end = start + len(citation.quote)
        before, after = _tail(_without_rules(text[:start])), _head(_without_rules(text[end:]))
    return Text.assemble((before, "dim"), (printable(_flat(citation.quote)), "reverse"), (after, "dim"))


def _tail(text: str) -> str:
    flat = printable(_flat(text)).lstrip()
    return flat if len(flat) <= _CONTEXT_CHARS else "…" + flat[-_CONTEXT_CHARS:].partition(" ")[2]


def _head(text: str) -> str:
    flat = printable(_flat(text)).rstrip()
    return flat if len(flat) <= _CONTEXT_CHARS else flat[:_CONTEXT_CHARS].rpartition(" ")[0] + "…"


def _flat(text: str) -> str:
    """One line, with single spaces, for reading on a terminal (the record keeps the verbatim text)."""
    words = " ".join(text.split())
    lead = " " if text[:1].isspace() else ""
    return lead + words + (" " if words and text[-1:].isspace() else "")


def _without_rules(text: str) -> str:
    """Without the lines that underline headings and frame tables."""
    return _RULE.sub("", text)


def _place(citation: Citation) -> str:
    page = f" · page {citation.page}" if citation.page else ""
    also = f" · also in {', '.join(map(short_path, citation.also_in[:3]))}" if citation.also_in else ""
    return printable(f"{short_path(citation.document)}{page} · characters {citation.start}–{citation.end}{also}")


def _hit_place(hit: Hit) -> str:
    passage = hit.passage
    page = f", page {passage.page}" if passage.page else ""
    headings = f" › {' › '.join(passage.headings)}" if passage.headings else ""
    return printable(f"{short_path(passage.document)}{page}{headings}")


def print_hits(query: str, hits: Sequence[Hit]) -> None:
    from rich.text import Text

    out = console()
    if not hits:
        say(out, f"Nothing found for {printable(query)!r}.")
    for number, hit in enumerate(hits, start=1):
        ranks = f"dense {hit.dense_rank or '–'}, words {hit.bm25_rank or '–'}"
        say(out, Text.assemble((f"[{number}] {_hit_place(hit)}", "cyan"), (f"  ({ranks})", "dim")))
        text = printable(_flat(_without_rules(hit.passage.text))).strip()
        say(out, text if len(text) <= 400 else text[:400].rpartition(" ")[0] + "…", indent=4)


def print_verdicts(verdicts: Sequence[Verdict], *, only_problems: bool) -> None:
    from openbook.cli.session import error_console

    out = error_console()
    shown = [v for v in verdicts if not only_problems or v.outcome in ("skipped", "failed")]
    limit = _SHOWN_PROBLEMS if only_problems else len(shown)
    for verdict in shown[:limit]:
        reason = f": {with_advice(verdict.reason)}" if verdict.reason else ""
        out.print(
            printable(f"{verdict.outcome:<9} {short_path(verdict.path)}{reason}"),
            style=_STYLES.get(verdict.outcome),
            markup=False,
            soft_wrap=True,
        )
    if len(shown) > limit:
        out.print(f"... and {len(shown) - limit} more; openbook status lists them all.", markup=False)


def with_advice(reason: str) -> str:
    """Why a file did not go in, and with which option it does, where there is one."""
    return reason.replace(": needs OCR", ": needs OCR (openbook add --ocr eng)")


def short_path(path: str) -> str:
    """Relative to the working folder when it is below it, else as it is."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path


def printable(text: str) -> str:
    """Without control characters: a document must not be able to steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
