"""Several processes at one address: one dies under load, and all end in order. Real processes, over fakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.serving.conftest import LONG_S

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="several processes share a socket on POSIX only")

SCRIPT = Path(__file__).parent / "fake_serve.py"
DOCUMENT = b"The ferry to Sandhavn leaves at nine on weekdays."
QUESTION = "When does the ferry to Sandhavn leave?"


@dataclass
class Program:
    """`openbook serve` with workers. `lines`: what it and its workers wrote to standard error, so far."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def read(self, errors: Iterable[str]) -> None:
        for line in errors:
            self.lines.append(line)

    def ask(self) -> int:
        """The status of one question over a connection of its own; 0 when the connection broke."""
        body = {"model": "echo", "messages": [{"role": "user", "content": QUESTION}]}
        try:
            answered = httpx.post(
                f"{self.url}/v1/chat/completions", json=body, headers=self.headers, timeout=LONG_S, trust_env=False
            )
        except httpx.TransportError:
            return 0
        return answered.status_code

    def answered_by(self) -> dict[int, int]:
        """How many questions each worker answered, by its process id."""
        found: dict[int, int] = {}
        for line in list(self.lines):
            if match := re.search(r"openbook\.serving\[(\d+)\] POST /v1/chat/completions 200", line):
                found[int(match[1])] = found.get(int(match[1]), 0) + 1
        return found

    def wait_until_served(self) -> None:
        """The connection waits at the socket until a worker takes it."""
        assert httpx.get(f"{self.url}/health", timeout=LONG_S, trust_env=False).status_code == 200

    def wait_for(self, words: str) -> str:
        """The first line with these words."""
        while True:
            for line in list(self.lines):
                if words in line:
                    return line
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)


@contextmanager
def program(*arguments: str) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    found = Program(process)
    reading = threading.Thread(target=found.read, args=(process.stderr,))
    reading.start()
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", found.wait_for("Listening on"))
        assert address is not None
        found.url = address[0]
        yield found
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(LONG_S)
        reading.join(LONG_S)
        process.stdout.close()
        process.stderr.close()


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_dies_under_load_and_all_end_in_order() -> None:
    with program("--workers", "2", "--require-key") as served:
        assert served.process.stdout is not None
        served.headers = {"authorization": f"Bearer {served.process.stdout.readline().strip()}"}
        served.wait_until_served()
        files = {"file": ("ferry.txt", DOCUMENT)}
        added = httpx.post(
            f"{served.url}/v1/documents", files=files, headers=served.headers, timeout=LONG_S, trust_env=False
        )
        assert added.status_code == 200

        # 1) Both answer, also what was uploaded to one of them.
        with ThreadPoolExecutor(8) as clients:
            while len(served.answered_by()) < 2:
                assert list(clients.map(lambda _: served.ask(), range(8))) == [200] * 8

            # 2) One is killed while it answers: what it was answering breaks, everything else is answered.
            killed = min(served.answered_by())
            asked = [clients.submit(served.ask) for _ in range(40)]
            os.kill(killed, signal.SIGKILL)
            asked += [clients.submit(served.ask) for _ in range(40)]
            statuses = [each.result() for each in asked]
            assert set(statuses) <= {0, 200}
            assert statuses.count(0) <= 8  # no more than were under way
            served.wait_for(f"Child process [{killed}] died")
            while len(served.answered_by()) < 3:  # a new one takes its place
                assert list(clients.map(lambda _: served.ask(), range(8))) == [200] * 8

            # 3) Counted is what all did, the dead one too.
            metrics = httpx.get(f"{served.url}/metrics", headers=served.headers, trust_env=False).text
            counted = re.search(r'openbook_answers_total\{end="end",mode="open-book"\} (\d+)', metrics)
            assert counted is not None
            assert int(counted[1]) >= sum(served.answered_by().values())
            assert 'openbook_running{gate="reading"} 0.0' in metrics

            # 4) All end in order: what is under way is answered.
            last = [clients.submit(served.ask) for _ in range(4)]
            time.sleep(0.02)
            served.process.terminate()
            assert {each.result() for each in last} <= {0, 200}  # 0: it came when nobody listened any more
        assert served.process.wait(LONG_S) == 0
        assert served.process.stdout.read() == ""  # the key was shown once
        assert not any(map(is_alive, served.answered_by()))


def test_workers_end_when_the_supervisor_is_killed() -> None:
    with program("--workers", "2") as served:
        served.wait_until_served()
        while len(served.answered_by()) < 2:
            assert served.ask() == 200
        workers = served.answered_by()
        served.process.kill()
        served.process.wait(LONG_S)
        while any(map(is_alive, workers)):
            time.sleep(0.02)


def test_a_worker_that_cannot_begin_ends_the_program_with_its_words() -> None:
    with program("--workers", "2", "--model", "broken") as served:
        assert served.process.wait(LONG_S) == 1
    assert any("This model is broken." in line for line in served.lines)
