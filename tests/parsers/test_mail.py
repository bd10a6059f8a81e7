from __future__ import annotations

import contextlib
from collections.abc import Callable
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers import parse_bytes
from openbook.parsers.formats.mail import MAX_ATTACHMENTS, MAX_PARTS, parse_mail, parse_mailbox, parse_outlook

from .samples import FIXTURES, make_pdf, titles

ATTACHMENTS = (FIXTURES / "attachments.msg").read_bytes()  # a file of Markdown, a message, and bytes that are no text
NO_MESSAGE = (FIXTURES / "no-message.msg").read_bytes()


def letter(subject: str = "Fares", body: str = "Nine euros.\n") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Zoë Müller <zoe@example.com>"
    message["To"] = "Bob <bob@example.com>"
    message["Date"] = "Tue, 05 Mar 2024 10:00:00 +0100"
    message["Subject"] = subject
    message.set_content(body)
    return message


def test_headers_body_and_metadata() -> None:
    content = parse_mail(letter("Größe: 9 €").as_bytes(), "a.eml")
    assert content.text == (
        "From: Zoë Müller <zoe@example.com>\nTo: Bob <bob@example.com>\nDate: Tue, 05 Mar 2024 10:00:00 +0100\n"
        "Subject: Größe: 9 €\n\nNine euros."
    )
    assert content.title == "Größe: 9 €"
    assert dict(content.metadata) == {
        "author": "Zoë Müller <zoe@example.com>", "to": "Bob <bob@example.com>", "date": "2024-03-05T09:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize("body", ["Nine euros.", "", " \n\n"])
def test_plain_text_comes_before_html_unless_it_is_blank(body: str) -> None:
    message = letter(body=body)
    message.add_alternative("<h1>Fares</h1><p>Nine <b>bold</b> euros.</p>", subtype="html")
    content = parse_mail(message.as_bytes(), "a.eml")
    assert content.text.endswith("\n\n" + (body.strip() or "Fares\n\nNine bold euros."))
    assert titles(content) == ([] if body.strip() else [(1, "Fares")])


def test_attachments_are_read_under_a_heading() -> None:
    message = letter()
    for kind, of, data, name in (
        ("text", "markdown", b"# Terms\n\nNo dogs.\n", "terms.md"),
        ("application", "pdf", make_pdf([["The crane lifts nine tons."]]), "Kran.pdf"),
        ("image", "png", b"\x89PNG\r\n\x1a\n", "a.png"),
    ):
        message.add_attachment(data, maintype=kind, subtype=of, filename=name)
    content = parse_mail(message.as_bytes(), "a.eml")
    assert titles(content)[:2] == [(1, "Attachment: terms.md"), (2, "Terms")]
    assert "Attachment: Kran.pdf\n\nThe crane lifts nine tons." in content.text
    assert "Attachment: a.png (not read: an image: needs OCR)" in content.text


def test_what_apple_mail_attaches_to_the_form_that_is_not_read_is_read() -> None:
    message = letter()
    message.add_alternative("<p>Nine euros.</p>", subtype="html")
    rich = list(message.iter_parts())[1]
    assert isinstance(rich, EmailMessage)
    rich.make_mixed()
    rich.add_attachment(b"The winch costs 48,250 crowns.", maintype="text", subtype="plain", filename="quotation.txt")
    rich.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png", disposition="inline")
    content = parse_mail(message.as_bytes(), "a.eml")
    assert content.text.endswith("Nine euros.\n\nAttachment: quotation.txt\n\nThe winch costs 48,250 crowns.")


def test_a_message_is_closed_by_the_labels_of_what_is_attached() -> None:
    message = letter()
    message.add_attachment(
        b"---\naccess_labels: [hr]\n---\n99,000 crowns.", maintype="text", subtype="markdown", filename="a.md"
    )
    assert dict(parse_mail(message.as_bytes(), "a.eml").metadata)["access_labels"] == ("hr",)
    box = b"From zoe@example.com Tue Mar  5 10:00:00 2024\n" + message.as_bytes()
    assert dict(parse_mailbox(box, "a.mbox").metadata) == {"access_labels": ("hr",)}


def test_messages_inside_messages_end() -> None:
    message = letter("level 0")
    for level in range(1, 7):
        outer = letter(f"level {level}")
        outer.add_attachment(message)
        message = outer
    text = parse_mail(message.as_bytes(), "a.eml").text
    assert "Subject: level 3" in text
    assert "Subject: level 1" not in text
    assert "(not read: more than 3 attachments inside one another)" in text


def test_a_message_of_very_many_parts_is_refused_and_of_many_attachments_the_first_are_read() -> None:
    part = "--a\nContent-Type: text/plain{}\n\nfare {}\n"

    def message(count: int, attached: str = "") -> bytes:
        parts = "".join(part.format(attached, number) for number in range(count))
        return f"From: a@b\nContent-Type: multipart/mixed;boundary=a\n\n{parts}--a--\n".encode()

    assert parse_mail(message(MAX_PARTS), "a.eml").text.endswith(f"fare {MAX_PARTS - 1}")
    with pytest.raises(UnreadableFile, match=f"more than {MAX_PARTS} parts"):
        parse_mail(message(MAX_PARTS + 1), "a.eml")
    named = "; name=a.txt\nContent-Disposition: attachment"
    assert parse_mail(message(MAX_ATTACHMENTS, named), "a.eml").text.endswith(f"fare {MAX_ATTACHMENTS - 1}")
    text = parse_mail(message(MAX_ATTACHMENTS + 1, named), "a.eml").text
    assert text.endswith(
        f"fare {MAX_ATTACHMENTS - 1}\n\n(more than {MAX_ATTACHMENTS} attachments: the others are not read)"
    )


@pytest.mark.parametrize(("word", "shown"), [("fare ", "fare "), ("=?utf-8?q?F=C3=A4hre?= ", "Fähre")])
def test_a_long_header_is_cut(word: str, shown: str) -> None:
    text = parse_mail(f"From: a@b\nSubject: {word * 50_000}\n\nbody\n".encode(), "a.eml").text
    subject = text.removeprefix("From: a@b\nSubject: ").removesuffix("\n\nbody")
    assert 1_990 < len(subject) <= 2_000
    assert (shown * 1_000).startswith(subject)


def test_encodings() -> None:
    bodies = {"koi8-r": "Паром в девять.", "iso-2022-jp": "経費は部長が承認します。", "windows-1252": "“Fähre” — 9 €"}
    for charset, body in bodies.items():
        message = letter()
        message.set_content(body, charset=charset, cte="base64")
        assert body in parse_mail(message.as_bytes(), "a.eml").text
    for none in ("x-unknown", "hex", "utf-7", "\x00", "idna"):
        data = f'From: a@b\nSubject: s\nContent-Type: text/plain; charset="{none}"\n\nFähre\n'.encode()
        assert "Fähre" in parse_mail(data, "a.eml").text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"=?utf-8?q?F=C3=A4hre?= =?utf-8?b?IDkg4oKs?=", "Fähre 9 €"),
        (b"=?koi8-r?B?8MHSz80=?= now", "Паром now"),
        (b"=?iso-8859-1*de?Q?F=E4hre_9?=", "Fähre 9"),
        (b"a\n  b\x1b[2J", "a b [2J"),
        (b"Gr\xf6\xdfe der F\xe4hre", "Größe der Fähre"),
    ],
)
def test_subjects(raw: bytes, shown: str) -> None:
    assert parse_mail(b"From: a@b\nSubject: " + raw + b"\n\nbody\n", "a.eml").title == shown


def test_mailboxes_inside_mailboxes_end() -> None:
    data = letter("level 0").as_bytes()
    for level in range(1, 7):
        outer = letter(f"level {level}")
        box = b"From a@b Tue Mar  5 10:00:00 2024\n" + data
        outer.add_attachment(box, maintype="application", subtype="mbox", filename="a.mbox")
        data = outer.as_bytes()
    text = parse_mail(data, "a.eml").text
    assert "Subject: level 5" in text
    assert "Subject: level 3" not in text
    assert "(not read: more than 3 attachments inside one another)" in text


def test_a_mailbox() -> None:
    first = letter("First", ">From here to there\nFrom the north: 10:00\n").as_bytes()
    second = b"\nFrom c@d Tue Mar  5 11:00:00 2024\n" + letter("Second").as_bytes()
    content = parse_mailbox(b"From a@b Tue Mar  5 10:00:00 2024\n" + first + second, "box.mbox")
    assert titles(content) == [(1, "First"), (1, "Second")]
    assert content.title == "box"
    assert "From here to there" in content.text


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ("Content-Type: message/rfc822\n\nSubject: foo\x0cBar: baz\nFrom: a\n\ntext", "Attachment: foo"),
        ("Content-Type: text/plain; name*=a\\0b''x\n\nof the second", "of the second"),
        ("Content-Disposition: attachment; filename*=a\\0b''x\n\nof the second", "of the second"),
        ("Content-Type: multipart/mixed; boundary*=a\\0b''x\n\n--x\n\nof the second", "of the second"),
        ("Content-Type: text/html\n\n" + "<table><tr><td>" * 150, "(a part is not read: "),
    ],
)
def test_a_bad_part_costs_neither_its_message_nor_the_mailbox(headers: str, shown: str) -> None:
    parts = f"--b\n\nHello.\n--b\n{headers}\n--b--\n"
    bad = f"From: a@b\nContent-Type: multipart/mixed; boundary=b\n\n{parts}".encode()
    assert "Hello." in parse_mail(bad, "a.eml").text
    box = b"".join(b"From a@b Tue Mar  5 10:00:00 2024\n" + each + b"\n\n" for each in (bad, letter("Last").as_bytes()))
    text = parse_mailbox(box, "a.mbox").text
    assert all(words in text for words in ("Hello.", shown, "Subject: Last"))


@pytest.mark.parametrize(
    ("parse", "data", "reason"),
    [
        *((parse_mail, data, "not an e-mail message") for data in (b"no headers", b"\n\nbody", b"X-Other: 1\n\nbody")),
        (parse_mailbox, b"From nobody\n\ntext", "not a mailbox"),
        *(
            (parse_outlook, data, "Outlook message")
            for data in (NO_MESSAGE, ATTACHMENTS[:8], b"text", ATTACHMENTS[:700])
        ),
    ],
)
def test_what_is_no_message(parse: Callable[[bytes, str], Content], data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        parse(data, "a")


KINDS = "text/plain text/html multipart/mixed;boundary=a message/rfc822 multipart/alternative;boundary=a".split()


@given(st.binary(max_size=300), st.sampled_from(KINDS))
def test_any_body_is_read_or_refused(body: bytes, kind: str) -> None:
    head = f"From: a@b\nMIME-Version: 1.0\nContent-Type: {kind}\n\n--a\n".encode()
    with contextlib.suppress(UnreadableFile):
        content = parse_mail(head + body + b"\n--a\n\n" + body + b"\n--a--\n", "a.eml")
        assert all(0 <= mark.start < len(content.text) for mark in content.headings)


def test_an_outlook_message_with_a_message_and_files_inside() -> None:
    content = parse_bytes(ATTACHMENTS, "a.msg")
    head, date = "From: Zoë <zoe@example.com>\nTo: Bob\n", "Date: 2024-03-05 09:00 UTC\n"
    assert content.text == (
        f"{head}{date}Subject: Größe der Fähre\n\nNine euros.\n\nAttachment: terms.md\n\n# Terms\n\nNo dogs.\n\n"
        f"Attachment: Inner\n\n{head}Subject: Inner\n\nNine euros.\n\n"
        "Attachment: a.bin (not read: binary data, not text)"
    )
    assert content.title == "Größe der Fähre"
    assert titles(content) == [(1, "Attachment: terms.md"), (2, "Terms"), (1, "Attachment: Inner")]
    said = {"author": "Zoë <zoe@example.com>", "to": "Bob", "date": "2024-03-05T09:00:00+00:00"}
    assert dict(content.metadata) == said


def test_strings_of_8_bits_and_a_body_of_html() -> None:
    content = parse_bytes((FIXTURES / "eight-bits.msg").read_bytes(), "a.msg")
    assert content.title == "Паром"
    assert content.text.endswith("Fares\n\nNine euros.")


def test_a_body_of_html_as_text_is_read_and_one_of_rtf_alone_is_told() -> None:
    shown = [
        parse_bytes((FIXTURES / f"body-of-{kind}.msg").read_bytes(), "a.msg").text for kind in ("html-text", "rtf")
    ]
    assert shown[0].endswith("The yellow crane weighs 55 tonnes.")
    assert shown[1].endswith("(the body is not read: it is compressed RTF)")
