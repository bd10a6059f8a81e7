"""Versions of the whole and of one document: what changed, when, and which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openbook.knowledge import KnowledgeBase, remove
from tests.serving.conftest import SAFE, SECRET, Running, Serve, add_file, code, path_of


@pytest.fixture
def ferry(server: Running, docs: Path) -> str:
    """A document that came in version 1, changed in 3, was removed in 4 and came again in 5."""
    base, path = server.bases["kb"], docs / "ferry.md"
    add_file(base, path, path.read_text().replace("nine", "ten").replace("4 crowns", "5 crowns"))
    remove(base, [path_of(base, "ferry.md")])
    add_file(base, path, "# Ferry\n\nIt is closed.")
    return str(path)


def difference(server: Running, path: str, before: object, after: object, **more: Any) -> dict[str, Any]:
    params = {"path": path, "before": str(before), "after": str(after)}
    response = server.client.get("/v1/documents/difference", params=params, **more)
    assert response.status_code == 200, response.text
    value: dict[str, Any] = response.json()
    return value


def test_a_document_has_a_history_with_the_times_of_its_versions(server: Running, ferry: str) -> None:
    value = server.client.get("/v1/documents/history", params={"path": ferry}).json()
    assert (value["object"], value["path"]) == ("list", ferry)
    assert [(each["version"], each["change"], each["characters"]) for each in value["data"]] == [
        (5, "added", 22), (4, "removed", 0), (3, "changed", 82), (1, "added", 83),
    ]  # fmt: skip
    times = {each["version"]: each["created_at"] for each in server.client.get("/v1/versions").json()["data"]}
    assert all(each["created_at"] == times[each["version"]] for each in value["data"])


def test_a_difference_shows_the_words_that_changed(server: Running, ferry: str) -> None:
    value = difference(server, ferry, 1, 3)
    assert (value["object"], value["path"], value["before"], value["after"]) == ("document.difference", ferry, 1, 3)
    changed = [(each["kind"], each["text"]) for each in value["pieces"] if each["kind"] != "same"]
    assert changed == [("removed", "nine"), ("added", "ten"), ("removed", "4"), ("added", "5")]
    assert all(each["chars"] == len(each["text"]) for each in value["pieces"])
    came, went = difference(server, ferry, 0, 1), difference(server, ferry, 5, 4)
    assert [each["kind"] for each in (*came["pieces"], *went["pieces"])] == ["added", "removed"]
    assert came["pieces"][0]["text"] == (server.bases["kb"].text(ferry, 1))
    newest = server.client.get("/v1/documents/difference", params={"path": ferry, "before": "5"}).json()
    assert newest["pieces"] == [{"kind": "skipped", "text": "", "chars": 22}]


def test_a_difference_is_cut_at_the_bound_of_a_text(serve: Serve, docs: Path, base: KnowledgeBase) -> None:
    server = serve(text_chars=10)
    assert difference(server, str(docs / "ferry.md"), 0, 1)["pieces"] == [
        {"kind": "added", "text": "# Ferry\n\nT", "chars": 10},
        {"kind": "skipped", "text": "", "chars": 73},
    ]


def test_what_is_hidden_in_one_version_is_empty_text_there(server: Running, docs: Path) -> None:
    """A text that carried a label, and was then put out in the open under the same path by another document."""
    base = server.bases["kb"]
    safe = path_of(base, "safe.txt")
    hr = server.key("read", "hr")
    assert difference(server, safe, 1, 2, headers=hr)["pieces"][0]["text"] == SECRET
    refused = [server.get("/v1/documents/difference", path=safe, before=1)]
    add_file(base, docs / "safe.txt", SAFE, "finance")
    finance = server.key("read", "finance")
    refused += [server.get("/v1/documents/history", headers, path=safe) for headers in (hr, finance)]
    assert {code(each) for each in refused} == {(404, "document_not_found")}
    both = server.get("/v1/documents/history", server.key("read", "hr", "finance"), path=safe)
    assert [each["change"] for each in both.json()["data"]] == ["changed", "added"]


def test_what_is_wrong_is_refused(server: Running, ferry: str) -> None:
    for query, status in (
        ({}, 400),
        ({"path": ferry}, 400),
        ({"path": "", "before": "1"}, 400),
        ({"path": ferry, "before": "x"}, 400),
        ({"path": ferry, "before": "1", "after": "77"}, 400),
        ({"path": ferry, "before": "1", "limit": "3"}, 400),
        ({"path": f"{ferry}x", "before": "1"}, 404),
        ({"path": ferry, "before": "1", "knowledge_base": "other"}, 404),
    ):
        assert server.client.get("/v1/documents/difference", params=query).status_code == status, query
    for query, status in (({}, 400), ({"path": ""}, 400), ({"path": "x"}, 404), ({"path": ferry, "as_of": "1"}, 400)):
        assert server.client.get("/v1/documents/history", params=query).status_code == status, query
