"""Laws of word differences: their pieces are the two texts, and nothing that changed is left out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from openbook.knowledge import word_diff as module
from openbook.knowledge.word_diff import Piece, word_diff

WORDS = ["nine", "ten", "the", "ferry", "a", "年", "假", "x" * 40, "", "  ", "\n", "\n\n", "\t", "\r\n", "\u2028"]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=40).flatmap(
    lambda words: st.sampled_from(["", " ", "\n"]).map(lambda between: between.join(words))
)
PAIRS = st.tuples(TEXTS, TEXTS) | st.tuples(TEXTS, TEXTS, TEXTS, TEXTS).map(
    lambda four: (four[0] + four[1] + four[2], four[0] + four[3] + four[2])
)


def side(pieces: list[Piece], kind: str) -> str:
    return "".join(each.text for each in pieces if each.kind in ("same", kind))


@given(PAIRS)
@example(("a\n\n\nb", "a\n\nb"))
@example(("the nine the ten the", "the ten the nine the"))
def test_the_pieces_join_to_both_texts(pair: tuple[str, str]) -> None:
    before, after = pair
    whole = word_diff(before, after, context_chars=10**6)
    assert (side(whole, "removed"), side(whole, "added")) == pair or before == after
    assert all(each.text and each.chars == len(each.text) for each in whole if each.kind != "skipped")
    assert all(a.kind != b.kind for a, b in pairwise(whole))
    if before == after:
        assert whole == ([Piece("skipped", "", len(before))] if before else [])


@given(PAIRS, st.integers(0, 30))
def test_only_equal_text_is_left_out_far_from_a_change(pair: tuple[str, str], context: int) -> None:
    pieces = word_diff(*pair, context_chars=context)
    for kind, text in zip(("removed", "added"), pair, strict=True):
        assert sum(each.chars for each in pieces if each.kind in ("same", kind, "skipped")) == len(text)
    whole = word_diff(*pair, context_chars=10**6)
    for kind in ("removed", "added"):
        assert [each.text for each in pieces if each.kind == kind] == [each.text for each in whole if each.kind == kind]
    assert all(each.kind != "same" or each.chars <= 2 * context for each in pieces)


@given(PAIRS, st.integers(0, 200))
def test_the_bound_cuts_the_end_and_counts_the_rest(pair: tuple[str, str], most: int) -> None:
    whole, cut = word_diff(*pair), word_diff(*pair, max_chars=most)
    assert sum(len(each.text) for each in cut) <= most
    assert sum(each.chars for each in cut) == sum(each.chars for each in whole)
    assert "".join(each.text for each in whole).startswith("".join(each.text for each in cut))


def test_changes_are_whole_words() -> None:
    before = "# Leave\n\nThe ferry leaves at nine on weekdays. A ticket costs 4 crowns.\n\nPets travel free.\n"
    after = before.replace("nine", "ten").replace("4", "5")
    changes = [(each.kind, each.text) for each in word_diff(before, after) if each.kind in ("removed", "added")]
    assert changes == [("removed", "nine"), ("added", "ten"), ("removed", "4"), ("added", "5")]
    assert [each.text for each in word_diff("年假为二十天。", "年假为二十五天。")] == ["年假为二十", "五", "天。"]


def test_a_context_is_whole_words() -> None:
    words = " ".join(f"word{number}" for number in range(100))
    pieces = word_diff(f"{words} old {words}", f"{words} new {words}", context_chars=20)
    assert [each.kind for each in pieces] == ["skipped", "same", "removed", "added", "same", "skipped"]
    assert (pieces[1].text, pieces[4].text) == ("word98 word99 ", " word0 word1 word2 ")


def test_hostile_texts_give_coarse_pieces_after_few_comparisons() -> None:
    """What would take quadratic time ends by counting, so it is the same on every machine."""
    size = 200_000
    for before, after in (
        ("".join(f"{n}\n" for n in range(size // 7)), "".join(f"x{n}\n" for n in range(size // 7))),
        (" ".join(f"{n}" for n in range(size // 7)), " ".join(f"x{n}" for n in range(size // 7))),
        ("a b " * (size // 4), "b a " * (size // 4)),
        ("x" + "\n" * size, "y" + "\n" * size + "z"),
        ("年假" * (size // 4), "假年" * (size // 4)),
        ("a" * size, "b" * size),
    ):
        pieces = word_diff(before, after)
        assert (side(pieces, "removed"), side(pieces, "added")) == (before, after)
        assert len(pieces) <= 3
    left = [module.WORK, 100]
    lines = [str(number % 7) for number in range(50)]
    assert len(module._changes(lines, lines[::-1], left, 1)) < 50
    assert left[1] >= 0
