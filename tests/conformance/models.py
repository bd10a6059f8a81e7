"""The laws of every engine and every embedder. A test class subclasses a suite and makes the thing to test."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from openbook.core.errors import ContextOverflow, EngineError
from openbook.core.parallel import never
from openbook.core.records import Completion, Decoding, Embedder, Prompt
from openbook.inference.frozen import Engine, FrozenModel

PROMPT = Prompt(
    system="Answer from the passages.",
    passages=("The bridge was opened on 14 March 2026 by mayor Lila Ortega.\n",),
    question="Who opened the bridge?",
)


class EngineSuite:
    deterministic = True

    def make_engine(self) -> Engine:
        raise NotImplementedError

    def model(self) -> closing[FrozenModel]:
        return closing(FrozenModel(self.make_engine()))

    def test_pieces_join_to_the_completion(self) -> None:
        with self.model() as model:
            pieces: list[str] = []
            completion = _drained(model.stream(PROMPT, Decoding(max_tokens=24)), pieces)
            assert "".join(pieces) == completion.text != ""

    def test_equal_requests_give_equal_answers_whatever_came_between(self) -> None:
        decoding = Decoding(max_tokens=16)
        with self.model() as model:
            first = model.complete(PROMPT, decoding)
            model.complete(Prompt("Be brief.", (), "What is the capital of France?"), Decoding(max_tokens=8))
            for _ in range(4):  # dropped streams leave no trace
                stream = model.stream(PROMPT, decoding)
                next(stream)
                stream.close()
            assert model.complete(PROMPT, decoding, lambda: True).finish_reason == "cancelled"
            assert model.complete(PROMPT, decoding) == first or not self.deterministic

    def test_parallel_requests_do_not_meet(self) -> None:
        prompts = [Prompt("Repeat.", (f"The code word is number {i}.\n",), "What is the code word?") for i in range(4)]
        with self.model() as model, ThreadPoolExecutor(4) as pool:
            alone = [model.complete(prompt, Decoding(max_tokens=8)) for prompt in prompts]
            together = list(pool.map(lambda prompt: model.complete(prompt, Decoding(max_tokens=8)), prompts))
            assert together == alone or not self.deterministic

    def test_max_tokens_bounds_the_answer(self) -> None:
        with self.model() as model:
            completion = model.complete(PROMPT, Decoding(max_tokens=1))
            assert completion.finish_reason in ("length", "end")
            assert completion.answer_tokens is None or completion.answer_tokens <= 1

    def test_a_stop_string_ends_the_answer_before_it(self) -> None:
        with self.model() as model:
            whole = model.complete(PROMPT, Decoding(max_tokens=24)).text
            stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
            stopped = model.complete(PROMPT, Decoding(max_tokens=24, stop=(stop,)))
            assert (stopped.text, stopped.finish_reason) == (whole[: whole.index(stop)], "stop")

    def test_a_cancelled_answer_ends_with_what_was_shown(self) -> None:
        with self.model() as model:
            whole = model.complete(PROMPT, Decoding(max_tokens=16)).text
            shown: list[str] = []
            # After the first character the rest could become the stop string, so it is held back.
            stream = model.stream(PROMPT, Decoding(max_tokens=16, stop=(whole[1:] + "|",)), lambda: bool(shown))
            completion = _drained(stream, shown)
            assert completion.finish_reason == "cancelled"
            assert completion.text == "".join(shown) == whole[:1]

    def test_a_prompt_over_the_context_is_refused(self) -> None:
        with self.model() as model:
            long = Prompt("Answer.", ("many words " * model.context_tokens,), "Why?")
            assert model.count_prompt_tokens(long) > model.context_tokens
            with pytest.raises(ContextOverflow):
                model.complete(long, Decoding(max_tokens=4))

    def test_close_does_not_wait_for_an_unread_stream_and_later_calls_fail(self) -> None:
        engine = self.make_engine()
        stream = engine.generate(PROMPT, Decoding(max_tokens=16), never)
        next(stream)
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(120)
        assert not closing.is_alive()
        for last in (engine.close, stream.close):
            for use in (engine.count_prompt_tokens, FrozenModel(engine).complete):
                with pytest.raises(EngineError):
                    use(PROMPT)
            last()
        with pytest.raises(EngineError):
            engine.count_prompt_tokens(PROMPT)


def _drained(stream: Generator[str, None, Completion], pieces: list[str]) -> Completion:
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as done:
            completion: Completion = done.value
            return completion


class EmbedderSuite:
    TEXTS = ("A ferry leaves at nine.", "Ferries are boats.", "", "Überraschung " * 400, "A ferry leaves at nine.")

    def make_embedder(self) -> Embedder:
        raise NotImplementedError

    def test_rows_are_unit_vectors_in_order(self) -> None:
        embedder = self.make_embedder()
        rows = embedder.embed_passages(self.TEXTS)
        assert rows.shape == (len(self.TEXTS), embedder.identity.dimensions)
        assert rows.dtype == np.float32
        assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
        assert np.array_equal(rows[0], rows[4])
        assert embedder.embed_passages([]).shape == (0, embedder.identity.dimensions)

    def test_a_vector_is_a_function_of_its_text_alone(self) -> None:
        embedder = self.make_embedder()
        rows = embedder.embed_passages(self.TEXTS)
        for text, row in zip(self.TEXTS, rows, strict=True):
            assert np.array_equal(embedder.embed_passages([text])[0], row)
        assert np.array_equal(self.make_embedder().embed_passages(self.TEXTS[::-1])[::-1], rows)

    def test_near_texts_are_nearer(self) -> None:
        embedder = self.make_embedder()
        rows = embedder.embed_passages(["The ferry leaves at nine.", "Quantum chromodynamics of gluons"])
        query = embedder.embed_query("When does the ferry leave?")
        assert float(rows[0] @ query) > float(rows[1] @ query)
