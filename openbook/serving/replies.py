"""What responses look like: the models from which /openapi.json is made, and against which tests hold every response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from openbook.records import Answer, EmbedderIdentity, Outcome, Passage, Receipt


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Wrong(Reply):
    """`code` is for programs, `message` for people, `param` names the part of the request that is wrong."""

    message: str
    type: Literal["invalid_request_error", "requests", "server_error"]
    param: str | None
    code: str


class Error(Reply):
    error: Wrong


# --- answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServedAnswer(Answer):
    """`warnings`: what was ignored in the request, and why, a sentence each."""

    warnings: tuple[str, ...] = ()


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(Reply):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Reply):
    index: int
    message: ChatMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class _Head(Reply):
    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(_Head):
    """`openbook` is the document of `openbook ask --json` (citations, abstention, passages, receipt), with `warnings`."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    openbook: ServedAnswer


class Delta(Reply):
    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChunkChoice(Reply):
    index: int
    delta: Delta
    logprobs: None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletionChunk(_Head):
    """One event. The last event with a choice has `openbook`. With `stream_options.include_usage`, one more event has `usage` and no choice."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: Usage | None = None
    openbook: ServedAnswer | None = None


class OutputText(Reply):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(Reply):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class ResponseUsage(Reply):
    """No token counts as cached: the cache of passages saves time, not tokens."""

    input_tokens: int
    input_tokens_details: dict[Literal["cached_tokens"], int]
    output_tokens: int
    output_tokens_details: dict[Literal["reasoning_tokens"], int]
    total_tokens: int


class Response(Reply):
    """`openbook` is there when the response is complete."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    error: None
    incomplete_details: dict[Literal["reason"], str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: Literal[False]
    previous_response_id: None
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["none"]
    tools: list[Any]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    openbook: ServedAnswer | None = None


class ResponseEvent(Reply):
    """One event, named by its `type`; the other fields depend on the type."""

    type: str
    sequence_number: int
    response: Response | None = None
    output_index: int | None = None
    content_index: int | None = None
    item_id: str | None = None
    item: OutputMessage | None = None
    part: OutputText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: list[Any] | None = None


# --- models and vectors -----------------------------------------------------------------------------------------------


class NamedBase(Reply):
    name: str
    id: str


class OpenBookModel(Reply):
    mode: Literal["open-book"]
    digest: str
    evidence: Literal["verified", "claimed"]
    context_tokens: int
    knowledge_bases: list[NamedBase]
    version: int | None = None


class ClosedBookModel(Reply):
    mode: Literal["closed-book"]
    digest: str
    evidence: Literal["verified", "claimed"]
    context_tokens: int


class EmbedderModel(Reply):
    mode: Literal["embedder"]
    digest: str
    dimensions: int


class Model(Reply):
    id: str
    object: Literal["model"]
    created: Literal[0]
    owned_by: Literal["openbook"]
    openbook: OpenBookModel | ClosedBookModel | EmbedderModel


class Models(Reply):
    object: Literal["list"]
    data: list[Model]


class Ancestor(Reply):
    digest: str
    names: list[str]
    what: str
    details: list[str]


class Lineage(Reply):
    """The model itself first, then the models it was made from."""

    object: Literal["list"]
    id: str
    data: list[Ancestor]


class Embedding(Reply):
    """`embedding`: numbers, or float32 bytes in base64, as `encoding_format` says."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Reply):
    """The tokens that the embedder read, its begin and end tokens included; truncated tokens are not counted."""

    prompt_tokens: int
    total_tokens: int


class MadeBy(Reply):
    embedder: EmbedderIdentity


class Embeddings(Reply):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    openbook: MadeBy


# --- knowledge bases --------------------------------------------------------------------------------------------------


class FoundPassage(Reply):
    """Ranks count from 1; null if that retriever did not find it."""

    object: Literal["hit"]
    passage: Passage
    score: float
    dense_rank: int | None
    bm25_rank: int | None
    similarity: float | None


class _OfVersion(Reply):
    """`knowledge_base` is its id, `version` the one that was read or made."""

    object: Literal["list"]
    knowledge_base: str
    version: int


class FoundPassages(_OfVersion):
    data: list[FoundPassage]


class Document(Reply):
    object: Literal["document"]
    path: str


class Documents(_OfVersion):
    """`has_more`: to get more, ask again with `after` set to the last path."""

    data: list[Document]
    has_more: bool


class FileVerdict(Reply):
    """`path`: the document's path, or the name that was sent if it was refused."""

    object: Literal["verdict"]
    path: str
    outcome: Outcome
    reason: str


class FileVerdicts(_OfVersion):
    """One verdict for each file or path, in the order of the request."""

    data: list[FileVerdict]


class Version(Reply):
    """`documents`: how many of its documents the caller may see."""

    object: Literal["version"]
    version: int
    created_at: str
    tags: list[str]
    documents: int


class Versions(Reply):
    object: Literal["list"]
    knowledge_base: str
    data: list[Version]


class Page(Reply):
    page: int
    start: int


class DocumentText(Reply):
    """The characters from `start` to `end` of `total`; `pages`: the pages in it, and where each begins.

    `media_type`: the type of the file from which the text was read.
    """

    object: Literal["document.text"]
    knowledge_base: str
    version: int
    path: str
    media_type: str
    start: int
    end: int
    total: int
    text: str
    pages: list[Page]


class PassageChange(Reply):
    document: str
    text: str


class Difference(Reply):
    """Each list may be cut; `counts` says how many there are."""

    object: Literal["difference"]
    knowledge_base: str
    before: int
    after: int
    counts: dict[str, int]
    added: list[str]
    changed: list[str]
    removed: list[str]
    described: list[str]
    passages_added: list[PassageChange]
    passages_removed: list[PassageChange]


class Purged(Reply):
    """`proved`: no file out of reach may hold a trace of the documents. `out_of_reach`: the number of files, by reason."""

    object: Literal["purged"]
    knowledge_base: str
    version: int
    documents: list[str]
    proved: bool
    files_scanned: int
    bytes_scanned: int
    out_of_reach: dict[str, int]
    models_that_learned_it: list[str]


# --- receipts, state --------------------------------------------------------------------------------------------------


class KeptReceipt(Reply):
    object: Literal["receipt"]
    id: str
    receipt: Receipt


class Replay(Reply):
    """`answer`: null if a passage's text differs from the receipt's."""

    object: Literal["replay"]
    id: str
    identical: bool
    differences: list[str]
    answer: str | None


class Health(Reply):
    status: Literal["ok"]


class Ready(Reply):
    status: Literal["ready"]


class Description(BaseModel):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


class JsonRpc(BaseModel):
    """The answer of the Model Context Protocol, by the rules of JSON-RPC: a result, or in older versions an error."""

    jsonrpc: Literal["2.0"]
    id: int | str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class JsonRpcError(BaseModel):
    jsonrpc: Literal["2.0"]
    id: int | str | None
    error: dict[str, Any]
