"""A model that was not trained to read, on windows of the handbook: the same bits cold, warm and restarted."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.inference import load_model
from openbook.inference.kv_cache import KVCache
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.knowledge.docs_cache import for_documents
from openbook.models import ModelReference
from openbook.prompts import open_book_prompt
from openbook.records import Embedder
from tests.conftest import ROOT

pytestmark = pytest.mark.model
QUESTION = "How many days of leave do I get?"


@pytest.mark.slow
def test_windows_give_the_same_bits_cold_warm_and_restarted(
    instruct_reference: ModelReference, real_embedder: Embedder, tmp_path: Path
) -> None:
    handbook = ROOT / "examples" / "handbook"
    base, _ = for_documents([handbook / "policies", handbook / "archive"], tmp_path / "cache", real_embedder)
    windows = [hit.passage for hit in base.search(QUESTION, real_embedder, 3, windows=True)[1]]
    assert any(window.parts for window in windows)
    prompts = [open_book_prompt(question, windows) for question in (QUESTION, "Who may not approve a claim?")]
    other = replace(prompts[0], passages=prompts[0].passages[1:])  # another computation, which must not be taken for it

    def digests(states: KVCache, times: int) -> list[list[str]]:
        with closing(load_model(instruct_reference, states=states)) as model:
            assert isinstance(model.engine, LlamaCppEngine)
            found = [[model.engine.logits_digest(prompt, 4) for prompt in prompts] for _ in range(times)]
            assert model.engine.logits_digest(other, 4) != found[0][0]
            return found

    states = tmp_path / "states"
    found = [*digests(KVCache(), 1), *digests(KVCache(states), 2), *digests(KVCache(states), 1)]
    assert found == [found[0]] * 4
