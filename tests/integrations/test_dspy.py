from __future__ import annotations

import pytest

import openbook
from tests.integrations.conftest import QUESTION, places

pytest.importorskip("dspy")
import dspy

from openbook.integrations.dspy import OpenBookRM


def test_passages_and_where_they_stand_in_a_program_that_is_copied_saved_and_loaded(kb: openbook.Library) -> None:
    rm, texts = OpenBookRM(kb, k=2), [hit.passage.text for hit in kb.search(QUESTION, 3)]
    passages = rm(QUESTION, k=3)
    assert [each.long_text for each in passages] == texts
    assert [{name: each[name] for name in each if name != "long_text"} for each in passages] == places(kb, 3)
    assert rm(QUESTION) == passages[:2]
    with dspy.context(rm=rm):
        assert dspy.Retrieve(k=3)(QUESTION).passages == texts
    program = dspy.Module()
    program.rm = rm
    assert program.deepcopy().rm(QUESTION) == passages[:2]
    program.save("program.json")
    program.rm.k = 1
    program.load("program.json")
    assert program.rm(QUESTION) == passages[:2]
