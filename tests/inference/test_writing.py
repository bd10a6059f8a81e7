from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openbook.inference.writing import Spans, Writing
from openbook.records import Decoding, sha256_hex

LETTERS = "ab é.\n"


class Bytes:
    """A vocabulary of the 256 bytes and an end; every text can be spelled in it."""

    end = 256

    def ends_generation(self, token: int) -> bool:
        return token == self.end

    def piece(self, token: int) -> bytes:
        return b"" if token == self.end else bytes([token])


def written(text: str, rows: list[list[float]], decoding: Decoding) -> Writing:
    writing = Writing(Bytes(), decoding, sha256_hex(b"request"), Spans(text))
    for row in rows:
        writing.take(np.array(row, dtype=np.float32))
        if writing.finish:
            break
    return writing


@given(
    st.text(LETTERS, min_size=1, max_size=20).filter(lambda text: any(char.isalnum() for char in text)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 1.5]),
)
def test_whatever_the_model_prefers_a_quote_stands_in_the_text(text: str, seed: int, temperature: float) -> None:
    chance = np.random.default_rng(seed)
    rows = [list(map(float, chance.normal(size=257))) for _ in range(12)]
    found = written(text, rows, Decoding(temperature, max_tokens=12, quote=True))
    assert found.text.replace("\ufffd", "") in text  # a letter may be cut by the longest length
    if found.finish == "end":
        assert found.text in text


def test_a_quote_ends_with_whole_words() -> None:
    spans = Spans("Lila Ortega opened it in 1903. Li met her.")
    assert spans.may_end(b"Lila")
    assert spans.may_end(b"Li")  # it is a word elsewhere
    assert not spans.may_end(b"Lil")
    assert not spans.may_end(b"190")
    assert spans.may_end(b"1903")
    assert not spans.may_end(b"")
    assert spans.may_end(b"met her.")
