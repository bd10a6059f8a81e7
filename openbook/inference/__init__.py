"""The frozen side: models that only compute, engines that run them, and the embedder.

Nothing here can change a weight. A model is opened from a reference in the model store (`load_model`) or reached at an
OpenAI-compatible server (`connect_model`); both give a `FrozenModel`. The embedder (`load_embedder`) is a frozen model
too.

* `frozen`             `FrozenModel`, and the seam `Engine`; start reading here
* `loader`             opens models and the embedder
* `llamacpp`           the local engine: reads blocks, keeps states, writes answers
* `llamalib`           llama.cpp's C API, typed
* `openai`             an engine behind an OpenAI-compatible server
* `tokenizer`          from a prompt to token ids, by blocks; chat templates
* `decoding`           from logits to text
* `kv_cache`           what was computed of passages, in memory and on disk
* `context_pool`       lends contexts to requests
* `passage_selection`  which passage a trained reader answers from
* `answerability`      whether the passages state the answer, by what a layer gives while llama.cpp computes
* `trial`              the first load of a foreign file, in a process of its own
* `embedder`           text to vectors
"""

from __future__ import annotations

from openbook.inference.frozen import Engine, FrozenModel
from openbook.inference.loader import connect_model, load_embedder, load_model, prompt_counter

__all__ = ["Engine", "FrozenModel", "connect_model", "load_embedder", "load_model", "prompt_counter"]
