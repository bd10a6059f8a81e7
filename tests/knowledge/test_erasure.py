from __future__ import annotations

import html
import json
import random
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openbook.core.errors import KnowledgeError
from openbook.knowledge import Scope, purge
from openbook.knowledge.byte_search import Needles
from openbook.knowledge.erasure import _drop_what_stays, find_in_rows, forms, purge_is_unfinished
from openbook.knowledge.index.cache import IndexCache
from openbook.knowledge.store import schema
from tests.conftest import base_with
from tests.knowledge.conftest import Library, vectors_of

SECRET = " ".join(f"The secret launch code number {i} is {i * 7919 % 10007}-zeppelin." for i in range(60))
PLAN = "very-secret-plan.txt"


@pytest.fixture
def library(library: Library) -> Library:
    words = [f"word{i}" for i in range(400)]
    chance = random.Random(5)
    for i in range(40):
        library.write(f"plain{i:02}.txt", " ".join(chance.choices(words, k=80)) + ".")
    library.write(PLAN, SECRET)
    library.sync()
    return library


def test_purged_is_gone_from_every_byte_and_every_version(library: Library) -> None:
    base = library.base
    library.write(PLAN, SECRET + " And one more.")
    library.sync()
    vectors = vectors_of(base, "The secret")
    assert len(vectors) > 5
    assert any(v in library.all_bytes() for v in vectors)
    (library.docs / PLAN).unlink()
    purged = purge(base, [PLAN])
    assert (purged.documents, purged.still_on_disk) == ((library.path(PLAN),), ())
    left = library.all_bytes()
    for trace in (b"launch code", b"zeppelin", b"very-secret", *vectors):
        assert trace not in left
    assert purged.bytes >= len(left) // 2
    for version in (None, 1, 2):
        assert not any("secret" in text for text in library.texts("secret launch code", Scope(version)))


def test_the_scan_finds_a_file_left_behind(library: Library) -> None:
    (library.base.folder / "left-behind.tmp").write_bytes(b"\x00" * 5001 + SECRET[300:400].encode())
    with pytest.raises(KnowledgeError, match=r"bytes of them are in .*left-behind\.tmp, from byte 50\d\d on"):
        purge(library.base, [PLAN])
    assert purge_is_unfinished(library.base)  # so the next writer finishes it


def test_the_scan_finds_an_index_that_was_not_rebuilt(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IndexCache, "refresh", lambda *_, **__: None)
    with pytest.raises(KnowledgeError, match=r"bytes of them are in .*index"):
        purge(library.base, [PLAN])


def test_copies_of_other_bytes_are_named(library: Library) -> None:
    text = SECRET.replace(". ", ".\n") + "\n"
    library.write(PLAN, text)
    library.write("copy.md", text.replace("\n", "\r\n").encode("utf-16"))
    library.sync()
    with pytest.raises(KnowledgeError, match=r"also in .*copy\.md.*openbook purge DOCUMENT --copies"):
        purge(library.base, [PLAN])
    assert len(library.base.documents()) == 42
    purged = purge(library.base, [PLAN], copies=True)
    assert purged.documents == (library.path("copy.md"), library.path(PLAN))
    assert b"zeppelin" not in library.all_bytes()


def test_later_versions_of_a_copy_stay(library: Library) -> None:
    for text in (SECRET, "By now a harmless text about gardens."):
        library.write("copy.txt", text)
        library.sync()
    (library.docs / PLAN).unlink()
    purged = purge(library.base, [PLAN], copies=True)
    assert (purged.documents, purged.partly_kept) == ((library.path(PLAN),), (library.path("copy.txt"),))
    assert purged.still_on_disk == ()
    assert "gardens" in (library.base.text(library.path("copy.txt")) or "")
    assert b"zeppelin" not in library.all_bytes()


def test_shared_sentences_titles_and_headings_stay(library: Library) -> None:
    words = "About the merger with Quillon in the year 2026"
    library.write("quotes.txt", "It was said: " + SECRET[:200])
    library.write("b.html", f"<title>{words}</title><h2>{words} and more</h2><p>Other text.</p>")
    library.write("b.html.meta.toml", 'title = "Other"\n')
    library.write("q.txt", words)
    library.sync()
    assert purge(library.base, ["q.txt"]).passages == 1
    purge(library.base, [PLAN])
    assert library.hits("secret launch")[0].passage.document == library.path("quotes.txt")


def test_a_scan_keeps_the_locks_of_sqlite(library: Library) -> None:
    """Else another process that closes the database takes itself for the last one, and deletes the log that is in use."""
    base = library.base
    assert base.connection.execute("SELECT count(*) FROM documents").fetchone() == (41,)
    purge(base, [PLAN])
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM documents').fetchall(); c.close()"
    subprocess.run([sys.executable, "-c", code, str(base.folder / schema.FILE_NAME)], check=True)
    assert (base.folder / f"{schema.FILE_NAME}-wal").exists()
    library.write("plain00.txt", "Another text.")
    assert library.sync().version == base.version


DENSE = "".join(f"""<b>"{n}" & 'né'</b>\n""" for n in range(9))  # each 16 bytes have something that is escaped
JINJA = jinja2.Environment(autoescape=True).from_string("{{ text }}")


def written(text: str) -> list[bytes]:
    """By usual programs."""
    element = ElementTree.Element("a")
    element.text = text
    in_json = [json.dumps(text, ensure_ascii=each) for each in (True, False)]
    logged = [json.dumps({"log": f"{{{each}}}"}, ensure_ascii=x) for each in in_json for x in (True, False)]
    in_html = [JINJA.render(text=text), html.escape(text), html.escape(text, quote=False)]
    in_xml = [ElementTree.tostring(element), ElementTree.tostring(element, "unicode").encode()]
    return [text.encode("utf-16"), *in_xml, *(each.encode() for each in (*in_json, *in_html, *logged))]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
@example(DENSE)
def test_each_usual_writer_writes_one_of_the_forms(text: str) -> None:
    for each in written(text):
        assert any(form in each for form in forms(text)), each


def test_written_forms_are_found_and_dropped_where_others_hold_them(tmp_path: Path) -> None:
    base = base_with(tmp_path, {"one.txt": DENSE + "And mine.", "other.txt": DENSE + "And theirs."})
    plain, needles = Needles(), Needles()
    plain.add(DENSE.encode())
    for form in forms(DENSE):
        needles.add(form)
    assert [plain.find(each) for each in written(DENSE)] == [None] * len(written(DENSE))
    assert None not in [needles.find(each) for each in written(DENSE)]
    with base.writing() as connection:
        assert find_in_rows(base.store, connection, needles)[0] == [f"{tmp_path}/one.txt", f"{tmp_path}/other.txt"]
        _drop_what_stays(base.store, connection, needles)
    assert [needles.find(each) for each in written(DENSE)] == [None] * len(written(DENSE))
    base.close()
