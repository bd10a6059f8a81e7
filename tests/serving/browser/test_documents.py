"""The documents of a knowledge base on the page: browsing, searching, uploads, details, removing and purging."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from openbook.knowledge import KnowledgeBase
from openbook.knowledge.synced_folders import to_sync
from openbook.knowledge.updates import sync_folders
from openbook.proofs.signatures import PurgeProof, verify_signed
from openbook.sources import Item, registry
from openbook.testing import HashEmbedder
from openbook.testing.sources import FAKE, HELD
from tests.serving.browser.conftest import expect, go, sign_in
from tests.serving.conftest import OPENED, QUESTION, SECRET, TOWER, Running, Serve, add_file, path_of

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


# --- adding -----------------------------------------------------------------------------------------------------------


def test_files_are_added_each_with_its_verdict(server: Running, open_page: Any) -> None:
    page = open_documents(open_page, server)
    expect(page.locator(".file a")).to_have_count(2)
    broken = {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 nothing"}
    page.get_by_role("searchbox").fill("o")
    add_by_choice(page, TOWER_FILE, broken)
    expect(page.locator(".upload li").first).to_contain_text("added")
    expect(page.locator(".upload li").last).to_contain_text("not added: ")
    expect(page.get_by_role("searchbox")).to_have_value("o")
    tower = page.get_by_role("row").filter(has_text="tower.txt")
    expect(tower.locator(".tag")).to_have_text("new")
    expect(tower).to_contain_text("Uploads")
    expect(page.locator(".unread summary")).to_have_text("Could not be read (1)")
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


@pytest.mark.slow
def test_each_of_many_files_tells_where_it_is_and_a_bad_name_keeps_none_out(server: Running, open_page: Any) -> None:
    page, held = open_documents(open_page, server), list[Any]()
    version = server.bases["kb"].version

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
        add("mole.txt", "The mole is 90 metres long.");
        for (let i = 0; i < 34; i++) add(`${i}.txt`, `Number ${i}.`)""",
    )  # 12 in each request
    upload = page.locator(".upload")
    expect(upload.get_by_role("status")).to_have_text("11 of 36 files are in · 1 could not be added")
    rows = upload.locator("li")
    expect(rows.nth(0)).to_contain_text("not a valid name for an upload")
    for place, words in ((1, "added"), (12, "of 10 B sent"), (24, "waiting")):
        expect(rows.nth(place)).to_contain_text(words)
    expect(rows.get_by_role("progressbar")).to_have_count(12)
    held[1].continue_()
    expect(upload).to_contain_text(f"35 of 36 files are in · 1 could not be added · Version {version + 3}")
    go(page, "Model")
    go(page, "Documents")
    expect(rows.nth(34)).to_contain_text("added")
    expect(rows.nth(34)).to_be_hidden()  # behind a click
    expect(rows.nth(35)).to_contain_text("not added")
    expect(rows.nth(35)).to_be_visible()
    upload.get_by_role("button", name="Close", exact=True).click()
    expect(upload).to_have_count(0)


@pytest.mark.slow
def test_a_cancelled_upload_says_what_is_in_and_goes_on_when_asked(server: Running, open_page: Any) -> None:
    page, held = open_documents(open_page, server), list[Any]()

    def hold_the_second(route: Any) -> None:
        if route.request.method == "POST" and len(held) < 2:
            held.append(route)
        if len(held) != 2 or held[1] is not route:
            route.continue_()

    page.route(LIST, hold_the_second)
    drop(page, "for (const name of 'abc') add(`${name}.txt`, `Number ${name}.`)")
    upload = page.locator(".upload")
    expect(upload.get_by_role("status")).to_contain_text("1 of 3 files are in")
    upload.get_by_role("button", name="Cancel").click()
    expect(upload.get_by_role("status")).to_contain_text("1 of 3 files are in · 2 stopped")
    assert [each for each in server.bases["kb"].documents() if "uploads" in each] == [
        path_of(server.bases["kb"], "a.txt")
    ]
    upload.get_by_role("button", name="Try again").click()
    expect(upload.get_by_role("status")).to_contain_text("3 files are in")
    page.get_by_role("link", name="Uploads", exact=True).click()
    page.get_by_role("checkbox", name="Choose b.txt").check()
    page.get_by_role("button", name="Remove…").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(upload.get_by_role("status")).to_contain_text("2 files are in")  # the removed one is not told of
    expect(upload.locator("li")).to_have_count(2)


@pytest.mark.slow
def test_a_failed_upload_is_dismissed(server: Running, open_page: Any, docs: Path) -> None:
    page = open_documents(open_page, server)
    add_file(server.bases["kb"], docs / "mast.png", b"\x89PNG\r\n\x1a\n" + bytes(50))
    broken = [{"name": f"{i}.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 no"} for i in range(3)]
    add_by_choice(page, TOWER_FILE, *broken)
    unread, upload = page.locator(".unread"), page.locator(".upload")
    expect(upload.get_by_role("status")).to_contain_text("1 of 4 files are in · 3 could not be added")
    unread.locator("summary").click()
    expect(unread.locator("summary")).to_have_text("Could not be read (4)")
    unread.get_by_role("button", name="Dismiss 0.pdf").click()
    expect(unread.locator("summary")).to_have_text("Could not be read (3)")
    expect(unread.locator("summary")).to_be_focused()
    expect(upload.locator("li")).to_have_count(3)
    unread.get_by_role("button", name="Dismiss 2 uploads").click()
    expect(unread.locator("summary")).to_have_text("Could not be read (1)")
    expect(unread.get_by_role("button", name="Dismiss")).to_have_count(0)  # it lies in a folder
    expect(upload).to_contain_text("1 file is in")


@pytest.mark.slow
def test_an_upload_that_fails_is_sent_again_and_a_folder_is_not_taken(server: Running, open_page: Any) -> None:
    page = open_documents(open_page, server)
    page.route(LIST, lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    add_by_choice(page, TOWER_FILE)
    expect(page.locator(".upload .bad").first).to_contain_text("The server cannot be reached")
    page.unroute(LIST)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".upload")).to_contain_text("1 file is in")
    page.evaluate("DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true })")
    drop(page, "add('a folder', '')")
    expect(page.locator(".told")).to_contain_text(f"openbook sync FOLDER --kb {server.bases['kb'].folder}")


@pytest.mark.slow
def test_an_empty_knowledge_base_says_what_to_do(serve: Serve, base: KnowledgeBase, open_page: Any) -> None:
    page = open_page(serve(), permissions=["clipboard-read", "clipboard-write"])
    page.route(LIST, listing([]))
    go(page, "Documents")
    page.get_by_role("button", name="Copy openbook sync").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"openbook sync FOLDER --kb {base.folder}"
    expect(page.get_by_role("button", name="Add files")).to_be_visible()


@pytest.mark.slow
def test_an_uploaded_document_is_replaced_and_its_past_is_shown(server: Running, open_page: Any) -> None:
    page = open_documents(open_page, server)
    add_by_choice(page, TOWER_FILE)
    page.get_by_role("link", name="Uploads", exact=True).click()
    page.get_by_role("link", name="tower.txt").click()
    details = page.get_by_role("region", name="tower.txt")
    expect(details.locator(".preview")).to_contain_text("55 metres")
    higher = {"name": "new.txt", "mimeType": "text/plain", "buffer": b"The tower of Lund is 60 metres high."}
    page.get_by_label("A file in place of tower.txt").set_input_files(higher)
    expect(details.locator(".preview")).to_contain_text("60 metres")
    details.get_by_text("History").click()
    expect(details.locator(".history li")).to_have_count(2)
    details.get_by_role("button", name="What changed").click()
    expect(details.locator("del")).to_have_text("55")
    expect(details.locator("ins")).to_have_text("60")
    details.get_by_role("combobox", name="to", exact=True).select_option("3")
    expect(details.locator(".difference")).to_contain_text("Both texts are the same.")


# --- browsing ---------------------------------------------------------------------------------------------------------


def listing(paths: list[str], page_size: int = 1000) -> Callable[[Any], None]:
    """A server's list of documents that are not there."""
    places = {path: place for place, path in enumerate(sorted(paths))}

    def answer(route: Any) -> None:
        if route.request.method != "GET":
            route.continue_()
            return
        after = parse_qs(urlsplit(route.request.url).query).get("after", [""])[0]
        rest = [path for path in places if path > after]
        data = [
            {
                "object": "document",
                "path": path,
                "title": Path(path).stem,
                "media_type": "text/plain",
                "bytes": 1000 + places[path],
                "characters": 900,
                "pages": None,
                "passages": 3,
                "labels": ["board"] if path.endswith("7.txt") else [],
                "metadata": {"author": "Mara"} if path.endswith("3.txt") else {},
                "version": 1,
                "created_at": f"20{10 + places[path] % 10}-05-05T12:00:00+00:00",
            }
            for path in rest[:page_size]
        ]
        more = len(rest) > page_size
        route.fulfill(json={"object": "list", "knowledge_base": "kb", "version": 1, "data": data, "has_more": more})

    return answer


MANY = [f"/srv/books/part-{i % 4}/file-{i:04}.{'txt' if i % 2 else 'md'}" for i in range(2000)]


@pytest.mark.slow
def test_of_thousands_those_in_sight_are_drawn(server: Running, open_page: Any) -> None:
    page = open_page(server)
    page.route(LIST, listing(MANY, page_size=700))
    go(page, "Documents")
    expect(page.locator(".title")).to_contain_text("2,000 documents")
    assert names(page) == [f"part-{i}" for i in range(4)]  # /srv/books is folded away
    page.get_by_role("link", name="part-2").click()
    expect(page.get_by_role("navigation", name="Folder")).to_contain_text("part-2")
    expect(page.locator(".crumbs")).to_contain_text("500 documents")
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "501")
    assert names(page)[0] == "file-0002.md"
    assert len(names(page)) < 100
    page.keyboard.press("Control+End")
    expect(page.get_by_role("link", name="file-1998.md")).to_be_visible()
    assert len(names(page)) < 100
    page.go_back()
    expect(page.get_by_role("link", name="part-2")).to_be_visible()
    page.get_by_role("link", name="Show all in one list").click()
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "2001")
    page.get_by_role("button", name="Size").click()
    expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
    expect(page.locator(".file a").first).to_have_text("file-1999.txt")
    page.get_by_role("searchbox").fill("file-00")
    expect(page.locator(".crumbs")).to_contain_text("100 documents")
    expect(page).to_have_url(re.compile("q=file-00"))
    page.reload()  # the address holds it all
    expect(page.locator(".crumbs")).to_contain_text("100 documents")
    expect(page.locator(".file a").first).to_have_text("file-0099.txt")


@pytest.mark.slow
def test_filters_and_choosing_all(server: Running, open_page: Any) -> None:
    page = open_page(server)
    page.route(LIST, listing(MANY))
    go(page, "Documents")
    page.locator(".filters summary").click()
    found = page.locator(".crumbs")
    page.get_by_role("combobox", name="Type", exact=True).select_option("md")
    expect(found).to_contain_text("1,000 documents")
    page.get_by_label("Changed from").fill("2015-01-01")
    page.get_by_label("until").fill("2015-12-31")
    expect(found).to_contain_text("100 documents")
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_role("combobox", name="Labels", exact=True).select_option("board")
    expect(found).to_contain_text("200 documents")
    page.get_by_role("combobox", name="Type", exact=True).select_option("md")
    expect(page.get_by_text("Nothing fits.")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_role("combobox", name="Metadata").select_option("author")
    expect(found).to_contain_text("200 documents")
    page.get_by_role("combobox", name="author").select_option("Mara")
    expect(found).to_contain_text("200 documents")
    page.get_by_role("checkbox", name="Choose file-0003.txt").check()
    page.get_by_role("button", name="All 200").click()
    expect(page.locator(".picks-made")).to_contain_text("200 chosen")
    page.get_by_role("button", name="None").click()
    expect(page.locator(".picks-made")).to_have_count(0)


def test_a_field_may_have_any_name(server: Running, base: KnowledgeBase, tmp_path: Path, open_page: Any) -> None:
    add_file(base, tmp_path / "odd.md", "---\nconstructor: acme\n---\nThe mast is red.")
    page = open_documents(open_page, server)
    page.locator(".filters summary").click()
    page.get_by_role("combobox", name="Metadata").select_option("constructor")
    expect(page.locator(".crumbs")).to_contain_text("1 document")
    page.get_by_role("combobox", name="constructor").select_option("acme")
    expect(page.locator(".crumbs")).to_contain_text("1 document")


@pytest.mark.slow
def test_each_value_of_a_list_is_a_filter(server: Running, base: KnowledgeBase, tmp_path: Path, open_page: Any) -> None:
    for name, tags in (("mast.md", "[port, rigging]"), ("oar.md", "[port]"), ("sail.md", "[rigging]")):
        add_file(base, tmp_path / name, f"---\ntags: {tags}\n---\nThe {name[:-3]} is red.")
    page = open_documents(open_page, server)
    page.locator(".filters summary").click()
    page.get_by_role("combobox", name="Metadata").select_option("tags")
    values = page.get_by_role("combobox", name="tags", exact=True)
    expect(values.locator("option")).to_have_text(["any", "port", "rigging"])
    values.select_option("rigging")
    expect(page.locator(".file .of-name a")).to_have_text(["mast.md", "sail.md"])
    page.get_by_role("link", name="mast.md").click()
    expect(page.locator(".details dl")).to_contain_text("port, rigging")


@pytest.mark.slow
def test_a_list_that_cannot_go_on_says_why(server: Running, open_page: Any) -> None:
    page, fails = open_page(server), [True]
    play = listing(MANY)
    page.route(LIST, lambda route: route.abort() if fails and "after" in route.request.url else play(route))
    go(page, "Documents")
    expect(page.locator("#documents [role=alert]")).to_contain_text("The server cannot be reached")
    expect(page.locator(".title")).to_contain_text("1,000 documents")
    fails.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".title")).to_contain_text("2,000 documents")
    expect(page.locator("#documents [role=alert]")).to_have_count(0)


@pytest.mark.slow
def test_what_could_not_be_read_is_told_with_the_command_that_helps(server: Running, open_page: Any) -> None:
    page = open_page(server)
    told = {
        "object": "verdict",
        "path": "/srv/books/scan (1).pdf",
        "outcome": "failed",
        "reason": "no text in it",
        "tried_at": "2026-01-01T00:00:00+00:00",
        "remedy": "To have this read from now on: '/my books/bin/python' -m pip install 'openbook[ocr]'.",
    }
    reply = {"object": "list", "knowledge_base": "kb", "version": 1, "data": [told]}
    page.route("**/v1/verdicts*", lambda route: route.fulfill(json=reply))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    go(page, "Documents")
    page.get_by_text("Could not be read (1)").click()
    expect(page.locator(".unread")).to_contain_text("no text in it")
    copy = page.get_by_role("button", name="-m pip install")
    copy.click()
    expect(copy).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "'/my books/bin/python' -m pip install 'openbook[ocr]'"


@pytest.mark.slow
def test_another_knowledge_base_and_an_older_version_are_shown(
    towers: KnowledgeBase, serve: Serve, open_page: Any
) -> None:
    page = open_documents(open_page, serve(others={"towers": towers}))
    page.get_by_label("Knowledge base").select_option("towers")
    expect(page.locator(".file a")).to_have_text(["tower.txt"])
    page.get_by_role("link", name="tower.txt").click()
    expect(page.locator(".preview")).to_contain_text("55 metres")
    go(page, "Versions")
    page.get_by_role("button", name="Ask this one").last.click()
    go(page, "Documents")
    told = page.get_by_text(f"Version {towers.version - 1}; the newest is {towers.version}.")
    expect(told).to_be_visible()
    page.get_by_role("link", name="tower.txt").click()
    expect(page.locator(".preview")).to_contain_text("50 metres")
    for name in ("Add files", "Remove…", "Purge…"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    page.get_by_role("button", name="Show the newest").click()
    expect(told).to_have_count(0)
    expect(page.locator(".preview")).to_contain_text("55 metres")
    expect(page.get_by_role("button", name="Add files")).to_be_visible()


# --- removing and purging ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_removing_is_asked_for_and_older_versions_keep_it(server: Running, open_page: Any) -> None:
    page = open_documents(open_page, server)
    bridge, before = path_of(server.bases["kb"], "bridge.txt"), server.bases["kb"].version
    page.get_by_role("link", name="bridge.txt").click()
    page.get_by_role("button", name="Remove…").click()
    dialog = page.get_by_role("dialog", name="Remove bridge.txt")
    expect(dialog).to_contain_text("Older versions keep it")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Remove…")).to_be_focused()
    assert server.bases["kb"].version == before
    page.get_by_role("button", name="Remove…").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog).to_contain_text(f"Version {before + 1} begins.")
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".file a")).to_have_text(["ferry.md"])
    expect(page.get_by_role("heading", name="Documents")).to_be_focused()
    expect(page.get_by_text("There is no document")).to_have_count(0)
    assert server.bases["kb"].content(bridge, before) is not None


@pytest.mark.slow
def test_a_purge_needs_the_name_and_gives_a_proof(keyed: Running, open_page: Any, docs: Path, tmp_path: Path) -> None:
    page = open_page(keyed)
    headers = keyed.key("admin", "hr")

    def changed() -> int:
        return len(keyed.client.get("/v1/questions", headers=headers).json()["data"][0]["changes"])

    keyed.client.post("/v1/questions", json={"question": QUESTION}, headers=headers)
    keyed.client.post("/v1/questions/check", json={}, headers=headers)
    add_file(keyed.bases["kb"], docs / "opening.txt", QUESTION.replace("When", "In May"))
    keyed.client.post("/v1/questions/check", json={}, headers=headers)
    assert changed() == 1
    sign_in(page, headers)
    go(page, "Documents")
    page.get_by_role("checkbox", name="Choose bridge.txt").check()
    page.get_by_role("button", name="Purge…").click()
    dialog = page.get_by_role("dialog", name="Purge bridge.txt")
    expect(dialog).to_contain_text("Deletes the recorded changes of answers to your standing questions")
    purge = dialog.get_by_role("button", name="Purge for good")
    expect(purge).to_be_disabled()
    dialog.get_by_label("To purge, type").fill("bridge")
    expect(purge).to_be_disabled()
    dialog.get_by_label("To purge, type").fill("bridge.txt")
    purge.click()
    expect(dialog).to_contain_text("Purged, and proved")
    expect(dialog).to_contain_text("Recorded changes of answers to your standing questions that were deleted: 1.")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download the signed proof").click()
    download.value.save_as(tmp_path / "proof.json")
    proof = (tmp_path / "proof.json").read_bytes()
    stated = verify_signed(proof, json.loads(proof)["public_key"]).content
    assert isinstance(stated, PurgeProof)
    assert stated.deleted.documents == 1
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".file a")).to_have_text(["ferry.md", "opening.txt", "safe.txt"])


@pytest.mark.slow
def test_a_text_that_another_document_has_too_is_purged_with_it_on_request(
    server: Running, open_page: Any, docs: Path
) -> None:
    add_file(server.bases["kb"], docs / "copy.txt", (docs / "bridge.txt").read_text())
    page = open_documents(open_page, server)
    page.get_by_role("checkbox", name="Choose bridge.txt").check()
    page.get_by_role("button", name="Purge…").click()
    dialog = page.get_by_role("dialog", name="Purge bridge.txt")
    dialog.get_by_label("To purge, type").fill("bridge.txt")
    page.keyboard.press("Enter")
    expect(dialog.locator(".bad")).to_contain_text("Another document holds the same text.")
    dialog.get_by_role("button", name="Purge every copy of this text").click()
    expect(dialog).to_contain_text("Purged, and proved")
    expect(dialog).to_contain_text("Only a key that holds all labels gets a signed proof")  # safe.txt has one
    dialog.get_by_role("button", name="Close").click()
    expect(page.locator(".file a")).to_have_text(["ferry.md"])


# --- rights, labels, other people's words -----------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_key_may_not_do_is_told_and_then_not_offered(keyed: Running, open_page: Any) -> None:
    page = open_page(keyed)
    sign_in(page, keyed.key("read"))
    go(page, "Documents")
    page.get_by_role("checkbox", name="Choose bridge.txt").check()
    expect(page.get_by_role("button", name="Purge…")).to_have_count(0)
    add_by_choice(page, TOWER_FILE)
    told = "This key has the right 'read', but the request needs 'write'."
    expect(page.locator(".upload")).to_contain_text(told)
    expect(page.get_by_role("button", name="Add files")).to_have_count(0)
    expect(page.get_by_role("button", name="Remove…")).to_have_count(0)


@pytest.mark.slow
def test_a_document_with_a_label_is_there_for_its_holders_alone(keyed: Running, open_page: Any) -> None:
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


def test_documents_from_addresses_have_names_and_say_where_they_came_from(
    server: Running, base: KnowledgeBase, open_page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.SCHEMES, "fake", FAKE)
    origins = {
        "": ("docs/", "https://example.org/docs/?a=1&b='\"#<b>"),
        "a b?x=1#y": ("a b?x=1#y", "javascript:alert(1)"),
        "100% of 'x' \"y\".txt": ("100% of 'x' \"y\".txt", ""),
    }
    held = [
        Item(
            f"fake://site/docs/{name}",
            origin,
            lambda: [b"The gate is red."],
            metadata={"url": origin} if origin else {},
        )
        for name, (_, origin) in origins.items()
    ]
    monkeypatch.setitem(HELD, "fake://site/docs", held)
    sync_folders(base, [to_sync(base, "fake://site/docs")], HashEmbedder())
    page = open_documents(open_page, server)
    page.locator("a.is-folder", has_text="fake://site/docs").click()
    expect(page.locator(".file .of-name a")).to_have_count(3)
    assert sorted(names(page)) == sorted(shown for shown, _ in origins.values())
    assert page.locator(".crumbs a, .crumbs [aria-current]").filter(has_text=re.compile(r"^\s*$")).count() == 0
    for shown, origin in origins.values():
        page.locator(".file .of-name a").get_by_text(shown, exact=True).click()
        expect(page.locator("#details-title")).to_have_text(shown)
        page.locator(".details").get_by_role("link", name="Open", exact=True).click()
        reader = page.get_by_role("dialog")
        expect(reader.locator("#reader-title")).to_have_text(shown)
        expect(reader.locator("#reader-text")).to_contain_text("The gate is red.")
        expect(reader.locator(".head bdi")).to_have_text(origin or "fake://site/docs")
        links = reader.locator(".head a")
        expect(links).to_have_count(int(origin.startswith("https:")))
        if origin.startswith("https:"):
            assert links.get_attribute("href") == origin
            assert "noreferrer" in links.get_attribute("rel")
        page.keyboard.press("Escape")
        expect(reader).to_have_count(0)


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


# --- for everybody ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_goes_by_keyboard(server: Running, open_page: Any) -> None:
    page = open_documents(open_page, server)
    bridge = page.get_by_role("link", name="bridge.txt")
    page.get_by_role("link", name="ferry.md").focus()
    page.keyboard.press("ArrowUp")
    expect(bridge).to_be_focused()
    assert bridge.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(page.locator(".picks-made")).to_contain_text("1 chosen")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="bridge.txt")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Open", exact=True)).to_be_focused()
    expect(page.locator(".preview")).to_contain_text(OPENED)
    page.keyboard.press("Escape")
    expect(page.locator(".details")).to_have_count(0)
    expect(bridge).to_be_focused()
