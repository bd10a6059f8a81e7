from __future__ import annotations

import contextlib

import pytest

from openbook.errors import UnreadableFile
from openbook.parsers.pptx import parse_pptx
from openbook.records import Content

from .samples import damaged, packed, relations

NAMESPACES = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)


def paragraph(text: str, properties: str = "") -> str:
    return f"<a:p>{properties}<a:r><a:t>{text}</a:t></a:r></a:p>"


def shape(*paragraphs: str, kind: str | None = None) -> str:
    place = "" if kind is None else f'<p:ph type="{kind}"/>' if kind else "<p:ph/>"
    body = "".join(p if p.startswith("<") else paragraph(p) for p in paragraphs)
    return f"<p:sp><p:nvSpPr><p:nvPr>{place}</p:nvPr></p:nvSpPr><p:txBody>{body}</p:txBody></p:sp>"


def deck(*slides: str, more: dict[str, str | bytes] | None = None) -> bytes:
    listed = "".join(f'<p:sldId id="{255 + i}" r:id="rId{i}"/>' for i in range(1, len(slides) + 1))
    members: dict[str, str | bytes] = {
        "ppt/presentation.xml": f"<p:presentation {NAMESPACES}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(
            *(("slide", f"slides/slide{i}.xml") for i in range(1, len(slides) + 1))
        ),
    }
    for number, body in enumerate(slides, 1):
        tree = f"<p:sld {NAMESPACES}><p:cSld><p:spTree>{body}</p:spTree></p:cSld></p:sld>"
        members[f"ppt/slides/slide{number}.xml"] = tree
    return packed(members | (more or {}))


def text_of(body: str) -> str:
    return parse_pptx(deck(body), "a.pptx").text


def page_texts(content: Content) -> list[str]:
    return [content.text[page.start : page.end] for page in content.pages]


def test_a_page_for_each_slide_and_titles_as_headings() -> None:
    slides = (shape("Body text.") + shape("Winter", "rules", kind="ctrTitle"), "", shape("Second", kind="title"))
    content = parse_pptx(deck(*slides), "memo.pptx")
    assert content.text == "Winter rules\n\nBody text.\n\nSecond"
    assert page_texts(content) == ["Winter rules\n\nBody text.", "", "Second"]
    assert [page.number for page in content.pages] == [1, 2, 3]
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Winter rules"), (1, "Second")]
    assert content.title == "Winter rules"
    assert content.source_chars == len("Body text.Winterrules" + "Second")


def test_lists_levels_and_numbers() -> None:
    deep = paragraph("deep", '<a:pPr lvl="1"/>')
    none = paragraph("no bullet", "<a:pPr><a:buNone/></a:pPr>")
    assert text_of(shape("one", deep, none, kind="body")) == "- one\n  - deep\n\nno bullet"
    numbered = [paragraph(word, '<a:pPr><a:buAutoNum type="arabicPeriod"/></a:pPr>') for word in ("a", "b")]
    assert text_of(shape(*numbered, "plain")) == "1. a\n2. b\n\nplain"
    assert text_of(shape("alone", kind="")) == "alone"


def test_breaks_fields_and_alternatives() -> None:
    text = "<a:p><a:r><a:t>one</a:t></a:r><a:br/><a:fld><a:t>two</a:t></a:fld></a:p>"
    both = f"<mc:AlternateContent><mc:Choice>{shape(text)}</mc:Choice><mc:Fallback>{shape('old')}</mc:Fallback></mc:AlternateContent>"
    assert text_of(both) == "one\ntwo"


def test_groups_tables_and_furniture() -> None:
    def cell(text: str) -> str:
        return f"<a:tc><a:txBody>{paragraph(text)}</a:txBody></a:tc>"

    rows = "".join(f"<a:tr>{cell(a)}{cell(b)}</a:tr>" for a, b in (("to", "fare"), ("Kilverry", "8.90"), ("", "")))
    table = f"<p:graphicFrame><p:nvGraphicFramePr/><a:graphic><a:tbl>{rows}</a:tbl></a:graphic></p:graphicFrame>"
    group = f"<p:grpSp><p:grpSp>{shape('inside')}</p:grpSp></p:grpSp>"
    furniture = shape("7", kind="sldNum") + shape("Confidential", kind="ftr") + shape("May", kind="dt")
    assert text_of(table + group + furniture) == "to | fare\nKilverry | 8.90\n\ninside"


def test_cells_over_several_rows_are_repeated() -> None:
    def cell(text: str, more: str = "") -> str:
        return f"<a:tc {more}><a:txBody>{paragraph(text)}</a:txBody></a:tc>"

    rows = (cell("North", 'rowSpan="2"') + cell("a"), cell("", 'vMerge="1"') + cell("b"), cell("South") + cell(""))
    table = "".join(f"<a:tr>{row}</a:tr>" for row in rows)
    assert text_of(f"<p:graphicFrame><a:graphic><a:tbl>{table}</a:tbl></a:graphic></p:graphicFrame>") == (
        "North | a\nNorth | b\nSouth"
    )


def test_damaged_and_missing_slides_cost_only_themselves() -> None:
    data = deck(shape("one"), shape("two"), more={"ppt/slides/slide1.xml": "<broken"})
    content = parse_pptx(data, "a.pptx")
    assert page_texts(content) == ["", "two"]


def test_notes_comments_charts_and_diagrams() -> None:
    cached = "<pt><v>{}</v></pt>"
    chart = (
        f"<s><chart><title><t>Ducks</t></title><ser><tx>{cached.format('Saltwater')}</tx>"
        f"<cat>{cached.format(2019)}{cached.format(2020)}</cat>"
        f"<val>{cached.format('4.4000000000000004')}{cached.format(95)}</val></ser></chart></s>"
    )
    notes = f"<p:notes {NAMESPACES}>{shape('Say hello.', kind='body')}{shape('3', kind='sldNum')}</p:notes>"
    more: dict[str, str | bytes] = {
        "ppt/slides/_rels/slide1.xml.rels": relations(
            ("notesSlide", "../n.xml"), ("comments", "../k.xml"), ("diagramData", "/d.xml"), ("chart", "/c.xml")
        ),
        "ppt/n.xml": notes,
        "c.xml": chart,
        "ppt/k.xml": '<p:cmLst xmlns:p="p"><p:cm><p:text>Really?</p:text></p:cm></p:cmLst>',
        "d.xml": f"<d {NAMESPACES}>{paragraph('plan')}{paragraph('build')}</d>",
    }
    content = parse_pptx(deck(shape("T", kind="title"), more=more), "a.pptx")
    assert (
        content.text
        == "T\n\nDucks\n\n | Saltwater\n2019 | 4.4\n2020 | 95\n\nplan\nbuild\n\nNotes\n\nSay hello.\n\nComments\n\nReally?"
    )
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "T"), (2, "Notes"), (2, "Comments")]
    assert content.pages[0].end == len(content.text)


def test_refusals_and_damage() -> None:
    for data, reason in (
        (packed({"word/document.xml": "<x/>"}), "not a PowerPoint presentation"),
        (packed({"ppt/presentation.xml": "<x"}), "a damaged PowerPoint presentation"),
    ):
        with pytest.raises(UnreadableFile, match=reason):
            parse_pptx(data, "a.pptx")
    for data in damaged(deck(shape("Some text.")), 13):
        with contextlib.suppress(UnreadableFile):
            parse_pptx(data, "a.pptx")
