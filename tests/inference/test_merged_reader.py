"""A reader in two files: passages to the merged one, everything else to the base alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from openbook.answers.ask import ask
from openbook.core.errors import EngineError
from openbook.core.records import Decoding, Prompt
from openbook.inference import FrozenModel, load_model
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.models import ModelReference
from openbook.proofs.replay import replay
from tests.conformance.models import PROMPT
from tests.conftest import llama_engine, threads_for

MEMORY = Prompt("", (), "What is the capital of France?")


def loaded(reference: ModelReference) -> FrozenModel:
    return load_model(reference, context_tokens=1024, threads=threads_for(reference))


def test_passages_go_to_the_merged_file_and_the_rest_to_the_base(reader: ModelReference) -> None:
    assert reader.base is not None
    assert reader.merged is not None
    assert reader.merged.manifest.lineage == reader.digest
    whole, base, merged = map(loaded, (reader, reader.base, reader.merged))
    engines = [llama_engine(model) for model in (whole, base, merged)]
    assert engines[0].logits_digest(MEMORY) == engines[1].logits_digest(MEMORY) != engines[2].logits_digest(MEMORY)
    assert engines[0].logits_digest(PROMPT) == engines[2].logits_digest(PROMPT) != engines[1].logits_digest(PROMPT)
    assert whole.reader == merged.reader is not None
    assert whole.identity.digest == reader.digest
    assert reader.merged.digest[:12] in whole.engine.numeric_class
    # In each answer stands how it was computed.
    read, remembered = (whole.complete(prompt, Decoding(max_tokens=2)) for prompt in (PROMPT, MEMORY))
    assert read.numeric_class == whole.engine.numeric_class
    assert remembered.numeric_class == base.engine.numeric_class
    for model in (whole, base, merged):
        model.close()


def test_answers_of_both_files_replay_as_identical(reader: ModelReference) -> None:
    model = loaded(reader)
    answer = ask("What is the capital of France?", model)
    assert answer.receipt.numeric_class != model.engine.numeric_class
    assert replay(answer.receipt, model, None).differences == ()
    other = replace(answer.receipt, numeric_class="another").sealed()
    assert "numeric class changed" in replay(other, model, None).differences[0]
    model.close()


def test_the_base_is_opened_once_and_never_after_close(reader: ModelReference) -> None:
    engine, unopened = (llama_engine(loaded(reader)) for _ in range(2))
    opened: list[LlamaCppEngine] = []
    open_base = engine._open_base
    assert open_base is not None

    def noted() -> LlamaCppEngine:
        opened.append(open_base())
        return opened[-1]

    engine._open_base = unopened._open_base = noted
    engine.read_ahead(PROMPT)
    assert not opened
    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(engine.logits_digest, [MEMORY] * 3))) == 1
    assert len(opened) == 1
    engine.close()
    engine.close()
    unopened.close()
    for each in (engine, unopened, opened[0]):
        for prompt in (PROMPT, MEMORY):
            with pytest.raises(EngineError, match="was closed"):
                each.logits(prompt)
    assert len(opened) == 1
