from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.core.records import MetadataValue
from openbook.parsers.formats.frontmatter import front_matter, header_fields, make_metadata
from openbook.parsers.formats.text import parse_markdown

YAML = (
    "--- \ntitle: Fares\nAuthor: Ada\ntags: [sea, north]\ndate: 2024-03-01\nLast-Updated: 2024-03-05T10:00:00Z\n"
    "draft: false\nweight: 3\nratio: 0.5\ncountry: no\ntime: 1:30\nempty:\nparams:\n  layout: wide\n---\nbody"
)
YAML_SAYS: dict[str, MetadataValue] = {
    "title": "Fares", "author": "Ada", "tags": ("sea", "north"), "date": "2024-03-01",
    "last_updated": "2024-03-05T10:00:00+00:00", "draft": False, "weight": 3, "ratio": 0.5,
    "country": "no",  # Norway, and not false
    "time": "1:30",  # and not 90
    "params_layout": "wide",
}  # fmt: skip
TOML = '+++\ntitle = "Fares"\ndate = 2024-03-01\n[extra]\nowner = "Ada"\n+++\nbody'
OTHER_NAMES = "---\nauthors: [Ada, Bob]\ncreated: 2023-01-01\nupdated: 2024-01-01\nlang: en\n---\nbody"
OTHER_NAMES_SAY = {"authors": ("Ada", "Bob"), "created": "2023-01-01", "updated": "2024-01-01", "lang": "en"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (YAML, YAML_SAYS),
        (TOML, {"title": "Fares", "date": "2024-03-01", "extra_owner": "Ada"}),
        (OTHER_NAMES, {**OTHER_NAMES_SAY, "author": ("Ada", "Bob"), "date": "2024-01-01", "language": "en"}),
    ],
    ids=["yaml", "toml", "other names for author, date and language"],
)
def test_what_a_block_says(text: str, said: dict[str, MetadataValue]) -> None:
    found, begin = front_matter(text)
    assert dict(found) == said
    assert text[begin:].startswith("body")


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "block",
    [
        "a: [unclosed", "just words", "- a\n- b", "a: &x [1, 2]\nb: [*x, *x]", ALIASES,
        "a: !!python/object/apply:os.system ['true']", "a: " + "[" * 2_000 + "]" * 2_000,
        "? [a, b]\n: c\n? {d: e}\n: f", "a: !!bool maybe", 'a: !!int ""', "a: !!timestamp foo",
    ],
)  # fmt: skip
def test_a_block_that_is_no_mapping_of_plain_values_stays_text(block: str) -> None:
    text = f"---\n{block}\n---\nbody"
    assert front_matter(text)[1] == 0
    assert parse_markdown(text.encode(), "a.md").text == text


@pytest.mark.parametrize(
    "block", ["a: [[x]]", "a: " + "x" * 1_001, "\n".join(f"k{i}: {i}" for i in range(65)), "a-b: 1\na_b: 2"]
)
def test_a_block_that_does_not_fit_stays_text_and_gives_what_fits(block: str) -> None:
    found, begin = front_matter(f"---\ntitle: Fares\n{block}\n---\nbody")
    assert begin == 0
    assert dict(found)["title"] == "Fares"
    assert len(found) <= 64


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: a\n\nbody", "---\ntitle: a\n" + "# filler\n" * 10_000 + "---\nbody", "----\ntitle: a\n---\n",
        "text\n---\na: b\n---\n", "A text about\n\n---\naccess_labels: [hr]\n---\n",
    ],
)  # fmt: skip
def test_what_is_no_block_is_text(text: str) -> None:
    assert front_matter(text) == ((), 0)


@pytest.mark.parametrize(
    "text",
    [
        "---\naccess_labels: [a b]\n---\nbody", "---\naccess-labels: 3\n---\nbody",
        "---\naccess_labels: [unclosed\n---\nbody", "---\nx: &a b\naccess_labels: *a\n---\nbody",
        "---\naccess_labels: [hr]\naccess_labels: []\n---\nbody", "---\naccess_labels:\n---\nbody",
        "---\nmeta:\n  access_labels: [hr]\n---\nbody", '+++\n[extra]\naccess_labels = ["hr"]\n+++\nbody',
        "---\naccess_labels: [hr]\n\nnot closed", "\n---\naccess_labels: [hr]\n---\nbody",
        "---\n" + "# filler\n" * 10_000 + "access_labels: [hr]\n---\nbody",
    ],
)  # fmt: skip
def test_labels_that_cannot_be_told_are_refused(text: str) -> None:
    with pytest.raises(UnreadableFile, match="label"):
        front_matter(text)


@given(st.text(max_size=200), st.sampled_from(["---", "+++"]))
def test_any_block_gives_bounded_metadata_and_a_begin_inside_the_text(block: str, fence: str) -> None:
    text = f"{fence}\n{block}\n{fence}\nbody"
    try:
        found, begin = front_matter(text)
    except UnreadableFile:
        return
    assert 0 <= begin <= len(text)
    assert list(found) == sorted(found, key=lambda field: field[0])
    assert make_metadata(found) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Title\n=====\n\n:Author: Ada\n:Date: 2024-01-02\n:Version: 1.2\n\nText.\n",
            {"author": "Ada", "date": "2024-01-02", "version": "1.2"},
        ),
        ("", {}),
        ("Note: this is prose.\n\nMore.", {}),
        ("Title\n=====\n\nText: more\ntext\n", {}),
        (":unclosed\n", {}),
    ],
)
def test_a_field_list_below_the_title(text: str, said: dict[str, str]) -> None:
    assert dict(header_fields(text)) == said
