"""A fake engine and embedder: deterministic and instant, without a model."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from openbook.answers.prompts import question_of_block
from openbook.core.errors import ContextOverflow, EngineError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import (
    Completion,
    Decoding,
    EmbedderIdentity,
    FinishReason,
    ModelIdentity,
    Prompt,
    ReaderFormat,
    canonical_json,
    sha256_hex,
)
from openbook.inference.decoding import TextStream, choose, enough, log_odds
from openbook.inference.frozen import FrozenModel, ReadEach

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


class EchoEngine:
    """Answers with the passages' sentence that shares most words with the question, or with `otherwise`.

    For a schema it puts the sentence into each property, which must be texts; instead of `otherwise` it writes nothing.
    """

    identity = ModelIdentity(name="echo", digest=sha256_hex(b"openbook echo engine 1"), evidence="verified")
    numeric_class = "echo"

    def __init__(self, *, context_tokens: int = 4096, otherwise: str = "The passages do not say.") -> None:
        self.context_tokens, self._otherwise, self._open = context_tokens, otherwise, True

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        if not self._open:
            raise EngineError("The echo engine was closed; make a new one.")
        return sum(len(text.split()) for text in (prompt.system, *prompt.passages, prompt.question))

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        tokens = self.count_prompt_tokens(prompt)
        if tokens + decoding.max_tokens > self.context_tokens:
            raise ContextOverflow(f"{tokens} + {decoding.max_tokens} tokens do not fit into {self.context_tokens}.")
        text = self._answer(prompt)
        if decoding.schema:
            names = json.loads(decoding.schema).get("properties", ["answer"])
            text = "" if text == self._otherwise else json.dumps(dict.fromkeys(names, text), ensure_ascii=False)
        answer = re.findall(r"\S+\s*", text)
        stream, pieces, used = TextStream(decoding.stop), [], 0
        finish: FinishReason = "end" if len(answer) <= decoding.max_tokens else "length"
        for word in answer[: decoding.max_tokens]:
            if cancelled():
                finish = "cancelled"
                break
            used += 1
            if piece := stream.feed(word.encode()):
                pieces.append(piece)
                yield piece
            if stream.stopped:
                finish = "stop"
                break
        if finish != "cancelled" and (rest := stream.feed(b"", final=True)):
            pieces.append(rest)
            yield rest
        digest = sha256_hex(canonical_json([prompt.system, list(prompt.passages), prompt.question]))
        return Completion("".join(pieces), finish, tokens, used, digest, self.numeric_class)

    def generate_each(
        self, prompts: Sequence[Prompt], decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        """The score grows with the share of the question's words in the best sentence."""
        scores: list[float] = []
        for p in prompts:
            abstains = self._answer(p) == self._otherwise
            scores.append(-math.inf if abstains else log_odds(-8.0 * self._shared(p)))
            if enough(scores):
                break
        prompts = prompts[: len(scores)]
        chosen = choose(scores)
        digest = sha256_hex(canonical_json([[p.system, list(p.passages), p.question] for p in prompts]))
        tokens = sum(map(self.count_prompt_tokens, prompts))
        if chosen is None:
            return ReadEach(len(prompts), None, Completion("", "end", tokens, 0, digest, self.numeric_class))
        completion = yield from self.generate(prompts[chosen], decoding, cancelled)
        return ReadEach(len(prompts), chosen, replace(completion, prompt_tokens=tokens, prompt_digest=digest))

    def read_ahead(self, prompt: Prompt) -> int:
        return self.count_prompt_tokens(prompt) - len(prompt.question.split())

    def _shared(self, prompt: Prompt) -> float:
        asked = set(_words(question_of_block(prompt.question)))
        return len(asked & set(_words(self._answer(prompt)))) / max(1, len(asked))

    def _answer(self, prompt: Prompt) -> str:
        asked = set(_words(question_of_block(prompt.question)))
        sentences = [s.strip() for p in prompt.passages for s in re.split(r"(?<=[.!?])\s+|\n+", p) if s.strip()]
        best = max(sentences, key=lambda s: len(asked & set(_words(s))), default="")
        return best if len(asked & set(_words(best))) >= 2 else self._otherwise

    def close(self) -> None:
        self._open = False


def echo_model(*, reader: ReaderFormat | None = None, **options: int | str) -> FrozenModel:
    return FrozenModel(EchoEngine(**options), reader)  # type: ignore[arg-type]


class HashEmbedder:
    """A bag of hashed words as a unit vector. Texts that share words are near; all texts without words are equal."""

    def __init__(self, dimensions: int = 64, name: str = "hash") -> None:
        digest = sha256_hex(f"openbook hash embedder 1 {dimensions}".encode())
        self.identity = EmbedderIdentity(name=name, digest=digest, dimensions=dimensions)
        self.model_digest = digest
        self.texts_embedded = 0

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.identity.dimensions, dtype=np.float32)
        for word in _words(text) or [""]:
            digest = hashlib.sha256(word.encode()).digest()
            vector[int.from_bytes(digest[:4]) % self.identity.dimensions] += 1.0 if digest[4] & 1 else -1.0
        length = float(np.linalg.norm(vector))
        if length == 0.0:  # words that cancel each other
            vector[0], length = 1.0, 1.0
        return (vector / np.float32(length)).astype(np.float32)

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts_embedded += len(texts)
        rows = [self.embed_query(text) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.identity.dimensions), dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        return len(_words(text))
