from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import openbook
from tests.integrations.conftest import QUESTION, programs

pytest.importorskip("IPython")
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from openbook.integrations import jupyter


@pytest.fixture
def shell(kb: openbook.Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    jupyter.opened.cache_clear()
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "openbook.integrations.jupyter")
    return shell


def answer(done: Any) -> openbook.Answer:
    assert done.success, done
    assert isinstance(done.result, openbook.Answer)
    return done.result


def test_a_line_or_a_cell_asks_a_knowledge_base(shell: Any, kb: openbook.Library) -> None:
    asked = kb.ask(QUESTION)
    for cell in (programs()["Jupyter"], f"%ask {QUESTION}", f"%%ask\n{QUESTION}", f"%%ask kb\n{QUESTION}"):
        shown = answer(shell.run_cell(cell))
        assert (shown.citations, shown.receipt) == (asked.citations, asked.receipt)
    assert "\n\n1. “" in shown._repr_markdown_()


def test_variables_are_knowledge_bases_and_an_error_is_one_sentence(
    shell: Any, kb: openbook.Library, capsys: pytest.CaptureFixture[str]
) -> None:
    kb.remove(kb.documents()[0])
    shell.push({"kb": kb, "first": kb.as_of(1)})
    assert answer(shell.run_cell(f"%%ask first\n{QUESTION}")).receipt.knowledge_base_version == 1
    assert answer(shell.run_cell(f"x = %ask {QUESTION}\nx")).receipt.knowledge_base_version == 2
    assert not shell.run_cell(f"%%ask none\n{QUESTION}").success
    shown = capsys.readouterr()
    assert "UsageError: " in shown.err
    assert "Traceback" not in shown.out + shown.err
