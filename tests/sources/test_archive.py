from __future__ import annotations

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from openbook.core.errors import SourceError
from openbook.sources import archive as archive_module
from openbook.sources.archive import ArchiveSource
from openbook.sources.registry import open_source
from openbook.testing import check_source
from tests.sources.conftest import fetch

ID = "0123456789abcdef0123456789abcdef"


def zipped(path: Path | io.BytesIO, members: dict[str, bytes | str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "f.zip"


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as refused:
        fetch(ArchiveSource(f"zip://{path}"))
    return str(refused.value)


def test_an_export_of_notion(path: Path) -> None:
    part, folder = io.BytesIO(), f"Ferry plan {ID}"
    table = f"{folder}/Islands {ID}_all.csv"
    zipped(part, {f"{folder}.md": "# Ferry plan", table: "name,ferry\n", "inner.zip": b"PK"})
    zipped(path, {"Part-1.zip": part.getvalue(), "index.html": "<title>all</title>"})
    base = f"zip://{path}"
    found = fetch(ArchiveSource(base))
    assert {name.removeprefix(f"{base}/"): (each, found.items[name].metadata.get("title")) for name, each in found.read.items()} == {
        f"Part-1.zip/{folder}.md": (b"# Ferry plan", "Ferry plan"),
        f"Part-1.zip/{table}": (b"name,ferry\n", "Islands"),
        "Part-1.zip/inner.zip": (b"PK", None),  # only one level is opened
        "index.html": (b"<title>all</title>", None),
    }  # fmt: skip


def test_conformance(path: Path) -> None:
    zipped(path, {"a.txt": "first", "b.txt": "second"})

    def change() -> str:
        zipped(path, {"a.txt": "other", "b.txt": "second"})
        return f"zip://{path}/a.txt"

    check_source(lambda: open_source(f"zip://{path}", {}), change, path.unlink)


def test_a_zipped_folder(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("notes/a.txt", (2024, 2, 29, 12, 0, 0)), "text")
        archive.writestr(zipfile.ZipInfo("notes/b.txt", (1980, 0, 0, 0, 0, 0)), "no such day")
        archive.writestr("__MACOSX/notes/._a.txt", "of macOS")
        archive.writestr("notes/.obsidian/app.json", "{}")
        archive.mkdir("notes/empty")
    found = fetch(ArchiveSource(f"zip://{path}"))
    years = {name[-5:]: str(each.metadata.get("modified"))[:4] for name, each in found.items.items()}
    assert years == {"a.txt": "2024", "b.txt": "None"}
    assert not found.verdicts


def test_names_that_lead_out_links_and_locked_members_get_verdicts(path: Path) -> None:
    link, locked, lzma = zipfile.ZipInfo("link.txt"), zipfile.ZipInfo("locked.txt"), zipfile.ZipInfo("lzma.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    lzma.compress_type = zipfile.ZIP_LZMA
    outside = ["../up.txt", "a/../../up.txt", "/etc/passwd", "C:\\x.txt", "a\\..\\b.txt"]
    with zipfile.ZipFile(path, "w") as archive:
        for name in ["ok.txt", "twice.txt", *outside]:
            archive.writestr(name, "text")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("twice.txt", "text")
        archive.writestr(link, "/etc/passwd")
        archive.writestr(locked, "secret")
        archive.writestr(lzma, "text")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"locked.txt") - 46
    data[at + 8] |= 1  # the flag in the list of members
    path.write_bytes(data)

    base = f"zip://{path}"
    found = fetch(ArchiveSource(base))
    assert found.read == {f"{base}/ok.txt": b"text"}
    assert {
        name.removeprefix(f"{base}/"): (verdict.outcome, verdict.reason) for name, verdict in found.verdicts.items()
    } == {
        **dict.fromkeys(outside, ("skipped", "its name leads out of the archive")),
        "twice.txt": ("failed", "the archive holds 2 files of this name"),
        "link.txt": ("skipped", "a link"),
        "locked.txt": ("failed", "encrypted with a password"),
        "lzma.txt": ("failed", "packed in an unusual way"),
    }


def test_a_bomb_is_refused_whole(path: Path, tmp_path: Path) -> None:
    zipped(path, {"a.txt": bytes(30_000_000), "b.txt": "text"})
    assert "unpacks from 0.0 MB to 30.0 MB, like a zip bomb" in refusal(path)
    zipped(tmp_path / "outer.zip", {"inner.zip": path.read_bytes(), "ok.txt": "text"})
    base = f"zip://{tmp_path}/outer.zip"
    found = fetch(ArchiveSource(base))
    assert found.read == {f"{base}/ok.txt": b"text"}
    assert found.verdicts[f"{base}/inner.zip/"].outcome == "failed"


def test_members_that_share_their_bytes(path: Path) -> None:
    """The list names one packed member 2,000 times, as in David Fifield's bombs."""
    one = io.BytesIO()
    zipped(one, {"aaaa": bytes(200_000)})
    data = one.getvalue()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = [data[start:end].replace(b"aaaa", f"{n:04}".encode()) for n in range(2000)]
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2000, 2000, sum(map(len, entries)), start, 0)
    path.write_bytes(data[:start] + b"".join(entries) + ending)
    assert "like a zip bomb" in refusal(path)


def test_a_million_members(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(path, {f"{n}.txt": "" for n in range(50)})
    monkeypatch.setattr(archive_module, "_MAX_MEMBERS", 49)
    assert "holds 50 files, over the limit of 49" in refusal(path)
    monkeypatch.setattr(archive_module, "_MAX_DIRECTORY_BYTES", 1000)
    assert "its list of files is over the limit of 1,000 bytes" in refusal(path)


def test_what_is_no_archive_or_damaged(path: Path) -> None:
    assert "No such file" in refusal(path)
    path.write_text("text")
    assert refusal(path).endswith("f.zip cannot be read: File is not a zip file. Export it again.")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "the text")
    path.write_bytes(path.read_bytes().replace(b"the text", b"the test"))
    listing = ArchiveSource(f"zip://{path}").items({})
    item = next(listing)
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        list(item.read())  # type: ignore[union-attr]
