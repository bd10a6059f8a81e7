"""Every view, in both color schemes and on narrow screens: no barrier for anybody, and no scrolling sideways."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from openbook.knowledge import KnowledgeBase, add
from openbook.testing import HashEmbedder
from tests.conftest import ROOT
from tests.serving.browser.conftest import expect
from tests.serving.conftest import BRIDGE, QUESTION, Running, add_file, path_of

axe_of = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python").Axe

MANUAL = ROOT / "examples" / "handbook" / "safety" / "vessel-safety-manual.pdf"
LONG = f"{'long-name-' * 12}.md"
MARKDOWN = """# Lights

> The *green* light means **go**, says [the rule](http://127.0.0.1:9/rule "x").

- one `lamp`
- two 🚢 ships

| lamp | colour |
| --- | --- |
| port | red |

```
keep 35
```
"""
SIGN = "Which sign does the mast of the lighthouse ship carry?"


class Views:
    """Each method opens one view of a page and does what fills it. In any language, so by ids and addresses."""

    def __init__(self, server: Running, base: KnowledgeBase) -> None:
        self.url, self.server, self.version = server.url, server, base.version
        names = "bridge.txt", MANUAL.name, LONG
        self.bridge, self.manual, self.long = (quote(path_of(base, name), safe="") for name in names)

    def ask(self, page: Any) -> None:
        page.goto(f"{self.url}/#/ask")
        expect(page.locator("#holds")).to_be_visible()

    def answer(self, page: Any) -> None:
        page.goto(f"{self.url}/#/ask")
        page.locator("input[value=both]").check()
        for n, question in enumerate((SIGN, QUESTION), 1):
            page.locator("#question").fill(question)
            page.locator("#send").click()
            expect(page.locator(".turn .receipt")).to_have_count(2 * n)
        page.locator(".receipt > summary").first.click()
        page.locator(".ref").last.click()
        expect(page.locator(".source.lit")).to_be_visible()
        page.route("**/completions", lambda route: route.abort())
        page.locator("#question").fill("And now?")
        page.locator("#send").click()
        expect(page.locator(".turn .bad").first).to_be_visible()
        page.locator(".asked button").last.click()

    def conversations(self, page: Any) -> None:
        page.goto(f"{self.url}/#/ask")
        if (opener := page.locator("[popovertarget=conversations]")).is_visible():
            opener.click()  # on narrow screens, they come in a drawer
        expect(page.locator("#conversations")).to_be_visible()

    def key(self, page: Any) -> None:
        page.goto(f"{self.url}/#/ask")
        page.locator("#key-open").click()

    def documents(self, page: Any) -> None:
        page.goto(f"{self.url}/#/documents/{self.bridge}?flat=1&words=sign")
        expect(page.locator("#found .source").first).to_be_visible()
        broken = {"name": f"{'tower' * 20}.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 no"}
        page.locator("#documents input[type=file]").first.set_input_files(broken)
        for summary in (".unread", ".filters", ".history"):
            page.locator(f"{summary} > summary").dispatch_event("click")  # on narrow screens, the details cover it
        page.locator(".history .rows button").first.click()
        expect(page.locator(".difference ins").first).to_be_visible()
        page.locator(".file:not(.head) input").first.dispatch_event("click")

    def purge(self, page: Any) -> None:
        page.goto(f"{self.url}/#/documents/{self.long}")
        page.locator(".details button.bad").click()
        expect(page.locator("#removal")).to_be_visible()

    def reader(self, page: Any) -> None:
        page.goto(f"{self.url}/#/document/{self.manual}?start=3000&end=3100")
        expect(page.locator(".box").first).to_be_visible()

    def markdown(self, page: Any) -> None:
        page.goto(f"{self.url}/#/document/{self.long}?start=20&end=30")
        expect(page.locator("#reader-text mark").first).to_be_visible()

    def versions(self, page: Any) -> None:
        page.goto(f"{self.url}/#/versions?before={self.version - 1}&after={self.version}")
        page.locator("#difference .changed summary").first.click()
        expect(page.locator("#difference ins").first).to_be_visible()
        page.locator("#then-question").fill(QUESTION)
        page.locator("#then-and-now form button").click()
        expect(page.locator(".verdict")).to_be_visible()

    def questions(self, page: Any) -> None:
        page.goto(f"{self.url}/#/questions")
        page.locator(".standing .receipt > summary").first.click()
        expect(page.locator(".standing ins").first).to_be_visible()

    def model(self, page: Any) -> None:
        page.goto(f"{self.url}/#/model")
        page.locator("#digest").fill(self.server.ask(QUESTION).json()["openbook"]["receipt"]["digest"])
        page.locator("section form button").click()
        page.locator("#receipt .replay button").click()
        expect(page.locator("#receipt .replayed.good")).to_be_visible()


WIDE = "[document.scrollingElement, ...document.querySelectorAll('dialog')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.outerHTML.slice(0, 99))"
VIEWS = [
    "ask",
    "answer",
    "conversations",
    "key",
    "documents",
    "purge",
    "reader",
    "markdown",
    "versions",
    "questions",
    "model",
]


@pytest.fixture
def views(with_receipts: Running, docs: Path) -> Views:
    base = with_receipts.bases["kb"]
    add(base, [MANUAL], HashEmbedder())
    sign = f"The mast of the lighthouse ship carries the sign {'W' * 300} since long ago."
    add_file(base, docs / LONG, f"{MARKDOWN}\n{sign}\n")
    client = with_receipts.client
    assert client.post("/v1/questions", json={"question": QUESTION}).status_code == 200
    client.post("/v1/questions/check", json={})
    add_file(base, docs / "bridge.txt", BRIDGE.replace("14 March", "2 April"))
    client.post("/v1/questions/check", json={})
    assert client.get("/v1/questions").json()["data"][0]["state"] == "changed"
    return Views(with_receipts, base)


@pytest.mark.laws
@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 1440), ("light", 360), ("dark", 768)])
def test_axe_finds_no_barrier_and_long_words_fit(views: Views, open_page: Any, scheme: str, width: int) -> None:
    for view in VIEWS:
        page = open_page(views.server, color_scheme=scheme, viewport={"width": width, "height": 740}, locale="de-DE")
        getattr(views, view)(page)
        assert page.evaluate(WIDE) == [], view
        found = axe_of().run(page).response["violations"]
        assert [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]] == [], view
