from __future__ import annotations

from openbook.core.records import Content
from openbook.parsers.formats.odf import parse_odf

from .samples import odf_file, page_texts, titles


def read(body: str, kind: str = "text", styles: str = "") -> Content:
    return parse_odf(odf_file(kind, body, styles=styles), "memo.odt")


def p(text: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{text}</text:p>'


def test_headings_paragraphs_and_white_space() -> None:
    body = (
        p("Winter rules", "P1")
        + '<text:h text:outline-level="2">Scope</text:h>'
        + p("One\n   two<text:s text:c='3'/>three<text:tab/>four<text:line-break/>five <text:span>six</text:span>.")
        + p("")
    )
    content = read(body, styles='<style:style style:name="P1" style:parent-style-name="Title"/>')
    assert content.text == "Winter rules\n\nScope\n\nOne two   three\tfour\nfive six."
    assert titles(content) == [(1, "Winter rules"), (2, "Scope")]
    assert content.title == "Winter rules"
    assert content.media_type == "application/vnd.oasis.opendocument.text"


def test_lists_nest_count_and_continue() -> None:
    styles = (
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1"/>'
        '<text:list-level-style-bullet text:level="2"/></text:list-style>'
    )

    def items(*texts: str) -> str:
        return "".join(f"<text:list-item>{text}</text:list-item>" for text in texts)

    inner = f"<text:list>{items(p('deep'))}</text:list>"
    body = (
        f'<text:list text:style-name="L1"><text:list-header>{p("Steps")}</text:list-header>{items(p("one"), p("two") + inner)}</text:list>{p("between")}'
        f'<text:list text:style-name="L1" text:continue-numbering="true">{items(p("three"))}</text:list>'
    )
    assert read(body, styles=styles).text == "Steps\n\n1. one\n2. two\n  - deep\n\nbetween\n\n3. three"


def test_lists_start_where_they_say_and_number_each_item_once() -> None:
    styles = (
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1" text:start-value="5"/>'
        '<text:list-level-style-number text:level="2" style:num-format="1"/></text:list-style>'
    )

    def item(body: str, start: str = "") -> str:
        return f'<text:list-item text:start-value="{start}">{body}</text:list-item>'

    inner = f"<text:list>{item(p('inner'))}</text:list>"
    items = (
        item(p("five"))
        + item(p("") + p("six") + inner + p("more of six"))
        + item(p("anew"), "1")
        + item("<text:list/>")
    )
    items += item(p("on"))
    content = read(f'<text:list text:style-name="L1">{items}{item(p("zero"), "0")}</text:list>', styles=styles)
    assert content.text == "5. five\n6. six\n  1. inner\n\nmore of six\n\n1. anew\n2. on\n0. zero"


def table(*rows: str) -> str:
    return f"<table:table>{''.join(f'<table:table-row>{row}</table:table-row>' for row in rows)}</table:table>"


def cell(text: str, rows: int = 1) -> str:
    return f'<table:table-cell table:number-rows-spanned="{rows}">{text}</table:table-cell>'


def test_tables_boxes_notes_and_comments() -> None:
    covered = "<table:covered-table-cell/>"
    rows = table(
        f"{cell(p('to'))}{cell(p('fare'))}", cell(p("Kil") + p("verry")) + covered,
        cell(p("North"), 2) + cell(p("a")), covered + cell(p("b")), covered + cell(p("c")),
    )  # fmt: skip
    note = f"<text:note><text:note-citation>1</text:note-citation><text:note-body>{p('See law.')}</text:note-body></text:note>"
    comment = f"<office:annotation><dc:creator>Ada</dc:creator>{p('Really?')}</office:annotation>"
    box = f"<draw:frame><draw:text-box>{p('boxed')}</draw:text-box></draw:frame>"
    deleted = f"<text:tracked-changes>{p('deleted')}</text:tracked-changes>"
    content = read(deleted + rows + p(f"Text{note}{comment} on{box}."))
    assert content.text == (
        "to | fare\nKil verry\nNorth | a\nNorth | b\n | c\n\nText[1] on.\n\nboxed\n\n"
        "Notes\n\n[1] See law.\n\nComments\n\nAda: Really?"
    )


def test_slides_are_pages() -> None:
    def frame(kind: str, text: str) -> str:
        return f'<draw:frame presentation:class="{kind}"><draw:text-box>{p(text)}</draw:text-box></draw:frame>'

    notes = f"<presentation:notes>{frame('notes', 'Say hello.')}</presentation:notes>"
    first = frame("outline", "body") + frame("title", "Winter") + frame("page-number", "7") + notes
    pages = f"<draw:page>{first}</draw:page><draw:page/><draw:page>{frame('', 'end')}</draw:page>"
    content = read(pages, "presentation")
    assert page_texts(content) == ["Winter\n\nbody\n\nNotes\n\nSay hello.", "", "end"]
    assert titles(content) == [(1, "Winter"), (2, "Notes")]


def test_metadata() -> None:
    meta = (
        "<office:document-meta NS><office:meta><dc:title>Stated</dc:title><dc:creator>Ada</dc:creator>"
        "<meta:initial-creator>Bob</meta:initial-creator><dc:date>2024-05-06T07:08:09.123</dc:date>"
        "<dc:language>de-AT</dc:language></office:meta></office:document-meta>"
    )
    content = parse_odf(odf_file("text", p("x"), more={"meta.xml": meta}), "a.odt")
    assert content.title == "Stated"
    assert content.metadata == (("author", "Ada"), ("date", "2024-05-06T07:08:09"), ("language", "de-AT"))
