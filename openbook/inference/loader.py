"""Opening models and the embedder. Engines are imported only when needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from openbook.core.errors import ModelError
from openbook.core.records import ModelIdentity, Prompt
from openbook.inference.frozen import FrozenModel

if TYPE_CHECKING:
    from openbook.inference.embedder import OnnxEmbedder
    from openbook.inference.kv_cache import KVCache
    from openbook.models import ModelReference


def load_model(
    reference: ModelReference, *, context_tokens: int = 4096, threads: int = 0, states: KVCache | None = None
) -> FrozenModel:
    """Open a stored model, which the caller has verified (`ModelStore.check_fast`).

    `context_tokens` is an upper bound. `threads` 0: one per available core. `states` is by default in memory. An adapter is
    opened merged with its base where possible. A file not in the catalogue first loads in a separate process (`trial`).

    Raises EngineError, UnknownModel if the base is missing, ModelError for an embedder.
    """
    from openbook.inference.answerability import probe_of
    from openbook.inference.llamacpp import LlamaCppEngine
    from openbook.inference.trial import trial_of

    if reference.manifest.kind == "embedder":
        raise ModelError(
            f"{reference.name!r} is an embedder, not a language model. To list the models: openbook models list"
        )
    adapter = reference if reference.manifest.kind == "adapter" else None
    base = reference.needed_base if adapter else reference

    opened = partial(
        LlamaCppEngine,
        identity=ModelIdentity(name=reference.name, digest=reference.digest, evidence="verified"),
        context_tokens=min(context_tokens, base.manifest.context_tokens or context_tokens),
        threads=threads,
        states=states,
    )
    if adapter is None or adapter.merged is None:
        trial = trial_of(base, adapter)
        part = adapter.main_file if adapter else None
        engine = opened(base.main_file, adapter=part, trial=trial, probe=probe_of(reference))
    else:
        open_base = partial(opened, base.main_file, trial=trial_of(base))  # tried now, opened later
        note = f"adapter merged as {adapter.merged.digest[:12]}"
        engine = opened(adapter.merged.main_file, note=note, trial=trial_of(adapter.merged), open_base=open_base)
    return FrozenModel(engine, engine.reader_format)


def prompt_counter(reference: ModelReference) -> Callable[[Prompt], int]:
    """A stored model's `count_prompt_tokens`, from its vocabulary alone. Raises EngineError, UnknownModel without the base."""
    from openbook.inference.llamacpp import cells_of
    from openbook.inference.llamalib import Model
    from openbook.inference.tokenizer import PromptTokenizer
    from openbook.inference.trial import trial_of

    adapter = reference if reference.manifest.kind == "adapter" else None
    part = reference if adapter is None else adapter.merged or adapter.needed_base
    trial = trial_of(part, None if adapter is None or adapter.merged else adapter)
    model = Model(part.main_file, vocabulary_only=True)
    tokenizer = PromptTokenizer(model, trial)

    def count(prompt: Prompt) -> int:
        return cells_of(prompt, tokenizer.blocks(prompt))

    weakref.finalize(count, model.close)
    return count


def connect_model(name: str, *, base_url: str, api_key: str = "", context_tokens: int = 4096) -> FrozenModel:
    """A model behind an OpenAI-compatible server. Its identity is only the server's claim."""
    from openbook.inference.openai import OpenAIEngine

    return FrozenModel(OpenAIEngine(name, base_url=base_url, api_key=api_key, context_tokens=context_tokens))


def load_embedder(reference: ModelReference, *, threads: int = 0) -> OnnxEmbedder:
    """Open a stored embedder. Raises EngineError, ModelError for a language model."""
    from openbook.inference.embedder import OnnxEmbedder

    spec = reference.manifest.embedding
    if reference.manifest.kind != "embedder" or spec is None:
        raise ModelError(
            f"{reference.name!r} is a language model, not an embedder; "
            "set OPENBOOK_EMBEDDER to an embedder, for instance minilm-l6-int8."
        )
    return OnnxEmbedder(reference.path, name=reference.name, digest=reference.digest, spec=spec, threads=threads)
