"""What requests may say: strict models, in which an unknown name is an error, and how bytes become one of them."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from openbook.records import unique_keys
from openbook.serving.refusals import Refusal, unsupported

_INT64 = 2**63


Unsupported: TypeAlias = dict[str, tuple[tuple[object, ...], str]]

_NO_TOOLS = "The model answers from passages and calls nothing."
_ONE_WAY = "Tokens are chosen by temperature, top_p and seed alone."
_ONE_ANSWER = "One request gives one answer; ask again with another seed."
_NO_LOGPROBS = "Log-probabilities are not given out."

# What OpenAI knows and this server cannot honour: the values that change nothing, and why no other.
CHAT_UNSUPPORTED: Unsupported = {
    "n": ((1,), _ONE_ANSWER),
    "tools": (([],), _NO_TOOLS),
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "parallel_tool_calls": ((True, False), _NO_TOOLS),
    "functions": (([],), _NO_TOOLS),
    "function_call": (("none", "auto"), _NO_TOOLS),
    "web_search_options": ((), "Nothing is fetched from the web; answers come from the knowledge base."),
    "logprobs": ((False,), _NO_LOGPROBS),
    "top_logprobs": ((0,), _NO_LOGPROBS),
    "logit_bias": (({},), _ONE_WAY),
    "presence_penalty": ((0, 0.0), _ONE_WAY),
    "frequency_penalty": ((0, 0.0), _ONE_WAY),
    "response_format": (({"type": "text"},), "Answers are plain text."),
    "verbosity": ((), "Answers are one short sentence."),
    "reasoning_effort": (("none",), "The model answers without reasoning first."),
    "modalities": ((["text"],), "Answers are text."),
    "audio": ((), "Answers are text."),
    "prediction": ((), "Nothing is predicted ahead."),
    "store": ((False,), "The server keeps nothing between requests."),
    "metadata": (({},), "The server keeps nothing between requests, so there is nothing to attach it to."),
    "service_tier": (("auto", "default"), "There is one tier."),
    "safety_identifier": ((), "Callers are told apart by their key."),
    "prompt_cache_key": ((), "What is computed of passages is shared by all requests that may read them."),
    "prompt_cache_retention": ((), "What is computed of passages is kept by the settings of the server."),
}

_NOTHING_KEPT = "The server keeps nothing between requests."

RESPONSE_UNSUPPORTED: Unsupported = {
    "tools": (([],), _NO_TOOLS),
    "tool_choice": (("none", "auto"), _NO_TOOLS),
    "parallel_tool_calls": ((True, False), _NO_TOOLS),
    "max_tool_calls": ((), _NO_TOOLS),
    "include": (([],), "There is nothing to include."),
    "text": (({"format": {"type": "text"}},), "Answers are plain text."),
    "reasoning": (({},), "The model answers without reasoning first."),
    "top_logprobs": ((0,), _NO_LOGPROBS),
    "truncation": (("disabled", "auto"), "What does not fit is left out, and said to be."),
    "background": ((False,), "An answer is given at once."),
    "store": ((False,), _NOTHING_KEPT),
    "previous_response_id": ((), _NOTHING_KEPT),
    "conversation": ((), _NOTHING_KEPT),
    "prompt": ((), _NOTHING_KEPT),
    "metadata": (({},), _NOTHING_KEPT),
    "service_tier": (("auto", "default"), "There is one tier."),
    "safety_identifier": ((), "Callers are told apart by their key."),
    "prompt_cache_key": ((), "What is computed of passages is shared by all requests that may read them."),
}

COMPLETION_UNSUPPORTED: Unsupported = {
    "n": ((1,), _ONE_ANSWER),
    "best_of": ((1,), _ONE_ANSWER),
    "echo": ((False,), "The answer comes without the question."),
    "suffix": ((), "The model answers and does not fill in."),
    "logprobs": ((), _NO_LOGPROBS),
    "logit_bias": (({},), _ONE_WAY),
    "presence_penalty": ((0, 0.0), _ONE_WAY),
    "frequency_penalty": ((0, 0.0), _ONE_WAY),
}


class Body(BaseModel):
    """`unsupported`: what OpenAI's body of this kind may have too, as in `refusals.unsupported`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    unsupported: ClassVar[Unsupported] = {}


class TextPart(Body):
    type: Literal["text"]
    text: str


class Message(Body):
    """The last five are what clients send back of an answer; they may be there, empty."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    annotations: None = None
    function_call: None = None
    tool_calls: None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Choosing(Body):
    """Which documents a request sees, beside what its key allows. Empty: the default of the server."""

    knowledge_base: str | None = None
    as_of: str | int | None = None
    where: str = ""


class AskOptions(Choosing):
    """OpenBook's own options of an answer, under the key `openbook`. `footnotes`: append the citations to the text."""

    passages: int | None = Field(default=None, ge=0)
    strategy: Literal["auto", "each", "together"] | None = None
    quote: bool = False
    footnotes: bool = False


class AnswerBody(Body):
    """What every request for an answer may say."""

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


class ChatBody(AnswerBody):
    unsupported = CHAT_UNSUPPORTED

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(AnswerBody):
    """`prompt` is the question; a list holds one."""

    unsupported = COMPLETION_UNSUPPORTED

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]

    @property
    def question(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class ResponsePart(Body):
    """The last two are what clients send back of an answer."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class ResponseMessage(Body):
    """`id` and `status` are what clients send back of an answer."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ResponsePart]
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class ResponseBody(AnswerBody):
    """`input` is the question, or a conversation that ends with it. `seed` and `stop` are not OpenAI's, and honoured."""

    unsupported = RESPONSE_UNSUPPORTED

    input: str | Annotated[list[ResponseMessage], Field(min_length=1)]
    instructions: str | None = None
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


class SearchBody(Choosing):
    query: str
    limit: int = Field(default=10, ge=1)


class DocumentsBody(Body):
    """Documents by the paths under which the list shows them."""

    documents: list[str] = Field(min_length=1, max_length=1000)
    knowledge_base: str | None = None


class PurgeBody(DocumentsBody):
    copies: bool = False


class ReplayBody(Body):
    id: str


class UploadBody(Body):
    """The fields of an upload beside its files. `labels`: access labels for all of them, of those that the key holds."""

    labels: list[str] = []
    knowledge_base: str | None = None


class JsonRpcBody(BaseModel):
    """A request of the Model Context Protocol, whose own SDK says what it may hold. Without an `id` it is a notification."""

    jsonrpc: Literal["2.0"]
    method: str
    id: Any = None
    params: dict[str, Any] | None = None


# --- what addresses may say -------------------------------------------------------------------------------------------


class Query(Body):
    """The parameters of an address, which are texts and come once each."""


def _whole(value: object) -> object:
    """Digits as a number; longer ones than any bound, and signs and spaces, are none."""
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
    "prompt": "it must be one text, or a list of one: tokens and several prompts are not taken",
}

_Body = TypeVar("_Body", bound=Body)
Json: TypeAlias = Any


def parse_json(data: bytes) -> dict[str, Json]:
    """The object in a request's body. Raises Refusal for anything else.

    Also for what parsers read in different ways: a key that stands twice, half a surrogate pair, numbers like 1e999.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=unique_keys)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise _not_json("a text holds half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise _not_json(str(error)) from error
    if not isinstance(value, dict):
        raise _not_json("it is no object")
    return value


def parsed(kind: type[_Body], data: bytes) -> _Body:
    """The body as a `kind`. Raises Refusal for the first thing that is wrong."""
    return validated(kind, unsupported(parse_json(data), kind.unsupported))


def validated(kind: type[_Body], value: object) -> _Body:
    """Raises Refusal."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _invalid(error) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


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
    """Whether this names one of several types that a value may have, and no place in the body."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)
