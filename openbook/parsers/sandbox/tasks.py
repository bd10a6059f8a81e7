"""The process that reads files: `python -m openbook.parsers.sandbox.tasks SETTINGS` (JSON).

It answers questions from standard input on standard output (see `protocol`), and ends with its input; after a question
that is not TASK_PARSE, at once.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from openbook.core.errors import UnreadableFile
from openbook.core.records import sha256_hex
from openbook.parsers import parse_bytes, parse_file
from openbook.parsers.files import NEEDS_MEMORY
from openbook.parsers.sandbox import protocol

_MAX_REASON_CHARS = 300
_MAX_PATH_BYTES = 1_000_000


def main(arguments: list[str]) -> None:
    settings: dict[str, Any] = msgspec.json.decode(arguments[-1])
    questions, answers = _take_standard_streams()
    _limit_memory(settings["memory_mb"])
    _end_with_parent(questions.fileno())
    set_alarm = getattr(signal, "alarm", lambda seconds: 0)  # not on every platform
    protocol.write_frame(answers, protocol.HELLO, b"")
    while frame := protocol.read_frame(questions, _MAX_PATH_BYTES + settings["max_file_bytes"]):
        set_alarm(int(settings["timeout_s"]) + 3)  # a little longer than the parent waits: the parent's clock decides

        def progress(name: bytes = frame[: protocol.NAME_BYTES]) -> None:
            set_alarm(int(settings["timeout_s"]) + 3)
            protocol.write_frame(answers, name, b"")

        protocol.write_frame(
            answers, frame[: protocol.NAME_BYTES], answer(frame[protocol.NAME_BYTES :], settings, progress)
        )
        if settings["task"] != protocol.TASK_PARSE:
            return
        set_alarm(0)  # no limit while waiting for the next file


def answer(question: bytes, settings: Mapping[str, Any], progress: Callable[[], None] = lambda: None) -> bytes:
    """The content as JSON, or a picture, or marks, or the reason for none of them as JSON."""
    kind = "unreadable"
    try:
        return _TASKS[settings["task"]](question, settings, progress)
    except UnreadableFile as error:
        kind = next(word for word, refusal in protocol.KINDS.items() if isinstance(error, refusal))
        reason = str(error)
    except MemoryError:
        reason = f"needs more than {settings['memory_mb']} {NEEDS_MEMORY}"
    except RecursionError:
        reason = "nested too deeply to read"
    except Exception as error:  # noqa: BLE001  a bug in a format's library costs this file only
        reason = f"the parser failed ({type(error).__name__}: {error})"
    # JSON cannot hold lone surrogates.
    shown = reason[:_MAX_REASON_CHARS].encode("utf-8", "replace").decode()
    return msgspec.json.encode({"reason": shown, "kind": kind})


def _parse(question: bytes, settings: Mapping[str, Any], progress: Callable[[], None]) -> bytes:
    if settings["by_value"]:
        name, data = _parts(question)
        content = parse_bytes(data, os.fsdecode(name), ocr=settings["ocr"], progress=progress)
        digest = sha256_hex(data)
    else:
        path, most = Path(os.fsdecode(question)), settings["max_file_bytes"]
        content, digest = parse_file(path, max_bytes=most, ocr=settings["ocr"], progress=progress)
    return msgspec.json.encode({"content": content, "digest": digest})


def _draw(question: bytes, settings: Mapping[str, Any], progress: Callable[[], None]) -> bytes:
    from openbook.parsers.formats.pdf_pages import draw  # late: parsers of plain text do not need it

    *sides, pixels = draw(question[protocol.NUMBER_BYTES :], int.from_bytes(question[: protocol.NUMBER_BYTES], "big"))
    return protocol.PIXELS + b"".join(side.to_bytes(protocol.SIDE_BYTES, "big") for side in sides) + pixels


def _mark(question: bytes, settings: Mapping[str, Any], progress: Callable[[], None]) -> bytes:
    from openbook.parsers.formats.pdf_pages import PageQuote, find

    quotes, data = _parts(question)
    return protocol.MARKS + msgspec.json.encode(find(data, msgspec.json.decode(quotes, type=list[PageQuote])))


_TASKS = {protocol.TASK_PARSE: _parse, protocol.TASK_DRAW: _draw, protocol.TASK_MARK: _mark}


def _parts(question: bytes) -> tuple[bytes, bytes]:
    """What follows the length, and the rest."""
    end = protocol.NUMBER_BYTES + int.from_bytes(question[: protocol.NUMBER_BYTES], "big")
    return question[protocol.NUMBER_BYTES : end], question[end:]


def _take_standard_streams() -> tuple[BufferedReader, BinaryIO]:
    """The pipes to the parent, moved away from standard input and output: libraries that print write to standard error."""
    questions, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(questions, "rb"), os.fdopen(answers, "wb")


def _limit_memory(memory_mb: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):  # not on every platform
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


def _end_with_parent(questions: int) -> None:
    """End the worker when its parent was killed, even if a parser hangs: the pipe then closes."""
    try:
        from select import poll
    except ImportError:
        return

    def watch() -> None:
        watched = poll()
        watched.register(questions, 0)  # only for the other end's closing
        watched.poll()
        os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)

    _thread.start_new_thread(watch, ())


if __name__ == "__main__":
    main(sys.argv[1:])
