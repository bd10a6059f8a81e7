"""Files, vector stores and the tool `file_search`, as OpenAI's client asks for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import QuestionError
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.index.filter_parser import parse_filter
from openbook.serving.errors import ApiError
from openbook.serving.schemas import Filter
from openbook.serving.vector_stores import document_of, file_id_of
from tests.serving.conftest import (
    CHAT,
    OPENED,
    QUESTION,
    SAFE,
    SECRET,
    TOWER,
    Running,
    Serve,
    add_file,
    path_of,
    refusal,
)

NOTE = b"---\nteam: harbour\nyear: 2025\nurgent: true\n---\nThe crane of Sandhavn lifts 40 tonnes.\n"
CRANE = "How many tonnes does the crane of Sandhavn lift?"


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_read_listed_and_deleted(server: Running, client: openai.OpenAI) -> None:
    file = client.files.create(file=("crane.md", NOTE), purpose="user_data")
    assert (file.filename, file.bytes, file.status) == ("crane.md", len(NOTE), "processed")
    assert client.files.retrieve(file.id) == file
    assert client.files.wait_for_processing(file.id) == file
    assert "lifts 40 tonnes" in client.files.content(file.id).text
    before = server.bases["kb"].version
    names = [each.filename for each in client.files.list(limit=1)]  # page by page
    assert names == ["bridge.txt", "ferry.md", "crane.md"]
    again = client.files.create(file=("crane.md", NOTE.replace(b"40", b"50")), purpose="assistants")
    assert again.id == file.id
    assert "lifts 50 tonnes" in client.files.content(file.id).text
    assert client.files.delete(file.id).deleted
    assert server.bases["kb"].version == before + 2
    assert "crane.md" not in [each.filename for each in client.files.list()]
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="There is no file"):
            ask(file.id)


def test_a_file_that_cannot_be_a_document_is_refused(client: openai.OpenAI) -> None:
    create: Callable[..., Any] = client.files.create
    for file, more, wanted in (
        (("x.pdf", b"%PDF-1.7 nothing"), {"purpose": "assistants"}, "The file was not taken in: "),
        (("../x.txt", b"x"), {"purpose": "assistants"}, "not a valid name"),
        (("x.jsonl", b"{}"), {"purpose": "batch"}, "Invalid value for 'purpose': files are documents"),
        (("x.txt", b"x"), {"purpose": "user_data", "expires_after": {"anchor": "created_at", "seconds": 3600}}, "expires_after"),
        (("x.txt", b"x"), {"purpose": "user_data", "extra_body": {"knowledge_base": "other"}}, "'other' does not exist"),
        (("x.txt", b"x"), {"purpose": "user_data", "extra_body": {"labels": "hr"}}, "only labels that your key holds"),
    ):  # fmt: skip
        with pytest.raises(openai.APIStatusError, match=wanted) as refused:
            create(file=file, **more)
        assert refused.value.status_code in (400, 403, 404)
    wrong: list[dict[str, Any]] = [{"order": "desc"}, {"purpose": "vision"}, {"after": "file-nothing"}, {"limit": 5000}]
    for each in wrong:
        with pytest.raises(openai.APIStatusError, match=f"{next(iter(each))}|no file"):
            client.files.list(**each)


@given(document=st.text(max_size=50))
def test_an_id_is_its_document_and_no_other_text_is_an_id(document: str) -> None:
    assert document_of(file_id_of(document)) == document.encode(errors="replace").decode()
    with suppress(ApiError):
        assert file_id_of(document_of(document)) == document


# --- vector stores ----------------------------------------------------------------------------------------------------


def test_a_knowledge_base_is_a_vector_store(server: Running, client: openai.OpenAI) -> None:
    (store,) = client.vector_stores.list()
    assert (store.id, store.file_counts.total, store.status) == ("kb", 2, "completed")
    uploaded = client.vector_stores.files.upload_and_poll(vector_store_id="kb", file=("crane.md", NOTE))
    assert (uploaded.status, uploaded.vector_store_id) == ("completed", "kb")
    assert uploaded.attributes is not None
    assert (uploaded.attributes["team"], uploaded.attributes["urgent"]) == ("harbour", True)
    now = client.vector_stores.retrieve("kb")
    assert (now.file_counts.completed, now.usage_bytes) == (3, store.usage_bytes + len(NOTE))
    listed = list(client.vector_stores.files.list("kb", limit=2))
    assert [each.id for each in listed] == [each.id for each in client.files.list()]
    assert listed[-1] == client.vector_stores.files.retrieve(uploaded.id, vector_store_id="kb") == uploaded
    assert client.vector_stores.files.delete(uploaded.id, vector_store_id="kb").deleted
    assert client.vector_stores.retrieve("kb").file_counts == store.file_counts
    with pytest.raises(openai.BadRequestError, match="openbook sync FOLDER --kb PLACE"):
        client.vector_stores.create(name="mine")
    for unknown in (lambda: client.vector_stores.update("kb", name="mine"), lambda: client.vector_stores.delete("kb")):
        with pytest.raises(openai.APIStatusError, match="Not allowed to"):
            unknown()
    with pytest.raises(openai.NotFoundError, match="There are: kb"):
        client.vector_stores.retrieve("vs_123")
    with pytest.raises(openai.BadRequestError, match="attributes"):
        client.vector_stores.files.create("kb", file_id=listed[0].id, attributes={"team": "x"})


def test_a_search_with_filters(client: openai.OpenAI) -> None:
    client.files.create(file=("crane.md", NOTE), purpose="assistants")
    harbour: Any = {"type": "eq", "key": "team", "value": "harbour"}
    (hit,) = client.vector_stores.search("kb", query=CRANE, filters=harbour)
    assert (hit.filename, hit.content[0].text) == ("crane.md", "The crane of Sandhavn lifts 40 tonnes.\n")
    assert hit.attributes is not None
    assert (hit.attributes["year"], hit.file_id) == (2025, client.files.list().data[-1].id)
    for crane, ferry, filters in (
        (True, False, {"type": "gte", "key": "year", "value": 2025}),
        (False, False, {"type": "gt", "key": "year", "value": 2025.5}),
        (True, False, {"type": "in", "key": "Team", "value": ["city", "harbour"]}),
        (False, True, {"type": "nin", "key": "team", "value": ["harbour"]}),
        (False, False, {"type": "ne", "key": "team", "value": "harbour"}),
        (False, False, {"type": "eq", "key": "team", "value": "' or exists path or team = '"}),
        (False, False, {"type": "and", "filters": [harbour, {"type": "eq", "key": "urgent", "value": False}]}),
        (True, True, {"type": "or", "filters": [harbour, {"type": "nin", "key": "team", "value": ["x"]}]}),
    ):  # fmt: skip
        hits = client.vector_stores.search("kb", query=[CRANE], filters=filters)  # type: ignore[arg-type]
        names = {each.filename for each in hits}
        assert ("crane.md" in names, "ferry.md" in names) == (crane, ferry), filters
    best, second = list(client.vector_stores.search("kb", query=CRANE, max_num_results=2))
    assert best.score > second.score


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_num_results": 51}, "max_num_results"),
    ({"rewrite_query": True}, "rewrite_query"),
    ({"query": ["a", "b"]}, "query"),
    ({"filters": {"type": "eq", "key": "team"}}, "filters"),
    ({"filters": {"type": "in", "key": "team", "value": "x"}}, "filters"),
    ({"filters": {"type": "eq", "key": "?!", "value": "x"}}, "filters"),
    ({"filters": {"type": "and", "filters": []}}, "filters"),
    ({"filters": {"type": "like", "key": "team", "value": "x"}}, "filters.type"),
    ({"where": "team = 'x'"}, "where"),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
def test_a_wrong_search_is_told_which_part(server: Running, body: dict[str, Any], param: str) -> None:
    response = server.client.post("/v1/vector_stores/kb/search", json={"query": CRANE, **body})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


VALUES = st.text(max_size=20) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
TERMS = st.builds(
    lambda sign, key, value: {"type": sign, "key": key, "value": value},
    st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]),
    st.text(min_size=1, max_size=12) | st.sampled_from(["a = 1 or path", "not", "exists", "in", "x)", "a'b"]),
    VALUES,
)
FILTERS = st.recursive(
    TERMS,
    lambda inner: st.builds(
        lambda sign, filters: {"type": sign, "filters": filters},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


def keys_and_values(value: dict[str, Any]) -> list[tuple[str, Any]]:
    inner = value.get("filters")
    return [pair for each in inner for pair in keys_and_values(each)] if inner else [(value["key"], value["value"])]


@given(value=FILTERS)
def test_no_key_or_value_is_more_than_a_key_or_a_value(value: dict[str, Any]) -> None:
    with suppress(ValueError, QuestionError, ApiError):  # a key that is none, control characters
        parsed = parse_filter(Filter.model_validate(value).where)
        assert len(parsed.keys) <= len(keys_and_values(value))
        assert parsed.sql.count(" IS TRUE)") == len(keys_and_values(value))


# --- labels -----------------------------------------------------------------------------------------------------------


def test_a_file_that_a_key_may_not_see_does_not_exist(server: Running) -> None:
    hidden = file_id_of(path_of(server.bases["kb"], "safe.txt"))
    missing = file_id_of("/nowhere/safe.txt")
    store = "/v1/vector_stores/kb"
    for headers, seen in ((server.key("write"), False), (server.key("write", "hr"), True)):

        def got(path: str, method: str = "GET", headers: Any = headers, **body: Any) -> tuple[int, str]:
            response = server.client.request(method, path, headers=headers, json=body or None)
            return response.status_code, response.text

        counts = server.client.get(store, headers=headers).json()
        assert counts["file_counts"]["total"] == 2 + seen
        for path in ("/v1/files", f"{store}/files"):
            assert (hidden in got(path)[1]) == seen
        assert (SECRET in got(f"{store}/search", "POST", query=SAFE)[1]) == seen
        routes = [
            ("/v1/files/{}", "GET", {}),
            ("/v1/files/{}/content", "GET", {}),
            (f"{store}/files/{{}}", "GET", {}),
            (f"{store}/files", "POST", {"file_id": "{}"}),
            (f"{store}/files/{{}}", "DELETE", {}),
        ]  # fmt: skip
        for path, method, body in routes:
            here, nowhere = (got(path.format(file), method, **dict.fromkeys(body, file)) for file in (hidden, missing))
            assert nowhere[0] == 404
            assert (here[0] == 200) == seen, path
            assert seen or here == (404, nowhere[1].replace(missing, hidden)), path


# --- the tool ---------------------------------------------------------------------------------------------------------


def test_file_search_is_answering_from_documents(client: openai.OpenAI) -> None:
    tool: Any = {"type": "file_search", "vector_store_ids": ["kb"], "max_num_results": 1}
    client.files.create(file=("crane.md", NOTE), purpose="assistants")
    answer = client.responses.create(model="echo", input=CRANE, tools=[tool])
    output: Any = answer.output[0]
    content = output.content[0]
    assert content.text == "The crane of Sandhavn lifts 40 tonnes."
    (cited,) = content.annotations
    assert (cited.type, cited.filename, cited.index) == ("file_citation", "crane.md", len(content.text))
    assert "lifts 40 tonnes" in client.files.content(cited.file_id).text
    own = (answer.model_extra or {})["openbook"]
    assert (len(own["passages"]), own["warnings"]) == (1, [])
    elsewhere = tool | {"filters": {"type": "nin", "key": "team", "value": ["harbour"]}}
    kept: Any = {"openbook": {"where": "exists path"}}
    other = client.responses.create(model="echo", input=CRANE, tools=[elsewhere], extra_body=kept)
    assert (other.model_extra or {})["openbook"]["receipt"]["where"] == "(exists path) and (not team in ('harbour'))"
    assert "crane" not in other.output_text
    turns: Any = [{"role": "user", "content": CRANE}, *answer.output, {"role": "user", "content": CRANE}]
    again = client.responses.create(model="echo", input=turns, tools=[tool])
    assert (again.model_extra or {})["openbook"]["warnings"] == []


def test_file_search_names_the_knowledge_base(serve: Serve, towers: KnowledgeBase) -> None:
    server = serve(others={"towers": towers})
    tool: dict[str, Any] = {"type": "file_search", "vector_store_ids": ["towers"]}
    assert "55" in server.ask(TOWER, tools=[tool]).json()["openbook"]["answer"]
    assert [each["id"] for each in server.client.get("/v1/vector_stores").json()["data"]] == ["kb", "towers"]
    for tools, model, more, param in (
        ([tool | {"vector_store_ids": ["kb", "towers"]}], "echo", {}, "tools[0].vector_store_ids"),
        ([tool | {"vector_store_ids": ["other"]}], "echo", {}, "tools"),
        ([tool, tool], "echo", {}, "tools"),
        ([tool], "echo:closed-book", {}, "tools"),
        ([tool], "echo:kb", {}, "tools"),
        ([tool], "echo", {"openbook": {"knowledge_base": "kb"}}, "tools"),
        ([tool | {"filters": {"type": "eq", "key": "x"}}], "echo", {}, "filters"),
    ):  # fmt: skip
        asked = {"model": model, "messages": [{"role": "user", "content": TOWER}], "tools": tools, **more}
        assert refusal(server.client.post(CHAT, json=asked))[2] == param, param


def test_a_chat_names_the_place_of_each_source(server: Running, client: openai.OpenAI, tmp_path: Path) -> None:
    whole = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": QUESTION}])
    message = whole.choices[0].message
    notes = message.annotations or []
    assert len(notes) == 1
    note = notes[0]
    assert (note.url_citation.title, note.url_citation.start_index) == (f"bridge.txt: {OPENED}", 0)
    address, _, place = note.url_citation.url.partition("#/document/")
    assert (address, note.url_citation.end_index) == (f"{server.url}/", len(OPENED))
    assert unquote(place.partition("?")[0]) == path_of(server.bases["kb"], "bridge.txt")
    assert place.partition("?")[2] == f"base=kb&version={server.bases['kb'].version}&start=0&end={len(OPENED)}&"
    asked: Any = {"role": "user", "content": QUESTION}
    turns: Any = [asked, message, asked]
    *_, last = list(client.chat.completions.create(model="echo", messages=turns, stream=True))
    assert (last.choices[0].delta.model_extra or {})["annotations"] == [note.model_dump()]
    assert (last.model_extra or {})["openbook"]["warnings"] == []
    add_file(server.bases["kb"], tmp_path / "none.txt", "Nothing.")
    nothing = server.ask("Who wrote the opera about Mars?").json()
    assert nothing["choices"][0]["message"]["annotations"] == []
