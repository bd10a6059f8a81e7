"""Files that hang, crash, exhaust or take over the process that reads them: each costs itself and no other file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.sandbox.pool import ParserPool, Worker
from openbook.parsers.sandbox.protocol import Limits, decode_answer
from tests.serving.conftest import eventually

pytestmark = pytest.mark.skipif(os.name != "posix", reason="what a crash looks like differs elsewhere")


@pytest.fixture(autouse=True)
def parsers() -> None:
    """In processes of their own, as the program does."""


HOSTILE = """
import ctypes, os, subprocess, sys, time
from openbook.parsers import PARSERS as REAL
from openbook.core.records import Content

def hang(data, name):
    while True: pass
def sleep(data, name):
    time.sleep(1000)
def allocate(data, name):
    kept = []
    while True: kept.append(bytearray(50_000_000))
def abort(data, name):
    print("memory allocation of 9 bytes failed\\nnote: run with RUST_BACKTRACE=1", file=sys.stderr, flush=True)
    os.abort()
def segfault(data, name):
    ctypes.string_at(0)
def leave(data, name):
    print("no more today", file=sys.stderr)
    os._exit(3)
def chatty(data, name):
    print("to standard output" * 10_000)
    os.write(1, b"to the file descriptor" * 10_000)
    return Content("quiet text", "text/plain")
def recurse(data, name):
    return recurse(data, name)
def fail(data, name):
    raise KeyError("a bug")
def child(data, name):
    pid = subprocess.Popen(["sleep", "1000"]).pid
    with open(name_of_pid + ".new", "w") as file:
        file.write(str(pid))
    os.rename(name_of_pid + ".new", name_of_pid)
    time.sleep(1000)
def surrogate(data, name):
    return Content("a\\ud800b", "text/plain")
def control(data, name):
    return Content("a\\x1b[2Jb", "text/plain")
def number(data, name):
    return Content("a", 5)

name_of_pid = os.environ.get("PID_FILE", "")
PARSERS = {"." + f.__name__: "hostile:" + f.__name__ for f in
    (hang, sleep, allocate, abort, segfault, leave, chatty, recurse, fail, child, surrogate, control, number)} | dict(REAL)
"""
LIMITS = Limits(timeout_s=600.0, memory_mb=300)  # only a file that never ends reaches it, and gets less
LONG = Limits(timeout_s=600.0)
ENDLESS = ("hang", "sleep", "child")


@pytest.fixture
def pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `child` writes the number of its child, before it hangs."""
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    return tmp_path / "pid"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "hostile.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    start = "import sys, hostile, openbook.parsers as p, openbook.parsers.sandbox.tasks as worker; p.PARSERS = hostile.PARSERS"
    return [sys.executable, "-c", f"{start}; worker.main(sys.argv[1:])"]


def files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(f"The text of {name}.")
    return [folder / name for name in names]


def outcomes(paths: Sequence[Path], command: Sequence[str], *, workers: int = 2, limits: Limits = LIMITS) -> list[str]:
    with ParserPool(limits, workers=workers, command=command) as pool:
        readings = list(pool.parse_all(paths))
    assert [path for path, _ in readings] == list(paths)
    return [str(outcome) if isinstance(outcome, UnreadableFile) else outcome[0].text for _, outcome in readings]


REASONS = {
    **dict.fromkeys(ENDLESS, "took longer than 600 s to read"),
    "allocate": "needs more than 300 MB of memory to read",
    "abort": "needs more than 300 MB of memory to read",
    "segfault": f"the parser crashed (signal {int(signal.SIGSEGV)})",
    "leave": "the parser ended by itself (exit code 3: no more today)",
    "chatty": "quiet text",
    "recurse": "nested too deeply to read",
    "fail": "the parser failed (KeyError: 'a bug')",
    "surrogate": "the parser failed (UnicodeEncodeError",
    "control": "the parser gave an answer that makes no sense",
    "number": "the parser gave an answer that makes no sense",
}


@pytest.mark.parametrize(
    "kinds",
    [pytest.param(("segfault", "fail"), id="quick"), pytest.param(tuple(REASONS), id="all", marks=pytest.mark.laws)],
)
def test_each_bad_file_costs_only_itself_and_a_killed_reader_leaves_no_children(
    tmp_path: Path, command: list[str], pid_file: Path, kinds: Iterable[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = Worker.ask

    def ask(self: Worker, question: Sequence[bytes], timeout_s: float) -> bytes | None:
        is_endless = os.fsdecode(question[0]).endswith(ENDLESS)
        return asks(self, question, 2.0 if is_endless else timeout_s)

    monkeypatch.setattr(Worker, "ask", ask)
    names = [name for i, kind in enumerate(kinds) for name in (f"{i}.txt", f"{i}.{kind}")]
    expected = [each for i, kind in enumerate(kinds) for each in (f"The text of {i}.txt.", REASONS[kind])]
    found = outcomes(files(tmp_path / "docs", *names), command, workers=min(3, len(names) // 2))
    assert [each[: len(words)] for each, words in zip(found, expected, strict=True)] == expected
    if "child" in kinds:
        eventually(lambda: not pid_file.exists() or is_gone(int(pid_file.read_text())))  # or it was killed before


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):  # dead, and not reaped in this container
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


# --- workers that are not what they seem ------------------------------------------------------------------------------

NO_HELLO = "import sys; sys.stdout.write('hello there, this is no frame'); sys.stdout.flush(); sys.stdin.read()"


CONTENT = (
    '{"media_type":"text/plain","title":"","pages":[],"headings":[],"source_chars":null,"metadata":[],"text":"text."}'
)


def answer(drop: str = "", **other: Any) -> bytes:
    """What an honest worker says of a file; `drop`: without this part of its content. `digest` and `extra` are the answer's own."""
    whole = {"digest": "0" * 64, **{name: other.pop(name) for name in ("digest", "extra") if name in other}}
    content = {**json.loads(CONTENT), **other}
    content.pop(drop, None)
    return json.dumps({"content": content, **whole}).encode()


def page(number: object, start: int, end: int) -> dict[str, object]:
    return {"number": number, "start": start, "end": end}


def mark(start: int) -> dict[str, object]:
    return {"start": start, "level": 1, "title": "a"}


ANSWERS = {
    "not json": b"{",
    "no object": b"[1]",
    "missing field": answer(drop="text"),
    "extra field": answer(extra=1),
    "text of a wrong type": answer(text=["a"]),
    "a control character": answer(text="a\x1b"),
    "page beyond the end": answer(pages=[page(1, 0, 99)]),
    "pages that overlap": answer(pages=[page(1, 0, 3), page(2, 2, 4)]),
    "page as truth": answer(pages=[page(True, 0, 3)]),
    "heading beyond the end": answer(headings=[mark(5)]),
    "headings out of order": answer(headings=[mark(2), mark(1)]),
    "heading below zero": answer(headings=[mark(-1)]),
    "a title of a megabyte": answer(title="a" * 1_000_000),
    "metadata with a bad key": answer(metadata=[["Not A Key", 1]]),
    "a label that cannot be one": answer(metadata=[["access_labels", ["No"]]]),
    "nested metadata": answer(metadata=[["a", {"b": 1}]]),
    "metadata of many keys": answer(metadata=[[f"k{i:04}", 1] for i in range(1000)]),
    "not a number": answer().replace(b"null", b"NaN"),
    "a bad digest": answer(digest="x" * 64),
    "deep nesting": b"[" * 100_000,
    "a number of many digits": answer().replace(b"null", b"9" * 10_000),
    "a lone surrogate": answer().replace(b"text.", b"\\ud800"),
}
FRAMES = {  # what the worker does in place of an answer
    "another name": "say(b'12345678', GOOD)",
    "a frame of four gigabytes": r"sys.stdout.buffer.write(b'\xff\xff\xff\xff' + name); sys.stdout.flush()",
    "half a frame": r"sys.stdout.buffer.write(b'\0\0\1\0' + name); sys.stdout.flush(); sys.exit()",
}
# A file with the end .answer holds what is answered, one with the end .code what is done.
FAKE = f"""
import sys
GOOD = {answer()!r}
def frame():
    head = sys.stdin.buffer.read(4)
    return sys.stdin.buffer.read(int.from_bytes(head, "big")) if len(head) == 4 else sys.exit()
def say(name, body):
    sys.stdout.buffer.write((len(name) + len(body)).to_bytes(4, "big") + name + body)
    sys.stdout.flush()
say(b"openbook", b"")
while True:
    question = frame()
    name, path = question[:8], question[8:]
    if path.endswith(b".answer"):
        say(name, open(path, "rb").read())
    elif path.endswith(b".code"):
        exec(open(path).read())
    else:
        say(name, GOOD)
"""


def test_an_answer_that_makes_no_sense_is_refused() -> None:
    assert decode_answer(answer(title="T")) == (Content("text.", "text/plain", "T"), "0" * 64)
    for kind, body in ANSWERS.items():
        with pytest.raises(ValueError, match="makes no sense"):
            pytest.fail(f"{kind}: {decode_answer(body)}")


@pytest.mark.laws
def test_a_worker_that_answers_nonsense_costs_the_file(tmp_path: Path) -> None:
    paths = []
    cases: list[tuple[str, str | bytes]] = [*ANSWERS.items(), *FRAMES.items()]
    for i, (kind, bad) in enumerate(cases):
        paths += files(tmp_path / "docs", f"{i}.txt", f"{i}.{'code' if kind in FRAMES else 'answer'}")
        paths[-1].write_bytes(bad.encode() if isinstance(bad, str) else bad)
    found = outcomes(paths, [sys.executable, "-c", FAKE])
    assert set(found[::2]) == {"text."}
    for path, bad in zip(paths[1::2], found[1::2], strict=True):
        reasons = ("the parser gave an answer that makes no sense", "the parser ended", "the parser crashed")
        assert bad.startswith(reasons), path.read_bytes()[:100]


def test_a_worker_that_does_not_start(tmp_path: Path) -> None:
    paths = files(tmp_path / "docs", "a.txt", "b.txt")
    for start in (NO_HELLO, "import sys; sys.exit('cannot start')", "import nothing_of_this_name"):
        for reason in outcomes(paths, [sys.executable, "-c", start]):
            assert reason.startswith("the parser did not start"), start
    reasons = outcomes(paths, [str(tmp_path / "absent")])
    assert set(reasons) == {"the parser could not be started (no such file or directory)"}


# --- ends -------------------------------------------------------------------------------------------------------------


def test_closing_does_not_wait_for_a_reader_that_hangs(tmp_path: Path, command: list[str], pid_file: Path) -> None:
    pool = ParserPool(LONG, workers=1, command=command)
    readings = pool.parse_all(files(tmp_path / "docs", "a.txt", "b.child", "c.txt", "d.txt", "e.txt", "f.txt"))
    assert not isinstance(next(readings)[1], UnreadableFile)
    processes = [worker.process for worker in pool._workers]

    def close_when_it_hangs() -> None:
        eventually(pid_file.exists)
        pool.close()

    closer = threading.Thread(target=close_when_it_hangs)  # while this thread waits
    closer.start()
    assert isinstance(next(readings)[1], UnreadableFile)
    closer.join()
    assert processes
    assert all(process.returncode is not None for process in processes)


PARENT = """
import os, signal, sys, threading, time
from pathlib import Path
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Limits
pool = ParserPool(Limits(timeout_s=600), workers=1, command=sys.argv[2:])
readings = pool.parse_all([Path(sys.argv[1] + "/a.txt"), Path(sys.argv[1] + "/b.child")])
threading.Thread(target=lambda: list(readings), daemon=True).start()
while not os.path.exists(os.environ["PID_FILE"]): time.sleep(0.01)
print(next(iter(pool._workers)).process.pid, flush=True)
signal.pause()
"""


def test_a_reader_that_hangs_ends_with_a_parent_that_is_killed(
    tmp_path: Path, command: list[str], pid_file: Path
) -> None:
    files(tmp_path / "docs", "a.txt", "b.child")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "docs"), *command], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    eventually(lambda: is_gone(pid) and is_gone(int(pid_file.read_text())))


NOTING = """
import signal, sys
from openbook.parsers.sandbox import protocol, tasks
read = protocol.read_frame
def noted(*arguments):
    print(signal.getitimer(signal.ITIMER_REAL)[0], file=open(sys.argv[1], "a"))
    return read(*arguments)
protocol.read_frame = noted
tasks.main(sys.argv[2:])
"""


def test_a_worker_may_wait_longer_than_a_file_may_take(tmp_path: Path) -> None:
    path, *_ = files(tmp_path / "docs", "a.txt")
    alarms = tmp_path / "alarms"
    with ParserPool(LONG, workers=1, command=[sys.executable, "-c", NOTING, str(alarms)]) as pool:
        for _ in range(2):
            assert not isinstance(pool.parse(path), UnreadableFile)
    assert alarms.read_text().split()[:2] == ["0.0", "0.0"]  # no alarm while it waits


def test_paths_arrive_as_they_are_from_whatever_folder_and_no_process_and_no_thread_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    names = [b"caf\xe9.txt", b"line\nbreak.txt", b"-option.txt", "Fähre 🚢.txt".encode()]
    paths = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in names]
    for path in paths:
        path.write_text(f"The text of {os.fsencode(path)!r}.")
    before = set(threading.enumerate())
    with ParserPool(LONG, workers=2) as pool:
        readings = list(pool.parse_all([*paths, tmp_path / "absent.txt", Path("a\0b.txt")]))
        workers = [worker.process for worker in pool._workers]
    found, refused = readings[:4], readings[4:]
    assert [path for path, _ in found] == paths
    contents = [outcome for _, outcome in found if not isinstance(outcome, UnreadableFile)]
    assert [content.text for content, _ in contents] == [f"The text of {os.fsencode(path)!r}." for path in paths]
    assert all(isinstance(outcome, UnreadableFile) for _, outcome in refused)
    assert workers
    assert all(process.returncode is not None for process in workers)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=60)
    assert set(threading.enumerate()) <= before


def test_a_file_that_is_given_with_its_bytes_is_read_as_one_on_the_disk(tmp_path: Path) -> None:
    paths = files(tmp_path / "docs", "a.txt", "b.md", "damaged.pdf", "b.html", "picture.txt")
    paths[1] = paths[1].rename(paths[1].with_name(os.fsdecode(b"caf\xe9.md")))
    paths[2].write_bytes(b"%PDF-1.7\0 and nothing else")
    paths[3].write_text("<title>Title</title>" + "<p>It is larger than a pipe holds.</p>" * 50_000)
    paths[4].write_bytes(b"\x89PNG\r\n\x1a\n")
    (empty := tmp_path / "docs" / "empty.txt").touch()
    with ParserPool(LONG, workers=1) as here, ParserPool(LONG, workers=1, by_value=True) as sent:
        for path in [*paths, empty, paths[0]]:
            expected, outcome = here.parse(path), sent.parse(Path(path.name), path.read_bytes())
            assert (str(outcome) == str(expected)) if isinstance(expected, UnreadableFile) else (outcome == expected)
