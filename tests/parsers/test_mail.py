from __future__ import annotations

import contextlib
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers.mail import header_text, read_mail, read_mailbox

from .samples import make_pdf


def letter(subject: str = "Fares", body: str = "Nine euros.\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Zoë Müller <zoe@example.com>"
    message["To"] = "Bob <bob@example.com>"
    message["Date"] = "Tue, 05 Mar 2024 10:00:00 +0100"
    message["Subject"] = subject
    message.set_content(body)
    return message


def test_headers_body_and_metadata() -> None:
    content = read_mail(letter("Größe: 9 €").as_bytes(), "a.eml")
    assert content.text == (
        "From: Zoë Müller <zoe@example.com>\nTo: Bob <bob@example.com>\nDate: Tue, 05 Mar 2024 10:00:00 +0100\n"
        "Subject: Größe: 9 €\n\nNine euros.\n"
    )
    assert content.title == "Größe: 9 €"
    assert dict(content.metadata) == {
        "author": "Zoë Müller <zoe@example.com>",
        "to": "Bob <bob@example.com>",
        "date": "2024-03-05T09:00:00+00:00",
    }


def test_plain_text_comes_before_html() -> None:
    message = letter()
    message.add_alternative("<p>Nine <b>bold</b> euros.</p>", subtype="html")
    assert "bold" not in read_mail(message.as_bytes(), "a.eml").text


@pytest.mark.parametrize("body", ["", " \n\n"])
def test_html_where_the_plain_text_is_blank(body: str) -> None:
    message = letter(body=body)
    message.add_alternative("<h1>Fares</h1><p>Nine <b>bold</b> euros.</p>", subtype="html")
    content = read_mail(message.as_bytes(), "a.eml")
    assert content.text.endswith("\n\nFares\n\nNine bold euros.\n")
    assert [mark.title for mark in content.headings] == ["Fares"]
    assert content.text[content.headings[0].start :].startswith("Fares\n")


def test_attachments_are_read_under_a_heading() -> None:
    message = letter()
    message.add_attachment(b"# Terms\n\nNo dogs.\n", maintype="text", subtype="markdown", filename="terms.md")
    message.add_attachment(
        make_pdf([["The crane lifts nine tons."]]), maintype="application", subtype="pdf", filename="Kran.pdf"
    )
    message.add_attachment(b"\x89PNG\r\n\x1a\n", maintype="image", subtype="png", filename="a.png")
    content = read_mail(message.as_bytes(), "a.eml")
    assert [(mark.level, mark.title) for mark in content.headings][:2] == [(1, "Attachment: terms.md"), (2, "Terms")]
    assert "Attachment: Kran.pdf\n\nThe crane lifts nine tons." in content.text
    assert "Attachment: a.png (not read: an image: needs OCR)" in content.text
    for mark in content.headings:
        assert mark.title in content.text[mark.start :].split("\n")[0]


def test_messages_inside_messages_end() -> None:
    message = letter("level 0")
    for level in range(1, 7):
        outer = letter(f"level {level}")
        outer.add_attachment(message)
        message = outer
    text = read_mail(message.as_bytes(), "a.eml").text
    assert "Subject: level 3" in text
    assert "Subject: level 1" not in text
    assert "(not read: more than 3 attachments inside one another)" in text


@pytest.mark.parametrize(
    ("charset", "body"),
    [("koi8-r", "Паром в девять."), ("iso-2022-jp", "経費は部長が承認します。"), ("windows-1252", "“Fähre” — 9 €")],
)
def test_encodings(charset: str, body: str) -> None:
    message = letter()
    message.set_content(body, charset=charset, cte="base64")
    assert body in read_mail(message.as_bytes(), "a.eml").text


@pytest.mark.parametrize("charset", ["x-unknown", "hex", "utf-7", "\x00", "idna"])
def test_a_charset_that_is_none(charset: str) -> None:
    data = f'From: a@b\nSubject: s\nContent-Type: text/plain; charset="{charset}"\n\nFähre\n'.encode()
    assert "Fähre" in read_mail(data, "a.eml").text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("=?utf-8?q?F=C3=A4hre?= =?utf-8?b?IDkg4oKs?=", "Fähre 9 €"),
        ("=?koi8-r?B?8MHSz80=?= now", "Паром now"),
        ("=?iso-8859-1*de?Q?F=E4hre_9?=", "Fähre 9"),
        ("=?unknown?b?!!!?= x", "!!! x"),
        ("a\n  b\x1b[2J", "a b [2J"),
    ],
)
def test_encoded_words(raw: str, shown: str) -> None:
    assert header_text(raw) == shown


def test_headers_of_raw_bytes() -> None:
    data = b"From: Zo\xeb <z@example.com>\nSubject: Gr\xf6\xdfe der F\xe4hre\n\nbody\n"
    assert read_mail(data, "a.eml").title == "Größe der Fähre"


@pytest.mark.parametrize("data", [b"no headers at all", b"\n\nbody", b"X-Other: 1\n\nbody"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="not an e-mail message"):
        read_mail(data, "a.eml")


def test_a_mailbox() -> None:
    first = letter("First", ">From here to there\nFrom the north: 10:00\n").as_bytes()
    data = (
        b"From a@b Tue Mar  5 10:00:00 2024\n"
        + first
        + b"\nFrom c@d Tue Mar  5 11:00:00 2024\n"
        + letter("Second").as_bytes()
    )
    content = read_mailbox(data, "box.mbox")
    assert [mark.title for mark in content.headings] == ["First", "Second"]
    assert content.title == "box"
    assert "From here to there" in content.text
    with pytest.raises(UnreadableFile, match="not a mailbox"):
        read_mailbox(b"From nobody\n\ntext", "a.mbox")


def test_hostile_structures_take_linear_time() -> None:
    nested = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (i, i) for i in range(3_000))
    words = b"=?a?b?" * 100_000
    for body in (
        nested,
        b"Subject: " + words + b"\n\n",
        b"Subject: " + b"=?utf-8?q?a?= " * 50_000 + b"\n\n",
        b"To: " + b"<" * 500_000 + b"\n\n",
        b"Date: " + b"1 " * 200_000 + b"\n\n",
    ):
        with contextlib.suppress(UnreadableFile):
            read_mail(b"From: a@b\n" + body, "a.eml")


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"text/plain",
            b"text/html",
            b"multipart/mixed; boundary=a",
            b"message/rfc822",
            b"multipart/alternative; boundary=a",
        ]
    ),
)
def test_any_body_is_read_or_refused(body: bytes, kind: bytes) -> None:
    data = (
        b"From: a@b\nMIME-Version: 1.0\nContent-Type: "
        + kind
        + b"\n\n--a\n"
        + body
        + b"\n--a\n\n"
        + body
        + b"\n--a--\n"
    )
    with contextlib.suppress(UnreadableFile):
        content = read_mail(data, "a.eml")
        assert all(0 <= mark.start < len(content.text) for mark in content.headings)
