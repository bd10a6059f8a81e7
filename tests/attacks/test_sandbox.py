"""Files that hang, crash, exhaust or take over the process that reads them: each costs itself and no other file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Limits

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
    open(name_of_pid, "w").write(str(subprocess.Popen(["sleep", "1000"]).pid))
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
LIMITS = Limits(timeout_s=3.0, memory_mb=300)


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
    "hang": "took longer than 3 s to read",
    "sleep": "took longer than 3 s to read",
    "child": "took longer than 3 s to read",
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


def test_each_bad_file_costs_only_itself_and_a_killed_reader_leaves_no_children(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    names = [name for i, kind in enumerate(REASONS) for name in (f"{i}.txt", f"{i}.{kind}")]
    expected = [each for i, reason in enumerate(REASONS.values()) for each in (f"The text of {i}.txt.", reason)]
    found = outcomes(files(tmp_path / "docs", *names), command, workers=3)
    assert [each[: len(words)] for each, words in zip(found, expected, strict=True)] == expected
    assert is_gone(int((tmp_path / "pid").read_text()))


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True  # dead, and nobody in this container reaps it
        time.sleep(0.05)
    return False


# --- workers that are not what they seem ------------------------------------------------------------------------------

NO_HELLO = "import sys; sys.stdout.write('hello there, this is no frame'); sys.stdout.flush(); sys.stdin.read()"
ANSWERS = {
    "another name": "answer(b'12345678', good())",
    "not json": "answer(name, b'{')",
    "no object": "answer(name, b'[1]')",
    "missing field": "answer(name, good(drop='text'))",
    "extra field": "answer(name, good(extra=1))",
    "text of a wrong type": "answer(name, good(text=['a']))",
    "a control character": "answer(name, good(text='a\\x1b'))",
    "page beyond the end": "answer(name, good(pages=[page(1, 0, 99)]))",
    "pages that overlap": "answer(name, good(pages=[page(1, 0, 3), page(2, 2, 4)]))",
    "page as truth": "answer(name, good(pages=[page(True, 0, 3)]))",
    "heading beyond the end": "answer(name, good(headings=[mark(5)]))",
    "headings out of order": "answer(name, good(headings=[mark(2), mark(1)]))",
    "heading below zero": "answer(name, good(headings=[mark(-1)]))",
    "a title of a megabyte": "answer(name, good(title='a' * 1_000_000))",
    "metadata with a bad key": "answer(name, good(metadata=[['Not A Key', 1]]))",
    "a label that cannot be one": "answer(name, good(metadata=[['access_labels', ['No']]]))",
    "nested metadata": "answer(name, good(metadata=[['a', {'b': 1}]]))",
    "metadata of many keys": "answer(name, good(metadata=[[f'k{i:04}', 1] for i in range(1000)]))",
    "not a number": "answer(name, good().replace(b'null', b'NaN'))",
    "a bad digest": "answer(name, good(digest='x' * 64))",
    "deep nesting": "answer(name, b'[' * 100_000)",
    "a number of many digits": "answer(name, good().replace(b'null', b'9' * 10_000))",
    "a lone surrogate": "answer(name, good().replace(b'text.', b'\\\\ud800'))",
    "a frame of four gigabytes": "sys.stdout.buffer.write(b'\\xff\\xff\\xff\\xff' + name); sys.stdout.flush()",
    "half a frame": "sys.stdout.buffer.write(b'\\0\\0\\1\\0' + name); sys.stdout.flush(); sys.exit()",
}
FAKE = """
import json, sys
def frame():
    head = sys.stdin.buffer.read(4)
    return sys.stdin.buffer.read(int.from_bytes(head, "big")) if len(head) == 4 else sys.exit()
def answer(name, body):
    sys.stdout.buffer.write((len(name) + len(body)).to_bytes(4, "big") + name + body)
    sys.stdout.flush()
def page(number, start, end):
    return {{"number": number, "start": start, "end": end}}
def mark(start):
    return {{"start": start, "level": 1, "title": "a"}}
def good(drop=None, extra=None, digest="0" * 64, **other):
    content = {{"media_type": "text/plain", "title": "", "pages": [], "headings": [], "source_chars": None,
               "metadata": [], "text": "text.", **other}}
    content.pop(drop, None)
    answer = {{"content": content, "digest": digest}}
    return json.dumps(answer if extra is None else {{**answer, "extra": extra}}).encode()
def hello():
    answer(b"openbook", b"")
{start}
while True:
    question = frame()
    name, path = question[:8], question[8:]
    if path.endswith(b".bad"):
        exec({answers!r}[int(path.split(b"/")[-1][:-4])])
    else:
        answer(name, good())
"""


def test_a_worker_that_answers_nonsense_costs_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAKE.format(start="hello()", answers=list(ANSWERS.values()))]
    names = [name for i in range(len(ANSWERS)) for name in (f"{i}.txt", f"{i}.bad")]
    found = outcomes(files(tmp_path / "docs", *names), command)
    assert set(found[::2]) == {"text."}
    for kind, bad in zip(ANSWERS, found[1::2], strict=True):
        reasons = ("the parser gave an answer that makes no sense", "the parser ended", "the parser crashed")
        assert bad.startswith(reasons), kind


def test_the_fake_worker_is_believed_when_it_is_honest(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAKE.format(start="hello()", answers=["answer(name, good(title='T'))"])]
    with ParserPool(LIMITS, command=command) as pool:
        ((_, outcome),) = pool.parse_all(files(tmp_path / "docs", "0.bad"))
    assert outcome == (Content("text.", "text/plain", "T"), "0" * 64)


def test_a_worker_that_does_not_start(tmp_path: Path) -> None:
    paths = files(tmp_path / "docs", "a.txt", "b.txt")
    for start in (NO_HELLO, "sys.exit('cannot start')", "import nothing_of_this_name"):
        for reason in outcomes(paths, [sys.executable, "-c", FAKE.format(start=start, answers=[])]):
            assert reason.startswith("the parser did not start"), start
    reasons = outcomes(paths, [str(tmp_path / "absent")])
    assert set(reasons) == {"the parser could not be started (no such file or directory)"}


# --- ends -------------------------------------------------------------------------------------------------------------


def test_closing_does_not_wait_for_a_reader_that_hangs(tmp_path: Path, command: list[str]) -> None:
    pool = ParserPool(Limits(timeout_s=600), workers=1, command=command)
    readings = pool.parse_all(files(tmp_path / "docs", "a.txt", "b.sleep", "c.txt", "d.txt", "e.txt", "f.txt"))
    assert not isinstance(next(readings)[1], UnreadableFile)
    processes = [worker.process for worker in pool._workers]
    closer = threading.Timer(0.3, pool.close)  # while this thread waits
    closer.start()
    assert isinstance(next(readings)[1], UnreadableFile)
    closer.join(timeout=30)
    assert not closer.is_alive()
    assert processes
    assert all(process.returncode is not None for process in processes)


PARENT = """
import sys, time
from pathlib import Path
from openbook.parsers.sandbox.pool import ParserPool
from openbook.parsers.sandbox.protocol import Limits
pool = ParserPool(Limits(timeout_s=600), workers=1, command=sys.argv[2:])
readings = pool.parse_all([Path(sys.argv[1] + "/a.txt"), Path(sys.argv[1] + "/b.hang")])
import threading
threading.Thread(target=lambda: list(readings), daemon=True).start()
while not pool._workers: time.sleep(0.01)
time.sleep(0.5)
print(next(iter(pool._workers)).process.pid, flush=True)
time.sleep(1000)
"""


def test_a_reader_that_hangs_ends_with_a_parent_that_is_killed(tmp_path: Path, command: list[str]) -> None:
    files(tmp_path / "docs", "a.txt", "b.hang")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "docs"), *command], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert is_gone(pid)


def test_a_worker_may_wait_longer_than_a_file_may_take(tmp_path: Path) -> None:
    path, *_ = files(tmp_path / "docs", "a.txt")
    with ParserPool(Limits(timeout_s=0.9), workers=1) as pool:
        list(pool.parse_all([path]))
        (worker,) = pool._workers
        time.sleep(3.5)  # the alarm of the file would come after three
        assert worker.process.poll() is None
        list(pool.parse_all([path]))
        assert pool._workers == {worker}


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
    with ParserPool(Limits(), workers=2) as pool:
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
        thread.join(timeout=5)
    assert set(threading.enumerate()) <= before


def test_a_file_that_is_given_with_its_bytes_is_read_as_one_on_the_disk(tmp_path: Path) -> None:
    paths = files(tmp_path / "docs", "a.txt", "b.md", "damaged.pdf", "b.html", "picture.txt")
    paths[1] = paths[1].rename(paths[1].with_name(os.fsdecode(b"caf\xe9.md")))
    paths[2].write_bytes(b"%PDF-1.7\0 and nothing else")
    paths[3].write_text("<title>Title</title>" + "<p>It is larger than a pipe holds.</p>" * 50_000)
    paths[4].write_bytes(b"\x89PNG\r\n\x1a\n")
    (empty := tmp_path / "docs" / "empty.txt").touch()
    with ParserPool(Limits(), workers=1) as here, ParserPool(Limits(), workers=1, by_value=True) as sent:
        for path in [*paths, empty, paths[0]]:
            expected, outcome = here.parse(path), sent.parse(Path(path.name), path.read_bytes())
            assert (str(outcome) == str(expected)) if isinstance(expected, UnreadableFile) else (outcome == expected)
