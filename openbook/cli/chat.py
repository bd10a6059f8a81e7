"""`openbook chat`: questions one after the other, in a transcript that is the user's file (docs/formats/transcript.md).

The file is all that is known of the conversation. It is read again before each question, so a line that was changed or
deleted meanwhile counts. What is added is added to the bytes that are there, in one step.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import click

from openbook.cli import context, display
from openbook.cli.options import DOCS, KB, LOG, MODEL, ScopeOptions, scope_options
from openbook.codec import convert, parse_json
from openbook.errors import ContextOverflow, ConversationError, QuestionError
from openbook.files import replace_file, storage_errors

if TYPE_CHECKING:
    from openbook.cli.display import Words
    from openbook.records import Answer

FORMAT = "openbook conversation 1"
MAX_BYTES = 50_000_000

_HEAD = {"format": FORMAT}
AskNext: TypeAlias = "Callable[[tuple[str, ...], str], tuple[str, Answer, Words]]"  # of the turns before and a question


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
    kb: Path | None,
    scope: ScopeOptions,
    model: str | None,
    log: Path | None,
) -> None:
    """Ask questions one after the other; one may refer back to those before it.

    The conversation is kept in the file TRANSCRIPT and nowhere else (default: a new one in this folder). Read it, change
    it, delete lines from it; give it again to go on. A question that stands last in it is answered first. Questions
    come from the terminal or, one a line, from standard input. Ctrl-D ends.
    """
    from openbook.answer import ask
    from openbook.cli.ask import opened_beside
    from openbook.conversation import understood
    from openbook.receipts import append

    context.check_places(docs, kb)
    path = transcript or Path(f"conversation-{datetime.now().astimezone():%Y-%m-%d-%H%M%S}.jsonl")
    earlier_questions = read_transcript(path).questions  # a broken one is reported before anything is opened
    current = context.settings(kb=kb, model=model)
    options = context.answer_options(current)
    with opened_beside(context.model_opener(current)) as opened:
        base, embedder = context.open_asked(current, docs)
        seen = scope.of(base)

        def ask_next(earlier: tuple[str, ...], question: str) -> tuple[str, Answer, Words]:
            """What was searched for, and the answer."""
            meant = understood(opened.result(), earlier, question)
            if meant.rewritten:
                display.note(f"Understood as: {meant.question}")
            elif meant.query != meant.question:
                display.note(f"Searched for: {' / '.join(meant.query.splitlines())}")
            with display.while_reading() as words:
                answer = ask(
                    meant.question,
                    opened.result(),
                    base,
                    embedder,
                    options,
                    query=meant.query,
                    scope=seen,
                    on_text=words.show,
                )
            if log is not None:
                append(log, answer.receipt)
            return meant.query, answer, words

        display.note(f"Transcript: {path.absolute()} ({len(earlier_questions)} questions so far). Ctrl-D ends.")
        _answer_open(path, ask_next)
        for question in _typed_questions():
            try:
                _answer_open(path, ask_next)
                _answer(path, question, read_transcript(path).questions, ask_next)
            except (QuestionError, ContextOverflow) as error:
                if not sys.stdin.isatty():
                    raise
                display.note(f"Error: {error}")


def _answer_open(path: Path, ask_next: AskNext) -> None:
    """Answer the question that stands last in the transcript, if nobody has."""
    said = read_transcript(path)
    if said.open_question is not None:
        display.note(f"> {said.open_question}")
        _answer(path, said.open_question, said.questions[:-1], ask_next, stands=True)


def _answer(path: Path, question: str, earlier: tuple[str, ...], ask_next: AskNext, *, stands: bool = False) -> None:
    """`stands`: the question is in the transcript already. The sources are shown once the answer was written."""
    from openbook.answer import checked_question

    question = checked_question(question)
    searched, answer, words = ask_next(earlier, question)
    add_exchange(path, question, searched, answer, stands=stands)
    display.print_answer(answer, words)


def _typed_questions() -> Iterator[str]:
    """What the user types, or the lines of standard input, until its end."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    with suppress(ImportError):
        import readline  # noqa: F401  arrow keys; what was typed is kept in no file
    while True:
        try:
            line = input("\n> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()  # so that the message does not stand behind the half-typed question
            raise
        if line:
            yield line


# --- the transcript ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcript:
    """`questions`: what the user asked, oldest first. `open_question`: the last of them, when nobody has answered it."""

    questions: tuple[str, ...] = ()
    open_question: str | None = None


@dataclass(frozen=True, slots=True)
class UserTurn:
    role: Literal["user"]
    content: str

    def __post_init__(self) -> None:
        if not self.content.strip():
            raise ValueError("the question is empty")


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    role: Literal["assistant"]
    content: str
    abstained: bool = False
    searched: str = ""
    citations: tuple[dict[str, Any], ...] = ()
    receipt: str = ""


def read_transcript(path: Path) -> Transcript:
    """Of a file that is not there, an empty one. Raises ConversationError, naming the line that is wrong; StorageError."""
    with storage_errors(f"read {path}"):
        return _parse(path.read_bytes() if path.exists() else b"", path)


def add_exchange(path: Path, question: str, searched: str, answer: Answer, *, stands: bool = False) -> None:
    """Add an answer and, unless it `stands` there already, its question. Raises ConversationError, StorageError.

    The file is whole before and after; a new one can be read by nobody else.
    """
    citations = [{k: v for k, v in asdict(c).items() if k != "passage_id" and v} for c in answer.citations]
    answered: dict[str, Any] = {"role": "assistant", "content": answer.answer, "abstained": answer.abstained}
    if searched.strip() != question.strip():
        answered["searched"] = searched
    lines: list[dict[str, Any]] = [] if stands else [{"role": "user", "content": question}]
    lines.append({**answered, "citations": citations, "receipt": answer.receipt.digest})
    with storage_errors(f"write {path}"):
        path = path.resolve()  # a link stays one
        old = path.read_bytes() if path.exists() else b""
        mode = stat.S_IMODE(path.stat().st_mode) if old else 0o600
        if (_parse(old, path).open_question is None) == stands:
            raise ConversationError(
                f"{path} was changed while the question was answered; the answer was not added. Ask again."
            )
        all_lines = lines if old else [_HEAD, *lines]
        added = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in all_lines).encode()
        replace_file(path, old + (b"\n" if old and not old.endswith(b"\n") else b"") + added, mode=0o600)
        path.chmod(mode)


def _parse(data: bytes, path: Path) -> Transcript:
    if len(data) > MAX_BYTES:
        raise ConversationError(f"{path} has {len(data):,} bytes; a transcript may have {MAX_BYTES:,}.")
    questions: list[str] = []
    wanted = "head"
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")  # no other character ends a line of JSON
    for number, line in enumerate(lines if data else (), start=1):
        try:
            if line.strip():
                wanted = _parse_line(line, wanted, questions)
        except ValueError as error:
            message = f"{path}, line {number}: {error} Correct or delete the line, or name another file."
            raise ConversationError(message) from error
    if data and wanted == "head":
        raise ConversationError(f"{path}, line 1: a transcript begins with the line {json.dumps(_HEAD)}")
    return Transcript(tuple(questions), questions[-1] if wanted == "assistant" else None)


def _parse_line(line: bytes, wanted: str, questions: list[str]) -> str:
    """What the next line must be. Raises ValueError."""
    value = parse_json(line, "it", ValueError)
    if wanted == "head":
        if value != _HEAD:
            raise ValueError(f"a transcript begins with the line {json.dumps(_HEAD)}.")
        return "user"
    role = value.get("role") if isinstance(value, dict) else wanted
    if role in ("user", "assistant") and role != wanted:
        raise ValueError(f"the role must be {wanted!r} here, not {role!r}.")
    if wanted == "assistant":
        convert(value, AssistantTurn, "it", ValueError)
        return "user"
    questions.append(convert(value, UserTurn, "it", ValueError).content)
    return "assistant"
