"""Knowledge bases and versions in the name of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openbook.knowledge import KnowledgeBase, add
from openbook.knowledge.versions import tag
from openbook.serving.configuration import Configuration
from openbook.serving.naming import Named, named
from openbook.serving.refusals import Refusal
from openbook.testing import HashEmbedder, echo_model
from tests.serving.conftest import Running, running

QUESTION = "How many metres high is the tower of Lund?"
BASES = ("kb", "hand:book", "odd@2", "closed-book")


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("llama3:8b", Named()),
        ("llama3:8b:closed-book", Named(closed_book=True)),
        ("llama3:8b:kb", Named(knowledge_base="kb")),
        ("llama3:8b:kb@3", Named(knowledge_base="kb", as_of="3")),
        ("llama3:8b:kb@before-the-review", Named(knowledge_base="kb", as_of="before-the-review")),
        ("llama3:8b:hand:book@2026-03-01T09:00", Named(knowledge_base="hand:book", as_of="2026-03-01T09:00")),
        ("llama3:8b:odd@2", Named(knowledge_base="odd@2")),
        ("llama3:8b:odd@2@1", Named(knowledge_base="odd@2", as_of="1")),
    ],
)
def test_a_name_says_which(model: str, wanted: Named) -> None:
    assert named(model, "llama3:8b", BASES) == wanted


@pytest.mark.parametrize(
    "model",
    ["", "llama3", "llama3:8b:", "llama3:8b@3", "llama3:8bx", "llama3:8b:other", "llama3:8b:kb@", "llama3:8b:@3"],
)
def test_any_other_name_is_refused_with_those_that_there_are(model: str) -> None:
    with pytest.raises(Refusal, match="llama3:8b:hand:book") as refused:
        named(model, "llama3:8b", BASES)
    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")


@pytest.fixture
def two(configuration: Configuration, base: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder) -> Iterator[Running]:
    """`towers` has a tower of 50 metres in version 1, tagged `old`, and one of 55 in version 2."""
    towers = KnowledgeBase.ensure(tmp_path / "towers", embedder.identity)
    for metres in (50, 55):
        (tmp_path / "tower.txt").write_text(f"The tower of Lund is {metres} metres high.")
        add(towers, [tmp_path / "tower.txt"], embedder)
    tag(towers, "old", 1)
    with running(configuration, echo_model(), {"kb": base, "towers": towers}) as found:
        yield found
    towers.close()


def test_the_name_chooses_what_the_body_can_choose(two: Running) -> None:
    for model, metres, version in (("echo:towers", "55", 2), ("echo:towers@1", "50", 1), ("echo:towers@old", "50", 1)):
        by_name = two.ask(QUESTION, model=model).json()
        assert by_name["model"] == model
        assert metres in by_name["openbook"]["answer"]
        assert by_name["openbook"]["receipt"]["knowledge_base_version"] == version
        body = {"knowledge_base": "towers", "as_of": version}
        assert two.ask(QUESTION, openbook=body).json()["choices"] == by_name["choices"]
        response = two.client.post("/v1/responses", json={"model": model, "input": QUESTION}).json()
        assert response["openbook"]["answer"] == by_name["openbook"]["answer"]
    assert two.ask(QUESTION).json()["openbook"]["abstained"]


def test_what_is_chosen_twice_or_not_there_is_refused(two: Running) -> None:
    wrong: list[tuple[dict[str, Any], int, str, str]] = [
        (
            {"model": "echo:towers", "openbook": {"knowledge_base": "kb"}},
            400,
            "invalid_value",
            "openbook.knowledge_base",
        ),
        ({"model": "echo:towers@1", "openbook": {"as_of": 2}}, 400, "invalid_value", "openbook.as_of"),
        ({"model": "echo:towers@9"}, 400, "version_not_found", "model"),
        ({"model": "echo:nothing"}, 404, "model_not_found", "model"),
    ]
    for body, status, code, param in wrong:
        for stream in (False, True):
            response = two.ask(QUESTION, stream=stream, **body)
            assert response.status_code == status
            assert (response.json()["error"]["code"], response.json()["error"]["param"]) == (code, param)
    assert two.ask(QUESTION, model="echo:towers", openbook={"as_of": 1}).status_code == 200


def test_the_list_of_models_names_them(two: Running, server: Running) -> None:
    assert [each["id"] for each in server.client.get("/v1/models").json()["data"]] == [
        "echo",
        "echo:closed-book",
        "hash",
    ]
    ids = [each["id"] for each in two.client.get("/v1/models").json()["data"]]
    assert ids == ["echo", "echo:kb", "echo:towers", "echo:closed-book", "hash"]
    assert two.client.get("/v1/models/echo:towers").json()["openbook"]["knowledge_bases"][0]["name"] == "towers"
    assert two.client.get("/v1/models/echo:towers@old").json()["openbook"]["version"] == 1
    assert server.client.get("/v1/models/echo:kb").json()["openbook"]["mode"] == "open-book"
    assert two.client.get("/v1/models/echo:towers@9").status_code == 400
    assert two.client.get("/v1/models/echo:nothing").status_code == 404
