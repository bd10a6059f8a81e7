"""The process that parses files: `python -m openbook.parsers.worker SETTINGS` (JSON). See `sandbox`.

It answers questions from standard input on standard output, and ends with its input. A frame is four bytes of length
(big-endian), eight bytes that identify the request, and the body.

A question is a path. With `by_value` in the settings: the length of the file's name (eight bytes), the name, and the
file's bytes. With `--page-image` before the settings: a page number (eight bytes) and the bytes of a PDF; the worker
draws the page (see `page_image`) and ends; with `--page-marks`: the length of a list of quotes (eight bytes), the list
as JSON, and the bytes of a PDF, for `page_marks`. An answer is a JSON object; or, for a page, PIXELS, width and height
in four bytes each, and RGB pixels; or MARKS and a JSON list. An empty answer says that OCR makes progress.
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

from openbook.core.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.core.records import sha256_hex
from openbook.parsers import NEEDS_MEMORY, parse_bytes, parse_file

HELLO = b"openbook"
NAME_BYTES = len(HELLO)
PAGE_IMAGE, PAGE_MARKS = "--page-image", "--page-marks"
PIXELS, MARKS = b"\1", b"\2"  # prefix of an answer that is a picture or marks
NUMBER_BYTES, SIDE_BYTES = 8, 4  # of a page's number or a name's length; of a width or height
# Kinds of refusals. The last is the base class of the others.
KINDS = {"not now": NotReadNow, "no such page": NoSuchPage, "unreadable": UnreadableFile}
_MAX_REASON_CHARS = 300
_MAX_PATH_BYTES = 1_000_000


def main(arguments: list[str]) -> None:
    settings: dict[str, Any] = msgspec.json.decode(arguments[-1])
    questions, answers = _take_standard_streams()
    _limit_memory(settings["memory_mb"])
    _end_with_parent(questions.fileno())
    task = arguments[0] if arguments[0] in (PAGE_IMAGE, PAGE_MARKS) else ""
    set_alarm = getattr(signal, "alarm", lambda seconds: 0)  # not on every platform
    _write_frame(answers, HELLO, b"")
    while frame := read_frame(questions, _MAX_PATH_BYTES + settings["max_file_bytes"]):
        set_alarm(int(settings["timeout_s"]) + 3)  # a little longer than the parent waits: the parent's clock decides

        def progress(name: bytes = frame[:NAME_BYTES]) -> None:
            set_alarm(int(settings["timeout_s"]) + 3)
            _write_frame(answers, name, b"")

        _write_frame(answers, frame[:NAME_BYTES], _answer(frame[NAME_BYTES:], settings, task, progress))
        if task:
            return
        set_alarm(0)  # no limit while waiting for the next file


def read_frame(stream: BufferedReader[Any], max_bytes: int) -> bytes:
    """Identifier and body; empty if the stream ends or the frame is invalid."""
    head = stream.read(4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or not NAME_BYTES <= size <= max_bytes:
        return b""
    frame = stream.read(size)
    return frame if len(frame) == size else b""


def _write_frame(stream: BinaryIO, name: bytes, body: bytes) -> None:
    stream.write((len(name) + len(body)).to_bytes(4, "big") + name + body)
    stream.flush()


def _answer(
    question: bytes, settings: Mapping[str, Any], task: str, progress: Callable[[], None] = lambda: None
) -> bytes:
    """The content as JSON, or a picture, or marks, or the reason for none of them as JSON."""
    kind = "unreadable"
    try:
        number, body = int.from_bytes(question[:NUMBER_BYTES], "big"), question[NUMBER_BYTES:]
        if task == PAGE_IMAGE:
            from openbook.parsers.page_image import draw  # late: parsers of plain text do not need it

            *sides, pixels = draw(body, number)
            return PIXELS + b"".join(side.to_bytes(SIDE_BYTES, "big") for side in sides) + pixels
        if task == PAGE_MARKS:
            from openbook.parsers.page_marks import PageQuote, find

            quotes = msgspec.json.decode(body[:number], type=list[PageQuote])
            return MARKS + msgspec.json.encode(find(body[number:], quotes))
        ocr = settings["ocr"]
        if settings["by_value"]:
            name, data = os.fsdecode(body[:number]), body[number:]
            content, digest = parse_bytes(data, name, ocr=ocr, progress=progress), sha256_hex(data)
        else:
            path = Path(os.fsdecode(question))
            content, digest = parse_file(path, max_bytes=settings["max_file_bytes"], ocr=ocr, progress=progress)
        return msgspec.json.encode({"content": content, "digest": digest})
    except UnreadableFile as error:
        kind = next(word for word, refusal in KINDS.items() if isinstance(error, refusal))
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
