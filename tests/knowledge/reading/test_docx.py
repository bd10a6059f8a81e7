from __future__ import annotations

import contextlib
import io
import zipfile

import pytest

from openbook.errors import UnreadableFile
from openbook.knowledge.reading.docx import read_docx

from .samples import body_xml, docx_bytes, docx_of_xml, new_docx


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read_docx(data, "a.docx")
    return str(caught.value)


def text_of(body: str) -> str:
    return read_docx(docx_of_xml(body_xml(body)), "a.docx").text


def run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def test_structure_in_body_order() -> None:
    document = new_docx()
    document.add_heading("Winter rules", 0)
    document.add_heading("Scope", 1)
    document.add_paragraph("Who checks the quay.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        (c for row in table.rows for c in row.cells), ["to", "fare", "Kilverry", "8.90\nEUR"], strict=True
    ):
        cell.text = text
    document.add_heading("Tools", 2)
    document.add_paragraph("grit", style="List Bullet")
    document.add_paragraph("plough", style="List Number")
    document.add_paragraph("End.")
    document.sections[0].header.paragraphs[0].text = "a header"
    document.core_properties.title = "Stated"
    content = read_docx(docx_bytes(document), "a.docx")
    assert content.text == (
        "Winter rules\n\nScope\n\nWho checks the quay.\n\nto | fare\nKilverry | 8.90 EUR\n\n"
        "Tools\n\n- grit\n- plough\n\nEnd."
    )
    assert [(mark.level, mark.title) for mark in content.headings] == [(1, "Winter rules"), (1, "Scope"), (2, "Tools")]
    assert [content.text[mark.start :].split("\n")[0] for mark in content.headings] == [
        "Winter rules",
        "Scope",
        "Tools",
    ]
    assert content.title == "Winter rules"


def test_title_falls_back() -> None:
    document = new_docx()
    document.add_paragraph("Text.")
    document.core_properties.title = ""
    assert read_docx(docx_bytes(document), "memo.docx").title == "memo"
    document.core_properties.title = "Stated"
    assert read_docx(docx_bytes(document), "memo.docx").title == "Stated"


def test_inline_elements() -> None:
    body = (
        f"<w:p>{run('see ')}<w:hyperlink>{run('the link')}</w:hyperlink><w:ins>{run(' added')}</w:ins>"
        f"<w:del><w:r><w:delText> deleted</w:delText></w:r></w:del><w:moveFrom>{run(' moved')}</w:moveFrom>"
        f"<w:sdt><w:sdtContent>{run(' field')}</w:sdtContent></w:sdt><w:r><w:tab/><w:noBreakHyphen/><w:br/></w:r>"
        f"<m:oMath><m:r><m:t>x=1</m:t></m:r></m:oMath></w:p>"
    )
    assert text_of(body) == "see the link added field\t-\nx=1"


def test_content_controls_frames_and_text_boxes() -> None:
    body = (
        f"<w:sdt><w:sdtContent><w:p>{run('inside')}</w:p></w:sdtContent></w:sdt>"
        f"<w:tbl><w:tr><w:tc><w:p>{run('framed')}</w:p><w:p>{run('twice')}</w:p></w:tc></w:tr></w:tbl>"
        f"<w:p>{run('host')}<w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p>{run('box')}</w:p></w:txbxContent>"
        f"</mc:Choice><mc:Fallback><w:txbxContent><w:p>{run('box')}</w:p></w:txbxContent></mc:Fallback>"
        f"</mc:AlternateContent></w:r></w:p>"
    )
    assert text_of(body) == "inside\n\nframed\n\ntwice\n\nhost\n\nbox"


def test_control_characters_are_replaced() -> None:
    assert text_of(f"<w:p>{run('a&#x202E;b')}</w:p>") == "a b"


def test_truncated_at_any_length() -> None:
    document = new_docx()
    document.add_paragraph("Text.")
    data = docx_bytes(document)
    for length in range(0, len(data), len(data) // 40):
        assert refusal(data[:length])


def test_flipped_bytes_are_text_or_a_reason() -> None:
    data = docx_of_xml(body_xml(f"<w:p>{run('Some text.')}</w:p>"))
    for at in range(0, len(data), 7):
        with contextlib.suppress(UnreadableFile):
            read_docx(data[:at] + b"\xff" + data[at + 1 :], "a.docx")


def test_not_a_package() -> None:
    assert refusal(b"{\\rtf1 text}") == "not a Word document"
    assert refusal(b"") == "not a Word document"


def test_another_kind_of_package() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    assert refusal(buffer.getvalue()) == "not a Word document"


def test_strict_packages_are_named() -> None:
    data = docx_of_xml(body_xml(""))
    strict = b"http://purl.oclc.org/ooxml/officeDocument/relationships/officeDocument"
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, strict if name == "_rels/.rels" else old.read(name))
    assert "strict format" in refusal(buffer.getvalue())


def test_encrypted_and_old_files() -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
    assert refusal(ole + "EncryptedPackage".encode("utf-16-le")) == "encrypted with a password"
    assert refusal(ole) == "an old Word file: save it as .docx"


def test_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = docx_of_xml(body_xml(""), more={"word/media/a.bin": bytes(30_000_000)})
    assert len(bomb) < 100_000
    assert "like a zip bomb" in refusal(bomb)


def test_a_bomb_that_lies_about_its_size_stays_small() -> None:
    text = "a" * 20_000_000
    data = docx_of_xml(body_xml(f"<w:p>{run(text)}</w:p>"))
    size = len(body_xml(f"<w:p>{run(text)}</w:p>")).to_bytes(4, "little")
    assert data.count(size) >= 2
    assert refusal(data.replace(size, (1000).to_bytes(4, "little"))) == "a damaged Word document"


def test_too_many_parts() -> None:
    data = docx_of_xml(body_xml(""), more={f"word/media/{i}": b"" for i in range(10_001)})
    assert "over the limit of 10000" in refusal(data)


def test_entity_bombs_are_refused() -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol"}">' for i in range(10))
    xml = f"<!DOCTYPE w [{entities}]>" + body_xml(f"<w:p>{run('&e9;')}</w:p>")
    assert refusal(docx_of_xml(xml)) in {
        "declares XML entities, which no Word document does",
        "a damaged Word document",
    }


def test_external_entities_are_refused() -> None:
    xml = '<!DOCTYPE w [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + body_xml(f"<w:p>{run('&e;')}</w:p>")
    assert refusal(docx_of_xml(xml)) == "declares XML entities, which no Word document does"


def test_deeply_nested_xml() -> None:
    nested = "<w:sdt>" * 100_000 + "</w:sdt>" * 100_000
    assert refusal(docx_of_xml(body_xml(nested))) == "a damaged Word document"


def test_styles_that_are_based_on_each_other() -> None:
    document = new_docx()
    paragraph = document.add_paragraph("Text.", style="List Bullet")
    style = paragraph.style.element
    based = style.find(style.tag.replace("}style", "}basedOn"))
    based.set(based.tag.replace("}basedOn", "}val"), style.get(style.tag.replace("}style", "}styleId")))
    assert read_docx(docx_bytes(document), "a.docx").text == "- Text."
