from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openbook.parsers.pdf_layout import Piece, lay_out

PROSE = "A line of prose that is as long as its column"


def piece(left: float, top: float, text: str, *, width: float | None = None, order: int = 0) -> Piece:
    return Piece(left, top - 10, left + (5 * len(text) if width is None else width), top, text, order)


def column(left: float, names: str, *, top: float = 700, order: int = 0, step: int = 1) -> list[Piece]:
    return [piece(left, top - 12 * i, f"{name} {PROSE}", order=order + i * step) for i, name in enumerate(names)]


def first_words(text: str) -> list[str]:
    return [line.split()[0] for line in text.split("\n") if line]


def test_rows_from_top_to_bottom() -> None:
    assert lay_out([piece(50, 688, "two"), piece(50, 700, "one"), piece(50, 676, "three")]) == "one\ntwo\nthree"


def test_columns_one_after_the_other_below_a_title() -> None:
    title = piece(150, 740, "T " + PROSE, order=50)
    pieces = [*column(320, "efgh", order=4), title, *column(50, "abcd"), piece(300, 600, "9", order=60)]
    assert first_words(lay_out(pieces)) == ["T", "a", "b", "c", "d", "e", "f", "g", "h", "9"]


def test_columns_drawn_line_by_line() -> None:
    pieces = [*column(50, "abcd", step=2), *column(320, "efgh", order=1, step=2)]
    assert first_words(lay_out(pieces)) == list("abcdefgh")


def test_three_columns() -> None:
    pieces = [*column(50, "abcd"), *column(320, "efgh", order=4), *column(590, "ijkl", order=8)]
    assert first_words(lay_out(pieces)) == list("abcdefghijkl")


def test_short_cells_are_a_table() -> None:
    rows = [("to", "fare", "day"), ("Kilverry", "8.90", ""), ("Sandhavn", "", "Monday"), ("All", "9.00", "Tuesday")]
    pieces = [
        piece(50 + 100 * c, 700 - 12 * r, text, order=3 * r + c)
        for r, row in enumerate(rows)
        for c, text in enumerate(row)
        if text
    ]
    assert lay_out(pieces) == "to | fare | day\nKilverry | 8.90\nSandhavn |  | Monday\nAll | 9.00 | Tuesday"


def test_labels_and_values_drawn_apart_stay_together() -> None:
    labels = [piece(50, 700 - 12 * i, f"Label {i}:", order=i) for i in range(6)]
    values = [piece(200, 700 - 12 * i, f"value {i}", order=10 + i) for i in range(6)]
    assert lay_out([*labels, *values]).split("\n")[2] == "Label 2: | value 2"


def test_lists_beside_each_other_are_read_one_after_the_other() -> None:
    left = [piece(50, 700 - 12 * i, f"• {word}", order=i) for i, word in enumerate(("a", "b"))]
    right = [piece(200, 700 - 12 * i, f"{i + 1}. {word}", order=5 + i) for i, word in enumerate(("c", "d"))]
    assert lay_out([*left, *right]) == "• a\n• b\n1. c\n2. d"
    by_row = [
        Piece(p.left, p.bottom, p.right, p.top, p.text, i) for i, p in enumerate((left[0], right[0], left[1], right[1]))
    ]
    assert lay_out(by_row) == "• a | 1. c\n• b | 2. d"


def test_bullets_are_no_cells() -> None:
    pieces = [piece(50, 700, "•"), piece(80, 700, "one"), piece(50, 688, "2."), piece(80, 688, "two")]
    assert lay_out(pieces) == "• one\n2. two"


def test_more_room_than_usual_is_a_blank_line() -> None:
    tops = (700, 688, 676, 640, 628)
    assert lay_out([piece(50, top, str(top)) for top in tops]) == "700\n688\n676\n\n640\n628"


def test_text_from_right_to_left() -> None:
    pieces = [piece(50, 700, "العالم"), piece(200, 700, "مرحبا")]
    assert lay_out(pieces) == "مرحبا العالم"


def test_turned_text_stands_at_the_end() -> None:
    margin = Piece(10, 200, 22, 600, "arXiv:2305.03393")
    pieces = [margin, piece(50, 700, "one"), piece(50, 400, PROSE)]
    assert lay_out(pieces) == f"one\n{PROSE}\n\narXiv:2305.03393"


def test_a_page_that_is_turned_as_a_whole_keeps_the_order_of_the_file() -> None:
    pieces = [Piece(100 + 12 * i, 200, 110 + 12 * i, 600, f"line number {i}", i) for i in (1, 0, 2)]
    assert lay_out(pieces) == "line number 1\nline number 0\nline number 2"


def test_nothing() -> None:
    assert lay_out([]) == ""


places = st.floats(-1000, 1000, allow_nan=False)
texts = st.text("abcאב1•. ", min_size=1, max_size=12).filter(str.strip)


@given(
    st.lists(
        st.builds(
            lambda x, y, w, h, t, o: Piece(x, y, x + w, y + h, t, o),
            places,
            places,
            st.floats(0, 400),
            st.floats(0, 40),
            texts,
            st.integers(0, 99),
        ),
        max_size=40,
    )
)
def test_no_character_is_lost_or_added(pieces: list[Piece]) -> None:
    held = sorted("".join(piece.text for piece in pieces).replace(" ", ""))
    assert sorted("".join(lay_out(pieces).replace("|", "").split())) == held


def test_a_page_of_thousands_of_pieces_is_read() -> None:
    pieces = [piece(40 * (i % 50), 5000 - 12 * (i // 50), f"{i}") for i in range(3900)]
    assert lay_out(pieces).count("|") > 1000
