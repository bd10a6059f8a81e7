"""Where quotes stand on pages, in this process: each rectangle holds the words of its line and no others."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pypdfium2.raw as pdfium
import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers.formats.pdf import open_pdf, parse_pdf
from openbook.parsers.formats.pdf_pages import WHOLE, PageMarks, draw, find, page_quote

from .hostile_pdfs import pdf_of, with_glyph
from .samples import make_pdf

LETTER = "/MediaBox [0 0 612 792]"
COLUMNS = """
BT /F 11 Tf 14 TL 50 740 Td (Left one begins. A long) Tj T* (sentence runs down here) Tj T* (and on to the) Tj ET
BT /F 11 Tf 14 TL 330 740 Td (right column, where it) Tj T* (ends. The rest is other) Tj T* (text, of another kind.) Tj ET
"""


def page_of(drawing: str, more: str = LETTER) -> bytes:
    """One page in Helvetica."""
    font = "/Resources << /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >> >> >>"
    content = f"<< /Length {len(drawing)} >>\nstream\n{drawing}\nendstream"
    return pdf_of(f"{more} /Contents 4 0 R {font}".encode(), [content.encode("latin-1")])


def lines(drawing: Sequence[str], at: str = "50 740") -> str:
    return f"BT /F 11 Tf 14 TL {at} Td " + " T* ".join(f"({line}) Tj" for line in drawing) + " ET\n"


def marked(data: bytes, quote: str, nth: int = 0) -> list[PageMarks]:
    """The marks of the `nth` occurrence of `quote` in the text, on each of its pages."""
    content = parse_pdf(data, "a.pdf")
    start = -1
    for _ in range(nth + 1):
        start = content.text.index(quote, start + 1)
    end = start + len(quote)
    quotes = [
        page_quote(page.number, content.text[page.start : page.end], max(start - page.start, 0), end - page.start)
        for page in content.pages
        if page.start < end and page.end > start
    ]
    found = find(data, [quote for quote in quotes if quote])
    assert all(each.rectangles for each in found)
    return found


def words(data: bytes, marks: PageMarks, page: int = 1) -> list[str]:
    """What PDFium says stands inside each rectangle."""
    with (
        closing(open_pdf(data)) as document,
        closing(document[page - 1]) as drawn,
        closing(drawn.get_textpage()) as layer,
    ):
        return [layer.get_text_bounded(*corners(drawn, box)).strip() for box in marks.rectangles]


def corners(page: Any, box: Sequence[int]) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) in points, a little inside the rectangle."""
    sides: list[list[float]] = []
    for x, y in (box[:2], box[2:]):
        place = ctypes.c_double(), ctypes.c_double()
        pdfium.FPDF_DeviceToPage(page, 0, 0, WHOLE, WHOLE, 0, x, y, *place)
        sides.append([side.value for side in place])
    (left, right), (bottom, top) = (sorted(side) for side in zip(*sides, strict=True))
    return left + 0.5, bottom + 0.5, right - 0.5, top - 0.5


def one(data: bytes, quote: str, nth: int = 0) -> list[str]:
    (marks,) = marked(data, quote, nth)
    return words(data, marks)


def test_a_quote_over_lines_has_a_rectangle_for_each() -> None:
    data = page_of(lines(["The ship sails at noon. It has", "two masts and a red", "sail. The crew is small."]))
    assert one(data, "It has\ntwo masts and a red\nsail.") == ["It has", "two masts and a red", "sail."]
    assert one(data, "masts") == ["masts"]
    assert one(data, "noon. It has\n") == ["noon. It has"]
    (marks,) = marked(data, "It has\ntwo")
    assert (marks.width, marks.height) == draw(data, 1)[:2]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("box", ["", "/CropBox [30 40 500 770]", "/CropBox [-20 600 640 900]"])
def test_rectangles_are_shares_of_the_page_as_it_is_drawn(turn: int, box: str) -> None:
    """Ink is inside the rectangle, and none is left on the page without it."""
    data = page_of(lines(["Alone"], "100 700"), f"{LETTER} /Rotate {turn} {box}")
    (marks,) = marked(data, "Alone")
    ((left, top, right, bottom),) = marks.rectangles
    width, height, pixels = draw(data, 1)
    assert (marks.width, marks.height) == (width, height)
    ink = [divmod(at // 3, width) for at in range(0, len(pixels), 3) if pixels[at] < 128]
    across, down = [x / width * WHOLE for _, x in ink], [y / height * WHOLE for y, _ in ink]
    near = 4 * WHOLE / min(width, height)
    assert left - near < min(across) <= max(across) < right + near
    assert top - near < min(down) <= max(down) < bottom + near
    ends = (left, right, across) if turn in (0, 180) else (top, bottom, down)
    assert ends[0] + near > min(ends[2])
    assert ends[1] - near < max(ends[2])


def test_two_columns_and_two_pages() -> None:
    quote = "A long\nsentence runs down here\nand on to the\nright column, where it\nends."
    assert one(page_of(COLUMNS), quote) == quote.split("\n")
    data = make_pdf([["Page one. It begins", "at the end"], [], ["and ends here. Then more."]])
    marks = marked(data, "It begins\nat the end\n\nand ends here.")
    found = [words(data, each, page) for each, page in zip(marks, (1, 3), strict=True)]
    assert found == [["It begins", "at the end"], ["and ends here."]]


def test_turned_slanted_and_mirrored_text() -> None:
    for matrix in ("0 1 -1 0 300 300", "-1 0 0 -1 300 300", "0 -1 1 0 300 300", "1 0 0 -1 300 300", "1 0 .3 1 300 300"):
        data = page_of(f"BT /F 11 Tf 14 TL {matrix} Tm (Up the side) Tj T* (and a line) Tj T* (more) Tj ET")
        quote = parse_pdf(data, "a.pdf").text.replace("more", "").strip()
        assert sorted(one(data, quote)) == ["Up the side", "and a line"], matrix
    (marks,) = marked(page_of("BT /F 11 Tf .7 .7 -.7 .7 300 300 Tm (Askew) Tj ET"), "Askew")
    assert len(marks.rectangles) == 5  # a box around all of it would cover what is not quoted


def test_the_same_sentence_again_is_another_place() -> None:
    data = page_of(lines(["It sails. It sails.", "It sails."]))
    places = [marked(data, "It sails.", nth)[0].rectangles for nth in range(3)]
    (first,), (second,), (third,) = places
    assert first[2] <= second[0]
    assert first[1] == second[1] < third[1]
    assert first[0] == third[0]


def test_hyphens_ligatures_superscripts_and_cells() -> None:
    broken = page_of(lines(["We saw an extra-", "ordinary ship", "today."]))
    text = parse_pdf(broken, "a.pdf").text
    assert "extraordinary" in text
    first, second, *_ = one(broken, "extraordinary\nship" if "extraordinary\nship" in text else "extraordinary")
    assert (first.rstrip("-\x02\ufffe\r\n"), second.split()[0]) == ("extra", "ordinary")
    raised = page_of("BT /F 11 Tf 50 740 Td (nine x) Tj /F 7 Tf 4 Ts (2) Tj /F 11 Tf 0 Ts ( is a square) Tj ET")
    assert len(marked(raised, "x2\n is a")[0].rectangles) == 1
    cells = page_of(
        lines(["Mast"]) + lines(["12 m"], "200 740") + lines(["Hull"], "50 726") + lines(["40 m"], "200 726")
    )
    assert one(cells, "12 m\nHull" if "12 m\nHull" in parse_pdf(cells, "a.pdf").text else "Hull 40 m")
    data = with_glyph("ffi", "BT /F 11 Tf 50 740 Td (An o\001ce and more) Tj ET")
    office = parse_pdf(data, "a.pdf").text.split()[1]
    assert [each.strip() for each in one(data, office)] == [office]


def test_characters_beyond_the_first_plane_move_no_mark() -> None:
    data = with_glyph("u1F600", lines(["A \1 and \1\1 are faces.", "The last word \1 stays"]))
    content = parse_pdf(data, "a.pdf")
    assert content.text == "A \U0001f600 and \U0001f600\U0001f600 are faces.\nThe last word \U0001f600 stays"
    assert one(data, "are faces.\nThe last word") == ["are faces.", "The last word"]
    assert one(data, "stays") == ["stays"]
    older = content.text[:-4]  # as parser version 12 left it
    quote = page_quote(1, older, older.index("last"), older.index("word"))
    assert quote
    assert words(data, find(data, [quote])[0]) == ["last"]


def test_another_text_than_the_pages_is_not_located() -> None:
    """As from OCR, or of a document whose bytes another version of OpenBook read otherwise."""
    data = page_of(lines(["The ship has two masts."]))
    for text in ("The ship has six masts.", "he ship has two masts.", "The ship has two masts. More."):
        quote = page_quote(1, text, 4, 8)
        assert quote
        assert find(data, [quote])[0].rectangles == []
    scan = make_pdf([None])
    quote = page_quote(1, "Words in a picture.", 0, 5)
    assert quote
    assert find(scan, [quote])[0].rectangles == []
    assert page_quote(1, "a  b", 1, 3) is None


def test_text_outside_the_page_counts_as_it_did_when_the_text_was_read() -> None:
    data = page_of(lines(["Outside. "], "50 900") + lines(["Seen here."]))
    assert "Outside" not in parse_pdf(data, "a.pdf").text
    assert one(data, "Seen") == ["Seen"]
    hidden = page_of(lines(["All of it is outside."], "50 900"))
    quote = page_quote(1, "All of it is outside.", 0, 3)
    assert quote
    assert parse_pdf(hidden, "a.pdf").text == "All of it is outside."
    assert find(hidden, [quote])[0].rectangles == []


def test_a_damaged_page_says_so() -> None:
    quote = page_quote(1, "a", 0, 1)
    assert quote
    for data in (make_pdf([["a"]]).replace(b"/Type /Page /Parent", b"/Type /Cat  /Parent"), make_pdf([["a"]])[:200]):
        with pytest.raises(UnreadableFile):
            find(data, [quote])
