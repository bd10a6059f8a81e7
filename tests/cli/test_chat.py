"""`openbook chat`: a conversation whose transcript is a file of the user's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.cli import run
from openbook.cli.chat import FORMAT, Transcript, read_transcript
from openbook.core.errors import ConversationError
from tests.cli.conftest import TypeIn
from tests.conftest import base_with

HEAD = json.dumps({"format": FORMAT})
ASKED = '{"role": "user", "content": "When does the ferry to Sandhavn leave?"}'
ANSWERED = '{"role": "assistant", "content": "At nine."}'

Chat = Callable[..., int]

FERRY = "The ferry to Sandhavn leaves at nine. The ferry to Sandhavn costs 4 crowns."


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    texts = {"ferry.md": FERRY, "bridge.md": "The bridge of Lund was opened in 2026 by Lila Ortega."}
    base_with(folder, texts).close()
    return folder / "kb"


@pytest.fixture
def chat(
    fakes: None, built: Path, own_home: Path, tmp_path: Path, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> Chat:
    """Runs `openbook chat FILE` over fakes, with these lines on standard input."""
    shutil.copytree(built, own_home / "kb")
    monkeypatch.chdir(tmp_path)

    def start(*lines: str, arguments: tuple[str, ...] = ("talk.jsonl",)) -> int:
        type_in(*lines)
        return run(["chat", *arguments])

    return start


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def test_what_is_said_stands_in_the_file_and_goes_on_with_it(
    chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talk.jsonl"
    assert chat("When does the ferry to Sandhavn leave?", "", "Who opened the bridge of Lund?") == 0
    shown = capsys.readouterr()
    assert str(path) in shown.err
    assert "leaves at nine" in shown.out
    head, *turns = lines_of(path)
    assert head == {"format": FORMAT}
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert turns[1]["content"].startswith("The ferry to Sandhavn leaves")
    assert turns[1]["citations"][0]["quote"] in FERRY
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    assert chat("What does it cost?") == 0
    assert path.read_bytes().startswith(before)
    assert [turn["role"] for turn in lines_of(path)[1:]] == ["user", "assistant"] * 3


def everything(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_the_file_is_all_that_is_remembered(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join([HEAD, ASKED, ANSWERED]))  # without a line feed at the end
    assert chat("What does it cost?") == 0
    together = "Searched for together: When does the ferry to Sandhavn leave? / What does it cost?"
    assert together in everything(capsys)
    assert lines_of(path)[-2]["content"] == "What does it cost?"
    path.write_text(f"{HEAD}\n")
    assert chat("What does it cost?") == 0
    assert "Searched for together" not in everything(capsys)
    path.write_text(f"{HEAD}\n\n{ASKED}\r\n")
    path.chmod(0o640)
    assert chat("Who opened the bridge of Lund?") == 0
    _, *turns = lines_of(path)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert "leaves at nine" in turns[1]["content"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_without_a_file_a_new_one_is_named(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chat("Who opened the bridge of Lund?", arguments=()) == 0
    (path,) = tmp_path.glob("conversation-*.jsonl")
    assert str(path) in capsys.readouterr().err
    assert len(lines_of(path)) == 3


def test_a_broken_file_is_refused_with_its_line_and_left_alone(
    chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talk.jsonl"
    for lines, number, why in (
        (["# Notes"], 1, "it is not a JSON document"),
        ([ASKED], 1, "begins with the line"),
        ([HEAD, ASKED, "[1]"], 3, "it must be an object"),
        ([HEAD, ANSWERED], 2, "the role must be 'user' here"),
        ([HEAD, "", ASKED, ASKED], 4, "the role must be 'assistant' here"),
        ([HEAD, '{"role": "system", "content": "Obey."}'], 2, "'system'"),
        ([HEAD, '{"role": "user", "content": "?", "contents": "Why?"}'], 2, "Did you mean 'content'"),
        ([HEAD, '{"role": "user", "content": " "}'], 2, "the question is empty"),
        ([HEAD, '{"role": "user", "content": 4}'], 2, "it.content must be text, not 4"),
        ([HEAD, '{"role": "user", "content": "?", "searched": "!"}'], 2, "'role' and 'content' alone"),
        ([HEAD, '{"role": "user", "content": "\udcff"}'], 2, "it is not a JSON document: 'utf-8'"),
        ([HEAD, ASKED, ANSWERED, '{"role": "user", "content": "A'], 4, "it is not a JSON document"),
    ):
        path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
        before = path.read_bytes()
        assert chat("Who opened the bridge of Lund?") == 2
        error = capsys.readouterr().err
        assert f"talk.jsonl, line {number}: " in error
        assert why in error
        assert path.read_bytes() == before
        assert list(tmp_path.glob(".talk*")) == []


def test_a_file_that_cannot_be_written_loses_nothing(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text(f"{HEAD}\n{ASKED}\n{ANSWERED}\n")
    (tmp_path / "talk.jsonl").symlink_to(tmp_path / "real.jsonl")
    assert chat("Who opened the bridge of Lund?") == 0
    assert (tmp_path / "talk.jsonl").is_symlink()
    assert len(lines_of(tmp_path / "real.jsonl")) == 5
    assert chat("x" * 13_000) == 2
    assert len(lines_of(tmp_path / "real.jsonl")) == 5


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_as_a_transcript(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(data)
    if data.strip():
        with pytest.raises(ConversationError, match=r"line \d+: "):
            read_transcript(path)
    else:
        assert data or read_transcript(path) == Transcript()
