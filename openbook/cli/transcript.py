"""The transcript of a conversation: a file of the user's, one JSON object a line (docs/formats/transcript.md).

The file is all that is known of the conversation. It is read again before each question, so a line that was changed or
deleted meanwhile counts; what is added is added to the bytes that are there, in one step.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openbook.errors import ConversationError, did_you_mean
from openbook.files import replace_file, storage_errors
from openbook.records import Answer

FORMAT = "openbook conversation 1"
MOST_BYTES = 50_000_000

_HEAD = json.dumps({"format": FORMAT}) + "\n"
_TEXTS: dict[str, type] = {"role": str, "content": str}
_KEYS = {"user": _TEXTS, "assistant": {**_TEXTS, "abstained": bool, "searched": str, "citations": list, "receipt": str}}


@dataclass(frozen=True, slots=True)
class Transcript:
    """`questions`: what the user asked, oldest first. `open_question`: the last of them, when nobody has answered it."""

    questions: tuple[str, ...] = ()
    open_question: str | None = None


def read_transcript(path: Path) -> Transcript:
    """Of a file that is not there, an empty one. Raises ConversationError, naming the line that is wrong; StorageError."""
    with storage_errors(f"read {path}"):
        data = path.read_bytes() if path.exists() else b""
    return _parsed(data, path)


def add_exchange(path: Path, question: str, searched: str, answer: Answer, *, stands: bool = False) -> None:
    """Add an answer and, unless it `stands` there already, its question. Raises ConversationError, StorageError.

    The file is whole before and after; a new one can be read by nobody else.
    """
    lines = [] if stands else [{"role": "user", "content": question}]
    lines.append(_answered(question, searched, answer))
    with storage_errors(f"write {path}"):
        path = path.resolve()  # a link stays one
        old = path.read_bytes() if path.exists() else b""
        mode = stat.S_IMODE(path.stat().st_mode) if old else 0o600
    if (_parsed(old, path).open_question is None) == stands:
        raise ConversationError(
            f"{path} was changed while the question was answered; the answer was not added. Ask again."
        )
    head = old if old.endswith(b"\n") or not old else old + b"\n"
    added = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    with storage_errors(f"write {path}"):
        replace_file(path, (head or _HEAD.encode()) + added.encode(), mode=0o600)
        path.chmod(mode)


def _answered(question: str, searched: str, answer: Answer) -> dict[str, Any]:
    line: dict[str, Any] = {"role": "assistant", "content": answer.answer, "abstained": answer.abstained}
    if searched.strip() != question.strip():
        line["searched"] = searched
    citations = [{k: v for k, v in asdict(c).items() if k != "passage_id" and v} for c in answer.citations]
    return {**line, "citations": citations, "receipt": answer.receipt.digest}


def _parsed(data: bytes, path: Path) -> Transcript:
    if not data:
        return Transcript()
    if len(data) > MOST_BYTES:
        raise ConversationError(f"{path} has {len(data):,} bytes; a transcript may have {MOST_BYTES:,}.")
    try:
        lines = data.decode("utf-8-sig").split("\n")  # no other character ends a line of JSON
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise _wrong(path, number, "it is not UTF-8") from error
    objects = [(number, _object(line, path, number)) for number, line in enumerate(lines, start=1) if line.strip()]
    if not objects or objects[0][1] != {"format": FORMAT}:
        number = objects[0][0] if objects else 1
        raise _wrong(path, number, f"a transcript begins with the line {_HEAD.strip()}")
    return _turns([(number, _checked(value, path, number)) for number, value in objects[1:]], path)


def _turns(turns: Sequence[tuple[int, tuple[str, str]]], path: Path) -> Transcript:
    wanted = "user"
    for number, (role, _) in turns:
        if role != wanted:
            raise _wrong(path, number, f"here must be a line of the role {wanted!r}, not {role!r}")
        wanted = "assistant" if role == "user" else "user"
    questions = tuple(content for _, (role, content) in turns if role == "user")
    return Transcript(questions, questions[-1] if wanted == "assistant" else None)


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, number, f"it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _wrong(path, number, "it is not a JSON object")
    return value


def _checked(value: dict[str, Any], path: Path, number: int) -> tuple[str, str]:
    """(role, content) of a line. Raises ConversationError."""
    role = value.get("role")
    if not isinstance(role, str) or role not in _KEYS:
        raise _wrong(path, number, f"the role must be 'user' or 'assistant', not {role!r}")
    known = _KEYS[role]
    for key, each in value.items():
        if key not in known:
            raise _wrong(path, number, f"a line of the role {role!r} has no key {key!r}.{did_you_mean(key, known)}")
        if not isinstance(each, known[key]):
            raise _wrong(path, number, f"{key!r} must be of the type {known[key].__name__}, not {each!r}"[:300])
    content = value.get("content", "")
    if role == "user" and not content.strip():
        raise _wrong(path, number, "the question is empty")
    return role, content


def _wrong(path: Path, number: int, why: str) -> ConversationError:
    return ConversationError(f"{path}, line {number}: {why}. Correct or delete the line, or name another file.")
