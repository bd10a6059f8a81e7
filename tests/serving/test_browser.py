"""The web page in Chromium, over the fakes: what people see and do, and that other people's words stay words.

Most are slow; those that are not show what an answer, an upload, a key, a hostile document and a foreign page do.

Skipped where Playwright (`pip install playwright`, in the extra `dev`) or Chromium is missing. `OPENBOOK_CHROMIUM` names
another Chromium than /usr/bin/chromium.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from openbook.certainty import MEANING
from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Configuration
from openbook.testing import echo_model
from tests.knowledge.small_bases import reseal
from tests.parsers.samples import make_pdf
from tests.serving.conftest import OPENED, QUESTION, TOWER, Running, Serve, WaitingEngine, add_file, running

CHROMIUM = os.environ.get("OPENBOOK_CHROMIUM", "/usr/bin/chromium")  # tests see no OPENBOOK_ variables
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
GIVE_UP_S = 60

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
expect = playwright.expect
pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason=f"There is no Chromium at {CHROMIUM}; name one with OPENBOOK_CHROMIUM."
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
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
        context = browser.new_context(**{"viewport": {"width": 1240, "height": 860}, **options})
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


def ask(page: Any, question: str = QUESTION, mode: str = "Documents") -> Any:
    """The turn, when it is complete."""
    page.get_by_role("radio", name=mode, exact=True).check(force=True)  # the word on it covers it
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask", exact=True).last.click()
    turn = page.locator(".turn").last
    expect(turn.locator("[aria-busy=true]")).to_have_count(0)
    return turn


def go(page: Any, view: str) -> None:
    page.get_by_role("navigation").get_by_role("button", name=view).click()


# --- asking -----------------------------------------------------------------------------------------------------------


def test_an_answer_stands_beside_its_source_and_is_replayed(with_receipts: Running, open_page: Any) -> None:
    page = open_page(with_receipts)
    turn = ask(page)
    expect(turn.locator(".text")).to_contain_text(OPENED)
    word, meaning = turn.locator(".state").inner_text().split(" · ")[0], turn.locator(".meaning")
    expect(turn.locator(".state")).to_have_text(re.compile(rf"^{word} · \d+ %$"))
    expect(meaning).to_have_text(MEANING[word.lower()])
    source = turn.get_by_role("complementary", name="Sources").locator(".source").first
    expect(source.locator("mark")).to_have_text(OPENED)
    answer, beside = turn.locator(".answer").bounding_box(), source.bounding_box()
    assert beside["x"] > answer["x"] + answer["width"]
    digest = echo_model().identity.digest
    expect(turn.locator(".made")).to_contain_text(f"echo {digest[:12]} verified")
    expect(turn.locator(".made")).to_contain_text("knowledge base version 2")

    source.get_by_role("button").click()
    reader = page.get_by_role("dialog")
    expect(reader.get_by_role("heading", name="bridge.txt")).to_be_visible()
    expect(reader.locator("mark")).to_have_text(OPENED)
    expect(reader.get_by_role("region")).to_contain_text("It has four lanes.")
    reader.get_by_role("button", name="Close").click()

    turn.locator("details.receipt > summary").click()
    expect(turn.locator("details.receipt dl")).to_contain_text(digest)
    turn.get_by_role("button", name="Replay").click()
    expect(turn.locator(".replayed")).to_have_text("Identical, byte for byte.")


@pytest.mark.slow
def test_a_receipt_is_found_by_its_digest_and_what_differs_is_told(
    with_receipts: Running, server: Running, open_page: Any
) -> None:
    page = open_page(with_receipts)
    turn = ask(page)
    digest = with_receipts.ask(QUESTION).json()["openbook"]["receipt"]["digest"]
    go(page, "Model")
    expect(page.locator("#about")).to_contain_text(echo_model().identity.digest)
    expect(page.locator("#lineage")).to_contain_text("not in this server's store")
    page.get_by_label("Digest of a receipt").fill(digest)
    page.keyboard.press("Enter")
    expect(page.locator("#receipt")).to_contain_text(QUESTION)
    page.locator("#receipt").get_by_role("button", name="Replay").click()
    expect(page.locator("#receipt .replayed")).to_have_text("Identical, byte for byte.")
    go(page, "Ask")
    connection = with_receipts.bases["kb"].connection
    connection.execute("PRAGMA query_only = OFF")
    connection.execute("UPDATE contents SET text = replace(text, 'Lila', 'Lola')")
    reseal(connection)  # as if that had been stored
    turn.get_by_role("button", name="Replay").click()
    expect(turn.locator(".replayed")).to_contain_text("is not that of the receipt")
    without = ask(open_page(server))
    without.get_by_role("button", name="Replay").click()
    expect(without.locator(".replayed")).to_contain_text("openbook serve --receipts")


@pytest.mark.slow
def test_both_ways_of_answering_stand_side_by_side(server: Running, open_page: Any) -> None:
    page = open_page(server)
    turn = ask(page, mode="Both")
    documents, memory = (turn.get_by_role("article", name=name) for name in ("From documents", "From memory"))
    expect(documents.locator(".text")).to_contain_text(OPENED)
    expect(memory.locator(".note")).to_contain_text("no document was read")
    left, right = documents.bounding_box(), memory.bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    unknown = ask(page, "Which planet is the largest of all?")
    expect(unknown.locator(".state")).to_have_text("Not found")
    alone = ask(page, mode="Memory")
    expect(alone.get_by_role("article")).to_have_count(1)
    expect(alone.locator(".source")).to_have_count(0)


@pytest.mark.slow
def test_the_whole_conversation_is_sent_and_a_question_waits_for_what_the_page_must_know_first(
    server: Running, open_page: Any
) -> None:
    page, sent = open_page(server), []
    page.on("request", lambda r: sent.append(r.post_data_json["messages"]) if r.url.endswith("/completions") else None)
    first = ask(page).locator(".text").inner_text().split("\n")[0]
    ask(page, "And who opened it?")
    assert [message["role"] for message in sent[1]] == ["user", "assistant", "user"]
    assert sent[1][0] == sent[0][0] == {"role": "user", "content": QUESTION}
    assert first.startswith(sent[1][1]["content"])
    expect(page.locator(".turn")).to_have_count(2)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    ask(page)
    assert len(sent[2]) == 1
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    held = list[Any]()
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_have_text("Reading…")
    held.pop().continue_()
    expect(page.locator(".text")).to_contain_text(OPENED)


@pytest.mark.slow
def test_an_answer_that_is_stopped_is_stopped_on_the_server(serve: Serve, open_page: Any) -> None:
    engine = WaitingEngine()
    server = serve(engine)
    page = open_page(server)
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".text")).to_have_text("Wait")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".state")).to_have_text("Stopped")
    assert engine.was_cancelled.wait(GIVE_UP_S)
    expect(page.get_by_label("Question", exact=True)).to_be_focused()


# --- documents, versions, keys ----------------------------------------------------------------------------------------


def test_files_are_added_each_with_its_verdict(server: Running, open_page: Any) -> None:
    page = open_page(server)
    go(page, "Documents")
    expect(page.locator("#list li")).to_have_count(2)
    tower = {"name": "tower.txt", "mimeType": "text/plain", "buffer": b"The tower of Lund is 55 metres high."}
    broken = {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 nothing"}
    page.get_by_label("Files to add").set_input_files([tower, broken])
    expect(page.locator(".upload li").first).to_contain_text("added")
    expect(page.locator(".upload li").last).to_contain_text("failed: ")
    expect(page.locator("#list li")).to_have_count(3)
    files = "() => { const d = new DataTransfer(); d.items.add(new File(['The mole is 90 metres long.'], 'mole.txt')); return d }"
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(files)})
    expect(page.locator(".upload").first).to_contain_text("Version 4 of the knowledge base.")
    expect(page.locator("#list li")).to_have_count(4)
    page.get_by_label("Words or a question").fill("How high is the tower of Lund?")
    page.keyboard.press("Enter")
    expect(page.locator("#found .source").first).to_contain_text("55 metres")
    go(page, "Ask")
    expect(ask(page, TOWER).locator(".text")).to_contain_text("55 metres")


@pytest.mark.slow
def test_files_go_in_parts_by_number_and_size_and_a_bad_name_keeps_none_out(server: Running, open_page: Any) -> None:
    page = open_page(server)
    go(page, "Documents")
    files = """() => {
      const d = new DataTransfer();
      const add = (name, text) => d.items.add(new File([text], name));
      add("What?.txt", "The mole is 90 metres long.");
      add("mole.txt", "The mole is 90 metres long.");
      add("big-1.bin", new Uint8Array(2e7));
      add("big-2.bin", new Uint8Array(2e7));
      for (let i = 0; i < 32; i++) add(`${i}.txt`, `Number ${i}.`);
      return d;
    }"""
    page.dispatch_event("#drop", "drop", {"dataTransfer": page.evaluate_handle(files)})
    # 3 files below the most bytes, then 32 in number with the second large one, then the last.
    expect(page.locator(".upload")).to_have_count(3)
    first, last = page.locator(".upload").last, page.locator(".upload").first
    expect(first.locator("li")).to_have_count(3)
    expect(first.locator("li").nth(0)).to_contain_text("not a valid name for an upload")
    expect(first.locator("li").nth(1)).to_contain_text("added")
    expect(last.locator("li")).to_have_count(1)
    expect(last.locator("li")).to_contain_text("added")


@pytest.mark.slow
def test_a_list_that_cannot_go_on_says_why(server: Running, open_page: Any) -> None:
    page = open_page(server)
    go(page, "Documents")
    expect(page.locator("#list li")).not_to_have_count(0)
    page.locator("#more").evaluate("button => { button.hidden = false }")  # as with more than a hundred documents
    page.route("**/v1/documents*", lambda route: route.abort())
    page.locator("#more").click()
    expect(page.locator("#list li.bad")).to_contain_text("server")


@pytest.mark.slow
def test_an_older_version_is_compared_and_asked(server: Running, open_page: Any, docs: Path) -> None:
    add_file(server.bases["kb"], docs / "ferry.md", "# Ferry\n\nThe ferry to Sandhavn leaves at ten on weekdays.")
    page = open_page(server)
    question = "When does the ferry to Sandhavn leave on weekdays?"
    expect(ask(page, question).locator(".text")).to_contain_text("at ten")
    go(page, "Versions")
    page.get_by_role("button", name="Show what differs").click()
    changed = page.locator("#difference")
    expect(changed).to_contain_text("Changed: 1 document")
    changed.get_by_text("Passages that went").click()
    expect(changed.locator(".went")).to_contain_text("at nine")
    page.locator("#rows tr").nth(1).get_by_role("button", name="Ask this one").click()
    old = ask(page, question)
    expect(old.locator(".text")).to_contain_text("at nine")
    expect(old.locator(".made")).to_contain_text("knowledge base version 2")
    old.locator(".source button").first.click()
    expect(page.get_by_role("dialog").locator("mark")).to_contain_text("at nine")


@pytest.mark.slow
def test_an_answer_keeps_its_knowledge_base_when_another_is_chosen(
    towers: KnowledgeBase, serve: Serve, open_page: Any
) -> None:
    page = open_page(serve(others={"towers": towers}))
    ask(page)
    page.get_by_role("combobox", name="Knowledge base").select_option("towers")
    expect(ask(page, TOWER).locator("mark")).to_contain_text("55 metres")
    page.locator(".turn").first.locator(".source button").first.click()
    expect(page.get_by_role("dialog").locator("mark")).to_have_text(OPENED)


@pytest.mark.slow
def test_a_page_of_a_cited_pdf_is_shown_as_it_looks(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    register = make_pdf([["Cover of the register."], ["The ship Kell carries two masts of oak."]])
    path = add_file(base, docs / "masts.pdf", register)
    server = serve(require_key=True)
    page = open_page(server)
    page.get_by_role("dialog", name="API key").get_by_label("Key", exact=True).fill(server.keys.new("a", "read")[1])
    page.keyboard.press("Enter")
    source = ask(page, "How many masts carries the ship Kell?").locator(".source button").first
    source.click()
    reader, show = page.get_by_role("dialog"), page.get_by_role("button", name="Show the page")
    expect(show).to_have_attribute("aria-pressed", "false")
    expect(reader.get_by_role("img")).to_have_count(0)
    show.focus()
    page.keyboard.press("Enter")  # the key goes with the request: an address in the page would send none
    picture = reader.get_by_role("img", name="Page 2 of masts.pdf")
    expect(picture).to_be_visible()
    expect(picture).to_have_js_property("naturalWidth", 1000)
    expect(show).to_have_attribute("aria-pressed", "true")
    beside, text = picture.bounding_box(), reader.locator("mark").bounding_box()
    assert beside["x"] + beside["width"] < text["x"]
    page.keyboard.press("Space")
    expect(picture).to_have_count(0)
    expect(show).to_have_attribute("aria-pressed", "false")

    path.write_bytes(register.replace(b"two masts", b"six masts"))
    show.click()
    expect(reader).to_contain_text("its file is not, byte for byte, the one that this text was read from.")
    expect(reader.get_by_role("img")).to_have_count(0)
    page.keyboard.press("Escape")
    go(page, "Documents")
    page.locator("#list").get_by_role("button", name="bridge.txt").click()
    expect(reader.get_by_role("region")).to_contain_text(OPENED)
    expect(show).to_be_hidden()  # of a text there is no picture


def test_a_key_is_asked_for_where_one_is_needed_and_stays_in_the_tab(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    token = keyed.keys.new("reader", "read")[1]
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_contain_text("An API key is needed")
    dialog.get_by_label("Key", exact=True).fill(token)
    page.keyboard.press("Enter")
    expect(ask(page).locator(".text")).to_contain_text(OPENED)
    assert page.evaluate("[localStorage.length, Object.values(sessionStorage)]") == [0, [token]]
    go(page, "Documents")
    page.get_by_label("Files to add").set_input_files(
        {"name": "a.txt", "mimeType": "text/plain", "buffer": b"The mole is 90 metres long."}
    )
    expect(page.locator(".upload")).to_contain_text("This key has the right 'read', but the request needs 'write'.")
    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget it").click()
    expect(dialog).to_contain_text("An API key is needed")
    assert page.evaluate("sessionStorage.length") == 0


# --- other people's words ---------------------------------------------------------------------------------------------

HOSTILE = (
    "The lighthouse of Kell <script>alert('canary')</script> shines <img src=http://127.0.0.1:9/x onerror=alert(1)> "
    "![x](http://127.0.0.1:9/y) [link](javascript:alert(2)) <a href=http://127.0.0.1:9/z>here</a> 40 miles far."
)


def test_a_hostile_document_is_text_and_nothing_else(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    path = add_file(base, docs / "<img src=x onerror=alert(3)>.txt", HOSTILE)
    server = serve()
    page = open_page(server)
    turn = ask(page, "How many miles far shines the lighthouse of Kell?")
    expect(turn.locator(".text")).to_contain_text(HOSTILE)  # the model repeats it word for word
    expect(turn.locator("blockquote").first).to_contain_text("<script>alert('canary')</script>")
    turn.locator(".source button").first.click()
    expect(page.get_by_role("dialog").get_by_role("region")).to_contain_text(HOSTILE)
    page.keyboard.press("Escape")
    go(page, "Documents")
    expect(page.locator("#list")).to_contain_text(path.name)
    go(page, "Versions")
    page.get_by_role("button", name="Show what differs").click()
    page.locator("#difference").get_by_text("Passages that came").click()
    expect(page.locator("#difference .came")).to_contain_text("javascript:alert(2)")
    assert page.locator("main img, main script, main a[href^=javascript], dialog img, dialog script").count() == 0
    go(page, "Ask")
    expect(ask(page, HOSTILE).locator("h3")).to_have_text(HOSTILE)


@pytest.mark.slow
def test_the_browser_refuses_to_make_markup_of_text(server: Running, browser: Any) -> None:
    tried = "() => { try { document.body.innerHTML = '<b>x</b>'; return 'made' } catch (error) { return error.name } }"
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        assert page.evaluate(tried) == "TypeError"


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_a_page_of_another_server_gets_nothing_by_a_picture(server: Running, browser: Any, tmp_path: Path) -> None:
    """The browser sends no Origin with it, but says from where it comes."""
    pictures = [f"<img src='http://{name}:{server.port}/v1/documents'>" for name in ("127.0.0.1", "localhost")]
    (tmp_path / "page.html").write_text("".join(pictures))
    files = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as other, closing(browser.new_context()) as context:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        context.new_page().goto(f"http://localhost:{other.server_port}/page.html")
        other.shutdown()
    counted = server.client.get("/metrics").text
    assert 'openbook_requests_total{method="GET",route="/v1/documents",status="403"} 2.0' in counted
    assert 'openbook_requests_total{method="GET",route="/v1/documents",status="200"}' not in counted


@pytest.mark.slow
def test_all_goes_by_keyboard(server: Running, open_page: Any) -> None:
    page = open_page(server)
    expect(page.locator("#holds")).to_contain_text("2 documents")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    question = page.get_by_label("Question", exact=True)
    expect(question).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Memory")).to_be_checked()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("When was the bridge opened\n")
    turn = page.locator(".turn")
    expect(turn.locator(".text")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#said")).to_have_text("Answered, 1 source.")
    turn.get_by_role("button", name="Source 1").focus()
    page.keyboard.press("Enter")
    source = turn.locator(".source button").first
    expect(source).to_be_focused()
    assert source.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("region")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(source).to_be_focused()


@pytest.mark.slow
def test_everything_that_can_be_used_has_a_name(server: Running, open_page: Any) -> None:
    page = open_page(server)
    ask(page, mode="Both")
    for view in ("Documents", "Versions", "Model", "Ask"):
        go(page, view)
        expect(page.locator(f"#{view.lower()}")).to_be_visible()
        for each in page.locator(
            "button:visible, input:visible, select:visible, textarea:visible, summary:visible"
        ).all():
            name = each.evaluate(
                "e => e.getAttribute('aria-label') || (e.labels && [...e.labels].map(l => l.textContent).join('')) || e.textContent"
            )
            assert name.strip(), each.evaluate("e => e.outerHTML")
    for role in ("banner", "navigation", "main"):
        expect(page.get_by_role(role)).to_have_count(1)


@pytest.mark.slow
def test_a_phone_scrolls_one_way(server: Running, open_page: Any, docs: Path) -> None:
    text = f"The mast of the lighthouse ship carries the sign {'W' * 200} since long ago."
    add_file(server.bases["kb"], docs / f"{'long-name-' * 12}.txt", text)
    page = open_page(server, viewport={"width": 375, "height": 740})
    turn = ask(page, "Which sign does the mast of the lighthouse ship carry?", "Both")
    turn.locator("details.receipt > summary").first.click()
    for view, filled in (("Documents", "#list li"), ("Versions", "#rows tr"), ("Model", "#about li"), ("Ask", ".turn")):
        go(page, view)
        expect(page.locator(filled).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 375, view
    turn.locator(".source button").first.click()
    expect(page.get_by_role("dialog").locator("mark").first).to_be_visible()
    assert page.get_by_role("dialog").evaluate("e => e.scrollWidth <= e.clientWidth && e.clientWidth <= 375")


@pytest.mark.slow
def test_text_can_be_read_in_both_schemes(server: Running, open_page: Any) -> None:
    for scheme in ("light", "dark"):
        page = open_page(server, color_scheme=scheme)
        turn = ask(page)
        parts = [turn.locator(each) for each in (".text", ".state", ".made", ".path", "mark", ".folder")]
        parts += [page.locator(each) for each in ("nav button[aria-current]", "#send", ".choice span >> nth=1")]
        for part in parts:
            assert part.first.evaluate(CONTRAST) >= 4.5, (scheme, part)
        ground = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        lightness = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) / 3
        assert (lightness < 64) == (scheme == "dark")


# The contrast of an element's text with what is behind it, as WCAG 2 defines it.
CONTRAST = """e => {
  const rgb = color => color.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = e, ground;
  do { ground = rgb(getComputedStyle(behind).backgroundColor); behind = behind.parentElement } while (ground[3] === 0);
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


@pytest.mark.slow
def test_a_server_without_a_knowledge_base_asks_the_model_alone(configuration: Configuration, open_page: Any) -> None:
    with running(configuration, echo_model(otherwise="Paris."), {}) as server:
        page = open_page(server)
        expect(page.get_by_role("radio", name="Documents")).to_be_disabled()
        expect(ask(page, "What is the capital of France?", "Memory").locator(".text")).to_have_text("Paris.")
