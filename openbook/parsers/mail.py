"""E-mail (RFC 5322, MIME) and mailboxes of many. The plain text of a message comes before its HTML.

The parser's oldest policy is used: it hands over headers as they are, and no malformed one makes it fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers import read_bytes
from openbook.parsers.cleaning import clean, one_line, title_from_name
from openbook.parsers.decoding import decode
from openbook.parsers.frontmatter import make_metadata
from openbook.records import Content, HeadingMark, Metadata

MOST_PARTS = 2_000
MOST_ATTACHMENTS = 200
MOST_MESSAGES = 100_000
_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_LONGEST_HEADER_CHARS = 2_000
_LONGEST_RAW_CHARS = 20_000
_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(?==\?[^?\s]{1,40}\?[bBqQ]\?)")
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n)\r?\n)From \S[^\n]*\d\d:\d\d[^\n]*\n")


class TextParts:
    """Pieces of one document, put together with the offsets of their headings."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[HeadingMark] = []
        self.source_chars = 0

    def add(self, text: str, headings: tuple[HeadingMark, ...] = (), *, deeper: int = 0) -> None:
        lead = len(text) - len(text.lstrip("\n"))
        body = text[lead:].rstrip()
        if not body:
            return
        gap = "\n\n" if self._length else ""
        begin = self._length + len(gap) - lead
        self._headings += [
            replace(mark, start=mark.start + begin, level=mark.level + deeper)
            for mark in headings
            if lead <= mark.start < lead + len(body)
        ]
        self._parts += (gap, body)
        self._length += len(gap) + len(body)

    def heading(self, title: str, level: int) -> None:
        title = one_line(title)
        self.add(title, (HeadingMark(0, level, title),))

    def attachment(self, name: str, data: bytes, depth: int) -> None:
        """What the attached file holds under a heading of its own; else why it is not read."""
        name = one_line(name) or "without a name"
        try:
            content = read_bytes(data, name, depth + 1)
        except UnreadableFile as error:
            self.add(f"Attachment: {name} (not read: {error})")
            return
        self.heading(f"Attachment: {name}", 1)
        self.add(content.text, content.headings, deeper=1)
        self.source_chars += content.source_chars or len(content.text)

    def finish(self) -> tuple[str, tuple[HeadingMark, ...]]:
        return "".join([*self._parts, "\n" if self._parts else ""]), tuple(self._headings)


def read_mail(data: bytes, name: str, depth: int = 0) -> Content:
    message = _parse(data)
    if not any(message.get(header) for header in _SHOWN):
        raise UnreadableFile("not an e-mail message")
    parts = TextParts()
    parts.add(_head(message))
    _body(message, parts, depth)
    text, headings = parts.finish()
    title = _header(message, "Subject") or title_from_name(name)
    return Content(
        text, "message/rfc822", one_line(title), headings=headings, source_chars=parts.source_chars, metadata=_metadata(message)
    )  # fmt: skip


def read_mailbox(data: bytes, name: str) -> Content:
    """Messages one after the other, each under its subject. (The format: RFC 4155.)"""
    begins = [found.end() for found in _FROM_LINE.finditer(data)]
    ends = [*[found.start() for found in _FROM_LINE.finditer(data)][1:], len(data)]
    if not begins:
        raise UnreadableFile("not a mailbox")
    if len(begins) > MOST_MESSAGES:
        raise UnreadableFile(f"holds {len(begins)} messages, over the limit of {MOST_MESSAGES}")
    parts = TextParts()
    for begin, end in zip(begins, ends, strict=True):
        try:
            content = read_mail(re.sub(rb"(?m)^>(>*From )", rb"\1", data[begin:end]), name, 1)
        except UnreadableFile as error:
            parts.add(f"(a message is not read: {error})")
            continue
        parts.heading(content.title, 1)
        parts.add(content.text, content.headings, deeper=1)
        parts.source_chars += content.source_chars or 0
    text, headings = parts.finish()
    return Content(text, "application/mbox", title_from_name(name), headings=headings, source_chars=parts.source_chars)


def _parse(data: bytes) -> Message:
    import email
    import email.policy

    try:
        return email.message_from_bytes(data, policy=email.policy.compat32)
    except (RecursionError, ValueError, LookupError, AssertionError, TypeError, AttributeError) as error:
        raise UnreadableFile("not a readable e-mail message") from error


def _head(message: Message) -> str:
    return "\n".join(f"{name}: {value}" for name in _SHOWN if (value := _header(message, name)))


def _header(message: Message, name: str) -> str:
    raw: Any = message.raw_items()  # `get` replaces the bytes that no header may hold
    return header_text(next((str(value) for key, value in raw if key.lower() == name.lower()), ""))


def header_text(raw: str) -> str:
    """A header as a person reads it: encoded words (RFC 2047) decoded, each in the encoding it names."""
    raw = _BETWEEN_WORDS.sub(r"\1", raw[:_LONGEST_RAW_CHARS])
    raw = raw if raw.isascii() else _raw_bytes(raw)
    shown = _WORD.sub(lambda found: _word(found[1], found[2], found[3]), raw)
    return " ".join(clean(shown).split())[:_LONGEST_HEADER_CHARS]


def _raw_bytes(raw: str) -> str:
    """Bytes outside ASCII, which no header may hold and many do."""
    try:
        return decode(raw.encode("utf-8", "surrogateescape"))
    except (UnreadableFile, UnicodeEncodeError):
        return raw


def _word(charset: str, kind: str, body: str) -> str:
    import binascii
    import quopri

    try:
        if kind in "bB":
            data = binascii.a2b_base64(body + "=" * (-len(body) % 4))
        else:
            data = quopri.decodestring(body.replace("_", " ").encode("ascii", "replace"))
        return decode(data, charset.partition("*")[0]) or body
    except (ValueError, UnreadableFile):
        return body


def _metadata(message: Message) -> Metadata:
    fields = [("author", _header(message, "From")), ("to", _header(message, "To")), ("cc", _header(message, "Cc"))]
    return make_metadata(
        [*fields, ("date", _header(message, "Date")), ("language", _header(message, "Content-Language"))]
    )


def _body(message: Message, parts: TextParts, depth: int) -> None:
    attachments: list[tuple[str, bytes]] = []
    for count, (part, is_attachment) in enumerate(_leaves(message)):
        if count >= MOST_PARTS:
            raise UnreadableFile(f"holds more than {MOST_PARTS} parts")
        if is_attachment:
            attachments.append((_file_name(part), _payload(part)))
        elif part.get_content_type() == "text/html":
            _add_html(part, parts)
        else:
            text = _text(part)
            parts.source_chars += len(text)
            parts.add(text)
    for name, data in attachments[:MOST_ATTACHMENTS]:
        parts.attachment(name, data, depth)
    if len(attachments) > MOST_ATTACHMENTS:
        parts.add(f"({len(attachments) - MOST_ATTACHMENTS} more attachments are not read)")


def _leaves(message: Message) -> Iterator[tuple[Message, bool]]:
    """The parts that are shown, and those that are attached, in order."""
    waiting: list[Message] = [message]
    while waiting:
        part = waiting.pop()
        kind = part.get_content_type()
        inner = _inner(part)
        if kind == "multipart/alternative" and inner:
            waiting += _alternative(inner)
        elif kind == "message/rfc822" and inner and part is not message:
            yield part, True
        elif inner:
            waiting += reversed(inner)
        elif kind in {"text/plain", "text/html"} and not _is_attached(part):
            yield part, False
        elif kind.startswith("text/") or _is_attached(part):
            yield part, True


def _inner(part: Message) -> list[Message]:
    inner: Any = part.get_payload() if part.is_multipart() else []  # as text, it is decoded in whatever it names
    return inner if isinstance(inner, list) else []


def _alternative(choices: list[Message]) -> list[Message]:
    """The plain text unless it is blank, then the last one, which is the richest."""
    plain = next((part for part in choices if part.get_content_type() == "text/plain" and _text(part).strip()), None)
    return [plain] if plain is not None else choices[-1:]


def _is_attached(part: Message) -> bool:
    disposition = str(part.get("Content-Disposition", ""))[:20].lower()
    return disposition.startswith("attachment") or bool(part.get_filename())


def _file_name(part: Message) -> str:
    if part.get_content_type() == "message/rfc822" and (inner := _inner(part)):
        return (_header(inner[0], "Subject") or "message") + ".eml"
    try:
        name = header_text(part.get_filename() or "")
    except (ValueError, LookupError, TypeError):
        name = ""
    endings = {"text/calendar": ".ics", "text/csv": ".csv", "text/markdown": ".md", "text/x-vcard": ".vcf"}
    return name or f"attachment{endings.get(part.get_content_type(), '')}"


def _payload(part: Message) -> bytes:
    if inner := _inner(part):
        return b"\n\n".join(message.as_bytes() for message in inner)
    payload: Any = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: Message) -> str:
    try:
        charset = str(part.get_param("charset") or "")
        return clean(decode(_payload(part), charset.strip("\"' ")))
    except UnreadableFile:
        return ""


def _add_html(part: Message, parts: TextParts) -> None:
    from openbook.parsers.html import read_html

    source = _text(part)
    parts.source_chars += len(source)
    try:
        content = read_html(("\ufeff" + source).encode(), "")
    except UnreadableFile:
        return
    parts.add(content.text, content.headings)
