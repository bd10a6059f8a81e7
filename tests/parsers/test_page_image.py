"""A page of a PDF as pixels, in this process: sizes, numbers, and what cannot be drawn."""

from __future__ import annotations

import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers.formats.pdf_pages import MAX_HEIGHT, WIDTH, draw

from .hostile_pdfs import pdf_of, with_box
from .samples import make_pdf

WHITE = b"\xff\xff\xff"


def test_each_page_is_drawn_as_it_looks() -> None:
    data = make_pdf([["First page."], [], ["Third page.", "With more on it."]])
    drawn = [draw(data, number) for number in (1, 2, 3)]
    assert {(width, height, len(pixels)) for width, height, pixels in drawn} == {(1000, 1295, 3 * 1000 * 1295)}
    first, second, third = (pixels for _, _, pixels in drawn)
    assert first != third
    assert set(second) == {255}
    top = next(i // 3000 for i in range(0, len(first), 3) if first[i : i + 3] != WHITE)
    assert 0 < top < 100  # the line stands at the head of the page: rows come from the top
    assert draw(data, 1) == drawn[0]


def test_colours_are_red_green_and_blue_in_this_order() -> None:
    content = b"<< /Length 29 >>\nstream\n1 0.5 0 rg 0 0 612 792 re f  \nendstream"
    width, height, pixels = draw(pdf_of(b"/MediaBox [0 0 612 792] /Contents 4 0 R", [content]), 1)
    middle = 3 * (width * (height // 2) + width // 2)
    red, green, blue = pixels[middle : middle + 3]
    assert (red, blue) == (255, 0)
    assert green in (127, 128)


@pytest.mark.parametrize(
    ("box", "more", "size"),
    [
        ("0 0 612 792", "/Rotate 90", (1000, 773)), ("0 0 612 792", "/UserUnit 1000000", (1000, 1295)),
        ("0 0 0 0", "", (1000, 1295)), ("0 0 -612 -792", "", (1000, 1295)), ("a b c d", "", (1000, 1295)),
        ("-2000000000 -2000000000 2000000000 2000000000", "", (1000, 1000)), ("0 0 1 1000000", "", (1, 3000)),
        ("0 0 1000000 1", "", (1000, 1)), ("0 0 0.00000000000000000001 0.00000000000000000001", "", (1, 1)),
        ("0 0 20 10", "", (200, 100)), ("0 0 " + "9" * 50 + " 5", "", (1000, 1295)),
    ],
)  # fmt: skip
def test_a_page_of_an_odd_size_has_a_picture_within_bounds(box: str, more: str, size: tuple[int, int]) -> None:
    width, height, pixels = draw(with_box(box, more), 1)
    assert (width, height) == size
    assert len(pixels) == 3 * width * height
    assert width <= WIDTH
    assert height <= MAX_HEIGHT


def test_what_cannot_be_drawn_says_why() -> None:
    ship = make_pdf([["a"]])
    for data, reason in (
        (ship[:200], "not a readable PDF"),
        (ship.replace(b"/Type /Page /Parent", b"/Type /Cat  /Parent"), "the page is damaged"),
    ):
        with pytest.raises(UnreadableFile, match=f"^{reason}$"):
            draw(data, 1)
