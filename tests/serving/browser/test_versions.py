"""Versions: what differs between two, and one question at both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.serving.browser.conftest import ask, expect, go
from tests.serving.conftest import BRIDGE, OPENED, QUESTION, Running, add_file

pytestmark = pytest.mark.laws

LATER = BRIDGE.replace("14 March", "2 April")


def test_two_versions_are_compared_and_asked(server: Running, open_page: Any, docs: Path) -> None:
    add_file(server.bases["kb"], docs / "bridge.txt", LATER)
    page = open_page(server)
    go(page, "Versions")
    expect(page.locator("#rows tr")).to_have_count(server.bases["kb"].version + 1)
    part = page.locator("#then-and-now")
    part.get_by_label("Question").fill(QUESTION)
    part.get_by_role("button", name="Ask both").click()
    expect(part.get_by_text("The answer changed.", exact=True)).to_be_visible()
    expect(part.locator("del")).to_have_text("14 March")
    expect(part.locator("ins")).to_have_text("2 April")
    part.get_by_label("Now").select_option("2")
    part.get_by_role("button", name="Ask both").click()
    expect(part.get_by_text("The answer is the same, word for word.")).to_be_visible()
    go(page, "Ask")
    go(page, "Versions")
    page.get_by_role("button", name="Show what differs").click()
    changed = page.locator("#difference .changed")
    expect(changed).to_contain_text("bridge.txt")
    changed.get_by_text("What changed").click()
    expect(changed.locator("del").first).to_have_text("14 March")
    expect(changed.locator("ins").first).to_have_text("2 April")
    page.reload()  # the address holds what is compared
    expect(page.locator("#difference .changed")).to_contain_text("bridge.txt")
    page.get_by_role("button", name="Ask this one").nth(1).click()
    expect(ask(page).locator(".text")).to_contain_text(OPENED)
