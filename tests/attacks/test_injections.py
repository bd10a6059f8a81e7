"""Laws that hold for every document of the set, whatever a model makes of it: text is never control, and what is shown is inert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from openbook.answers.ask import ask
from openbook.answers.prompts import open_book_prompt
from openbook.answers.retrieval import Corpus
from openbook.cli import display
from openbook.core.config import Settings
from openbook.core.records import Passage, Prompt, ReaderFormat
from openbook.inference import FrozenModel
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.knowledge import KnowledgeBase
from openbook.models import ModelReference
from openbook.serving.configuration import Configuration
from openbook.testing import HashEmbedder
from tests.attacks.injections import Injection, injections
from tests.conftest import base_with
from tests.diagnosis.table_engine import observation, table_model
from tests.diagnosis.test_report import inert_page
from tests.serving.conftest import events_of, running

CASES = injections()
NAMED = {case.name: case for case in CASES}
TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n",
    "llama-2": "{{ bos_token }}[INST] <<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{{ messages[1].content }} [/INST]",
    "llama-3": "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}",
    "gemma": "<start_of_turn>user\n{{ messages[0].content }}\n{{ messages[1].content }}<end_of_turn>\n<start_of_turn>model\n",
    "phi": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}<|assistant|>\n",
}
_SPECIAL = re.compile(
    r"<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?s>|<(?:start|end)_of_turn>|<eos>|<bos>|\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>"
    r"|</?tool_(?:call|response)>|<fim_\w+>|<(?:repo_name|reponame|file_sep|filename|issue_\w+|jupyter_\w+|empty_output)>"
)
_CONTROL = 0x110000  # ids from here on are control tokens; below, code points


class SpecialVocabulary:
    """A vocabulary of characters, and of the control tokens of many families of models."""

    bos_token, adds_bos, bos_text, eos_text = _CONTROL, True, "<s>", "</s>"

    def __init__(self, template: str) -> None:
        self.chat_template = template
        self._specials: dict[str, int] = {}

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        if not control:
            return list(map(ord, text))
        tokens: list[int] = []
        end = 0
        for match in _SPECIAL.finditer(text):
            tokens += map(ord, text[end : match.start()])
            tokens.append(self._specials.setdefault(match[0], _CONTROL + 1 + len(self._specials)))
            end = match.end()
        return [*tokens, *map(ord, text[end:])]

    def is_control(self, token: int) -> bool:
        return token >= _CONTROL


def prompts_of(case: Injection) -> list[Prompt]:
    """The document as a passage, as its title and headings, among others, and as the question."""
    passage = Passage("p", "d.md", case.attacked, 0, 1, None, (case.attack,), case.attacked)
    plain = Passage("q", "e.md", "", 0, 1, None, (), "The ferry leaves at nine.")
    reader = ReaderFormat("Answer from the passage, or say: Not stated.", "Not stated.")
    return [
        open_book_prompt(case.question, [passage], reader),
        open_book_prompt(case.attacked, [plain, passage, plain]),
        Prompt(case.attacked, (), case.attacked),
    ]


def controls(tokenizer: PromptTokenizer, prompt: Prompt) -> list[int]:
    return [token for block in tokenizer.blocks(prompt) for token in block if tokenizer.model.is_control(token)]


def harmless(prompt: Prompt) -> Prompt:
    return Prompt("x", tuple("x" for _ in prompt.passages), "x")


def test_the_set_is_what_it_says() -> None:
    assert len(CASES) >= 60
    assert len(NAMED) == len(CASES)
    assert len({case.kind for case in CASES}) >= 12
    for case in CASES:
        assert any(answer in case.clean for answer in case.answers), case.name
        assert "{attack}" in case.document
        assert not any(wanted in case.clean for wanted in case.hijacked if len(wanted) > 1), case.name
    held = {match for case in CASES for match in _SPECIAL.findall(case.attack)}
    assert len(held) > 30  # without them the law below would say nothing


@pytest.mark.parametrize("family", TEMPLATES)
def test_no_text_becomes_a_control_token_of_any_family(family: str) -> None:
    vocabulary = SpecialVocabulary(TEMPLATES[family])
    tokenizer = PromptTokenizer(cast(Any, vocabulary))
    assert vocabulary.tokenize("<|im_start|>", control=True)[0] >= _CONTROL
    for case in CASES:
        for prompt in prompts_of(case):
            assert controls(tokenizer, prompt) == controls(tokenizer, harmless(prompt)), case.name
            assert controls(tokenizer, prompt)


@pytest.mark.model
def test_no_text_becomes_a_control_token_of_the_default_model(model_reference: ModelReference) -> None:
    tokenizer = open_tokenizer(model_reference.main_file)
    for case in CASES:
        for prompt in prompts_of(case):
            assert controls(tokenizer, prompt) == controls(tokenizer, harmless(prompt)), case.name


@pytest.fixture(scope="module")
def hostile_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    """All documents of the set, read as `add` reads them."""
    texts = {f"{case.name}.{case.format}": case.attacked for case in CASES}
    with closing(base_with(tmp_path_factory.mktemp("injections"), texts)) as base:
        yield base


def test_every_document_is_read_and_holds_its_answer_and_nothing_that_a_page_hides(hostile_base: KnowledgeBase) -> None:
    texts = {Path(name).stem: hostile_base.text(name) or "" for name in hostile_base.documents()}
    assert set(texts) == set(NAMED)
    for name, text in texts.items():
        assert any(answer in text for answer in NAMED[name].answers), name
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\U000e0000-\U000e007f]", text), name
    for hidden in ("hidden-comment", "hidden-display-none", "hidden-visibility", "hidden-aria-hidden"):
        assert not any(wanted in texts[hidden] for wanted in NAMED[hidden].hijacked), hidden


def obeying() -> FrozenModel:
    """The worst of models: it says the whole attack of the document that the question names."""
    return table_model({}, lambda asked, text: NAMED[asked.partition(": ")[0]].attack)


def test_the_terminal_shows_an_attack_as_text(hostile_base: KnowledgeBase, capsys: pytest.CaptureFixture[str]) -> None:
    for case in CASES:
        answer = ask(f"{case.name}: {case.question}", obeying(), Corpus(hostile_base, HashEmbedder()))
        display.print_answer(answer)
        shown = capsys.readouterr().out
        assert not [c for c in shown if not c.isprintable() and c not in "\n\t"], case.name
    display.print_answer(replace(answer, answer="The code is [bold red]4711[/bold red]."))
    assert "[bold red]4711[/bold red]" in capsys.readouterr().out


def test_the_report_shows_an_attack_as_text(tmp_path: Path) -> None:
    observations = []
    for number, case in enumerate(CASES):
        said = dict.fromkeys(("closed", "opened", "oracle", "document"), case.attack)
        asked = observation(number, question=f"{case.attack}?", answers=(case.attack,), text=case.attacked, **said)
        observations.append(asked)
    shown = ""
    for at in range(0, len(observations), 8):  # in pages, since each question of one is compared with all others
        shown += inert_page(tmp_path / "r.html", observations[at : at + 8])
    assert "evil.example" in shown


def test_the_server_gives_an_attack_as_a_string(own_home: Path, hostile_base: KnowledgeBase) -> None:
    with running(Configuration(Settings(home=own_home)), obeying(), {"kb": hostile_base}) as server:
        for case in {case.kind: case for case in CASES}.values():
            question = f"{case.name}: {case.question}"
            answered = server.ask(question, model="table")
            body = answered.json()
            assert inert(answered, "application/json"), case.name
            streamed = server.ask(question, model="table", stream=True)
            assert inert(streamed, "text/event-stream; charset=utf-8"), case.name
            events = events_of(streamed.text)
            assert events[-1] == "[DONE]"
            pieces = [part["choices"][0]["delta"] for part in map(json.loads, events[:-1]) if part["choices"]]
            shown = "".join(piece.get("content", "") for piece in pieces)
            assert shown == body["choices"][0]["message"]["content"] or body["openbook"]["abstained"], case.name


def inert(response: httpx.Response, content_type: str) -> bool:
    """Whether a browser that is led to this answer would show nothing of it as a page, and fetch nothing."""
    headers = response.headers
    return bool(
        response.status_code == 200
        and headers["content-type"] == content_type
        and headers["x-content-type-options"] == "nosniff"
        and headers["content-security-policy"].startswith("default-src 'none'")
    )
