"""Asking on the page: answers beside their sources, what comes before the words, and what goes wrong."""

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
from tests.serving.browser.conftest import CONTRAST, GIVE_UP_S, ask, expect, go
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

FERRY = "When does the ferry to Sandhavn leave on weekdays?"


def choose(page: Any, mode: str) -> None:
    page.get_by_role("radio", name=mode, exact=True).check(force=True)  # the word on it covers it


def bodies(page: Any) -> list[dict[str, Any]]:
    """What is sent to answer, as it comes."""
    sent = list[dict[str, Any]]()
    page.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/completions") else None)
    return sent


def test_one_of_several_models_is_chosen_in_place(serve: Serve, open_page: Any) -> None:
    with closing(named_model("one")) as one, closing(named_model("two")) as two:
        page = open_page(serve(one, more_models=[(two, None)]))
        sent = bodies(page)
        ask(page)
        page.locator("#model").select_option("two")
        expect(page.locator("#who")).to_have_text("two")
        ask(page)
        choose(page, "Model alone")
        ask(page)
        assert [each["model"] for each in sent] == ["one", "two", "two:closed-book"]


def test_an_answer_stands_beside_its_source_and_is_replayed(with_receipts: Running, open_page: Any) -> None:
    page = open_page(with_receipts)
    turn = ask(page)
    expect(turn.locator(".text")).to_contain_text(OPENED)
    word, meaning = turn.locator(".state").inner_text().split(" · ")[0], turn.locator(".meaning")
    expect(turn.locator(".state")).to_have_text(re.compile(rf"^{word} · \d+ %$"))
    expect(meaning).to_have_text(MEANING[word.lower()])
    source = turn.get_by_role("group", name="Sources").locator(".source").first
    expect(source.locator("mark")).to_have_text(OPENED)
    expect(source.locator("blockquote")).to_have_text(BRIDGE)
    expect(source).to_contain_text("backs the answer")
    answer, beside = turn.locator(".answer").bounding_box(), source.bounding_box()
    assert beside["x"] > answer["x"] + answer["width"]
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


def test_each_sentence_has_the_number_of_its_source_in_rendered_markdown(server: Running, open_page: Any) -> None:
    """The server's answer is real but for its text, which has more Markdown than a fake writes."""
    page = open_page(server)
    text = "🚢 **The bridge was opened**.\n\n- It has *four lanes*.\n- A ticket costs [4 crowns](https://a.example/x).\n\n`Kell` & Lund."
    given = server.ask(QUESTION).json()["openbook"]
    (cited,) = given["citations"]
    ends = [text.index(each) + len(each) for each in ("opened**.", "lanes*.", "/x).", "Lund.")]
    spans = zip([0, *ends], ends, strict=False)
    kinds = [(0, "backed"), (1, "near"), (0, "backed"), (None, "none")]
    sentences = [
        {"start": start, "end": end, "citation": at, "support": support}
        for (start, end), (at, support) in zip(spans, kinds, strict=True)
    ]
    given |= {
        "answer": text,
        "sentences": sentences,
        "citations": [cited, {**cited, "start": 20, "quote": BRIDGE[20:60]}],
    }
    chunk = {"choices": [{"delta": {"content": text}}], "openbook": given}
    page.route("**/completions", lambda r: r.fulfill(body=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"))
    turn = ask(page)
    assert turn.locator(".text").evaluate("e => [...e.children].map(p => p.innerText)") == [
        "🚢 The bridge was opened.1",
        "It has four lanes.2\nA ticket costs 4 crowns.1",
        "Kell & Lund.?",
    ]
    assert turn.locator(".text a").inner_text() == "4 crowns"
    expect(turn.locator(".source .support")).to_have_text(["backs the answer", "only resembles the answer"])
    turn.get_by_role("button", name="Source 2").click()
    expect(turn.locator(".source.lit a")).to_be_focused()
    expect(turn.locator(".source.lit .number")).to_have_text("2")


@pytest.mark.slow
def test_a_long_passage_shows_the_whole_quote_with_a_little_around_it(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    quote = f"The mast of the ship Kell {'is made of old oak and ' * 10}weighs nine tonnes."
    text = f"{'Before it came many words. ' * 20}{quote}{' After it came other words.' * 20}"
    add_file(base, docs / "mast.txt", text)
    page = open_page(serve())
    source = ask(page, "How many tonnes weighs the mast of the ship Kell?").locator(".source").first
    expect(source.locator("mark")).to_have_text(quote)
    shown = source.locator("blockquote").inner_text()
    assert len(quote) + 150 < len(shown) < len(quote) + 300
    assert shown.startswith("… ")
    assert source.locator("blockquote").evaluate("e => e.scrollHeight <= e.clientHeight + 1")  # nothing is cut off
    source.get_by_role("button", name="Show the passage").click()
    assert len(source.locator("blockquote").inner_text()) > len(shown)
    expect(source.locator("mark")).to_have_text(quote)


MARKDOWN = """\
## Copies & tapes

- One *tape* a day.
- Two a week.

The *backup* copies are **kept** in `cellar2`, see [the plan](https://127.0.0.1:9/plan).

```
daily = 35
```
"""
RST = """\
Copies & tapes
==============

- One *tape* a day.
- Two a week.

The *backup* copies are **kept** in ``cellar2``, see `the plan <https://127.0.0.1:9/plan>`_.

.. code::

   daily = 35
"""


@pytest.mark.slow
@pytest.mark.parametrize(("end", "text"), [("md", MARKDOWN), ("rst", RST)])
def test_a_source_is_shown_in_plain_words_with_the_quote_marked(
    server: Running, open_page: Any, docs: Path, end: str, text: str
) -> None:
    add_file(server.bases["kb"], docs / f"backup.{end}", text)
    page = open_page(server)
    source = ask(page, "Where are the backup copies kept?").locator(".source").first
    expect(source.locator("mark")).to_have_text("The backup copies are kept in cellar2, see the plan.")
    quote = "One tape a day. · Two a week. · The backup copies are kept in cellar2, see the plan. · daily = 35"
    expect(source.locator("blockquote")).to_have_text(f"Copies & tapes · {quote}")
    go(page, "Documents")
    page.locator("#words").fill("Where are the backup copies kept?")  # not the field of the view before
    page.keyboard.press("Enter")
    expect(page.locator("#found blockquote").first).to_have_text(f"Copies & tapes · {quote}")


@pytest.mark.slow
def test_an_answer_says_that_its_documents_have_changed_since(server: Running, open_page: Any, docs: Path) -> None:
    base, page = server.bases["kb"], open_page(server)
    turn, asked = ask(page), base.version
    older = turn.locator(".older-answer")
    add_file(base, docs / "ferry.md", "# Ferry\n\nThe ferry to Sandhavn leaves at ten.")
    with page.expect_response("**/v1/documents/history*"):
        page.reload()
    expect(turn.locator(".text")).to_contain_text(OPENED)
    expect(older).to_have_count(0)  # another document changed
    add_file(base, docs / "bridge.txt", BRIDGE.replace("March", "April"))
    page.reload()
    expect(older).to_contain_text(f"From version {asked}; the documents are now at {base.version}.")
    older.get_by_role("button", name="Ask again").click()
    again = page.locator(".turn").nth(1)
    expect(again.locator("h3")).to_have_text(QUESTION)
    expect(again.locator(".text")).to_contain_text("14 April 2026")
    expect(again.locator(".older-answer")).to_have_count(0)
    expect(page.locator(".turn").first.locator(".text")).to_contain_text(OPENED)  # both stand
    ask(page, FERRY)
    server.client.post("/v1/documents/purge", json={"documents": ["bridge.txt"]})
    page.reload()
    older = page.locator(".turn").first.locator(".older-answer")
    expect(older).to_have_count(1)  # the document is gone
    with page.expect_request("**/v1/chat/completions") as asked_again:
        older.get_by_role("button", name="Ask again").click()
    assert [each["content"] for each in asked_again.value.post_data_json["messages"]] == [
        QUESTION
    ]  # without old answers
    expect(page.locator(".turn")).to_have_count(4)


def test_what_was_found_and_read_is_shown_before_the_words(serve: Serve, open_page: Any) -> None:
    engine = SlowReader()
    page = open_page(serve(engine))
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    turn = page.locator(".turn")
    expect(turn.locator(".state")).to_have_text(re.compile(r"Reading \d+ of 1,000 tokens"))
    expect(turn.get_by_role("progressbar")).to_be_visible()
    expect(turn.locator(".sources h4")).to_contain_text("found, read in this order")
    expect(turn.locator(".source").first).to_contain_text("bridge.txt")
    engine.go_on.set()
    expect(turn.locator(".text")).to_have_attribute("aria-busy", "false")
    expect(turn.get_by_role("progressbar")).to_have_count(0)


@pytest.mark.slow
def test_what_is_not_found_shows_the_closest_quotes(server: Running, open_page: Any) -> None:
    page = open_page(server)
    turn = ask(page, "Which planet is the largest of all?")
    expect(turn.locator(".state")).to_have_text("Not found")
    expect(turn.locator(".meaning")).to_have_count(0)  # the answer says so
    given = server.ask("Which planet is the largest of all?").json()["openbook"]
    assert (given["citations"], turn.locator("button.ref").count()) == ([], 0)
    expect(turn.locator(".sources mark")).to_have_count(0)
    quotes = turn.locator(".sources > ol blockquote")
    expect(quotes).to_contain_text([each["quote"] for each in given["closest"]])
    expect(turn.locator(".sources h4")).to_have_text(
        "Closest in your documents" if given["closest"] else "Nothing near the question was found"
    )


@pytest.mark.slow
def test_both_ways_of_answering_stand_side_by_side(server: Running, open_page: Any) -> None:
    page = open_page(server)
    choose(page, "Both")
    turn = ask(page)
    documents, alone = (turn.get_by_role("article", name=name) for name in ("From documents", "From the model alone"))
    expect(documents.locator(".text")).to_contain_text(OPENED)
    expect(alone.locator(".note")).to_contain_text("no document was read")
    left, right = documents.bounding_box(), alone.bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    choose(page, "Model alone")
    turn = ask(page)
    expect(turn.get_by_role("article")).to_have_count(1)
    expect(turn.locator(".source")).to_have_count(0)


@pytest.mark.slow
def test_the_whole_conversation_is_sent_and_what_was_searched_for_is_told(server: Running, open_page: Any) -> None:
    page = open_page(server)
    sent = bodies(page)
    first = ask(page)
    expect(first.locator(".searched")).to_have_count(0)
    turn = ask(page, "And who opened it?")
    assert [message["role"] for message in sent[1]["messages"]] == ["user", "assistant", "user"]
    assert sent[1]["messages"][:2] == [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": OPENED}]
    expect(turn.locator(".searched")).to_contain_text(f"Understood as: {QUESTION} And who opened it?")
    page.get_by_role("link", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    ask(page)
    assert len(sent[2]["messages"]) == 1
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


@pytest.mark.slow
def test_a_question_waits_for_what_the_page_must_know_first(server: Running, open_page: Any) -> None:
    page, held = open_page(server), list[Any]()
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_have_text("Searching…")
    held.pop().continue_()
    expect(page.locator(".text")).to_contain_text(OPENED)


@pytest.mark.slow
def test_a_stopped_answer_is_stopped_on_the_server_and_asked_again(serve: Serve, open_page: Any) -> None:
    engine = WaitingEngine()
    page = open_page(serve(engine))
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    turn = page.locator(".turn")
    expect(turn.locator(".text")).to_have_text("Wait")
    page.get_by_role("button", name="Stop").click()
    expect(turn.locator(".state")).to_have_text("Stopped")
    assert engine.was_cancelled.wait(GIVE_UP_S)
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    expect(turn.locator(".text")).to_have_text("Wait")
    page.reload()
    engine.go_on.set()
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".state")).not_to_have_text("Stopped")
    expect(turn.get_by_role("button", name="Try again")).to_have_count(0)


@pytest.mark.slow
def test_an_answer_goes_on_while_another_view_is_shown(serve: Serve, open_page: Any) -> None:
    engine = WaitingEngine()
    page = open_page(serve(engine))
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".text")).to_have_text("Wait")
    address = page.url
    go(page, "Model")
    expect(page.get_by_role("heading", name="Model", exact=True)).to_be_visible()
    go(page, "Ask")
    expect(page.locator(".text")).to_have_text("Wait")
    assert page.url == address
    page.get_by_role("link", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    engine.go_on.set()
    page.locator("#conversations li a").click()
    expect(page.locator(".text")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


@pytest.mark.slow
def test_a_failed_question_stays_and_is_asked_again(server: Running, open_page: Any) -> None:
    page = open_page(server)
    page.route("**/completions", lambda route: route.abort())
    turn = ask(page)
    expect(turn.get_by_role("alert")).to_have_text("The server cannot be reached. Is it still running?")
    expect(turn.locator("h3")).to_have_text(QUESTION)
    page.unroute("**/completions")
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".text")).to_contain_text(OPENED)


@pytest.mark.slow
def test_a_question_is_edited_and_later_ones_go(server: Running, open_page: Any) -> None:
    page = open_page(server)
    ask(page, "Xylophone?")
    ask(page, TOWER)
    first = page.locator(".turn").first
    first.get_by_role("button", name="Edit").click()
    editor = first.get_by_label("Your question")
    expect(editor).to_be_focused()
    expect(first.locator("form")).to_contain_text("1 later answer will be replaced.")
    editor.fill(QUESTION)
    page.reload()  # typed text is kept
    expect(editor).to_have_value(QUESTION)
    first.get_by_role("button", name="Ask again").click()
    expect(page.locator(".turn")).to_have_count(1)
    expect(page.locator(".turn .text")).to_contain_text(OPENED)


@pytest.mark.slow
def test_a_question_about_one_document_or_folder_reads_nothing_else(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    add_file(base, docs / "it's (the) ferry*.txt", "The ferry to Sandhavn leaves at noon on weekdays.")
    path = path_of(base, "it's (the) ferry*.txt")
    page = open_page(serve())
    sent = bodies(page)
    page.goto(f"{page.url.split('#')[0]}#/ask?{'path=' + path.replace(' ', '%20')}&about=leaves%20at%20noon")
    question = page.get_by_label("Question", exact=True)
    expect(question).to_have_value("“leaves at noon”\n")
    expect(page.locator("#composer .chip")).to_contain_text("Only: it's (the) ferry*.txt")
    turn = ask(page, FERRY)
    assert sent[-1]["openbook"]["where"] == f"path = '{path.replace(chr(39), chr(39) * 2)}'"
    expect(turn.locator(".text")).to_contain_text("noon")
    expect(turn.locator(".source")).to_have_count(1)
    page.get_by_role("button", name="Ask all documents again").click()
    expect(page.locator("#composer .chip")).to_have_count(0)
    ask(page, FERRY)
    assert "where" not in sent[-1]["openbook"]
    for folder, count in ((path.rsplit("/", 1)[0], 1), (f"{path.rsplit('/', 1)[0]}/none/", 0)):
        page.goto(f"{page.url.split('#')[0]}#/ask?folder={folder}")
        expect(page.locator(".turn")).to_have_count(0)
        turn = ask(page, FERRY)
        assert (turn.locator(".source").count() > 0) == bool(count)


@pytest.mark.slow
def test_an_older_version_and_another_knowledge_base_are_chosen_where_the_question_is_written(
    towers: KnowledgeBase, serve: Serve, open_page: Any
) -> None:
    page = open_page(serve(others={"towers": towers}))
    ask(page)
    page.get_by_role("combobox", name="Knowledge base").select_option("towers")
    turn = ask(page, TOWER)
    expect(turn.locator("mark")).to_contain_text("55 metres")
    expect(turn.locator(".source a")).to_have_attribute("href", re.compile("base=towers"))
    page.get_by_role("combobox", name="Version").select_option("1")
    expect(ask(page, TOWER).locator("mark")).to_contain_text("50 metres")
    first = page.locator(".turn").first.locator(".source a").first
    expect(first).to_have_attribute("href", re.compile("base=kb"))  # as it was answered


@pytest.mark.slow
def test_an_empty_page_says_what_there_is_to_ask(server: Running, open_page: Any) -> None:
    page = open_page(server)
    expect(page.locator("#holds")).to_have_text(re.compile(r"^2 documents · version 2 from .*20\d\d"))
    data = [{"object": "example", "document": "/a/bridge.txt", "heading": "the mayor <b>"}]
    page.route("**/v1/examples*", lambda route: route.fulfill(json={"object": "list", "data": data}))
    page.reload()
    page.get_by_role("button", name="What does bridge.txt say about “the mayor <b>”?").click()
    expect(page.locator(".turn h3")).to_have_text("What does bridge.txt say about “the mayor <b>”?")
    expect(page.locator(".turn .text")).to_have_attribute("aria-busy", "false")


@pytest.mark.slow
def test_a_server_without_documents_says_what_to_do(
    configuration: Configuration, open_page: Any, tmp_path: Path
) -> None:
    empty = KnowledgeBase.ensure(tmp_path / "empty", HashEmbedder().identity)
    with running(configuration, echo_model(), {"kb": empty}) as server:
        page = open_page(server)
        expect(page.get_by_role("heading", name="There are no documents yet")).to_be_visible()
        expect(page.get_by_role("link", name="Add documents")).to_have_attribute("href", "#/documents")
        expect(page.locator(".command")).to_have_text(f"openbook sync FOLDER --kb {tmp_path / 'empty'}")
    empty.close()


@pytest.mark.slow
def test_a_server_without_a_knowledge_base_asks_the_model_alone(configuration: Configuration, open_page: Any) -> None:
    with running(configuration, echo_model(otherwise="Paris."), {}) as server:
        page = open_page(server)
        expect(page.get_by_role("radio", name="Documents")).to_be_disabled()
        expect(page.get_by_role("radio", name="Model alone")).to_be_checked()
        expect(ask(page, "What is the capital of France?").locator(".text")).to_have_text("Paris.")


@pytest.mark.slow
def test_an_answer_is_copied_with_what_it_rests_on(server: Running, open_page: Any) -> None:
    page = open_page(server, permissions=["clipboard-read", "clipboard-write"])
    turn = ask(page)
    kept = "navigator.clipboard.readText()"
    turn.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_function(f"{kept}.then(text => text.includes('bridge'))")
    assert page.evaluate(kept) == OPENED
    turn.get_by_role("button", name="Copy with sources").click()
    page.wait_for_function(f"{kept}.then(text => text.includes('1. '))")
    assert page.evaluate(kept) == f"{OPENED} [1]\n\n1. “{OPENED}” (bridge.txt)\n"
    turn.get_by_role("button", name="Copy link").click()
    page.wait_for_function(f"{kept}.then(text => text.includes('#/answer/'))")
    expect(turn).to_contain_text("Copied. The link opens in this browser only.")
    turn.get_by_role("button", name="Ask this after every change").click()
    turn.get_by_role("link", name="Questions").click()
    expect(page.locator(".standing > li")).to_contain_text(QUESTION)
    expect(page.locator(".standing .made")).to_contain_text("asked of version")


# --- other people's words ---------------------------------------------------------------------------------------------

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
    for part in (
        "<script>",
        "alert('canary')",
        "<img src=http://127.0.0.1:9/x onerror=alert(1)>",
        "[image: x]",
        "40 miles",
    ):
        expect(turn.locator(".text")).to_contain_text(part)  # the model repeats it word for word
    expect(turn.locator("blockquote").first).to_contain_text(HOSTILE)
    expect(turn.locator(".source .path").first).to_have_text(path.name)
    expect(ask(page, HOSTILE).locator("h3")).to_have_text(HOSTILE)
    assert page.locator("main img, main script, main a[href^=javascript]").count() == 0


@pytest.mark.slow
def test_a_link_writes_a_question(server: Running, open_page: Any) -> None:
    page = open_page(server)
    page.goto(f"{server.url}/#/ask?question=Summarize+bridge.txt")
    expect(page.get_by_label("Question", exact=True)).to_have_value("Summarize bridge.txt")
    page.reload()
    expect(page.get_by_label("Question", exact=True)).to_be_visible()
    assert page.url.endswith("#/ask")


# --- for everybody ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_goes_by_keyboard(server: Running, open_page: Any) -> None:
    page = open_page(server)
    question = page.get_by_label("Question", exact=True)
    expect(question).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Model alone")).to_be_checked()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+Tab")
    page.keyboard.type("When was the bridge opened\n")
    turn = page.locator(".turn")
    expect(turn.locator(".text")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#said")).to_have_text("Answered. 1 source.")
    expect(question).to_be_focused()
    turn.get_by_role("button", name="Source 1").focus()
    page.keyboard.press("Enter")
    source = turn.locator(".source a").first
    expect(source).to_be_focused()
    assert source.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


@pytest.mark.slow
def test_text_can_be_read_in_both_schemes(server: Running, open_page: Any) -> None:
    for scheme in ("light", "dark"):
        page = open_page(server, color_scheme=scheme)
        turn = ask(page)
        parts = [turn.locator(each) for each in (".text", ".state", ".path", "mark", ".folder", ".support", ".ref")]
        parts += [page.locator(each) for each in ("#send", ".choice span >> nth=1", "#conversations .shown a")]
        for part in parts:
            assert part.first.evaluate(CONTRAST) >= 4.5, (scheme, part)
        ground = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        lightness = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) / 3
        assert (lightness < 64) == (scheme == "dark")
