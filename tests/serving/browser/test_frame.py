"""The frame of the page: its parts, its language, and what it reads at first."""

from __future__ import annotations

from typing import Any

import pytest

from openbook.serving.page import FOLDER
from tests.serving.browser.conftest import ask, expect, go
from tests.serving.conftest import Running

pytestmark = pytest.mark.laws

FRAME = "() => new Promise(requestAnimationFrame)"


def test_each_part_has_an_address_and_no_address_ends_the_page(server: Running, open_page: Any) -> None:
    page = open_page(server)
    for view in ("Documents", "Versions", "Questions", "Model", "Ask"):
        go(page, view)
        expect(page.get_by_role("link", name=view, exact=True)).to_have_attribute("aria-current", "page")
        assert page.url.endswith(f"#/{view.lower()}")
    page.goto(f"{server.url}/#/model")
    expect(page.get_by_role("heading", name="Model", exact=True)).to_be_visible()
    for address in ("__proto__", "constructor", "documents?field=constructor"):
        page.evaluate("to => { location.hash = '#/' + to }", address)
        page.evaluate(FRAME)
        go(page, "Documents")
        expect(page.get_by_role("link", name="bridge.txt")).to_be_visible()
        go(page, "Ask")
        expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()


def test_the_page_speaks_the_language_of_the_browser_or_the_chosen_one(server: Running, open_page: Any) -> None:
    page = open_page(server, locale="de-DE")
    root = page.locator("html")
    expect(root).to_have_attribute("lang", "de")
    expect(page.get_by_role("navigation").get_by_role("link", name="Dokumente", exact=True)).to_be_visible()
    page.locator("nav a[href='#/questions']").click()
    field = page.locator("#standing")
    field.fill("When does")
    waiting = list[Any]()
    page.route("**/words/fr.json", lambda route: waiting.append(route))
    with page.expect_request("**/words/fr.json"):
        page.get_by_label("Sprache").select_option("Français")
    page.evaluate(FRAME)
    expect(root).to_have_attribute("lang", "de")  # until all words are there
    waiting.pop().continue_()
    expect(root).to_have_attribute("lang", "fr")
    expect(field).to_have_value("When does")
    page.route("**/words/es.json", lambda route: route.abort())
    page.get_by_label("Langue").select_option("Español")
    expect(page.get_by_role("alert")).to_be_visible()
    page.unroute("**/words/fr.json")
    page.reload()
    expect(root).to_have_attribute("lang", "fr")
    expect(page.get_by_role("link", name="Aller au contenu")).to_have_count(1)
    expect(page.get_by_label("Langue")).to_have_value("fr")


def test_a_first_visit_reads_what_it_needs_and_a_part_that_cannot_be_read_is_tried_again(
    server: Running, open_page: Any
) -> None:
    page = open_page(server)
    names = set[str]()
    page.on("request", lambda sent: names.add(sent.url.removeprefix(f"{server.url}/").removeprefix("web/")))
    page.reload()
    ask(page)
    read = {name or "index.html" for name in names if not name.startswith("v1/")}
    assert {"index.html", "ask.js", "vendor/marked.js"} < read
    assert sum((FOLDER / name).stat().st_size for name in read) < 200_000
    with page.expect_request("**/documents.js"), page.expect_request("**/documents.css"):
        page.get_by_role("navigation").get_by_role("link", name="Documents").hover()
    with page.expect_request("**/versions.js"):
        page.get_by_role("navigation").get_by_role("link", name="Versions").focus()
    page.route("**/model.js", lambda route: route.abort())
    go(page, "Model")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached.")
    page.unroute("**/model.js")
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Model", exact=True)).to_be_visible()
    expect(alert).to_have_count(0)
