"""The documents of a knowledge base on the page: browsing, searching, uploads, details, removing and purging."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from openbook.knowledge import KnowledgeBase
from tests.serving.browser.conftest import expect, go, sign_in
from tests.serving.conftest import QUESTION, SECRET, TOWER, Running, Serve, add_file, path_of

pytestmark = pytest.mark.laws

LIST = re.compile(r"/v1/documents(\?|$)")  # the list's address, and that of uploads
TOWER_FILE = {"name": "tower.txt", "mimeType": "text/plain", "buffer": b"The tower of Lund is 55 metres high."}
HOSTILE = "The mast <script>alert(1)</script> <img src=http://127.0.0.1:9/x onerror=alert(2)> [link](javascript:alert(4)) ends here."


def open_documents(open_page: Callable[..., Any], server: Running, **options: Any) -> Any:
    page = open_page(server, **options)
    go(page, "Documents")
    expect(page.locator(".file a").first).to_be_visible()
    return page


def names(page: Any) -> list[str]:
    """Of the drawn rows: of folders, then of documents."""
    found: list[str] = page.locator(".file .of-name a").all_inner_texts()
    return found


def add_by_choice(page: Any, *files: dict[str, Any]) -> None:
    page.get_by_label("Files to add").set_input_files(files)


def drop(page: Any, script: str) -> None:
    """Drop the files that `script` adds by `add(name, text)`."""
    made = f"() => {{ const d = new DataTransfer(); const add = (name, text) => d.items.add(new File([text], name)); {script}; return d }}"
    page.dispatch_event("#documents", "drop", {"dataTransfer": page.evaluate_handle(made)})


def broken(name: str) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/pdf", "buffer": b"%PDF-1.7 nothing"}


# --- adding -----------------------------------------------------------------------------------------------------------


def test_files_are_added_each_with_its_verdict(server: Running, open_page: Any) -> None:
    page = open_documents(open_page, server)
    expect(page.locator(".file a")).to_have_count(2)
    page.get_by_role("searchbox").fill("o")
    page.route(LIST, lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    add_by_choice(page, TOWER_FILE, broken("broken.pdf"))
    expect(page.locator(".upload .bad").first).to_contain_text("The server cannot be reached")
    page.unroute(LIST)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".upload li").first).to_contain_text("added")
    expect(page.locator(".upload li").last).to_contain_text("not added: ")
    expect(page.get_by_role("searchbox")).to_have_value("o")
    tower = page.get_by_role("row").filter(has_text="tower.txt")
    expect(tower.locator(".tag")).to_have_text("new")
    expect(tower).to_contain_text("Uploads")
    unread = page.locator(".unread")
    expect(unread.locator("summary")).to_have_text("Could not be read (1)")
    unread.locator("summary").click()
    unread.get_by_role("button", name="Dismiss broken.pdf").click()
    expect(unread).to_have_count(0)
    page.get_by_role("searchbox").fill("")
    drop(page, "add('mole.txt', 'The mole is 90 metres long.')")
    expect(page.locator(".upload").first).to_contain_text("Version 4")
    page.get_by_role("link", name="Uploads", exact=True).click()
    expect(page.locator(".file a")).to_have_count(2)
    page.get_by_role("searchbox").fill("How high is the tower of Lund?")
    page.keyboard.press("Enter")
    expect(page.locator("#found .source").first).to_contain_text("55 metres")
    expect(page.locator("#found .source").first.locator("mark")).to_have_text(["tower", "Lund", "high"])
    assert "55 metres" in server.ask(TOWER).json()["openbook"]["answer"]
    page.evaluate("DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true })")
    drop(page, "add('a folder', '')")
    expect(page.locator(".told")).to_contain_text(f"openbook sync FOLDER --kb {server.bases['kb'].folder}")


def test_many_files_tell_where_they_are_and_what_is_cancelled_is_taken_up_again(
    server: Running, open_page: Any
) -> None:
    page, held = open_documents(open_page, server), list[Any]()

    def hold_the_second(route: Any) -> None:
        is_upload = route.request.method == "POST"
        if is_upload and len(held) < 2:
            held.append(route)
        if not is_upload or len(held) != 2 or held[1] is not route:
            route.continue_()

    page.route(LIST, hold_the_second)
    drop(
        page,
        """add("What?.txt", "The mole is 90 metres long.");
        for (let i = 0; i < 35; i++) add(`${i}.txt`, `Number ${i}.`)""",
    )  # 12 in each request
    upload = page.locator(".upload")
    status, rows = upload.get_by_role("status"), upload.locator("li")
    expect(status).to_have_text("11 of 36 files are in · 1 could not be added")
    expect(rows.nth(0)).to_contain_text("not a valid name for an upload")
    for place, words in ((1, "added"), (12, "of 10 B sent"), (24, "waiting")):
        expect(rows.nth(place)).to_contain_text(words)
    expect(rows.get_by_role("progressbar")).to_have_count(12)
    upload.get_by_role("button", name="Cancel").click()
    expect(status).to_contain_text("11 of 36 files are in · 1 could not be added · 24 stopped")
    assert sum("uploads" in each for each in server.bases["kb"].documents()) == 11
    upload.get_by_role("button", name="Try again").click()
    expect(status).to_contain_text("35 of 36 files are in · 1 could not be added")
    go(page, "Model")
    go(page, "Documents")
    expect(rows.nth(34)).to_contain_text("added")
    expect(rows.nth(34)).to_be_hidden()  # behind a click
    expect(rows.nth(35)).to_be_visible()
    page.get_by_role("link", name="Uploads", exact=True).click()
    page.get_by_role("checkbox", name="Choose 7.txt").check()
    page.get_by_role("button", name="Remove…").click()
    dialog = page.get_by_role("dialog", name="Remove 7.txt")
    expect(dialog).to_contain_text("Older versions keep it")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Remove…")).to_be_focused()
    page.keyboard.press("Enter")
    version = server.bases["kb"].version
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog).to_contain_text(f"Version {version + 1} begins.")
    expect(status).to_contain_text("34 of 35 files are in")  # the removed one is not told of
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_role("heading", name="Documents")).to_be_focused()
    upload.get_by_role("button", name="Close", exact=True).click()
    expect(upload).to_have_count(0)


# --- browsing ---------------------------------------------------------------------------------------------------------


ALIKE: dict[str, Any] = {
    "object": "document",
    "media_type": "text/plain",
    "pages": None,
    "passages": 3,
    "version": 1,
    "labels": [],
}


def listing(paths: list[str], page_size: int = 1000) -> Callable[[Any], None]:
    """A server's list of documents that are not there."""
    places = {path: place for place, path in enumerate(sorted(paths))}

    def document(path: str) -> dict[str, Any]:
        place = places[path]
        fields = {"author": "Mara"} if path.endswith("3.txt") else {}
        day = f"20{10 + place % 10}-05-05T12:00:00+00:00"
        return {**ALIKE, "path": path, "title": path, "bytes": 1000 + place, "metadata": fields, "created_at": day}

    def answer(route: Any) -> None:
        after = parse_qs(urlsplit(route.request.url).query).get("after", [""])[0]
        rest = [path for path in places if path > after]
        data, more = [document(path) for path in rest[:page_size]], len(rest) > page_size
        route.fulfill(json={"object": "list", "knowledge_base": "kb", "version": 1, "data": data, "has_more": more})

    return answer


MANY = [f"/srv/books/part-{i % 4}/file-{i:04}.{'txt' if i % 2 else 'md'}" for i in range(2000)]


def test_of_thousands_those_in_sight_are_drawn_and_they_are_filtered(server: Running, open_page: Any) -> None:
    page, fails, play = open_page(server), [True], listing(MANY, page_size=700)
    page.route(LIST, lambda route: route.abort() if fails and "after" in route.request.url else play(route))
    go(page, "Documents")
    expect(page.locator("#documents [role=alert]")).to_contain_text("The server cannot be reached")
    expect(page.locator(".title")).to_contain_text("700 documents")
    fails.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".title")).to_contain_text("2,000 documents")
    expect(page.locator("#documents [role=alert]")).to_have_count(0)
    assert names(page) == [f"part-{i}" for i in range(4)]  # /srv/books is folded away
    page.get_by_role("link", name="part-2").click()
    expect(page.get_by_role("navigation", name="Folder")).to_contain_text("part-2")
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "501")
    assert names(page)[0] == "file-0002.md"
    page.keyboard.press("Control+End")
    expect(page.get_by_role("link", name="file-1998.md")).to_be_visible()
    assert len(names(page)) < 100
    page.go_back()
    page.get_by_role("link", name="Show all in one list").click()
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "2001")
    page.get_by_role("button", name="Size").click()
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
    expect(page.locator(".file a").first).to_have_text("file-1999.txt")
    page.get_by_role("searchbox").fill("file-00")
    found = page.locator(".crumbs")
    expect(found).to_contain_text("100 documents")
    expect(page).to_have_url(re.compile("q=file-00"))
    page.reload()  # the address holds it all
    expect(page.locator(".file a").first).to_have_text("file-0099.txt")
    page.locator(".filters summary").click()
    page.get_by_role("combobox", name="Metadata").select_option("author")
    page.get_by_role("combobox", name="author").select_option("Mara")
    expect(found).to_contain_text("10 documents")
    page.get_by_role("checkbox", name="Choose file-0003.txt").check()
    page.get_by_role("button", name="All 10").click()
    expect(page.locator(".picks-made")).to_contain_text("10 chosen")
    page.get_by_role("button", name="None").click()
    expect(page.locator(".picks-made")).to_have_count(0)
    page.get_by_role("combobox", name="Type", exact=True).select_option("md")
    expect(page.get_by_text("No document has these words in its name.")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(found).to_contain_text("100 documents")


# --- removing and purging ---------------------------------------------------------------------------------------------


def test_a_purge_needs_the_name_and_takes_copies_and_recorded_changes_along(
    keyed: Running, open_page: Any, docs: Path
) -> None:
    headers = keyed.key("admin")
    keyed.client.post("/v1/questions", json={"question": QUESTION}, headers=headers)
    keyed.client.post("/v1/questions/check", json={}, headers=headers)
    add_file(keyed.bases["kb"], docs / "opening.txt", QUESTION.replace("When", "In May"))
    keyed.client.post("/v1/questions/check", json={}, headers=headers)
    assert len(keyed.client.get("/v1/questions", headers=headers).json()["data"][0]["changes"]) == 1
    add_file(keyed.bases["kb"], docs / "copy.txt", (docs / "bridge.txt").read_text())
    page = open_page(keyed)
    sign_in(page, headers)
    go(page, "Documents")
    page.get_by_role("checkbox", name="Choose bridge.txt").check()
    page.get_by_role("button", name="Purge…").click()
    dialog = page.get_by_role("dialog", name="Purge bridge.txt")
    expect(dialog).to_contain_text("Deletes the recorded changes of answers to your standing questions")
    purge, name = dialog.get_by_role("button", name="Purge for good"), dialog.get_by_label("To purge, type")
    expect(purge).to_be_disabled()
    name.fill("bridge")
    expect(purge).to_be_disabled()
    name.fill("bridge.txt")
    purge.click()
    expect(dialog.locator(".bad")).to_contain_text("Another document holds the same text.")
    dialog.get_by_role("button", name="Purge every copy of this text").click()
    expect(dialog).to_contain_text("Purged, and proved")
    expect(dialog).to_contain_text("Recorded changes of answers to your standing questions that were deleted: 1.")
    expect(dialog).to_contain_text("Only a key that holds all labels gets a signed proof")  # safe.txt has one
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".file a")).to_have_text(["ferry.md", "opening.txt"])


# --- rights, labels, other people's words -----------------------------------------------------------------------------


def test_a_key_sees_and_may_do_what_it_has_labels_and_rights_for(keyed: Running, open_page: Any) -> None:
    safe = path_of(keyed.bases["kb"], "bridge.txt").replace("bridge", "safe")
    for headers, shown in ((keyed.key("read"), False), (keyed.key("read", "hr"), True)):
        page = open_page(keyed)
        sign_in(page, headers)
        go(page, "Documents")
        expect(page.locator(".title")).to_contain_text(f"{2 + shown} documents")
        assert ("safe.txt" in names(page)) == shown
        page.get_by_role("searchbox").fill("safe of the harbour office")
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_contain_text("passage")
        assert (SECRET in page.locator("#found").inner_text()) == shown
        page.goto(f"{keyed.url}/#/documents/{quote(safe, safe='')}")
        if shown:
            details = page.get_by_role("region", name="safe.txt")
            expect(details.locator(".preview")).to_contain_text("canary")
            expect(details.locator("dl")).to_contain_text("hr")
        else:
            expect(page.get_by_text("There is no document")).to_be_visible()
    page.get_by_role("button", name="API key").click()
    sign_in(page, keyed.key("read"))
    expect(page.locator(".title")).to_contain_text("2 documents")
    expect(page.locator(".details")).to_have_count(0)
    page.goto(f"{keyed.url}/#/documents")
    page.get_by_role("checkbox", name="Choose bridge.txt").check()
    expect(page.get_by_role("button", name="Purge…")).to_have_count(0)
    add_by_choice(page, TOWER_FILE)
    told = "This key has the right 'read', but the request needs 'write'."
    expect(page.locator(".upload")).to_contain_text(told)
    for name in ("Add files", "Remove…"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)


def test_a_hostile_document_is_text_and_nothing_else(
    serve: Serve, base: KnowledgeBase, open_page: Any, docs: Path
) -> None:
    path = add_file(base, docs / "<img src=x onerror=alert(3)>.md", f"# {HOSTILE}\n\n{HOSTILE}")
    page = open_documents(open_page, serve())
    page.get_by_role("link", name=path.name).click()
    details = page.get_by_role("region", name=path.name)
    expect(details.locator(".preview")).to_contain_text("<script>alert(1)</script>")
    page.get_by_role("searchbox").fill("mast")
    page.get_by_role("button", name="Search in texts").click()
    expect(page.locator("#found blockquote").first).to_contain_text("The mast alert(1) link ends here.")
    details.get_by_role("button", name="Purge…").click()
    expect(page.get_by_role("dialog", name=f"Purge {path.name}")).to_be_visible()
    assert page.locator("main img, main script, main a[href^=javascript]").count() == 0
