"""The values that travel between the layers: frozen, slotted, standard library only.

Character offsets count Unicode code points of a document's text, start inclusive, end exclusive. Digests are lowercase
hexadecimal SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

Digest: TypeAlias = str
Vectors: TypeAlias = Any  # numpy float32 array [n, dimensions]; records stay free of numpy
MetadataValue: TypeAlias = str | int | float | bool | tuple[str, ...]
Metadata: TypeAlias = tuple[tuple[str, MetadataValue], ...]  # sorted by key; keys are unique lower-case identifiers


def sha256_hex(data: bytes) -> Digest:
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Keys sorted, no spaces, UTF-8, no NaN. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


# --- what is read -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Page `number` (from 1) is `text[start:end]` of its document. Spans are in order and do not overlap."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class HeadingMark:
    """A heading line that begins at `start`; `level` 1 is the highest."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a parsed file, with its structure. Headings are in order and begin inside the text.

    `source_chars`: characters of text in the file, with markup if it is part of the text (Markdown, HTML), to show what
    the parser dropped; None if unknown. `metadata`: the file's own: `author`, `date` (ISO 8601), `language` and other
    fields.
    """

    text: str
    media_type: str
    title: str = ""
    pages: tuple[PageSpan, ...] = ()
    headings: tuple[HeadingMark, ...] = ()
    source_chars: int | None = None
    metadata: Metadata = ()


@dataclass(frozen=True, slots=True)
class PassageSpan:
    """`text[start:end]` of a document. A document's spans cover its text exactly, in order."""

    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of one document's text, the unit of retrieval; or a window, a run of passages read as one.

    `id` depends only on the document's text and the span. A window's id is that of its first passage, "+" and the
    number of the others; `parts` are the digests of all its passages. `header`: the header row of the table in which
    the text begins, if known.
    """

    id: str
    document: str
    title: str
    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]
    text: str
    also_in: tuple[str, ...] = ()  # other documents with the same text
    labels: tuple[str, ...] = ()  # needed to see it: the fewest labels of all documents that hold it
    parts: tuple[Digest, ...] = ()
    header: str = ""

    @property
    def digest(self) -> Digest:
        return sha256_hex(self.text.encode())

    @property
    def heading_path(self) -> str:
        return " > ".join(dict.fromkeys(part for part in (self.title, *self.headings) if part))


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage, found or given. Ranks count from 1; None: that retriever did not return it."""

    passage: Passage
    score: float = 0.0
    dense_rank: int | None = None
    bm25_rank: int | None = None
    similarity: float | None = None


Outcome: TypeAlias = Literal["added", "updated", "unchanged", "removed", "duplicate", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one file in one run.

    `reason`: why it was skipped or failed, which document a `duplicate` equals, or the other name of a renamed file.
    """

    path: str
    outcome: Outcome
    reason: str = ""


# --- who answers ------------------------------------------------------------------------------------------------------

Evidence: TypeAlias = Literal["verified", "claimed"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A local model is `verified` by its digest; a remote one can only be `claimed` (digest empty)."""

    name: str
    digest: Digest
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """Vectors of embedders that differ in any field must never meet in one index."""

    name: str
    digest: Digest
    dimensions: int


class Embedder(Protocol):
    """Text to unit vectors. Equal text gives equal bits, whatever else is in the batch."""

    @property
    def identity(self) -> EmbedderIdentity: ...

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Float32 [len(texts), dimensions], rows of length 1."""
        ...

    def embed_query(self, text: str) -> Vectors:
        """Float32 [dimensions], of length 1."""
        ...


@runtime_checkable
class BatchEmbedder(Embedder, Protocol):
    def embed_batches(self, batches: Iterable[Sequence[str]]) -> Iterator[Vectors]:
        """The vectors of each batch, in order, as from `embed_passages`. Reads batches ahead of its output."""
        ...


@dataclass(frozen=True, slots=True)
class Decoding:
    """Token sampling. `temperature` 0 is greedy; otherwise `seed`, the request and the step choose.

    `quote`: the answer is a verbatim span of its passage. `schema`: it is JSON of this JSON schema, as
    `inference.json_grammar.checked_schema` returns it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int = 400
    stop: tuple[str, ...] = ()
    quote: bool = False
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request in canonical order: system, each passage, question. Plain text, which never becomes a control token.

    `labels`: access labels needed to see the passages; what was computed under them serves no request with other
    labels. `side_by_side`: each passage is read alone after the system text. `declines`: an engine that reports
    `Completion.stated` writes nothing if it is low. `purge_mark`: the engine's mark from before the passages were
    looked up (`CachingEngine`).
    """

    system: str
    passages: tuple[str, ...]
    question: str
    labels: tuple[str, ...] = ()
    side_by_side: bool = False
    declines: bool = False
    purge_mark: str | None = None


@dataclass(frozen=True, slots=True)
class ReaderFormat:
    """A trained reader's system text and abstention.

    `passages`: how many it learned to read side by side. `declines_above`: it abstains if the abstention's first token
    is at least this likely; None: if no token is likelier.
    """

    instruction: str
    abstention: str
    passages: int = 1
    declines_above: float | None = None


FinishReason: TypeAlias = Literal["end", "stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Completion:
    """`prompt_digest`: over the exact prompt tokens (for a remote model, the messages).

    `stated`: probability, before the answer, that the passages state it; None if unknown. `least_logprob`: the lowest
    of the answer's tokens.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    answer_tokens: int | None
    prompt_digest: Digest
    numeric_class: str
    least_logprob: float | None = None
    stated: float | None = None


# --- what is answered -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Citation:
    """`quote` is verbatim at `[start, end)` of the document, and of those in `also_in`, which have the same text."""

    document: str
    page: int | None
    start: int
    end: int
    quote: str
    passage_id: str
    also_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassageReference:
    id: str
    digest: Digest
    document: str


RECEIPT_FORMAT = 5  # docs/formats/receipt.md


@dataclass(frozen=True, slots=True)
class Receipt:
    """All that is needed to replay an answer.

    `where` and `labels` limited the search. `instruction`: how the user wanted the answer. `certainty` and
    `confidence`: as told to the user. `reranker`: always None, and part of the digest. `digest`: over all other fields
    (docs/formats/receipt.md).
    """

    format: int
    openbook_version: str
    model: ModelIdentity
    numeric_class: str
    embedder: EmbedderIdentity | None
    knowledge_base: str | None
    knowledge_base_version: int | None
    question: str
    question_digest: Digest
    strategy: str
    passages: tuple[PassageReference, ...]
    prompt_digest: Digest
    decoding: Decoding
    answer_digest: Digest
    where: str = ""
    labels: tuple[str, ...] = ()
    reranker: ModelIdentity | None = None
    instruction: str = ""
    certainty: float | None = None
    confidence: str = ""
    digest: Digest = ""

    def sealed(self) -> Receipt:
        fields = dataclasses.asdict(self)
        del fields["digest"]
        return dataclasses.replace(self, digest=sha256_hex(canonical_json(fields)))


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of wall clock. `first_token_s` counts from the start of reading."""

    retrieve_s: float = 0.0
    first_token_s: float | None = None
    read_s: float = 0.0
    total_s: float = 0.0


Confidence: TypeAlias = Literal["supported", "likely", "check it", "not found"]
Support: TypeAlias = Literal["backed", "near", "none"]


@dataclass(frozen=True, slots=True)
class AnswerSentence:
    """`answer[start:end]`, a sentence that states something.

    `citation`: index of its nearest quote; None if it shares no word with the passages. `support`: the quote backs the
    sentence, is only near it, or there is none.
    """

    start: int
    end: int
    citation: int | None
    support: Support


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its citations.

    `declined`: the documents do not hold the answer. `certainty`: probability that the answer is right, as measured on
    other questions; None if not measured. `confidence`: the word for it (`openbook.answers.certainty`); "not found": declined,
    with the nearest sentences as `closest`. `prompt_tokens` were read and `answer_tokens` written; None if the engine
    cannot know.
    """

    question: str
    answer: str
    declined: bool
    citations: tuple[Citation, ...]
    passages: tuple[Hit, ...]
    receipt: Receipt
    timings: Timings | None  # None if the user may not know them
    sentences: tuple[AnswerSentence, ...] = ()
    notes: tuple[str, ...] = ()
    finish_reason: FinishReason = "end"
    prompt_tokens: int | None = 0
    answer_tokens: int | None = 0
    closest: tuple[Citation, ...] = ()
    certainty: float | None = None
    confidence: Confidence = "check it"
    abstained: bool = False  # as `declined`, for programs written for 0.1.0; removed in 0.3

    def __str__(self) -> str:
        return self.answer

    def to_markdown(self) -> str:
        """The answer with the numbers of its quotes, and the list of these (or of the `closest`)."""
        text = self.answer
        for each in sorted(self.sentences, key=lambda sentence: sentence.end, reverse=True):
            if each.citation is not None:
                text = f"{text[: each.end]} [{each.citation + 1}]{text[each.end :]}"
        sources = ""
        for number, cited in enumerate(self.citations or self.closest, start=1):
            page = f", page {cited.page}" if cited.page else ""
            name = re.findall(r"[^/]*/?\Z", cited.document)[0]
            sources += f"{number}. “{' '.join(cited.quote.split())}” ({name}{page})\n"
        return f"{text}\n\n{sources}" if sources else f"{text}\n"

    def _repr_markdown_(self) -> str:
        sure = self.confidence if self.certainty is None else f"{self.confidence} ({self.certainty:.0%})"
        return f"{html.escape(self.to_markdown(), quote=False)}\n*{sure}*"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary: `question, answer, declined, citations, passages, receipt, ...`."""
        return dataclasses.asdict(self)


# Places that neither a purge nor a scan reaches, by reason.
BEYOND_REACH = {
    "copies by users": "Answers, receipts, transcripts and files that are kept elsewhere are not looked at.",
    "backups": "Backups and copies of the knowledge base, of its database or of this machine are not looked at.",
    "disk blocks": "Blocks that the file system or the disk has not overwritten yet may hold deleted bytes.",
    "other forms": "Texts of less than 16 bytes, runs of less than 79, and what is compressed, encrypted, or escaped in an unusual way are not found.",
    "models": "A model that has learned from a text cannot forget it; training records say which models have.",
    "numbers": "Vectors and states of models are numbers, in which no scan finds a text.",
    "database files": "PostgreSQL's files and logs of statements lie on its server and are not scanned.",
    "replicas": "Replicas of the database are not looked at; they follow it, and keep logs of their own.",
    "other machines": "Other machines that use this knowledge base delete their copies when they next search.",
    "write-ahead log": "PostgreSQL's log holds deleted rows until the server has written over its segments: as a rule after max_wal_size more of log, later where wal_keep_size, an archive or a replication slot keeps them.",
    "log in use": "The user of the database may not end the part of the log that is in use. Ask its owner for pg_checkpoint and for EXECUTE on pg_switch_wal().",
    "object versions": "A bucket may keep the index that an older OpenBook shared in it, and older versions of its objects.",
}


@dataclass(frozen=True, slots=True)
class BeyondReach:
    """`reason`: a key of `BEYOND_REACH`; `detail`: what else is known."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}. {BEYOND_REACH.get(self.reason, '')} {self.detail}".strip()


def passage_block(place: str, text: str) -> str:
    """A passage as trained readers see it. `place` may be empty."""
    return f"Passage ({place}):\n{text.strip()}\n\n" if place else f"Passage:\n{text.strip()}\n\n"


def question_block(question: str) -> str:
    return f"Question: {question.strip()}"


def text_of_block(block: str) -> str:
    return block.partition("\n")[2].strip()
