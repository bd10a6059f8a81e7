"""A model behind any OpenAI-compatible server. What it is can only be claimed, and answers carry that.

Its name is the one that the user gave, `qwen3:8b` for instance. Where the server stands is nobody's business but the user's:
no name and no error holds the address, since both may be shown to others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Literal

from openbook.errors import ConfigError, ContextOverflow, EngineError
from openbook.inference.decoding import TextStream
from openbook.inference.frozen import Cancelled, never
from openbook.records import Completion, Decoding, FinishReason, ModelIdentity, Prompt, canonical_json, sha256_hex

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 300.0  # a laptop may read a long prompt for minutes
_CONNECT_TIMEOUT_S = 10.0
_MAX_LINE_BYTES = 2**20
_MAX_ANSWER_CHARS = 10_000_000
# How servers are asked for an answer without thinking: Ollama and OpenAI by the first, llama.cpp, vLLM and SGLang by the
# second. One that knows a parameter not, and refuses it by this word, is not sent it again.
_NO_THINKING = {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}
_REFUSED_BY = {"reasoning_effort": "reasoning", "chat_template_kwargs": "chat_template_kwargs"}
_THINK, _THOUGHT = "<think>", "</think>"
_FINISH: dict[str, FinishReason] = {"stop": "end", "length": "length"}


class OpenAIEngine:
    """Speaks `/chat/completions` of the server at `base_url` (which usually ends in `/v1`)."""

    def __init__(self, name: str, *, base_url: str, api_key: str = "", context_tokens: int = 4096) -> None:
        import httpx

        if not re.match(r"https?://[^/\s]", base_url):
            raise ConfigError(f"base_url must begin with http:// or https:// and a host, not {base_url!r}.")
        self._base_url = base_url.rstrip("/")
        self._identity = ModelIdentity(name=name, digest="", evidence="claimed")
        self._context_tokens = context_tokens
        self._no_thinking: dict[str, Any] = _NO_THINKING
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
        stream, thinking, pieces = TextStream(decoding.stop), LeadingThoughts(), []
        finish: FinishReason = "end"
        for text, reason in self._events(messages, decoding):
            if cancelled():
                finish = "cancelled"
                break
            finish = _FINISH.get(reason, finish)
            answer = thinking.drop(text)
            if piece := stream.feed(answer.encode("utf-8", "replace")):  # JSON can spell half a character
                pieces.append(piece)
                yield piece
            if stream.stopped:
                finish = "stop"
                break
        held = thinking.drop("", final=True).encode("utf-8", "replace")
        if finish != "cancelled" and (rest := stream.feed(held, final=True)):
            pieces.append(rest)
            yield rest
        if finish == "length" and not pieces:
            raise EngineError(
                f"{self._identity.name} thought until its {decoding.max_tokens} tokens were used up, and gave no answer. Allow "
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

        # Stop strings are looked for here, and the connection then closed: a server would find them in thoughts, too.
        body: dict[str, Any] = {"model": self._identity.name, "messages": messages, "stream": True, **self._no_thinking}
        body |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": decoding.seed}
        body["max_tokens"] = decoding.max_tokens
        server = f"The server of {self._identity.name}"
        try:
            with self._client.stream("POST", f"{self._base_url}/chat/completions", json=body) as response:
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
        yield from self._events(messages, decoding)

    def _without_address(self, text: str) -> str:
        place = self._base_url.split("://", 1)[1].split("/", 1)[0].rpartition("@")[2]
        return text.replace(self._base_url, "base_url").replace(place, "base_url")

    def _check_status(self, response: httpx.Response) -> list[str]:
        """The parameters against thinking that the server refuses, if that is all. Raises EngineError, ContextOverflow."""
        if response.is_success:
            return []
        detail = response.read()[:2000].decode(errors="replace")
        message = self._without_address(_error_message(detail))
        status = response.status_code
        if status in (400, 422) and (refused := [key for key in self._no_thinking if _REFUSED_BY[key] in detail]):
            return refused
        if status == 400 and "context" in message.lower():
            raise ContextOverflow(f"{self._identity.name} says: {message}. Ask with fewer passages.")
        hints = {401: " Set the key in the environment (OPENAI_API_KEY).", 404: " Check the model's name and base_url."}
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
                raise EngineError(
                    f"{self._identity.name} failed while answering: {self._without_address(_error_message(line))}."
                )
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
                f"{self._identity.name} sent an event that is not a chat completion: {self._without_address(line[:200])!r}."
            ) from error


class LeadingThoughts:
    """Drops what a model thinks before it answers: `<think>...</think>` at the beginning, and the space around it."""

    def __init__(self) -> None:
        self._held = ""
        self._at: Literal["beginning", "thoughts", "space", "answer"] = "beginning"

    def drop(self, text: str, *, final: bool = False) -> str:
        """What belongs to the answer, of `text` and of what was held back before; `final`: nothing follows."""
        if self._at == "answer":
            return text
        self._held += text
        if self._at == "beginning":
            begun = self._held.lstrip()
            if not begun.startswith(_THINK):
                if _THINK.startswith(begun) and not final:
                    return ""
                self._at = "answer"
                return self._held
            self._at, self._held = "thoughts", begun.removeprefix(_THINK)
        if self._at == "thoughts":
            _, ended, rest = self._held.partition(_THOUGHT)
            self._held = rest if ended else self._held[1 - len(_THOUGHT) :]  # of which it may be the beginning
            if not ended:
                return ""
            self._at = "space"
        self._held = self._held.lstrip()
        if self._held:
            self._at = "answer"
        return self._held


def _check_key(api_key: str) -> None:
    """Found here, it is a sentence; found by the HTTP library, it is an error that shows the key."""
    wrong = next((i for i, character in enumerate(api_key, 1) if not "!" <= character <= "~"), None)
    if wrong is not None:
        raise ConfigError(
            f"The API key cannot be right: its character {wrong} of {len(api_key)} is a space, a control character or "
            "not ASCII. Set OPENAI_API_KEY to the key alone."
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
