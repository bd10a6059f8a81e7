"""GET /v1/documents/page: for whom, of which version, of which file, and what it costs the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openbook.files import delete
from openbook.knowledge import KnowledgeBase
from tests.parsers.hostile_pdfs import slow_to_draw
from tests.parsers.pngs import decoded
from tests.parsers.samples import make_pdf
from tests.serving.conftest import Running, Serve, add_file, connected, eventually, everything, refusal

SHIP = make_pdf([["The ship has two masts."], [], ["It was built in 1921."]])
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


def picture(server: Running, path: object, page: object = 1, headers: dict[str, str] | None = None, **more: Any) -> Any:
    params = {"path": str(path), "page": page, **more}
    return server.client.get("/v1/documents/page", params=params, headers=headers)


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


def test_a_page_that_is_not_there_and_a_number_that_is_none(server: Running, docs: Path) -> None:
    for page in (4, 999, "9" * 13):
        assert refusal(picture(server, docs / "ship.pdf", page)) == (404, "page_not_found", "page")
    for page in (0, -1, "x", "1.5", "", "9" * 14):
        assert refusal(picture(server, docs / "ship.pdf", page)) == (400, "invalid_value", "page")
    missing = server.client.get("/v1/documents/page", params={"path": "x"})
    assert refusal(missing) == (400, "missing_required_parameter", "page")
    elsewhere = picture(server, docs / "ship.pdf", knowledge_base="no")
    assert refusal(elsewhere) == (404, "knowledge_base_not_found", "knowledge_base")
    pay = str(docs / "pay.pdf")
    assert refusal(picture(server, pay)) == (404, "document_not_found", "path")
    assert picture(server, pay, headers=server.key("read", "hr")).status_code == 200
    assert refusal(picture(server, pay, headers=server.key("read", "hr"), as_of=3)) == (
        404,
        "document_not_found",
        "path",
    )
    for more in ({"as_of": "no"}, {"zoom": 2}):
        assert picture(server, docs / "ship.pdf", **more).status_code == 400


def test_what_has_no_picture_says_why(server: Running, docs: Path) -> None:
    path = add_file(server.bases["kb"], docs / "ship.pdf", SHIP.replace(b"1921", b"1922"))
    assert picture(server, path).status_code == 200
    assert refusal(picture(server, path, as_of=3)) == (409, "file_changed", "path")
    path.unlink()
    assert refusal(picture(server, path)) == (409, "file_unreadable", "path")
    assert "does not exist" in picture(server, path).json()["error"]["message"]
    sent = {"file": ("ship.pdf", SHIP.replace(b"1921", b"1923"))}
    uploaded = server.client.post("/v1/documents", files=sent).json()["data"][0]["path"]
    assert picture(server, uploaded).status_code == 200
    delete(server.service.configuration.settings.derived_dir / "uploads")
    assert refusal(picture(server, uploaded)) == (409, "file_not_kept", "path")
    assert "Upload it again" in picture(server, uploaded).json()["error"]["message"]
    assert refusal(picture(server, docs / "ferry.md")) == (409, "not_a_pdf", "path")
    add_file(server.bases["kb"], docs / "ship.txt", SHIP)  # its bytes say what it is
    assert picture(server, docs / "ship.txt").status_code == 200


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


def test_a_page_that_takes_too_long_is_refused_and_not_waited_for_by_a_server_that_ends(
    serve: Serve, base: KnowledgeBase, docs: Path
) -> None:
    slow = add_file(base, docs / "slow.pdf", slow_to_draw("Slow words."))
    server = serve(picture_s=0.5)
    response = picture(server, slow)
    assert refusal(response) == (409, "page_not_drawn", "path")
    assert "took longer than 0.5 s" in response.json()["error"]["message"]
    server = serve(picture_s=600.0)
    head = f"GET /v1/documents/page?path={slow}&page=1 HTTP/1.1\nHost: localhost\nConnection: close\n\n"
    connection = connected(server, head)
    eventually(lambda: server.service.reading.running == 1)
    server.service.ends.set()
    assert everything(connection).startswith(b"HTTP/1.1 503 ")
    connection.close()
