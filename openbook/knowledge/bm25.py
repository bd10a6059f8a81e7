"""The keyword index: BM25 in tantivy, derived from the knowledge base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from openbook.errors import StorageError

_WRITER_BYTES = 64_000_000
_HEADING_BOOST = 0.6
_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
# Question words carry no topic; in a small collection their document frequency is too low for BM25 to see that.
_STOP = frozenset(
    "a about am an and any are as at be been but by can could did do does for from had has have how i if in into is it its "
    "many may me much my no not of on or our shall she he should so some than that the their them then there these they "
    "this those to us was we were what when where which who whom whose why will with would you your".split()
)


class Bm25Index:
    """Passages by their words: written once, for one set of passages, and never changed.

    tantivy keeps deleted documents in its statistics until segments merge, so scores of an index that was changed
    depend on its history. An index that is built anew is a function of the passages alone.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._searcher: Any = index.searcher()

    @classmethod
    def build(cls, folder: Path | None, passages: Iterable[tuple[int, str, str]]) -> Bm25Index:
        """Index passages (id, text, headings). `folder` must be empty; None keeps the index in memory.

        Raises StorageError when the disk refuses.
        """
        import tantivy

        try:
            index = tantivy.Index(_schema(), path=str(folder)) if folder else tantivy.Index(_schema())
            writer = index.writer(_WRITER_BYTES, 1)
            for passage, text, headings in passages:
                document = tantivy.Document()
                document.add_unsigned("id", passage)
                document.add_text("text", text)
                document.add_text("headings", headings)
                writer.add_document(document)
            writer.commit()
            writer.wait_merging_threads()
            index.reload()
        except ValueError as error:  # tantivy's word for any failure to write
            raise StorageError(f"Cannot write the keyword index in {folder}: {error}.") from error
        return cls(index)

    @classmethod
    def load(cls, folder: Path) -> Bm25Index:
        """Open a saved index. Raises ValueError when the folder holds none, or one of another schema."""
        import tantivy

        if not tantivy.Index.exists(str(folder)):
            raise ValueError(f"no keyword index in {folder}")
        return cls(tantivy.Index(_schema(), path=str(folder)))

    def search(self, query: str, limit: int) -> list[tuple[int, float]]:
        """(passage, BM25 score), best first. Nothing in `query` is an operator."""
        words = query_words(query)
        if not words or limit < 1 or not len(self):
            return []
        fields, boosts = ["text", "headings"], {"headings": _HEADING_BOOST}
        parsed, _errors = self._index.parse_query_lenient(" ".join(words), fields, field_boosts=boosts)
        found = self._searcher.search(parsed, min(limit, len(self)), count=False)
        return [(int(self._searcher.doc(address)["id"][0]), float(score)) for score, address in found.hits]

    def __len__(self) -> int:
        return int(self._searcher.num_docs)


def _schema() -> Any:
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("id", stored=True, indexed=False)
    builder.add_text_field("text", stored=False, tokenizer_name="en_stem")
    builder.add_text_field("headings", stored=False, tokenizer_name="en_stem")
    return builder.build()


def is_function_word(word: str) -> bool:
    """Whether a lower-case word only holds a sentence together."""
    return word in _STOP


def query_words(query: str) -> Sequence[str]:
    """Lower-case words of `query` without question words, unless nothing else is there. Plain words, no operators."""
    words = [w.lower() for w in _WORD.findall(query)]
    topical = [w for w in words if w not in _STOP]
    return [re.sub(r"['\u2019].*", "", w) for w in topical or words][:256]
