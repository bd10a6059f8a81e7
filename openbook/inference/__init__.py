"""Inference with frozen models, and the embedder. Nothing here can change a weight.

* `frozen`             `FrozenModel` and the seam `Engine`; start reading here
* `loader`             opens models
* `llamacpp`           the local engine; `llamalib` is llama.cpp's C API, typed
* `openai`             the engine for OpenAI-compatible servers
* `tokenizer`          prompts to token ids; chat templates
* `decoding`           logits to text
* `kv_cache`           computed states of passages
* `context_pool`       lends contexts to requests
* `answerability`      the probability that the passages state the answer
* `trial`              the first load of an unknown file, in a separate process
* `embedder`           text to vectors
"""

from __future__ import annotations

from openbook.inference.frozen import Engine, FrozenModel
from openbook.inference.loader import connect_model, load_embedder, load_model, prompt_counter

__all__ = ["Engine", "FrozenModel", "connect_model", "load_embedder", "load_model", "prompt_counter"]
