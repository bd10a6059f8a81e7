from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbook.core.errors import ConfigError, KnowledgeError
from openbook.core.records import Verdict
from openbook.knowledge import sync
from openbook.knowledge.ingest.discovery import FoundFile, Rules, discover, folder_changes
from openbook.knowledge.store.names import display_path, path_displayed
from tests.knowledge.conftest import Library


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def write(path: Path, text: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def seen(paths: Sequence[str | Path]) -> list[str]:
    """Each thing as `path` or `path: outcome, reason`."""
    return [
        display_path(item.path) if isinstance(item, FoundFile) else f"{item.path}: {item.outcome}, {item.reason}"
        for item in discover([Path(path) for path in paths])
    ]


def test_files_come_sorted_depth_first_without_hidden_ones(folder: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b/c.rst", "c/a.pdf", "a.txt", "B.html", "README", "a.xyz"):
        write(folder / name)
    for name in (".git/a.txt", ".hidden.txt", "__pycache__/a.txt", "node_modules/a.md"):
        write(folder / name)
    for name in ("film.mp4", "photo.png", "x.zip"):
        write(folder / name)
    assert seen(["docs"]) == [
        "docs/B.html",
        "docs/README",  # what an unknown name holds is seen when it is read
        "docs/a/b/c.rst",
        "docs/a/z.md",
        "docs/a.txt",
        "docs/a.xyz",
        "docs/b.txt",
        "docs/c/a.pdf",
        "docs/film.mp4: skipped, video is not read: transcribe it first",
        "docs/photo.png: skipped, an image: needs OCR",
        "docs/x.zip: skipped, an archive: unpack it",
    ]
    with_ocr = [str(found.path) for found in discover([Path("docs")], ocr=True) if isinstance(found, FoundFile)]
    assert "docs/photo.png" in with_ocr


def test_links_inside_a_folder_are_not_followed(folder: Path) -> None:
    write(folder / "a/file.txt")
    write(folder / ".secret/file.txt")
    write(folder.parent / "outside.txt")
    (folder / "in.txt").symlink_to("a/file.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "out.txt").symlink_to(folder.parent / "outside.txt")
    (folder / "out").symlink_to(folder.parent)
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "self.txt").symlink_to("self.txt")
    (folder / "hidden.txt").symlink_to(".secret/file.txt")
    assert seen(["docs"]) == [
        "docs/a/file.txt",
        "docs/gone.txt: skipped, broken link",
        "docs/hidden.txt: skipped, link inside the folder",
        "docs/in.txt: skipped, link inside the folder",
        "docs/loop: skipped, link inside the folder",
        "docs/out: skipped, link to a folder outside the folder",
        "docs/out.txt: skipped, link to a file outside the folder",
        "docs/self.txt: skipped, broken link",
    ]


def test_each_file_comes_once(folder: Path) -> None:
    write(folder / "a.txt")
    Path("link").symlink_to("docs")
    assert seen(["docs/a.txt", "docs", folder, "link", "docs/../docs/a.txt"]) == ["docs/a.txt"]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("docs/handbok.md", r"No such file or folder: docs/handbok\.md\. Did you mean 'handbook\.md'\?"),
        ("nowhere/at/all", "No such file or folder: nowhere/at/all"),
        ("docs/handbook.md/x", r"docs/handbook\.md/x"),
        ("docs/gone.txt", r"docs/gone\.txt is a broken link"),
        ("a\0b", "not a valid path"),
        ("-", r"Standard input \(-\) is not read here\. Save it to a file"),
        ("https://example.com/a.pdf", "pdf is an address. To fetch what is there .* openbook sync https://example.com"),
    ],
)
def test_a_missing_path_is_an_error_with_advice(folder: Path, named: str, told: str) -> None:
    write(folder / "handbook.md")
    (folder / "gone.txt").symlink_to("nowhere")
    with pytest.raises(KnowledgeError, match=told):
        discover([Path("docs"), Path(named)])
    if named in ("-", "https://example.com/a.pdf"):
        write(Path(named))  # what is there is read, whatever its name
        assert len(seen([named])) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_special_files_are_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    assert seen(["docs", "docs/pipe.txt"]) == ["docs/pipe.txt: skipped, a named pipe, not a file"]
    os.mkfifo(folder / ".openbookignore")
    (found,) = seen(["docs"])
    assert found.startswith("docs: failed, its .openbookignore cannot be read: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("secret.txt\n".encode("utf-16"), "it is not UTF-8; save it as UTF-8"),
        (b"secret.txt\n" + b"#" * 1_000_000, "it has more than 1,000,000 bytes"),
        (b"[z-a]\n", "bad character range z-a"),
        (b"!\n", "Its lines must follow the syntax of .gitignore"),
        (b"*a*a*a*b\n", "the line '*a*a*a*b' has too many * to be matched quickly; write it with fewer"),
        (b"*a*a/*a*a/*a*b\n", "has too many *"),
        (b"**/a/**/a/**/b\n", "has too many *"),
        (b"*a*a*b\n" * 51, "its lines together have too many *"),
    ],
)
def test_a_folder_with_an_invalid_ignore_file_is_not_read(folder: Path, content: bytes, told: str) -> None:
    write(folder / "secret.txt")
    write(Path("other") / "a.txt")
    (folder / ".openbookignore").write_bytes(content)
    other, found = sorted(seen(["other", "docs"]), reverse=True)
    assert other == "other/a.txt"
    assert found.startswith("docs: failed, its .openbookignore cannot be read: ")
    assert told in found


STARS = ["# *** a * b * c * d", "\\*\\*a\\*b\\*c", "[*]x[*]y[*]z[*]", "**/*.egg-info/**", *["*.pyc"] * 500, "*.l*g"]


@pytest.mark.parametrize(
    ("lines", "rules", "found"),
    [
        ("\n".join(STARS), Rules(), {"a.md", "keep.txt", "other.txt"}),  # plain stars have no limit
        ("\ufeffkeep.txt\r\n", Rules(), {"a.md", "other.txt", "b.log"}),  # it may begin with a byte order mark
        ("*.txt\n!keep.txt\n", Rules(include=("*.md",)), {"a.md"}),  # it adds nothing to the include globs
    ],
)
def test_an_ignore_file_leaves_out_what_its_globs_say(folder: Path, lines: str, rules: Rules, found: set[str]) -> None:
    for name in ("a.md", "keep.txt", "other.txt", "b.log"):
        write(folder / name)
    (folder / ".openbookignore").write_bytes(lines.encode())
    assert {each.path.name for each in discover([folder], rules) if isinstance(each, FoundFile)} == found


def test_an_invalid_glob_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"A glob is not valid: bad character range z-a\. Globs have the syntax"):
        discover([folder], Rules(exclude=("[z-a]",)))


def test_a_folder_that_vanishes_has_a_verdict(folder: Path) -> None:
    write(folder / "a.txt")
    (folder / "b").mkdir()
    found = discover([folder])
    assert isinstance(next(found), FoundFile)
    (folder / "b").rmdir()
    assert [item.reason for item in found if isinstance(item, Verdict)] == ["does not exist any more"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_closed_folder_has_a_verdict(folder: Path) -> None:
    (folder / "b").mkdir(mode=0)
    assert seen(["docs"]) == ["docs/b: failed, no permission to read it"]


def test_odd_names_are_escaped(folder: Path) -> None:
    raw = os.fsencode(folder)
    names = ("a\nb.txt", "\x1b[2J.md", "a\u202eb.txt", "back\\slash.txt", "Zoë 富.txt")
    for name in (b"caf\xe9.txt", *map(str.encode, names)):
        Path(os.fsdecode(raw + b"/" + name)).write_text("x")
    assert sorted(seen(["docs"])) == [
        "docs/Zoë 富.txt", "docs/\\x1b[2J.md", "docs/a\\nb.txt", "docs/a\\u202eb.txt", "docs/back\\\\slash.txt",
        "docs/caf\\xe9.txt",
    ]  # fmt: skip


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
@example("a b\xa0é\xe9\\xe9\nb\\n\\\\x00\x1b\x80\udc80\udcff\ud800\u200b\U000e0041\U0010ffff")
def test_a_displayed_path_names_one_path(name: str) -> None:
    path = Path("/", name)
    assert display_path(path).isprintable()
    assert path_displayed(display_path(path)) == path  # so two paths are never shown as the same


def test_very_deep_folders(folder: Path) -> None:
    write(folder.joinpath(*["d"] * 300, "a.txt"))
    assert len(seen(["docs"])) == 1


def test_a_knowledge_base_in_the_folder_is_left_out(library: Library) -> None:
    library.write("a.txt", "A text.")
    for _ in range(3):
        report = sync(library.base, library.docs.parent, library.embedder)
        assert report.version == 1
        assert library.base.documents() == [library.path("a.txt")]
    assert [v.reason for v in report.verdicts if v.outcome == "skipped"] == ["a knowledge base"]


POLLS = 600  # of half a second: five minutes


@pytest.mark.parametrize("moved", [False, pytest.param(True, marks=pytest.mark.laws)])
def test_changes_are_reported_also_in_a_folder_that_replaces_another(library: Library, moved: bool) -> None:
    told = folder_changes([library.docs])
    assert next(told) == 0  # watching has begun
    if moved:
        library.docs.rename(library.docs.with_name("old"))
    else:
        shutil.rmtree(library.docs)
    assert any(islice(told, POLLS))
    library.docs.mkdir()
    assert any(islice(told, POLLS))
    assert 0 in islice(told, POLLS)  # all of that is reported
    library.write("new.txt", "new")
    assert any(islice(told, POLLS))
