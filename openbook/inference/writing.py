"""One answer under decoding: tokens in, text out, and the reason why it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from openbook.inference import sampling
from openbook.inference.stopping import TextStream
from openbook.records import Decoding, Digest, FinishReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Vocabulary(Protocol):
    def ends_generation(self, token: int) -> bool: ...
    def piece(self, token: int) -> bytes: ...


class Writing:
    """`take` the logits after what was written so far, until `finish` says why it ends; `token` is the last one chosen."""

    def __init__(self, vocabulary: Vocabulary, decoding: Decoding, request: Digest) -> None:
        self._vocabulary, self._decoding, self._request = vocabulary, decoding, request
        self._stream, self._pieces = TextStream(decoding.stop), list[str]()
        self._log_probs: list[float] = []
        self.token = -1
        self.finish: FinishReason | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def answer_tokens(self) -> int:
        return len(self._log_probs)

    @property
    def mean_logprob(self) -> float | None:
        return sum(self._log_probs) / len(self._log_probs) if self._log_probs else None

    def take(self, logits: NDArray[np.float32]) -> str:
        """Choose the next token by `logits`, float32 [vocabulary]. The text that is decided by it, which may be none."""
        self.token, log_prob = sampling.choose_token(logits, self._decoding, self._request, len(self._log_probs))
        self._log_probs.append(log_prob)
        piece = ""
        if self._vocabulary.ends_generation(self.token):
            self.finish = "end"
        else:
            piece = self._stream.feed(self._vocabulary.piece(self.token))
            if self._stream.stopped:
                self.finish = "stop"
            elif len(self._log_probs) >= self._decoding.max_tokens:
                self.finish = "length"
        if self.finish:
            piece += self._stream.feed(b"", final=True)
        self._pieces.append(piece)
        return piece

    def cancel(self) -> None:
        """Text that was held back, because it could have become a stop string, is lost."""
        self.finish = "cancelled"
