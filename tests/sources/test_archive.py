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


def test_an_export_of_notion(tmp_path: Path) -> None:
    part = io.BytesIO()
    zipped(
        part,
        {
            f"Ferry plan {ID}.md": "# Ferry plan",
            f"Ferry plan {ID}/Islands {ID}_all.csv": "name,ferry\n",
            "inner.zip": b"PK",
        },
    )
    zipped(tmp_path / "export.zip", {"Export-1-Part-1.zip": part.getvalue(), "index.html": "<title>all</title>"})
    base = f"zip://{tmp_path}/export.zip"
    first = fetch(ArchiveSource(base))
    assert first.read == {
        f"{base}/Export-1-Part-1.zip/Ferry plan {ID}.md": b"# Ferry plan",
        f"{base}/Export-1-Part-1.zip/Ferry plan {ID}/Islands {ID}_all.csv": b"name,ferry\n",
        f"{base}/Export-1-Part-1.zip/inner.zip": b"PK",  # only one level is opened
        f"{base}/index.html": b"<title>all</title>",
    }
    titles = [item.metadata.get("title") for item in first.items.values()]
    assert titles == ["Ferry plan", "Islands", None, None]
    assert not fetch(ArchiveSource(base), first.known).read

    zipped(tmp_path / "export.zip", {"index.html": "<title>new</title>"})
    assert fetch(ArchiveSource(base), first.known).read == {f"{base}/index.html": b"<title>new</title>"}


def test_conformance(tmp_path: Path) -> None:
    path = tmp_path / "f.zip"
    zipped(path, {"a.txt": "first", "b.txt": "second"})

    def change() -> str:
        zipped(path, {"a.txt": "other", "b.txt": "second"})
        return f"zip://{path}/a.txt"

    check_source(lambda: open_source(f"zip://{path}", {}), change, path.unlink)


def test_a_zipped_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("notes/a.txt", (2024, 2, 29, 12, 0, 0)), "text")
        archive.writestr(zipfile.ZipInfo("notes/b.txt", (1980, 0, 0, 0, 0, 0)), "no such day")
        archive.writestr("__MACOSX/notes/._a.txt", "of macOS")
        archive.writestr("notes/.obsidian/app.json", "{}")
        archive.mkdir("notes/empty")
    first = fetch(ArchiveSource(f"zip://{tmp_path}/f.zip"))
    assert [name.removeprefix(f"zip://{tmp_path}/f.zip/") for name in first.read] == ["notes/a.txt", "notes/b.txt"]
    dates = [item.metadata.get("modified") for item in first.items.values()]
    assert str(dates[0])[:4] == "2024"
    assert dates[1] is None
    assert not first.verdicts


def test_names_that_lead_out_links_and_locked_members_get_verdicts(tmp_path: Path) -> None:
    link, locked, lzma = zipfile.ZipInfo("link.txt"), zipfile.ZipInfo("locked.txt"), zipfile.ZipInfo("lzma.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    lzma.compress_type = zipfile.ZIP_LZMA
    outside = ["../up.txt", "a/../../up.txt", "/etc/passwd", "C:\\x.txt", "a\\..\\b.txt"]
    path = tmp_path / "f.zip"
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


def test_a_bomb_is_refused_whole(tmp_path: Path) -> None:
    zipped(tmp_path / "f.zip", {"a.txt": bytes(30_000_000), "b.txt": "text"})
    with pytest.raises(SourceError, match=r"unpacks from 0\.0 MB to 30\.0 MB, like a zip bomb"):
        fetch(ArchiveSource(f"zip://{tmp_path}/f.zip"))

    inner = io.BytesIO((tmp_path / "f.zip").read_bytes())
    zipped(tmp_path / "outer.zip", {"inner.zip": inner.getvalue(), "ok.txt": "text"})
    base = f"zip://{tmp_path}/outer.zip"
    found = fetch(ArchiveSource(base))
    assert found.read == {f"{base}/ok.txt": b"text"}
    assert found.verdicts[f"{base}/inner.zip/"].outcome == "failed"


def test_members_that_share_their_bytes(tmp_path: Path) -> None:
    """The list names one packed member 2,000 times, as in David Fifield's bombs."""
    one = io.BytesIO()
    zipped(one, {"aaaa": bytes(200_000)})
    data = one.getvalue()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = [data[start:end].replace(b"aaaa", f"{n:04}".encode()) for n in range(2000)]
    ending = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2000, 2000, sum(map(len, entries)), start, 0)
    (tmp_path / "f.zip").write_bytes(data[:start] + b"".join(entries) + ending)
    with pytest.raises(SourceError, match="like a zip bomb"):
        fetch(ArchiveSource(f"zip://{tmp_path}/f.zip"))


def test_a_million_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(tmp_path / "f.zip", {f"{n}.txt": "" for n in range(50)})
    monkeypatch.setattr(archive_module, "_MAX_MEMBERS", 49)
    with pytest.raises(SourceError, match="holds 50 files, over the limit of 49"):
        fetch(ArchiveSource(f"zip://{tmp_path}/f.zip"))
    monkeypatch.setattr(archive_module, "_MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(SourceError, match="its list of files is over the limit of 1,000 bytes"):
        fetch(ArchiveSource(f"zip://{tmp_path}/f.zip"))


def test_what_is_no_archive_or_damaged(tmp_path: Path) -> None:
    (tmp_path / "f.zip").write_text("text")
    with pytest.raises(SourceError, match=r"f\.zip cannot be read: File is not a zip file\. Export it again\."):
        fetch(ArchiveSource(f"zip://{tmp_path}/f.zip"))
    with pytest.raises(SourceError, match="No such file"):
        fetch(ArchiveSource(f"zip://{tmp_path}/none.zip"))
    with pytest.raises(SourceError, match=r"^zip://f\.zip must be zip:// and an absolute path"):
        fetch(ArchiveSource("zip://f.zip"))

    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        archive.writestr("a.txt", "the text")
    (tmp_path / "g.zip").write_bytes((tmp_path / "g.zip").read_bytes().replace(b"the text", b"the test"))
    found = ArchiveSource(f"zip://{tmp_path}/g.zip").items({})
    item = next(found)
    with pytest.raises(zipfile.BadZipFile, match="Bad CRC-32"):
        list(item.read())  # type: ignore[union-attr]
