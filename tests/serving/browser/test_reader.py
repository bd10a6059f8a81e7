"""The reader: documents by their kind with what is cited marked, pages of PDFs, and that hostile documents stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from openbook.core.files import delete
from openbook.knowledge import KnowledgeBase
from tests.parsers.samples import make_pdf
from tests.serving.browser.conftest import expect, go, sign_in
from tests.serving.browser.test_keyboard import Keys
from tests.serving.conftest import BRIDGE, OPENED, Running, Serve, add_file, path_of

MASTS = "The ship Kell carries two masts of oak."
OARS = "It carries six oars as well."
REGISTER = make_pdf([["Cover of the register."], [MASTS], [OARS]])


def link(path: Path | str, **query: object) -> str:
    return f"#/document/{quote(str(path), safe='')}" + (f"?{urlencode(query)}" if query else "")


def span(text: str, words: str) -> dict[str, int]:
    start = text.index(words)
    return {"start": start, "end": start + len(words)}


def text_of(base: KnowledgeBase, path: Path | str) -> str:
    stored = base.content(str(path), base.kept_version(None))
    assert stored
    return stored.text


def open_document(page: Any, path: Path | str, **query: object) -> Any:
    """The reader, when its text is there."""
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("hash => { location.hash = hash }", link(path, **query))
    reader = page.get_by_role("dialog")
    expect(reader.locator(".piece").first).to_be_attached()
    return reader


def marked_words(reader: Any) -> str:
    """The words of all marks, with single spaces."""
    expect(reader.locator("#reader-text mark").first).to_be_attached()
    return " ".join("".join(reader.locator("#reader-text mark").all_inner_texts()).split())


def test_a_citation_is_shown_in_its_document_and_closing_goes_back(server: Running, open_page: Any) -> None:
    page = open_page(server)
    path = path_of(server.bases["kb"], "bridge.txt")
    go(page, "Versions")
    expect(page.get_by_role("heading", name="Versions", exact=True)).to_be_focused()
    opener = page.get_by_role("link", name="Model", exact=True)
    for how in ("Escape", "button", "back", "outside"):
        opener.focus()
        reader = open_document(page, path, **span(BRIDGE, OPENED), version=2)
        expect(reader.get_by_role("heading", name="bridge.txt")).to_be_visible()
        mark = reader.locator("mark")
        expect(mark).to_have_text(OPENED)
        expect(mark).to_be_focused()
        expect(reader.get_by_role("region", name="Text")).to_contain_text("It has four lanes.")
        expect(page.get_by_role("link", name="Versions", exact=True)).to_have_attribute("aria-current", "page")
        if how == "Escape":
            page.keyboard.press("Escape")
        elif how == "button":
            reader.get_by_role("button", name="Close").click()
        elif how == "back":
            page.go_back()
        else:
            page.mouse.click(5, 400)
        expect(reader).to_have_count(0)
        expect(opener).to_be_focused()
        expect(page).to_have_url(f"{server.url}/#/versions")


def test_a_page_of_a_cited_pdf_shows_the_quoted_words_marked(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    path = add_file(base, docs / "masts.pdf", REGISTER)
    text = text_of(base, path)
    server = serve(require_key=True)
    page = open_page(server)
    sign_in(page, server.key())
    expect(page.locator("#who")).to_be_attached()
    reader = open_document(page, path, **span(text, "two masts"))
    picture = reader.get_by_role("img", name="Page 2 of masts.pdf")
    expect(picture).to_have_js_property("naturalWidth", 1000)  # the key goes with the request
    box = reader.get_by_role("img", name="Marked here: two masts")
    expect(box).to_be_visible()
    expect(reader.locator("#reader-text mark")).to_be_focused()
    sheet, place, beside = (each.bounding_box() for each in (picture, box, reader.locator("#reader-text mark")))
    assert sheet["x"] + sheet["width"] < beside["x"]
    # The PDF has the line from 50 points of 612, 42 of 792 from the top; "two masts" begins after 22 of its letters.
    assert 0.2 < (place["x"] - sheet["x"]) / sheet["width"] < 0.35
    assert 0.03 < (place["y"] - sheet["y"]) / sheet["height"] < 0.06

    reader.get_by_role("button", name="Next page").click()
    expect(reader.get_by_role("img", name="Page 3 of masts.pdf")).to_be_visible()
    expect(box).to_have_count(0)
    expect(reader.get_by_role("button", name="Next page")).to_be_disabled()
    reader.get_by_role("button", name="Show the mark").click()
    expect(box).to_be_visible()
    reader.get_by_role("radio", name="Text").check(force=True)
    expect(reader.locator(".pdf")).to_have_count(0)
    expect(reader.locator("#reader-text mark")).to_be_in_viewport()


@pytest.mark.slow
def test_a_pdf_is_turned_zoomed_and_read_by_keyboard(server: Running, open_page: Any, docs: Path) -> None:
    path = add_file(server.bases["kb"], docs / "masts.pdf", REGISTER)
    page = open_page(server)
    reader = open_document(page, path)
    expect(reader.locator(".pdf")).to_have_count(0)  # nothing is cited: the text comes first
    reader.get_by_role("button", name="Page 2").click()
    pane = reader.get_by_role("region", name="The page as it looks")
    sheet = reader.locator(".sheet")
    expect(reader.get_by_role("img", name="Page 2 of masts.pdf")).to_be_visible()
    pane.focus()
    page.keyboard.press("ArrowRight")
    expect(reader.get_by_role("img", name="Page 3 of masts.pdf")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(reader.get_by_role("img", name="Page 2 of masts.pdf")).to_be_visible()
    reader.get_by_label("Page number").fill("9")
    page.keyboard.press("Enter")
    expect(reader.get_by_role("img", name="Page 3 of masts.pdf")).to_be_visible()
    reader.get_by_label("Zoom").select_option("200")
    assert sheet.bounding_box()["width"] == 2000
    pane.focus()
    page.keyboard.press("-")
    expect(reader.get_by_label("Zoom")).to_have_value("150")
    page.keyboard.press("+")
    expect(reader.get_by_label("Zoom")).to_have_value("200")
    page.keyboard.press("0")
    expect(reader.get_by_label("Zoom")).to_have_value("0")
    assert sheet.bounding_box()["width"] < 1000


# How far the middle of the mark is from that of the pane, as shares of the pane.
AWAY = """mark => {
  const [a, b] = [mark, document.getElementById("reader-page")].map(e => e.getBoundingClientRect());
  return [(a.x + a.width / 2 - b.x - b.width / 2) / b.width, (a.y + a.height / 2 - b.y - b.height / 2) / b.height].map(Math.abs);
}"""


@pytest.mark.slow
def test_a_mark_stays_in_the_middle_when_the_page_or_the_window_changes_its_size(
    server: Running, open_page: Any, docs: Path
) -> None:
    lines = [f"Line {i} of the register tells of a ship and of its masts." for i in range(40)]
    path = add_file(server.bases["kb"], docs / "masts.pdf", make_pdf([lines]))
    page = open_page(server)
    reader = open_document(
        page, path, **span(text_of(server.bases["kb"], path), "Line 25 of the register tells of a ship")
    )
    mark = reader.get_by_role("img", name="Marked here: Line 25")
    expect(mark).to_be_in_viewport()

    def is_in_the_middle() -> None:
        expect(mark).to_be_in_viewport()
        page.wait_for_timeout(50)  # a frame, in which the view is moved
        assert max(mark.evaluate(AWAY)) < 0.02

    for zoom in ("200", "300", "150"):
        reader.get_by_label("Zoom").select_option(zoom)
        is_in_the_middle()
    reader.get_by_role("button", name="Larger").click()
    is_in_the_middle()
    page.set_viewport_size({"width": 1000, "height": 600})
    is_in_the_middle()
    reader.get_by_role("region", name="The page as it looks").evaluate(
        "e => e.scrollTo(0, 0)"
    )  # to look at something else
    expect(mark).not_to_be_in_viewport()
    page.set_viewport_size({"width": 1300, "height": 800})
    reader.get_by_label("Zoom").select_option("300")
    expect(mark).not_to_be_in_viewport()


@pytest.mark.slow
def test_each_mark_is_reached_in_a_quote_over_two_pages(server: Running, open_page: Any, docs: Path) -> None:
    base = server.bases["kb"]
    path = add_file(base, docs / "masts.pdf", REGISTER)
    text = text_of(base, path)
    first, second = span(text, "Cover"), {"start": text.index("masts"), "end": text.index("oars") + 4}
    page = open_page(server)
    reader = open_document(page, path, spans=",".join(f"{each['start']}-{each['end']}" for each in (second, first)))
    told = reader.locator(".stops [role=status]")
    for number in (1, 2, 3):
        expect(told).to_have_text(f"Mark {number} of 3")
        expect(reader.get_by_role("img", name=f"Page {number} of masts.pdf")).to_be_visible()
        expect(reader.locator(".box.current")).to_be_visible()
        following = reader.get_by_role("button", name="Next mark")
        following.click() if number < 3 else expect(following).to_be_disabled()
    assert marked_words(reader) == f"Cover{text[second['start'] : second['end']]}".replace("\n", "")


@pytest.mark.slow
def test_without_a_picture_the_text_is_marked_and_the_reason_told(server: Running, open_page: Any, docs: Path) -> None:
    base = server.bases["kb"]
    path = add_file(base, docs / "masts.pdf", REGISTER)
    cited = span(text_of(base, path), "two masts")
    page = open_page(server)
    located = {"object": "marks", "path": str(path), "version": 3, "pages": [
        {"page": 2, "width": 1000, "height": 1294, "rectangles": [], "found": False}
    ]}  # fmt: skip
    page.route("**/v1/documents/marks*", lambda route: route.fulfill(json=located))
    reader = open_document(page, path, **cited)
    expect(reader.locator(".document > .note")).to_contain_text("They are marked in the text.")
    expect(reader.locator("mark")).to_have_text("two masts")
    expect(reader.locator("mark")).to_be_in_viewport()
    reader.get_by_role("radio", name="Page").check(force=True)
    expect(reader.get_by_role("img", name="Page 2 of masts.pdf")).to_be_visible()  # without marks
    page.keyboard.press("Escape")

    page.unroute("**/v1/documents/marks*")
    path.write_bytes(REGISTER.replace(b"two masts", b"six masts"))
    reader = open_document(page, path, **cited)
    expect(reader.locator(".document > .note")).to_contain_text(
        "its file is not, byte for byte, the one that this text was read from."
    )
    expect(reader.locator("mark")).to_have_text("two masts")
    expect(reader.get_by_role("radio")).to_have_count(0)
    page.keyboard.press("Escape")

    sent = {"file": ("oars.pdf", REGISTER, "application/pdf")}
    assert server.client.post("/v1/documents", files=sent).status_code == 200
    delete(server.service.configuration.settings.derived_dir / "uploads")  # as a purge does
    reader = open_document(page, path_of(base, "oars.pdf"), **cited)
    expect(reader.locator(".document > .note")).to_contain_text("Upload it again.")


MARKDOWN = """\
# Lights

> The *green* light
> means **go &amp; pass**, says [the rule](http://127.0.0.1:9/rule "x").

- one `lamp`
  burns
- two 🚢 ships

| lamp | colour |
| --- | --- |
| port | red |

```
keep 35
```
"""
RST = """\
Backup
======

Copies are **kept** in ``cellar2``, see `the plan <http://127.0.0.1:9/plan>`_::

    daily = 35

.. note::
   Ring *4620* first.

* one tape
* two tapes

.. list-table::

   * - Port
     - Ostrevik
"""
SHEET = "name,born\nAda Lovelace,1815\nEmmy Noether,1882\n"
HTML = "<h1>Fares</h1><p>Valid now.</p><table><tr><th>To</th><th>Adult</th></tr><tr><td>Kell</td><td>9.80</td></tr></table>"
CODE = "import re\n\n\ndef lamp():\n    return 'red'\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "words", "seen"),
    [
        ("a.md", MARKDOWN, "green* light\n> means **go &amp; pass**, says [the", "blockquote strong mark"),
        ("b.md", MARKDOWN, "lamp`\n  burns\n- two 🚢 ships", "li code mark"),
        ("c.md", MARKDOWN, "red", "td mark"),
        ("d.md", MARKDOWN, "keep 35", "pre mark"),
        ("a.rst", RST, "kept** in ``cellar2``, see `the plan", "a mark"),
        ("b.rst", RST, "daily = 35", "pre mark"),
        ("c.rst", RST, "Ring *4620", ".aside em mark"),
        ("d.rst", RST, "two tapes", "li mark"),
        ("e.rst", RST, "Ostrevik", "td mark"),
        ("a.csv", SHEET, "1815", "tr:first-child td:nth-child(2) mark"),
        ("a.html", HTML, "9.80", "td mark"),
        ("b.html", HTML, "Fares", "[role=heading][aria-level='3'] mark"),
        ("a.py", CODE, "def lamp():\n    return", ".numbered mark"),
        ("a.txt", "One.\n\n- two\n- three", "three", ".item mark"),
    ],
)
def test_a_document_is_shown_by_its_kind_with_the_words_marked(
    server: Running, open_page: Any, docs: Path, name: str, content: str, words: str, seen: str
) -> None:
    base = server.bases["kb"]
    path = add_file(base, docs / name, content)
    reader = open_document(open_page(server), path, **span(text_of(base, path), words))
    shown = marked_words(reader)
    expect(reader.locator("#reader-text").locator(seen).first).to_be_visible()
    # Markup between the words is not shown.
    for mark in ("\n> ", "**", "`", "[", "*", "\n- ", "\n-"):
        words = words.replace(mark, " " if "\n" in mark else "")
    assert shown.replace(" ", "") == "".join(words.replace("&amp;", "&").split())
    if name.endswith(".txt"):
        return
    reader.get_by_role("button", name="Unformatted").click()
    expect(reader.locator(".kept")).to_have_text(text_of(base, path))


@pytest.mark.slow
def test_a_long_document_is_read_part_by_part(server: Running, open_page: Any, docs: Path) -> None:
    lines = [f"Paragraph {i} of the long report 🚢 tells of the harbour." for i in range(3000)]
    base = server.bases["kb"]
    path = add_file(base, docs / "long.md", "\n\n".join(lines))
    text = text_of(base, path)
    reader = open_document(open_page(server), path, spans=f"{text.index(lines[1500])}-{text.index(lines[1500]) + 14},"
                           f"{text.index(lines[2900])}-{text.index(lines[2900]) + 14}")  # fmt: skip
    expect(reader.locator("mark")).to_have_text("Paragraph 1500")
    expect(reader.locator("mark")).to_be_in_viewport()
    paragraphs = reader.locator(".piece p")
    begun = int(paragraphs.first.inner_text().split()[1])
    assert paragraphs.first.inner_text() == lines[begun]  # whole
    assert begun < 1500
    reader.get_by_role("button", name="Show what is before").click()
    expect(reader.locator(".piece")).to_have_count(2)
    expect(reader.get_by_text(lines[begun])).to_be_in_viewport()  # what was read stays where it was
    assert paragraphs.all_inner_texts()[-1] == lines[int(paragraphs.last.inner_text().split()[1])]
    last = paragraphs.last.inner_text()
    reader.get_by_role("button", name="Show what follows").click()
    expect(reader.locator(".piece")).to_have_count(3)
    shown = paragraphs.all_inner_texts()
    assert shown == lines[lines.index(shown[0]) : lines.index(shown[-1]) + 1]
    assert last in shown
    reader.get_by_role("button", name="Next mark").click()
    expect(reader.locator("mark")).to_have_text("Paragraph 2900")
    expect(reader.locator("mark")).to_be_in_viewport()


@pytest.mark.slow
def test_an_old_version_says_so_and_a_link_names_its_version(server: Running, open_page: Any, docs: Path) -> None:
    path = add_file(server.bases["kb"], docs / "ferry.md", "# Ferry\n\nThe ferry to Sandhavn leaves at ten.")
    page = open_page(server, permissions=["clipboard-read", "clipboard-write"])
    reader = open_document(page, path, version=2, start=9, end=18)
    expect(reader.locator("mark")).to_have_text("The ferry")
    expect(reader.locator(".older")).to_contain_text("Version 2; the newest is 3.")
    expect(reader.locator("#reader-text")).to_contain_text("at nine")
    reader.get_by_role("button", name="Copy link").click()
    expect(reader.locator(".copied")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(server.url)
    assert "version=2&start=9&end=18&base=kb" in copied
    reader.get_by_role("link", name="Show the newest").click()
    expect(reader.locator("#reader-text")).to_contain_text("at ten")
    expect(reader.locator(".older")).to_have_count(0)


@pytest.mark.slow
def test_a_document_and_selected_words_are_asked_about(server: Running, open_page: Any) -> None:
    path = path_of(server.bases["kb"], "bridge.txt")
    page = open_page(server)
    reader = open_document(page, path)
    expect(reader.get_by_role("region", name="Text")).to_be_focused()
    expect(reader.get_by_role("link", name="Ask about this document")).to_have_attribute(
        "href", f"#/ask?{urlencode({'path': path})}"
    )
    about = reader.get_by_role("button", name="Ask about the selected words")
    expect(about).to_be_disabled()
    expect(reader.get_by_text("Shift and the arrow keys select words.")).to_be_visible()
    keys = Keys(page)
    keys.press("Shift+ArrowRight", "Control+Shift+ArrowRight")
    keys.use(about)
    expect(page.get_by_label("Question", exact=True)).to_have_value("“The bridge”\n")
    keys.press("Control+a", "Delete")
    reader = open_document(page, path)
    reader.locator(".piece p").first.evaluate("e => getSelection().selectAllChildren(e)")
    about.click()
    expect(reader).to_have_count(0)
    expect(page.get_by_label("Question", exact=True)).to_have_value(f"“{BRIDGE}”\n")
    expect(page.locator("#composer .chip")).to_contain_text("Only: bridge.txt")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Ask", exact=True).click()
    assert sent.value.post_data_json["openbook"]["where"] == f"path = '{path}'"
    assert BRIDGE in sent.value.post_data_json["messages"][0]["content"]


@pytest.mark.slow
def test_what_cannot_be_shown_is_told(server: Running, open_page: Any) -> None:
    page = open_page(server)
    page.goto(f"{server.url}/{link('/nowhere/else.txt')}")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("No document '/nowhere/else.txt'")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    reader = open_document(page, path_of(server.bases["kb"], "bridge.txt"), start=5000, end=5010)
    expect(reader.locator(".document > .note")).to_contain_text("not in this text")


# --- other people's words ---------------------------------------------------------------------------------------------

HOSTILE = (
    "The lighthouse <script>alert('canary')</script> shines <img src=http://127.0.0.1:9/x onerror=alert(1)> "
    "![x](http://127.0.0.1:9/y) [link](javascript:alert(2)) <style>*{display:none}</style> "
    "<a href=http://127.0.0.1:9/z>here</a> `a <javascript:alert(3)>`_ 40 miles far."
)
DEEP = "> " * 5000 + "deep\n\n" + "- " * 5000 + "deep\n\n" + "*a" * 4000 + "_a_" * 3000 + "[" * 3000


def test_a_hostile_document_runs_and_loads_nothing(server: Running, open_page: Any, docs: Path) -> None:
    page = open_page(server)
    for end in ("txt", "md", "rst", "html.txt"):
        path = add_file(server.bases["kb"], docs / f"<img src=x onerror=alert(3)>.{end}", HOSTILE)
        reader = open_document(page, path, **span(HOSTILE, "40 miles far."))
        expect(reader.locator("mark")).to_have_text("40 miles far.")
        expect(reader.locator("#reader-text")).to_contain_text("alert('canary')")
        expect(reader.get_by_role("heading", level=2)).to_have_text(path.name)
        assert reader.locator("img, script, style, a[href^=javascript]").count() == 0
        page.keyboard.press("Escape")
        expect(reader).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["md", "rst", "txt", "csv"])
@pytest.mark.parametrize("content", [DEEP, "word" * 2_500_000, "שלום עולם, the lighthouse\n\nשלום"], ids=["deep", "one line", "right to left"])  # fmt: skip
def test_strange_texts_are_shown(server: Running, open_page: Any, docs: Path, content: str, end: str) -> None:
    path = add_file(server.bases["kb"], docs / f"strange.{end}", content)
    at = min(20_000, len(text_of(server.bases["kb"], path)) - 6)
    reader = open_document(open_page(server), path, start=at, end=at + 5)
    shown = reader.locator("#reader-text")
    expect(shown.locator("mark").first).to_be_attached()
    assert shown.evaluate("e => e.scrollWidth <= e.clientWidth && e.textContent.length < 60000")
    if content.startswith("ש"):
        assert shown.locator("p, td").first.evaluate("e => getComputedStyle(e).unicodeBidi") == "plaintext"


# --- for everyone -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_a_phone_the_page_or_the_text_is_shown_and_the_mark_has_the_focus(
    server: Running, open_page: Any, docs: Path
) -> None:
    base = server.bases["kb"]
    path = add_file(base, docs / "masts.pdf", REGISTER)
    page = open_page(server, viewport={"width": 375, "height": 740})
    reader = open_document(page, path, **span(text_of(base, path), "two masts"))
    expect(reader.get_by_role("img", name="Marked here: two masts")).to_be_focused()
    expect(reader.locator("#reader-text")).to_be_hidden()
    reader.get_by_role("radio", name="Text").check(force=True)
    expect(reader.locator("mark")).to_be_in_viewport()
    expect(reader.get_by_role("img")).to_have_count(0)
