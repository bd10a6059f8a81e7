"""The command line. Each command is one function with local imports; errors are one sentence without a traceback."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

import click

from openbook import __version__
from openbook.core.errors import OpenBookError, StorageError, did_you_mean

PROGRAM = "openbook"
COMPLETE = "_OPENBOOK_COMPLETE"  # set by the script of `openbook completion` when a shell completes a line
INTERRUPTED = 130

_COMMANDS = {  # of each module, which is imported when one of them is used
    "ask": "ask search",
    "chat": "chat",
    "lookup": "ls find grep read",
    "documents": "add sync remove purge",
    "knowledge_base": "status history diff tag restore prune reembed precompute",
    "receipts": "replay verify",
    "diagnose": "diagnose",
    "questions": "questions",
    "models": "models",
    "train": "train runs",
    "serve": "serve mcp keys",
    "cluster": "cluster",
    "doctor": "config doctor completion",
}
VERBS = {verb: module for module, verbs in _COMMANDS.items() for verb in verbs.split()}


class Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(f"openbook.cli.{VERBS[cmd_name]}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], VERBS)
            if " " in args[0]:
                hint = f" To ask a question: openbook ask {args[0]!r}"
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="openbook %(version)s")
def command() -> None:
    """Answers from a frozen language model and a living knowledge base.

    \b
    openbook ask "Who signs travel expenses?" --docs handbook/
    openbook add handbook/ && openbook ask "Who signs travel expenses?"

    \b
    Exit codes:
    0 done; 130 interrupted
    1 a problem was found; 2 a wrong option, setting or question
    3 the model; 4 the knowledge base; 5 the disk
    6 training; 7 the cluster
    8 add or sync could not read some files; the rest was added (0 with --lenient)
    """  # noqa: D301  click keeps the lines after this control character as they are


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 to 8 an error (see `openbook.core.errors`), 130 interrupted."""
    os.umask(0o077)  # every new file is private, also those of SQLite and libraries
    _open_streams()
    interrupted = threading.Event()

    def on_interrupt(_signal: int, _frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, on_interrupt)
    try:
        code = run(arguments)
    except BaseException:
        # Interrupted C code may raise an error of its own: a failed import, a callback's return.
        if not interrupted.is_set():
            raise
        code = INTERRUPTED
    if interrupted.is_set() and code != 0:
        code = _fail(
            "Interrupted. Nothing that was committed is lost; run the same command again for the rest.", INTERRUPTED
        )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: Python's own exit must not look interrupted
    sys.exit(code)


def _open_streams() -> None:
    """Escape what a stream cannot encode; replace closed streams."""
    if os.environ.get("COLUMNS") == "0":  # rich would show nothing
        del os.environ["COLUMNS"]
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  open until the process ends
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command in this process and return its exit code."""
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        if asked := os.environ.get(COMPLETE):  # a shell asks for completions
            from click.shell_completion import shell_complete

            return shell_complete(command, {}, PROGRAM, COMPLETE, asked)
        with command.make_context(PROGRAM, words) as context:  # not `main`, which ends the process at a broken pipe
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except OpenBookError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`openbook search x | head -1`): no error, and no second one at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"The operating system refused: {error.strerror or error}{where}.", StorageError.exit_code)


def _fail(sentence: str, code: int) -> int:
    click.echo(f"Error: {sentence}", err=True)
    return code
