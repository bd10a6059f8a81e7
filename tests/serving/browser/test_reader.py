"""The reader: documents with what is cited marked, pages of PDFs, and that hostile documents stay text."""

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

pytestmark = pytest.mark.laws

REGISTER = make_pdf(
    [["Cover of the register."], ["The ship Kell carries two masts of oak."], ["And six oars as well."]]
)


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
    asked = f"?{urlencode(query)}" if query else ""
    page.evaluate("hash => { location.hash = hash }", f"#/document/{quote(str(path), safe='')}{asked}")
    reader = page.get_by_role("dialog")
    expect(reader.locator(".piece").first).to_be_attached()
    return reader


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


def test_a_cited_pdf_shows_the_quoted_words_marked_and_is_turned_and_zoomed(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    path = add_file(base, docs / "masts.pdf", REGISTER)
    server = serve(require_key=True)
    page = open_page(server)
    sign_in(page, server.key())
    expect(page.locator("#who")).to_be_attached()
    reader = open_document(page, path, **span(text_of(base, path), "two masts"))
    picture = reader.get_by_role("img", name="Page 2 of masts.pdf")
    expect(picture).to_have_js_property("naturalWidth", 1000)  # the key goes with the request
    box = reader.get_by_role("img", name="Marked here: two masts")
    expect(box).to_be_visible()
    expect(reader.locator("#reader-text mark")).to_be_focused()
    sheet, place, text = (each.bounding_box() for each in (picture, box, reader.locator("#reader-text mark")))
    assert sheet["x"] + sheet["width"] < text["x"]
    # The PDF has the line from 50 points of 612, 42 of 792 from the top; "two masts" begins after 22 of its letters.
    assert 0.2 < (place["x"] - sheet["x"]) / sheet["width"] < 0.35
    assert 0.03 < (place["y"] - sheet["y"]) / sheet["height"] < 0.06

    following, third = reader.get_by_role("button", name="Next page"), reader.get_by_role("img", name="Page 3")
    following.click()
    expect(third).to_be_visible()
    expect(box).to_have_count(0)
    expect(following).to_be_disabled()
    pane, zoom = reader.get_by_role("region", name="The page as it looks"), reader.get_by_label("Zoom")
    pane.focus()
    page.keyboard.press("ArrowLeft")
    expect(picture).to_be_visible()
    reader.get_by_label("Page number").fill("9")
    page.keyboard.press("Enter")
    expect(third).to_be_visible()
    zoom.select_option("200")
    expect(reader.locator(".sheet")).to_have_js_property("offsetWidth", 2000)
    pane.focus()
    for key, percent in (("-", "150"), ("+", "200"), ("0", "0")):
        page.keyboard.press(key)
        expect(zoom).to_have_value(percent)
    reader.get_by_role("button", name="Show the mark").click()
    expect(box).to_be_visible()
    page.set_viewport_size({"width": 375, "height": 740})  # a phone shows the page or the text
    expect(reader.locator("#reader-text")).to_be_hidden()
    reader.get_by_role("radio", name="Text").check(force=True)
    expect(reader.locator(".pdf")).to_have_count(0)
    expect(reader.locator("#reader-text mark")).to_be_in_viewport()


# Whether the middle of the mark is that of the pane, but for two hundredths of it.
IN_THE_MIDDLE = """() => {
  const [a, b] = [document.querySelector(".box"), document.getElementById("reader-page")].map(e => e.getBoundingClientRect());
  const away = [(a.x + a.width / 2 - b.x - b.width / 2) / b.width, (a.y + a.height / 2 - b.y - b.height / 2) / b.height];
  return Math.max(...away.map(Math.abs)) < 0.02;
}"""


def test_a_mark_stays_in_the_middle_when_the_page_or_the_window_changes_its_size(
    server: Running, open_page: Any, docs: Path
) -> None:
    lines = [f"Line {i} of the register tells of a ship and of its masts." for i in range(40)]
    path = add_file(server.bases["kb"], docs / "masts.pdf", make_pdf([lines]))
    page = open_page(server)
    cited = span(text_of(server.bases["kb"], path), "Line 25 of the register tells of a ship")
    reader = open_document(page, path, **cited)
    mark, zoom = reader.get_by_role("img", name="Marked here: Line 25"), reader.get_by_label("Zoom")
    expect(mark).to_be_in_viewport()
    for percent in ("200", "300", "150"):
        zoom.select_option(percent)
        page.wait_for_function(IN_THE_MIDDLE)
    reader.get_by_role("button", name="Larger").click()
    page.wait_for_function(IN_THE_MIDDLE)
    page.set_viewport_size({"width": 1000, "height": 600})
    page.wait_for_function(IN_THE_MIDDLE)
    reader.locator("#reader-page").evaluate("e => e.scrollTo(0, 0)")  # to look at something else
    expect(mark).not_to_be_in_viewport()
    page.set_viewport_size({"width": 1300, "height": 800})
    zoom.select_option("300")
    expect(mark).not_to_be_in_viewport()


def test_each_mark_is_reached_and_what_has_no_picture_is_marked_in_the_text(
    server: Running, open_page: Any, docs: Path
) -> None:
    base, page = server.bases["kb"], open_page(server)
    path = add_file(base, docs / "masts.pdf", REGISTER)
    text = text_of(base, path)
    cited, over_two = span(text, "two masts"), f"{text.index('masts')}-{text.index('oars') + 4},0-5"
    reader = open_document(page, path, spans=over_two)
    for number in (1, 2, 3):
        expect(reader.locator(".stops [role=status]")).to_have_text(f"Mark {number} of 3")
        expect(reader.get_by_role("img", name=f"Page {number} of masts.pdf")).to_be_visible()
        expect(reader.locator(".box.current")).to_be_visible()
        following = reader.get_by_role("button", name="Next mark")
        following.click() if number < 3 else expect(following).to_be_disabled()
    page.keyboard.press("Escape")

    pages = [{"page": 2, "width": 1000, "height": 1294, "rectangles": [], "found": False}]
    located = {"object": "marks", "path": str(path), "version": 3, "pages": pages}
    page.route("**/v1/documents/marks*", lambda route: route.fulfill(json=located))
    reader = open_document(page, path, **cited)
    note, mark = reader.locator(".document > .note"), reader.locator("mark")
    expect(note).to_contain_text("They are marked in the text.")
    expect(mark).to_have_text("two masts")
    expect(mark).to_be_in_viewport()
    reader.get_by_role("radio", name="Page").check(force=True)
    expect(reader.get_by_role("img", name="Page 2 of masts.pdf")).to_be_visible()  # without marks
    page.keyboard.press("Escape")

    page.unroute("**/v1/documents/marks*")
    path.write_bytes(REGISTER.replace(b"two masts", b"six masts"))
    reader = open_document(page, path, **cited)
    expect(note).to_contain_text("its file is not, byte for byte, the one that this text was read from.")
    expect(mark).to_have_text("two masts")
    expect(reader.get_by_role("radio")).to_have_count(0)
    page.keyboard.press("Escape")

    sent = {"file": ("oars.pdf", REGISTER, "application/pdf")}
    assert server.client.post("/v1/documents", files=sent).status_code == 200
    delete(server.service.configuration.settings.derived_dir / "uploads")  # as a purge does
    open_document(page, path_of(base, "oars.pdf"), **cited)
    expect(note).to_contain_text("Upload it again.")


def test_a_long_document_is_read_part_by_part(server: Running, open_page: Any, docs: Path) -> None:
    lines = [f"Paragraph {i} of the long report 🚢 tells of the harbour." for i in range(3000)]
    base = server.bases["kb"]
    path = add_file(base, docs / "long.md", "\n\n".join(lines))
    places = [text_of(base, path).index(lines[i]) for i in (1500, 2900)]
    reader = open_document(open_page(server), path, spans=",".join(f"{place}-{place + 14}" for place in places))
    expect(reader.locator("mark")).to_have_text("Paragraph 1500")
    expect(reader.locator("mark")).to_be_in_viewport()
    paragraphs = reader.locator(".piece p")
    begun = int(paragraphs.first.inner_text().split()[1])
    assert paragraphs.first.inner_text() == lines[begun]  # whole
    assert begun < 1500
    reader.get_by_role("button", name="Show what is before").click()
    expect(reader.locator(".piece")).to_have_count(2)
    expect(reader.get_by_text(lines[begun])).to_be_in_viewport()  # what was read stays where it was
    reader.get_by_role("button", name="Show what follows").click()
    expect(reader.locator(".piece")).to_have_count(3)
    shown = paragraphs.all_inner_texts()
    assert shown == lines[lines.index(shown[0]) : lines.index(shown[-1]) + 1]
    reader.get_by_role("button", name="Next mark").click()
    expect(reader.locator("mark")).to_have_text("Paragraph 2900")
    expect(reader.locator("mark")).to_be_in_viewport()


def test_versions_have_links_and_selected_words_are_asked_about(server: Running, open_page: Any, docs: Path) -> None:
    base, page = server.bases["kb"], open_page(server, permissions=["clipboard-read", "clipboard-write"])
    ferry = add_file(base, docs / "ferry.md", "# Ferry\n\nThe ferry to Sandhavn leaves at ten.")
    reader = open_document(page, ferry, version=2, start=9, end=18)
    expect(reader.locator("mark")).to_have_text("The ferry")
    expect(reader.locator(".older")).to_contain_text("Version 2; the newest is 3.")
    reader.get_by_role("button", name="Copy link").click()
    expect(reader.locator(".copied")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(server.url)
    assert "version=2&start=9&end=18&base=kb" in copied
    reader.get_by_role("link", name="Show the newest").click()
    expect(reader.locator("#reader-text")).to_contain_text("at ten")
    expect(reader.locator(".older")).to_have_count(0)
    page.keyboard.press("Escape")

    path, question = path_of(base, "bridge.txt"), page.get_by_label("Question", exact=True)
    reader = open_document(page, path)
    expect(reader.get_by_role("region", name="Text")).to_be_focused()
    expect(reader.get_by_role("link", name="Ask about this document")).to_have_attribute(
        "href", f"#/ask?{urlencode({'path': path})}"
    )
    about = reader.get_by_role("button", name="Ask about the selected words")
    expect(about).to_be_disabled()
    keys = Keys(page)
    keys.press("Shift+ArrowRight", "Control+Shift+ArrowRight")
    keys.use(about)
    expect(question).to_have_value("“The bridge”\n")
    expect(page.locator("#composer .chip")).to_contain_text("Only: bridge.txt")
    page.evaluate("location.hash = '#/document/%2Fnowhere%2Felse.txt'")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("No document '/nowhere/else.txt'")
    page.keyboard.press("Escape")
    reader = open_document(page, path, start=5000, end=5010)
    expect(reader.locator(".document > .note")).to_contain_text("not in this text")


HOSTILE = (
    "The lighthouse <script>alert('canary')</script> shines <img src=http://127.0.0.1:9/x onerror=alert(1)> "
    "![x](http://127.0.0.1:9/y) [link](javascript:alert(2)) <style>*{display:none}</style> "
    "<a href=http://127.0.0.1:9/z>here</a> `a <javascript:alert(3)>`_ 40 miles far."
)


def test_a_hostile_document_runs_and_loads_nothing_and_a_long_line_fits(
    server: Running, open_page: Any, docs: Path
) -> None:
    base, page = server.bases["kb"], open_page(server)
    for end in ("txt", "md", "rst", "html.txt"):
        path = add_file(base, docs / f"<img src=x onerror=alert(3)>.{end}", HOSTILE)
        reader = open_document(page, path, **span(HOSTILE, "40 miles far."))
        expect(reader.locator("mark")).to_have_text("40 miles far.")
        expect(reader.locator("#reader-text")).to_contain_text("alert('canary')")
        expect(reader.get_by_role("heading", level=2)).to_have_text(path.name)
        assert reader.locator("img, script, style, a[href^=javascript]").count() == 0
        page.keyboard.press("Escape")
    strange = {"line.txt": "word" * 50_000, "right.txt": "שלום עולם"}
    for name, content in strange.items():
        path = add_file(base, docs / name, content)
        shown = open_document(page, path, start=0, end=4).locator("#reader-text")
        expect(shown.locator("mark").first).to_be_attached()
        assert shown.evaluate("e => e.scrollWidth <= e.clientWidth && e.textContent.length < 60000"), name
        page.keyboard.press("Escape")
