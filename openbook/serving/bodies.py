"""The bodies and parameters of requests: strict models, in which an unknown name is an error, or is ignored with a warning."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from openbook.codec import unique_keys
from openbook.errors import did_you_mean
from openbook.serving.refusals import Refusal, without_refused

_INT64 = 2**63


# Parameters of OpenAI's bodies that this server does not support: the values that change nothing, and why it accepts no other.
Refused: TypeAlias = dict[str, tuple[tuple[object, ...], str]]
# Parameters that are ignored, and why. The answer is still the one asked for, and a warning in it names them.
Ignored: TypeAlias = dict[str, str]

_NO_TOOLS = "The model answers from passages and calls no tools."
_ONE_WAY = "Only temperature, top_p and seed decide how tokens are chosen."
_ONE_ANSWER = "One request gives one answer. For another, ask again with another seed."
_NO_LOGPROBS = "Log probabilities are not available."
_NO_REASONING = "The model answers without reasoning first."
_NOTHING_KEPT = "The server keeps nothing between requests."
_PLAIN_TEXT = "Answers are plain text."
_ONE_TIER = "There is only one tier."
_BY_KEY = "The API key identifies the caller."
_SHARED = "All requests that may read a passage share its cache."
_UNKNOWN = "This server has no such parameter."

_MOST_NAMED = 10  # in one warning, and so many characters of each

_SAMPLING: Ignored = dict.fromkeys(
    ["logit_bias", "presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty", "top_k", "min_p"],
    _ONE_WAY,
)

CHAT_REFUSED: Refused = {
    "n": ((1,), _ONE_ANSWER),
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "function_call": (("none", "auto"), _NO_TOOLS),
    "response_format": (({"type": "text"},), _PLAIN_TEXT),
    "modalities": ((["text"],), _PLAIN_TEXT),
}
CHAT_IGNORED: Ignored = {
    **_SAMPLING,
    "tools": _NO_TOOLS,
    "parallel_tool_calls": _NO_TOOLS,
    "functions": _NO_TOOLS,
    "web_search_options": "Answers come from the knowledge base, not from the web.",
    "logprobs": _NO_LOGPROBS,
    "top_logprobs": _NO_LOGPROBS,
    "verbosity": "The question decides how long the answer is.",
    "reasoning_effort": _NO_REASONING,
    "audio": _PLAIN_TEXT,
    "prediction": "Predicted output is not supported.",
    "store": _NOTHING_KEPT,
    "metadata": _NOTHING_KEPT,
    "service_tier": _ONE_TIER,
    "safety_identifier": _BY_KEY,
    "prompt_cache_key": _SHARED,
    "prompt_cache_retention": _SHARED,
}

RESPONSE_REFUSED: Refused = {
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "background": ((False,), "Answers are not made in the background."),
    "previous_response_id": ((), _NOTHING_KEPT),
    "conversation": ((), _NOTHING_KEPT),
    "prompt": ((), _NOTHING_KEPT),
}
RESPONSE_IGNORED: Ignored = {
    **_SAMPLING,
    "tools": _NO_TOOLS,
    "parallel_tool_calls": _NO_TOOLS,
    "max_tool_calls": _NO_TOOLS,
    "include": "There is nothing to include.",
    "reasoning": _NO_REASONING,
    "top_logprobs": _NO_LOGPROBS,
    "truncation": "What does not fit is left out, with a warning.",
    "store": _NOTHING_KEPT,
    "metadata": _NOTHING_KEPT,
    "service_tier": _ONE_TIER,
    "safety_identifier": _BY_KEY,
    "prompt_cache_key": _SHARED,
}


class Body(BaseModel):
    """`refused` and `ignored`: other parameters of OpenAI's body of this kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    refused: ClassVar[Refused] = {}
    ignored: ClassVar[Ignored] = {}


class Lenient(Body):
    """A body, or a part of one, that clients fill for many kinds of servers: unknown names in it are ignored."""

    model_config = ConfigDict(extra="allow")


class TextPart(Lenient):
    type: Literal["text"]
    text: str


class Message(Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Lenient):
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


class AnswerBody(Lenient):
    """The parameters of every request for an answer. In `openbook`, an unknown name is an error."""

    model: str
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    openbook: AskOptions = AskOptions()

    @property
    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The ignored parts of the body, one sentence for each reason. Values that ask for nothing (null, false, 0, empty) are left out."""
        places: dict[str, list[str]] = {}
        for place in _unknown_places(self):
            places.setdefault(self.ignored.get(place, _UNKNOWN), []).append(place[:60])
        if self.stream_options and not self.stream:
            places["The answer is not streamed."] = ["stream_options"]
        return tuple(_ignored(named, why) for why, named in places.items())


class ChatBody(AnswerBody):
    refused, ignored = CHAT_REFUSED, CHAT_IGNORED

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class ResponsePart(Lenient):
    type: Literal["input_text", "output_text"]
    text: str


class ResponseMessage(Lenient):
    """Clients send `id` and `status` of an earlier answer back."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ResponsePart]
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class PlainFormat(Lenient):
    type: Literal["text"]


class TextOptions(Lenient):
    format: PlainFormat | None = None


class ResponseBody(AnswerBody):
    """`input` is the question, or a conversation that ends with it. `seed` and `stop` are not OpenAI's, but they work."""

    refused, ignored = RESPONSE_REFUSED, RESPONSE_IGNORED

    input: str | Annotated[list[ResponseMessage], Field(min_length=1)]
    instructions: str | None = None
    text: TextOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)

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


class JsonRpcBody(BaseModel):
    """A request of the Model Context Protocol, whose SDK defines its content. Without an `id` it is a notification."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Any = None
    params: dict[str, Any] | None = None


# --- what addresses may say -------------------------------------------------------------------------------------------


class Query(Body):
    """The parameters of an address: texts, each at most once."""


def _whole(value: object) -> object:
    """Digits as a number. Signs, spaces and more digits than any bound has are refused."""
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 14):
        raise PydanticCustomError("whole_number", "a whole number")
    return int(value)


_Count: TypeAlias = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
_Offset: TypeAlias = Annotated[int, Field(ge=0, le=1 << 40), BeforeValidator(_whole)]
_Filled: TypeAlias = Annotated[str, Field(min_length=1)]


class ListQuery(Query):
    knowledge_base: str | None = None
    limit: _Count | None = None


class DocumentsQuery(ListQuery):
    """`after`: only documents whose path comes after this one."""

    as_of: str | None = None
    where: str = ""
    after: str | None = None


class TextQuery(Query):
    """`length` characters of the document at `path`, from character `start` on."""

    path: _Filled
    knowledge_base: str | None = None
    as_of: str | None = None
    start: _Offset = 0
    length: _Count | None = None


class PageQuery(Query):
    """Page `page`, counted from 1, of the document at `path`."""

    path: _Filled
    page: _Count
    knowledge_base: str | None = None
    as_of: str | None = None


class DifferenceQuery(ListQuery):
    """From the version `before` to `after` (default: the newest)."""

    before: _Filled
    after: str | None = None


_EXPECTED = {
    "content": "it must be text, or a list of parts of the type 'text'",
    "format": "answers are plain text, so it must be {'type': 'text'}",
}

_Body = TypeVar("_Body", bound=Body)
Json: TypeAlias = Any


def parse_json(data: bytes) -> dict[str, Json]:
    """The object in a request's body. Raises Refusal for anything else.

    It also refuses what parsers read in different ways: a duplicate key, half a surrogate pair, numbers like 1e999.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=unique_keys)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise _not_json("a text contains half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise _not_json(str(error)) from error
    if not isinstance(value, dict):
        raise _not_json("it is not an object")
    return value


def parsed(kind: type[_Body], data: bytes) -> _Body:
    """The body as a `kind`. Raises Refusal for the first thing that is wrong."""
    body = validated(kind, without_refused(parse_json(data), kind.refused))
    for name in (body.model_extra or {}) if isinstance(body, AnswerBody) else ():
        # Not ignored: a filter in the wrong place would answer from documents that were not meant.
        if name in AskOptions.model_fields:
            message = (
                f"{name!r} is an option of OpenBook: put it under 'openbook', as {{'openbook': {{{name!r}: ...}}}}."
            )
            raise Refusal(400, message, code="unknown_parameter", param=name)
        if hint := did_you_mean(name, ["openbook"]):
            message = f"Unrecognized request argument supplied: {name[:200]}.{hint}"
            raise Refusal(400, message, code="unknown_parameter", param=name[:200])
    return body


def validated(kind: type[_Body], value: object) -> _Body:
    """Raises Refusal."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from error


def _unknown_places(part: BaseModel, place: str = "") -> Iterator[str]:
    """The places of unknown names in `part`, such as `messages[0].cache_control`."""
    for name, value in (part.model_extra or {}).items():
        if value:
            yield place + name
    for name in type(part).model_fields:
        value = getattr(part, name)
        for i, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, BaseModel):
                yield from _unknown_places(each, f"{place}{name}{f'[{i}]' if isinstance(value, list) else ''}.")


def _ignored(places: list[str], why: str) -> str:
    more = f" and {len(places) - _MOST_NAMED:,} more" if len(places) > _MOST_NAMED else ""
    are = "is" if len(places) == 1 else "are"
    return f"{', '.join(map(repr, places[:_MOST_NAMED]))}{more} {are} ignored. {why}"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


def _not_json(why: str) -> Refusal:
    message = f"We could not parse the JSON body of your request: {why[:200]}."
    return Refusal(400, message, code="invalid_json")


def _invalid(error: ValidationError) -> Refusal:
    """The first thing that is wrong, in OpenAI's words where it has some."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [part for i, part in enumerate(first["loc"]) if not (i and _is_alternative(part))]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if first["type"] == "extra_forbidden":
        return unknown_parameter(param)
    if first["type"] == "missing":
        message = f"Missing required parameter: {param!r}."
        return Refusal(400, message, code="missing_required_parameter", param=param)
    why = next((why for name, why in _EXPECTED.items() if name in first["loc"]), first["msg"])
    return Refusal(400, f"Invalid value for {param!r}: {why}.", code="invalid_value", param=param)


def unknown_parameter(name: str) -> Refusal:
    shown = name[:200]
    return Refusal(400, f"Unrecognized request argument supplied: {shown}", code="unknown_parameter", param=shown)


def _is_alternative(part: int | str) -> bool:
    """Whether this names one of several types of a value, not a place in the body."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)
