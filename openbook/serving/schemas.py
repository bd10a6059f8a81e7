"""Shared schemas of bodies, parameters and replies."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NoReturn, Self, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from openbook.core.codec import unique_keys
from openbook.core.config import Strategy
from openbook.core.errors import did_you_mean
from openbook.core.records import Answer, Outcome
from openbook.parsers.metadata import key_name
from openbook.serving.errors import invalid, unknown_parameter

_T = TypeVar("_T")

INT64 = 2**63
_MAX_NAMED = 10  # ignored parameters per warning


def parse_json(data: bytes) -> dict[str, Any]:
    """The object in a request's body. Raises ApiError otherwise.

    It refuses what parsers read differently: duplicate keys, half surrogate pairs, numbers like 1e999.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=unique_keys)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        is_text = isinstance(error, UnicodeError)
        why = "it is not UTF-8, or a text contains half a surrogate pair" if is_text else str(error)[:200]
        raise invalid(f"We could not parse the JSON body of your request: {why}.", code="invalid_json") from error
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


async def parse_form(headers: Headers, stream: AsyncGenerator[bytes, None], most_files: int) -> FormData:
    """The parts of a form. Raises ApiError for an invalid body."""
    try:
        parser = _FormParser(headers, stream, max_files=most_files, max_fields=64, max_part_size=10_000)
        form = await parser.parse()
        for name, value in form.multi_items():
            (name + (value if isinstance(value, str) else value.filename or "")).encode()
    except MultiPartException as error:
        raise invalid(f"The form cannot be read: {error.message}", code="invalid_form") from error
    except UnicodeError as error:  # some of Python's codecs fail in their own ways, or produce half surrogates
        raise invalid("The form cannot be read: its text does not match its charset.", code="invalid_form") from error
    for name in form:
        if name not in ("file", "labels") and len(form.getlist(name)) > 1:
            await form.close()
            raise invalid(f"The part {name[:100]!r} is given more than once; send it once.", name[:100], "invalid_form")
    return form


class _FormParser(MultiPartParser):
    """Refuses truncated forms, for which Starlette returns the first parts and leaves a file open."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **limits: int) -> None:
        super().__init__(headers, self._until_end(stream), **limits)
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def _until_end(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("it is incomplete.")


# --- bodies -----------------------------------------------------------------------------------------------------------


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OfBase(Body):
    """`knowledge_base`: its name; the server's first if omitted."""

    knowledge_base: str | None = None


class LenientBody(Body):
    """Unknown names are ignored with a warning."""

    model_config = ConfigDict(extra="allow")

    def unknown(self) -> Iterator[tuple[str, Any]]:
        """(path, value) of each unknown name, such as `messages[0].cache_control`. Not of null, false, 0 and empty."""
        yield from ((name, value) for name, value in (self.model_extra or {}).items() if value)
        for name in type(self).model_fields:
            value = getattr(self, name)
            for i, each in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(each, LenientBody):
                    place = f"{name}[{i}]" if isinstance(value, list) else name
                    yield from ((f"{place}.{path}", found) for path, found in each.unknown())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about the ignored parts."""
        places = [path[:60] for path, _ in self.unknown()]
        more = f" and {len(places) - _MAX_NAMED:,} more" if len(places) > _MAX_NAMED else ""
        are = "is" if len(places) == 1 else "are"
        shown = ", ".join(map(repr, places[:_MAX_NAMED]))
        return (f"{shown}{more} {are} ignored. This server has no such parameter.",) if places else ()


def refused_if(is_wrong: Callable[[Any], bool], because: str) -> BeforeValidator:
    """Refuses such values with a sentence."""

    def check(value: object) -> object:
        if is_wrong(value):
            raise PydanticCustomError("refused", because)
        return value

    return BeforeValidator(check)


def refused_unless(allowed: str, because: str) -> BeforeValidator:
    """As `refused_if`, for values that a `Literal` states in the description."""
    shown = " or ".join(map(repr, allowed.split()))
    return refused_if(lambda value: value not in allowed.split(), f"{because}, so it must be {shown}")


TEXT_ONLY: Any = refused_unless("text input_text output_text", "the model reads only text")
NO_TOOLS: Any = refused_unless("none auto", "the model cannot call tools")
NO_IMAGES: Any = refused_if(bool, "the model reads only text")
NO_SUFFIX: Any = refused_if(bool, "the model answers questions; it does not fill in the middle of a text")
NOTHING_KEPT: Any = refused_if(bool, "the server keeps no conversation between requests")
# Clients make tokens with the vocabulary of another model, so a vector of them would be of another text.
NO_TOKENS: Any = refused_if(
    lambda value: isinstance(value, list) and bool(value) and isinstance(value[0], int | list),
    "tokens of another model cannot be read, so send texts, not tokens",
)


class TextPart(LenientBody):
    type: Annotated[Literal["text", "input_text", "output_text"], TEXT_ONLY]
    text: str
    annotations: list[Any] | None = None  # of an earlier answer


class Message(LenientBody):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    annotations: list[Any] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(LenientBody):
    include_usage: bool | None = None


class ScopeParams(OfBase):
    """Restrict a request to some of the documents that its key allows. Omitted options have the server's defaults."""

    as_of: str | int | None = None
    where: str = ""


class AskOptions(ScopeParams):
    """OpenBook's own options for an answer. `progress`: see `POST /v1/chat/completions`."""

    passages: int | None = Field(default=None, ge=0)
    strategy: Strategy | None = None
    quote: bool = False
    progress: bool = False


_SIGNS = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Filter(Body):
    """OpenAI's filter of attributes: `key` compared with `value` (a list for `in` and `nin`), or `filters` joined."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "and", "or"]
    key: str = ""
    value: str | int | float | bool | list[str | int | float] | None = None
    filters: list[Filter] = []

    @property
    def where(self) -> str:
        """The same in OpenBook's own language of filters. Raises ApiError."""
        key, values = key_name(self.key), self.value if isinstance(self.value, list) else [self.value]
        literals = ["'" + v.replace("'", "''") + "'" if isinstance(v, str) else json.dumps(v) for v in values]
        if self.type in ("and", "or"):
            if self.filters:
                return f" {self.type} ".join(f"({each.where})" for each in self.filters)
            raise invalid(f"A filter of the type {self.type!r} needs 'filters'.", "filters")
        if not key or values in ([], [None]) or (self.type in ("in", "nin")) != isinstance(self.value, list):
            raise invalid(
                f"A filter of the type {self.type!r} needs 'key' and 'value', for 'in' and 'nin' a list.", "filters"
            )
        if self.type in _SIGNS:
            return f"{key} {_SIGNS[self.type]} {literals[0]}"
        return f"{'not ' * (self.type == 'nin')}{key} in ({', '.join(literals)})"


class Tool(LenientBody):
    """`file_search` chooses what is read: one vector store, filters, at most so many passages."""

    type: str
    vector_store_ids: Annotated[list[str], Field(max_length=1)] = []
    filters: Filter | None = None
    max_num_results: int | None = Field(default=None, ge=1)

    def unknown(self) -> Iterator[tuple[str, Any]]:
        return super().unknown() if self.type == "file_search" else iter(())


class Sampling(LenientBody):
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-INT64, lt=INT64)
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)


class AskBody(LenientBody):
    model: str
    stream: bool | None = None
    openbook: AskOptions = AskOptions()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        """Refuse a misplaced filter: ignoring it would answer from unintended documents."""
        for name in self.model_extra or ():
            if name in AskOptions.model_fields:
                raise unknown_parameter(name, f". Put this option of OpenBook under 'openbook': {{{name!r}: ...}}.")
            if hint := did_you_mean(name, ["openbook"]):
                raise unknown_parameter(name, f".{hint}")
        return self


class AnswerBody(Sampling, AskBody):
    """Parameters of all answers. Unknown names in `openbook` are errors.

    OpenAI's other parameters are ignored with a warning, or accept only values without effect. So are tools but `file_search`.
    """

    max_tokens: int | None = Field(default=None, ge=1)
    stream_options: StreamOptions | None = None
    user: str | None = None
    tools: list[Tool] | None = None
    tool_choice: Annotated[Literal["none", "auto"], NO_TOOLS] | None = None

    def unknown(self) -> Iterator[tuple[str, Any]]:
        others = [each for each in self.tools or () if each.type != "file_search"]
        yield from [("tools", others)] * bool(others)
        yield from super().unknown()

    @property
    def file_search(self) -> Tool | None:
        """The tool that chooses what is read."""
        return next((each for each in self.tools or () if each.type == "file_search"), None)

    @property
    def selection(self) -> AskOptions:
        """`openbook`, with what `file_search` chooses. Raises ApiError for two choices."""
        own, tool = self.openbook, self.file_search
        if tool is None:
            return own
        if len([each for each in self.tools or () if each.type == tool.type]) > 1:
            raise invalid("The tool 'file_search' is given more than once; send it once.", "tools")
        if tool.vector_store_ids and own.knowledge_base is not None:
            raise invalid(
                "Name the knowledge base in vector_store_ids or in openbook.knowledge_base, not in both.", "tools"
            )
        filters = [each for each in (own.where.strip(), tool.filters.where if tool.filters else "") if each]
        name = tool.vector_store_ids[0] if tool.vector_store_ids else own.knowledge_base
        where = " and ".join(f"({each})" for each in filters)
        return own.model_copy(update={"knowledge_base": name, "where": where})

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return 1

    @property
    def wanted_format(self) -> tuple[str, AnswerFormat | None]:
        """The name of the body's parameter, and its value."""
        return "", None

    @property
    def wanted_schema(self) -> dict[str, Any] | None:
        """The schema of an answer that is JSON."""
        sent = self.wanted_format[1]
        return sent.wanted if sent else None

    @property
    def warnings(self) -> tuple[str, ...]:
        unused = ("'stream_options' is ignored. The answer is not streamed.",)
        return super().warnings + unused * bool(self.stream_options and not self.stream)


class AnswerFormat(LenientBody):
    """Text, any JSON object, or JSON of a schema, which `/v1/chat/completions` takes in `json_schema`.

    `strict` changes nothing: an answer always fits its schema.
    """

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if self.type == "json_schema" and self.wanted is None:
            raise PydanticCustomError("no_schema", "the type 'json_schema' needs a schema")
        return self

    @property
    def wanted(self) -> dict[str, Any] | None:
        """The schema of the answer; None for text."""
        if self.type == "json_schema":
            found = self.json_schema.get("schema") if self.json_schema else self.schema_
            return found if isinstance(found, dict) else None
        return {"type": "object"} if self.type == "json_object" else None


# --- parameters of addresses ------------------------------------------------------------------------------------------


def _whole_number(value: object) -> object:
    """Digits as an int. Refuses signs, spaces and numbers longer than any bound."""
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 14):
        raise PydanticCustomError("whole_number", "it must be a whole number")
    return int(value)


Count: TypeAlias = Annotated[int, Field(ge=1), BeforeValidator(_whole_number)]
Offset: TypeAlias = Annotated[int, Field(ge=0, le=1 << 40), BeforeValidator(_whole_number)]
NonEmpty: TypeAlias = Annotated[str, Field(min_length=1)]


# --- replies ----------------------------------------------------------------------------------------------------------

ABSENT: Any = Field(default=None, exclude_if=lambda value: value is None)  # omitted from the JSON if None


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class ErrorDetail(Reply):
    """`code` is for programs, `message` for people."""

    message: str
    type: Literal["invalid_request_error", "requests", "server_error"]
    param: str | None
    code: str


class Error(Reply):
    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class ServedAnswer(Answer):
    """`warnings`: what was ignored and why."""

    warnings: tuple[str, ...] = ()


class ListOf(Reply, Generic[_T]):
    object: Literal["list"] = "list"
    data: list[_T]


class OfVersion(ListOf[_T], Generic[_T]):
    """`version`: the one read or created."""

    knowledge_base: str
    version: int


class FileVerdict(Reply):
    """`path`: the name sent, if it was refused."""

    object: Literal["verdict"] = "verdict"
    path: str
    outcome: Outcome
    reason: str = ""
