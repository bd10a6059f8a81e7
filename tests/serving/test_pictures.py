"""Pages of PDFs as pictures, and marks on them: for whom, of which version, of which file, and what it costs the others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from openbook.core.files import delete
from openbook.knowledge import KnowledgeBase
from openbook.parsers.sandbox import pool
from tests.parsers.pngs import decoded
from tests.parsers.samples import make_pdf
from tests.serving.conftest import Running, Serve, add_file, connected, eventually, everything, refusal

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


def picture(server: Running, path: object, page: object = 1, headers: Any = None, **more: Any) -> httpx.Response:
    return server.get("/v1/documents/page", headers, path=str(path), page=page, **more)


def marks(
    server: Running, path: object, start: object = 0, end: object = 4, headers: Any = None, **more: Any
) -> httpx.Response:
    return server.get("/v1/documents/marks", headers, path=str(path), start=start, end=end, **more)


both = pytest.mark.parametrize("ask", [picture, marks])


def test_a_page_comes_as_a_png_that_nobody_keeps(server: Running, docs: Path) -> None:
    first, third = (picture(server, docs / "ship.pdf", page) for page in (1, 3))
    for response in (first, third):
        assert response.status_code == 200
        assert response.headers["content-type"] == "image/png"
        assert response.headers["cache-control"] == "private, no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        assert decoded(response.content)[:2] == (1000, 1295)
    assert first.content != third.content
    assert picture(server, docs / "ship.pdf").content == first.content


def test_a_quote_over_two_pages_is_marked_on_both(server: Running, docs: Path) -> None:
    path = str(docs / "ship.pdf")
    text = server.get("/v1/documents/text", path=path).json()["text"]
    reply = marks(server, path, text.index("masts"), text.index(" It sails")).json()
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


def test_a_page_that_is_not_there_and_a_number_that_is_none(server: Running, docs: Path) -> None:
    ship = docs / "ship.pdf"
    for page in (4, 999, "9" * 13):
        assert refusal(picture(server, ship, page)) == (404, "page_not_found", "page")
    for page in (0, -1, "x", "1.5", "", "9" * 14):
        assert refusal(picture(server, ship, page)) == (400, "invalid_value", "page")
    assert refusal(server.get("/v1/documents/page", path="x")) == (400, "missing_required_parameter", "page")
    for more in ({"as_of": "no"}, {"zoom": 2}):
        assert picture(server, ship, **more).status_code == 400
    for start, end, param in ((5, 5, "end"), (5, 4, "end"), (0, 10_000, "end"), ("x", 5, "start"), (0, "-1", "end")):
        assert refusal(marks(server, ship, start, end)) == (400, "invalid_value", param)
    assert refusal(marks(server, ship, 0, 1 << 20)) == (400, "above_limit", "end")
    assert refusal(marks(server, docs / "pay.pdf", 0, 10_000)) == (404, "document_not_found", "path")


@both
def test_what_is_out_of_sight_is_not_found(server: Running, docs: Path, ask: Any) -> None:
    hidden, hr = (404, "document_not_found", "path"), server.key("read", "hr")
    assert refusal(ask(server, docs / "pay.pdf")) == hidden
    assert ask(server, docs / "pay.pdf", headers=hr).status_code == 200
    assert refusal(ask(server, docs / "pay.pdf", headers=hr, as_of=3)) == hidden
    elsewhere = ask(server, docs / "ship.pdf", knowledge_base="no")
    assert refusal(elsewhere) == (404, "knowledge_base_not_found", "knowledge_base")


@both
def test_what_has_no_picture_says_why(server: Running, docs: Path, ask: Any) -> None:
    path = add_file(server.bases["kb"], docs / "ship.pdf", SHIP.replace(b"1921", b"1922"))
    assert ask(server, path).status_code == 200
    assert refusal(ask(server, path, as_of=3)) == (409, "file_changed", "path")
    path.unlink()
    assert refusal(ask(server, path)) == (409, "file_unreadable", "path")
    assert "does not exist" in ask(server, path).json()["error"]["message"]
    sent = {"file": ("ship.pdf", SHIP.replace(b"1921", b"1923"))}
    uploaded = server.client.post("/v1/documents", files=sent).json()["data"][0]["path"]
    assert ask(server, uploaded).status_code == 200
    delete(server.service.configuration.settings.derived_dir / "uploads")
    assert refusal(ask(server, uploaded)) == (409, "file_not_kept", "path")
    assert "Upload it again" in ask(server, uploaded).json()["error"]["message"]
    assert refusal(ask(server, docs / "ferry.md")) == (409, "not_a_pdf", "path")
    add_file(server.bases["kb"], docs / "ship.txt", SHIP)  # its bytes say what it is
    assert ask(server, docs / "ship.txt").status_code == 200


def test_an_uploaded_pdf_is_kept_for_its_pictures_in_all_its_versions_until_its_purge(keyed: Running) -> None:
    kept = keyed.service.configuration.settings.derived_dir / "uploads"
    admin = keyed.key("admin", "hr")

    def send(data: bytes, name: str = "ship.pdf", **form: str) -> str:
        sent = keyed.client.post("/v1/documents", files={"file": (name, data)}, data=form, headers=admin)
        return str(sent.json()["data"][0]["path"])

    first, second = SHIP, SHIP.replace(b"1921", b"1922")
    path = send(first, labels="hr")
    version = keyed.bases["kb"].version
    assert send(second, labels="hr") == path
    assert picture(keyed, path, headers=admin).status_code == 200
    assert picture(keyed, path, headers=admin, as_of=version).status_code == 200
    assert refusal(picture(keyed, path, headers=keyed.key("read"))) == (404, "document_not_found", "path")
    other = send(PAY, "pay.pdf")
    elsewhere = kept / "anotherbase" / f"{'0' * 64}.pdf"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(first)
    assert len(list(kept.rglob("*.*"))) == 4
    done = keyed.client.post("/v1/documents/purge", json={"documents": [path]}, headers=admin).json()
    assert done["proved"]
    assert len(list(kept.rglob("*.*"))) == 1
    assert picture(keyed, other, headers=admin).status_code == 200


SILENT = """
import sys
sys.stdout.buffer.write((8).to_bytes(4, "big") + b"openbook")
sys.stdout.flush()
sys.stdin.read()
"""  # a worker that starts and never answers


def test_a_page_without_end_is_refused_and_a_server_that_ends_does_not_wait_for_it(
    serve: Serve, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_worker_command", lambda: [sys.executable, "-c", SILENT])
    hurried = serve(picture_s=0.1)
    for ask in (picture, marks):
        response = ask(hurried, docs / "ship.pdf")
        assert refusal(response) == (409, "page_not_drawn", "path")
        assert "took longer than 0.1 s" in response.json()["error"]["message"]
    server = serve(picture_s=600.0)
    head = f"GET /v1/documents/page?path={quote(str(docs / 'ship.pdf'))}&page=1 HTTP/1.1\nHost: localhost\nConnection: close\n\n"
    with connected(server, head) as connection:
        eventually(lambda: server.service.reading.running == 1)
        server.service.ends.set()
        assert everything(connection).startswith(b"HTTP/1.1 503 ")
