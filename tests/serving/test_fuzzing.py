"""Generated forms and generated answers: what parses them never fails otherwise than it says."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from openbook.answer import ask
from openbook.answer_text import TextPreview, tidy
from openbook.prompts import ABSTENTION
from openbook.records import Answer
from openbook.serving.bodies import UploadBody
from openbook.serving.chat import ChatShape
from openbook.serving.configuration import Bounds
from openbook.serving.documents import checked_name, read_form
from openbook.serving.refusals import Refusal
from openbook.testing import echo_model

# --- forms ------------------------------------------------------------------------------------------------------------

BOUNDARY = "x"
NAMES = st.sampled_from(["file", "files", "labels", "knowledge_base", "", "evil", "é", 'a"b'])
FILE_NAMES = st.one_of(
    st.none(),
    st.sampled_from(["a.txt", "../a.txt", "", "é.txt", ".hidden", "\\ud800.txt", "a.txt.meta.toml"]),
    st.text(max_size=6),
)
HEADERS = st.sampled_from(
    [
        "",
        "Content-Type: text/plain",
        "Content-Type: text/plain; charset=nothing",
        "Content-Transfer-Encoding: base64",
        "X",
        ":",
    ]
)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    name, file_name = draw(NAMES), draw(FILE_NAMES)
    said = f'Content-Disposition: form-data; name="{name}"' + ("" if file_name is None else f'; filename="{file_name}"')
    head = "\r\n".join(each for each in (said, draw(HEADERS)) if each)
    return head.encode("utf-8", "replace") + b"\r\n\r\n" + draw(st.binary(max_size=20))


@st.composite
def forms(draw: st.DrawFn) -> bytes:
    """A form with some of its bytes changed, left out or put in, and cut off somewhere."""
    body = b"".join(b"--x\r\n" + each + b"\r\n" for each in draw(st.lists(parts(), max_size=4))) + b"--x--\r\n"
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return body[: draw(st.integers(len(body) // 2, len(body)))]


KINDS = st.sampled_from(
    [
        "multipart/form-data; boundary=x",
        'multipart/form-data; boundary="x"; charset=utf-16',
        "multipart/form-data; boundary=x; charset=nothing",
        "multipart/form-data; boundary=x; charset=undefined",
        "multipart/form-data; boundary=x; charset=punycode",
        "multipart/form-data; boundary=x; charset=raw_unicode_escape",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "y" * 300,
        "multipart/form-data; boundary=\u00e9",
    ]
)


def read(body: bytes, kind: str, sizes: list[int]) -> tuple[dict[str, bytes], UploadBody]:
    """The files and fields of a form that comes in pieces."""
    cuts = [0, *sorted(size % (len(body) + 1) for size in sizes), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(cuts)]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "query_string": b""}
    scope["headers"] = [(b"content-type", kind.encode("latin-1"))]

    async def main() -> tuple[dict[str, bytes], UploadBody]:
        async with read_form(Request(scope, receive), Bounds()) as form:
            assert [place for place, _ in form.refused] == sorted({place for place, _ in form.refused})
            assert all(verdict.reason for _, verdict in form.refused)
            json.dumps([verdict.path for _, verdict in form.refused], ensure_ascii=False).encode()
            return {name: stream.read() for name, stream in form.files.items()}, form.fields

    return asyncio.run(main())


@settings(max_examples=80)
@given(forms(), KINDS, st.lists(st.integers(0, 1000), max_size=4))
@example(
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n',
    "multipart/form-data; boundary=x",
    [3, 40, 70],
)
def test_a_form_is_files_under_plain_names_or_is_refused(body: bytes, kind: str, sizes: list[int]) -> None:
    found: tuple[dict[str, bytes], UploadBody] | Refusal
    try:
        found = read(body, kind, sizes)
    except Refusal as refusal:
        found = refusal
    if isinstance(found, Refusal):
        assert found.status == 400
        return
    files, fields = found
    assert files
    assert all(checked_name(name) == name for name in files)
    assert all(content in body for content in files.values())
    assert isinstance(fields, UploadBody)


def test_a_form_is_read_in_whatever_pieces_it_comes() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n\r\n--y\r\n--x\r\n'
        b'Content-Disposition: form-data; name="labels"\r\n\r\nhr\r\n--x--\r\n'
    )
    for cut in range(len(body)):
        files, fields = read(body, "multipart/form-data; boundary=x", [cut])
        assert (files, fields.labels) == ({"a.txt": b"\r\n--y"}, ["hr"])


def test_a_form_that_is_cut_off_is_refused() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--'
    assert read(body, "multipart/form-data; boundary=x", [])[0] == {"a.txt": b"hello"}
    assert read(body + b"\r\nafter the end", "multipart/form-data; boundary=x", [])[0] == {"a.txt": b"hello"}
    for length in range(len(body)):
        with pytest.raises(Refusal):
            read(body[:length], "multipart/form-data; boundary=x", [])


# --- streams ----------------------------------------------------------------------------------------------------------

HOSTILE = st.text(st.sampled_from("a \n\r:{}[]\"'\\\u0085\u2028\u2029\x0b\x0c\x1c\x00é😀dt"), max_size=8)
TEXTS = st.lists(
    st.one_of(HOSTILE, st.sampled_from(["data: ", "data: [DONE]\n\n", "event: error", "\ufeff", ABSTENTION])),
    max_size=6,
)


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ask("Is this a test?", echo_model())


class Sent(httpx2.BaseTransport):
    """The same bytes in the same pieces for every request."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        def content() -> Iterator[bytes]:
            yield from self._pieces

        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content())


def sent(texts: list[str], answer: Answer) -> tuple[bytes, str]:
    """(the stream of an answer that the model writes so, the answer)."""
    shape, begun = ChatShape("id", 0, "echo", "fp", True), False
    events: list[bytes] = []
    whole, pieces = tidy("".join(texts)), list[str]()
    shown = TextPreview(pieces.append, [ABSTENTION])
    for text in texts:
        shown.feed(text)
    for piece in (*pieces, whole[len("".join(pieces)) :]):
        if piece:
            events += shape.piece(piece, first=not begun)
            begun = True
    events += shape.end(replace(answer, answer=whole), whole, begun=begun)
    return b"".join(events), whole


@settings(max_examples=60)
@given(texts=TEXTS, sizes=st.lists(st.integers(0, 10_000), max_size=8))
def test_the_client_reads_of_a_stream_what_the_model_wrote(answer: Answer, texts: list[str], sizes: list[int]) -> None:
    stream, whole = sent(texts, answer)
    cuts = [0, *sorted(size % (len(stream) + 1) for size in sizes), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(cuts)]
    with httpx2.Client(transport=Sent(pieces)) as http:
        client = openai.OpenAI(base_url="http://localhost/v1", api_key="unused", http_client=http, max_retries=0)
        chunks = list(client.chat.completions.create(model="echo", messages=[], stream=True))
    read = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert read == whole
    assert chunks[-1].usage is not None
    extra = chunks[-2].model_extra
    assert extra is not None
    assert extra["openbook"]["answer"] == whole


@settings(max_examples=60)
@given(texts=TEXTS)
def test_a_client_that_knows_more_ends_of_lines_reads_the_same(answer: Answer, texts: list[str]) -> None:
    """Some split decoded text as Python does, at ten characters more than the standard of event streams has."""
    stream, _ = sent(texts, answer)
    lines = [line for line in stream.decode().splitlines() if line]
    assert lines == [line for line in stream.decode().split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
