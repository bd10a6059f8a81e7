from __future__ import annotations

import contextlib

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers.odf import parse_odf
from openbook.records import Content

from .samples import damaged, packed

NAMESPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "text", "table", "draw", "style", "presentation", "meta", "manifest")
) + ' xmlns:dc="http://purl.org/dc/elements/1.1/"'  # fmt: skip


def file_of(kind: str, body: str, *, styles: str = "", meta: str = "", more: dict[str, str] | None = None) -> bytes:
    content = (
        f"<office:document-content {NAMESPACES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    members = {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content}
    if meta:
        members["meta.xml"] = (
            f"<office:document-meta {NAMESPACES}><office:meta>{meta}</office:meta></office:document-meta>"
        )
    return packed(members | (more or {}))


def read(body: str, kind: str = "text", styles: str = "") -> Content:
    return parse_odf(file_of(kind, body, styles=styles), "memo.odt")


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse_odf(data, "a.odt")
    return str(caught.value)


def p(text: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{text}</text:p>'


def test_headings_paragraphs_and_white_space() -> None:
    body = (
        p("Winter rules", "Title")
        + '<text:h text:outline-level="2">Scope</text:h>'
        + p("One\n   two<text:s text:c='3'/>three<text:tab/>four<text:line-break/>five <text:span>six</text:span>.")
        + p("")
    )
    content = read(body)
    assert content.text == "Winter rules\n\nScope\n\nOne two   three\tfour\nfive six."
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Winter rules"), (2, "Scope")]
    assert content.title == "Winter rules"
    assert content.media_type == "application/vnd.oasis.opendocument.text"


def test_styles_that_come_from_title() -> None:
    styles = '<style:style style:name="P1" style:parent-style-name="Title"/>'
    assert read(p("Rules", "P1") + p("text"), styles=styles).title == "Rules"


def test_lists_nest_count_and_continue() -> None:
    styles = (
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>'
        '<text:list-level-style-bullet text:level="2"/></text:list-style>'
    )

    def items(*texts: str) -> str:
        return "".join(f"<text:list-item>{text}</text:list-item>" for text in texts)

    inner = f"<text:list>{items(p('deep'))}</text:list>"
    body = (
        f'<text:list text:style-name="L1">{items(p("one"), p("two") + inner)}</text:list>{p("between")}'
        f'<text:list text:style-name="L1" text:continue-numbering="true">{items(p("three"))}</text:list>'
    )
    assert read(body, styles=styles).text == "1. one\n2. two\n  - deep\n\nbetween\n\n3. three"


def test_tables_boxes_notes_and_comments() -> None:
    def row(*cells: str) -> str:
        return f"<table:table-row>{''.join(f'<table:table-cell>{p(c)}</table:table-cell>' for c in cells)}</table:table-row>"

    table = (
        f"<table:table><table:table-header-rows>{row('to', 'fare')}</table:table-header-rows>"
        f"<table:table-row><table:table-cell>{p('Kil')}{p('verry')}</table:table-cell><table:covered-table-cell/>"
        "</table:table-row></table:table>"
    )
    note = f"<text:note><text:note-citation>1</text:note-citation><text:note-body>{p('See law.')}</text:note-body></text:note>"
    comment = f"<office:annotation><dc:creator>Ada</dc:creator>{p('Really?')}</office:annotation>"
    box = f"<draw:frame><draw:text-box>{p('boxed')}</draw:text-box></draw:frame>"
    deleted = f"<text:tracked-changes>{p('deleted')}</text:tracked-changes>"
    content = read(deleted + table + p(f"Text{note}{comment} on{box}."))
    assert content.text == (
        "to | fare\nKil verry\n\nText[1] on.\n\nboxed\n\nNotes\n\n[1] See law.\n\nComments\n\nAda: Really?"
    )


def test_cells_over_several_rows_are_repeated() -> None:
    tall = f'<table:table-cell table:number-rows-spanned="2">{p("North")}</table:table-cell>'
    rows = (
        tall + f"<table:table-cell>{p('a')}</table:table-cell>",
        f"<table:covered-table-cell/><table:table-cell>{p('b')}</table:table-cell>",
        f"<table:covered-table-cell/><table:table-cell>{p('c')}</table:table-cell>",
    )
    table = "".join(f"<table:table-row>{row}</table:table-row>" for row in rows)
    assert read(f"<table:table>{table}</table:table>").text == "North | a\nNorth | b\n | c"


def test_slides_are_pages() -> None:
    def frame(kind: str, text: str) -> str:
        return f'<draw:frame presentation:class="{kind}"><draw:text-box>{p(text)}</draw:text-box></draw:frame>'

    notes = f"<presentation:notes>{frame('notes', 'Say hello.')}</presentation:notes>"
    first = frame("outline", "body") + frame("title", "Winter") + frame("page-number", "7") + notes
    content = read(
        f"<draw:page>{first}</draw:page><draw:page/><draw:page>{frame('', 'end')}</draw:page>", "presentation"
    )
    assert content.text == "Winter\n\nbody\n\nNotes\n\nSay hello.\n\nend"
    assert [content.text[page.start : page.end] for page in content.pages] == [
        "Winter\n\nbody\n\nNotes\n\nSay hello.",
        "",
        "end",
    ]
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Winter"), (2, "Notes")]


def test_metadata() -> None:
    meta = (
        "<dc:title>Stated</dc:title><dc:creator>Ada</dc:creator><meta:initial-creator>Bob</meta:initial-creator>"
        "<dc:date>2024-05-06T07:08:09.123</dc:date><dc:language>de-AT</dc:language>"
    )
    content = parse_odf(file_of("text", p("x"), meta=meta), "a.odt")
    assert content.title == "Stated"
    assert content.metadata == (("author", "Ada"), ("date", "2024-05-06T07:08:09"), ("language", "de-AT"))


def test_refusals() -> None:
    locked = f"<manifest:manifest {NAMESPACES}><manifest:encryption-data/></manifest:manifest>"
    assert refusal(file_of("text", "", more={"META-INF/manifest.xml": locked})) == "encrypted with a password"
    assert refusal(file_of("text", "", more={"encrypted-package": ""})) == "encrypted with a password"
    assert refusal(file_of("drawing", "")) == "not an OpenDocument text, presentation or spreadsheet"
    assert refusal(packed({"x": ""})) == "not an OpenDocument file"
    assert refusal(b"text") == "not an OpenDocument file"
    assert refusal(file_of("text", "", more={"content.xml": "<x"})) == "a damaged OpenDocument file"


@pytest.mark.parametrize("tag", ["text:section", "text:list", "text:span", "draw:g", "table:table"])
def test_deep_nesting_is_text_or_a_reason(tag: str) -> None:
    for depth in (100, 200, 240, 100_000):
        with contextlib.suppress(UnreadableFile):
            read(f"<text:p><{tag}>" + f"<{tag}>" * depth + "x" + f"</{tag}>" * depth + f"</{tag}></text:p>")
            read(f"<{tag}>" * depth + p("x") + f"</{tag}>" * depth)


def test_damaged_files_are_text_or_a_reason() -> None:
    for data in damaged(file_of("text", p("Some text."), meta="<dc:title>T</dc:title>"), 13):
        with contextlib.suppress(UnreadableFile):
            parse_odf(data, "a.odt")
