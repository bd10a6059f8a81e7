"""A report in Chromium, opened as the file that it is: its script sorts and filters, and nothing else runs or is fetched.

Skipped where Playwright (in the extra `dev`) or Chromium is missing; see tests/serving/browser/conftest.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.diagnosis.table_engine import WRONG, observation
from tests.diagnosis.test_report import hostile_case, written
from tests.serving.browser import conftest as browsing

expect, browser, open_page = browsing.expect, browsing.browser, browsing.open_page  # the last two are fixtures


@pytest.fixture
def page(open_page: Any, tmp_path: Path) -> Any:
    cases = [
        observation(3, opened=WRONG, found=(), rank=9, tags=("piers",)),
        hostile_case(),
        observation(2, question="Who owns the zeppelin?"),
        observation(9, opened=WRONG, oracle=WRONG, tags=("piers",)),
    ]
    report = tmp_path / "report.html"
    written(report, cases)
    return open_page(SimpleNamespace(url=report.as_uri()))


def shown(page: Any) -> list[str]:
    """The ids of the questions that are to be seen, from top to bottom."""
    ids: list[str] = page.eval_on_selector_all(".q:not([hidden])[data-id]", "all => all.map(q => q.dataset.id)")
    return ids


@pytest.mark.laws
def test_questions_are_sorted_and_filtered(page: Any) -> None:
    words, verdict = page.get_by_label("Search"), page.get_by_label("Verdict")
    tag, order = page.get_by_label("Tag"), page.get_by_label("Order")
    expect(words).to_be_visible()
    assert shown(page) == ["q3", "q1", "q2", "q9"]
    expect(page.locator("output")).to_have_text("4 of 4")

    order.select_option("by id")
    assert shown(page) == ["q1", "q2", "q3", "q9"]
    order.select_option("by verdict")
    assert shown(page)[-1] == "q9"  # a reader gap comes after a retriever miss
    order.select_option("as in the file")
    assert shown(page) == ["q3", "q1", "q2", "q9"]

    tag.select_option("piers")
    assert shown(page) == ["q3", "q9"]
    verdict.select_option("reader gap")
    assert shown(page) == ["q9"]
    expect(page.locator("output")).to_have_text("1 of 4")
    expect(page.locator('[data-id="q3"]')).to_be_hidden()
    verdict.select_option("every verdict")
    tag.select_option("every tag")

    words.fill("ZEPPELIN")
    assert shown(page) == ["q2"]
    words.press("Enter")  # sends no form
    assert shown(page) == ["q2"]
    words.fill("")
    page.locator('[data-id="q1"] summary').click()
    expect(page.locator('[data-id="q1"]')).to_contain_text("Accepted:")
    expect(page.locator('[data-id="q1"] img')).to_have_count(0)
