from __future__ import annotations

import pytest

from openbook.parsers.formats.pptx import parse_pptx

from .samples import deck, page_texts, paragraph, relations, shape, titles


def text_of(body: str) -> str:
    return parse_pptx(deck(body), "a.pptx").text


def test_a_page_for_each_slide_and_titles_as_headings() -> None:
    slides = (shape("Body text.") + shape("Winter", "rules", kind="ctrTitle"), "", shape("Second", kind="title"))
    content = parse_pptx(deck(*slides), "memo.pptx")
    assert content.text == "Winter rules\n\nBody text.\n\nSecond"
    assert page_texts(content) == ["Winter rules\n\nBody text.", "", "Second"]
    assert titles(content) == [(1, "Winter rules"), (1, "Second")]
    assert content.title == "Winter rules"
    assert content.source_chars == len("Body text.Winterrules" + "Second")


DEEP = paragraph("deep", '<a:pPr lvl="1"/>')
NONE = paragraph("no bullet", "<a:pPr><a:buNone/></a:pPr>")


def counted(text: str, level: int = 0, kind: str = "arabicPeriod", start: str = "") -> str:
    starting = f'startAt="{start}"' if start else ""
    return paragraph(text, f'<a:pPr lvl="{level}"><a:buAutoNum type="{kind}" {starting}/></a:pPr>')


NUMBERED = [paragraph(word, '<a:pPr><a:buAutoNum type="arabicPeriod"/></a:pPr>') for word in ("a", "b")]
BREAKS = "<a:p><a:r><a:t>one</a:t></a:r><a:br/><a:fld><a:t>two</a:t></a:fld></a:p>"
BOTH = (
    f"<mc:AlternateContent><mc:Choice>{shape(BREAKS)}</mc:Choice><mc:Fallback>{shape('old')}</mc:Fallback>"
    "</mc:AlternateContent>"
)
CELL = "<a:tc {}><a:txBody>" + paragraph("{}") + "</a:txBody></a:tc>"
ROWS = "".join(
    f"<a:tr>{CELL.format(merge, first)}{CELL.format('', second)}</a:tr>"
    for merge, first, second in (("", "North", "a"), ("vMerge='1'", "", "b"), ("", "South", ""))
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (shape("one", DEEP, NONE, kind="body"), "- one\n  - deep\n\nno bullet"),
        (shape(*NUMBERED, "plain"), "1. a\n2. b\n\nplain"),
        (
            shape(counted("a"), counted("s", 1), counted("t", 1), counted("b"), counted("u", 1)),
            "1. a\n  1. s\n  2. t\n2. b\n  1. u",
        ),
        (shape(counted("a"), DEEP, counted("b"), "plain", counted("c")), "1. a\n\ndeep\n\n2. b\n\nplain\n\n1. c"),
        (shape(counted("a"), counted(" "), counted("b")), "1. a\n2. b"),
        (shape(*(counted(word, start="3") for word in "abc"), counted("d")), "3. a\n4. b\n5. c\n1. d"),
        (shape("alone", kind=""), "alone"),
        (BOTH, "one\ntwo"),
        (f"<p:grpSp>{shape('in a group')}</p:grpSp>" + shape("7", kind="sldNum"), "in a group"),
        (
            f"<p:graphicFrame><a:graphic><a:tbl>{ROWS}</a:tbl></a:graphic></p:graphicFrame>",
            "North | a\nNorth | b\nSouth",
        ),
    ],
)
def test_what_a_slide_shows(body: str, text: str) -> None:
    assert text_of(body) == text


def test_damaged_and_missing_slides_cost_only_themselves() -> None:
    data = deck(shape("one"), shape("two"), more={"ppt/slides/slide1.xml": "<broken"})
    assert page_texts(parse_pptx(data, "a.pptx")) == ["", "two"]


def test_notes_comments_charts_and_diagrams() -> None:
    spaces = 'xmlns:a="a" xmlns:p="p"'
    cached = "<pt><v>{}</v></pt>"
    chart = (
        f"<s><chart><title><t>Ducks</t></title><ser><tx>{cached.format('Saltwater')}</tx>"
        f"<cat>{cached.format(2019)}{cached.format(2020)}</cat>"
        f"<val>{cached.format('4.4000000000000004')}{cached.format(95)}</val></ser></chart></s>"
    )
    more: dict[str, str | bytes] = {
        "ppt/slides/_rels/slide1.xml.rels": relations(
            ("notesSlide", "../n.xml"), ("comments", "../k.xml"), ("diagramData", "/d.xml"), ("chart", "/c.xml")
        ),
        "ppt/n.xml": f"<p:notes {spaces}>{shape('Say hello.', kind='body')}{shape('3', kind='sldNum')}</p:notes>",
        "ppt/k.xml": '<p:cmLst xmlns:p="p"><p:cm><p:text>Really?</p:text></p:cm></p:cmLst>',
        "c.xml": chart,
        "d.xml": f"<d {spaces}>{paragraph('plan')}{paragraph('build')}</d>",
    }
    content = parse_pptx(deck(shape("T", kind="title"), more=more), "a.pptx")
    ducks = "Ducks\n\n | Saltwater\n2019 | 4.4\n2020 | 95"
    assert content.text == f"T\n\n{ducks}\n\nplan\nbuild\n\nNotes\n\nSay hello.\n\nComments\n\nReally?"
    assert titles(content) == [(1, "T"), (2, "Notes"), (2, "Comments")]
    assert content.pages[0].end == len(content.text)
