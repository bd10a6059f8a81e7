"""The keyword index: BM25 in tantivy, derived from the knowledge base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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
    """Passage ids by their words. `folder` None keeps it in memory (a knowledge base on a read-only disk)."""

    def __init__(self, folder: Path | None) -> None:
        import tantivy

        self._tantivy: Any = tantivy
        builder = tantivy.SchemaBuilder()
        builder.add_unsigned_field("id", stored=True, indexed=True, fast=True)
        builder.add_text_field("text", stored=False, tokenizer_name="en_stem")
        builder.add_text_field("headings", stored=False, tokenizer_name="en_stem")
        schema = builder.build()
        # Raises ValueError when the folder holds no index or one of another schema: the caller rebuilds it.
        self._index: Any = tantivy.Index(schema, path=str(folder)) if folder else tantivy.Index(schema)
        self._searcher: Any = self._index.searcher()

    def update(self, remove: Iterable[int], add: Iterable[tuple[int, str, str]]) -> None:
        """Take passages out and put passages (id, text, headings) in. Putting one in twice leaves it there once."""
        writer = self._index.writer(_WRITER_BYTES, 1)
        for passage in remove:
            writer.delete_documents_by_term("id", passage)
        for passage, text, headings in add:
            writer.delete_documents_by_term("id", passage)
            document = self._tantivy.Document()
            document.add_unsigned("id", passage)
            document.add_text("text", text)
            document.add_text("headings", headings)
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()

    def search(self, query: str, limit: int) -> list[int]:
        """Ids of the passages that match best, best first. Nothing in `query` is an operator."""
        words = query_words(query)
        if not words or limit < 1:
            return []
        fields, boosts = ["text", "headings"], {"headings": _HEADING_BOOST}
        parsed, _errors = self._index.parse_query_lenient(" ".join(words), fields, field_boosts=boosts)
        found = self._searcher.search(parsed, limit, count=False)
        return [int(self._searcher.doc(address)["id"][0]) for _score, address in found.hits]

    def __len__(self) -> int:
        return int(self._searcher.num_docs)


def is_function_word(word: str) -> bool:
    """Whether a lower-case word only holds a sentence together."""
    return word in _STOP


def query_words(query: str) -> Sequence[str]:
    """Lower-case words of `query` without question words, unless nothing else is there. Plain words, no operators."""
    words = [w.lower() for w in _WORD.findall(query)]
    topical = [w for w in words if w not in _STOP]
    return [re.sub(r"['\u2019].*", "", w) for w in topical or words][:256]
