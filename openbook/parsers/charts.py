"""The numbers behind a chart in an office document, which keeps a copy of them: title, then one row a category.

ECMA-376 part 1, 21.2.
"""

from __future__ import annotations

from typing import Any

from openbook.parsers.blocks import Blocks
from openbook.parsers.packages import Package, child, children, descendants
from openbook.parsers.sheets import shown_number

MOST_POINTS = 10_000


def write_charts(package: Package, part: str, out: Blocks) -> None:
    """Write the charts that `part` (a slide, a document) refers to."""
    for relation in package.relations(part).values():
        if relation.kind == "chart":
            root = package.optional_xml(relation.target)
            plot = child(root, "chart")
            if plot is not None:
                _write(plot, out)


def _write(chart: Any, out: Blocks) -> None:
    title = child(chart, "title")
    if title is not None:
        out.paragraph(" ".join(run.text or "" for run in descendants(title, "t")))
    series = list(descendants(chart, "ser"))
    columns = [_points(child(one, "val")) or _points(child(one, "yVal")) for one in series]
    names = [" ".join(_points(child(one, "tx")).values()) for one in series]
    labels = next((found for one in series if (found := _points(child(one, "cat")) or _points(child(one, "xVal")))), {})
    indexes = sorted({index for column in columns for index in column})[:MOST_POINTS]
    rows = [[labels.get(index, str(index + 1)), *(column.get(index, "") for column in columns)] for index in indexes]
    if rows:
        out.rows([["", *names], *rows] if any(names) else rows)


def _points(element: Any) -> dict[int, str]:
    """Index to text of the cached points inside `c:cat`, `c:val` or `c:tx`."""
    found: dict[int, str] = {}
    if element is None:
        return found
    for point in descendants(element, "pt"):
        index = point.get("idx", "")
        # A category of several levels keeps its innermost, which comes first.
        if index.isascii() and index.isdigit() and len(index) < 6:
            value = next(children(point, "v"), None)
            found.setdefault(int(index), shown_number(value.text or "") if value is not None else "")
    return found
