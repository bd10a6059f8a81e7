"""Words as terms, for the keyword index and queries.

A term is the 64-bit BLAKE2b of a stem, so the index holds no text. Latin words are stemmed for English; scripts without spaces are cut into pairs
of characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import Stemmer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_QUERY_WORDS = 256
_RULES = 1  # raise it when a text gives other terms than before
# The end that an apostrophe joins to an English word is grammar; any other (O'Brien, l'eau) is a word of its own.
_WORD = re.compile(r"\w+(?:['\u2019](?:s|t|re|ve|ll|d|m)\b)?")
_APOSTROPHE = re.compile(r"['\u2019].*")
# Thai, Lao, Myanmar, Khmer, kana, Han, Hangul
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff]+"
)
# Stop words carry no topic; in a small collection their document frequency is too low for BM25 to see that.
_STOP = frozenset(
    "a about am an and any are as at be been but by can could did do does for from had has have how i if in into is it its "
    "many may me much my no not of on or our shall she he should so some than that the their them then there these they "
    "this those to us was we were what when where which who whom whose why will with would you your".split()
)


def is_function_word(word: str) -> bool:
    return word in _STOP


def query_words(query: str) -> Sequence[str]:
    """Lower-case words of `query` without stop words, unless there are no others. No operators."""
    words = [_APOSTROPHE.sub("", w) for w in _WORD.findall(_plain(query, pairs_only=True))]
    topical = [w for w in words if w not in _STOP]
    return (topical or words)[:MAX_QUERY_WORDS]


def query_terms(query: str) -> dict[int, int]:
    """The count of each term in `query`, in ascending order of the terms."""
    stem = stemmer()
    counts = Counter(_term(stem(word)) for word in query_words(query))
    return dict(sorted(counts.items()))


def version() -> str:
    """The version of the rules from text to terms. Indexes of other rules are not mixed."""
    return f"{_RULES} english {Stemmer.version()}"


class Vocabulary(dict[str, int]):
    """Numbers for the words of many texts, from 0, in order of appearance. Not thread-safe."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number

    def numbers(self, text: str) -> list[int]:
        return [self[word] for word in _WORD.findall(_plain(text, pairs_only=False))]

    def terms(self) -> NDArray[np.uint64]:
        """The term of each number: uint64 [words]. Words of one stem share a term."""
        import numpy as np

        stem = stemmer()
        found: Iterable[int] = (_term(stem(_APOSTROPHE.sub("", word))) for word in self)
        return np.fromiter(found, dtype=np.uint64, count=len(self))


def _plain(text: str, *, pairs_only: bool) -> str:
    """`text` in lower case and one form of Unicode, with spaces wherever a word ends."""
    if text.isascii():
        return text.lower().replace("_", " ")
    text = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    return UNSPACED.sub(lambda run: f" {' '.join(_pieces(run.group(), pairs_only=pairs_only))} ", text)


def _pieces(run: str, *, pairs_only: bool) -> list[str]:
    """Pairs of neighbors, with the single characters unless `pairs_only` and there are pairs."""
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    return pairs if pairs and pairs_only else [*run, *pairs]


def stemmer() -> Callable[[str], str]:
    """A new stemmer: it is not safe to share between threads."""
    return Stemmer.Stemmer("english", 0).stemWord  # type: ignore[no-any-return]


def _term(stem: str) -> int:
    return int.from_bytes(hashlib.blake2b(stem.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
