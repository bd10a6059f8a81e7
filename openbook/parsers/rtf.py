"""Rich Text Format to text. Groups are kept on a stack of our own, so their depth costs memory and never the program.

Source: Rich Text Format (RTF) Specification 1.9.1.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field, replace

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.cleaning import one_line, title_from_name
from openbook.parsers.properties import stated
from openbook.records import Content, Metadata

MOST_DEPTH = 100_000

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z'])|([{}])|[\r\n]+|([^\\{}\r\n]+)|\\'?", re.S
)
_CHARACTERS = {
    "tab": "\t", "line": "\n", "emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "bullet": "•", "emspace": " ", "enspace": " ", "qmspace": " ", "softline": "\n",
}  # fmt: skip
_SYMBOLS = {b"~": "\xa0", b"_": "-", b"{": "{", b"}": "}", b"\\": "\\", b"-": "", b":": ""}
# Groups that hold no text of the body. `\*` marks further ones that a reader may leave out.
_SKIPPED = frozenset({
    "fonttbl", "colortbl", "pict", "object", "header", "headerl", "headerr", "headerf", "footer", "footerl", "footerr",
    "footerf", "fldinst", "filetbl", "listtable", "listoverridetable", "revtbl", "rsidtbl", "themedata", "datastore",
    "colorschememapping", "latentstyles", "generator", "xmlnstbl", "mmathPr", "nonshppict", "bkmkstart", "bkmkend",
    "datafield", "ftnsep", "ftnsepc", "aftnsep", "aftnsepc", "xe", "tc", "txe", "rxe", "atnid", "atnauthor", "pntext",
})  # fmt: skip
_KEPT_THOUGH_STARRED = frozenset({"shptxt", "annotation"})
_INFO = frozenset({"title", "author", "operator", "creatim", "revtim"})
# Windows code pages of `\fcharset` (spec, font table).
_CHARSETS = {
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _State:
    """What a closing brace takes back. `into` is where text goes: the body, nowhere, or an entry of the information."""

    into: str = "body"
    encoding: str = ""
    hidden: bool = False
    fallback_bytes: int = 1  # how many follow a `\\u` for readers that do not know it
    starred: bool = False


@dataclass(slots=True)
class _Paragraph:
    parts: list[str] = field(default_factory=list)
    marker: str = ""  # the number or bullet that the file spells out
    level: int = 0  # of a heading
    in_table: bool = False


def read_rtf(data: bytes, name: str) -> Content:
    head = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"{\\rtf"):
        raise UnreadableFile("not an RTF document")
    reader = _Reader()
    reader.feed(data.rstrip(b"\0 \r\n"))
    out = reader.finish()
    if not out.text and not reader.closed:
        raise UnreadableFile("a damaged RTF document")
    headings = tuple(out.headings)
    title = reader.title() or (headings[0].title if headings else "") or title_from_name(name)
    return Content(out.text, "application/rtf", title, (), headings, reader.chars, reader.metadata())


class _Reader:
    def __init__(self) -> None:
        self.chars = 0
        self.closed = False
        self._out = Blocks()
        self._state = _State()
        self._stack: list[_State] = []
        self._default = "cp1252"
        self._fonts: dict[int, str] = {}
        self._font = 0  # the font that the font table is describing
        self._levels: dict[int, int] = {}  # paragraph style to heading level
        self._style = 0
        self._bytes = bytearray()  # text not yet decoded: a character may take two bytes
        self._skip = 0  # bytes of fallback still to leave out
        self._lead = ""  # the first half of a character beyond the basic plane
        self._paragraph = _Paragraph()
        self._cells: list[str] = []
        self._rows: list[list[str]] = []
        self._notes: list[str] = []
        self._info: dict[str, list[str]] = {}
        self._dates: dict[str, dict[str, int]] = {}

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            token = _TOKEN.match(data, at)
            if token is None:
                break
            at = token.end()
            word, number, code, symbol, brace, plain = token.groups()
            if word:
                value = int(number) if number else None
                if word == b"bin":
                    at += max(value or 0, 0)
                self._control(word.decode("ascii"), value)
            elif code:
                self._byte(int(code, 16))
            elif symbol:
                self._symbol(symbol)
            elif brace:
                self._brace(brace)
            elif plain:
                self._plain(plain)

    def finish(self) -> Blocks:
        self._end_paragraph()
        self._end_table()
        if self._notes:
            self._out.heading("Notes", 1)
            for number, note in enumerate(self._notes, 1):
                self._out.paragraph(f"[{number}] {note}")
        return self._out

    def title(self) -> str:
        return one_line("".join(self._info.get("title", ())))

    def metadata(self) -> Metadata:
        author = "".join(self._info.get("author", ())) or "".join(self._info.get("operator", ()))
        dates = [_date(self._dates.get(key, {})) for key in ("revtim", "creatim")]
        return stated(authors=(author,), dates=dates)

    # --- groups

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._skip = 0
        if brace == b"{":
            if len(self._stack) >= MOST_DEPTH:
                raise UnreadableFile("nested too deep")
            self._stack.append(self._state)
            self._state = replace(self._state, starred=False)
        elif self._stack:
            before = self._state
            self._state = self._stack.pop()
            if before.into.startswith("note") and before.into != self._state.into:
                self._end_note(before.into)
            self.closed = not self._stack

    def _end_note(self, into: str) -> None:
        text = " ".join("".join(self._info.pop(into, ())).split())
        if text:
            self._notes.append(text)
            self._write(f"[{len(self._notes)}]")

    # --- control words

    def _control(self, word: str, value: int | None) -> None:
        if word == "u" and value is not None:
            self._unicode(value)
            return
        self._flush()
        self._skip = 0
        state = self._state
        if word in _INFO or word == "info":
            self._state = replace(state, into=word if word in _INFO else "nowhere")
        elif word in {"footnote", "annotation"} and state.into == "body":
            self._state = replace(state, into=f"note {len(self._stack)}")
        elif word == "stylesheet":
            self._state = replace(state, into="styles")
        elif word == "listtext":
            self._state = replace(state, into="marker")
        elif word == "fonttbl":
            self._state = replace(state, into="fonts")
        elif word in _SKIPPED or (state.starred and word not in _KEPT_THOUGH_STARRED and state.into == "body"):
            self._state = replace(state, into="nowhere")
        elif word in _CHARACTERS:
            self._write(_CHARACTERS[word])
        elif word in {"par", "sect", "page", "row", "cell", "nestcell", "nestrow"}:
            self._break(word)
        else:
            self._property(word, value)
        if self._state.starred:
            self._state = replace(self._state, starred=False)

    def _property(self, word: str, value: int | None) -> None:
        state, number = self._state, value or 0
        if word == "ansicpg":
            self._default = _codec(f"cp{number}") or ("utf-8" if number == 65001 else self._default)
        elif word in {"mac", "pc", "pca"}:
            self._default = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}[word]
        elif word == "f":
            if state.into == "fonts":
                self._font = number
            else:
                self._state = replace(state, encoding=self._fonts.get(number, ""))
        elif word == "fcharset" and state.into == "fonts":
            # Charset 0 leaves the choice to the document; symbol fonts (2) have no letters.
            self._fonts[self._font] = _CHARSETS.get(number, "") if number else ""
        elif word == "uc":
            self._state = replace(state, fallback_bytes=min(max(number, 0), 16))
        elif word in {"v", "deleted"}:
            self._state = replace(state, hidden=value != 0)
        elif word == "plain":
            self._state = replace(state, hidden=False, encoding="")
        elif word in {"yr", "mo", "dy", "hr", "min"} and state.into in _INFO:
            self._dates.setdefault(state.into, {})[word] = number
        else:
            self._paragraph_property(word, value)

    def _paragraph_property(self, word: str, value: int | None) -> None:
        number = value or 0
        if word == "s":
            self._style = number
            if self._state.into == "body":
                self._paragraph.level = self._levels.get(number, 0)
        elif word == "outlinelevel" and 0 <= number < 9:
            if self._state.into == "styles":
                self._levels[self._style] = number + 1
            elif self._state.into == "body":
                self._paragraph.level = number + 1
        elif word == "pard" and self._state.into == "body":
            self._paragraph.level, self._paragraph.in_table, self._paragraph.marker = 0, False, ""
        elif word == "intbl" and self._state.into == "body":
            self._paragraph.in_table = True

    # --- text

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._state = replace(self._state, starred=True)
        elif symbol in b"\r\n":
            self._control("par", None)
        elif symbol in _SYMBOLS:
            if self._skip:
                self._skip -= 1
            else:
                self._flush()
                self._write(_SYMBOLS[symbol])

    def _byte(self, byte: int) -> None:
        if self._skip:
            self._skip -= 1
        else:
            self._bytes.append(byte)

    def _plain(self, plain: bytes) -> None:
        left_out = min(self._skip, len(plain))
        self._skip -= left_out
        self._bytes += plain[left_out:]

    def _unicode(self, value: int) -> None:
        self._flush()
        unit = value & 0xFFFF
        self._skip = self._state.fallback_bytes
        if 0xD800 <= unit < 0xDC00:
            self._lead = chr(unit)
            return
        pair, self._lead = self._lead + chr(unit), ""
        self._write(pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))

    def _flush(self) -> None:
        if self._bytes:
            data, self._bytes = bytes(self._bytes), bytearray()
            self._write(data.decode(self._state.encoding or self._default, "replace"))

    def _write(self, text: str) -> None:
        into = self._state.into
        if into not in {"nowhere", "fonts", "styles"}:
            self.chars += len(text)
        if self._state.hidden:
            return
        if into == "body":
            self._paragraph.parts.append(text)
        elif into == "marker":
            self._paragraph.marker += text
        elif into in _INFO or into.startswith("note"):
            self._info.setdefault(into, []).append(text)

    # --- paragraphs and tables

    def _break(self, word: str) -> None:
        if self._state.into.startswith("note"):
            self._write(" ")
        elif self._state.into == "body":
            if word in {"cell", "nestcell"}:
                self._cells.append("".join(self._paragraph.parts))
                self._paragraph.parts = []
            elif word in {"row", "nestrow"}:
                self._rows.append(self._cells)
                self._cells = []
            elif self._paragraph.in_table and (self._paragraph.parts or self._cells):
                self._paragraph.parts.append(" ")
            else:
                self._end_paragraph()

    def _end_paragraph(self) -> None:
        self._flush()
        paragraph = self._paragraph
        text = "".join(paragraph.parts)
        if self._cells:  # a row that its file never ends
            self._rows.append(self._cells)
            self._cells = []
        if text.strip():
            self._end_table()
            marker = paragraph.marker.strip()
            if paragraph.level:
                self._out.heading(f"{marker} {text.strip()}" if marker else text, paragraph.level)
            elif marker:
                self._out.item(text, 0, marker if any(map(str.isalnum, marker)) else "-")
            else:
                self._out.paragraph(text)
        # A paragraph goes on with the properties of the one before until `\pard`.
        self._paragraph = _Paragraph(level=paragraph.level, in_table=paragraph.in_table)

    def _end_table(self) -> None:
        rows, self._rows = self._rows, []
        self._out.rows(rows)


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        return ""


def _date(parts: dict[str, int]) -> str:
    if not {"yr", "mo", "dy"} <= parts.keys():
        return ""
    date = f"{parts['yr']:04}-{parts['mo']:02}-{parts['dy']:02}"
    return f"{date}T{parts.get('hr', 0):02}:{parts.get('min', 0):02}" if "hr" in parts else date
