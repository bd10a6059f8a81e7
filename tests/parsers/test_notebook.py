from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers.notebook import read_notebook

BOOK: dict[str, Any] = {
    "metadata": {"kernelspec": {"language": "python"}, "authors": [{"name": "Ada"}], "title": "Fares"},
    "nbformat": 4,
    "cells": [
        {"cell_type": "markdown", "source": ["# Ferry fares\n", "\n", "Nine euros."]},
        {
            "cell_type": "code",
            "source": "# no heading\nprint(9)",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["9\n"]},
                {
                    "output_type": "display_data",
                    "data": {"image/png": "aGVsbG8=" * 1000, "text/plain": "<Figure size 640x480>"},
                },
                {"output_type": "execute_result", "data": {"text/html": "<b>x</b>", "text/plain": ["a  b\n", "1  2"]}},
                {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": ["\u001b[31mlong"]},
            ],
        },
        {"cell_type": "markdown", "source": "## Later"},
        {"cell_type": "raw", "source": "raw text"},
        {"cell_type": "code", "source": "", "outputs": []},
    ],
}


def test_cells_in_order_with_headings_and_outputs() -> None:
    content = read_notebook(json.dumps(BOOK).encode(), "a.ipynb")
    assert content.text == (
        "# Ferry fares\n\nNine euros.\n\n```python\n# no heading\nprint(9)\n```\n\n```\n9\n```\n\n```\na  b\n1  2\n```\n\n"
        "```\nKeyError: 'x'\n```\n\n## Later\n\nraw text\n"
    )
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Ferry fares"), (2, "Later")]
    assert content.title == "Ferry fares"
    assert dict(content.metadata) == {"author": ("Ada",), "programming_language": "python", "title": "Fares"}
    assert content.source_chars is not None
    assert content.source_chars < 300  # images are no text


def test_code_that_holds_fences_stays_code() -> None:
    book = {"cells": [{"cell_type": "code", "source": "'''\n```\n# no heading\n'''", "outputs": []}]}
    content = read_notebook(json.dumps(book).encode(), "a.ipynb")
    assert content.text.startswith("````\n")
    assert content.headings == ()


def test_the_format_before() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Fares"},
        {"cell_type": "code", "input": "x = 9", "outputs": [{"output_type": "pyout", "text": "9"}]},
    ]
    content = read_notebook(json.dumps({"worksheets": [{"cells": cells}]}).encode(), "a.ipynb")
    assert content.text == "## Fares\n\n```\nx = 9\n```\n\n```\n9\n```\n"
    assert content.title == "Fares"


@pytest.mark.parametrize("data", [b"{}", b"[]", b"{", b'{"cells": 3}', b"[" * 100_000])
def test_what_is_no_notebook(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="notebook"):
        read_notebook(data, "a.ipynb")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cell_type", "source", "outputs", "data", "text", "text/plain", "level", "output_type", "metadata"]
            )
            | st.text(max_size=3),
            inner | st.sampled_from(["code", "markdown", "heading", "error"]),
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(anything, max_size=4), anything)
def test_cells_of_any_shape_are_read(cells: list[Any], metadata: Any) -> None:
    content = read_notebook(json.dumps({"cells": cells, "metadata": metadata}).encode(), "a.ipynb")
    assert isinstance(content.text, str)
