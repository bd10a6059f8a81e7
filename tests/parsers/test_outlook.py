from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbook.errors import UnreadableFile
from openbook.parsers import read_bytes
from openbook.parsers.outlook import decompressed_rtf, read_outlook

Tree = dict[str, "bytes | Tree"]
FREE, END, NONE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF


def compound(tree: Tree) -> bytes:
    """A compound file ([MS-CFB]) of small streams, all in the mini stream."""
    entries: list[bytes] = []
    mini = bytearray()
    mini_fat: list[int] = []

    def stream(data: bytes) -> int:
        first, count = len(mini) // 64, -(-len(data) // 64)
        mini.extend(data.ljust(count * 64, b"\0"))
        mini_fat.extend([*range(first + 1, first + count), END] if count else [])
        return first if count else END

    def add(name: str, value: bytes | Tree, following: int) -> int:
        child = NONE
        if isinstance(value, dict):
            for inner, what in value.items():
                child = add(inner, what, child)
            kind, start, size = 1, 0, 0
        else:
            kind, start, size = 2, stream(value), len(value)
        entries.append(entry(name, kind, following, child, start, size))
        return len(entries)  # the root is number 0

    top = NONE
    for name, value in tree.items():
        top = add(name, value, top)
    mini_fat_sectors = -(-len(mini_fat) // 128)
    mini_sectors = -(-len(mini) // 512)
    directory_sectors = -(-(len(entries) + 1) // 4)
    chains = [1, directory_sectors, mini_fat_sectors, mini_sectors]  # the first is the table itself
    begins = [sum(chains[:i]) for i in range(4)]
    fat = [0xFFFFFFFD]
    for begin, count in zip(begins[1:], chains[1:], strict=True):
        fat += [*range(begin + 1, begin + count), END] if count else []
    assert len(fat) <= 128
    root = entry("Root Entry", 5, NONE, top, begins[3] if mini else END, len(mini))
    directory = b"".join([root, *entries]).ljust(directory_sectors * 512, b"\0")
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    head += struct.pack(
        "<IIIIIIIII", 0, 1, begins[1], 0, 4096, begins[2] if mini_fat else END, mini_fat_sectors, END, 0
    )
    head += struct.pack("<109I", 0, *[FREE] * 108)
    table = struct.pack("<128I", *fat, *[FREE] * (128 - len(fat)))
    small = struct.pack(f"<{len(mini_fat)}I", *mini_fat).ljust(mini_fat_sectors * 512, b"\xff")
    return head + table + directory + small + bytes(mini).ljust(mini_sectors * 512, b"\0")


def entry(name: str, kind: int, following: int, child: int, start: int, size: int) -> bytes:
    wide = name.encode("utf-16-le") + b"\0\0"
    head = wide.ljust(64, b"\0") + struct.pack("<HBBIII", len(wide), kind, 1, NONE, following, child)
    return head + bytes(16 + 4 + 16) + struct.pack("<IQ", start, size)


def properties(head: int, **fixed: bytes) -> bytes:
    rows = (struct.pack("<HHI", 0x40, int(tag[1:], 16), 6) + value.ljust(8, b"\0") for tag, value in fixed.items())
    return bytes(head) + b"".join(rows)


def ticks(moment: datetime) -> bytes:
    return struct.pack("<Q", int((moment - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10_000_000)


def wide(tag: str, text: str) -> Tree:
    return {f"__substg1.0_{tag}001F": text.encode("utf-16-le")}


MESSAGE: Tree = {
    "__properties_version1.0": properties(32, x0039=ticks(datetime(2024, 3, 5, 9, tzinfo=UTC))),
    **wide("0037", "Größe der Fähre"),
    **wide("0C1A", "Zoë"),
    **wide("5D01", "zoe@example.com"),
    **wide("0E04", "Bob"),
    **wide("1000", "Nine euros.\r\n"),
}


def attachment(name: str, data: bytes) -> Tree:
    return {"__properties_version1.0": properties(8), **wide("3707", name), "__substg1.0_37010102": data}


def test_headers_body_and_metadata() -> None:
    content = read_bytes(compound(MESSAGE), "a.msg")
    assert content.text == (
        "From: Zoë <zoe@example.com>\nTo: Bob\nDate: 2024-03-05 09:00 UTC\nSubject: Größe der Fähre\n\nNine euros.\n"
    )
    assert content.title == "Größe der Fähre"
    assert dict(content.metadata) == {
        "author": "Zoë <zoe@example.com>",
        "to": "Bob",
        "date": "2024-03-05T09:00:00+00:00",
    }


def test_attachments_and_messages_inside() -> None:
    inner: Tree = {**MESSAGE, **wide("0037", "Inner"), "__properties_version1.0": properties(24)}
    tree: Tree = {
        **MESSAGE,
        "__attach_version1.0_#00000000": attachment("terms.md", b"# Terms\n\nNo dogs.\n"),
        "__attach_version1.0_#00000001": {"__properties_version1.0": properties(8), "__substg1.0_3701000D": inner},
        "__attach_version1.0_#00000002": attachment("a.bin", bytes(100)),
    }
    content = read_outlook(compound(tree), "a.msg")
    assert [(mark.level, mark.title) for mark in content.headings] == [
        (1, "Attachment: terms.md"),
        (2, "Terms"),
        (1, "Attachment: Inner"),
    ]
    assert "No dogs." in content.text
    assert "Subject: Inner" in content.text
    assert "Attachment: a.bin (not read: binary data, not text)" in content.text


def test_strings_of_8_bits_and_a_body_of_html() -> None:
    page = struct.pack("<I", 1251)
    tree: Tree = {
        "__properties_version1.0": properties(32, x3FFD=page),
        "__substg1.0_0037001E": "Паром".encode("cp1251") + b"\0",
        "__substg1.0_10130102": b"<h1>Fares</h1><p>Nine <b>euros</b>.</p>",
    }
    content = read_outlook(compound(tree), "a.msg")
    assert content.title == "Паром"
    assert content.text.endswith("Fares\n\nNine euros.\n")


def test_compressed_rtf() -> None:
    """The two examples of [MS-OXRTFCP] 3."""
    first = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )
    assert decompressed_rtf(first) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    second = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
    assert decompressed_rtf(second) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"
    assert decompressed_rtf(b"") == decompressed_rtf(bytes(40)) == b""


def test_what_is_no_message() -> None:
    with pytest.raises(UnreadableFile, match="not an Outlook message"):
        read_outlook(compound({"Contents": b"text"}), "a.msg")
    for data in (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"text", compound(MESSAGE)[:700]):
        with pytest.raises(UnreadableFile, match="Outlook"):
            read_outlook(data, "a.msg")


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_damaged_files_are_read_or_refused(damage: list[tuple[int, int]]) -> None:
    data = bytearray(compound({**MESSAGE, "__attach_version1.0_#00000000": attachment("a.txt", b"text")}))
    for at, value in damage:
        data[at % len(data)] = value
    with contextlib.suppress(UnreadableFile):
        content = read_outlook(bytes(data), "a.msg")
        assert all(0 <= mark.start < len(content.text) for mark in content.headings)


@given(st.binary(max_size=200))
def test_compressed_rtf_of_any_bytes_stays_bounded(body: bytes) -> None:
    assert len(decompressed_rtf(struct.pack("<II", 0, 1_000) + b"LZFu" + bytes(4) + body)) < 1_200
