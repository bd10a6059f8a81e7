"""Asking on the page: answers with their sources, what comes before the words, and what goes wrong."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from openbook.answers.certainty import MEANING
from openbook.knowledge import KnowledgeBase
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import named_model
from tests.serving.browser.conftest import GIVE_UP_S, ask, expect, go, write
from tests.serving.conftest import (
    BRIDGE,
    OPENED,
    QUESTION,
    TOWER,
    Running,
    Serve,
    WaitingEngine,
    add_file,
    path_of,
    running,
)
from tests.serving.test_progress import SlowReader

pytestmark = pytest.mark.laws

FERRY = "When does the ferry to Sandhavn leave on weekdays?"
CLIPBOARD = "navigator.clipboard.readText()"


def choose(page: Any, mode: str) -> None:
    page.get_by_role("radio", name=mode, exact=True).check(force=True)  # the word on it covers it


def bodies(page: Any) -> list[dict[str, Any]]:
    """What is sent to answer, as it comes."""
    sent = list[dict[str, Any]]()
    page.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/completions") else None)
    return sent


def test_an_answer_stands_next_to_its_source_is_replayed_and_copied(with_receipts: Running, open_page: Any) -> None:
    page = open_page(with_receipts, permissions=["clipboard-read", "clipboard-write"])
    turn = ask(page)
    expect(turn.locator(".text")).to_contain_text(OPENED)
    expect(page.locator("#said")).to_have_text("Answered. 1 source.")
    word, meaning = turn.locator(".state").inner_text().split(" · ")[0], turn.locator(".meaning")
    expect(turn.locator(".state")).to_have_text(re.compile(rf"^{word} · \d+ %$"))
    expect(meaning).to_have_text(MEANING[word.lower()])
    source = turn.get_by_role("group", name="Sources").locator(".source").first
    expect(source.locator("mark")).to_have_text(OPENED)
    expect(source.locator("blockquote")).to_have_text(BRIDGE)
    expect(source).to_contain_text("backs the answer")
    answer, quoted = turn.locator(".answer").bounding_box(), source.bounding_box()
    assert quoted["x"] > answer["x"] + answer["width"]
    link = source.get_by_role("link").get_attribute("href")
    path = path_of(with_receipts.bases["kb"], "bridge.txt")
    assert link.startswith(f"#/document/{path.replace('/', '%2F')}?version=2&start=0&end={len(OPENED)}")

    digest = echo_model().identity.digest
    turn.locator("details.receipt > summary").click()
    expect(turn.locator(".made")).to_contain_text(f"echo {digest[:12]} verified")
    expect(turn.locator(".made")).to_contain_text("knowledge base version 2")
    expect(turn.locator("details.receipt dl")).to_contain_text(digest)
    turn.get_by_role("button", name="Replay").click()
    expect(turn.locator(".replayed")).to_have_text("Identical, byte for byte.")

    turn.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_function(f"{CLIPBOARD}.then(text => text.includes('bridge'))")
    assert page.evaluate(CLIPBOARD) == OPENED
    turn.get_by_role("button", name="Copy with sources").click()
    page.wait_for_function(f"{CLIPBOARD}.then(text => text.includes('1. '))")
    assert page.evaluate(CLIPBOARD) == f"{OPENED} [1]\n\n1. “{OPENED}” (bridge.txt)\n"
    turn.get_by_role("button", name="Copy link").click()
    page.wait_for_function(f"{CLIPBOARD}.then(text => text.includes('#/answer/'))")
    expect(turn).to_contain_text("Copied. The link opens in this browser only.")
    turn.get_by_role("button", name="Ask this after every change").click()
    turn.get_by_role("link", name="Questions").click()
    expect(page.locator(".standing > li")).to_contain_text(QUESTION)
    expect(page.locator(".standing .made")).to_contain_text("asked of version")


def test_each_sentence_has_the_number_of_its_source(server: Running, open_page: Any) -> None:
    """The server's answer is real but for its sentences, which are more than a fake writes."""
    page = open_page(server)
    text = "**It was opened**. It has *four lanes*. Lund."
    given = server.ask(QUESTION).json()["openbook"]
    (cited,) = given["citations"]
    kinds = [(18, 0, "backed"), (39, 1, "near"), (len(text), None, "none")]
    sentences = [{"start": 0, "end": end, "citation": at, "support": support} for end, at, support in kinds]
    citations = [cited, {**cited, "start": 20, "quote": BRIDGE[20:60]}]
    given |= {"answer": text, "sentences": sentences, "citations": citations}
    chunk = {"choices": [{"delta": {"content": text}}], "openbook": given}
    page.route("**/completions", lambda r: r.fulfill(body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"))
    turn = ask(page)
    expect(turn.locator(".text")).to_have_text("It was opened.1 It has four lanes.2 Lund.?")
    expect(turn.locator(".source .support")).to_have_text(["backs the answer", "only resembles the answer"])
    turn.get_by_role("button", name="Source 2").click()
    expect(turn.locator(".source.lit a")).to_be_focused()
    expect(turn.locator(".source.lit .number")).to_have_text("2")


def test_models_and_ways_of_answering_are_chosen_in_place(serve: Serve, open_page: Any) -> None:
    with closing(named_model("one")) as one, closing(named_model("two")) as two:
        page = open_page(serve(one, more_models=[(two, None)]))
        sent = bodies(page)
        ask(page)
        page.locator("#model").select_option("two")
        expect(page.locator("#who")).to_have_text("two")
        ask(page)
        choose(page, "Both")
        turn = ask(page)
        left, right = (turn.get_by_role("article", name=name) for name in ("From documents", "From the model alone"))
        expect(left.locator(".text")).to_contain_text(OPENED)
        expect(right.locator(".note").first).to_contain_text("no document was read")
        a, b = left.bounding_box(), right.bounding_box()
        assert a["x"] + a["width"] <= b["x"]
        choose(page, "Model alone")
        turn = ask(page)
        expect(turn.get_by_role("article")).to_have_count(1)
        expect(turn.locator(".source")).to_have_count(0)
        models = [each["model"] for each in sent]
        assert (models[:2], sorted(models[2:4]), models[4:]) == (
            ["one", "two"],
            ["two", "two:closed-book"],
            ["two:closed-book"],
        )


def test_an_answer_says_that_its_documents_have_changed_since(server: Running, open_page: Any, docs: Path) -> None:
    base, page = server.bases["kb"], open_page(server)
    turn, asked = ask(page), base.version
    older = turn.locator(".older-answer")
    add_file(base, docs / "bridge.txt", BRIDGE.replace("March", "April"))
    page.reload()
    expect(older).to_contain_text(f"From version {asked}; the documents are now at {base.version}.")
    older.get_by_role("button", name="Ask again").click()
    again = page.locator(".turn").nth(1)
    expect(again.locator(".text")).to_contain_text("14 April 2026")
    expect(again.locator(".older-answer")).to_have_count(0)
    expect(page.locator(".turn").first.locator(".text")).to_contain_text(OPENED)  # both stand
    server.client.post("/v1/documents/purge", json={"documents": ["bridge.txt"]})
    page.reload()
    older = page.locator(".turn").first.locator(".older-answer")
    expect(older).to_have_count(1)  # the document is gone
    with page.expect_request("**/v1/chat/completions") as asked_again:
        older.get_by_role("button", name="Ask again").click()
    sent = [each["content"] for each in asked_again.value.post_data_json["messages"]]
    assert sent == [QUESTION]  # without old answers
    expect(page.locator(".turn")).to_have_count(3)


def test_what_was_found_and_read_is_shown_before_the_words(serve: Serve, open_page: Any) -> None:
    engine = SlowReader()
    page = open_page(serve(engine))
    write(page)
    turn = page.locator(".turn")
    expect(turn.locator(".state")).to_have_text(re.compile(r"Reading \d+ of 1,000 tokens"))
    expect(turn.get_by_role("progressbar")).to_be_visible()
    expect(turn.locator(".sources h4")).to_contain_text("found, read in this order")
    expect(turn.locator(".source").first).to_contain_text("bridge.txt")
    engine.go_on.set()
    expect(turn.locator(".text")).to_have_attribute("aria-busy", "false")
    expect(turn.get_by_role("progressbar")).to_have_count(0)


def test_the_whole_conversation_is_sent_and_what_is_not_found_shows_the_closest_quotes(
    server: Running, open_page: Any
) -> None:
    page = open_page(server)
    sent = bodies(page)
    expect(ask(page).locator(".searched")).to_have_count(0)
    turn = ask(page, "And who opened it?")
    assert [message["role"] for message in sent[1]["messages"]] == ["user", "assistant", "user"]
    assert sent[1]["messages"][:2] == [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": OPENED}]
    expect(turn.locator(".searched")).to_contain_text(f"Understood as: {QUESTION} And who opened it?")
    page.get_by_role("link", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    planet = "Which planet is the largest of all?"
    turn, given = ask(page, planet), server.ask(planet).json()["openbook"]
    assert len(sent[2]["messages"]) == 1
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    expect(turn.locator(".state")).to_have_text("Not found")
    expect(turn.locator(".meaning, .sources mark, button.ref")).to_have_count(0)
    quotes = turn.locator(".sources > ol blockquote")
    expect(quotes).to_contain_text([each["quote"] for each in given["closest"]])
    found = "Closest in your documents" if given["closest"] else "Nothing near the question was found"
    expect(turn.locator(".sources h4")).to_have_text(found)


def test_an_answer_goes_on_in_other_views_and_is_stopped_on_the_server(serve: Serve, open_page: Any) -> None:
    engine, held = WaitingEngine(), list[Any]()
    page = open_page(serve(engine))
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    field, turn = write(page), page.locator(".turn")
    expect(turn.locator(".state")).to_have_text("Searching…")  # it waits for what the page must know first
    held.pop().continue_()
    expect(turn.locator(".text")).to_have_text("Wait")
    address = page.url
    go(page, "Model")
    expect(page.get_by_role("heading", name="Model", exact=True)).to_be_visible()
    go(page, "Ask")
    expect(turn.locator(".text")).to_have_text("Wait")
    assert page.url == address
    page.get_by_role("button", name="Stop").click()
    expect(turn.locator(".state")).to_have_text("Stopped")
    assert engine.was_cancelled.wait(GIVE_UP_S)
    expect(field).to_be_focused()
    page.unroute("**/v1/models")
    page.reload()
    expect(turn.locator(".text")).to_have_text("Wait")
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".state")).not_to_have_text("Stopped")
    page.get_by_role("link", name="New conversation").click()
    expect(turn).to_have_count(0)
    engine.go_on.set()
    page.locator("#conversations li a").click()
    expect(turn.locator(".text")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_a_failed_question_is_asked_again_and_one_is_edited(server: Running, open_page: Any) -> None:
    page = open_page(server)
    page.route("**/completions", lambda route: route.abort())
    turn = ask(page, "Xylophone?")
    expect(turn.get_by_role("alert")).to_have_text("The server cannot be reached. Is it still running?")
    expect(turn.locator("h3")).to_have_text("Xylophone?")
    page.unroute("**/completions")
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".receipt")).to_have_count(1)
    ask(page, TOWER)
    first = page.locator(".turn").first
    first.get_by_role("button", name="Edit").click()
    editor = first.get_by_label("Your question")
    expect(editor).to_be_focused()
    page.keyboard.press("Escape")
    expect(first.get_by_role("button", name="Edit")).to_be_focused()
    page.keyboard.press("Enter")
    expect(editor).to_be_focused()
    expect(first.locator("form")).to_contain_text("1 later answer will be replaced.")
    editor.fill(QUESTION)
    page.reload()  # typed text is kept
    expect(editor).to_have_value(QUESTION)
    first.get_by_role("button", name="Ask again").click()
    expect(page.locator(".turn")).to_have_count(1)
    expect(page.locator(".turn .text")).to_contain_text(OPENED)
    expect(page.get_by_label("Question", exact=True)).to_be_focused()


def test_a_question_about_one_document_or_folder_reads_nothing_else(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    add_file(base, docs / "it's (the) ferry*.txt", "The ferry to Sandhavn leaves at noon on weekdays.")
    path = path_of(base, "it's (the) ferry*.txt")
    page = open_page(serve())
    sent, address = bodies(page), page.url.split("#")[0]
    page.goto(f"{address}#/ask?{'path=' + path.replace(' ', '%20')}&about=leaves%20at%20noon")
    expect(page.get_by_label("Question", exact=True)).to_have_value("“leaves at noon”\n")
    expect(page.locator("#composer .chip")).to_contain_text("Only: it's (the) ferry*.txt")
    turn = ask(page, FERRY)
    assert sent[-1]["openbook"]["where"] == f"path = '{path.replace(chr(39), chr(39) * 2)}'"
    expect(turn.locator(".text")).to_contain_text("noon")
    expect(turn.locator(".source")).to_have_count(1)
    page.get_by_role("button", name="Ask all documents again").click()
    expect(page.locator("#composer .chip")).to_have_count(0)
    ask(page, FERRY)
    assert "where" not in sent[-1]["openbook"]
    page.goto(f"{address}#/ask?folder={path.rsplit('/', 1)[0]}/none/")
    expect(page.locator(".turn")).to_have_count(0)
    expect(ask(page, FERRY).locator(".source")).to_have_count(0)


def test_an_empty_page_says_what_there_is_to_ask(
    server: Running, configuration: Configuration, open_page: Any, tmp_path: Path
) -> None:
    page = open_page(server)
    expect(page.locator("#holds")).to_have_text(re.compile(r"^2 documents · version 2 from .*20\d\d"))
    with (
        closing(KnowledgeBase.ensure(tmp_path / "empty", HashEmbedder().identity)) as empty,
        running(configuration, echo_model(), {"kb": empty}) as other,
    ):
        page = open_page(other)
        expect(page.get_by_role("heading", name="There are no documents yet")).to_be_visible()
        expect(page.get_by_role("link", name="Add documents")).to_have_attribute("href", "#/documents")
        expect(page.locator(".command")).to_have_text(f"openbook sync FOLDER --kb {tmp_path / 'empty'}")
    with running(configuration, echo_model(otherwise="Paris."), {}) as alone:
        page = open_page(alone)
        expect(page.get_by_role("radio", name="Documents")).to_be_disabled()
        expect(page.get_by_role("radio", name="Model alone")).to_be_checked()
        expect(ask(page, "What is the capital of France?").locator(".text")).to_have_text("Paris.")


HOSTILE = (
    "The lighthouse of Kell <script>alert('canary')</script> shines <img src=http://127.0.0.1:9/x onerror=alert(1)> "
    "![x](http://127.0.0.1:9/y) [link](javascript:alert(2)) <a href=http://127.0.0.1:9/z>here</a> 40 miles far."
)


def test_a_hostile_document_is_text_and_nothing_else(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    path = add_file(base, docs / "<img src=x onerror=alert(3)>.txt", HOSTILE)
    page = open_page(serve())
    turn = ask(page, "How many miles far shines the lighthouse of Kell?")
    tag = "<img src=http://127.0.0.1:9/x onerror=alert(1)>"
    for part in ("<script>", "alert('canary')", tag, "[image: x]", "40 miles"):
        expect(turn.locator(".text")).to_contain_text(part)  # the model repeats it word for word
    expect(turn.locator("blockquote").first).to_contain_text(HOSTILE)
    expect(turn.locator(".source .path").first).to_have_text(path.name)
    expect(ask(page, HOSTILE).locator("h3")).to_have_text(HOSTILE)
    assert page.locator("main img, main script, main a[href^=javascript]").count() == 0
