"""`Route`: checks a request before its body is read, reads the body strictly, and formats errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import nullcontext
from functools import wraps
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from fastapi import Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from openbook.core.codec import unique_keys
from openbook.serving.errors import ApiError, ClientGone, api_error, invalid
from openbook.serving.keys import Right
from openbook.serving.schemas import Error
from openbook.serving.service import Call, Service

_T = TypeVar("_T")

JSON, FORM = "application/json", "multipart/form-data"
ROUTE, CALLER = "openbook.route", "openbook.caller"


_FAILED = {"model": Error, "description": "Refused or failed; `code` says why."}
OPEN_TO_ALL: dict[str, Any] = {"responses": {"4XX": _FAILED, "5XX": _FAILED}}


def needs(right: Right, *, also: Mapping[int | str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Route arguments that require that right. `also`: additional responses."""
    return {"openapi_extra": {"x-right": right}, "responses": {**OPEN_TO_ALL["responses"], **also}}


def content_of(kind: str, **schema: str) -> dict[int | str, Any]:
    """Without a schema: events or lines, which OpenAPI 3.1 cannot describe one by one."""
    return {200: {"content": {kind: {"schema": schema} if schema else {}}}}


class Route(APIRoute):
    """Checks key and content type before the body is read, and formats errors as OpenAI's API does.

    An endpoint that is no coroutine runs in `Call.compute`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint if iscoroutinefunction(endpoint) else _computed(endpoint), **more)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        is_form = self.body_field is not None and isinstance(self.body_field.field_info, Form)
        wanted = FORM if is_form else JSON if self.body_field else ""

        async def answer(request: Request) -> Response:
            request.scope[ROUTE] = self.path
            service: Service = request.app.state.service
            try:
                self._let_in(request, wanted)
                # The place limits uploads on the disk.
                async with service.uploading.place(request.scope[CALLER]) if is_form else nullcontext():
                    return await handle(_StrictRequest(request.scope, request.receive))
            except Exception as error:  # noqa: BLE001  sent as far as the caller may know, and logged
                if isinstance(error.__cause__ or error, ClientGone | ClientDisconnect):
                    return Response(status_code=499)  # for the log and metrics
                return self.refusal(api_error(error))

        return answer

    def refusal(self, error: ApiError) -> Response:
        return error.response()

    def _let_in(self, request: Request, wanted: str) -> None:
        if right := (self.openapi_extra or {}).get("x-right"):
            caller = request.app.state.service.authenticator.caller(request.headers, right)
            request.state.caller, request.scope[CALLER] = caller, caller.id
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if wanted and kind != wanted:
            # A page of another origin cannot send these without a preflight, or the Origin check stops it.
            message = f"The content type must be {wanted}, not {kind[:100]!r}."
            raise ApiError(415, message, code="unsupported_content_type")
        keys = Counter(key for key, _ in request.query_params.multi_items())
        if twice := next((key for key, times in keys.items() if times > 1), None):
            raise invalid(f"The parameter {twice[:100]!r} is given more than once; send it once.", twice[:100])


def _computed(work: Callable[..., _T]) -> Callable[..., Coroutine[Any, Any, _T]]:
    @wraps(work)
    async def endpoint(call: Call, **arguments: Any) -> _T:
        def begun(call: Call) -> _T:
            call.stop.check()
            return work(call, **arguments)

        return await call.compute(begun)

    return endpoint


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await self.body())

    async def form(self, **_: Any) -> FormData:  # type: ignore[override]  # FastAPI awaits it
        bounds = self.app.state.service.configuration.bounds
        return await parse_form(self.headers, self.stream(), bounds.upload_files)


# --- bodies -----------------------------------------------------------------------------------------------------------


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
