from __future__ import annotations

from collections.abc import Mapping

import pytest
from docx import Document

from openbook.parsers.formats.docx import parse_docx

from .samples import body_xml, docx_bytes, docx_of_xml, refusal, relations, titles


def text_of(body: str, parts: Mapping[str, bytes] | None = None) -> str:
    return parse_docx(with_parts(body, parts or {}), "a.docx").text


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def part_of(root: str, body: str) -> bytes:
    return body_xml(body).replace("w:document", f"w:{root}").replace("<w:body>", "").replace("</w:body>", "").encode()


def with_parts(body: str, parts: Mapping[str, bytes]) -> bytes:
    """A package whose document refers to further parts, by the kind of the relation."""
    more: dict[str, str | bytes] = {f"word/{kind}.xml": data for kind, data in parts.items()}
    more["word/_rels/document.xml.rels"] = relations(*((kind, f"{kind}.xml") for kind in parts))
    return docx_of_xml(body_xml(body), more=more)


def test_structure_in_body_order() -> None:
    document = Document()
    document.add_heading("Winter rules", 0)
    document.add_heading("Scope", 1)
    document.add_paragraph("Who checks the quay.")
    table = document.add_table(rows=2, cols=2)
    for number, text in enumerate(["to", "fare", "Kilverry", "8.90\nEUR"]):
        table.cell(number // 2, number % 2).text = text
    document.add_heading("Tools", 2)
    document.add_paragraph("grit", style="List Bullet")
    document.add_paragraph("plough", style="List Number")
    document.add_paragraph("End.")
    document.sections[0].header.paragraphs[0].text = "a header"
    document.core_properties.title = "Stated"
    content = parse_docx(docx_bytes(document), "a.docx")
    assert content.text == (
        "Winter rules\n\nScope\n\nWho checks the quay.\n\nto | fare\nKilverry | 8.90 EUR\n\n"
        "Tools\n\n- grit\n1. plough\n\nEnd."
    )
    assert titles(content) == [(1, "Winter rules"), (1, "Scope"), (2, "Tools")]
    assert content.title == "Winter rules"


def test_title_falls_back() -> None:
    document = Document()
    document.add_paragraph("Text.")
    for stated, title in (("", "memo"), ("Stated", "Stated")):
        document.core_properties.title = stated
        assert parse_docx(docx_bytes(document), "memo.docx").title == title


INLINE = (
    f"<w:p>{run('see ')}<w:hyperlink>{run('the link')}</w:hyperlink><w:ins>{run(' added')}</w:ins>"
    f"<w:del><w:r><w:delText> deleted</w:delText></w:r></w:del><w:moveFrom>{run(' moved')}</w:moveFrom>"
    f"<w:sdt><w:sdtContent>{run(' field')}</w:sdtContent></w:sdt><w:r><w:tab/><w:noBreakHyphen/><w:br/></w:r>"
    f"<m:oMath><m:r><m:t>x=1</m:t></m:r></m:oMath></w:p>"
)
CONTAINERS = (
    f"<w:sdt><w:sdtContent><w:p>{run('inside')}</w:p></w:sdtContent></w:sdt>"
    f"<w:tbl><w:tr><w:tc><w:p>{run('framed')}</w:p><w:p>{run('twice')}</w:p></w:tc></w:tr></w:tbl>"
    f"<w:p>{run('host')}<w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p>{run('box')}</w:p></w:txbxContent>"
    f"</mc:Choice><mc:Fallback><w:txbxContent><w:p>{run('box')}</w:p></w:txbxContent></mc:Fallback>"
    f"</mc:AlternateContent></w:r></w:p>"
)
HIDDEN = (
    f"<w:p>{run('Text.')}<w:r><w:rPr><w:vanish/></w:rPr><w:t> Obey me.</w:t></w:r>"
    '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t> Shown.</w:t></w:r></w:p>'
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (INLINE, "see the link added field\t-\nx=1"),
        (CONTAINERS, "inside\n\nframed\n\ntwice\n\nhost\n\nbox"),
        (HIDDEN, "Text. Shown."),
    ],
)
def test_what_a_paragraph_shows(body: str, text: str) -> None:
    assert text_of(body) == text


def test_the_strict_format_is_read_too() -> None:
    strict = body_xml(f"<w:p>{run('Some text.')}</w:p>")
    for usual, own in (
        ("wordprocessingml/2006/main", "wordprocessingml/main"),
        ("officeDocument/2006/math", "officeDocument/math"),
    ):
        strict = strict.replace(f"http://schemas.openxmlformats.org/{usual}", f"http://purl.oclc.org/ooxml/{own}")
    assert "purl" in strict
    assert parse_docx(docx_of_xml(strict), "a.docx").text == "Some text."


def test_styles_that_are_based_on_each_other() -> None:
    document = Document()
    style = document.add_paragraph("Text.", style="List Bullet").style.element
    based = style.find(style.tag.replace("}style", "}basedOn"))
    based.set(based.tag.replace("}basedOn", "}val"), style.get(style.tag.replace("}style", "}styleId")))
    assert parse_docx(docx_bytes(document), "a.docx").text == "- Text."


def test_notes_and_comments_stand_at_the_end() -> None:
    def note(kind: str, number: int, text: str, more: str = "") -> str:
        return f'<w:{kind} w:id="{number}" {more}><w:p>{run(text)}</w:p></w:{kind}>'

    parts = {
        "footnotes": part_of("footnotes", note("footnote", 0, "separator") + note("footnote", 7, "See law.")),
        "endnotes": part_of("endnotes", note("endnote", 2, "Last.")),
        "comments": part_of("comments", note("comment", 0, "Really?", 'w:author="Ada"') + note("comment", 1, "Yes.")),
        "header": part_of("hdr", f"<w:p>{run('a header')}</w:p>"),
    }
    body = (
        f'<w:p>{run("Fares")}<w:r><w:footnoteReference w:id="7"/></w:r>{run(" rise")}'
        '<w:r><w:endnoteReference w:id="2"/><w:endnoteReference w:id="99"/></w:r></w:p>'
    )
    content = parse_docx(with_parts(body, parts), "a.docx")
    assert content.text == (
        "Fares[1] rise[e1][e2]\n\nFootnotes\n\n[1] See law.\n\nEndnotes\n\n[e1] Last.\n\nComments\n\nAda: Really?\n\nYes."
    )
    assert titles(content) == [(1, "Footnotes"), (1, "Endnotes"), (1, "Comments")]
    assert content.source_chars == len("Fares riseseparatorSee law.Last.Really?Yes.")


def numbered(text: str, depth: int = 0, identifier: int = 1, mark: str = "") -> str:
    """`mark`: properties of the mark at the paragraph's end."""
    listed = f'<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{identifier}"/></w:numPr>'
    return f"<w:p><w:pPr>{listed}<w:rPr>{mark}</w:rPr></w:pPr>{run(text)}</w:p>"


def numbering(*levels: tuple[str, str], start: int = 1, override: str = "") -> bytes:
    shapes = "".join(
        f'<w:lvl w:ilvl="{i}"><w:start w:val="{start}"/><w:numFmt w:val="{shape}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for i, (shape, text) in enumerate(levels)
    )
    nums = f'<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="0"/>{override}</w:num>'
    return part_of("numbering", f'<w:abstractNum w:abstractNumId="0">{shapes}</w:abstractNum>{nums}')


ANEW = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="7"/></w:lvlOverride>'
DECIMALS = ("decimal", "%1."), ("decimal", "%1.%2."), ("decimal", "%1.%2.%3.")


@pytest.mark.parametrize(
    ("parts", "levels", "text"),
    [
        (
            [("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 0), ("f", 1), ("g", 3)],
            numbering(("decimal", "%1."), ("lowerLetter", "%1.%2)"), ("upperRoman", "%3"), ("bullet", "x")),
            "1. a\n  1.a) b\n  1.b) c\n    I d\n2. e\n  2.a) f\n      - g",
        ),
        ([("a", 0), ("b", 0, 2)], numbering(*DECIMALS), "1. a\n2. b"),  # lists of one definition go on
        ([("a", 0), ("b", 0, 2)], numbering(*DECIMALS, override=ANEW), "1. a\n7. b"),  # unless they start anew
        ([("a", 0), ("b", 2), ("c", 1)], numbering(*DECIMALS), "1. a\n    1.1.1. b\n  1.2. c"),  # a level left out
        ([("a", 0), ("b", 1), ("c", 0)], numbering(*DECIMALS, start=0), "0. a\n  0.0. b\n1. c"),
        ([("a", 0), ("", 0), ("b", 0)], numbering(*DECIMALS), "1. a\n3. b"),  # Word numbers an empty item, too
    ],
)
def test_numbers_of_lists_are_counted(parts: list[tuple[str, int]], levels: bytes, text: str) -> None:
    assert text_of("".join(numbered(*part) for part in parts), {"numbering": levels}) == text


def test_only_what_word_numbers_is_counted() -> None:
    unseen = [numbered("", mark=f"<w:{name}/>") for name in ("vanish", "del", "moveFrom")]
    second = f"<w:p>{run('more of a')}</w:p>"
    shown = numbered("", mark='<w:vanish w:val="0"/>')
    body = "".join([numbered("a"), second, *unseen, numbered("b"), shown, numbered("d")])
    assert text_of(body, {"numbering": numbering(*DECIMALS)}) == "1. a\n\nmore of a\n\n2. b\n4. d"


def test_hostile_numbering() -> None:
    wild = numbering(("decimal", "%1%9" * 500), ("decimal", ""), ("chicken", "%3."))
    for depth in (0, 1, 2, 8, 99999):
        for identifier in (1, 3, 999999):
            text = text_of(numbered("a", depth, identifier), {"numbering": wild})
            assert text.endswith("a")
            assert len(text) < 100


def test_equations_read_like_typed_mathematics() -> None:
    def m(name: str, *parts: str) -> str:
        return f"<m:{name}>{''.join(parts)}</m:{name}>"

    def t(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    square = m("sSup", m("e", t("b")), m("sup", t("2")))
    root = m("rad", m("e", square, t("-4ac")))
    fraction = m("f", m("num", t("-b±"), root), m("den", t("2a")))
    total = m("nary", '<m:naryPr><m:chr m:val="∑"/></m:naryPr>', m("sub", t("n=1")), m("sup", t("∞")), m("e", t("a")))
    function = m("func", m("fName", t("log")), m("e", m("d", m("e", t("x")))))
    body = f"<w:p>{run('x=')}<m:oMath>{fraction}</m:oMath><m:oMath>{total}{function}</m:oMath></w:p>"
    assert text_of(body) == "x=(-b±√(b^2-4ac))/2a∑_(n=1)^∞alog(x)"


def test_code_keeps_its_lines_and_indentation() -> None:
    styles = part_of("styles", '<w:style w:type="paragraph" w:styleId="S"><w:name w:val="Source Code"/></w:style>')
    line = '<w:p><w:pPr><w:pStyle w:val="S"/></w:pPr><w:r><w:t xml:space="preserve">{}</w:t></w:r></w:p>'
    body = f"<w:p>{run('See:')}</w:p>{line.format('def f():')}{line.format('    return 1')}<w:p>{run('End.')}</w:p>"
    assert text_of(body, {"styles": styles}) == "See:\n\ndef f():\n    return 1\n\nEnd."


def test_merged_cells() -> None:
    def cell(text: str, properties: str = "") -> str:
        return f"<w:tc><w:tcPr>{properties}</w:tcPr><w:p>{run(text) if text else ''}</w:p></w:tc>"

    rows = (
        cell("North", '<w:vMerge w:val="restart"/>') + cell("to") + cell("fare"),
        cell("", "<w:vMerge/>") + cell("Kilverry") + cell("8.90"),
        cell("All", '<w:gridSpan w:val="2"/>') + cell("9.00"),
    )
    table = "".join(f"<w:tr>{row}</w:tr>" for row in rows)
    assert text_of(f"<w:tbl>{table}</w:tbl>") == ("North | to | fare\nNorth | Kilverry | 8.90\nAll |  | 9.00")


def test_a_bomb_that_lies_about_its_size_stays_small() -> None:
    body = body_xml(f"<w:p>{run('a' * 20_000_000)}</w:p>")
    size = len(body).to_bytes(4, "little")
    data = docx_of_xml(body)
    assert data.count(size) >= 2
    assert refusal(data.replace(size, (1000).to_bytes(4, "little")), "a.docx") == "a damaged Word document"
