from __future__ import annotations

import shutil
from itertools import islice

import pytest

from openbook.knowledge.ingest.discovery import folder_changes
from tests.knowledge.conftest import Library


def test_watching_tells_of_changes_once_they_are_over(library: Library) -> None:
    told = folder_changes([library.docs])
    assert next(told) == 0  # watching has begun
    library.write("new.txt", "new")
    assert any(islice(told, 60))  # half a minute


@pytest.mark.parametrize("moved", [False, True])
def test_watching_goes_on_in_a_folder_that_takes_the_place_of_another(library: Library, moved: bool) -> None:
    told = folder_changes([library.docs])
    assert next(told) == 0
    if moved:
        library.docs.rename(library.docs.with_name("old"))
    else:
        shutil.rmtree(library.docs)
    assert any(islice(told, 60))
    library.docs.mkdir()
    assert any(islice(told, 60))
    assert 0 in islice(told, 60)  # all of that is told
    library.write("new.txt", "new")
    assert any(islice(told, 60))
