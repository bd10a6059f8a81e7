from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.stopping import TextStream


def read(data: bytes, stop: tuple[str, ...], cuts: list[int]) -> str:
    stream = TextStream(stop)
    edges = [0, *sorted(c % (len(data) + 1) for c in cuts), len(data)]
    shown = [stream.feed(data[a:b]) for a, b in itertools.pairwise(edges)]
    return "".join([*shown, stream.feed(b"", final=True)])


@given(st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=3), st.lists(st.integers(0, 1000)))
def test_the_text_ends_before_the_first_stop_however_the_bytes_are_cut(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    text = text.encode("utf-8", "replace").decode()
    stop = [s.encode("utf-8", "replace").decode() for s in stop]
    shown = read(text.encode(), tuple(stop), cuts)
    whole = read(text.encode(), (), [])
    assert whole == text
    assert text.startswith(shown)
    if not any(s in text for s in stop):
        assert shown == text
    else:
        assert not any(s in shown for s in stop)


def test_a_character_cut_in_two_is_shown_whole() -> None:
    stream = TextStream()
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert stream.feed(first) == ""
    assert stream.feed(second) == "é"


def test_bytes_that_are_no_character_are_replaced_not_lost() -> None:
    assert TextStream().feed(b"a\xffb") == "a\ufffdb"


def test_nothing_is_shown_after_a_stop() -> None:
    stream = TextStream(("\n",))
    assert stream.feed(b"one\ntwo") == "one"
    assert stream.stopped
    assert stream.feed(b"three", final=True) == ""
