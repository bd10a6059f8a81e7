from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.core.records import Citation, Hit, MetadataValue, Passage
from openbook.knowledge import Scope, remove
from openbook.knowledge.cite.editions import DocumentInfo, Edition, editions, find_editions
from openbook.knowledge.index.scope import UNLABELLED
from tests.knowledge.conftest import Library

OLD, NEW = "archive/leave-2023.md", "policies/leave.md"
OLD_SAYS, NEW_SAYS = "Every employee has 24 days of leave a year.", "Every employee has 28 days of leave a year."


def head(path: str, title: str = "", **metadata: MetadataValue) -> DocumentInfo:
    return DocumentInfo(path, title or Path(path).stem, tuple(sorted(metadata.items())))


def heads(*several: DocumentInfo) -> dict[str, DocumentInfo]:
    return {each.path: each for each in several}


LEAVE = heads(
    head(OLD, "Leave (2023)", status="Archived", superseded_by="leave.md", valid_until="2025-02-28"), head(NEW, "Leave")
)


def hit(document: str, text: str = "Leave.", *also_in: str) -> Hit:
    title = Path(document).stem
    return Hit(Passage(f"{document} {text}", document, title, 0, len(text), None, (), text, also_in), 1.0, 1, 1, 0.5)


def places(hits: tuple[Hit, ...]) -> list[str]:
    return [each.passage.document for each in hits]


def cited(document: str, *also_in: str) -> Citation:
    return Citation(document, None, 0, 1, "L", document, also_in=also_in)


def newer(*several: DocumentInfo) -> dict[str, tuple[str, ...]]:
    return {path: mark.newer for path, mark in find_editions(heads(*several)).items()}


def test_a_replacement_is_read_alone() -> None:
    found = editions("How many days of leave?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], LEAVE)
    assert places(found.current) == [NEW]
    note = 'Left out: "Leave (2023)", archived, superseded by "Leave", valid until 2025-02-28.'
    assert found.notes([cited(NEW)]) == [note]
    assert found.notes([cited("other.md")]) == []


LEFT = "How many days of leave?"
NUMBERED = heads(
    head("leave-a.md", number="PP-04", version="4.1", superseded_by="leave-b"), head("leave-b.md", number="PP-05")
)


@pytest.mark.parametrize(
    ("question", "hits", "several", "read"),
    [
        # What is older is read where nothing newer was found.
        (LEFT, [hit(OLD)], LEAVE, [OLD]),
        # Hits of other documents keep their places, and the newer one takes the place of the older.
        (LEFT, [hit("a.md"), hit(OLD), hit("b.md"), hit(NEW), hit("c.md")], LEAVE, ["a.md", NEW, "b.md", "c.md"]),
        # A question with a number that only the older one has keeps the order.
        ("How many days of leave were there in 2023?", [hit(OLD), hit(NEW)], LEAVE, [OLD, NEW]),
        ("How many days of leave were there in 2022?", [hit(OLD), hit(NEW)], LEAVE, [NEW]),
        ("Leave by PP-04?", [hit("leave-a.md"), hit("leave-b.md")], NUMBERED, ["leave-a.md", "leave-b.md"]),
        ("Leave by version 4.1?", [hit("leave-a.md"), hit("leave-b.md")], NUMBERED, ["leave-a.md", "leave-b.md"]),
        ("Leave by PP-05?", [hit("leave-a.md"), hit("leave-b.md")], NUMBERED, ["leave-b.md"]),
        # A text that a document in force holds too stays.
        (LEFT, [hit(OLD, NEW_SAYS, NEW), hit(OLD)], LEAVE, [OLD]),
    ],
)
def test_which_hits_are_read(
    question: str, hits: list[Hit], several: Mapping[str, DocumentInfo], read: list[str]
) -> None:
    found = {path for each in hits for path in (each.passage.document, *each.passage.also_in)}
    documents = {path: document for path, document in several.items() if path in found}
    assert places(editions(question, hits, documents).current) == read


@pytest.mark.parametrize(
    "name",
    [
        "leave-2025.md", "LEAVE-2025", "hr/leave-2025.md", "../hr/leave-2025.md", "/kb/hr/leave-2025.md", "Leave in force",
        "PP-05", "pep 314", "314", "100, 314",
    ],
)  # fmt: skip
def test_a_declaration_names_a_document_by_path_file_title_or_number(name: str) -> None:
    new = head("/kb/hr/leave-2025.md", "Leave in force", number="PP-05", pep=314)
    assert newer(head("/kb/old.md", superseded_by=name), new) == {"/kb/old.md": (new.path,)}


@pytest.mark.parametrize("name", ["2025", "leave", "5.md", "section 3 of leave-2025.md", "Leave in", "3140"])
def test_a_part_of_a_name_names_nothing(name: str) -> None:
    new = head("/kb/hr/leave-2025.md", "Leave in force", number="PP-05", pep=314)
    assert newer(head("/kb/old.md", replaced_by=name), new) == {"/kb/old.md": ()}
    assert newer(head("/kb/old.md", supersedes=name), new) == {}


def test_an_ambiguous_name_means_the_one_in_the_same_folder_or_none() -> None:
    two = head("de/leave.md"), head("fr/leave.md")
    assert newer(head("de/new.md", replaces="leave.md"), *two) == {"de/leave.md": ("de/new.md",)}
    assert newer(head("new.md", replaces="leave.md"), *two) == {}
    assert newer(head("new.md", replaces="fr/leave.md"), *two) == {"fr/leave.md": ("new.md",)}
    assert newer(head("new.md", replaces=("de/leave.md", "fr/leave.md")), *two).keys() == {"de/leave.md", "fr/leave.md"}


@pytest.mark.parametrize(
    "several",
    [
        (head("leave-2023.md", date="2023-01-01", version=1), head("leave-2025.md", date="2025-01-01", version=2)),
        (head("leave.md", status="final"), head("leave_old.md", status="Archived on Monday")),
        (head("a.md", replaces="a.md"), head("b.md")),
        (head("de/archive.md"), head("fr/archive.md")),
    ],
)
def test_no_mark_without_a_declaration(several: tuple[DocumentInfo, ...]) -> None:
    assert find_editions(heads(*several)) == {}


def test_a_chain_ends_with_the_newest() -> None:
    chain = (
        head("pep-0241.rst", pep=241, status="Superseded", superseded_by=314),
        head("pep-0314.rst", pep=314, status="Superseded", superseded_by=345),
        head("pep-0345.rst", pep=345, status="Final"),
    )
    assert newer(*chain) == {"pep-0241.rst": ("pep-0345.rst",), "pep-0314.rst": ("pep-0345.rst",)}
    assert find_editions(heads(chain[0]))["pep-0241.rst"][:2] == ('"pep-0241", superseded by "314"', ())


@pytest.mark.parametrize("status", ["draft", "Rejected", "withdrawn"])
def test_a_document_not_in_force_replaces_nothing_and_has_a_note(status: str) -> None:
    several = heads(head("travel.md"), head("travel-v5.md", "Travel 5", status=status, replaces="travel.md"))
    found = editions("Hotels?", [hit("travel-v5.md"), hit("travel.md")], several)
    assert places(found.current) == ["travel-v5.md", "travel.md"]
    assert found.notes([cited("travel.md")]) == []
    assert found.notes([cited("travel-v5.md")]) == [f'Cited: "Travel 5", {status.casefold()}.']
    assert found.notes([cited("travel-v5.md", "travel.md")]) == []  # stands in a document in force, too


@pytest.mark.parametrize(
    ("paths", "marks"),
    [
        (("archive/leave.md", "policies/leave.md"), {"archive/leave.md": ("policies/leave.md",)}),
        (("hr/Archived/2023/leave.md", "hr/leave.md"), {"hr/Archived/2023/leave.md": ("hr/leave.md",)}),
        (("/archive/kb/archive/leave.md", "/archive/kb/leave.md"), {"/archive/kb/archive/leave.md": ("/archive/kb/leave.md",)}),
        (("archive/leave.md", "de/leave.md", "fr/leave.md"), {}),
        (("a/archive/README.md", "b/README.md"), {}),
        (("archive/leave-2023.md", "leave.md"), {}),
        (("archive/leave.md", "archived/leave.md"), {}),
        (("my-archive/leave.md", "leave.md"), {}),
    ],
)  # fmt: skip
def test_a_file_in_an_archive_is_replaced_by_the_one_outside(
    paths: tuple[str, ...], marks: dict[str, tuple[str, ...]]
) -> None:
    assert newer(*map(head, paths)) == marks


def test_documents_of_one_title_are_named_by_path() -> None:
    paths = ("archive/leave.md", "leave.md")
    found = editions("Leave?", list(map(hit, paths)), heads(*map(head, paths)))
    assert found.notes([cited("leave.md")]) == ['Left out: "archive/leave.md", superseded by "leave.md".']


def test_heads_are_those_of_documents_in_scope(library: Library) -> None:
    base, question = library.base, "How many days of leave?"
    library.write(OLD, f"---\nstatus: archived\n---\n# Leave (2023)\n\n{OLD_SAYS}\n")
    library.write(NEW, f"# Leave\n\n{NEW_SAYS}\n")
    library.write(f"{NEW}.meta.toml", 'access_labels = ["hr"]\nreplaces = "leave-2023.md"\n')
    library.add()
    old, new = library.path(OLD), library.path(NEW)
    seen = base.document_info([old, new, "nowhere.md"], Scope(labels=frozenset({"hr"})))
    assert (sorted(seen), find_editions(seen)[old].newer) == ([old, new], (new,))
    # Who may not see the newer one learns nothing of it.
    assert sorted(base.document_info([old, new], UNLABELLED)) == [old]
    found = editions(question, library.hits(question), base.document_info([old, new], UNLABELLED))
    assert found.marks == {old: Edition('"Leave (2023)", archived', (), frozenset({"2023"}))}
    assert list(found.current) == library.hits(question)
    version = base.version
    remove(base, [new])
    assert base.document_info([old], replace(UNLABELLED, as_of=version))[old] == seen[old]


HTML = '<html><head><title>Wi-Fi</title><meta name="Superseded-By" content="visitors.html"></head>Ask.</html>'
RST = "Rules\n=====\n\n:Status: Obsolete\n:Replaces: rules-1.txt\n\nText.\n"
PEP = "PEP: 333\nTitle: Gateway\nStatus: Superseded\nSuperseded-By: 3333\n\nText.\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("wifi.html", HTML, '"Wi-Fi", superseded by "visitors.html"'),
        ("rules.rst", RST, '"Rules", obsolete'),
        ("pep-0333.rst", PEP, '"Gateway", superseded by "3333"'),
        ("a.md", "---\nstatus: Draft\nvalid-until: 2025-02-28\n---\n# A\n\nText.\n", '"A", draft, valid until 2025-02-28'),
        ("a.md", '+++\nreplaced-by = ["b.md", "c.md"]\n+++\n# A\n\nText.\n', '"A", superseded by "b.md" and "c.md"'),
    ],
)  # fmt: skip
def test_formats_declare_editions(library: Library, name: str, text: str, said: str) -> None:
    library.write(name, text)
    library.add()
    path = library.path(name)
    assert find_editions(library.base.document_info([path], UNLABELLED))[path].said == said
