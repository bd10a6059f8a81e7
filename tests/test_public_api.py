"""What `import openbook` offers: few names, typed, with examples that run."""

from __future__ import annotations

import asyncio
import doctest
import inspect
import pydoc
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest

import openbook
from openbook.answers import opening
from openbook.answers.ask import ask
from openbook.answers.conversation import AnswerStream
from openbook.core.config import Settings
from openbook.core.errors import EngineError, KnowledgeBaseInvalid
from openbook.core.records import Prompt, Vectors
from openbook.models import ModelStore
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import MODEL_HOME, ROOT, DecliningEngine, named_model, stored

TRAVEL = "Travel expenses are signed by the head of unit."
CLASSES = [openbook.View, openbook.Library, openbook.Chat, AnswerStream]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENBOOK_HOME", str(tmp_path / "home"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "travel.md").write_text(TRAVEL)
    (tmp_path / "leave.md").write_text("Everybody has 28 days of leave.")
    return tmp_path


@pytest.fixture
def kb(here: Path) -> Iterator[openbook.Library]:
    with openbook.open(here / "kb", model=echo_model(), embedder=HashEmbedder()) as kb:
        kb.sync("docs")
        yield kb


def run(text: str, **names: object) -> None:
    test = doctest.DocTestParser().get_doctest(text, {"openbook": openbook, **names}, "openbook", None, None)
    assert test.examples
    found: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test, out=found.append)
    assert not found, "".join(found)


def test_the_names_are_few_typed_and_documented() -> None:
    names = dir(openbook)
    assert len(names) <= 12
    for name in set(names) - {"__version__"}:
        assert inspect.getdoc(getattr(openbook, name)), f"{name} has no docstring"
    functions: list[Callable[..., object]] = [openbook.open, openbook.ask]
    functions += [f for each in CLASSES for n, f in vars(each).items() if inspect.isfunction(f) and n[0] != "_"]
    for function in functions:
        signature = inspect.signature(function)
        hints = [p.annotation for p in signature.parameters.values() if p.name != "self"]
        assert inspect.Signature.empty not in [*hints, signature.return_annotation], function
        assert inspect.getdoc(function), f"{function} has no docstring"
    with pytest.raises(AttributeError, match="module 'openbook' has no attribute 'train'"):
        openbook.train  # noqa: B018
    text = pydoc.plain(pydoc.render_doc(openbook)).partition("PACKAGE CONTENTS")
    assert len((text[0] + text[2]).splitlines()) <= 100  # two screens


def test_the_examples_run(kb: openbook.Library) -> None:
    things = [openbook.open, openbook.ask, *CLASSES]
    things += [f for each in CLASSES for f in vars(each).values() if not inspect.isclass(f)]
    told = [inspect.getdoc(each) or "" for each in things if hasattr(each, "__doc__")]
    asked = [text for text in dict.fromkeys(told) if ">>>" in text]
    assert len(asked) > 10
    # Changes build on each other, so these come in the order in which the library tells them.
    run("\n\n".join(asked), kb=kb, model=echo_model(), embedder=HashEmbedder())


def test_a_view_shows_what_its_reader_may_see_and_changes_nothing_else(kb: openbook.Library) -> None:
    kb.add("leave.md", require_labels=["board"])
    question = "How many days of leave has everybody?"
    assert str(kb.labels("board").ask(question)) == "Everybody has 28 days of leave."
    assert len(kb.labels("board").documents()) == 2
    assert [len(view.documents()) for view in (kb, kb.as_of(1).labels("board"))] == [1, 1]
    both = kb.where("author = 'Lee'").where("date >= 2026-01-01")
    assert both.condition == "(author = 'Lee') and (date >= 2026-01-01)"
    assert both.documents() == []


def test_an_older_version_is_asked_whatever_the_newest_one_holds(kb: openbook.Library) -> None:
    question = "Who signs travel expenses?"
    expected = str(kb.ask(question))
    kb.remove("travel.md")
    assert str(kb.as_of(1).ask(question)) == expected
    assert kb.ask(question).declined
    for view in (kb.as_of(2), kb.as_of(0)):
        with pytest.raises(KnowledgeBaseInvalid, match="nothing to ask"):
            view.ask(question)


def test_a_conversation_refers_to_earlier_questions(kb: openbook.Library) -> None:
    chat = kb.chat()
    chat.ask("Who signs travel expenses?")
    pieces = chat.stream("And who signs them?")
    assert "".join(pieces) == pieces.answer.answer
    with pytest.raises(openbook.OpenBookError, match="empty"):
        list(chat.stream(" "))
    assert chat.questions == ["Who signs travel expenses?", "And who signs them?"]


def test_a_stream_that_is_left_ends_the_answer_and_errors_reach_its_reader(kb: openbook.Library) -> None:
    with kb.stream("Who signs travel expenses?") as pieces:
        next(pieces)
    assert list(pieces) == []
    assert TRAVEL.startswith(pieces.answer.answer.removesuffix("..."))
    with pytest.raises(openbook.OpenBookError, match="empty"):
        list(kb.stream(" "))


LEFT_EARLY = """
import sys, time, openbook
from openbook.testing import HashEmbedder, echo_model
for run in range(12):
    with openbook.open(sys.argv[1], model=echo_model(), embedder=HashEmbedder()) as kb:
        with kb.stream("Who signs expenses 12 of file 3?"):
            time.sleep(run * 0.003)  # other steps of the search; the test holds at any
"""


def test_a_library_may_be_closed_while_a_stream_still_searches(here: Path) -> None:
    searching, goes_on = threading.Event(), threading.Event()

    class Slow(HashEmbedder):
        def embed_query(self, text: str) -> Vectors:
            searching.set()
            assert goes_on.wait(60)
            return super().embed_query(text)

    kb = openbook.open(here / "kb", model=echo_model(), embedder=Slow())
    goes_on.set()
    kb.sync("docs")
    searching.clear()
    goes_on.clear()
    stream = kb.stream("Who signs travel expenses?")
    assert searching.wait(60)
    closing = threading.Thread(target=kb.close)
    closing.start()
    goes_on.set()
    closing.join()
    with suppress(openbook.OpenBookError):  # it ends with an answer or an error
        assert stream.answer.answer == TRAVEL


@pytest.mark.laws
def test_a_library_may_be_closed_at_any_step_of_a_search(kb: openbook.Library, here: Path) -> None:
    for number in range(40):
        sentences = (f"Sentence {n} of file {number} says that head {n} signs {n * number}." for n in range(40))
        (here / "docs" / f"{number}.md").write_text(" ".join(sentences))
    kb.sync("docs")
    command = [sys.executable, "-c", LEFT_EARLY, str(here / "kb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # once it was a segmentation fault


def test_the_async_methods_do_the_same(kb: openbook.Library) -> None:
    async def all_three() -> tuple[str, int, str]:
        answer = await kb.ask_async("Who signs travel expenses?")
        hits = await kb.search_async("travel expenses")
        return str(answer), len(hits), "".join([piece async for piece in kb.stream_async("Who signs travel expenses?")])

    assert asyncio.run(all_three()) == (TRAVEL, 1, TRAVEL)


def test_settings_and_arguments_are_read(here: Path) -> None:
    (here / "home").mkdir()
    (here / "home" / "config.toml").write_text("max_tokens = 3\n")
    arguments = {"model": echo_model(), "embedder": HashEmbedder()}
    question = "Who signs travel expenses?"
    assert str(openbook.ask(question, "docs", **arguments)) == "Travel expenses are"  # type: ignore[arg-type]
    assert str(openbook.ask(question, ["docs"], max_tokens=2, **arguments)) == "Travel expenses"  # type: ignore[arg-type]
    with pytest.raises(openbook.OpenBookError, match="there is no setting 'max_token'"):
        openbook.open("kb", max_token=2)
    with pytest.raises(openbook.OpenBookError, match="exclude each other"):
        openbook.open("kb", docs="docs")


def test_a_model_that_could_not_be_opened_is_tried_again(kb: openbook.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> openbook.FrozenModel:
        raise EngineError("No memory.")

    openers = iter([fails, echo_model])
    monkeypatch.setattr(opening, "model_opener", lambda *_: next(openers))
    with openbook.open("kb", embedder=HashEmbedder()) as other:
        with pytest.raises(EngineError):
            other.ask("Who signs travel expenses?")
        assert str(other.ask("Who signs travel expenses?")) == TRAVEL


def test_a_fallback_model_is_opened_once_an_answer_is_not_certain(
    kb: openbook.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, openbook.FrozenModel] = {}

    def opener(settings: Settings, _: object) -> Callable[[], openbook.FrozenModel]:
        def open_it() -> openbook.FrozenModel:
            assert settings.model not in opened
            engine = DecliningEngine() if settings.model == "small" else EchoEngine()
            return opened.setdefault(settings.model, named_model(settings.model, engine))

        return open_it

    monkeypatch.setattr(opening, "model_opener", opener)
    question, hashes = "Who signs travel expenses?", HashEmbedder()
    with openbook.open("kb", model="small", embedder=hashes, fallback_model="large") as other:
        assert str(other.ask(question, closed_book=True)) == "The passages do not say."
        assert list(opened) == ["small"]
        answer = other.ask(question)
        assert (str(answer), answer.receipt.model.name, list(opened)) == (TRAVEL, "large", ["small", "large"])
        assert list(other.stream(question)) == [TRAVEL]  # whole, once it is decided
        first = ask(question, other.model, other.corpus)
        assert (first.declined, other.replay(first).identical, other.replay(answer).identical) == (True, True, True)
    with pytest.raises(EngineError, match="closed"):
        opened["large"].count_prompt_tokens(Prompt("", (), ""))
    opened.clear()
    for model in ("large", echo_model()):  # it is the model itself, and it is not needed
        with openbook.open("kb", model=model, embedder=hashes, fallback_model="large") as other:
            assert (str(other.ask(question)), len(list(opened))) == (TRAVEL, 1)
    default = kb.resources.settings.model  # not the model that is given
    declining = named_model("small", DecliningEngine())
    with openbook.open("kb", model=declining, embedder=hashes, fallback_model=default) as other:
        assert other.ask(question).receipt.model.name == default


def test_a_missing_base_is_named_and_not_made(here: Path) -> None:
    with openbook.open("none", model=echo_model(), embedder=HashEmbedder()) as kb:
        with pytest.raises(openbook.OpenBookError, match="none"):
            kb.ask("Who signs travel expenses?")
        assert not (here / "none").exists()
    with openbook.open(docs="docs", model=echo_model(), embedder=HashEmbedder()) as kb:
        assert str(kb.ask("Who signs travel expenses?")) == TRAVEL
        changes: list[Callable[..., object]] = [kb.add, kb.remove, kb.purge, kb.tag, kb.restore]
        for change in changes:
            with pytest.raises(openbook.OpenBookError, match="exactly these documents"):
                change("travel.md")
    with pytest.raises(openbook.OpenBookError, match="docs is empty"):
        openbook.ask("Who signs travel expenses?", docs=[])
    with pytest.raises(openbook.OpenBookError, match="a model's name or a FrozenModel"):
        openbook.open("kb", model=Path("model.gguf"))  # type: ignore[arg-type]


def test_a_folder_keeps_its_labels_until_others_are_given(kb: openbook.Library, here: Path) -> None:
    kb.sync("docs", require_labels="board")
    kb.sync(here / "docs")
    assert (kb.documents(), len(kb.labels("board").documents())) == ([], 1)
    kb.sync("docs", reset=True)
    assert len(kb.documents()) == 1
    with pytest.raises(openbook.OpenBookError, match="is not an access label"):
        kb.labels(["board"])  # type: ignore[arg-type]


def test_documents_are_named_by_text_or_path(kb: openbook.Library, here: Path) -> None:
    kb.remove(here / "docs" / "travel.md")
    assert kb.documents() == []
    assert kb.restore(1) == 3
    assert kb.purge([Path("docs/travel.md")]).purged.documents == (str(here / "docs" / "travel.md"),)
    with pytest.raises(openbook.OpenBookError, match="name at least one"):
        kb.purge([])


def test_a_notebook_shows_text_certainty_and_quotes_but_no_markup_of_a_document(
    kb: openbook.Library, here: Path
) -> None:
    (here / "docs" / "pets.md").write_text("Pets <script>alert(1)</script> are welcome.")
    kb.sync("docs")
    shown = kb.ask("Are pets welcome?")._repr_markdown_()
    assert "are welcome" in shown
    assert "likely (" in shown
    assert "pets.md" in shown
    assert "<script>" not in shown


@pytest.mark.laws
@pytest.mark.model
def test_the_five_lines_run_with_real_models(
    here: Path, monkeypatch: pytest.MonkeyPatch, model_store: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("qwen2.5-coder-1.5b-instruct", "minilm-l6-int8"):
        stored(model_store, name)
    monkeypatch.setenv("OPENBOOK_HOME", str(MODEL_HOME))
    lines = (openbook.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    exec(dedent(lines), {})
    assert "head of unit" in capsys.readouterr().out


def test_the_programs_of_the_docs_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "model_opener", lambda *_: echo_model)
    monkeypatch.setattr(opening, "open_embedder", lambda *_: HashEmbedder())
    (here / "examples").symlink_to(ROOT / "examples")
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(programs) > 10
    names: dict[str, object] = {}
    for program in programs:
        exec(program, names)
    printed = capsys.readouterr().out
    assert printed.count("True\n") == 2  # replayed, purged
    assert "goes to Amélie Rouvière, and\n" in printed  # the line that was looked up
    assert "'1.1 Asking for leave'" in printed
    assert "No version 'v2'" in printed
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    with openbook.open() as kb:
        kb.sync("examples/handbook")
    exec(program, {})
    assert capsys.readouterr().out.strip()
