"""A model behind any OpenAI-compatible server. Its identity is only the server's claim, and answers say so.

Names and errors may be shown to others, so they never contain the server's address.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from openbook.core.errors import ConfigError, ContextOverflow, EngineError
from openbook.core.parallel import Cancelled, never
from openbook.core.records import Completion, Decoding, FinishReason, ModelIdentity, Prompt, canonical_json, sha256_hex
from openbook.inference.decoding import TextStream

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 300.0  # a laptop may read a long prompt for minutes
_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.05  # how often a request checks for cancellation while the server is silent
_MAX_LINE_BYTES = 2**20
_MAX_ANSWER_CHARS = 10_000_000
# Requests an answer without thinking: the first is for Ollama and OpenAI, the second for llama.cpp, vLLM and SGLang. A
# parameter is dropped once a server refuses it by the word below.
_NO_THINKING = {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}
_REFUSED_BY = {"reasoning_effort": "reasoning", "chat_template_kwargs": "chat_template_kwargs"}
_THINK, _THOUGHT = "<think>", "</think>"
_FINISH: dict[str, FinishReason] = {"stop": "end", "length": "length"}


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    """One piece of an answer. The closing event, with the usage, has no choices."""

    choices: list[_Choice] = []
    error: Any = None


class OpenAIEngine:
    """`base_url` usually ends in `/v1`."""

    def __init__(self, name: str, *, base_url: str, api_key: str = "", context_tokens: int = 4096) -> None:
        import httpx

        if not re.match(r"https?://[^/\s]", base_url):
            raise ConfigError(f"base_url must begin with http:// or https:// and a host, not {base_url!r}.")
        self._base_url = base_url.rstrip("/")
        self.identity: Final = ModelIdentity(name=name, digest="", evidence="claimed")
        self.numeric_class: Final = ""
        self.context_tokens: Final = context_tokens
        self._no_thinking: dict[str, Any] = _NO_THINKING
        _check_key(api_key)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_keepalive_connections=0),  # so a cancelled request cuts only its own connection
        )

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        """An upper bound for ordinary text, one token per two bytes."""
        self._check_open()
        return sum(len(text.encode()) for text in (prompt.system, *prompt.passages, prompt.question)) // 2

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self._check_open()
        user = "".join(prompt.passages) + prompt.question
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": user}]
        stream, thinking, pieces = TextStream(decoding.stop), LeadingThoughts(), []
        finish: FinishReason = "end"
        with HangUp(cancelled) as hang_up:
            try:
                for text, reason in self._events(messages, decoding, hang_up):
                    if cancelled():
                        finish = "cancelled"
                        break
                    finish = _FINISH.get(reason, finish)
                    answer = thinking.drop(text)
                    if piece := stream.feed(answer.encode("utf-8", "replace")):  # JSON can encode half a surrogate pair
                        pieces.append(piece)
                        yield piece
                    if stream.stopped:
                        finish = "stop"
                        break
            except EngineError:
                if not hang_up.has_cut:
                    raise
                finish = "cancelled"
        held = thinking.drop("", final=True).encode("utf-8", "replace")
        if finish != "cancelled" and (rest := stream.feed(held, final=True)):
            pieces.append(rest)
            yield rest
        if finish == "length" and not pieces:
            raise EngineError(
                f"{self.identity.name} thought until its {decoding.max_tokens} tokens were used up, and gave no answer. Allow "
                "more (max_tokens), or turn its thinking off where it runs."
            )
        return Completion(
            text="".join(pieces),
            finish_reason=finish,
            prompt_tokens=None,
            answer_tokens=None,
            prompt_digest=sha256_hex(canonical_json(messages)),
            numeric_class="",
        )

    def close(self) -> None:
        self._client.close()

    def _check_open(self) -> None:
        if self._client.is_closed:
            raise EngineError(f"The connection to {self.identity.name} was closed; connect again.")

    def _events(self, messages: list[dict[str, str]], decoding: Decoding, hang_up: HangUp) -> Iterator[tuple[str, str]]:
        """Yield pairs of text and finish reason ("" until the end)."""
        import httpx

        # Stop strings are matched here, not on the server, which would also match them in thoughts.
        body: dict[str, Any] = {"model": self.identity.name, "messages": messages, "stream": True, **self._no_thinking}
        body |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed}
        body["max_tokens"] = decoding.max_tokens
        if decoding.schema:
            wanted = {"name": "answer", "schema": json.loads(decoding.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        server, extensions = f"The server of {self.identity.name}", {"trace": hang_up.trace}
        url = f"{self._base_url}/chat/completions"
        try:
            with self._client.stream("POST", url, json=body, extensions=extensions) as response:
                refused = self._check_status(response)
                if not refused:
                    yield from self._parsed(_lines(response.iter_bytes()))
                    return
        except httpx.ConnectTimeout as error:
            raise EngineError(
                f"{server} took no connection within {_CONNECT_TIMEOUT_S:.0f} s. Is the server running, and is base_url right?"
            ) from error
        except httpx.TimeoutException as error:
            raise EngineError(f"{server} did not answer within {_TIMEOUT_S:.0f} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            reason = self._without_address(str(error))
            raise EngineError(
                f"{server} cannot be reached: {reason}. Is the server running, and is base_url right?"
            ) from error
        self._no_thinking = {key: value for key, value in self._no_thinking.items() if key not in refused}
        yield from self._events(messages, decoding, hang_up)

    def _without_address(self, text: str) -> str:
        place = self._base_url.split("://", 1)[1].split("/", 1)[0].rpartition("@")[2]
        return text.replace(self._base_url, "base_url").replace(place, "base_url")

    def _check_status(self, response: httpx.Response) -> list[str]:
        """The no-thinking parameters that the server refuses, if that is the only problem."""
        if response.is_success:
            return []
        detail = response.read()[:2000].decode(errors="replace")
        message = self._without_address(_error_message(detail))
        status = response.status_code
        if status in (400, 422) and (refused := [key for key in self._no_thinking if _REFUSED_BY[key] in detail]):
            return refused
        if status == 400 and "context" in message.lower():
            raise ContextOverflow(f"{self.identity.name} says: {message}. Ask with fewer passages.")
        hints = {401: " Set the key in the environment (OPENAI_API_KEY).", 404: " Check the model's name and base_url."}
        raise EngineError(f"{self.identity.name} answered {status}: {message}.{hints.get(status, '')}")

    def _parsed(self, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
        """Parse the stream's events. Raises EngineError if it is malformed, too large, or incomplete."""
        name, size = self.identity.name, -1
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            try:
                event = msgspec.convert(json.loads(data), _Event)
            except (ValueError, RecursionError) as error:
                shown = self._without_address(data[:200])
                raise EngineError(f"{name} sent an event that is not a chat completion: {shown!r}.") from error
            if event.error is not None:
                raise EngineError(f"{name} failed while answering: {self._without_address(_error_message(data))}.")
            choice = event.choices[0] if event.choices else _Choice()
            text, reason = (choice.delta and choice.delta.content) or "", choice.finish_reason or ""
            size = max(size, 0) + len(text)
            if size > _MAX_ANSWER_CHARS:
                raise EngineError(f"{name} sent more than {_MAX_ANSWER_CHARS:,} characters for one answer.")
            yield text, reason
            if reason:
                return
        if size < 0:
            raise EngineError(f"{name} did not answer with a stream of chat completions. Is base_url right?")
        raise EngineError(f"{name} broke off before the end of its answer. Ask again.")


class HangUp:
    """Cuts a request's connection once it is `cancelled`, so a read from a silent server fails at once."""

    def __init__(self, cancelled: Cancelled) -> None:
        self._cancelled = cancelled
        self._socket: socket.socket | None = None
        self._over = threading.Event()
        self.has_cut = False

    def __enter__(self) -> HangUp:
        threading.Thread(target=self._watch, name="openbook-hang-up", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def trace(self, event: str, about: Mapping[str, Any]) -> None:
        """For httpx: captures the connection's socket, first plain and then under TLS."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = about["return_value"].get_extra_info("socket")

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            if self._socket is not None and self._cancelled():
                self.has_cut = True
                with suppress(OSError):  # already closed, or TLS has just taken it over
                    # Not the TLS socket's own method, which also removes the state that the other thread reads with.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class LeadingThoughts:
    """Drops an answer's leading `<think>...</think>` and the whitespace around it."""

    def __init__(self) -> None:
        self._held, self._answering = "", False

    def drop(self, text: str, *, final: bool = False) -> str:
        """Return the text that belongs to the answer. `final`: nothing follows."""
        if self._answering:
            return text
        self._held += text
        begun = self._held.lstrip()
        if begun.startswith(_THINK):
            thoughts, ended, answer = begun.partition(_THOUGHT)
            if not ended:
                self._held = _THINK + thoughts[len(_THINK) :][1 - len(_THOUGHT) :]  # maybe half an end tag
            answer = answer.lstrip()
        else:
            answer = "" if _THINK.startswith(begun) and not final else self._held
        self._answering = bool(answer)
        return answer


def _check_key(api_key: str) -> None:
    """Refuse keys that the HTTP library would refuse with an error that shows the key."""
    wrong = next((i for i, character in enumerate(api_key, 1) if not "!" <= character <= "~"), None)
    if wrong is not None:
        raise ConfigError(
            f"The API key cannot be right: its character {wrong} of {len(api_key)} is a space, a control character or "
            "not ASCII. Set OPENAI_API_KEY to the key alone."
        )


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """The stream's lines, at most `_MAX_LINE_BYTES` long: a server must not fill our memory."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise EngineError(
                f"The server sent a line of more than {_MAX_LINE_BYTES:,} bytes; that is not a chat completion."
            )
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    yield rest.decode(errors="replace")


def _error_message(detail: str) -> str:
    try:
        error = json.loads(detail)["error"]
        return str(error["message"] if isinstance(error, dict) else error).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return " ".join(detail.split())[:300] or "no reason given"
