"""A text is found wherever a purge looks, and looking changes nothing."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from openbook.core.errors import QuestionError
from openbook.core.locks import exclusive_lock
from openbook.core.records import BeyondReach
from openbook.knowledge import RunOptions, add, remove
from openbook.knowledge.versions import prune, tag
from openbook.models.runs import DOCUMENTS
from openbook.proofs.absence import look_for
from openbook.proofs.purge import clear_remnants, proof_of
from openbook.serving.uploads import add_uploads
from openbook.testing import HashEmbedder
from tests.knowledge.test_erasure import DENSE, written
from tests.parsers.samples import make_pdf
from tests.proofs.test_purge import OTHER, SECRET, Home
from tests.proofs.test_purge import home as home

MOLE = make_pdf([["The mole is 90 metres long."]])
ABSENT = "The mole has 40 lamps, says canary-7341."


def look(home: Home, text: str = SECRET) -> Any:
    return look_for(home.base, text, home.settings)


def test_a_text_is_found_in_each_place_and_nothing_is_changed(home: Home) -> None:
    (home.folder / "uploads").mkdir()
    for place in ("uploads/a.txt", "derived/b", "notes.txt"):
        (home.folder / place).write_bytes(b"x" * 5000 + SECRET.encode())
    (home.folder / "unreadable").symlink_to("unreadable")
    remove(home.base, [home.secret])  # an older version still has it
    before, version = home.contents(), home.base.version
    places, not_clean, _ = look(home)
    assert places[0] == home.secret
    assert places[1].startswith(f"{home.folder}/kb/kb.sqlite3")  # or the log beside it
    files = ("notes.txt", "derived/b", f"runs/one/{DOCUMENTS}", "uploads/a.txt")
    for each in (*files, "diagnoses/shows/report.html", "diagnoses/shows/observations-a.jsonl"):
        assert any(place.startswith(f"{home.folder}/{each}: a trace is in it, from byte ") for place in places)
    assert any(place.startswith(f"{home.folder}/derived/docs/") for place in places)
    assert [each.path.name for each in not_clean] == ["unreadable"]
    assert (home.contents(), home.base.version) == (before, version)


def test_after_its_purge_it_is_found_nowhere(home: Home) -> None:
    Path(home.secret).unlink()
    purged = home.purge()
    places, not_clean, proof = look(home)
    assert (places, not_clean, proof.knowledge_base_version) == ([], [], purged.purged.version)
    assert (proof.text,) == proof_of(purged, home.base).texts
    assert look(home, OTHER)[0][0] == home.secret.replace("secret", "bridge")


@pytest.mark.parametrize("number", range(len(written(DENSE))))
def test_a_copy_that_a_program_escaped_is_found_and_spoils_a_purge(home: Home, number: int) -> None:
    path = Path(home.secret)
    path.write_text(DENSE)
    add(home.base, [path], home.embedder)
    copy = home.folder / "copy"
    copy.write_bytes(written(DENSE)[number])
    assert any(place.startswith(f"{copy}: ") for place in look(home, DENSE)[0])
    done = home.purge()
    assert [each.path for each in done.not_clean] == [copy]
    copy.unlink()
    assert not look(home, DENSE)[0]


@pytest.mark.parametrize("text", ["", "15 bytes, no mo", " \n15 bytes, no mo\n", "abababababababababab"])
def test_a_text_that_no_scan_finds_is_an_error(home: Home, text: str) -> None:
    with pytest.raises(QuestionError, match="at least 16 bytes"):
        look(home, text)


def test_a_short_text_is_found_as_a_whole_and_a_long_one_by_a_run(home: Home) -> None:
    assert look(home, "\n number zeppelin-7341.\n")[0][0] == home.secret
    assert not look(home, "A number zeppelin-7341.")[0]
    assert look(home, "Nobody knows that " + SECRET[4:60])[0][0] == home.secret
    tag(home.base, "the-number-of-the-safe")
    assert look(home, "the-number-of-the-safe")[0][0] == "the table tags"


def test_what_is_written_meanwhile_is_not_vouched_for(home: Home) -> None:
    with exclusive_lock(home.base.folder / ".lock", 1.0) as held:
        assert held
        places, not_clean, _ = look(home, "No document says this, nor does a file.")
    assert (places, {each.reason for each in not_clean}) == ([], {"in use"})


def test_the_bucket_of_an_older_openbook_is_named(home: Home) -> None:
    with home.base.writing(1.0) as connection:
        connection.execute("INSERT INTO meta VALUES ('blobs', 's3://bucket/kb?endpoint=https://host')")
    _, _, proof = look(home, "No document says this, nor does a file.")
    assert BeyondReach("object versions", f"Delete s3://bucket/kb/{home.base.id}/.") in proof.beyond_reach


def test_an_uploaded_pdf_that_no_version_holds_is_not_vouched_for(home: Home) -> None:
    kept, folder = home.settings.derived_dir / "uploads" / home.base.id, home.settings.uploads_dir / "kb" / "local"
    add_uploads(home.base, HashEmbedder(), folder, {"mole.pdf": BytesIO(MOLE)}, RunOptions(), kept)
    (held,) = kept.iterdir()
    assert look(home, ABSENT)[1] == []
    remove(home.base, [str(folder / "mole.pdf")])
    assert look(home, ABSENT)[1] == []
    prune(home.base, 1)
    assert [(each.reason, each.path) for each in look(home, ABSENT)[1]] == [("unreadable", held)]
    assert clear_remnants(home.base, home.settings)["kept upload"] == 1
    assert look(home, ABSENT)[1] == []
