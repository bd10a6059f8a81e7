"""A model behind any OpenAI-compatible server. What it is can only be claimed, and answers carry that."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from openbook.errors import ConfigError, ContextOverflow, EngineError
from openbook.inference.frozen import Cancelled, never
from openbook.inference.stopping import TextStream
from openbook.records import Completion, Decoding, FinishReason, ModelIdentity, Prompt, canonical_json, sha256_hex

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 300.0  # a laptop may read a long prompt for minutes
_CONNECT_TIMEOUT_S = 10.0
_MAX_LINE_BYTES = 2**20
_MAX_ANSWER_CHARS = 10_000_000
_FINISH: dict[str, FinishReason] = {"stop": "end", "length": "length"}


class OpenAIEngine:
    """Speaks `/chat/completions` of the server at `base_url` (which usually ends in `/v1`)."""

    def __init__(self, name: str, *, base_url: str, api_key: str = "", context_tokens: int = 4096) -> None:
        import httpx

        if not re.match(r"https?://[^/\s]", base_url):
            raise ConfigError(f"base_url must begin with http:// or https:// and a host, not {base_url!r}.")
        self._base_url = base_url.rstrip("/")
        self._identity = ModelIdentity(name=f"{name} at {self._base_url}", digest="", evidence="claimed")
        self._model, self._context_tokens = name, context_tokens
        _check_key(api_key)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S))
        self._closed = False

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def numeric_class(self) -> str:
        return ""

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        """An upper bound for ordinary text, since the server's tokenizer is not known: one token for two bytes."""
        self._check_open()
        return sum(len(text.encode()) for text in (prompt.system, *prompt.passages, prompt.question)) // 2

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self._check_open()
        messages = self._messages(prompt)
        stream, pieces = TextStream(decoding.stop), []
        finish: FinishReason = "end"
        for text, reason in self._events(messages, decoding):
            if cancelled():
                finish = "cancelled"
                break
            finish = _FINISH.get(reason, finish)
            if piece := stream.feed(text.encode("utf-8", "replace")):  # JSON can spell half a character
                pieces.append(piece)
                yield piece
            if stream.stopped:
                finish = "stop"
                break
        if finish != "cancelled" and (rest := stream.feed(b"", final=True)):
            pieces.append(rest)
            yield rest
        return Completion(
            text="".join(pieces),
            finish_reason=finish,
            prompt_tokens=None,
            answer_tokens=None,
            prompt_digest=sha256_hex(canonical_json(messages)),
            numeric_class="",
        )

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError(f"The connection to {self._identity.name} was closed; connect again.")

    def _messages(self, prompt: Prompt) -> list[dict[str, str]]:
        user = "".join(prompt.passages) + prompt.question
        return [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]

    def _events(self, messages: list[dict[str, str]], decoding: Decoding) -> Iterator[tuple[str, str]]:
        """Pairs of text and finish reason ("" while it goes on)."""
        import httpx

        body: dict[str, Any] = {"model": self._model, "messages": messages, "stream": True}
        body |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed}
        body["max_tokens"] = decoding.max_tokens
        if decoding.stop:
            body["stop"] = list(decoding.stop)[:4]  # the API takes four at most; the rest is cut here
        url = f"{self._base_url}/chat/completions"
        try:
            with self._client.stream("POST", url, json=body) as response:
                self._check_status(response)
                yield from self._parsed(_lines(response.iter_bytes()))
        except httpx.ConnectTimeout as error:
            raise EngineError(
                f"{url} took no connection within {_CONNECT_TIMEOUT_S:.0f} s. Is the server running, and is base_url right?"
            ) from error
        except httpx.TimeoutException as error:
            raise EngineError(f"{url} did not answer within {_TIMEOUT_S:.0f} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            raise EngineError(
                f"Cannot talk to {url}: {error}. Is the server running, and is base_url right?"
            ) from error

    def _check_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        detail = response.read()[:2000].decode(errors="replace")
        message = _error_message(detail)
        status = response.status_code
        if status == 400 and "context" in message.lower():
            raise ContextOverflow(f"{self._identity.name} says: {message}. Ask with fewer passages.")
        hints = {401: " Set the key in the environment (api_key_env).", 404: " Check the model's name and base_url."}
        raise EngineError(f"{self._identity.name} answered {status}: {message}.{hints.get(status, '')}")

    def _parsed(self, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
        """The stream's events. Raises EngineError when it is none, too large, or breaks off before its end."""
        events = size = 0
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            text, reason = self._parse(data)
            events, size = events + 1, size + len(text)
            if size > _MAX_ANSWER_CHARS:
                raise EngineError(
                    f"{self._identity.name} sent more than {_MAX_ANSWER_CHARS:,} characters for one answer."
                )
            yield text, reason
            if reason:
                return
        if not events:
            raise EngineError(
                f"{self._identity.name} did not answer with a stream of chat completions. Is base_url right?"
            )
        raise EngineError(f"{self._identity.name} broke off before the end of its answer. Ask again.")

    def _parse(self, line: str) -> tuple[str, str]:
        try:
            event = json.loads(line)
            if "error" in event:
                raise EngineError(f"{self._identity.name} failed while answering: {_error_message(line)}.")
            choices = event["choices"]
            if not choices:  # the closing usage event has none
                return "", ""
            delta, reason = choices[0].get("delta") or {}, choices[0].get("finish_reason")
            content = delta.get("content")
            if content is not None and not isinstance(content, str):
                raise TypeError(content)
            return content or "", str(reason or "")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise EngineError(
                f"{self._identity.name} sent an event that is not a chat completion: {line[:200]!r}."
            ) from error


def _check_key(api_key: str) -> None:
    """Found here, it is a sentence; found by the HTTP library, it is an error that shows the key."""
    wrong = next((i for i, character in enumerate(api_key, 1) if not "!" <= character <= "~"), None)
    if wrong is not None:
        raise ConfigError(
            f"The API key cannot be right: its character {wrong} of {len(api_key)} is a space, a control character or "
            "not ASCII. Set the environment variable that api_key_env names to the key alone."
        )


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines of a stream, none longer than `_MAX_LINE_BYTES`: a server must not fill our memory."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise EngineError(
                f"The server sent a line of more than {_MAX_LINE_BYTES:,} bytes; that is no chat completion."
            )
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    yield rest.decode(errors="replace")


def _error_message(detail: str) -> str:
    try:
        error = json.loads(detail)["error"]
        return str(error["message"] if isinstance(error, dict) else error).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return " ".join(detail.split())[:300] or "no reason given"
