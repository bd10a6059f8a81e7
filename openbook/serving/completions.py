"""/v1/chat/completions, and /v1/completions, whose prompt is the question: answers in the shapes of OpenAI's API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from textwrap import shorten
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from pydantic import Field

from openbook.answers.prompts import ABSTENTION
from openbook.core.records import Answer, canonical_json, sha256_hex
from openbook.serving.answers import Conversation, Shape, cited_sentences, event, request_id, respond
from openbook.serving.routing import Route, content_of, needs
from openbook.serving.schemas import (
    NO_SUFFIX,
    NO_TOOLS,
    AnswerBody,
    AnswerFormat,
    Message,
    Reply,
    ServedAnswer,
    refused_if,
)
from openbook.serving.service import Call, CurrentCall

router = APIRouter(route_class=Route)

_ONE_TEXT: Any = refused_if(
    lambda value: isinstance(value, list) and not (len(value) == 1 and isinstance(value[0], str)),
    "it must be one text, neither several nor tokens",
)


class ChoicesBody(AnswerBody):
    n: int | None = Field(default=None, ge=1)

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatBody(ChoicesBody):
    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    function_call: Annotated[Literal["none", "auto"], NO_TOOLS] | None = None
    response_format: AnswerFormat | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def wanted_format(self) -> tuple[str, AnswerFormat | None]:
        return "response_format", self.response_format


class CompletionBody(ChoicesBody):
    prompt: Annotated[str | Annotated[list[str], Field(min_length=1, max_length=1)], _ONE_TEXT]
    suffix: Annotated[str | None, NO_SUFFIX] = None


class ChatCompletion(Reply):
    """`openbook`: the JSON of `openbook ask --json` for the first choice, and `warnings`; a choice that differs has its own.

    A message has `annotations`: the source of each sentence, with the address of the quote on the server's web page. Its
    `refusal`: an answer that should be JSON says that the documents do not hold it.
    """

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]
    openbook: ServedAnswer


@router.post(
    "/v1/chat/completions", response_model=ChatCompletion, **needs("read", also=content_of("text/event-stream"))
)
async def chat(call: CurrentCall, body: ChatBody) -> Any:
    """Answer the last message from the knowledge base. Citations and receipt are under `openbook`.

    With `stream`, events hold OpenAI's chunks; the last with a choice has `openbook`. With
    `stream_options.include_usage`, one more has `usage` and no choice. An error is the last event. With
    `openbook.progress`, chunks before the text have `openbook_progress`: its `stage` is `waiting` (no place is free), `found`
    (with `searched` and `passages`) or `reading` (`done` of `total` tokens).
    """
    model = call.resolve(body.model)[0].model
    fallback = call.service.fallback(model, call.models)
    models = [model, fallback()] if fallback else [model]
    decided = [part for each in models for part in (each.identity.digest, each.engine.numeric_class)]
    fingerprint = sha256_hex(canonical_json(decided))[:12]
    head = _head(call, body, "chatcmpl-") | {"system_fingerprint": f"fp_{fingerprint}"}
    shape = ChoiceShape(head, body.choices, body.with_usage, partial(_url_citations, call))
    limit = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
    conversation = Conversation.of(call, body.messages, "messages")
    return await respond(call, body, conversation, limit, shape, shape.progress if body.openbook.progress else None)


@router.post("/v1/completions", **needs("read", also=content_of("text/event-stream")))
async def completions(call: CurrentCall, body: CompletionBody) -> Any:
    """Answer the prompt from the knowledge base, as `POST /v1/chat/completions` answers a message."""
    question = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    shape = ChoiceShape(_head(call, body, "cmpl-"), body.choices, body.with_usage)
    return await respond(call, body, Conversation(question), "max_tokens", shape)


def _head(call: Call, body: ChoicesBody, prefix: str) -> dict[str, Any]:
    return {"id": prefix + request_id(body, call), "created": int(time.time()), "model": body.model}


@dataclass(frozen=True, slots=True)
class ChoiceShape(Shape):
    """`head`: what all events share; of equal requests, only `created` differs. `cite`: a chat's annotations; None: the older API."""

    head: dict[str, Any]
    choices: int
    with_usage: bool
    cite: Callable[[Answer], list[dict[str, Any]]] | None = None

    def whole(self, answers: Sequence[ServedAnswer]) -> dict[str, Any]:
        choices = []
        for i, each in enumerate(self._for_all(answers)):
            message = {"role": "assistant", **self._message(each)}
            text = {"message": message} if self.cite else {"text": each.answer}
            more = {} if each is answers[0] else {"openbook": each.to_json()}
            choices.append({"index": i, **text, "logprobs": None, "finish_reason": finish(each), **more})
        kind = "chat.completion" if self.cite else "text_completion"
        return {**self.head, "object": kind, "choices": choices, "usage": usage(answers), "openbook": answers[0]}

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, stage: dict[str, Any]) -> bytes:
        return self._chunk({}, openbook_progress=stage)

    def piece(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def end(self, answers: Sequence[ServedAnswer]) -> bytes:
        """The first choice was streamed; the others are sent whole."""
        last = b""
        for i, each in enumerate(self._for_all(answers)):
            last += self._chunk({"role": "assistant", "content": each.answer}, index=i) if i else b""
            sources = {key: value for key, value in self._message(each).items() if value and key != "content"}
            more = {} if i and each is answers[0] else {"openbook": each.to_json()}
            last += self._chunk(sources, finish(each), i, **more)
        if self.with_usage:
            last += self._event(choices=[], usage=usage(answers))
        return last + b"data: [DONE]\n\n"

    def _for_all(self, answers: Sequence[ServedAnswer]) -> Sequence[ServedAnswer]:
        """One answer for each choice."""
        return answers if len(answers) == self.choices else [answers[0]] * self.choices

    def _message(self, answer: Answer) -> dict[str, Any]:
        refusal = ABSTENTION if answer.declined and answer.receipt.decoding.schema else None
        annotations = self.cite(answer) if self.cite else []
        return {"content": answer.answer, "annotations": annotations, "refusal": refusal}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None, index: int = 0, **more: Any) -> bytes:
        text = {"delta": delta} if self.cite else {"text": delta.get("content", "")}
        return self._event(choices=[{"index": index, **text, "logprobs": None, "finish_reason": reason}], **more)

    def _event(self, **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self.cite else "text_completion"
        return event({**self.head, "object": kind, **more})


def finish(answer: Answer) -> Literal["stop", "length"]:
    return "length" if answer.finish_reason == "length" else "stop"


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Tokens that were read and written."""
    read = sum(each.prompt_tokens or 0 for each in answers)
    written = sum(each.answer_tokens or 0 for each in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _url_citations(call: Call, answer: Answer) -> list[dict[str, Any]]:
    """OpenAI's annotations: for each sentence its source, the quote, and the address at which the web page opens it."""
    names, receipt, found = {base.id: name for name, base in call.service.bases.items()}, answer.receipt, []
    for sentence, cited in cited_sentences(answer):
        query = {"base": names.get(receipt.knowledge_base or ""), "version": receipt.knowledge_base_version}
        query |= {"start": cited.start, "end": cited.end} | ({"page": cited.page} if cited.page else {})
        page = f", page {cited.page}" if cited.page else ""
        title = f"{PurePosixPath(cited.document).name}{page}: {shorten(cited.quote, 200, placeholder=' ...')}"
        # Ends with "&", since Open WebUI appends "#:~:text=..." to it.
        url = f"{call.request.base_url}#/document/{quote(cited.document, safe='')}?{urlencode(query)}&"
        place = {"start_index": sentence.start, "end_index": sentence.end, "title": title, "url": url}
        found.append({"type": "url_citation", "url_citation": place})
    return found
