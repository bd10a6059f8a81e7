"""Finding by name, exact words and reading, of one version and for one reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.cli import run
from openbook.core.errors import QuestionError
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, lookup, remove
from openbook.knowledge.lookup import compare, entries, find, grep, outline, read
from openbook.testing import HashEmbedder
from tests.conftest import base_with
from tests.parsers.samples import make_pdf

GUIDE = "# Guide\n\nIntro.\n\n## Travel\n\nPer diem is 30 euros.\nThe PER\nDIEM of interns is 20 euros.\n\n## Leave\n\n28 days.\n"
EVERYTHING, NEWEST = Scope(None, "", frozenset({"hr"})), Scope()


@pytest.fixture
def base(tmp_path: Path) -> KnowledgeBase:
    base = base_with(tmp_path / "docs", {"guide.md": GUIDE, "notes.txt": "Nothing per se."}, place=tmp_path / "kb")
    secret = tmp_path / "docs" / "pay.txt"
    secret.write_text("The per diem of board members is 300 euros.")
    add(base, [secret], HashEmbedder(), RunOptions(labels=frozenset({"hr"})))
    pages = tmp_path / "docs" / "Form.pdf"
    pages.write_bytes(make_pdf([["First page."], ["Second page.", "Fee: 5 euros"]]))
    add(base, [pages], HashEmbedder())
    return base


def put(base: KnowledgeBase, name: str, text: str) -> None:
    path = base.folder.parent / "docs" / name
    path.write_text(text, encoding="utf-8")
    add(base, [path], HashEmbedder())


def names(paths: list[str]) -> list[str]:
    return [path.rpartition("/")[2] for path in paths]


def test_names_are_found_by_a_part_or_a_pattern(base: KnowledgeBase) -> None:
    assert names(find(base, NEWEST, "UID")) == ["guide.md"]
    assert names(find(base, NEWEST, "*.PDF")) == ["Form.pdf"]
    assert names(find(base, NEWEST, "pay")) == []
    assert names(find(base, EVERYTHING, "pay")) == ["pay.txt"]
    with pytest.raises(QuestionError, match="empty"):
        find(base, NEWEST, " ")


def test_words_are_found_across_lines_with_their_place(base: KnowledgeBase) -> None:
    found = grep(base, NEWEST, "per  diem").matches
    assert [(each.number, each.line) for each in found] == [
        (7, "Per diem is 30 euros."),
        (8, "The PER\nDIEM of interns is 20 euros."),
    ]
    assert [GUIDE[each.start : each.end] for each in found] == ["Per diem", "PER\nDIEM"]
    assert len(grep(base, NEWEST, "Per diem", case=True).matches) == 1
    everywhere = [each.document for each in grep(base, EVERYTHING, "per diem").matches]
    assert names(everywhere) == ["guide.md", "guide.md", "pay.txt"]
    (fee,) = grep(base, NEWEST, r"^fee: \d+", expression=True).matches
    assert (fee.page, fee.line) == (2, "Fee: 5 euros")
    checks: list[int] = []
    whole = grep(base, NEWEST, "euros", check=lambda: checks.append(1))
    assert (len(whole.matches), whole.more, len(checks) > 3) == (3, False, True)
    parts = [grep(base, NEWEST, "euros", limit=2, skip=skip) for skip in (0, 2)]
    assert [part.more for part in parts] == [True, False]
    assert parts[0].matches + parts[1].matches == whole.matches


def test_older_versions_can_be_searched_and_read(base: KnowledgeBase, tmp_path: Path) -> None:
    version = base.version
    remove(base, [str(tmp_path / "docs" / "guide.md")])
    assert grep(base, NEWEST, "per diem").matches == ()
    then = Scope(version)
    assert len(grep(base, then, "per diem").matches) == 2
    assert read(base, then, "guide.md", start=2, length=5).text == "Guide"
    with pytest.raises(QuestionError, match=r"No document 'guide\.md'"):
        read(base, NEWEST, "guide.md")


def test_a_hidden_document_does_not_exist(base: KnowledgeBase) -> None:
    messages = []
    for name in ("pay.txt", "pax.txt"):
        for look in (read, outline):
            with pytest.raises(QuestionError) as error:
                look(base, NEWEST, name)
            messages.append(str(error.value).replace(name, "NAME"))
    assert len(set(messages)) == 1
    assert read(base, EVERYTHING, "pay.txt").text.startswith("The per diem of board")


def test_a_document_is_read_by_characters_or_by_page(base: KnowledgeBase) -> None:
    part = read(base, NEWEST, "guide.md", start=len(GUIDE) - 10, length=100)
    assert part.text == GUIDE[-10:] == GUIDE[part.start : part.end]
    page = read(base, NEWEST, "Form.pdf", page=2)
    assert (page.page, page.text.split("\n")[0]) == (2, "Second page.")
    assert read(base, NEWEST, "Form.pdf", page=1, start=6, length=100).text.strip() == "page."
    assert read(base, NEWEST, "guide.md", start=10**9).text == ""
    with pytest.raises(QuestionError, match="has no page 3; it has 1 to 2"):
        read(base, NEWEST, "Form.pdf", page=3)
    with pytest.raises(QuestionError, match="it has no pages"):
        read(base, NEWEST, "guide.md", page=1)
    with pytest.raises(QuestionError, match="is a folder of 3 documents"):
        read(base, NEWEST, str(Path(find(base, NEWEST, "guide")[0]).parent))


def test_two_versions_of_a_document_are_compared(base: KnowledgeBase, tmp_path: Path) -> None:
    version = base.version
    put(base, "guide.md", GUIDE.replace("28", "30"))

    def changed(name: str, before: int, scope: Scope | None = NEWEST) -> list[tuple[str, str]]:
        _, pieces = compare(base, name, before, version + 1, scope)
        return [(each.kind, each.text) for each in pieces if each.kind in ("removed", "added")]

    assert changed("guide.md", version) == [("removed", "28"), ("added", "30")]
    assert changed("pay.txt", 0, EVERYTHING) == [("added", "The per diem of board members is 300 euros.")]
    assert changed(str(tmp_path / "docs" / "pay.txt"), 0, None) == changed("pay.txt", 0, EVERYTHING)
    for name in ("pay.txt", "pax.txt"):
        with pytest.raises(QuestionError, match=f"No document '{name}'"):
            changed(name, 0)


def test_an_outline_is_headings_or_pages(base: KnowledgeBase) -> None:
    filler = "<p>" + "Words that fill a passage. " * 30 + "</p>"
    put(base, "page.html", f"<h1>One</h1>{filler}<h2>Two</h2>{filler}<h2>Three</h2>{filler}")
    found = outline(base, NEWEST, "page.html")  # those of its passages
    assert [(each.level, each.title) for each in found] == [(1, "One"), (2, "Two"), (2, "Three")]
    headings = outline(base, NEWEST, "guide.md")
    assert [(each.level, each.title) for each in headings] == [(1, "Guide"), (2, "Travel"), (2, "Leave")]
    assert GUIDE[headings[1].start :].startswith("## Travel")
    assert [(each.page, each.title) for each in outline(base, NEWEST, "Form.pdf")] == [(1, "Page 1"), (2, "Page 2")]


@pytest.mark.parametrize(
    "pattern", ["[", "(" * 400, "a{1001}", r"(a)\1", "((((a{1000}){1000}){1000}){1000})", "\ud800"]
)
def test_a_bad_expression_is_refused(base: KnowledgeBase, pattern: str) -> None:
    with pytest.raises(QuestionError, match="is not a regular expression of RE2"):
        grep(base, NEWEST, pattern, expression=True)


def test_too_much_or_nothing_to_look_for_is_refused(base: KnowledgeBase) -> None:
    for empty, says in ((" ", "empty"), ("x" * 501, "limit is 500")):
        for look in (grep, find):
            with pytest.raises(QuestionError, match=says):
                look(base, NEWEST, empty)
    with pytest.raises(QuestionError, match="not -1 and None"):
        read(base, NEWEST, "guide.md", start=-1)


def test_no_expression_takes_long(base: KnowledgeBase) -> None:
    """Others backtrack in these for longer than the sun will shine, or keep what they captured."""
    put(base, "slow.txt", "ab" * 100_000 + "c")
    for pattern in (r"^(a|b|ab)+$", r"(.)+!", r"(a+)+(b+)+d", r"(?:a|b|ab|\w)*?!"):
        assert grep(base, NEWEST, pattern, expression=True).matches == ()
    (found,) = grep(base, NEWEST, "c").matches[-1:]
    assert (len(found.line), found.line[-1]) == (lookup.MAX_LINE_CHARS // 2 + 1, "c")


def test_places_count_in_characters(base: KnowledgeBase) -> None:
    text = "Größe\N{NO-BREAK SPACE}ölf 🚀\n\nÜBER 🚀 größe\u2003\nÖLF größe ölf\n🚀"
    put(base, "wide.txt", text)
    stored = read(base, NEWEST, "wide.txt").text
    found = grep(base, NEWEST, "größe ÖLF").matches
    assert [(each.number, stored[each.start : each.end]) for each in found] == [
        (1, "Größe\N{NO-BREAK SPACE}ölf"),
        (3, "größe\u2003\nÖLF"),
        (4, "größe ölf"),
    ]
    for pattern in ("🚀", r"\C", "^", r"(?-m)\z", "x*$"):
        lines = stored.split("\n")
        for each in grep(base, NEWEST, pattern, expression=True).matches:
            if each.document.endswith("wide.txt"):
                begin = sum(len(line) + 1 for line in lines[: each.number - 1])
                assert begin <= each.start <= begin + len(lines[each.number - 1])


def test_folders_are_listed_level_by_level(base: KnowledgeBase, tmp_path: Path) -> None:
    for name in ("a/x.txt", "a/b/y.txt", "c/b/z.txt"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    add(base, [tmp_path / "docs" / "a"], HashEmbedder())
    docs = f"{Path(tmp_path / 'docs').as_posix()}/"

    def listed(scope: Scope, folder: str = "") -> list[tuple[str, int | None]]:
        return [(each.path.removeprefix(docs), each.documents) for each in entries(base, scope, folder)]

    assert listed(NEWEST) == [("a/", 2), ("Form.pdf", None), ("guide.md", None), ("notes.txt", None)]
    assert ("pay.txt", None) in listed(EVERYTHING)
    assert listed(NEWEST, "a/") == [("a/b/", 1), ("a/x.txt", None)] == listed(NEWEST, f"{docs}a")
    assert listed(NEWEST, "b") == [("a/b/y.txt", None)]
    add(base, [tmp_path / "docs" / "c"], HashEmbedder(), RunOptions(labels=frozenset({"hr"})))
    assert listed(NEWEST, "b") == [("a/b/y.txt", None)]
    with pytest.raises(QuestionError, match="2 folders end in 'b'"):
        listed(EVERYTHING, "b")
    with pytest.raises(QuestionError, match="no folder 'c'"):
        listed(NEWEST, "c")
    assert listed(Scope(0)) == []


def test_the_commands(base: KnowledgeBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kb = ["--kb", str(tmp_path / "kb")]

    def out(*arguments: str) -> str:
        assert run([*arguments, *kb]) == 0
        return capsys.readouterr().out

    assert out("find", "*.md").endswith("guide.md\n")
    assert "guide.md:7: Per diem is 30 euros." in out("grep", "per diem")
    assert "pay.txt" in out("grep", "per diem", "--label", "hr")
    assert json.loads(out("grep", "per diem", "-n", "1", "--json"))["more"] is True
    assert out("read", "Form.pdf", "--page", "1").strip() == "First page."
    assert out("read", "guide.md", "--outline") == "Guide\n  Travel\n  Leave\n"
