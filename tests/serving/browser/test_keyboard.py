"""One user's way through the page with keys alone, and where the focus is after what goes away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openbook.proofs.signatures import PurgeProof, verify_signed
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import base_with
from tests.parsers.samples import make_pdf
from tests.serving.browser.conftest import expect
from tests.serving.conftest import running

pytestmark = pytest.mark.laws

FARES = "A ferry ticket to Sandhavn costs 4 crowns on weekdays."
RULES = make_pdf(
    [["Rules of the harbour office."], ["The pilot of the harbour earns 12 crowns an hour.", "Pilots sail at night."]]
)
COST = "How many crowns does a ferry ticket to Sandhavn cost on weekdays?"
MOST_TABS = 80


class Keys:
    """What a hand does on the keyboard."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.on("filechooser", lambda _: None)  # from now on, Playwright takes the place of the system's dialog

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def to(self, target: Any, *, back: bool = False) -> None:
        """Goes from element to element until `target` has the focus."""
        target.wait_for()
        for _ in range(MOST_TABS):
            if target.evaluate("e => e === document.activeElement"):
                return
            self.press("Shift+Tab" if back else "Tab")
        pytest.fail(f"Tab does not come to {target}")

    def use(self, target: Any, *, back: bool = False) -> None:
        self.to(target, back=back)
        self.press("Enter")

    def write(self, target: Any, text: str, *, back: bool = False) -> None:
        self.to(target, back=back)
        self.press("Control+a")
        self.page.keyboard.type(text)

    def view(self, name: str, heading: str) -> None:
        """Opens a part of the page, which begins at its heading."""
        self.use(self.page.get_by_role("navigation").get_by_role("link", name=name), back=True)
        expect(self.page.get_by_role("heading", name=heading, exact=True)).to_be_focused()

    def choose(self, button: Any, *files: tuple[str, bytes]) -> None:
        self.to(button)
        with self.page.expect_file_chooser() as chosen:
            self.press("Enter")
        chosen.value.set_files(
            [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files]
        )

    def download(self, button: Any, *, back: bool = False) -> Path:
        with self.page.expect_download() as saved:
            self.use(button, back=back)
        return Path(saved.value.path())


def test_the_whole_way_by_keyboard(configuration: Configuration, open_page: Any, tmp_path: Path) -> None:
    base = base_with(tmp_path / "none", {}, place=tmp_path / "new")
    with running(configuration, echo_model(), {"kb": base}, HashEmbedder()) as server:
        page = open_page(server)
        keys = Keys(page)
        upload(keys)
        ask_twice(keys)
        read_the_source(keys)
        conversation = page.url
        correct(keys)
        purge(keys)
        keep(keys, conversation)


def upload(keys: Keys) -> None:
    page = keys.page
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    keys.use(page.get_by_role("link", name="Add documents"), back=True)
    heading = page.get_by_role("heading", name="Documents", exact=True)
    expect(heading).to_be_focused()
    keys.choose(
        page.get_by_role("button", name="Add files"),
        ("fares.md", f"# Fares\n\n{FARES}\n".encode()),
        ("rules.pdf", RULES),
    )
    expect(page.locator(".upload li", has_text="added")).to_have_count(2)
    expect(heading).to_be_focused()  # the button is gone


def ask_twice(keys: Keys) -> None:
    page = keys.page
    keys.use(page.get_by_role("navigation").get_by_role("link", name="Ask", exact=True), back=True)
    field = page.get_by_label("Question", exact=True)
    for n, question in enumerate(
        ["How much does the pilot of the harbour earn an hour?", "And when do pilots sail?"], 1
    ):
        expect(field).to_be_focused()
        page.keyboard.type(question)
        keys.press("Enter")
        expect(page.locator(".turn")).to_have_count(n)
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
    expect(page.locator(".turn .text").first).to_contain_text("12 crowns an hour")


def read_the_source(keys: Keys) -> None:
    page = keys.page
    source = page.locator(".turn").first.locator(".source a").first
    keys.use(source, back=True)
    reader = page.get_by_role("dialog")
    expect(reader.get_by_role("img", name="Marked here")).to_be_visible()
    expect(reader.locator("mark")).to_be_focused()  # in the text, beside the page
    keys.use(reader.get_by_role("button", name="Larger"), back=True)
    expect(reader.get_by_label("Zoom")).not_to_have_value("0")
    keys.press("Escape")
    expect(reader).to_have_count(0)
    expect(source).to_be_focused()


def correct(keys: Keys) -> None:
    """A standing question; then a document is corrected, and the answer changes."""
    page = keys.page
    keys.view("Questions", "Standing questions")
    keys.write(page.get_by_label("Question to keep asking"), COST)
    keys.press("Enter")
    expect(page.locator(".standing")).to_contain_text("4 crowns")
    keys.view("Documents", "Documents")
    keys.write(page.get_by_role("searchbox"), "fares")
    keys.use(page.get_by_role("link", name="fares.md").first)
    expect(page.get_by_role("heading", name="fares.md")).to_be_focused()
    keys.choose(
        page.get_by_role("button", name="Replace…"), ("other.md", f"# Fares\n\n{FARES.replace('4', '5')}\n".encode())
    )
    expect(page.locator(".upload li").first).to_contain_text("updated")
    keys.view("Questions", "Standing questions")
    change = page.locator(".changes li").first
    expect(change.locator("del")).to_have_text("4")
    expect(change.locator("ins")).to_have_text("5")
    expect(change).to_contain_text("fares.md")
    keys.use(page.get_by_role("button", name="Delete the question"))
    expect(page.locator(".standing li")).to_have_count(0)
    expect(page.get_by_role("heading", name="Standing questions")).to_be_focused()


def purge(keys: Keys) -> None:
    page = keys.page
    keys.view("Documents", "Documents")
    keys.write(page.get_by_role("searchbox"), "fares")
    keys.use(page.get_by_role("link", name="fares.md").first)
    opener = page.get_by_role("button", name="Purge…")
    keys.use(opener)
    dialog = page.get_by_role("dialog", name="Purge fares.md")
    expect(dialog.get_by_label("To purge, type")).to_be_focused()
    keys.press("Escape")
    expect(opener).to_be_focused()
    keys.press("Enter")
    keys.write(dialog.get_by_label("To purge, type"), "fares.md")
    keys.press("Enter")
    expect(dialog).to_contain_text("Purged, and proved")
    proof = keys.download(dialog.get_by_role("button", name="Download the signed proof")).read_bytes()
    assert isinstance(verify_signed(proof, json.loads(proof)["public_key"]).content, PurgeProof)
    keys.use(dialog.get_by_role("button", name="Close"))
    expect(page.get_by_role("heading", name="Documents", exact=True)).to_be_focused()
    expect(page.get_by_role("link", name="fares.md")).to_have_count(0)


def keep(keys: Keys, conversation: str) -> None:
    """Export, the link, delete and undo."""
    page = keys.page
    keys.use(page.get_by_role("navigation").get_by_role("link", name="Ask", exact=True), back=True)
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    file = keys.download(page.get_by_role("button", name="Export"), back=True)
    turns = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    questions = [turn["content"] for turn in turns if turn.get("role") == "user"]
    assert questions == ["How much does the pilot of the harbour earn an hour?", "And when do pilots sail?"]
    page.get_by_label("Import a conversation").set_input_files(file)
    expect(page.locator(".turn").first.locator(".state")).to_have_text("From a file")
    keys.use(page.get_by_role("button", name="Delete"))
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_label("Question", exact=True)).to_be_focused()
    other = page.context.new_page()
    other.goto(conversation)
    expect(other.locator(".turn")).to_have_count(2)
    Keys(other).to(other.locator(".turn").first.locator(".source a").first, back=True)
