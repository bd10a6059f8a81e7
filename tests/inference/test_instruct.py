"""A model that was not trained to read, on windows of the handbook: the same bits cold, warm and restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.answer import ask
from openbook.inference import FrozenModel, load_model
from openbook.inference.kv_cache import KVCache
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.knowledge import KnowledgeBase, RunOptions
from openbook.knowledge.docs_cache import for_documents
from openbook.models import ModelReference
from openbook.prompts import open_book_prompt
from openbook.records import Embedder
from openbook.replay import replay
from tests.conftest import ROOT

pytestmark = pytest.mark.model
QUESTION = "How many days of leave do I get?"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, real_embedder: Embedder) -> KnowledgeBase:
    cache = tmp_path_factory.mktemp("cache")
    return for_documents(
        [ROOT / "examples" / "handbook" / "policies", ROOT / "examples" / "handbook" / "archive"],
        cache,
        real_embedder,
        RunOptions(),
    )[0]


@pytest.fixture
def opened(instruct_reference: ModelReference) -> Iterator[Callable[[KVCache], FrozenModel]]:
    models: list[FrozenModel] = []

    def open_with(states: KVCache) -> FrozenModel:
        models.append(load_model(instruct_reference, states=states))
        return models[-1]

    yield open_with
    for model in models:
        model.close()


@pytest.mark.slow
def test_windows_give_the_same_bits_cold_warm_and_restarted(
    opened: Callable[[KVCache], FrozenModel], base: KnowledgeBase, real_embedder: Embedder, tmp_path: Path
) -> None:
    windows = [hit.passage for hit in base.search(QUESTION, real_embedder, 3, windows=True)[1]]
    assert any(window.parts for window in windows)
    prompts = [open_book_prompt(question, windows) for question in (QUESTION, "Who may not approve a claim?")]
    cold, warm = opened(KVCache()), opened(KVCache(tmp_path))
    digests = []
    for model in (cold, warm, warm, opened(KVCache(tmp_path))):
        assert isinstance(model.engine, LlamaCppEngine)
        digests.append([model.engine.logits_digest(prompt, 4) for prompt in prompts])
    assert digests == [digests[0]] * 4
    # Another window before it is another computation, which must not be taken for it.
    assert isinstance(cold.engine, LlamaCppEngine)
    assert cold.engine.logits_digest(replace(prompts[0], passages=prompts[0].passages[1:]), 4) != digests[0][0]


@pytest.mark.slow  # as the README asks it, test_readme does
def test_the_leave_policy_in_force_answers_in_a_sentence_and_the_answer_replays(
    opened: Callable[[KVCache], FrozenModel], base: KnowledgeBase, real_embedder: Embedder
) -> None:
    model = opened(KVCache())
    answer = ask(QUESTION, model, base, real_embedder)
    assert "28 days" in answer.answer
    assert answer.citations
    assert "24 days" in answer.notes[0]
    assert replay(answer.receipt, model, base).identical
