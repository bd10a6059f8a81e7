"""The frame of the page: its parts, its language."""

from __future__ import annotations

from typing import Any

from tests.serving.browser.conftest import expect, go
from tests.serving.conftest import QUESTION, Running


def test_each_part_has_an_address_and_the_language_is_chosen(server: Running, open_page: Any) -> None:
    page = open_page(server)
    for view in ("Documents", "Versions", "Questions", "Model", "Ask"):
        go(page, view)
        expect(page.get_by_role("link", name=view, exact=True)).to_have_attribute("aria-current", "page")
        assert page.url.endswith(f"#/{view.lower()}")
    page.goto(f"{server.url}/#/model")
    expect(page.get_by_role("heading", name="Model", exact=True)).to_be_visible()


def test_the_page_speaks_the_language_of_the_browser_or_the_chosen_one(server: Running, open_page: Any) -> None:
    page = open_page(server, locale="de-DE")
    root = page.locator("html")
    expect(root).to_have_attribute("lang", "de")
    expect(page.get_by_role("navigation").get_by_role("link", name="Dokumente", exact=True)).to_be_visible()
    page.get_by_label("Sprache").select_option("Français")
    expect(root).to_have_attribute("lang", "fr")
    page.reload()
    expect(root).to_have_attribute("lang", "fr")
    expect(page.get_by_role("link", name="Aller au contenu")).to_have_count(1)
    expect(page.get_by_label("Langue")).to_have_value("fr")


def test_no_address_ends_the_page(server: Running, open_page: Any) -> None:
    page = open_page(server)
    for address in ("__proto__", "constructor", "documents?field=constructor"):
        page.evaluate("to => { location.hash = '#/' + to }", address)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        go(page, "Documents")
        expect(page.get_by_role("link", name="bridge.txt")).to_be_visible()
        go(page, "Ask")
        expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()


def test_standing_questions_of_a_key_are_not_shown_to_the_next(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    headers = keyed.key()
    assert keyed.client.post("/v1/questions", json={"question": QUESTION}, headers=headers).status_code == 200
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("Key", exact=True).fill(headers["authorization"].removeprefix("Bearer "))
    page.keyboard.press("Enter")
    go(page, "Questions")
    expect(page.get_by_text(QUESTION)).to_be_visible()
    page.route("**/v1/questions", lambda route: route.fulfill(status=503, json={"error": {"message": "Busy."}}))
    page.get_by_role("button", name="API key").click()
    dialog.get_by_label("Key", exact=True).fill(keyed.key()["authorization"].removeprefix("Bearer "))
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").get_by_text("Busy.")).to_be_visible()
    expect(page.get_by_text(QUESTION)).to_have_count(0)
