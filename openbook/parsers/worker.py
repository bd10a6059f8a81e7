"""The process in which files are read: `python -m openbook.parsers.worker SETTINGS` (JSON). See `isolated`.

It is told one path at a time on standard input and answers on standard output, each in a frame: four bytes of length
(big-endian), eight bytes that name the request, and the path or a JSON object. It ends when its input ends.

With `--picture` before its settings it draws one page of one PDF and ends (see `drawing`): it is told the page's number, in
eight bytes, and the bytes of the file, and answers PIXELS, width and height in four bytes each, and red, green and blue of
each pixel; or a JSON object that says why not.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from openbook.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.parsers import READERS, Reader, read_file
from openbook.records import Content, Digest

HELLO = b"openbook"
NAME_BYTES = len(HELLO)
PICTURE = "--picture"
PIXELS = b"\1"  # begins an answer that is a picture
PAGE_BYTES, SIDE_BYTES = 8, 4  # of a page's number, of a width or height
_LONGEST_REASON_CHARS = 300


def main(arguments: list[str]) -> None:
    settings: dict[str, Any] = json.loads(arguments[-1])
    questions, answers = _take_standard_streams()
    _limit_memory(settings["memory_mb"])
    _end_with_parent(questions.fileno())
    readers = _table(arguments[1]) if arguments[0] == "--readers" else READERS
    _write_frame(answers, HELLO, b"")
    if arguments[0] == PICTURE:
        _draw_one(questions, answers, settings)
        return
    while frame := read_frame(questions, 1_000_000):
        _limit_seconds(settings["timeout_s"])
        _write_frame(answers, frame[:NAME_BYTES], _answer(Path(os.fsdecode(frame[NAME_BYTES:])), settings, readers))


def read_frame(stream: BinaryIO, most_bytes: int) -> bytes:
    """The name and body of the next frame; empty when the stream ends or what it holds is no frame."""
    head = _exactly(stream, 4)
    size = int.from_bytes(head, "big")
    return _exactly(stream, size) if len(head) == 4 and NAME_BYTES <= size <= most_bytes else b""


def _exactly(stream: BinaryIO, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = stream.read(min(size - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _write_frame(stream: BinaryIO, name: bytes, body: bytes) -> None:
    stream.write((len(name) + len(body)).to_bytes(4, "big") + name + body)
    stream.flush()


def _answer(path: Path, settings: Mapping[str, Any], readers: Mapping[str, str | Reader]) -> bytes:
    def read() -> bytes:
        content, digest = read_file(path, max_bytes=settings["max_file_bytes"], ocr=settings["ocr"], readers=readers)
        return _encoded(_said(content, digest))

    return _or_reason(read, settings["memory_mb"])


def _or_reason(work: Callable[[], bytes], memory_mb: int) -> bytes:
    """What `work` gives, or as JSON why it gives nothing."""
    try:
        return work()
    except NotReadNow as error:
        return _encoded({"reason": str(error)[:_LONGEST_REASON_CHARS], "again": True})
    except NoSuchPage as error:
        return _encoded({"reason": str(error)[:_LONGEST_REASON_CHARS], "absent": True})
    except UnreadableFile as error:
        reason = str(error)
    except MemoryError:
        reason = f"needs more than {memory_mb} MB of memory to read"
    except RecursionError:
        reason = "nested too deeply to read"
    except Exception as error:  # noqa: BLE001  a bug in a format's library costs this file only
        reason = f"the reader failed ({type(error).__name__}: {error})"
    return _encoded({"reason": reason[:_LONGEST_REASON_CHARS]})


def _said(content: Content, digest: Digest) -> dict[str, Any]:
    return {
        "text": content.text,
        "media_type": content.media_type,
        "title": content.title,
        "pages": [(page.number, page.start, page.end) for page in content.pages],
        "headings": [(mark.start, mark.level, mark.title) for mark in content.headings],
        "source_chars": content.source_chars,
        "metadata": dict(content.metadata),
        "digest": digest,
    }


def _encoded(answer: Mapping[str, Any]) -> bytes:
    return json.dumps({**answer, "peak_mb": _peak_mb()}, ensure_ascii=False).encode("utf-8", "replace")


def _draw_one(questions: BinaryIO, answers: BinaryIO, settings: Mapping[str, Any]) -> None:
    from openbook.parsers.pdf_picture import draw  # late: not for those that read plain text

    head = NAME_BYTES + PAGE_BYTES
    frame = read_frame(questions, head + settings["max_file_bytes"])
    if not frame:
        return
    _limit_seconds(settings["timeout_s"])

    def drawn() -> bytes:
        made = draw(frame[head:], int.from_bytes(frame[NAME_BYTES:head], "big"))
        sides = b"".join(side.to_bytes(SIDE_BYTES, "big") for side in (made.width, made.height))
        return PIXELS + sides + made.pixels

    _write_frame(answers, frame[:NAME_BYTES], _or_reason(drawn, settings["memory_mb"]))


def _table(target: str) -> Mapping[str, str | Reader]:
    """Other readers than the program's, by suffix: how its tests make one crash. Nothing but a test starts it so."""
    module, _, name = target.partition(":")
    table: Mapping[str, str | Reader] = getattr(importlib.import_module(module), name)
    return table


# --- limits -----------------------------------------------------------------------------------------------------------


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, moved to where no library looks: what one prints goes to standard error."""
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


def _limit_seconds(timeout_s: float) -> None:
    """From now on: the limit counts all that the process has used."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        # A little more than the parent's patience, so that the parent's clock is the one that speaks.
        seconds = int(usage.ru_utime + usage.ru_stime + timeout_s) + 3
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _peak_mb() -> int:
    """The most memory that this program used. `getrusage` would count what the process that started it used, on Linux."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) >> 10
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10


def _end_with_parent(questions: int) -> None:
    """A reader that hangs must not outlive a parent that was killed: its end of the pipe closes then."""
    try:
        from select import poll
    except ImportError:
        return

    def watch() -> None:
        watched = poll()
        watched.register(questions, 0)  # only that the other end is gone
        watched.poll()
        os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)

    _thread.start_new_thread(watch, ())


if __name__ == "__main__":
    main(sys.argv[1:])
