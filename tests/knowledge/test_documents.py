"""Details, outlines, histories and examples of documents, and files that are none. That stores agree is in `tests/conformance/stores.py`."""

from __future__ import annotations

from pathlib import Path

from openbook.knowledge import RunOptions, Scope, remove
from openbook.knowledge.documents import document_history, examples, headings_between, page_starts, refused_files
from openbook.knowledge.index.scope import UNLABELLED
from openbook.knowledge.versions import prune, restore
from tests.knowledge.conftest import Library
from tests.parsers.samples import make_pdf

HR = frozenset({"hr"})


def history(library: Library, name: str, labels: frozenset[str] = frozenset()) -> list[tuple[int, str]]:
    return [(each.version, each.change) for each in document_history(library.base, library.path(name), labels)]


def came(library: Library, name: str, scope: Scope = UNLABELLED) -> int:
    return library.base.document_info([library.path(name)], scope)[library.path(name)].version


def test_details_of_a_document(library: Library) -> None:
    library.write("a.md", "---\nstatus: final\nauthors: [Ann, Bo]\n---\n# Leave\n\nTwenty days.")
    library.write("b.pdf", make_pdf(["One page.", "Another page."]))
    library.add()
    about, paged = library.base.document_info(None, Scope()).values()
    assert (about.title, about.media_type, about.pages, about.passages) == ("Leave", "text/markdown", None, 1)
    assert about.characters == len(library.base.text(about.path) or "")
    assert about.bytes == Path(about.path).stat().st_size
    assert dict(about.metadata)["authors"] == ("Ann", "Bo")
    assert (paged.media_type, paged.pages, paged.passages) == ("application/pdf", 2, 2)
    assert (paged.version, paged.labels) == (1, ())
    assert list(library.base.document_info(None, Scope(), after=about.path, limit=5)) == [paged.path]
    assert list(library.base.document_info(None, Scope(where="type = 'md'"))) == [about.path]


def test_a_text_dates_from_when_the_caller_could_first_read_it(library: Library) -> None:
    library.write("a.txt", "One.")
    library.write("b.txt", "Two.")
    library.sync()  # 1
    library.add("a.txt", options=RunOptions(labels=HR))  # 2
    library.add("a.txt", options=RunOptions(unlabel=HR))  # 3
    assert came(library, "a.txt", Scope(labels=HR)) == 1
    assert came(library, "a.txt", Scope(2, labels=HR)) == 1
    assert came(library, "a.txt") == 3  # version 2 held it, and not for this caller
    assert history(library, "a.txt", HR) == [(3, "metadata"), (2, "metadata"), (1, "added")]
    assert history(library, "a.txt") == [(3, "added"), (2, "removed"), (1, "added")]
    library.write("a.txt", "Other.")
    library.sync()  # 4
    remove(library.base, [library.path("a.txt")])  # 5
    restore(library.base, 3)  # 6
    assert came(library, "a.txt") == 6
    assert [change for _, change in history(library, "a.txt")][:4] == ["added", "removed", "changed", "added"]
    assert (came(library, "b.txt"), history(library, "b.txt")) == (1, [(1, "added")])
    prune(library.base, keep=2)  # 5 and 6
    assert (came(library, "b.txt"), history(library, "b.txt")) == (5, [(5, "added")])
    assert history(library, "a.txt") == [(6, "added")]
    assert document_history(library.base, "nothing\ud800", HR) == []


def test_an_outline_has_the_headings_and_pages_of_the_passages(library: Library) -> None:
    long = "The ferry leaves at nine and comes back at ten. " * 12
    text = f"# Ferry\n\n{long}\n\n## Times of the ferry\n\n{long}\n\n### 2. Winter\n\n{long}\n\n# Harbour\n\n{long}"
    library.write("a.md", text)
    library.write("b.pdf", make_pdf(["One page.", None, "Another page."]))
    library.add()
    stored = library.base.content(library.path("a.md"))
    assert stored is not None
    spans = library.base.spans(stored)
    found = headings_between(stored.text, spans, 0, len(stored.text))
    assert [(each.level, each.title) for each in found] == [
        (1, "Ferry"), (2, "Times of the ferry"), (3, "2. Winter"), (1, "Harbour"),
    ]  # fmt: skip
    for each in found:
        assert stored.text[each.start :].partition("\n")[0].endswith(each.title)
    for start in range(0, len(stored.text), 97):
        part = headings_between(stored.text, spans, start, start + 300)
        assert part == [each for each in found if start <= each.start < start + 300]
    assert page_starts(spans) == []
    paged = library.base.content(library.path("b.pdf"))
    assert paged is not None
    assert page_starts(library.base.spans(paged)) == [(1, 0), (3, paged.text.index("Another"))]


def test_examples_are_headings_of_different_documents_from_all_over(library: Library) -> None:
    long = "The ferry leaves at nine and comes back at ten. " * 12
    text = f"# Rules N\n\n{long}\n\n## Scope and purpose\n\n{long}\n\n## The harbour N\n\n{long}"
    texts = [text.replace("N", str(n)) for n in range(40)]
    for number, text in enumerate([*texts, texts[1]]):
        library.write(f"{number:02}.md", text)
    library.write("plain.txt", "No heading.")
    library.add()
    found = examples(library.base, Scope(), 4)
    assert found == examples(library.base, Scope(), 4)
    names = [int(Path(path).stem) for path, _ in found]
    assert names == sorted(names)
    assert names[-1] - names[0] >= 20
    assert [heading for _, heading in found] == [f"The harbour {n}" for n in names]  # no other document has it
    assert len(examples(library.base, Scope(), 20)) == 20
    assert examples(library.base, Scope(0), 4) == []
    assert examples(library.base, Scope(where="type = 'txt'"), 4) == [(library.path("plain.txt"), "")]


def test_refused_files_name_no_closed_document(library: Library) -> None:
    for name in ("open.txt", "closed.txt", "was.txt"):
        library.write(name, f"The text of {name}.")
    library.add("open.txt")
    library.add("closed.txt", "was.txt", options=RunOptions(labels=HR))
    remove(library.base, [library.path("was.txt")])
    for name in ("open.txt", "closed.txt", "was.txt", "new.txt"):
        library.write(name, b"%PDF-1.7 nothing")
    library.add("open.txt", "closed.txt", "was.txt", "new.txt")
    found = refused_files(library.base, frozenset())
    assert [Path(each.path).name for each in found] == ["new.txt", "open.txt"]
    assert found[0].reason == "not a readable PDF"
    assert found[0].tried_at
    assert [Path(each.path).name for each in refused_files(library.base, HR)] == [
        "closed.txt", "new.txt", "open.txt", "was.txt",
    ]  # fmt: skip
