"""Ollama's API: /api/chat, generate, embed, tags, show and version. Errors are `{error: message}`, streams lines of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from openbook import __version__
from openbook.serving import search
from openbook.serving.answers import Conversation, Shape, respond
from openbook.serving.completions import finish
from openbook.serving.errors import ApiError, invalid
from openbook.serving.models import model as model_of
from openbook.serving.models import served_models
from openbook.serving.routing import Route, content_of, needs
from openbook.serving.schemas import (
    NO_IMAGES,
    NO_SUFFIX,
    AnswerBody,
    AnswerFormat,
    AskBody,
    LenientBody,
    Message,
    Reply,
    Sampling,
    ServedAnswer,
)
from openbook.serving.service import Call, CurrentCall


class OllamaError(Reply):
    """`error`: the message."""

    error: str
    code: str
    param: str | None


def _error(error: ApiError) -> dict[str, str | None]:
    return {"error": error.message, "code": error.code, "param": error.param}


class OllamaRoute(Route):
    def refusal(self, error: ApiError) -> Response:
        return JSONResponse(_error(error), error.status_code, error.headers)


router = APIRouter(route_class=OllamaRoute)
_ERRORS: dict[int | str, Any] = {
    each: {"model": OllamaError, "description": "Refused or failed."} for each in ("4XX", "5XX")
}
_STREAM = {**_ERRORS, **content_of("application/x-ndjson")}


class OllamaOptions(Sampling):
    """`num_predict`: below 1 is the server's own limit."""

    num_predict: int | None = None


class OllamaBody(AskBody):
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: OllamaOptions | None = None


class OllamaMessage(Message):
    images: Annotated[list[str] | None, NO_IMAGES] = None


class OllamaChatBody(OllamaBody):
    messages: list[OllamaMessage] = Field(min_length=1, fail_fast=True)


class GenerateBody(OllamaBody):
    prompt: str
    system: str | None = None
    suffix: Annotated[str | None, NO_SUFFIX] = None
    images: Annotated[list[str] | None, NO_IMAGES] = None


class _AsOpenAI(AnswerBody):
    """`said`: the warnings about what the client sent."""

    num_predict: int | None
    said: tuple[str, ...]
    format: AnswerFormat | None

    @property
    def wanted_format(self) -> tuple[str, AnswerFormat | None]:
        return "format", self.format

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.said


@router.post("/api/chat", **needs("read", also=_STREAM))
async def chat(call: CurrentCall, body: OllamaChatBody) -> Any:
    """Answer the user's last message from the knowledge base, as lines of JSON unless `stream` is false."""
    return await _answer(call, body, Conversation.of(call, body.messages, "messages"), is_chat=True)


@router.post("/api/generate", **needs("read", also=_STREAM))
async def generate(call: CurrentCall, body: GenerateBody) -> Any:
    """Answer the prompt from the knowledge base, as lines of JSON unless `stream` is false."""
    question = Message(role="user", content=body.prompt)
    return await _answer(call, body, Conversation.of(call, [question], "prompt", body.system), is_chat=False)


async def _answer(call: Call, body: OllamaBody, conversation: Conversation, *, is_chat: bool) -> Any:
    options, wanted = body.options or OllamaOptions(), None
    if body.format:
        schema = None if isinstance(body.format, str) else body.format
        wanted = AnswerFormat(type="json_schema" if schema else "json_object", schema=schema)
    asked = _AsOpenAI(
        model=_name(body.model),
        stream=body.stream is not False,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        stop=list(options.stops),
        num_predict=max(options.num_predict or 0, 0),
        openbook=body.openbook,
        said=body.warnings,
        format=wanted,
    )
    return await respond(call, asked, conversation, "num_predict", OllamaShape(body.model, is_chat))


def _name(model: str) -> str:
    """Ollama's clients add a tag to a name without one."""
    return model.removesuffix(":latest")


@dataclass(frozen=True, slots=True)
class OllamaShape(Shape):
    """Durations are nanoseconds; they are omitted where they would reveal documents that the caller may not see."""

    media_type: ClassVar[str] = "application/x-ndjson"

    model: str
    is_chat: bool

    def whole(self, answers: Sequence[ServedAnswer]) -> dict[str, Any]:
        answer, times = answers[0], dict[str, int]()
        if answer.timings is not None:
            first = answer.timings.first_token_s or 0.0
            times["total_duration"] = int(answer.timings.total_s * 1e9)
            times["prompt_eval_duration"] = int(first * 1e9)
            times["eval_duration"] = int((answer.timings.read_s - first) * 1e9)
        return {
            **self._line(answer.answer),
            **times,
            "done": True,
            "done_reason": finish(answer),
            "prompt_eval_count": answer.prompt_tokens or 0,
            "eval_count": answer.answer_tokens or 0,
            "openbook": answer.to_json(),
        }

    def piece(self, text: str) -> bytes:
        return _json_line({**self._line(text), "done": False})

    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        return _json_line({**self.whole(answers), **self._line("")})

    def failed(self, error: ApiError) -> bytes:
        return _json_line(_error(error))

    def _line(self, text: str) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"response": text}
        return {"model": self.model, "created_at": datetime.now(UTC).isoformat(), **content}


def _json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


# --- embeddings and models --------------------------------------------------------------------------------------------

# What OpenBook does not know of a model is empty. Models are identified by digest, not by date.
_DETAILS = {
    "format": "",
    "family": "openbook",
    "families": ["openbook"],
    "parameter_size": "",
    "quantization_level": "",
}
_UNKNOWN: dict[str, Any] = {"details": _DETAILS, "modified_at": "1970-01-01T00:00:00Z"}


class EmbedBody(LenientBody):
    model: str
    input: str | list[str]
    dimensions: int | None = Field(default=None, ge=1)


class ShowBody(LenientBody):
    model: str | None = None
    name: str | None = None


@router.post("/api/embed", **needs("read", also=_ERRORS))
def embed(call: CurrentCall, body: EmbedBody) -> dict[str, Any]:
    """Vectors as those of the knowledge base's passages."""
    started = time.perf_counter_ns()
    asked = search.EmbeddingBody(model=_name(body.model), input=body.input, dimensions=body.dimensions)
    made = search.embeddings(call, asked)
    return {
        "model": body.model,
        "embeddings": [each["embedding"] for each in made["data"]],
        "total_duration": time.perf_counter_ns() - started,
        "prompt_eval_count": made["usage"]["prompt_tokens"],
        "openbook": {**made["openbook"], "warnings": body.warnings},
    }


@router.get("/api/ps", **needs("read", also=_ERRORS))
@router.get("/api/tags", **needs("read", also=_ERRORS))
async def tags(call: CurrentCall) -> dict[str, Any]:
    """The models that a request may name."""
    found = [(each.id, each.openbook.digest) for each in served_models(call)]
    return {
        "models": [{"name": name, "model": name, "size": 0, "digest": digest, **_UNKNOWN} for name, digest in found]
    }


@router.post("/api/show", **needs("read", also=_ERRORS))
async def show(call: CurrentCall, body: ShowBody) -> dict[str, Any]:
    """What is known of one model."""
    name = body.model or body.name
    if not name:
        raise invalid("Missing required parameter: 'model'.", "model", "missing_required_parameter")
    about = (await model_of(call, _name(name))).openbook
    info: dict[str, str | int | None] = {
        "general.architecture": "openbook",
        "openbook.context_length": about.context_tokens,
        "openbook.embedding_length": about.dimensions,
    }
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "model_info": {key: value for key, value in info.items() if value is not None},
        "capabilities": ["embedding" if about.mode == "embedder" else "completion"],
        **_UNKNOWN,
    }


@router.get("/api/version", **needs("read", also=_ERRORS))
async def version(call: CurrentCall) -> dict[str, str]:
    """The server's version."""
    return {"version": __version__}
