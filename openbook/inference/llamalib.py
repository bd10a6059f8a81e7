"""A thin, typed layer over llama.cpp's C API: the library, a model's weights and vocabulary, an evaluation context.

All unsafe code (pointers, lifetimes, callbacks) is here and in `answerability.HiddenStateTap`.
"""

from __future__ import annotations

import collections
import functools
import itertools
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openbook.core.errors import EngineError
from openbook.core.parallel import silent
from openbook.inference.answerability import HiddenStateTap

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_LOAD_MMAP = 1  # LLAMA_LOAD_MODE_MMAP
_FLASH_ATTENTION = 1  # LLAMA_FLASH_ATTN_TYPE_ENABLED
_DECODE_ABORTED = 2
_UNKNOWN, _CONTROL, _USER_DEFINED = 1 << 0, 1 << 3, 1 << 4  # bits of llama_token_attr
_MAX_TEXT_BYTES = 2**31 - 1
_WORDS = re.compile(rb"\S+|\s+")
_SHORT_BYTES, _MAX_WORD_BYTES = 2_048, 1 << 20  # safe on any stack; limit for a word that gets its own stack
_STACK_BYTES_A_BYTE = 512  # 320 were measured
_STARTING = threading.Lock()
_MARKER = re.compile(r"\s*[<\[|].+[>\]|]\s*", re.DOTALL)  # `<|im_start|>`, `[INST]`, `<start_of_turn>`


class Aborted(Exception):
    """The caller asked to stop."""


class Library:
    """The shared library. One per process, because llama.cpp keeps its log callback in a global."""

    def __init__(self) -> None:
        # OpenMP's runtime reads this when it loads. By default its threads spin so long that two programs on the same
        # cores slow each other down four times or more (research/log.md). Results do not depend on it.
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        try:
            from llama_cpp_py_sync import _cffi_bindings, _version

            self.ffi: Any = _cffi_bindings.get_ffi()
            self.lib: Any = _cffi_bindings.get_lib()
        except (ImportError, RuntimeError, OSError) as error:
            raise EngineError(
                f"llama.cpp cannot be loaded ({error}). Install it with: {sys.executable} -m pip install llama-cpp-py-sync, "
                "or let a server answer: set base_url to its address."
            ) from error
        self.build = f"{_version.__llama_cpp_tag__} {_version.__llama_cpp_commit__}"
        self.recent_errors: collections.deque[str] = collections.deque(maxlen=5)

        @self.ffi.callback("void(enum ggml_log_level, const char *, void *)")  # type: ignore[untyped-decorator]
        def on_log(level: int, text: Any, _data: Any) -> None:
            if level == _LOG_ERROR:
                self.recent_errors.append(self.ffi.string(text).decode(errors="replace").strip())

        self._on_log = on_log  # must outlive the library
        self.lib.llama_log_set(on_log, self.ffi.NULL)
        self.lib.llama_backend_init()
        info = self.ffi.string(self.lib.llama_print_system_info()).decode()
        self.features = " ".join(
            part.split(" = ")[0].strip().rpartition(" ")[2] for part in info.split("|") if " = 1" in part
        )

    def last_error(self) -> str:
        return self.recent_errors[-1] if self.recent_errors else "no reason given"


@functools.cache
def library() -> Library:
    return Library()


def _with_room_to_recurse(data: bytes, call: Callable[[], int]) -> int:
    """Return `call()`, which tokenizes `data`; for a long word on a thread with a large enough stack.

    llama.cpp may split text with `std::regex`, which recurses once per character of a word; a stack overflow ends the process.
    """
    longest = max(map(len, _WORDS.findall(data))) if len(data) > _SHORT_BYTES else 0
    if longest <= _SHORT_BYTES:
        return call()
    if longest > _MAX_WORD_BYTES:
        raise EngineError(f"A word of {longest:,} bytes is too long to tokenise; at most {_MAX_WORD_BYTES:,} bytes.")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(call()), name="openbook-tokenize")
    with _STARTING:  # the stack size is one setting for all new threads
        before = threading.stack_size(_STACK_BYTES_A_BYTE * 2 * longest)  # a word and the whitespace before it
        try:
            thread.start()
        except RuntimeError as error:
            raise EngineError(f"There is not enough memory to tokenise a word of {longest:,} bytes.") from error
        finally:
            threading.stack_size(before)
    thread.join()
    return found[0]


class Model:
    """Weights mapped read-only, and the vocabulary (`vocabulary_only`: that alone). Raises EngineError."""

    def __init__(self, path: Path, *, vocabulary_only: bool = False) -> None:
        self._ffi, self._lib = library().ffi, library().lib
        params = self._lib.llama_model_default_params()
        params.load_mode = _LOAD_MMAP
        params.vocab_only = vocabulary_only
        params.use_extra_bufts = False  # no repacked copies: the mapped file itself is used
        library().recent_errors.clear()
        self.handle: Any = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if self.handle == self._ffi.NULL:
            told = library().recent_errors  # the first message says why, the others only that it failed
            reason = told[0].rpartition("loading model: ")[2] if told else "no reason given"
            raise EngineError(f"llama.cpp cannot load {path.name}: {reason}.")
        self._vocab = self._lib.llama_model_get_vocab(self.handle)
        self.vocabulary_size: int = self._lib.llama_vocab_n_tokens(self._vocab)
        self.trained_context_tokens: int = self._lib.llama_model_n_ctx_train(self.handle)
        self.width: int = self._lib.llama_model_n_embd(self.handle)
        # Recurrent models have one state for all text read, instead of keys and values per token.
        self.is_recurrent = any(
            is_so(self.handle) for is_so in (self._lib.llama_model_is_recurrent, self._lib.llama_model_is_hybrid)
        )
        self.bos_token: int = self._lib.llama_vocab_bos(self._vocab)
        self.adds_bos = bool(self._lib.llama_vocab_get_add_bos(self._vocab)) and self.bos_token >= 0

    @property
    def end_token(self) -> int:
        """The end of sequence, or else the end of turn; -1 if there is neither."""
        end = int(self._lib.llama_vocab_eos(self._vocab))
        return end if end >= 0 else int(self._lib.llama_vocab_eot(self._vocab))

    @property
    def bos_text(self) -> str:
        return self._token_text(self.bos_token)

    @property
    def eos_text(self) -> str:
        return self._token_text(self._lib.llama_vocab_eos(self._vocab))

    @cached_property
    def chat_template(self) -> str:
        """Empty if the model has none."""
        pointer = self._lib.llama_model_chat_template(self.handle, self._ffi.NULL)
        return "" if pointer == self._ffi.NULL else self._ffi.string(pointer).decode(errors="replace")

    def is_control(self, token: int) -> bool:
        """True if only the template may write `token`, never text from documents and users."""
        attributes = int(self._lib.llama_vocab_get_attr(self._vocab, token))
        if attributes & (_CONTROL | _UNKNOWN) or self.ends_generation(token):
            return True
        return bool(attributes & _USER_DEFINED) and is_marker(self._spelled(token), self.chat_template)

    def ends_generation(self, token: int) -> bool:
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that `token` stands for; none for a control token unless `special`."""
        buffer = self._ffi.new("char[]", 256)
        count = self._lib.llama_token_to_piece(self._vocab, token, buffer, 256, 0, special)
        if count < 0:
            buffer = self._ffi.new("char[]", -count)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, -count, 0, special)
        return bytes(self._ffi.buffer(buffer, max(count, 0)))

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """Return the token ids of `text`. Unless `control`, they include no control token, whatever the text says."""
        tokens = self._tokenize(text.encode(), control)
        if control or not self._any_control(tokens):
            return tokens
        # llama.cpp matches "user defined" tokens even in plain text. Cutting inside each leaves nothing to match.
        cuts = [0, *(match.start() + 1 for match in self._control_start.finditer(text)), len(text)]
        parts = (text[start:end].encode() for start, end in itertools.pairwise(cuts))
        tokens = [token for part in parts for token in self._tokenize(part, control=False)]
        if self._any_control(tokens):  # a control token of one character cannot be cut
            tokens = [token for token in tokens if not self.is_control(token)]
        return tokens

    def _any_control(self, tokens: Sequence[int]) -> bool:
        return any(map(self.is_control, set(tokens)))

    @cached_property
    def _control_start(self) -> re.Pattern[str]:
        """Zero-width match wherever the text of a control token begins, even inside another's."""
        spelled = {self._spelled(t) for t in range(self.vocabulary_size) if self.is_control(t)} - {""}
        longest_first = sorted(spelled, key=lambda text: (-len(text), text))
        # Testing one character first avoids most comparisons with thousands of texts.
        firsts, texts = sorted({re.escape(text[0]) for text in spelled}), map(re.escape, longest_first)
        return re.compile(f"(?={'|'.join(firsts)})(?={'|'.join(texts)})")

    def _spelled(self, token: int) -> str:
        return self.piece(token, special=True).decode(errors="replace")

    def _tokenize(self, data: bytes, control: bool) -> list[int]:
        if not data:
            return []
        if len(data) > _MAX_TEXT_BYTES:
            raise EngineError(
                f"A text of {len(data):,} bytes is too long to tokenise; at most {_MAX_TEXT_BYTES:,} bytes."
            )
        room = len(data) + 8
        buffer = self._ffi.new("llama_token[]", room)
        count = _with_room_to_recurse(
            data, lambda: int(self._lib.llama_tokenize(self._vocab, data, len(data), buffer, room, False, control))
        )
        if count < 0:
            raise EngineError(f"llama.cpp cannot tokenise a text of {len(data):,} bytes.")
        tokens: list[int] = list(self._ffi.unpack(buffer, count)) if count else []
        if tokens and not 0 <= min(tokens) <= max(tokens) < self.vocabulary_size:  # llama.cpp would abort
            raise EngineError(
                "The model's vocabulary has no token for a part of the text, and no token for unknown text."
            )
        return tokens

    def _token_text(self, token: int) -> str:
        if token < 0:
            return ""
        text: str = self._ffi.string(self._lib.llama_vocab_get_text(self._vocab, token)).decode(errors="replace")
        return text

    def metadata(self, key: str) -> str | None:
        return _metadata(self._ffi, functools.partial(self._lib.llama_model_meta_val_str, self.handle), key)

    def close(self) -> None:
        if self.handle != self._ffi.NULL:
            self._lib.llama_model_free(self.handle)
            self.handle = self._ffi.NULL


class Adapter:
    """A LoRA adapter on the weights of `model`, which must outlive it. Raises EngineError."""

    def __init__(self, model: Model, path: Path) -> None:
        self._ffi, self._lib = library().ffi, library().lib
        library().recent_errors.clear()
        self.handle: Any = self._lib.llama_adapter_lora_init(model.handle, str(path).encode())
        if self.handle == self._ffi.NULL:
            raise EngineError(f"llama.cpp cannot put the adapter {path} on its base: {library().last_error()}.")

    def metadata(self, key: str) -> str | None:
        return _metadata(self._ffi, functools.partial(self._lib.llama_adapter_meta_val_str, self.handle), key)


def _metadata(ffi: Any, read: Callable[[bytes, Any, int], int], key: str) -> str | None:
    length = read(key.encode(), ffi.NULL, 0)
    if length < 0:
        return None
    buffer = ffi.new("char[]", length + 1)
    read(key.encode(), buffer, length + 1)
    return bytes(ffi.buffer(buffer, length)).decode(errors="replace")


class Context:
    """Up to `sequences` sequences under evaluation, which share `context_tokens` cells."""

    def __init__(
        self,
        model: Model,
        adapter: Adapter | None = None,
        *,
        context_tokens: int,
        call_tokens: int,
        sequences: int,
        threads: int,
        hidden_layer: int | None = None,
    ) -> None:
        """`hidden_layer`: the layer whose output `hidden_state` gives."""
        self._ffi, self._lib = library().ffi, library().lib
        self._model = model
        params = self._lib.llama_context_default_params()
        params.n_ctx = context_tokens
        params.n_batch = params.n_ubatch = call_tokens
        params.n_seq_max, params.kv_unified = sequences, True
        params.n_threads = params.n_threads_batch = threads
        self._failure: BaseException | None = None

        def on_error(_kind: object, error: BaseException, _trace: object) -> bool:
            self._failure = error  # an interrupt inside a callback: stop, then raise it to the caller
            return True

        self._tap = None
        if hidden_layer is not None:
            self._tap = HiddenStateTap(self._ffi, hidden_layer, model.width, on_error)
            params.cb_eval = self._tap.callback
        params.flash_attn_type = _FLASH_ATTENTION
        library().recent_errors.clear()
        self._handle = self._lib.llama_init_from_model(model.handle, params)
        if self._handle == self._ffi.NULL:
            raise EngineError(f"llama.cpp cannot make a context of {context_tokens} tokens: {library().last_error()}.")
        self._memory = self._lib.llama_get_memory(self._handle)
        self._batch = self._lib.llama_batch_init(call_tokens, 0, 1)
        self._call_tokens = call_tokens
        self._positions, self._is_clear = [0] * sequences, False
        self._adapter, self._adapted = adapter, False
        self._cancelled: Callable[[], bool] = lambda: False

        @self._ffi.callback("bool(void *)", error=True, onerror=on_error)  # type: ignore[untyped-decorator]
        def should_abort(_data: Any) -> bool:
            return self._failure is not None or self._cancelled()

        self._should_abort = should_abort
        self._lib.llama_set_abort_callback(self._handle, should_abort, self._ffi.NULL)

    def adapt(self, on: bool) -> None:
        on = on and self._adapter is not None
        if on is self._adapted:
            return
        adapters = self._ffi.new("struct llama_adapter_lora *[]", [self._adapter.handle] if on and self._adapter else 1)
        scales = self._ffi.new("float[]", [1.0])
        if self._lib.llama_set_adapters_lora(self._handle, adapters, int(on), scales) != 0:
            raise EngineError(f"llama.cpp cannot use the adapter: {library().last_error()}.")
        self._adapted = on

    def begin(self, cancelled: Callable[[], bool]) -> None:
        self.clear()
        self._cancelled, self._failure = cancelled, None

    def clear(self) -> None:
        if not self._is_clear:  # takes milliseconds, since all bytes are set to zero
            self._lib.llama_memory_clear(self._memory, True)
            self._positions = [0] * len(self._positions)
            self._is_clear = True

    def state(self) -> bytes:
        """The state of sequence 0, for `restore`."""
        size = self._lib.llama_state_seq_get_size(self._handle, 0)
        buffer = self._ffi.new("uint8_t[]", max(size, 1))
        written = self._lib.llama_state_seq_get_data(self._handle, buffer, size, 0)
        if written != size or not size:
            raise EngineError(f"llama.cpp cannot give the state of a sequence: {library().last_error()}.")
        return bytes(self._ffi.buffer(buffer, size))

    def restore(self, state: bytes, tokens: int, sequence: int) -> None:
        """Put a state of `tokens` tokens into an empty sequence. Raises EngineError if llama.cpp rejects it."""
        if self._cancelled():
            raise Aborted
        self._is_clear = False
        taken = self._lib.llama_state_seq_set_data(self._handle, self._ffi.from_buffer(state), len(state), sequence)
        if taken != len(state):
            raise EngineError(f"llama.cpp rejects the state of a sequence: {library().last_error()}.")
        self._positions[sequence] = tokens

    def join(self, sequences: int, shared: int) -> None:
        """Add sequences 1 to `sequences` - 1 to sequence 0, which then continues after the longest.

        The first `shared` tokens, equal in all, are held once.
        """
        for sequence in range(1, sequences):
            self._lib.llama_memory_seq_rm(self._memory, sequence, 0, shared)
            self._lib.llama_memory_seq_cp(self._memory, sequence, 0, -1, -1)
        self._positions[0] = max(self._positions[:sequences])

    def read(self, block: Sequence[int], count: Callable[[int], None] = silent) -> None:
        """Evaluate the next block of sequence 0. `count` gets the tokens of each call when it is done."""
        for call, _ in evaluation_calls([(0, block)], self._call_tokens):
            self._decode(call, ())
            count(len(call))

    def evaluate(self, blocks: Sequence[tuple[int, Sequence[int]]], *, tap: bool = False) -> list[NDArray[np.float32]]:
        """Evaluate (sequence, next block) pairs together. Return the logits after each block, float32 [vocabulary].

        `tap`: keep the hidden layer's output for the very last token.
        """
        found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(blocks)
        with self._tap.looking() if tap and self._tap else nullcontext():
            for call, ends in evaluation_calls(blocks, self._call_tokens):
                self._decode(call, ends)
                for place, number in ends.items():
                    pointer = self._lib.llama_get_logits_ith(self._handle, place)
                    if pointer == self._ffi.NULL:
                        raise EngineError(f"llama.cpp gave no logits: {library().last_error()}.")
                    buffer = self._ffi.buffer(pointer, self._model.vocabulary_size * 4)
                    found[number] = np.frombuffer(buffer, dtype=np.float32).copy()
        return found

    @property
    def hidden_state(self) -> NDArray[np.float32]:
        """float32 [width], from the last `evaluate` call with `tap`."""
        assert self._tap is not None
        return self._tap.state

    def _decode(self, tokens: Sequence[tuple[int, int]], wanted: Collection[int]) -> None:
        """Evaluate (sequence, token) pairs in one call, with logits at the indices `wanted`."""
        if self._cancelled():
            raise Aborted
        self._is_clear = False
        batch, positions = self._batch, list(self._positions)
        batch.n_tokens = len(tokens)
        for i, (sequence, token) in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, positions[sequence]
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = i in wanted
            positions[sequence] += 1
        status = self._lib.llama_decode(self._handle, batch)
        if self._failure is not None:
            raise self._failure
        if status == _DECODE_ABORTED:
            raise Aborted
        if status != 0:
            raise EngineError(
                f"llama.cpp failed to evaluate {len(tokens)} tokens (status {status}): {library().last_error()}."
            )
        self._positions = positions

    def close(self) -> None:
        if self._handle != self._ffi.NULL:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._handle)
            self._handle = self._ffi.NULL


def is_marker(text: str, template: str) -> bool:
    """True if a "user defined" token steers the model: it looks like a marker, or `template` writes it.

    Whitespace and single printable ASCII characters do not count: some vocabularies define them this way.
    """
    ordinary = not text.strip() or (len(text) == 1 and text.isascii() and text.isprintable())
    return not ordinary and (text in template or _MARKER.fullmatch(text) is not None)


def evaluation_calls(
    blocks: Sequence[tuple[int, Sequence[int]]], call_tokens: int
) -> Iterator[tuple[list[tuple[int, int]], dict[int, int]]]:
    """The calls that evaluate one block per sequence: a function of their tokens alone.

    Blocks are cut every `call_tokens` tokens. All first pieces precede all second pieces; a call holds as many whole pieces as
    fit. It is (sequence, token) pairs, and the index of each piece's last token mapped to its block's number.
    """
    for start in range(0, max(len(block) for _, block in blocks), call_tokens):
        call: list[tuple[int, int]] = []
        ends: dict[int, int] = {}
        for number, (sequence, block) in enumerate(blocks):
            piece = block[start : start + call_tokens]
            if len(call) + len(piece) > call_tokens:
                yield call, ends
                call, ends = [], {}
            if piece:
                call += [(sequence, token) for token in piece]
                ends[len(call) - 1] = number
        yield call, ends
