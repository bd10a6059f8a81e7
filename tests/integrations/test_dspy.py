from __future__ import annotations

import pytest

import openbook
from tests.integrations.conftest import QUESTION, places, programs

pytest.importorskip("dspy")
import dspy

from openbook.integrations.dspy import OpenBookRM


def test_passages_and_where_they_stand(kb: openbook.Library) -> None:
    rm, texts = OpenBookRM(kb, k=2), [hit.passage.text for hit in kb.search(QUESTION, 3)]
    passages = rm(QUESTION, k=3)
    assert [each.long_text for each in passages] == texts
    assert [{name: each[name] for name in each if name != "long_text"} for each in passages] == places(kb, 3)
    assert rm(QUESTION) == passages[:2]
    with dspy.context(rm=rm):
        assert dspy.Retrieve(k=3)(QUESTION).passages == texts


def test_a_program_with_it_is_copied_saved_and_loaded(kb: openbook.Library) -> None:
    program = dspy.Module()
    program.rm = OpenBookRM(kb, k=2)
    passages = program.rm(QUESTION)
    assert program.deepcopy().rm(QUESTION) == passages
    program.save("program.json")
    program.rm.k = 1
    program.load("program.json")
    assert program.rm(QUESTION) == passages


def test_the_program_of_the_docs(kb: openbook.Library, capsys: pytest.CaptureFixture[str]) -> None:
    exec(programs()["DSPy"], {})
    assert kb.search(QUESTION, 1)[0].passage.text[:20] in capsys.readouterr().out
