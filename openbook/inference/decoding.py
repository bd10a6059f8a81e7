"""From logits to answer text: token choice, whole characters, stop strings, answers constrained to quotes, and the choice of
the passage to answer from, of several that were each read on their own.

A trained reader's first token says if a passage holds the answer. A passage's score is the log-odds of answering minus a
price for each rank of the retriever. Once one is sure enough, reading stops. The constants were fitted on the articles used
to select the reader, not on its training articles (research/log.md).

Shape legend: V vocabulary size.
"""

from __future__ import annotations

import codecs
import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from openbook.core.records import Decoding, Digest, FinishReason, canonical_json, sha256_hex
from openbook.inference.json_grammar import JsonGrammar

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANK_PRICE = 0.75  # nats for each passage that the retriever ranked better
LEAST = 0.5  # nats; no answer from a passage below this
SURE = 2.0  # nats; with a passage above this, reading stops
_NEVER = 1e-12  # probabilities are clamped this far from 0 and 1
CONSIDERED = 256  # likeliest tokens to try first under a constraint


def request_digest(model: Digest, prompt: Digest, decoding: Decoding) -> Digest:
    """Equal model, prompt tokens and decoding parameters give equal digests."""
    parts = {"model": model, "prompt": prompt, "temperature": decoding.temperature, "top_p": decoding.top_p}
    parts |= {"seed": decoding.seed, "max_tokens": decoding.max_tokens, "stop": list(decoding.stop)}
    parts |= {"quote": True} if decoding.quote else {}
    parts |= {"schema": decoding.schema} if decoding.schema else {}
    return sha256_hex(canonical_json(parts))


def uniform(request: Digest, step: int) -> float:
    """Return a number in [0, 1), a function of the request and the step alone."""
    digest = hashlib.sha256(f"{request}:{step}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53  # 53 bits are exact in a float, so never rounded up to 1.0


def choose_token(logits: NDArray[np.float32], decoding: Decoding, request: Digest, step: int) -> tuple[int, float]:
    """Return the next token and its log-probability at temperature 1. `logits`: float32 [V].

    Greedy takes the lowest id among equals. Otherwise `uniform(request, step)` picks by inverse cumulative probability from the
    smallest set of most probable tokens whose mass reaches `top_p`.
    """
    log_probs = log_softmax(logits)
    if decoding.temperature <= 0:
        token = int(np.argmax(logits))
        return token, float(log_probs[token])
    wide = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # near temperature 0 all but the greatest become -inf
        probs = np.nan_to_num(np.exp(log_softmax((wide - wide.max()) / decoding.temperature)))
    # Gives the order of a stable sort of tokens (equals by id); sorting values alone takes a tenth of the time.
    falling = -np.sort(-probs)
    mass = np.cumsum(falling)
    kept = min(int(np.searchsorted(mass, decoding.top_p * mass[-1], side="left")) + 1, len(falling))
    index = int(np.searchsorted(mass[:kept], uniform(request, step) * mass[kept - 1], side="right"))
    index = min(index, kept - 1)
    equals = np.flatnonzero(probs == falling[index])
    token = int(equals[index - np.count_nonzero(probs > falling[index])])
    return token, float(log_probs[token])


def log_softmax(x: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = x.astype(np.float64) - np.max(x)
    result: NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted)))
    return result


class TextStream:
    """Turns bytes into text that is safe to show: whole characters, and no beginning of a stop string."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = [s for s in stop if s]
        self._held = ""
        self.stopped = False

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Return the text that may be shown now. `final` releases held-back text."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(data, final)
        found = [at for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        longest = 0 if final else max(map(len, self._stop), default=1) - 1
        begun = (n for n in range(longest, 0, -1) if any(s.startswith(self._held[-n:]) for s in self._stop))
        cut = max(0, len(self._held) - next(begun, 0))
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


class Vocabulary(Protocol):
    def ends_generation(self, token: int) -> bool: ...
    def piece(self, token: int) -> bytes: ...


class Spans:
    """Makes an answer a span of a text, so `AnswerDecoder` can only quote."""

    def __init__(self, text: str) -> None:
        self._text = text.encode()

    def may_go_on(self, written: bytes, piece: bytes) -> bool:
        begins_inside_a_letter = not written and piece[:1] and 0x80 <= piece[0] < 0xC0
        return bool(piece) and not begins_inside_a_letter and written + piece in self._text

    def may_end(self, written: bytes) -> bool:
        """True if `written` occurs in the text and ends with a whole word."""
        try:
            last = written.decode()[-1] if written.strip() else ""
        except UnicodeDecodeError:  # ends inside a character
            return False
        at = self._text.find(written) if last else -1
        while at >= 0:
            after = self._text[at + len(written) :].decode()[:1]
            if not (last.isalnum() and after.isalnum()):
                return True
            at = self._text.find(written, at + 1)
        return False


class AnswerDecoder:
    """Decodes one answer: call `take` with each token's logits until `finish` is set.

    Setting `finish` ends the answer; text held back as a possible stop string is lost.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        decoding: Decoding,
        request: Digest,
        spans: Spans | None,
        grammar: JsonGrammar | None = None,
    ) -> None:
        self._vocabulary, self._decoding, self._request = vocabulary, decoding, request
        self._spans, self._grammar, self._written = spans, grammar, b""
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
    def least_logprob(self) -> float | None:
        return min(self._log_probs, default=None)

    def take(self, logits: NDArray[np.float32]) -> str:
        """Choose the next token from `logits`, float32 [V]. Return the text that is now final, possibly empty."""
        if self._spans is not None:
            possible = self._within_spans(logits, self._spans)
            if possible is None:  # the quoted text ends here
                self.finish = "end"
                return self._flushed("")
            logits = possible
        if self._grammar is not None:
            logits = np.where(self._grammar.allowed(), logits, np.float32(-np.inf))
        self.token, log_prob = choose_token(logits, self._decoding, self._request, len(self._log_probs))
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
            elif self._grammar is not None and self._grammar.accept(self.token):
                self.finish = "end"
            elif len(self._log_probs) >= self._decoding.max_tokens:
                self.finish = "length"
        return self._flushed(piece)

    def _flushed(self, piece: str) -> str:
        if self.finish:
            piece += self._stream.feed(b"", final=True)
        self._pieces.append(piece)
        return piece

    def _within_spans(self, logits: NDArray[np.float32], spans: Spans) -> NDArray[np.float32] | None:
        """Return the logits with -inf for tokens that do not continue a span; None if no token does.

        Only the `CONSIDERED` likeliest tokens are tried, unless none of them is allowed.
        """

        def allowed(token: int) -> bool:
            if self._vocabulary.ends_generation(token):
                return spans.may_end(self._written)
            return spans.may_go_on(self._written, self._vocabulary.piece(token))

        count = min(CONSIDERED, len(logits))
        least = np.partition(logits, -count)[-count]
        likelier = np.flatnonzero(logits > least)
        likeliest = np.concatenate([likelier, np.flatnonzero(logits == least)[: count - len(likelier)]])
        for candidates in (likeliest, np.arange(len(logits))):
            if kept := [token for token in map(int, candidates) if allowed(token)]:
                found = np.full_like(logits, -np.inf)
                found[kept] = logits[kept]
                return found
        return None


def score_of(logits: NDArray[np.float32], abstention: int) -> float:
    """The log-odds of answering; -inf if `abstention`, its first token, is likeliest."""
    return -math.inf if int(np.argmax(logits)) == abstention else log_odds(float(log_softmax(logits)[abstention]))


def log_odds(abstention_logprob: float) -> float:
    """The log-odds of answering, from the log-probability of the abstention's first token."""
    abstention = min(max(math.exp(abstention_logprob), _NEVER), 1 - _NEVER)
    return math.log1p(-abstention) - math.log(abstention)


def choose(scores: Sequence[float]) -> int | None:
    """The index of the passage to answer from, or None. Scores are in the retriever's order."""
    score, number = _best(scores)
    return number if score >= LEAST else None


def enough(scores: Sequence[float]) -> bool:
    return _best(scores)[0] >= SURE


def _best(scores: Sequence[float]) -> tuple[float, int]:
    """(score, index) of the best passage; equal scores go to the better ranked."""
    scored = ((score - RANK_PRICE * rank, -rank) for rank, score in enumerate(scores))
    score, rank = max(scored, default=(-math.inf, 0))
    return score, -rank
