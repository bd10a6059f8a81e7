from __future__ import annotations

import shutil
from itertools import islice

import pytest

from openbook.knowledge.ingest.discovery import folder_changes
from tests.knowledge.conftest import Library

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
