"""A conversation with a library, and the pieces of an answer while the model writes it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from openbook.core.parallel import Listener

if TYPE_CHECKING:
    from types import TracebackType

    from openbook.core.records import Answer
    from openbook.library import View


class Chat:
    """A conversation. Only this object keeps its questions. Not thread-safe.

    >>> chat = kb.chat()
    >>> str(chat.ask("Who signs travel expenses?"))
    'Travel expenses are signed by the head of unit.'
    >>> chat.questions
    ['Who signs travel expenses?']
    """

    def __init__(self, view: View, questions: Sequence[str] = ()) -> None:
        """`questions`: earlier ones, oldest first, to resume a conversation."""
        self._view = view
        self.questions = list(questions)

    def ask(self, question: str, *, instruction: str = "", listener: Listener = Listener()) -> Answer:
        """Answer a question that may refer to earlier ones. Raises as `View.ask` does."""
        earlier = tuple(self.questions)
        answer = self._view.ask(question, instruction=instruction, earlier=earlier, listener=listener)
        self.questions.append(question)
        return answer

    def stream(self, question: str, *, instruction: str = "") -> AnswerStream:
        """As `ask`, in pieces."""
        return AnswerStream(lambda listener: self.ask(question, instruction=instruction, listener=listener))


class AnswerStream(Iterator[str]):
    """The pieces of an answer, in order. `close`, or the end of its `with` block, stops the model."""

    def __init__(self, ask: Callable[..., Answer]) -> None:
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        listener = Listener(on_text=self._pieces.put, cancelled=self._ended.is_set)
        writer = ThreadPoolExecutor(1, "openbook-answer")
        self._answer = writer.submit(ask, listener=listener)
        self._answer.add_done_callback(lambda _: self._pieces.put(None))
        writer.shutdown(wait=False)
        self._shown = ""

    def __iter__(self) -> AnswerStream:
        return self

    def __next__(self) -> str:
        if self._ended.is_set():
            raise StopIteration
        piece = self._pieces.get()
        if piece is not None:
            self._shown += piece
            return piece
        self._ended.set()
        text = self._answer.result().answer
        rest = text[len(self._shown) :] if text.startswith(self._shown) else ""
        if rest:
            return rest
        raise StopIteration

    @property
    def answer(self) -> Answer:
        """The whole answer, once written. Raises what `View.ask` raises."""
        return self._answer.result()

    def close(self) -> None:
        """End the answer."""
        self._ended.set()

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
