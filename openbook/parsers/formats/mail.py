"""E-mail (RFC 5322, MIME), mailboxes, and Outlook messages. Plain text is preferred over HTML.

The compat32 policy of Python's parser returns headers as they are and does not fail on malformed ones. Outlook:
[MS-OXMSG], [MS-OXPROPS].
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.errors import HeaderParseError, MessageError
from email.message import Message
from io import BytesIO
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content, Metadata
from openbook.parsers import MAX_ATTACHMENT_DEPTH, parse_bytes
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import clean, decode, one_line, title_from_name
from openbook.parsers.formats.frontmatter import make_metadata
from openbook.parsers.formats.html import decode_page, parse_page
from openbook.parsers.metadata import LABEL_KEY, labels_of

MAX_ATTACHMENTS = 200
MAX_PARTS = 2_000
_MAX_HEADER_CHARS = 2_000
_MAX_RAW_CHARS = 20_000
_ENCODED_BOUNDARY = re.compile(rb"(?i)boundary\*")
_NOT_READABLE = "not a readable e-mail message"
_MALFORMED = (MessageError, RecursionError, ValueError, LookupError, AssertionError, TypeError, AttributeError)
_WORD = re.compile(r"=\?[^?\s]{1,40}\?[bBqQ]\?[^?\s]*\?=")
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n)\r?\n)From \S[^\n]*\d\d:\d\d[^\n]*\n")
_MAX_STREAM_BYTES = 200_000_000
_PROPERTIES = "__properties_version1.0"
_TIMES = (0x0039, 0x0E06, 0x3007)  # sent, delivered, created


def parse_mail(data: bytes, name: str, depth: int = 0) -> Content:
    import email
    import email.policy

    try:
        message = email.message_from_bytes(data, policy=email.policy.compat32)
    except _MALFORMED:  # a boundary in an unknown encoding: read all parts as one text
        try:
            message = email.message_from_bytes(_ENCODED_BOUNDARY.sub(b"", data), policy=email.policy.compat32)
        except _MALFORMED as error:
            raise UnreadableFile(_NOT_READABLE) from error
    head = {key: _header(message, key) for key in ("From", "To", "Cc", "Date", "Subject")}
    if not any(head.values()):
        raise UnreadableFile("not an e-mail message")
    out = Blocks()
    out.lines(f"{key}: {value}" for key, value in head.items() if value)
    attached: list[Message] = []
    for number, (part, is_attached) in enumerate(_leaves(message)):
        if number >= MAX_PARTS:
            raise UnreadableFile(f"holds more than {MAX_PARTS} parts")
        if is_attached:
            attached.append(part)
        else:
            _add_body(_part_text(part), part.get_content_type() == "text/html", out)
    labels = _add_attachments(((_file_name(part), _attachment(part)) for part in attached), depth, out)
    return _message_content(out, head, head["Date"], "message/rfc822", name, labels)


def parse_mailbox(data: bytes, name: str, depth: int = 0) -> Content:
    """Each message under its subject (RFC 4155)."""
    found = list(_FROM_LINE.finditer(data))
    if not found:
        raise UnreadableFile("not a mailbox")
    out, labels = Blocks(), set[str]()
    ends = [*(mark.start() for mark in found[1:]), len(data)]
    for mark, end in zip(found, ends, strict=True):
        try:
            content = parse_mail(re.sub(rb"(?m)^>(>*From )", rb"\1", data[mark.end() : end]), name, depth + 1)
        except UnreadableFile as error:
            out.paragraph(f"(a message is not read: {error})")
        else:
            labels |= _add_content(content.title, content, out)
    return out.content("application/mbox", title_from_name(name), name, _labels_as_metadata(labels))


def _add_body(text: str, is_html: bool, out: Blocks) -> None:
    out.chars += len(text)
    if not is_html:
        out.include(text)
    elif text.strip():
        try:
            page = parse_page(text)
        except UnreadableFile as error:
            out.paragraph(f"(a part is not read: {error})")
        else:
            out.include(page.text, page.headings)


def _add_attachments(
    attached: Iterable[tuple[str, bytes | Content | UnreadableFile]], depth: int, out: Blocks
) -> set[str]:
    """Write each attached file under its own heading, or why it is not read. Returns the files' access labels."""
    labels = set[str]()
    for number, (raw_name, data) in enumerate(attached):
        if number >= MAX_ATTACHMENTS:
            out.paragraph(f"(more than {MAX_ATTACHMENTS} attachments: the others are not read)")
            break
        name = one_line(raw_name) or "without a name"
        try:
            if isinstance(data, UnreadableFile):
                raise data
            content = data if isinstance(data, Content) else parse_bytes(data, name, depth + 1)
        except UnreadableFile as error:
            out.paragraph(f"Attachment: {name} (not read: {error})")
        else:
            labels |= _add_content(f"Attachment: {name}", content, out)
    return labels


def _add_content(title: str, content: Content, out: Blocks) -> frozenset[str]:
    out.heading(title, 1)
    out.include(content.text, [replace(mark, level=mark.level + 1) for mark in content.headings])
    out.chars += content.source_chars or len(content.text)
    return labels_of(content.metadata)


def _message_content(
    out: Blocks, head: Mapping[str, str], date: object, media_type: str, name: str, labels: Set[str]
) -> Content:
    fields = [("author", head["From"]), ("to", head["To"]), ("cc", head["Cc"]), ("date", date)]
    metadata = make_metadata([*fields, *_labels_as_metadata(labels)])
    return out.content(media_type, head["Subject"] or title_from_name(name), name, metadata)


def _labels_as_metadata(labels: Set[str]) -> Metadata:
    """A message shows its attachments, so their labels restrict it."""
    return ((LABEL_KEY, tuple(sorted(labels))),) if labels else ()


# --- MIME -------------------------------------------------------------------------------------------------------------


def _leaves(message: Message) -> Iterator[tuple[Message, bool]]:
    """(part, True if attached) for the parts that are shown or attached."""
    waiting: list[tuple[Message, bool]] = [(message, True)]
    while waiting:
        part, is_chosen = waiting.pop()
        kind, inner = part.get_content_type(), _inner(part)
        is_attached = str(part.get("Content-Disposition", "")).lower().startswith("attachment")
        is_named = is_attached or bool(_raw_file_name(part))
        if kind == "multipart/alternative" and inner:
            # Plain text unless it is blank, else the last alternative, the richest. Apple Mail puts attachments in an
            # alternative.
            plain = (each for each in inner if each.get_content_type() == "text/plain" and _part_text(each).strip())
            chosen = next(plain, inner[-1])
            waiting += [(each, is_chosen and each is chosen) for each in reversed(inner)]
        elif kind == "message/rfc822" and inner and part is not message:
            if is_chosen or is_attached:
                yield part, True
        elif inner:
            waiting += [(each, is_chosen) for each in reversed(inner)]
        elif not is_chosen:
            if is_attached or (_raw_file_name(part) and part.get_content_maintype() != "image"):
                yield part, True
        elif kind in {"text/plain", "text/html"} and not is_named:
            yield part, False
        elif kind.startswith("text/") or is_named:
            yield part, True


def _inner(part: Message) -> list[Message]:
    inner: Any = part.get_payload() if part.is_multipart() else []  # text is decoded in whatever encoding it names
    return inner if isinstance(inner, list) else []


def _file_name(part: Message) -> str:
    if part.get_content_type() == "message/rfc822" and (inner := _inner(part)):
        return (_header(inner[0], "Subject") or "message") + ".eml"
    return header_text(_raw_file_name(part))


def _raw_file_name(part: Message) -> str:
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return part.get_filename() or ""
    return ""


def _attachment(part: Message) -> bytes | UnreadableFile:
    try:
        return _payload(part)
    except _MALFORMED:
        return UnreadableFile(_NOT_READABLE)


def _payload(part: Message) -> bytes:
    if inner := _inner(part):
        return b"\n\n".join(message.as_bytes() for message in inner)
    payload: Any = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _part_text(part: Message) -> str:
    try:
        return clean(decode(_payload(part), str(part.get_param("charset") or "").strip("\"' ")))
    except UnreadableFile:
        return ""


def _header(message: Message, name: str) -> str:
    raw: Any = message.raw_items()  # `get` replaces bytes that are not allowed in headers
    return header_text(next((str(value) for key, value in raw if key.lower() == name.lower()), ""))


def header_text(raw: str) -> str:
    """Decode a header's encoded words (RFC 2047)."""
    from email.header import decode_header

    raw = raw[:_MAX_RAW_CHARS]
    if not raw.isascii():  # bytes that are not allowed in headers, but common
        with contextlib.suppress(UnreadableFile, UnicodeEncodeError):
            raw = decode(raw.encode("utf-8", "surrogateescape"))
    elif _WORD.search(raw):
        try:
            parts = decode_header(raw)
            raw = "".join(
                part if isinstance(part, str) else decode(part, (code or "").split("*")[0]) for part, code in parts
            )
        except (HeaderParseError, UnreadableFile, ValueError):
            pass
    return " ".join(clean(raw).split())[:_MAX_HEADER_CHARS]


# --- Outlook ----------------------------------------------------------------------------------------------------------


def parse_outlook(data: bytes, name: str, depth: int = 0) -> Content:
    import olefile

    try:
        with olefile.OleFileIO(BytesIO(data)) as file:
            if not file.exists(_PROPERTIES):
                raise UnreadableFile("not an Outlook message")
            return _outlook_message(_Properties(file, ()), name, depth)
    except (UnreadableFile, MemoryError):
        raise
    except Exception as error:  # the library fails in any way on a damaged table
        raise UnreadableFile("a damaged Outlook message") from error


def _outlook_message(message: _Properties, name: str, depth: int) -> Content:
    address, sender = message.text(0x5D01) or message.text(0x0C1F), message.text(0x0C1A)
    sender = f"{sender} <{address}>" if "@" in address and address not in sender else sender or address
    sent = message.sent()
    head = {
        "From": sender, "To": message.text(0x0E04), "Cc": message.text(0x0E03),
        "Date": f"{sent:%Y-%m-%d %H:%M} UTC" if sent else "", "Subject": message.text(0x0037),
    }  # fmt: skip
    out = Blocks()
    out.lines(f"{key}: {one_line(value)}" for key, value in head.items() if value)
    plain, html = message.text(0x1000), message.stream("10130102")
    if plain.strip():
        _add_body(plain, False, out)
    elif (page := decode_page(html) if html else message.text(0x1013)).strip():
        _add_body(page, True, out)
    elif message.stream("10090102"):
        out.paragraph("(the body is not read: it is compressed RTF)")
    labels = _add_attachments(_outlook_attachments(message, depth), depth, out)
    return _message_content(out, head, sent, "application/vnd.ms-outlook", name, labels)


def _outlook_attachments(message: _Properties, depth: int) -> Iterator[tuple[str, bytes | Content]]:
    for attached in message.attachments():
        title = attached.text(0x3707) or attached.text(0x3704) or attached.text(0x3001)
        inner = attached.message()
        if inner is not None and depth < MAX_ATTACHMENT_DEPTH:
            content = _outlook_message(inner, title, depth + 1)
            yield content.title, content
        else:
            yield title, b"" if inner else attached.stream("37010102")


class _Properties:
    """Properties at `place` in the file, of a message or an attachment."""

    def __init__(self, file: Any, place: tuple[str, ...]) -> None:
        self._file, self._place = file, place
        # Bytes before the first property: 32, in an attached message 24, in an attachment 8 (2.4.1).
        head = 32 if not place else 24 if place[-1].startswith("__substg") else 8
        rows = self._at(_PROPERTIES)[head:]
        self._fixed = {
            int.from_bytes(rows[at + 2 : at + 4], "little"): rows[at + 8 : at + 16] for at in range(0, len(rows), 16)
        }

    def text(self, tag: int) -> str:
        if wide := self.stream(f"{tag:04X}001F"):
            return clean(wide.decode("utf-16-le", "replace")).rstrip()
        narrow = self.stream(f"{tag:04X}001E").rstrip(b"\0")
        code_page = int.from_bytes(self._fixed.get(0x3FFD, b"")[:4], "little")
        return clean(decode(narrow, f"cp{code_page}")).rstrip() if narrow else ""

    def sent(self) -> datetime | None:
        for tag in _TIMES:
            ticks = int.from_bytes(self._fixed.get(tag, b""), "little")  # of 100 ns since 1601
            if 0 < ticks < 10**18:
                return datetime(1601, 1, 1, tzinfo=UTC) + timedelta(seconds=ticks // 10_000_000)
        return None

    def attachments(self) -> list[_Properties]:
        here = len(self._place)
        paths = (tuple(path) for path in self._file.listdir(streams=True, storages=False))
        found = {path[: here + 1] for path in paths if len(path) > here + 1 and path[:here] == self._place}
        attached = sorted(path for path in found if path[here].startswith("__attach_version1.0_"))
        return [_Properties(self._file, path) for path in attached[:MAX_ATTACHMENTS]]

    def message(self) -> _Properties | None:
        """None if the attachment is not a message."""
        inner = (*self._place, "__substg1.0_3701000D")
        return _Properties(self._file, inner) if self._file.exists("/".join((*inner, _PROPERTIES))) else None

    def stream(self, tag: str) -> bytes:
        return self._at(f"__substg1.0_{tag}")

    def _at(self, name: str) -> bytes:
        path = "/".join((*self._place, name))
        if not self._file.exists(path) or self._file.get_size(path) > _MAX_STREAM_BYTES:
            return b""
        data: bytes = self._file.openstream(path).read()
        return data
