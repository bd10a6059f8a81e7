"""What holds without any of the libraries, and the programs of the docs with them."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib

import pytest

import openbook
from openbook.integrations import asked, details, found, view_of
from tests.conftest import ROOT, printed
from tests.integrations.conftest import QUESTION, cited, places, programs

LIBRARIES = {  # of each module: what it imports, what is installed
    "langchain": ("langchain_core", "langchain-core"),
    "llamaindex": ("llama_index", "llama-index-core"),
    "haystack": ("haystack", "haystack-ai"),
    "dspy": ("dspy", "dspy"),
    "llm_plugin": ("llm", "llm"),
    "jupyter": ("IPython", "ipython"),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_there_is_named_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, package = LIBRARIES[name]
    for loaded in [library, *(each for each in sys.modules if each.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.delitem(sys.modules, f"openbook.integrations.{name}", raising=False)
    with pytest.raises(openbook.OpenBookError, match=rf"needs {package} \(.*\): pip install -U {package}$"):
        importlib.import_module(f"openbook.integrations.{name}")


def test_nothing_is_imported_before_it_is_used_and_no_dependency_is_added() -> None:
    code = "import sys, openbook.integrations; print('openbook.library' in sys.modules, 'numpy' in sys.modules)"
    assert printed(code) == ["False False"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = " ".join(
        package for each in (project["dependencies"], *project["optional-dependencies"].values()) for package in each
    )
    assert [package for _, package in LIBRARIES.values() if f" {package}" in f" {named}"] == []


def test_each_section_of_the_page_has_a_short_program() -> None:
    assert list(programs()) == ["LangChain", "LlamaIndex", "Haystack", "DSPy", "llm", "Jupyter"]
    assert max(len(program.splitlines()) for program in programs().values()) < 15


def test_an_open_library_a_view_or_arguments(kb: openbook.Library) -> None:
    view = kb.as_of(1)
    assert view_of(view, {}) is view
    assert view_of("kb", {"max_tokens": 7}).resources.settings.max_tokens == 7
    with pytest.raises(openbook.OpenBookError, match=r"open already; give max_tokens to openbook\.open"):
        view_of(kb, {"max_tokens": 7})
    with pytest.raises(openbook.OpenBookError, match="max_token"):
        view_of("kb", {"max_token": 7})


def test_passages_are_those_of_the_view(kb: openbook.Library) -> None:
    assert [place for _, place in found(kb, QUESTION, 3)] == places(kb, 3)
    document = kb.documents()[0]
    kb.remove([each for each in kb.documents() if each != document])
    assert {place["document"] for _, place in found(kb, QUESTION, 9)} == {document}
    assert found(kb.as_of(1), QUESTION, 3)[0][1]["version"] == 1
    with pytest.raises(openbook.OpenBookError, match="at least 1, not 0"):
        found(kb, QUESTION, 0)
    with pytest.raises(openbook.OpenBookError, match="empty"):
        found(kb, " ", 1)


def test_messages_become_a_question_and_details_hold_no_text_of_other_passages(kb: openbook.Library) -> None:
    told = [("system", "In German."), ("user", "Who?"), ("assistant", "She."), ("user", "And when?")]
    assert asked(told) == {"question": "And when?", "earlier": ["Who?"], "instruction": "In German."}
    for turns, last in (([], "but there is none"), (told[:3], "not 'assistant'")):
        with pytest.raises(openbook.OpenBookError, match=f"role must be 'user', {last}"):
            asked(turns)
    answer = kb.ask(QUESTION)
    given = details(answer)
    assert json.loads(json.dumps(given))["receipt"]["digest"] == answer.receipt.digest
    assert {"citations", "confidence", "certainty", "declined"} <= set(given)
    assert "passages" not in given


PROGRAMS = {"LangChain": "langchain_core", "LlamaIndex": "llama_index", "Haystack": "haystack", "DSPy": "dspy"}


@pytest.mark.parametrize("title", PROGRAMS)
def test_the_programs_of_the_docs_show_what_is_found(
    kb: openbook.Library, capsys: pytest.CaptureFixture[str], title: str
) -> None:
    pytest.importorskip(PROGRAMS[title])
    exec(programs()[title], {})
    told = kb.search(QUESTION, 1)[0].passage.text[:20] if title == "DSPy" else cited(kb.ask(QUESTION))[0]["quote"]
    assert told in capsys.readouterr().out
