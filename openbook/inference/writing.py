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


class Spans:
    """The spans of a text, as what an answer may become: with `Writing`, a quote that cannot be invented."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def may_go_on(self, written: bytes, piece: bytes) -> bool:
        begins_inside_a_letter = not written and piece[:1] and 0x80 <= piece[0] < 0xC0
        return bool(piece) and not begins_inside_a_letter and written + piece in self._text

    def may_end(self, written: bytes) -> bool:
        """Whether `written` stands somewhere in the text with whole words at its end."""
        at = self._text.find(written) if written.strip() and _is_whole(written) else -1
        while at >= 0:
            end = at + len(written)
            before, after = written.decode()[-1], self._text[end:].decode()[:1]
            if not (before.isalnum() and after.isalnum()):
                return True
            at = self._text.find(written, at + 1)
        return False


def _is_whole(content: bytes) -> bool:
    """Whether no letter is cut."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


class Writing:
    """`take` the logits after what was written so far, until `finish` says why it ends; `token` is the last one chosen."""

    def __init__(self, vocabulary: Vocabulary, decoding: Decoding, request: Digest, spans: Spans | None = None) -> None:
        self._vocabulary, self._decoding, self._request = vocabulary, decoding, request
        self._spans, self._written = spans, b""
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
        if self._spans is not None:
            possible = sampling.allowed_only(logits, self._allowed)
            if possible is None:  # the text ends here
                self.finish = "end"
                return self._flushed("")
            logits = possible
        self.token, log_prob = sampling.choose_token(logits, self._decoding, self._request, len(self._log_probs))
        self._log_probs.append(log_prob)
        piece = ""
        if self._vocabulary.ends_generation(self.token):
            self.finish = "end"
        else:
            content = self._vocabulary.piece(self.token)
            self._written += content
            piece = self._stream.feed(content)
            if self._stream.stopped:
                self.finish = "stop"
            elif len(self._log_probs) >= self._decoding.max_tokens:
                self.finish = "length"
        return self._flushed(piece)

    def _flushed(self, piece: str) -> str:
        """`piece` with all that was held back, if this is the end."""
        if self.finish:
            piece += self._stream.feed(b"", final=True)
        self._pieces.append(piece)
        return piece

    def _allowed(self, token: int) -> bool:
        if self._spans is None:
            return True
        if self._vocabulary.ends_generation(token):
            return self._spans.may_end(self._written)
        return self._spans.may_go_on(self._written, self._vocabulary.piece(token))

    def cancel(self) -> None:
        """Text that was held back, because it could have become a stop string, is lost."""
        self.finish = "cancelled"
