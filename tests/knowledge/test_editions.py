from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.knowledge import Scope, add, remove
from openbook.knowledge.editions import Edition, Editions, editions
from openbook.knowledge.imprint import DocumentHead
from openbook.knowledge.scope import UNLABELLED
from openbook.records import Citation, Hit, MetadataValue, Passage
from tests.conftest import ROOT
from tests.knowledge.conftest import Library

OLD, NEW = "archive/leave-2023.md", "policies/leave.md"
OLD_SAYS, NEW_SAYS = "Every employee has 24 days of leave a year.", "Every employee has 28 days of leave a year."


def head(path: str, beginning: str = "", title: str = "", **metadata: MetadataValue) -> DocumentHead:
    kind = path.rpartition(".")[2]
    return DocumentHead(path, title or Path(path).stem, tuple(sorted({"type": kind, **metadata}.items())), beginning)


def heads(*several: DocumentHead) -> dict[str, DocumentHead]:
    return {each.path: each for each in several}


LEAVE = heads(head(OLD, "> **Archived.** Valid until 28 February 2025.\n"), head(NEW, "# Leave\n"))


def hit(document: str, text: str, *also_in: str) -> Hit:
    title = Path(document).stem
    return Hit(Passage(f"{document} {text}", document, title, 0, len(text), None, (), text, also_in), 1.0, 1, 1, 0.5)


def places(found: Editions) -> list[str]:
    return [each.passage.document for each in found.hits]


def test_what_took_the_place_comes_first_and_the_older_is_marked() -> None:
    found = editions("How many days of leave?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], LEAVE)
    assert places(found) == [NEW, OLD]
    assert found.marks == {OLD: Edition("archived", "archived, valid until 2025-02-28", (NEW,))}
    assert [found.mark(each.passage) for each in found.hits] == [None, found.marks[OLD]]
    assert [each.passage.document for each in found.current] == [NEW]


LEFT = "How many days of leave?"
DATED = heads(head(OLD, "> **Archived.** Version 3\n"), head(NEW, "# Leave\n", date="2025-03-01"))
TWO = heads(head("leave-2023.md"), head("leave-2025.md"))


@pytest.mark.parametrize(
    ("question", "hits", "several", "order", "read"),
    [
        # What is older is read where nothing newer on its matter was found.
        ("Do trains cost?", [hit(OLD, "Second class trains only."), hit(NEW, NEW_SAYS)], LEAVE, [NEW, OLD], [NEW, OLD]),
        (LEFT, [hit(OLD, OLD_SAYS)], LEAVE, [OLD], [OLD]),
        # Hits of other documents keep their places.
        (LEFT, [hit("a.md", "Leave it."), hit(OLD, OLD_SAYS), hit("b.md", "No."), hit(NEW, NEW_SAYS), hit("c.md", "No.")], LEAVE,
         ["a.md", NEW, "b.md", OLD, "c.md"], ["a.md", NEW, "b.md", "c.md"]),
        # A question about the older one keeps the order.
        ("How many days of leave were there in 2023?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], LEAVE, [OLD, NEW], [OLD, NEW]),
        ("How many days of leave were there in 2022?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], DATED, [OLD, NEW], [OLD, NEW]),
        ("How many days of leave by version 3?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], DATED, [OLD, NEW], [OLD, NEW]),
        ("What did the old policy say about leave?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], LEAVE, [OLD, NEW], [OLD, NEW]),
        ("What changed?", [hit(OLD, OLD_SAYS), hit(NEW, NEW_SAYS)], LEAVE, [OLD, NEW], [OLD, NEW]),
        # Passages on two matters keep it too when only the names tell which is older.
        ("Do lifeboat volunteers get days?", [hit("leave-2023.md", "Lifeboat volunteers train."), hit("leave-2025.md", "Ask early.")],
         TWO, ["leave-2023.md", "leave-2025.md"], ["leave-2023.md", "leave-2025.md"]),
    ],
)  # fmt: skip
def test_the_order_and_what_is_read(
    question: str, hits: list[Hit], several: Mapping[str, DocumentHead], order: list[str], read: list[str]
) -> None:
    found = editions(question, hits, several)
    assert places(found) == order
    assert [each.passage.document for each in found.current] == read
    assert found.marks


def test_a_text_that_a_document_in_force_holds_too_is_not_older() -> None:
    found = editions("Days?", [hit(OLD, NEW_SAYS, NEW)], LEAVE)
    assert found.mark(found.hits[0].passage) is None


@pytest.mark.parametrize(
    "several",
    [
        heads(head("a.md", title="Caches", date="2021-01-01"), head("b.md", title="Queues", date="2024-01-01")),
        heads(head("de/leave.md", date="2023-01-01"), head("fr/leave.md", date="2025-01-01")),
        heads(head("api-v1.md", "Version 1 remains supported.\n"), head("api-v2.md")),
        heads(head("leave-2023.md", date="2025-05-05"), head("leave-2025.md", date="2024-01-01")),
        heads(head("leave.pdf", date="2021-01-01"), head("leave.md", date="2024-01-01")),
        heads(head("leave-2023.md"), head("leave.md")),
        heads(head("a.md", superseded_by="b.md"), head("b.md", superseded_by="a.md")),
    ],
)
def test_no_mark_where_evidence_is_missing_or_disagrees(several: Mapping[str, DocumentHead]) -> None:
    found = editions("Leave?", [], several)
    assert not [mark for mark in found.marks.values() if mark.newer or mark.word == "older"]


def test_a_chain_ends_with_the_newest_and_several_that_may_be_meant_are_none() -> None:
    several = heads(
        head("pep-0241.rst", pep=241, superseded_by=314), head("pep-0314.rst", pep=314, superseded_by=345),
        head("pep-0345.rst", pep=345), head("archive/leave.md", "> **Archived.**\n"), head("de/leave.md"), head("fr/leave.md"),
    )  # fmt: skip
    assert {path: mark.newer for path, mark in editions("", [], several).marks.items()} == {
        "pep-0241.rst": ("pep-0345.rst",),
        "pep-0314.rst": ("pep-0345.rst",),
        "archive/leave.md": (),
    }


def test_a_draft_replaces_nothing_and_comes_after_what_is_in_force() -> None:
    several = heads(
        head("travel.md", version=4), head("travel-v5-draft.md", version=5, status="draft", replaces="travel.md")
    )
    hits = [hit("travel-v5-draft.md", "Hotels cost up to 140 euros."), hit("travel.md", "Hotels cost up to 110 euros.")]
    found = editions("How much may a hotel cost?", hits, several)
    assert places(found) == ["travel.md", "travel-v5-draft.md"]
    assert list(found.marks) == ["travel-v5-draft.md"]
    assert found.older_note([cited(found.hits[0])]) is None


def cited(one: Hit) -> Citation:
    passage = one.passage
    return Citation(passage.document, None, passage.start, passage.end, passage.text, passage.id)


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        (f"Leave is paid. {OLD_SAYS} Requests take four weeks.", NEW_SAYS, f'"{OLD_SAYS}" (leave-2023.md: archived, valid until 2025-02-28)'),
        (NEW_SAYS, NEW_SAYS, None),
        ("Every employee has six weeks of leave.", "Every employee has 6 weeks of leave.", None),
        ("The office opens at 8.", NEW_SAYS, None),
        ("| Violin, 30 minutes | 840 |", "| Piano, 30 minutes | 888 |", None),
    ],
)  # fmt: skip
def test_the_note_quotes_what_the_older_document_said_of_the_same_matter(old: str, new: str, note: str | None) -> None:
    found = editions("Days?", [hit(OLD, old), hit(NEW, new)], LEAVE)
    given = found.older_note([cited(next(each for each in found.hits if each.passage.document == NEW))])
    assert given == (f"Older: {note}" if note else None)


def test_no_note_on_a_document_that_was_not_replaced_by_the_cited_one() -> None:
    found = editions("Days?", [hit(OLD, OLD_SAYS), hit("other.md", NEW_SAYS)], LEAVE)
    assert found.older_note([cited(found.hits[1])]) is None


def test_heads_are_those_of_documents_in_scope(library: Library) -> None:
    base, question = library.base, "How many days of leave?"
    library.write(OLD, f"# Leave (2023)\n\n> **Archived.**\n\n{OLD_SAYS}\n")
    text = library.write(NEW, f"# Leave\n\n{NEW_SAYS}\n").read_text()
    library.write(f"{NEW}.meta.toml", 'access_labels = ["hr"]\nversion = 5\n')
    library.add()
    old, new = library.path(OLD), library.path(NEW)
    seen = base.heads([old, new, "nowhere.md"], Scope(labels=frozenset({"hr"})))
    assert sorted(seen) == [old, new]
    assert (seen[new].title, seen[new].beginning, dict(seen[new].metadata)["version"]) == ("Leave", text, 5)
    # Who may not see the newer one learns nothing of it.
    assert sorted(base.heads([old, new], UNLABELLED)) == [old]
    found = editions(question, library.hits(question), base.heads([old, new], UNLABELLED))
    assert found.marks == {old: Edition("archived", "archived")}
    assert list(found.hits) == library.hits(question)
    version = base.version
    remove(base, [new])
    assert base.heads([old], replace(UNLABELLED, as_of=version))[old] == seen[old]


def test_a_beginning_is_whole_where_passages_are_short(library: Library) -> None:
    text = "# Rules\n\n" + "\n\n".join(f"## Part {n}\n\nThe rule of part {n} is short." for n in range(60))
    path = str(library.write("rules.md", text))
    library.add()
    beginning = library.base.heads([path], UNLABELLED)[path].beginning
    assert text.startswith(beginning)
    assert 600 <= len(beginning) < 1500


def test_the_leave_policy_in_force_answers_for_the_handbook(library: Library) -> None:
    base, question = library.base, "How many days of leave do I get?"
    add(base, [ROOT / "examples" / "handbook"], library.embedder)
    hits = library.hits(question, limit=20)
    found = editions(question, hits, base.heads(base.documents(), UNLABELLED))
    marks = {Path(path).name: (mark.reason, *(Path(p).name for p in mark.newer)) for path, mark in found.marks.items()}
    assert marks == {
        "fares-2024.txt": ("older: 2024, newer is 2025, valid until 2025-03-31", "fares-2025.html"),
        "leave-policy-2023.md": ("archived, valid until 2025-02-28", "leave-policy.md"),
        "travel-expenses-2022.txt": ("out of date", "travel-expenses.md"),
    }
    leave = [Path(path).name for path in places(found) if "leave-policy" in path]
    assert leave[0] == "leave-policy.md"
    assert "leave-policy-2023.md" in leave
    policy = next(path for path in base.documents() if path.endswith("policies/leave-policy.md"))
    passage = next(p for p in base.passages(policy) if "28 days" in p.text)
    note = found.older_note([cited(replace(hits[0], passage=passage))])
    assert note is not None
    assert "24 days of paid annual leave" in note
    assert "Leave policy (2023), leave-policy-2023.md: archived" in note
