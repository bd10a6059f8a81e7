"""PDFs that hang, exhaust or take over the process that draws them: none costs more than its picture."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from openbook.core.errors import NoSuchPage, NotReadNow, UnreadableFile
from openbook.parsers.formats.pdf_pages import MAX_HEIGHT, WIDTH, draw, page_quote
from openbook.parsers.pages import draw_page, find_marks
from openbook.parsers.sandbox.protocol import NONSENSE, Limits
from tests.parsers.hostile_pdfs import inflating, nested, with_box
from tests.parsers.pngs import decoded
from tests.parsers.samples import ENCRYPTED_PDFS, make_pdf

pytestmark = pytest.mark.skipif(os.name != "posix", reason="what a crash looks like differs elsewhere")

SHIP = make_pdf([["The ship has two masts."], ["It was built in 1921."]])


def refusal(data: bytes, page: int = 1, limits: Limits = Limits(), **other: object) -> str:
    with pytest.raises(UnreadableFile) as caught:
        draw_page(data, page, limits, **other)  # type: ignore[arg-type]  # stop and command
    return str(caught.value)


def test_the_picture_is_that_of_this_process_and_so_is_what_cannot_be_drawn() -> None:
    assert decoded(draw_page(SHIP, 2, Limits())) == draw(SHIP, 2)
    for page, why in ((-1, "pages are counted"), (0, "pages are counted"), (3, "the PDF has 2"), (2**64, "pages are")):
        with pytest.raises(NoSuchPage, match=f"there is no page {page}: {why}"):
            draw_page(SHIP, page, Limits())
    assert refusal(ENCRYPTED_PDFS[1]) == "encrypted with a password"
    assert refusal(SHIP, limits=Limits(max_file_bytes=len(SHIP) - 1)).endswith("over the limit of 0.000947 MB")


def test_a_drawing_without_end_is_broken_off() -> None:
    assert refusal(nested(12, 30), limits=Limits(timeout_s=0.5, memory_mb=4096)) == "took longer than 0.5 s to read"


def test_a_picture_that_inflates_takes_no_more_memory_than_it_may() -> None:
    """PDFium leaves out what it cannot hold, or ends."""
    try:
        shown = "{} by {}".format(*decoded(draw_page(inflating(20_000), 1, Limits(memory_mb=200))))
    except UnreadableFile as error:
        shown = str(error)
    assert shown.startswith(("1000 by 1295", "needs more than 200 MB of memory", "the parser crashed"))


FAKE = """
import sys
def answer(name, body):
    sys.stdout.buffer.write((len(name) + len(body)).to_bytes(4, "big") + name + body)
    sys.stdout.flush()
def frame():
    return sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))
def pixels(width, height, content):
    return b"\\1" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content
answer(b"openbook", b"")
question = frame()
name, page, data = question[:8], question[8:16], question[16:]
{answer}
"""
NONSENSES = {
    "another name": "answer(b'12345678', pixels(1, 1, b'abc'))",
    "another kind": "answer(name, b'\\2' + pixels(1, 1, b'abc')[1:])",
    "half a head": "answer(name, b'\\1\\0\\0\\0')",
    "too few pixels": "answer(name, pixels(2, 1, b'abc'))",
    "too many pixels": "answer(name, pixels(1, 1, b'abcd'))",
    "no pixels": "answer(name, pixels(0, 0, b''))",
    "too wide": f"answer(name, pixels({WIDTH + 1}, 1, bytes(3 * {WIDTH + 1})))",
    "too high": f"answer(name, pixels(1, {MAX_HEIGHT + 1}, bytes(3 * {MAX_HEIGHT + 1})))",
    "a PNG of its own": "answer(name, b'\\x89PNG\\r\\n\\x1a\\n<script>')",
    "no reason": "answer(name, b'{}')",
    "a reason that is none": "answer(name, b'{\"reason\": 7}')",
    "a reason of a megabyte": "answer(name, b'{\"reason\": \"' + b'a' * 1_000_000 + b'\"}')",
    "absent as a number": 'answer(name, b\'{"reason": "x", "absent": 1}\')',
}


def fake(answer: str) -> list[str]:
    return [sys.executable, "-c", FAKE.format(answer=answer)]


def test_a_worker_that_answers_nonsense_gives_no_picture() -> None:
    for kind, answer in NONSENSES.items():
        assert refusal(SHIP, command=fake(answer)) == NONSENSE, kind


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("sys.stdout.buffer.write(b'\\xff\\xff\\xff\\xff' + name); sys.stdout.flush()", "the parser "),
        ("sys.stdout.buffer.write(b'\\0\\0\\1\\0' + name); sys.stdout.flush()", "the parser "),
        ("answer(name, b'')", "the parser ended by itself"),  # it says that it makes progress, and ends
        ("sys.exit('no more today')", "the parser ended by itself (exit code 1: no more today)"),
        ("import ctypes; ctypes.string_at(0)", "the parser crashed (signal 11)"),
    ],
)
def test_a_worker_that_gives_no_answer(answer: str, reason: str) -> None:
    assert refusal(SHIP, command=fake(answer)).startswith(reason)


def test_a_worker_that_never_answers_ends_at_its_limit_and_when_its_drawing_is_no_longer_wanted(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    silent = fake(f"open({str(begun)!r}, 'w').close(); sys.stdin.read()")
    assert refusal(SHIP, limits=Limits(timeout_s=0.1), command=silent) == "took longer than 0.1 s to read"
    assert marks_refusal(SHIP, limits=Limits(timeout_s=0.1), command=silent) == "took longer than 0.1 s to read"
    begun.unlink(missing_ok=True)
    with pytest.raises(NotReadNow, match="stopped"):
        draw_page(SHIP, 1, Limits(timeout_s=600), begun.exists, command=silent)
    assert not [each for each in threading.enumerate() if each.name in ("openbook-deadline", "openbook-stderr")]


def test_an_honest_worker_is_believed_and_one_that_does_not_start_is_said(tmp_path: Path) -> None:
    """It gets the page's number and the file's bytes, and a picture is made of what it says."""
    honest = f"answer(name, pixels(1, 1, bytes([page[-1], data.startswith(b'%PDF-'), len(data) == {len(SHIP)}])))"
    assert decoded(draw_page(SHIP, 2, Limits(), command=fake(honest))) == (1, 1, bytes([2, 1, 1]))
    reason = refusal(SHIP, command=[str(tmp_path / "absent")])
    assert reason == "the parser could not be started (no such file or directory)"


QUOTE = page_quote(1, "The ship has two masts.", 4, 8)
MARKS_OF_NONSENSE = {
    "none": "[]",
    "one too many": "[{W}, {W}]",
    "no size": '[{"width": 0, "height": 9, "rectangles": []}]',
    "no width": '[{"height": 9, "rectangles": []}]',
    "beyond the page": '[{"width": 9, "height": 9, "rectangles": [[0, 0, 5, 1000001]]}]',
    "before the page": '[{"width": 9, "height": 9, "rectangles": [[-1, 0, 5, 5]]}]',
    "from right to left": '[{"width": 9, "height": 9, "rectangles": [[5, 0, 0, 5]]}]',
    "three sides": '[{"width": 9, "height": 9, "rectangles": [[0, 0, 5]]}]',
    "not a number": '[{"width": 9, "height": 9, "rectangles": [[0, 0, NaN, 5]]}]',
    "not JSON": "\\xff",
}
HONEST = '{"width": 9, "height": 9, "rectangles": [[0, 0, 5, 5]]}'


def test_marks_come_from_a_worker_whose_answer_is_checked() -> None:
    assert QUOTE
    (marks,) = find_marks(SHIP, [QUOTE], Limits(), lambda: False)
    assert (marks.width, marks.height, len(marks.rectangles)) == (1000, 1295, 1)
    (said,) = find_marks(SHIP, [QUOTE], Limits(), lambda: False, command=fake(f"answer(name, b'\\2[{HONEST}]')"))
    assert said.rectangles == [(0, 0, 5, 5)]
    for kind, found in MARKS_OF_NONSENSE.items():
        body = found.replace("{W}", HONEST)
        assert marks_refusal(SHIP, command=fake(f"answer(name, b'\\2{body}')")) == NONSENSE, kind


def test_marks_of_a_hostile_page_cost_no_more_than_they_may() -> None:
    assert QUOTE
    for box in ("-2000000000 -2000000000 2000000000 2000000000", "0 0 1 1000000", "a b c d"):
        assert find_marks(with_box(box), [QUOTE], Limits(), lambda: False)[0].rectangles == []
    assert marks_refusal(ENCRYPTED_PDFS[1]) == "encrypted with a password"
    assert marks_refusal(make_pdf([["a"]])[:200]) == "not a readable PDF"


def marks_refusal(data: bytes, limits: Limits = Limits(), command: Sequence[str] = ()) -> str:
    assert QUOTE
    with pytest.raises(UnreadableFile) as caught:
        find_marks(data, [QUOTE], limits, lambda: False, command=command)
    return str(caught.value)
