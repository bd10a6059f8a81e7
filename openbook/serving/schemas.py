"""Shared schemas of bodies, parameters and replies."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from openbook.codec import unique_keys
from openbook.config import Strategy
from openbook.errors import did_you_mean
from openbook.records import Answer, Outcome
from openbook.serving.errors import ApiError, invalid, unknown_parameter

_INT64 = 2**63
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


def _not_json(why: str) -> ApiError:
    return invalid(f"We could not parse the JSON body of your request: {why[:200]}.", code="invalid_json")


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


class LenientBody(Body):
    """Unknown names are ignored with a warning."""

    model_config = ConfigDict(extra="allow")


class TextPart(LenientBody):
    type: Literal["text", "input_text", "output_text"]
    text: str


class Message(LenientBody):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(LenientBody):
    include_usage: bool | None = None


class ScopeParams(Body):
    """Restrict a request to some of the documents that its key allows. Omitted options have the server's defaults."""

    knowledge_base: str | None = None
    as_of: str | int | None = None
    where: str = ""


class AskOptions(ScopeParams):
    """OpenBook's own options for an answer. `progress`: see `POST /v1/chat/completions`."""

    passages: int | None = Field(default=None, ge=0)
    strategy: Strategy | None = None
    quote: bool = False
    progress: bool = False


class AnswerBody(LenientBody):
    """Parameters of all answers. Unknown names in `openbook` are errors.

    OpenAI's other parameters are ignored with a warning, or accept only values without effect.
    """

    model: str
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-_INT64, lt=_INT64)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
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
    def warnings(self) -> tuple[str, ...]:
        """Ignored parts, except values without effect (null, false, 0, empty)."""
        found = []
        if places := [each[:60] for each in _unknown_places(self)]:
            more = f" and {len(places) - _MAX_NAMED:,} more" if len(places) > _MAX_NAMED else ""
            are = "is" if len(places) == 1 else "are"
            shown = ", ".join(map(repr, places[:_MAX_NAMED]))
            found.append(f"{shown}{more} {are} ignored. This server has no such parameter.")
        if self.stream_options and not self.stream:
            found.append("'stream_options' is ignored. The answer is not streamed.")
        return tuple(found)

    @model_validator(mode="after")
    def _check_names(self) -> AnswerBody:
        """Refuse a misplaced filter: ignoring it would answer from unintended documents."""
        for name in self.model_extra or ():
            if name in AskOptions.model_fields:
                raise unknown_parameter(name, f". Put this option of OpenBook under 'openbook': {{{name!r}: ...}}.")
            if hint := did_you_mean(name, ["openbook"]):
                raise unknown_parameter(name, f".{hint}")
        return self


def _unknown_places(part: BaseModel, place: str = "") -> Iterator[str]:
    """Paths of unknown names, such as `messages[0].cache_control`."""
    yield from (place + name for name, value in (part.model_extra or {}).items() if value)
    for name in type(part).model_fields:
        value = getattr(part, name)
        for i, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, BaseModel):
                yield from _unknown_places(each, f"{place}{name}{f'[{i}]' if isinstance(value, list) else ''}.")


class PlainFormat(Body):
    type: Literal["text"]


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


class OfVersion(Reply):
    """`version`: the one read or created."""

    object: Literal["list"] = "list"
    knowledge_base: str
    version: int


class FileVerdict(Reply):
    """`path`: the name sent, if it was refused."""

    object: Literal["verdict"] = "verdict"
    path: str
    outcome: Outcome
    reason: str = ""


class FileVerdicts(OfVersion):
    """One verdict per file or path, in request order."""

    data: list[FileVerdict]
