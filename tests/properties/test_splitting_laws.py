from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from openbook.core.records import Content, HeadingMark, PageSpan
from openbook.knowledge.ingest.sentences import sentence_spans
from openbook.knowledge.ingest.splitter import split

PIECES = [
    "word", "Word", "Dr.", "e.g.", "3.14", "end.", "Why?", " ", "  ", "\n", "\n\n", "\n \n", "\t", "- ", "| ", "1. ",
    "# ", "====", "e\u0301", "\u200d", "👍🏽", "。", "日本", ". . .", "x" * 30, "\u3000", "\ud800", "\udc00", "\r\n",
    "\x1c",
]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=150).map("".join))


@st.composite
def contents(draw: st.DrawFn) -> Content:
    text = draw(TEXTS)
    offsets = st.integers(0, max(len(text) - 1, 0))
    starts = sorted(draw(st.sets(offsets, max_size=8))) if text else []
    headings = tuple(HeadingMark(start, draw(st.integers(1, 4)), f"h{start}") for start in starts)
    cuts = sorted(draw(st.lists(offsets, max_size=5))) if draw(st.booleans()) else []
    pages = tuple(
        PageSpan(number, start, end)
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(text)], strict=True), 1)
    )
    return Content(text, "text/plain", headings=headings, pages=pages if cuts else ())


LIMITS = st.integers(1, 120)


@given(contents(), LIMITS)
def test_passages_cover_the_text_exactly(content: Content, limit: int) -> None:
    spans = split(content, passage_chars=limit)
    assert [span.start for span in spans] == [0, *(span.end for span in spans)][: len(spans)]
    assert (spans[-1].end if spans else 0) == len(content.text)
    assert all(0 < span.end - span.start <= limit for span in spans)
    assert split(content, passage_chars=limit) == spans


@given(contents(), LIMITS)
def test_headings_and_pages_are_those_at_the_first_visible_character(content: Content, limit: int) -> None:
    deepest_before = -1
    for span in split(content, passage_chars=limit):
        visible = re.compile(r"\S").search(content.text, span.start, span.end)
        at = visible.start() if visible else span.start
        in_force = [mark for mark in content.headings if mark.start <= at]
        assert span.headings[-1:] == tuple(mark.title for mark in in_force[-1:])
        starts = [int(title[1:]) for title in span.headings]
        assert starts == sorted(starts)
        assert (starts[-1] if starts else -1) >= deepest_before
        deepest_before = starts[-1] if starts else -1
        if content.pages:
            assert span.page == max(page.number for page in content.pages if page.start <= at)


@given(contents(), LIMITS)
def test_what_a_passage_shows_is_all_on_its_page(content: Content, limit: int) -> None:
    for span in split(content, passage_chars=limit) if content.pages else ():
        for visible in re.compile(r"\S").finditer(content.text, span.start, span.end):
            assert span.page == max(page.number for page in content.pages if page.start <= visible.start())


@example(Content("00000 0 ", "text/plain", headings=(HeadingMark(0, 1, "a"), HeadingMark(1, 1, "b"))), 2)
@given(contents(), LIMITS)
def test_white_space_alone_is_a_passage_only_where_it_is_too_long(content: Content, limit: int) -> None:
    for span in split(content, passage_chars=limit):
        text = content.text[span.start : span.end]
        if not text.strip() and content.text.strip():
            before = content.text[: span.start]
            after = content.text[span.end :]
            run = len(before) - len(before.rstrip()) + len(text) + len(after) - len(after.lstrip())
            last = len(after.strip()) == 1  # which must keep the white space after it
            assert run >= (limit - 1 if last else limit)


@given(st.lists(st.text("ab. ", min_size=1, max_size=60).filter(str.strip), max_size=12), st.integers(5, 80))
def test_a_passage_never_begins_inside_a_paragraph_that_fits(paragraphs: list[str], limit: int) -> None:
    text = "\n\n".join(paragraph.strip() for paragraph in paragraphs)
    begins = {span.start for span in split(Content(text, "text/plain"), passage_chars=limit)}
    at = 0
    for paragraph in text.split("\n\n"):
        if len(paragraph) + 4 <= limit:
            assert begins.isdisjoint(range(at + 1, at + len(paragraph)))
        at += len(paragraph) + 2


@given(TEXTS, st.data())
def test_sentences_are_ordered_disjoint_and_stripped(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    before = start
    for begin, stop in sentence_spans(text, start, end):
        assert before <= begin < stop <= end
        assert text[begin:stop] == text[begin:stop].strip()
        before = stop
