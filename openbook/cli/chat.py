"""`openbook chat`: a conversation in a transcript file (docs/formats/transcript.md).

The file is the only state, read again before each question, so the user's edits count. Additions are atomic.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from openbook.cli import context, display
from openbook.cli.options import DOCS, KB, LOG, MODEL, ScopeOptions, scope_options
from openbook.core.codec import convert, parse_json
from openbook.core.config import Place
from openbook.core.errors import ContextOverflow, ConversationError, QuestionError
from openbook.core.files import replace_file, storage_errors

if TYPE_CHECKING:
    from openbook.core.records import Answer

FORMAT = "openbook conversation 1"
MAX_BYTES = 50_000_000

_HEAD = {"format": FORMAT}
_BEGINS = f"a transcript begins with the line {json.dumps(_HEAD)}."


@click.command()
@click.argument("transcript", required=False, type=click.Path(path_type=Path, dir_okay=False))
@DOCS
@KB
@scope_options
@MODEL
@LOG
def chat(
    transcript: Path | None,
    docs: tuple[Path, ...],
    kb: Place | None,
    scope: ScopeOptions,
    model: str | None,
    log: Path | None,
) -> None:
    """Ask questions one after the other; each may refer back.

    The conversation is kept in the file TRANSCRIPT and nowhere else (default: a new one in this folder). Read it,
    change it, delete lines from it; give it again to continue. If its last line is a question, that is answered first.
    You type questions, or they come from standard input, one a line. Ctrl-D ends.
    """
    from openbook.core.parallel import Listener
    from openbook.proofs.receipts import LOG_FILE, append_receipt

    settings = context.read_settings(docs=docs, kb=kb, model=model)
    path = transcript or Path(f"conversation-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}.jsonl")
    context.check_writable(path)
    context.check_writable(log and log / LOG_FILE)
    questions_so_far = len(read_transcript(path).questions)  # report a broken transcript before opening anything
    with context.library(settings, docs) as library:
        view = scope.view_of(context.prepared(library, scope.as_of))

        def answer(question: str, earlier: tuple[str, ...], *, in_transcript: bool = False) -> None:
            """Sources are shown only after the answer was saved."""
            with display.while_reading() as live:
                listener = Listener(live.show, live.found, live.progress)
                found = view.ask(question, earlier=earlier, listener=listener)
            if log is not None:
                append_receipt(log, found.receipt)
            add_exchange(path, found, in_transcript=in_transcript)
            display.print_answer(found, live)

        def answer_open_question() -> None:
            found = read_transcript(path)
            if found.open_question is not None:
                display.note(f"> {found.open_question}")
                answer(found.open_question, found.questions[:-1], in_transcript=True)

        display.note(f"Transcript: {path.absolute()} ({questions_so_far} questions so far). Ctrl-D ends.")
        answer_open_question()
        for question in _typed_questions():
            try:
                answer_open_question()
                answer(question, read_transcript(path).questions)
            except (QuestionError, ContextOverflow) as error:
                if not sys.stdin.isatty():
                    raise
                display.note(f"Error: {error}")


def _typed_questions() -> Iterator[str]:
    """Typed questions, or the lines of standard input."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with suppress(ImportError):
        import readline  # noqa: F401  arrow keys; no history file
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()  # begins a new line for the message
            raise
        if line:
            yield line


# --- the transcript ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """A line of the file. User turns have only `role` and `content`."""

    role: Literal["user", "assistant"]
    content: str
    abstained: bool = False
    searched: str = ""  # written by 0.1.0
    citations: tuple[dict[str, Any], ...] = ()
    receipt: str = ""

    def __post_init__(self) -> None:
        if self.role == "user" and not self.content.strip():
            raise ValueError("the question is empty")
        if self.role == "user" and (self.abstained or self.searched or self.citations or self.receipt):
            raise ValueError("what the user says has 'role' and 'content' alone")


@dataclass(frozen=True, slots=True)
class Transcript:
    """`questions`: oldest first. `open_question`: the last one, if it is unanswered."""

    questions: tuple[str, ...] = ()
    open_question: str | None = None


def read_transcript(path: Path) -> Transcript:
    """Empty without a file. Raises ConversationError, naming the wrong line."""
    with storage_errors(f"read {path}"):
        return _parse(path.read_bytes() if path.exists() else b"", path)


def add_exchange(path: Path, answer: Answer, *, in_transcript: bool) -> None:
    """Append an answer and, unless `in_transcript`, its question. Raises ConversationError.

    The file is replaced atomically; a new one is private.
    """
    citations = [{k: v for k, v in asdict(c).items() if k != "passage_id" and v} for c in answer.citations]
    answered: dict[str, Any] = {"role": "assistant", "content": answer.answer, "abstained": answer.declined}
    lines: list[dict[str, Any]] = [] if in_transcript else [{"role": "user", "content": answer.question}]
    lines.append({**answered, "citations": citations, "receipt": answer.receipt.digest})
    with storage_errors(f"write {path}"):
        path = path.resolve()  # keeps a link
        old = path.read_bytes() if path.exists() else b""
        mode = stat.S_IMODE(path.stat().st_mode) if old else 0o600
        if (_parse(old, path).open_question is None) == in_transcript:
            raise ConversationError(
                f"{path} was changed while the question was answered; the answer was not added. Ask again."
            )
        all_lines = lines if old else [_HEAD, *lines]
        added = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in all_lines).encode()
        replace_file(path, old + (b"\n" if old and not old.endswith(b"\n") else b"") + added, mode=0o600)
        path.chmod(mode)


def _parse(data: bytes, path: Path) -> Transcript:
    if len(data) > MAX_BYTES:
        raise ConversationError(f"{path} has {len(data):,} bytes; a transcript may have {MAX_BYTES:,} bytes.")
    has_head, turns = False, list[Turn]()
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")  # no other character ends a line of JSON
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                value = parse_json(line, "it", ValueError)
                if has_head:
                    turns.append(convert(value, Turn, "it", ValueError))
                    if turns[-1].role != (wanted := "user" if len(turns) % 2 else "assistant"):
                        raise ValueError(f"the role must be {wanted!r} here, not {turns[-1].role!r}.")
                elif value != _HEAD:
                    raise ValueError(_BEGINS)
                has_head = True
            except ValueError as error:
                message = f"{path}, line {number}: {error} Correct or delete the line, or name another file."
                raise ConversationError(message) from error
    if data and not has_head:
        raise ConversationError(f"{path}, line 1: {_BEGINS}")
    questions = tuple(turn.content for turn in turns if turn.role == "user")
    return Transcript(questions, questions[-1] if len(turns) % 2 else None)
