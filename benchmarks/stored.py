"""What benchmarks work with: the models of the settings' home, fetched where they are missing, and knowledge bases of files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from openbook.core.config import available_cores, load_settings
from openbook.core.records import Embedder
from openbook.inference import FrozenModel, load_embedder, load_model
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase, add
from openbook.models import ModelReference, ModelStore, ensure

EXAMPLES = ROOT / "examples"
HANDBOOK = EXAMPLES / "handbook"


def stored(name: str) -> ModelReference:
    return ensure(ModelStore(load_settings().models_dir), name, announce=print)


def opened(name: str, states: KVCache | None = None) -> FrozenModel:
    return load_model(stored(name), threads=load_settings().threads, states=states)


def default_embedder() -> Embedder:
    return load_embedder(stored(load_settings().embedder))


def base_of(kb: Path, documents: Sequence[Path], embedder: Embedder) -> KnowledgeBase:
    base = KnowledgeBase.ensure(kb, embedder.identity)
    add(base, documents, embedder)
    return base


def merged_reader() -> Path:
    """The file of the default reader, merged with its base."""
    if (merged := stored("reader").merged) is None:
        raise LookupError("the reader is not merged with its base")
    return merged.main_file


def llamacpp_server(file: Path, context_tokens: int, slots: int = 1) -> Any:
    """llama.cpp's server in this process, with prompt caching; its slots share the context. It needs the package xllamacpp."""
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = context_tokens, slots, available_cores()
    params.verbosity, params.cache_prompt = 0, True
    return xllamacpp.Server(params)
