from __future__ import annotations

import pytest

from openbook.cli.display import _joined, _without_rules, print_problems, with_advice
from openbook.records import Citation, Hit, Passage, Verdict

TEXT = "One sentence. Another one. A third, far away from the others. The last."


def cited(start: int, end: int, passage_id: str = "p1") -> Citation:
    return Citation("a.txt", 1, 100 + start, 100 + end, TEXT[start:end], passage_id)


def test_quotes_that_touch_are_shown_as_one() -> None:
    passage = Passage("p1", "a.txt", "A", 100, 100 + len(TEXT), 1, (), TEXT)
    passages = {"p1": Hit(passage, 1.0, 1, 1, 0.9)}
    quotes = [cited(14, 26), cited(0, 13), cited(0, 26), cited(62, 71), cited(0, 5, "p2")]
    shown = [(c.passage_id, c.quote) for c in _joined(quotes, passages)]
    assert shown == [("p1", "One sentence. Another one."), ("p1", "The last."), ("p2", "One s")]


def test_lines_that_only_draw_are_not_shown() -> None:
    assert _without_rules("=====\nTitle\n=====\n\n| a |\n+---+\nb --- c").split() == [
        "Title",
        "|",
        "a",
        "|",
        "b",
        "---",
        "c",
    ]


def test_what_needs_ocr_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    print_problems([Verdict("a.png", "skipped", "an image: needs OCR")])
    assert "an image: needs OCR (openbook add --ocr eng)" in capsys.readouterr().err
    assert with_advice("needs OCR, and Tesseract is not installed") == "needs OCR, and Tesseract is not installed"
