"""GET /v1/documents/marks: for whom, of which version, of which file, and within what bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openbook.files import delete
from openbook.knowledge import KnowledgeBase
from tests.parsers.samples import make_pdf
from tests.serving.conftest import Running, Serve, add_file, refusal

SHIP = make_pdf([["The ship has two masts.", "It was built"], [], ["in 1921. It sails."]])
PAY = make_pdf([["Anna earns 12 crowns: canary-7341."]])


@pytest.fixture
def docs(docs: Path, base: KnowledgeBase) -> Path:
    """Version 3 has ship.pdf, version 4 pay.pdf with the label hr."""
    add_file(base, docs / "ship.pdf", SHIP)
    add_file(base, docs / "pay.pdf", PAY, "hr")
    return docs


@pytest.fixture
def server(docs: Path, serve: Serve) -> Running:
    return serve()


def marks(server: Running, path: object, start: object, end: object, headers: Any = None, **more: Any) -> Any:
    params = {"path": str(path), "start": start, "end": end, **more}
    return server.client.get("/v1/documents/marks", params=params, headers=headers)


def test_a_quote_over_two_pages_is_marked_on_both(server: Running, docs: Path) -> None:
    path = str(docs / "ship.pdf")
    text = server.client.get("/v1/documents/text", params={"path": path}).json()["text"]
    start, end = text.index("masts"), text.index(" It sails")
    found = marks(server, path, start, end)
    assert found.status_code == 200
    reply = found.json()
    assert (reply["object"], reply["path"], reply["version"]) == ("marks", path, 4)
    first, third = reply["pages"]
    assert [(each["page"], len(each["rectangles"]), each["found"]) for each in (first, third)] == [
        (1, 2, True),
        (3, 1, True),
    ]
    assert (first["width"], first["height"]) == (1000, 1295)
    for left, top, right, bottom in (*first["rectangles"], *third["rectangles"]):
        assert 0 < left < right < 0.5
        assert 0 < top < bottom < 0.1
    assert [page["page"] for page in marks(server, path, 0, len(text)).json()["pages"]] == [1, 3]
    gap = text.index("\n\n")
    assert marks(server, path, gap, gap + 2).json()["pages"] == []


def test_what_is_out_of_bounds_or_out_of_sight_is_refused(server: Running, docs: Path, serve: Serve) -> None:
    path, pay = docs / "ship.pdf", docs / "pay.pdf"
    for start, end, param in ((5, 5, "end"), (5, 4, "end"), (0, 10_000, "end"), ("x", 5, "start"), (0, "-1", "end")):
        assert refusal(marks(server, path, start, end)) == (400, "invalid_value", param)
    assert refusal(marks(server, path, 0, 1 << 20)) == (400, "above_limit", "end")
    assert refusal(marks(server, pay, 0, 4)) == (404, "document_not_found", "path")
    assert refusal(marks(server, pay, 0, 10_000)) == (404, "document_not_found", "path")
    hr = server.key("read", "hr")
    assert marks(server, pay, 0, 4, hr).json()["pages"][0]["found"]
    assert refusal(marks(server, pay, 0, 4, hr, as_of=3)) == (404, "document_not_found", "path")
    assert refusal(marks(server, path, 0, 4, knowledge_base="no"))[:2] == (404, "knowledge_base_not_found")


def test_what_has_no_picture_has_no_marks(server: Running, docs: Path) -> None:
    path = add_file(server.bases["kb"], docs / "ship.pdf", SHIP.replace(b"1921", b"1922"))
    assert marks(server, path, 0, 4).status_code == 200
    assert refusal(marks(server, path, 0, 4, as_of=3)) == (409, "file_changed", "path")
    path.unlink()
    assert refusal(marks(server, path, 0, 4)) == (409, "file_unreadable", "path")
    sent = {"file": ("ship.pdf", SHIP.replace(b"1921", b"1923"))}
    uploaded = server.client.post("/v1/documents", files=sent).json()["data"][0]["path"]
    assert marks(server, uploaded, 0, 4).json()["pages"][0]["found"]
    delete(server.service.configuration.settings.derived_dir / "uploads")
    assert refusal(marks(server, uploaded, 0, 4)) == (409, "file_not_kept", "path")
    assert refusal(marks(server, docs / "ferry.md", 0, 4)) == (409, "not_a_pdf", "path")


def test_a_page_that_takes_too_long_is_refused(serve: Serve, base: KnowledgeBase, docs: Path) -> None:
    slow = docs / "slow.pdf"
    add_file(base, slow, SHIP)
    assert refusal(marks(serve(picture_s=0.001), slow, 0, 4)) == (409, "page_not_drawn", "path")
