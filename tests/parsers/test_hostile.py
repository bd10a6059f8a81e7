"""Files that ask a parser for much time, memory or depth: each is text or a reason, within bounds."""

from __future__ import annotations

import contextlib
import csv
import json

import pytest

from openbook.core.errors import UnreadableFile
from openbook.parsers import parse_bytes
from openbook.parsers.formats.mail import MAX_ATTACHMENTS, MAX_PARTS

from .samples import CASES, body_xml, damaged, docx_of_xml, packed, refusal


def text_of(data: str, name: str) -> str:
    return parse_bytes(data.encode(), name).text


MARKS = ("x", "`", "# ", "[(", "=", "#\t# ", "- ")
CODE = ("a" * 100_000, "public " * 50 + "\n", "(" * 390 + "\n", "a:b-c.d" * 50 + "\n", "{\\b ")
CELLS = ('"', ',"', '"a\n', ",", ",\n")
HEADERS = ("Subject: =?a?b?", "Subject: =?utf-8?q?a?= ", "To: <", "Date: 1 ")
MULTIPARTS = "".join(f'Content-Type: multipart/mixed; boundary="{i}"\n\n--{i}\n' for i in range(500))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, before + mark * (1_500_000 // len(mark)))
          for mark in MARKS for name, before in (("a.md", ""), ("a.md", "# ["), ("a.txt", ""), ("a.txt", "# ["))),
        *((name, f"{before}00:00.000\n{line * (100_000 // len(line))}")
          for line in CODE for name, before in (("a.py", ""), ("a.rtf", "{\\rtf1 "))),
        *(("a.csv", cell * 100_000) for cell in CELLS),
        *(("a.eml", f"From: a@b\n{name}: {value * 20_000}\n\n") for name, value in (header.split(": ") for header in HEADERS)),
        ("a.eml", f"From: a@b\n{MULTIPARTS}"),
    ],
    ids=lambda value: value[:25],
)  # fmt: skip
def test_lines_take_linear_time(name: str, text: str) -> None:
    with contextlib.suppress(UnreadableFile):
        parse_bytes(text.encode(), name)


ODF = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text"))


@pytest.mark.parametrize("depth", [240, 20_000])
@pytest.mark.parametrize("tag", ["div", "ul><li", "p><font", "table", "w:tbl", "text:list", "text:span"])
def test_deep_nesting_is_text_or_a_reason(tag: str, depth: int) -> None:
    opened, closed = f"<{tag}>" * depth, f"</{tag.partition('>')[0]}>" * depth
    assert "deep" in text_of(f"{opened}deep{closed}", "a.xml")
    body = f"<text:p>{opened}<text:p>deep</text:p>{closed}</text:p>"
    content = f"<office:document-content {ODF}><office:body><office:text>{body}</office:text></office:body></office:document-content>"
    for name, data in (
        ("a.html", f"<html>{opened}deep<p>after</p>".encode()),
        ("a.odt", packed({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})),
        ("a.docx", docx_of_xml(body_xml(f"{opened}<w:p>deep</w:p>{closed}"))),
        ("a.json", b"[" * depth + b"]" * depth),
        ("a.ipynb", b'{"cells":' + b"[" * depth),
        ("a.md", b"---\na: " + b"[" * depth + b"\n---\ndeep"),
    ):
        with contextlib.suppress(UnreadableFile):
            parse_bytes(data, name)


@pytest.mark.parametrize(
    "name", ["docx/strict.docx", "pptx/alone.pptx", "tables/whole.xlsx", "odf/metadata.odt", "epub/memo.epub", "pdf/outline.pdf",
             "mail/attachments.msg"],
)  # fmt: skip
def test_damaged_files_are_text_or_a_reason(name: str) -> None:
    data = (CASES / name).read_bytes()
    for broken in damaged(data, max(23, len(data) // 60)):
        with contextlib.suppress(UnreadableFile):
            content = parse_bytes(broken, name)
            assert all(0 <= mark.start < len(content.text) for mark in content.headings)


def test_a_bomb_that_lies_about_its_size_stays_small() -> None:
    body = body_xml(f"<w:p><w:r><w:t>{'a' * 20_000_000}</w:t></w:r></w:p>")
    size = len(body).to_bytes(4, "little")
    data = docx_of_xml(body)
    assert data.count(size) >= 2
    assert refusal(data.replace(size, (1000).to_bytes(4, "little")), "a.docx") == "a damaged Word document"


def test_spans_and_tables_of_a_page_are_bounded() -> None:
    for span in ("0", "-1", "99999999999", "x", "65534"):
        row = f'<tr><td rowspan="{span}" colspan="{span}">a<td>b</tr>'
        text = text_of(f"<table>{row * 50}</table>", "a.html")
        assert text.count("b") == 50
        assert len(text) < 50 * 4000 * 50
    assert refusal(b"<table><tr><td>" * 100_000, "a.html") == "holds more than 100 tables inside one another"


def test_of_many_parts_a_message_is_refused_and_of_many_attachments_the_first_are_read() -> None:
    def message(count: int, attached: str = "") -> str:
        parts = "".join(f"--a\nContent-Type: text/plain{attached}\n\nfare {number}\n" for number in range(count))
        return f"From: a@b\nContent-Type: multipart/mixed;boundary=a\n\n{parts}--a--\n"

    assert text_of(message(MAX_PARTS), "a.eml").endswith(f"fare {MAX_PARTS - 1}")
    assert f"more than {MAX_PARTS} parts" in refusal(message(MAX_PARTS + 1).encode(), "a.eml")
    named, last = "; name=a.txt\nContent-Disposition: attachment", f"fare {MAX_ATTACHMENTS - 1}"
    assert text_of(message(MAX_ATTACHMENTS, named), "a.eml").endswith(last)
    told = f"(more than {MAX_ATTACHMENTS} attachments: the others are not read)"
    assert text_of(message(MAX_ATTACHMENTS + 1, named), "a.eml").endswith(f"{last}\n\n{told}")


@pytest.mark.parametrize(("word", "shown"), [("fare ", "fare "), ("=?utf-8?q?F=C3=A4hre?= ", "Fähre")])
def test_a_long_header_is_cut(word: str, shown: str) -> None:
    text = text_of(f"From: a@b\nSubject: {word * 50_000}\n\nbody\n", "a.eml")
    subject = text.removeprefix("From: a@b\nSubject: ").removesuffix("\n\nbody")
    assert 1_990 < len(subject) <= 2_000
    assert (shown * 1_000).startswith(subject)


def test_filled_cells_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (CASES / "tables" / "far-apart.xlsx").read_bytes()  # two in 900 rows
    monkeypatch.setattr("openbook.parsers.formats.spreadsheets.MAX_CELLS", 2)
    assert parse_bytes(data, "a.xlsx").text == "S\n\n1\n\n900"
    monkeypatch.setattr("openbook.parsers.formats.spreadsheets.MAX_CELLS", 1)
    assert refusal(data, "a.xlsx") == "holds more than 0 million filled cells"


def test_what_a_library_cannot_hold_stays_text() -> None:
    for name, text in (
        ("a.csv", "a,b\n" + "x" * (csv.field_size_limit() + 1) + ",2\n"),
        ("a.json", "[" * 200_000),
    ):
        assert text_of(text, name) == text


def test_deep_nesting_and_long_keys_and_titles_do_not_multiply() -> None:
    assert len(text_of('{"key": ' * 500 + "1" + "}" * 500, "a.json")) < 1_000
    wide = json.dumps({"k" * 100_000: [{"a": {"b": i}} for i in range(2_000)]})
    assert len(text_of(wide, "a.json")) < 700_000
    content = parse_bytes(b"# " + b"a" * 1_000_000, "a.md")
    assert content.headings[0].title == content.title == "a" * 200
