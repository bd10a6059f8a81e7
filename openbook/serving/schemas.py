"""Bodies, parameters and replies: strict models, from which FastAPI makes the OpenAPI document."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from openbook.codec import unique_keys
from openbook.errors import did_you_mean
from openbook.knowledge.versions import PassageChange
from openbook.records import Answer, EmbedderIdentity, Outcome, Passage, Receipt
from openbook.serving.errors import invalid, unknown_parameter

_INT64 = 2**63
_MOST_NAMED = 10  # ignored parameters in one warning


def parse_json(data: bytes) -> dict[str, Any]:
    """The object in a request's body. Raises ApiError for anything else.

    It also refuses what parsers read in different ways: a duplicate key, half a surrogate pair, numbers like 1e999.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=unique_keys)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
    except UnicodeError as error:
        raise _not_json("it is not UTF-8, or a text contains half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise _not_json(str(error)) from error
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


def _not_json(why: str) -> Exception:
    return invalid(f"We could not parse the JSON body of your request: {why[:200]}.", code="invalid_json")


# --- bodies -----------------------------------------------------------------------------------------------------------


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LenientBody(Body):
    """A body that clients fill for many kinds of servers: unknown names in it are ignored with a warning."""

    model_config = ConfigDict(extra="allow")


class TextPart(LenientBody):
    type: Literal["text", "input_text", "output_text"]
    text: str


class Message(LenientBody):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(LenientBody):
    include_usage: bool | None = None


class ScopeOptions(Body):
    """Which of the documents that its key allows a request sees. Empty: the server's default."""

    knowledge_base: str | None = None
    as_of: str | int | None = None
    where: str = ""


class AskOptions(ScopeOptions):
    """OpenBook's own options for an answer, under the key `openbook`. `footnotes`: append the citations to the text."""

    passages: int | None = Field(default=None, ge=0)
    strategy: Literal["auto", "each", "parallel", "checked", "together"] | None = None
    quote: bool = False
    footnotes: bool = False


class AnswerBody(LenientBody):
    """The parameters of every request for an answer. In `openbook`, an unknown name is an error.

    Other parameters of OpenAI's are ignored with a warning in the answer, or may only have values that change nothing.
    """

    model: str
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    tool_choice: Literal["none", "auto"] | None = None
    openbook: AskOptions = AskOptions()

    @property
    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def warnings(self) -> tuple[str, ...]:
        """The ignored parts of the body. Values that ask for nothing (null, false, 0, empty) are left out."""
        found = []
        if places := [each[:60] for each in _unknown_places(self)]:
            more = f" and {len(places) - _MOST_NAMED:,} more" if len(places) > _MOST_NAMED else ""
            are = "is" if len(places) == 1 else "are"
            shown = ", ".join(map(repr, places[:_MOST_NAMED]))
            found.append(f"{shown}{more} {are} ignored. This server has no such parameter.")
        if self.stream_options and not self.stream:
            found.append("'stream_options' is ignored. The answer is not streamed.")
        return tuple(found)

    @model_validator(mode="after")
    def _check_names(self) -> AnswerBody:
        """A filter in the wrong place is not ignored: the answer would come from documents that were not meant."""
        for name in self.model_extra or ():
            if name in AskOptions.model_fields:
                raise unknown_parameter(name, f". Put this option of OpenBook under 'openbook': {{{name!r}: ...}}.")
            if hint := did_you_mean(name, ["openbook"]):
                raise unknown_parameter(name, f".{hint}")
        return self


def _unknown_places(part: BaseModel, place: str = "") -> Iterator[str]:
    """The places of unknown names in `part`, such as `messages[0].cache_control`."""
    yield from (place + name for name, value in (part.model_extra or {}).items() if value)
    for name in type(part).model_fields:
        value = getattr(part, name)
        for i, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, BaseModel):
                yield from _unknown_places(each, f"{place}{name}{f'[{i}]' if isinstance(value, list) else ''}.")


class PlainFormat(Body):
    type: Literal["text"]


class ChatBody(AnswerBody):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    n: Literal[1] | None = None
    function_call: Literal["none", "auto"] | None = None
    response_format: PlainFormat | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class ResponseMessage(Message):
    """Clients send `id` and `status` of an earlier answer back."""

    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None


class TextOptions(LenientBody):
    format: PlainFormat | None = None


def _keep_nothing(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("nothing_kept", "the server keeps nothing between requests")


_NothingKept: TypeAlias = Annotated[None, BeforeValidator(_keep_nothing)]


class ResponseBody(AnswerBody):
    """`input` is the question, or a conversation that ends with it. `seed` and `stop` are not OpenAI's, but they work."""

    input: str | Annotated[list[ResponseMessage], Field(min_length=1)]
    instructions: str | None = None
    text: TextOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    background: Literal[False] | None = None
    previous_response_id: _NothingKept = None
    conversation: _NothingKept = None
    prompt: _NothingKept = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_output_tokens or self.max_tokens


class EmbeddingBody(Body):
    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


class SearchBody(ScopeOptions):
    query: str
    limit: int = Field(default=10, ge=1)


class DocumentsBody(Body):
    """Documents by their paths, as the list shows them."""

    documents: list[str] = Field(min_length=1, max_length=1000)
    knowledge_base: str | None = None


class PurgeBody(DocumentsBody):
    copies: bool = False


class ReplayBody(Body):
    id: str


class UploadBody(Body):
    """The fields of an upload besides its files. `labels`: access labels for all files; the key must hold them."""

    labels: list[str] = []
    knowledge_base: str | None = None


# --- parameters of addresses ------------------------------------------------------------------------------------------


def _whole(value: object) -> object:
    """Digits as a number. Signs, spaces and more digits than any bound has are refused."""
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 14):
        raise PydanticCustomError("whole_number", "it must be a whole number")
    return int(value)


_Count: TypeAlias = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
_Offset: TypeAlias = Annotated[int, Field(ge=0, le=1 << 40), BeforeValidator(_whole)]
_Filled: TypeAlias = Annotated[str, Field(min_length=1)]


class ListQuery(Body):
    knowledge_base: str | None = None
    limit: _Count | None = None


class DocumentsQuery(ListQuery):
    """`after`: only documents whose path comes after this one."""

    as_of: str | None = None
    where: str = ""
    after: str | None = None


class TextQuery(Body):
    """`length` characters of the document at `path`, from character `start` on."""

    path: _Filled
    knowledge_base: str | None = None
    as_of: str | None = None
    start: _Offset = 0
    length: _Count | None = None


class PageQuery(Body):
    """Page `page`, counted from 1, of the document at `path`."""

    path: _Filled
    page: _Count
    knowledge_base: str | None = None
    as_of: str | None = None


class DifferenceQuery(ListQuery):
    """From the version `before` to `after` (default: the newest)."""

    before: _Filled
    after: str | None = None


# --- replies ----------------------------------------------------------------------------------------------------------

_Absent: Any = Field(default=None, exclude_if=lambda value: value is None)  # left out of the JSON if None


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class ErrorDetail(Reply):
    """`code` is for programs, `message` for people, `param` names the part of the request that is wrong."""

    message: str
    type: Literal["invalid_request_error", "requests", "server_error"]
    param: str | None
    code: str


class Error(Reply):
    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class ServedAnswer(Answer):
    """`warnings`: what was ignored in the request, and why, a sentence each."""

    warnings: tuple[str, ...] = ()


class Usage(Reply):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessage(Reply):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Reply):
    index: int = 0
    message: ChatMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(Reply):
    """`openbook` is the document of `openbook ask --json` (citations, abstention, passages, receipt), with `warnings`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    openbook: ServedAnswer


class Delta(Reply):
    role: Literal["assistant"] | None = _Absent
    content: str | None = _Absent


class ChunkChoice(Reply):
    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatCompletionChunk(Reply):
    """One event. The last event with a choice has `openbook`. With `stream_options.include_usage`, one more event has `usage` and no choice."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = _Absent
    openbook: ServedAnswer | None = _Absent


class OutputText(Reply):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(Reply):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class ResponseUsage(Reply):
    """No token counts as cached: the cache of passages saves time, not tokens."""

    input_tokens: int
    input_tokens_details: dict[Literal["cached_tokens"], int] = {"cached_tokens": 0}
    output_tokens: int
    output_tokens_details: dict[Literal["reasoning_tokens"], int] = {"reasoning_tokens": 0}
    total_tokens: int


class Response(Reply):
    """`openbook` is there when the response is complete."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    error: None = None
    incomplete_details: dict[Literal["reason"], str] | None = None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str] = {}
    model: str
    output: list[OutputMessage] = []
    parallel_tool_calls: Literal[False] = False
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: dict[str, Any] = {"format": {"type": "text"}}
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = []
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    openbook: ServedAnswer | None = _Absent


class ResponseEvent(Reply):
    """One event, named by its `type`; the other fields depend on the type."""

    type: str
    sequence_number: int
    response: Response | None = _Absent
    output_index: int | None = _Absent
    content_index: int | None = _Absent
    item_id: str | None = _Absent
    item: OutputMessage | None = _Absent
    part: OutputText | None = _Absent
    delta: str | None = _Absent
    text: str | None = _Absent
    logprobs: list[Any] | None = _Absent


class NamedBase(Reply):
    name: str
    id: str


class ServedModel(Reply):
    """An embedder has `dimensions`; a model that answers has `evidence` and `context_tokens`."""

    mode: Literal["open-book", "closed-book", "embedder"]
    digest: str
    evidence: Literal["verified", "claimed"] | None = _Absent
    context_tokens: int | None = _Absent
    knowledge_bases: list[NamedBase] | None = _Absent
    version: int | None = _Absent
    dimensions: int | None = _Absent


class Model(Reply):
    """`created` is 0: a model is named by its digest and not by a date."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["openbook"] = "openbook"
    openbook: ServedModel


class Models(Reply):
    object: Literal["list"] = "list"
    data: list[Model]


class Ancestor(Reply):
    """`what`: how it came about; `details`: on which data and by which recipe, a sentence each."""

    digest: str
    names: tuple[str, ...]
    what: str
    details: tuple[str, ...]


class Lineage(Reply):
    """The model itself first, then the models it was made from."""

    object: Literal["list"] = "list"
    id: str
    data: list[Ancestor]


class Embedding(Reply):
    """`embedding`: numbers, or float32 bytes in base64, as `encoding_format` says."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Reply):
    """The tokens that the embedder read, its begin and end tokens included; truncated tokens are not counted."""

    prompt_tokens: int
    total_tokens: int


class MadeBy(Reply):
    embedder: EmbedderIdentity


class Embeddings(Reply):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    openbook: MadeBy


class FoundPassage(Reply):
    """Ranks count from 1; null if that retriever did not find it."""

    object: Literal["hit"] = "hit"
    passage: Passage
    score: float
    dense_rank: int | None
    bm25_rank: int | None
    similarity: float | None


class _OfVersion(Reply):
    """`knowledge_base` is its id, `version` the one that was read or made."""

    object: Literal["list"] = "list"
    knowledge_base: str
    version: int


class FoundPassages(_OfVersion):
    data: list[FoundPassage]


class Document(Reply):
    object: Literal["document"] = "document"
    path: str


class Documents(_OfVersion):
    """`has_more`: to get more, ask again with `after` set to the last path."""

    data: list[Document]
    has_more: bool


class FileVerdict(Reply):
    """`path`: the document's path, or the name that was sent if it was refused."""

    object: Literal["verdict"] = "verdict"
    path: str
    outcome: Outcome
    reason: str = ""


class FileVerdicts(_OfVersion):
    """One verdict for each file or path, in the order of the request."""

    data: list[FileVerdict]


class Version(Reply):
    """`documents`: how many of its documents the caller may see."""

    object: Literal["version"] = "version"
    version: int
    created_at: str
    tags: list[str]
    documents: int


class Versions(Reply):
    object: Literal["list"] = "list"
    knowledge_base: str
    data: list[Version]


class Page(Reply):
    page: int
    start: int


class DocumentText(Reply):
    """The characters from `start` to `end` of `total`; `pages`: the pages in it, and where each begins.

    `media_type`: the type of the file from which the text was read.
    """

    object: Literal["document.text"] = "document.text"
    knowledge_base: str
    version: int
    path: str
    media_type: str
    start: int
    end: int
    total: int
    text: str
    pages: list[Page]


class Difference(Reply):
    """Each list may be cut; `counts` says how many there are."""

    object: Literal["difference"] = "difference"
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

    object: Literal["purged"] = "purged"
    knowledge_base: str
    version: int
    documents: list[str]
    proved: bool
    files_scanned: int
    bytes_scanned: int
    out_of_reach: dict[str, int]
    models_that_learned_it: list[str]


class KeptReceipt(Reply):
    object: Literal["receipt"] = "receipt"
    id: str
    receipt: Receipt


class Replay(Reply):
    """`answer`: null if a passage's text differs from the receipt's."""

    object: Literal["replay"] = "replay"
    id: str
    identical: bool
    differences: list[str]
    answer: str | None


class Status(Reply):
    status: Literal["ok", "ready"]
