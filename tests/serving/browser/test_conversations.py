"""Conversations that stay in the browser: found again, changed, taken along as files, and gone after signing out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.browser.conftest import ask, expect, go, sign_in
from tests.serving.conftest import OPENED, QUESTION, Running

pytestmark = pytest.mark.laws

ROWS = "#conversations li > a"
DATABASES = "indexedDB.databases().then(all => all.map(each => each.name))"
# All values of all databases, as text; sealed ones as their bytes.
KEPT = """async () => {
  const of = request => new Promise((done, failed) => { request.onsuccess = () => done(request.result); request.onerror = failed });
  const found = [];
  for (const { name } of await indexedDB.databases()) {
    const database = await of(indexedDB.open(name));
    for (const table of database.objectStoreNames) {
      for (const row of await of(database.transaction(table).objectStore(table).getAll())) {
        found.push(JSON.stringify(row), row.value.data ? new TextDecoder().decode(row.value.data) : "");
      }
    }
    database.close();
  }
  return found.join();
}"""

MANY = """async () => {
  const { changeConversation, newConversation } = await import("/web/conversations.js");
  for (let n = 0; n < 120; n++) {
    const answers = { open: { answer: "Some words.", declined: false, citations: [], sentences: [], passages: [], notes: [], confidence: "likely",
      certainty: null, receipt: { digest: "" } } };
    const made = { ...newConversation(), changed: n, turns: [{ id: `${n}`, question: `Question of number ${n}`, modes: ["open"], answers }] };
    await changeConversation(made.id, () => made);
  }
}"""


def test_conversations_stay_and_are_found_renamed_and_deleted(server: Running, open_page: Any) -> None:
    page = open_page(server)
    ask(page)
    page.get_by_role("link", name="New conversation").click()
    ask(page, "Xylophone?")
    page.reload()
    expect(page.locator(ROWS)).to_have_text(["Xylophone?", QUESTION])  # newest first
    expect(page.locator(".turn h3")).to_have_text("Xylophone?")
    page.get_by_label("Search in conversations").fill("lila ORTEGA")  # words of the answer
    page.locator(ROWS).get_by_text(QUESTION).click()
    expect(page.locator(".turn .text")).to_contain_text(OPENED)
    expect(page.locator(ROWS)).to_have_count(1)
    page.get_by_label("Search in conversations").fill("")
    page.get_by_role("button", name="Rename").click()
    name = page.get_by_label("Name of the conversation")
    expect(name).to_be_focused()
    name.fill("The <b>bridge</b>")
    page.keyboard.press("Enter")
    expect(page.locator(ROWS)).to_have_text(["Xylophone?", "The <b>bridge</b>"])
    page.reload()
    expect(page.locator(ROWS)).to_have_text(["Xylophone?", "The <b>bridge</b>"])
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(ROWS)).to_have_text(["Xylophone?"])
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".turn .text")).to_contain_text(OPENED)
    expect(page.locator(ROWS)).to_have_count(2)
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(ROWS)).to_have_count(1)
    page.reload()
    expect(page.locator(ROWS)).to_have_text(["Xylophone?"])
    page.evaluate(MANY)
    page.reload()
    expect(page.locator(ROWS)).to_have_count(50)
    page.get_by_role("button", name="Show 71 more").click()
    expect(page.locator(ROWS)).to_have_count(100)
    page.get_by_label("Search in conversations").fill("number 42")
    expect(page.locator(ROWS)).to_have_text(["Question of number 42"])


def test_two_tabs_lose_nothing_of_each_other(server: Running, open_page: Any) -> None:
    page = open_page(server)
    ask(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator(".turn .text")).to_contain_text(OPENED)
    ask(other, "Xylophone?")
    expect(page.locator(".turn h3")).to_have_text([QUESTION, "Xylophone?"])
    ask(page, "Zither?")
    expect(other.locator(".turn h3")).to_have_text([QUESTION, "Xylophone?", "Zither?"])
    other.get_by_role("link", name="New conversation").click()
    ask(other, "Dulcimer?")
    expect(page.locator(ROWS)).to_have_text(["Dulcimer?", QUESTION])
    page.get_by_role("button", name="Delete").click()
    expect(other.locator(ROWS)).to_have_text(["Dulcimer?"])
    other.get_by_role("button", name="Delete").click()
    expect(page.locator(ROWS)).to_have_count(0)
    expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()
    assert page.url.endswith("#/ask")


def test_signing_out_leaves_nothing_of_the_key(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    token = sign_in(page, keyed.key())
    ask(page)
    page.get_by_label("Question", exact=True).fill("Not asked yet")
    kept = page.evaluate(KEPT)
    assert "data" in kept
    assert not any(word in kept for word in ("bridge", "Ortega", token))
    assert token not in str(page.evaluate(DATABASES))
    page.reload()
    expect(page.locator(".turn .text")).to_contain_text(OPENED)  # the key unseals it
    expect(page.get_by_label("Question", exact=True)).to_have_value("Not asked yet")

    other = page.context.new_page()  # has no key of its own
    other.goto(keyed.url)
    sign_in(other, keyed.key())
    expect(other.locator("#holds")).to_be_visible()
    expect(other.locator(ROWS)).to_have_count(0)
    other.close()

    page.get_by_role("button", name="Delete").first.click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    expect(page.locator("#holds")).to_be_visible()
    ask(page)
    page.get_by_role("link", name="New conversation").click()
    page.get_by_label("Question", exact=True).fill("Not asked either")
    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.get_by_role("dialog", name="API key")).to_contain_text("An API key is needed")
    expect(page.get_by_label("Question", exact=True)).to_have_value("")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(ROWS)).to_have_count(0)
    expect(page.get_by_text("Undo", exact=True)).to_have_count(0)
    expect(page.locator("#holds")).to_have_count(0)
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0]
    assert "data" not in page.evaluate(KEPT)


def test_signing_out_of_one_tab_empties_another_with_the_same_key(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    headers = keyed.key()
    sign_in(page, headers)
    ask(page)
    other = page.context.new_page()
    other.goto(keyed.url)
    sign_in(other, headers)
    expect(other.locator(ROWS)).to_have_text([QUESTION])
    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget it").click()
    expect(other.locator(ROWS)).to_have_count(0)
    assert "data" not in page.evaluate(KEPT)
    ask(other)  # it is still signed in
    expect(other.locator(ROWS)).to_have_text([QUESTION])


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("IDBFactory.prototype.open = undefined", "they are gone when you close the page"),
        (
            """IDBObjectStore.prototype.put = () => { throw new DOMException("The quota is exceeded.", "QuotaExceededError") }""",
            "The quota is exceeded. Export it",
        ),
    ],
)
def test_a_browser_that_keeps_nothing_says_so(server: Running, open_page: Any, script: str, told: str) -> None:
    page = open_page(server)
    page.add_init_script(script)
    page.reload()
    ask(page)
    expect(page.locator("#conversations .note").first).to_contain_text(told)
    page.get_by_role("link", name="New conversation").click()
    page.locator(ROWS).get_by_text(QUESTION).click()
    expect(page.locator(".turn .text")).to_contain_text(OPENED)


def test_conversations_and_answers_have_links(server: Running, open_page: Any) -> None:
    page = open_page(server, permissions=["clipboard-read", "clipboard-write"])
    ask(page)
    ask(page, "Xylophone?")
    page.locator(".turn").first.get_by_role("button", name="Copy link").click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.includes('#/answer/'))")
    link = page.evaluate("navigator.clipboard.readText()")
    other = page.context.new_page()
    other.goto(link)
    expect(other.locator(".turn h3")).to_have_text([QUESTION, "Xylophone?"])
    expect(other.locator(".turn h3").first).to_be_focused()
    go(page, "Model")
    page.go_back()
    expect(page.locator(".turn h3")).to_have_text([QUESTION, "Xylophone?"])
    page.goto(f"{server.url}/#/answer/{'0' * 32}")
    expect(page.get_by_role("alert")).to_contain_text("is not in this browser")
    page.goto(f"{server.url}/#/ask/{'0' * 32}")
    expect(page.get_by_role("alert")).to_contain_text("is not in this browser")
    expect(ask(page).locator(".text")).to_contain_text(OPENED)


def test_a_question_that_needs_a_key_waits_for_it_and_a_link_opens_with_it(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_role("button", name="Close").click()
    ask(page)
    expect(page.locator(".turn").get_by_role("alert").first).to_contain_text("An API key is needed")
    if not dialog.is_visible():
        page.get_by_role("button", name="API key").click()
    headers = keyed.key()
    sign_in(page, headers)
    expect(page.get_by_label("Question", exact=True)).to_have_value(QUESTION)
    ask(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator("#welcome")).to_contain_text("is not in this browser")
    sign_in(other, headers)
    expect(other.locator(".turn .text")).to_contain_text(OPENED)


def test_nothing_of_a_key_is_kept_for_the_next(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    sign_in(page, keyed.key())
    ask(page)
    expect(page.locator("#who")).not_to_be_empty()
    other = page.context.new_page()
    other.goto(keyed.url)
    other.evaluate(
        "() => new Promise(held => navigator.locks.request('openbook-conversations', () => {"
        " held(); return new Promise(end => { window.end = end }) }))"
    )
    page.get_by_label("Question", exact=True).fill("Who opened the bridge, Lila?")  # is kept when the lock is free
    page.get_by_role("button", name="Ask", exact=True).last.click()
    expect(page.locator(".turn")).to_have_count(2)
    page.get_by_role("button", name="API key").click()
    sign_in(page, keyed.key())
    other.evaluate("window.end()")
    expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()
    other.evaluate("navigator.locks.request('openbook-conversations', () => null)")  # after what waited
    expect(page.locator(ROWS)).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()
    expect(page.locator(ROWS)).to_have_count(0)
