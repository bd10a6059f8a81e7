"""The web page in Chromium, over the fakes. Not collected without Playwright (in the extra `laws`), skipped without Chromium.

`OPENBOOK_CHROMIUM` names another Chromium than /usr/bin/chromium. What the page's modules compute is tested in tests/serving/web.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import QUESTION, Running

CHROMIUM = os.environ.get("OPENBOOK_CHROMIUM", "/usr/bin/chromium")  # tests see no OPENBOOK_ variables
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
GIVE_UP_S = 60

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
expect = playwright.expect


@pytest.fixture(scope="module")  # the driver's event loop runs as long, and other tests have their own
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"There is no Chromium at {CHROMIUM}; name one with OPENBOOK_CHROMIUM.")
    with playwright.sync_playwright() as driver:
        expect.set_options(timeout=GIVE_UP_S * 1000)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """A page of a server in a context of its own. Afterwards: it asked nobody else, ran nothing foreign, had no error."""
    contexts, bad = [], list[str]()

    def refused(dialog: Any) -> None:
        bad.append(dialog.message)
        dialog.dismiss()

    def made(server: Running, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1240, "height": 860}, "locale": "en-US", **options})
        contexts.append(context)
        context.set_default_timeout(GIVE_UP_S * 1000)
        page = context.new_page()
        page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else bad.append(r.url))
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on("dialog", refused)
        page.on(
            "console", lambda m: bad.append(m.text) if "Content Security" in m.text or "Trusted" in m.text else None
        )
        page.goto(server.url)
        return page

    yield made
    for context in contexts:
        context.close()
    assert bad == []


def ask(page: Any, question: str = QUESTION) -> Any:
    """The turn, when it is complete."""
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask", exact=True).last.click()
    turn = page.locator(".turn").last
    expect(turn.locator("[aria-busy=true]")).to_have_count(0)
    return turn


def write(page: Any, question: str = QUESTION) -> Any:
    """The field of the question, in which this was entered; the answer may still come."""
    field = page.get_by_label("Question", exact=True)
    field.fill(question)
    page.keyboard.press("Enter")
    return field


def go(page: Any, view: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=view, exact=True).click()


def sign_in(page: Any, headers: dict[str, str]) -> str:
    """The key, which was written into the open dialog."""
    dialog, token = page.get_by_role("dialog", name="API key"), headers["authorization"].removeprefix("Bearer ")
    dialog.get_by_label("Key", exact=True).fill(token)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    return token
