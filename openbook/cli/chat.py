"""`openbook chat`: a conversation. With `--save`, its transcript is written to a file (docs/formats/transcript.md)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli import context, display
from openbook.cli.options import DOCS, KB, LOG, MODEL, PATH, ScopeOptions, scope_options
from openbook.core.config import Place
from openbook.core.errors import ConfigError, ContextOverflow, QuestionError
from openbook.core.files import storage_errors

if TYPE_CHECKING:
    from openbook.core.records import Answer

FORMAT = "openbook conversation 1"


@click.command()
@DOCS
@KB
@scope_options
@MODEL
@LOG
@click.option("--save", type=PATH, help="Write the conversation to this new file. The web page can import it.")
def chat(
    docs: tuple[Path, ...],
    kb: Place | None,
    scope: ScopeOptions,
    model: str | None,
    log: Path | None,
    save: Path | None,
) -> None:
    """Ask questions one after the other; each may refer back.

    You type questions, or they come from standard input, one a line. Ctrl-D ends.
    """
    from openbook.core.parallel import Listener
    from openbook.proofs.receipts import LOG_FILE, append_receipt

    settings = context.read_settings(docs=docs, kb=kb, model=model)
    if save is not None and save.exists():
        raise ConfigError(f"{save} exists and may hold a conversation. Choose another name, or delete it.")
    context.check_writable(save)
    context.check_writable(log and log / LOG_FILE)
    with context.library(settings, docs) as library:
        conversation = scope.view_of(context.prepared(library, scope.as_of)).chat()
        display.note("Ask a question. Ctrl-D ends.")
        for question in _typed_questions():
            try:
                with display.while_reading() as live:
                    answer = conversation.ask(question, listener=Listener(live.show, live.found, live.progress))
            except (QuestionError, ContextOverflow) as error:
                if not sys.stdin.isatty():
                    raise
                display.note(f"Error: {error}")
                continue
            if log is not None:
                append_receipt(log, answer.receipt)
            if save is not None:
                _save(save, answer)
            display.print_answer(answer, live)


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


def _save(path: Path, answer: Answer) -> None:
    """Append a question and its answer. A new file is private."""
    citations = [{k: v for k, v in asdict(c).items() if k != "passage_id" and v} for c in answer.citations]
    lines: list[dict[str, Any]] = [] if path.exists() else [{"format": FORMAT}]
    lines.append({"role": "user", "content": answer.question})
    lines.append(
        {
            "role": "assistant",
            "content": answer.answer,
            "abstained": answer.declined,
            "citations": citations,
            "receipt": answer.receipt.digest,
        }
    )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with storage_errors(f"write {path}"), open(path, "ab", opener=partial(os.open, mode=0o600)) as file:
        file.write(text.encode())
