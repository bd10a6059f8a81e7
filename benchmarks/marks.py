"""Do the marks of a quote on a PDF's pages hold the quote's words and no others?

    python -m benchmarks.marks FOLDER... [--quotes 5]

From each PDF with text it takes up to `--quotes` sentences, evenly over the text, and locates them as the server does,
but in this process. Then PDFium says which words stand inside each rectangle.

* located: quotes that are marked on each of their pages.
* equal: located quotes for which the words inside the rectangles, in order, are those of the quote.

White space and hyphens at the ends of lines do not count.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2.raw as pdfium

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers import parse_bytes
from openbook.parsers.characters import clean
from openbook.parsers.formats.pdf import ONE_AT_A_TIME, open_pdf
from openbook.parsers.formats.pdf_pages import WHOLE, PageMarks, PageQuote, find, page_quote

_SENTENCE = re.compile(r"(?<=[.!?]\s)[^.!?]{40,400}[.!?](?=\s)")
# Of a rectangle's longer side in points, of its shorter side as a share: what only reaches into that is not inside.
_END, _MARGIN = 0.25, 0.15


def sentences(content: Content, most: int) -> list[tuple[int, int]]:
    """(start, end) of at most `most` of them, which may run over lines, columns and pages."""
    found = [match.span() for match in _SENTENCE.finditer(content.text)]
    return found[:: max(1, len(found) // most)][:most]


def quotes_of(content: Content, start: int, end: int) -> list[PageQuote]:
    edges = [*((page.number, page.start) for page in content.pages if page.start < page.end), (0, len(content.text))]
    found = [
        page_quote(number, content.text[begin:until], max(start - begin, 0), end - begin)
        for (number, begin), (_, until) in pairwise(edges)
        if begin < end and until > start
    ]
    return [quote for quote in found if quote]


def words_inside(document: Any, quotes: Sequence[PageQuote], marks: Sequence[PageMarks]) -> Iterator[str]:
    """The text inside each rectangle."""
    for quote, each in zip(quotes, marks, strict=True):
        with closing(document[quote.page - 1]) as page, closing(page.get_textpage()) as layer:
            for box in each.rectangles:
                corners = []
                for x, y in (box[:2], box[2:]):
                    place = ctypes.c_double(), ctypes.c_double()
                    pdfium.FPDF_DeviceToPage(page, 0, 0, WHOLE, WHOLE, 0, x, y, *place)
                    corners.append([side.value for side in place])
                (left, right), (bottom, top) = (sorted(side) for side in zip(*corners, strict=True))
                width, height = right - left, top - bottom
                dx, dy = (_END, _MARGIN * height) if width > height else (_MARGIN * width, _END)
                yield layer.get_text_bounded(left + dx, bottom + dy, right - dx, top - dy)


def solid(text: str) -> str:
    return "".join(clean(text).split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--quotes", type=int, default=5)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    for path in sorted(path for folder in arguments.folders for path in folder.rglob("*.[pP][dD][fF]")):
        data = path.read_bytes()
        try:
            content = parse_bytes(data, path.name)
        except UnreadableFile as error:
            print(f"{path.name}: left out ({error})")
            continue
        spans = sentences(content, arguments.quotes)
        counts["files"] += bool(spans)
        for start, end in spans:
            quotes = quotes_of(content, start, end)
            marks = find(data, quotes)
            counts["quotes"] += 1
            if not all(each.rectangles for each in marks):
                print(f"{path.name}: not located: {content.text[start:end]!r}")
                continue
            counts["located"] += 1
            with ONE_AT_A_TIME, closing(open_pdf(data)) as document:
                inside = "".join(map(solid, words_inside(document, quotes, marks)))
            counts["equal"] += inside == solid(content.text[start:end])
            if inside != solid(content.text[start:end]):
                print(
                    f"{path.name}: pages {[quote.page for quote in quotes]}: {content.text[start:end]!r} is marked as {inside!r}"
                )
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
