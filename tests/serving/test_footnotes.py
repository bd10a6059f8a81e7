"""Citations as footnotes in the text, for who asks for them: inert, and beside an answer that stays as it is."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.answer import ask
from openbook.knowledge import add
from openbook.prompts import ABSTENTION
from openbook.records import Answer, Citation
from openbook.serving.footnotes import footnotes
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import Running
from tests.serving.described import events

QUESTION = "When was the bridge opened by the mayor?"
PATHS = ["/v1/chat/completions", "/v1/responses"]


def body(path: str, question: str, *, stream: bool = False, **own: Any) -> dict[str, Any]:
    asked: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": question}]},
        "/v1/responses": {"input": question},
    }
    return {"model": "echo", "stream": stream, "openbook": own, **asked[path]}


def whole(server: Running, path: str, question: str, **own: Any) -> tuple[str, dict[str, Any]]:
    """(the text, what is under `openbook`)."""
    response = server.client.post(path, json=body(path, question, **own))
    assert response.status_code == 200, response.text
    value = response.json()
    if path == "/v1/responses":
        return value["output"][0]["content"][0]["text"], value["openbook"]
    return value["choices"][0]["message"]["content"], value["openbook"]


def streamed(server: Running, path: str, question: str, **own: Any) -> tuple[list[str], dict[str, Any], list[Any]]:
    """(the pieces of the text, what is under `openbook`, all events)."""
    response = server.client.post(path, json=body(path, question, stream=True, **own))
    values = [json.loads(each) for each in events(response.text)]
    if path == "/v1/responses":
        pieces = [each["delta"] for each in values if each["type"] == "response.output_text.delta"]
        return pieces, values[-1]["response"]["openbook"], values
    pieces = [each["choices"][0]["delta"].get("content", "") for each in values]
    return [each for each in pieces if each], values[-1]["openbook"], values


@pytest.mark.parametrize("path", PATHS)
def test_who_asks_gets_the_citations_after_the_text(server: Running, path: str) -> None:
    plain, before = whole(server, path, QUESTION)
    text, answer = whole(server, path, QUESTION, footnotes=True)
    assert text.startswith(plain + "\n\n[1] `")
    assert whole(server, path, QUESTION, footnotes=False)[0] == plain == answer["answer"] == before["answer"]
    assert answer["receipt"] == before["receipt"]
    assert answer["citations"] == before["citations"] != []
    for number, each in enumerate(answer["citations"], 1):
        place = f"characters {each['start']}-{each['end']}"
        assert f"\n\n[{number}] `{each['document']}`, {place}: `{each['quote']}`" in text


@pytest.mark.parametrize("path", PATHS)
def test_in_a_stream_they_are_the_last_piece(server: Running, path: str) -> None:
    plain, _ = whole(server, path, QUESTION)
    text, answer = whole(server, path, QUESTION, footnotes=True)
    pieces, last, values = streamed(server, path, QUESTION, footnotes=True)
    assert "".join(pieces) == text
    assert "".join(pieces[:-1]) == plain
    assert pieces[-1].startswith("\n\n[1] `")
    assert last["receipt"] == answer["receipt"]
    if path == "/v1/responses":
        assert values[-1]["response"]["output"][0]["content"][0]["text"] == text
        assert next(each["text"] for each in values if each["type"] == "response.output_text.done") == text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("question", ["What is the colour of happiness and of number 12?"])
def test_an_abstention_has_none(server: Running, path: str, question: str) -> None:
    text, answer = whole(server, path, question, footnotes=True)
    assert (text, answer["abstained"]) == (ABSTENTION, True)
    assert "".join(streamed(server, path, question, footnotes=True)[0]) == ABSTENTION


def test_nor_has_an_answer_from_memory(server: Running) -> None:
    values = [
        server.ask(QUESTION, model="echo:closed-book", openbook={"footnotes": own}).json()["choices"]
        for own in (True, False)
    ]
    assert values[0] == values[1]


def test_a_document_whose_name_and_text_are_markup_stays_text(
    server: Running, tmp_path: Path, embedder: HashEmbedder
) -> None:
    path = tmp_path / "docs" / "a`[x](https:evil.example)`\n# b.txt"
    path.write_text("The `mole` of ![Sandhavn](https://evil.example/x.png) was built by Ole Krag in 1911.")
    add(server.bases["kb"], [path], embedder)
    text, answer = whole(server, PATHS[0], "Who built the mole of Sandhavn in 1911?", footnotes=True)
    (footnote,) = text.removeprefix(answer["answer"]).strip("\n").split("\n\n")
    assert "evil.example/x.png" in footnote
    assert footnote.count("`") == 4
    assert not re.search(r"evil|#", re.sub(r"`[^`]*`", "", footnote))
    assert "\n" not in footnote


@pytest.fixture(scope="module")
def answer() -> Answer:
    return ask("Is this a test?", echo_model())


@given(st.lists(st.tuples(st.text(), st.text(), st.none() | st.integers(1, 9)), max_size=3))
def test_every_footnote_is_one_line_whatever_it_names(answer: Answer, named: list[tuple[str, str, int | None]]) -> None:
    citations = tuple(
        Citation(document, page, start=1, end=2, quote=quote, passage_id="x") for document, quote, page in named
    )
    text = footnotes(replace(answer, citations=citations))
    parts = text.split("\n\n")[1:]
    assert len(parts) == len(named)
    for number, (part, (_, _, page)) in enumerate(zip(parts, named, strict=True), 1):
        at = "" if page is None else f", page {page}"
        assert re.fullmatch(rf"\[{number}\] `[^`]+`{at}, characters 1-2: `[^`]+`", part)
        assert part.splitlines() == [part]
        assert not [c for c in part if unicodedata.category(c) in ("Cc", "Cs") or c in "\u202e\u2066\u200b\ufeff"]
