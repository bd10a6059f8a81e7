"""A text is looked for as programs write it."""

from __future__ import annotations

import html
import json
from pathlib import Path
from xml.etree import ElementTree

import jinja2
from hypothesis import example, given
from hypothesis import strategies as st

from openbook.knowledge.byte_search import Needles
from openbook.knowledge.erasure import _drop_what_stays, find_in_rows, forms
from tests.conftest import base_with

DENSE = "".join(f"""<b>"{n}" & 'né'</b>\n""" for n in range(9))  # each 16 bytes have something that is escaped
JINJA = jinja2.Environment(autoescape=True).from_string("{{ text }}")


def written(text: str) -> list[bytes]:
    """By usual programs."""
    element = ElementTree.Element("a")
    element.text = text
    in_json = [json.dumps(text, ensure_ascii=each) for each in (True, False)]
    logged = [json.dumps({"log": f"{{{each}}}"}, ensure_ascii=x) for each in in_json for x in (True, False)]
    in_html = [JINJA.render(text=text), html.escape(text), html.escape(text, quote=False)]
    in_xml = [ElementTree.tostring(element), ElementTree.tostring(element, "unicode").encode()]
    return [text.encode("utf-16"), *in_xml, *(each.encode() for each in (*in_json, *in_html, *logged))]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@example(DENSE)
def test_each_usual_writer_writes_one_of_the_forms(text: str) -> None:
    for each in written(text):
        assert any(form in each for form in forms(text)), each


def test_written_forms_are_found_and_dropped_where_others_hold_them(tmp_path: Path) -> None:
    base = base_with(tmp_path, {"one.txt": DENSE + "And mine.", "other.txt": DENSE + "And theirs."})
    plain, needles = Needles(), Needles()
    plain.add(DENSE.encode())
    for form in forms(DENSE):
        needles.add(form)
    assert [plain.find(each) for each in written(DENSE)] == [None] * len(written(DENSE))
    assert None not in [needles.find(each) for each in written(DENSE)]
    with base.writing() as connection:
        assert find_in_rows(base.store, connection, needles)[0] == [f"{tmp_path}/one.txt", f"{tmp_path}/other.txt"]
        _drop_what_stays(base.store, connection, needles)
    assert [needles.find(each) for each in written(DENSE)] == [None] * len(written(DENSE))
    base.close()
