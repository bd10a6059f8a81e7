"""The frozen side: models that only compute, engines that run them, and the embedder.

Nothing here can change a weight. A model is opened from a reference in the model store (`load_model`) or reached at an
OpenAI-compatible server (`connect_model`); both give a `FrozenModel`. The embedder (`load_embedder`) is a frozen model
too.
"""

from __future__ import annotations

from openbook.inference.frozen import Engine, FrozenModel, connect_model, load_embedder, load_model, prompt_counter

__all__ = ["Engine", "FrozenModel", "connect_model", "load_embedder", "load_model", "prompt_counter"]
