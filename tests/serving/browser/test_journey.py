"""One user's way through the page: upload, ask, check, correct, compare, keep asking, purge, keep the conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openbook.cli.chat import read_transcript
from openbook.serving.configuration import Configuration
from openbook.signatures import PurgeProof, verify_signed
from openbook.testing import HashEmbedder, echo_model
from tests.conftest import base_with
from tests.parsers.samples import make_pdf
from tests.serving.browser.conftest import ask, expect, go
from tests.serving.conftest import running

FARES = "A ferry ticket to Sandhavn costs 4 crowns on weekdays."
RULES = make_pdf(
    [["Rules of the harbour office."], ["The pilot of the harbour earns 12 crowns an hour.", "Pilots sail at night."]]
)


@pytest.mark.slow
def test_the_whole_way(configuration: Configuration, open_page: Any, tmp_path: Path) -> None:
    base = base_with(tmp_path / "none", {}, place=tmp_path / "new")
    with running(configuration, echo_model(), {"kb": base}, HashEmbedder()) as server:
        page = open_page(server)
        expect(page.get_by_role("heading", name="There are no documents yet")).to_be_visible()
        page.get_by_role("link", name="Add documents").click()
        others = [(f"log-{n}.txt", f"On day {n} the crane of dock {n} lifted {n}0 tons.".encode()) for n in range(10)]
        sent = [("fares.md", f"# Fares\n\n{FARES}\n".encode()), ("rules.pdf", RULES), *others]
        page.get_by_label("Files to add").set_input_files(
            [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in sent]
        )
        expect(page.locator(".upload li", has_text="added")).to_have_count(12)

        go(page, "Ask")
        turn = ask(page, "How much does the pilot of the harbour earn an hour?")
        expect(turn.locator(".text")).to_contain_text("12 crowns an hour")
        ask(page, "And when do pilots sail?")
        turn = page.locator(".turn").first
        turn.locator(".source a").first.click()
        reader = page.get_by_role("dialog")
        expect(reader.get_by_role("img", name="Page 2 of rules.pdf")).to_be_visible()
        expect(reader.get_by_role("img", name="Marked here")).to_be_visible()
        reader.get_by_role("button", name="Close").click()
        conversation = page.url

        # A standing question; then a document is corrected, and its answer changes.
        go(page, "Questions")
        cost = "How many crowns does a ferry ticket to Sandhavn cost on weekdays?"
        page.get_by_label("Question to keep asking").fill(cost)
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".standing")).to_contain_text("4 crowns")
        go(page, "Documents")
        page.get_by_label("Files to add").set_input_files(
            {
                "name": "fares.md",
                "mimeType": "text/markdown",
                "buffer": f"# Fares\n\n{FARES.replace('4', '5')}\n".encode(),
            }
        )
        expect(page.locator(".upload li").first).to_contain_text("updated")
        expect(page.locator(".unseen-changes")).to_contain_text("1")
        page.locator("nav a", has_text="Questions").click()
        change = page.locator(".changes li").first
        expect(change.locator("del")).to_have_text("4")
        expect(change.locator("ins")).to_have_text("5")
        expect(change).to_contain_text("fares.md")

        go(page, "Versions")
        then = page.locator("#then-and-now")
        then.get_by_label("Question").fill(cost)
        then.get_by_role("button", name="Ask both").click()
        expect(then.get_by_text("The answer changed.", exact=True)).to_be_visible()

        go(page, "Documents")
        page.get_by_role("searchbox").fill("fares")
        page.get_by_role("link", name="fares.md").first.click()
        page.get_by_role("button", name="Purge…").click()
        dialog = page.get_by_role("dialog", name="Purge fares.md")
        dialog.get_by_label("To purge, type").fill("fares.md")
        dialog.get_by_role("button", name="Purge for good").click()
        expect(dialog).to_contain_text("Purged, and proved")
        with page.expect_download() as saved:
            dialog.get_by_role("button", name="Download the signed proof").click()
        proof = Path(saved.value.path()).read_bytes()
        assert isinstance(verify_signed(proof, json.loads(proof)["public_key"]).content, PurgeProof)
        dialog.get_by_role("button", name="Close").click()

        other = page.context.new_page()
        other.goto(conversation)
        expect(other.locator(".turn")).to_have_count(2)
        other.close()
        page.goto(conversation)
        with page.expect_download() as saved:
            page.get_by_role("button", name="Export").first.click()
        found = read_transcript(Path(saved.value.path()))
        assert found.questions == ("How much does the pilot of the harbour earn an hour?", "And when do pilots sail?")
