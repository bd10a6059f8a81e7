"""Shared schemas of bodies, parameters and replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from openbook.core.config import Strategy
from openbook.core.errors import did_you_mean
from openbook.core.records import Answer
from openbook.serving.errors import unknown_parameter

_T = TypeVar("_T")

INT64 = 2**63
_MAX_NAMED = 10  # ignored parameters per warning


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

    OpenAI's other parameters are ignored with a warning, or accept only values without effect.
    """

    max_tokens: int | None = Field(default=None, ge=1)
    stream_options: StreamOptions | None = None
    user: str | None = None
    tool_choice: Annotated[Literal["none", "auto"], NO_TOOLS] | None = None

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
