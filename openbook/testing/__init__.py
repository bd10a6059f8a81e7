"""Fakes that ship, and the conformance suites that the fakes and the real things both pass.

`EchoEngine` answers with the sentence of the passages that shares most words with the question. `HashEmbedder` gives a bag of
hashed words. `WordReranker` counts words. All are deterministic and instant, so that tests need no mocks and no downloads.

A new engine proves itself with a pytest class: `class TestMine(EngineSuite): def make_engine(self): return Mine()`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np

from openbook.errors import (
    ContextOverflow,
    EngineError,
    KnowledgeBaseBusy,
    KnowledgeBaseDamaged,
    KnowledgeError,
    TextIsElsewhere,
)
from openbook.inference.decoding import TextStream
from openbook.inference.frozen import Cancelled, Engine, FrozenModel, ReadEach, never
from openbook.inference.passage_selection import AbstentionScore, PassageSelection
from openbook.knowledge import KnowledgeBase, RunOptions, Scope, add, purge, schema, sync, versions
from openbook.knowledge.check import check
from openbook.knowledge.embeddings import reembed
from openbook.knowledge.erasure import finish_purge, interrupted
from openbook.prompts import IS_STATED, question_of_block
from openbook.records import (
    Completion,
    Decoding,
    Embedder,
    EmbedderIdentity,
    FinishReason,
    ModelIdentity,
    Prompt,
    ReaderFormat,
    Reranker,
    canonical_json,
    sha256_hex,
)
from openbook.testing.assertions import raises as _raises
from openbook.testing.blobs import BlobsSuite, MemoryBlobs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.config import Place

__all__ = [
    "PROMPT",
    "BlobsSuite",
    "EchoEngine",
    "EmbedderSuite",
    "EngineSuite",
    "HashEmbedder",
    "MemoryBlobs",
    "RerankerSuite",
    "StoreSuite",
    "WordReranker",
    "echo_model",
]

_WORD = re.compile(r"\w+")


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


class EchoEngine:
    """Answers with the sentence of the passages that shares most words with the question, or with `otherwise`."""

    identity = ModelIdentity(name="echo", digest=sha256_hex(b"openbook echo engine 1"), evidence="verified")
    numeric_class = "echo"

    def __init__(self, *, context_tokens: int = 4096, otherwise: str = "The passages do not say.") -> None:
        self.context_tokens, self._otherwise, self._open = context_tokens, otherwise, True

    def count_prompt_tokens(self, prompt: Prompt) -> int:
        if not self._open:
            raise EngineError("The echo engine was closed; make a new one.")
        return sum(len(text.split()) for text in (prompt.system, *prompt.passages, prompt.question))

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        tokens = self.count_prompt_tokens(prompt)
        if tokens + decoding.max_tokens > self.context_tokens:
            raise ContextOverflow(f"{tokens} + {decoding.max_tokens} tokens do not fit into {self.context_tokens}.")
        answer = re.findall(r"\S+\s*", self._answer(prompt))
        stream, pieces, used = TextStream(decoding.stop), [], 0
        finish: FinishReason = "end" if len(answer) <= decoding.max_tokens else "length"
        for word in answer[: decoding.max_tokens]:
            if cancelled():
                finish = "cancelled"
                break
            used += 1
            if piece := stream.feed(word.encode()):
                pieces.append(piece)
                yield piece
            if stream.stopped:
                finish = "stop"
                break
        if finish != "cancelled" and (rest := stream.feed(b"", final=True)):
            pieces.append(rest)
            yield rest
        digest = sha256_hex(canonical_json([prompt.system, list(prompt.passages), prompt.question]))
        return Completion("".join(pieces), finish, tokens, used, digest, self.numeric_class)

    def generate_each(
        self, prompts: Sequence[Prompt], selection: PassageSelection, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, ReadEach]:
        """Inclined to answer by the share of the question's words in the best sentence."""
        scores: list[AbstentionScore] = []
        for p in prompts:
            scores.append(AbstentionScore(-8.0 * self._shared(p), self._answer(p) == self._otherwise))
            if selection.enough(scores):
                break
        prompts = prompts[: len(scores)]
        chosen = selection.choose(scores)
        digest = sha256_hex(canonical_json([[p.system, list(p.passages), p.question] for p in prompts]))
        tokens = sum(map(self.count_prompt_tokens, prompts))
        if chosen is None:
            return ReadEach(len(prompts), None, Completion("", "end", tokens, 0, digest, self.numeric_class))
        completion = yield from self.generate(prompts[chosen], decoding, cancelled)
        return ReadEach(len(prompts), chosen, replace(completion, prompt_tokens=tokens, prompt_digest=digest))

    def read_ahead(self, prompt: Prompt) -> int:
        return self.count_prompt_tokens(prompt) - len(prompt.question.split())

    def _shared(self, prompt: Prompt) -> float:
        asked = set(_words(question_of_block(prompt.question)))
        return len(asked & set(_words(self._answer(prompt)))) / max(1, len(asked))

    def _answer(self, prompt: Prompt) -> str:
        if prompt.question.endswith(IS_STATED):
            return "Yes."
        asked = set(_words(question_of_block(prompt.question)))
        sentences = [s.strip() for p in prompt.passages for s in re.split(r"(?<=[.!?])\s+|\n+", p) if s.strip()]
        best = max(sentences, key=lambda s: len(asked & set(_words(s))), default="")
        return best if len(asked & set(_words(best))) >= 2 else self._otherwise

    def close(self) -> None:
        self._open = False


def echo_model(*, reader: ReaderFormat | None = None, **options: int | str) -> FrozenModel:
    return FrozenModel(EchoEngine(**options), reader)  # type: ignore[arg-type]


class HashEmbedder:
    """A bag of hashed words as a unit vector. Texts that share words are near; texts without words point one way."""

    def __init__(self, dimensions: int = 64, name: str = "hash") -> None:
        digest = sha256_hex(f"openbook hash embedder 1 {dimensions}".encode())
        self.identity = EmbedderIdentity(name=name, digest=digest, dimensions=dimensions)
        self.model_digest = digest
        self.texts_embedded = 0

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector = np.zeros(self.identity.dimensions, dtype=np.float32)
        for word in _words(text) or [""]:
            digest = hashlib.sha256(word.encode()).digest()
            vector[int.from_bytes(digest[:4]) % self.identity.dimensions] += 1.0 if digest[4] & 1 else -1.0
        length = float(np.linalg.norm(vector))
        if length == 0.0:  # words that cancel each other
            vector[0], length = 1.0, 1.0
        result: NDArray[np.float32] = (vector / np.float32(length)).astype(np.float32)
        return result

    def embed_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts_embedded += len(texts)
        rows = [self.embed_query(text) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.identity.dimensions), dtype=np.float32)

    def count_tokens(self, text: str) -> int:
        return len(_words(text))


# --- conformance suites -----------------------------------------------------------------------------------------------

PROMPT = Prompt(
    system="Answer from the passages.",
    passages=("The bridge was opened on 14 March 2026 by mayor Lila Ortega.\n",),
    question="Who opened the bridge?",
)


class EngineSuite:
    """What every engine must do. Subclass it in a test module and define `make_engine`."""

    deterministic = True

    def make_engine(self) -> Engine:
        raise TypeError("An EngineSuite must define make_engine.")

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
            for _ in range(4):  # streams that are dropped leave no trace
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
            # After the first character, all the rest could become the stop string and is held back.
            stream = model.stream(PROMPT, Decoding(max_tokens=16, stop=(whole[1:] + "|",)), lambda: bool(shown))
            completion = _drained(stream, shown)
            assert completion.finish_reason == "cancelled"
            assert completion.text == "".join(shown) == whole[:1]

    def test_a_prompt_over_the_context_is_refused(self) -> None:
        with self.model() as model:
            long = Prompt("Answer.", ("many words " * model.context_tokens,), "Why?")
            assert model.count_prompt_tokens(long) > model.context_tokens
            _raises(ContextOverflow, lambda: model.complete(long, Decoding(max_tokens=4)))

    def test_closing_does_not_wait_for_a_stream_that_nobody_reads_and_is_said(self) -> None:
        engine = self.make_engine()
        stream = engine.generate(PROMPT, Decoding(max_tokens=16), never)
        next(stream)
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(30)
        assert not closing.is_alive()
        for last in (engine.close, stream.close):
            _raises(EngineError, lambda: engine.count_prompt_tokens(PROMPT))
            _raises(EngineError, lambda: FrozenModel(engine).complete(PROMPT, Decoding(max_tokens=1)))
            last()
        _raises(EngineError, lambda: engine.count_prompt_tokens(PROMPT))


def _drained(stream: Generator[str, None, Completion], pieces: list[str]) -> Completion:
    """What the stream returns, after all it gives was put into `pieces`."""
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as done:
            completion: Completion = done.value
            return completion


class EmbedderSuite:
    """What every embedder must do. Subclass it in a test module and define `make_embedder`."""

    TEXTS = ("A ferry leaves at nine.", "Ferries are boats.", "", "Überraschung " * 400, "A ferry leaves at nine.")

    def make_embedder(self) -> Embedder:
        raise TypeError("An EmbedderSuite must define make_embedder.")

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


class WordReranker:
    """Ranks without a model: the share of the query's words that stand in the text."""

    identity = ModelIdentity(name="words", digest=sha256_hex(b"openbook word reranker 1"), evidence="verified")

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        asked = set(_words(query))
        return [len(asked & set(_words(text))) / max(len(asked), 1) for text in texts]


class RerankerSuite:
    """What every reranker must do. Subclass it in a test module and define `make_reranker`."""

    QUERY = "When does the ferry leave?"
    TEXTS = ("Quantum chromodynamics of gluons", "The ferry will leave at nine.", "", "Überraschung " * 400)

    def make_reranker(self) -> Reranker:
        raise TypeError("A RerankerSuite must define make_reranker.")

    def test_each_text_gets_a_finite_score_that_is_a_function_of_query_and_text_alone(self) -> None:
        reranker, other = self.make_reranker(), self.make_reranker()
        scores = list(reranker.score(self.QUERY, self.TEXTS))
        assert all(isinstance(score, float) and math.isfinite(score) for score in scores)
        assert [reranker.score(self.QUERY, [text])[0] for text in self.TEXTS] == scores
        assert list(other.score(self.QUERY, self.TEXTS[::-1]))[::-1] == scores
        assert list(reranker.score(self.QUERY, [])) == []
        assert reranker.identity == other.identity

    def test_the_text_that_fits_is_first(self) -> None:
        scores = list(self.make_reranker().score(self.QUERY, self.TEXTS))
        assert scores.index(max(scores)) == 1


# Which documents each filter finds, by what their sidecars say.
_FILTERS: dict[str, set[str]] = {
    "type = 'txt'": {"a", "b", "c"},
    "size >= 8": {"b"},
    "size = 8.5": {"b"},
    "size < 9007199254740993": {"a", "b"},
    "size in (7, 'seven')": {"a", "c"},
    "draft = true": {"a"},
    "draft != true": {"b"},
    "not draft = true": {"b", "c"},
    "team contains 'ÜBERFAHRT'": {"a"},
    "team contains '[9]'": {"b"},
    "team matches 'Fähre*'": {"b"},
    "team matches 'fähre*'": set(),
    "team = 'Fähre [9] (neu)'": {"b"},
    "team matches '?ähre [9] (neu)'": {"b"},
    "team > 'F'": {"b"},
    "due >= 2026-03 and due < 2027": {"b"},
    "exists due": {"a", "b"},
    "matches_nothing = 1": set(),
}
_METADATA: dict[str, dict[str, object]] = {
    "a": {"size": 7, "draft": True, "team": ["Überfahrt", "Hafen"], "due": "2025-12-31"},
    "b": {"size": 8.5, "draft": False, "team": "Fähre [9] (neu)", "due": "2026-03-01"},
    "c": {"size": "seven"},
}


class StoreSuite:
    """What every store of a knowledge base must do. Subclass it in a test module and define `make_place`."""

    def make_place(self) -> Place:
        """An empty place, another one each time."""
        raise TypeError("A StoreSuite must define make_place.")

    def test_versions_are_kept_named_compared_restored_and_pruned(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="Ferries leave at nine.")
            here.sync(a="Ferries leave at nine.", b="Harbours close at night.")
            here.sync(a="Ferries leave at ten.", c="Lighthouses shine.")
            base = here.base
            assert [(v.version, v.summary, v.documents) for v in versions.history(base)] == [
                (3, "1 added, 1 updated, 1 removed", 2),
                (2, "1 added", 2),
                (1, "1 added", 1),
                (0, "created", 0),
            ]
            then = {number: base.search("ferries", here.embedder, scope=Scope(number)) for number in range(4)}
            assert [hit.passage.text for hit in then[2][1]] == ["Ferries leave at nine.", "Harbours close at night."][
                : len(then[2][1])
            ]
            assert then[0] == (0, [])
            for _ in range(2):
                assert versions.tag(base, "spring", 2) == versions.resolve_version(base, "spring") == 2
            found = versions.diff(base, 2, 3)
            assert [len(each) for each in (found.added, found.changed, found.removed)] == [1, 1, 1]
            assert versions.restore(base, 1) == 4
            assert here.names() == {"a"}
            assert base.text(base.documents()[0]) == "Ferries leave at nine."
            assert {number: base.search("ferries", here.embedder, scope=Scope(number)) for number in range(4)} == then
            assert versions.prune(base, versions.Retention(versions=1)).kept == (2, 4)
            assert base.search("ferries", here.embedder, scope=Scope(2)) == then[2]
            _raises(KnowledgeError, lambda: base.kept_version(3))
            assert here.reopened().search("ferries", here.embedder, scope=Scope(2)) == then[2]
            here.check()

    def test_a_search_finds_what_it_finds_in_a_folder_bit_for_bit(self) -> None:
        words = "ferry harbour night light nine leave shine boat Überfahrt 船 tide pier".split()
        texts = {
            f"{n:02}": " ".join(words[(31 * n + i * i) % len(words)] for i in range(1 + 67 * n % 400)) + "."
            for n in range(24)
        }
        texts |= {f"copy{n}": texts[n] for n in ("03", "11")} | {"same": "# Ferry\n\nnine", "heading": "# Boat\n\nnine"}
        with (
            _files(self.make_place()) as here,
            tempfile.TemporaryDirectory() as folder,
            _files(Path(folder) / "kb") as plain,
        ):
            some = dict(list(texts.items())[::-2])
            here.sync(**some)  # rows come in another order
            here.sync(**texts)
            plain.root = here.root
            plain.sync(**texts)
            for query in (*words, "ferry at nine", "", "light light tide?", "nothing of that"):
                results = [
                    [
                        *(base.search(query, here.embedder, limit)[1] for limit in (3, 50)),
                        base.search_windows(query, here.embedder)[1],
                    ]
                    for base in (here.base, plain.base)
                ]
                assert results[0] == results[1]
            hit = here.base.search("ferry", here.embedder)[1][0].passage
            assert here.base.passage(hit.id, Scope()) == plain.base.passage(hit.id, Scope()) is not None
            assert here.base.documents() == plain.base.documents()

    def test_filters_and_labels_decide_what_is_seen(self) -> None:
        with _files(self.make_place()) as here:
            for name, metadata in _METADATA.items():
                (here.root / f"{name}.txt.meta.json").write_text(json.dumps(metadata))
            here.sync(a="The ferry.", b="The boat.", c="The pier.")
            base = here.base
            for where, wanted in _FILTERS.items():
                assert here.names(Scope(where=where)) == wanted, where
            assert base.metadata_keys(Scope()) >= {"size", "draft", "team", "due", "type"}
            here.sync(RunOptions(labels=frozenset({"crew"})), a="The ferry.", b="The boat.", c="The pier.")
            assert here.names(Scope()) == set()
            assert here.names(Scope(1)) == set()  # a later label closes the past
            assert here.names(Scope(1, labels=frozenset({"crew", "board"}))) == {"a", "b", "c"}
            assert base.search("ferry", here.embedder)[1] == []
            assert not base.shows_all_to(frozenset({"board"}))
            assert base.shows_all_to(frozenset({"crew"}))

    def test_a_snapshot_is_one_state_and_a_second_writer_waits(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="The ferry.")
            other = here.reopened()
            with other.snapshot():
                before = other.documents()
                here.sync(a="The ferry.", b="The boat.")
                assert other.documents() == before
            assert len(other.documents()) == 2
            asked: list[int] = []
            with here.base.writing(1.0):
                _raises(KnowledgeBaseBusy, lambda: other.writing(0.0).__enter__())
                with closing(other.store.connect_to_write()) as connection:
                    for shared in (False, True):
                        waiting = other.store.write_lock(connection, 0.3, lambda: asked.append(1), shared=shared)
                        _raises(KnowledgeBaseBusy, waiting.__enter__)
            assert asked
            with closing(other.store.connect_to_write()) as connection:
                try:
                    with schema.transaction(connection):
                        connection.execute("DELETE FROM tags")
                        schema.remember(connection, retention="{")
                        raise ValueError
                except ValueError:
                    assert "retention" not in schema.meta(connection)
                connection.forbid_writes(True)
                _raises(Exception, lambda: schema.remember(connection, retention="{"))

    def test_many_runs_at_once_lose_nothing_and_double_nothing(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(first="The first.")
            shared = [f"Everybody has the text {n} about the ferry." for n in range(3)]

            def work(number: int) -> None:
                folder = here.root.parent / f"of-{number}"
                folder.mkdir()
                for n, text in enumerate([*shared, f"Only {number} has this."]):
                    (folder / f"{n}.txt").write_text(text)
                with closing(here.reopened()) as base:
                    add(base, [folder], here.embedder)

            with ThreadPoolExecutor(8) as pool:
                list(pool.map(work, range(8)))
            base = here.base
            assert len(base.documents()) == 1 + 8 * 4
            assert base.status().texts == 1 + 3 + 8
            assert base.version == 9
            (contents,) = base.connection.execute("SELECT count(*) FROM contents").fetchone()
            (vectors,) = base.connection.execute("SELECT count(*) FROM embeddings").fetchone()
            assert contents == vectors == 1 + 3 + 8
            here.check()

    def test_what_is_purged_is_in_no_version_and_ids_do_not_come_back(self) -> None:
        canary = "The canary code is 7341-zeppelin, and nobody may ever know it."
        with _files(self.make_place()) as here:
            here.sync(a=canary, copy=canary, b="The boat.")
            here.sync(a="The ferry.", copy=canary, b="The boat.")
            base, other = here.base, here.reopened()
            assert other.search("canary", here.embedder, scope=Scope(1))[1]
            _raises(TextIsElsewhere, lambda: purge(base, ["a.txt"]))

            def killed() -> None:
                raise ValueError

            _raises(ValueError, lambda: purge(base, ["a.txt"], copies=True, elsewhere=killed))
            assert not interrupted(base)
            (newest,) = base.connection.execute("SELECT max(id) FROM contents").fetchone()
            done = purge(base, ["a.txt"], copies=True)
            assert (done.version, len(done.documents)) == (3, 2)
            assert done.beyond_reach
            assert not finish_purge(base)
            for each in (base, other):
                for version in (None, 1, 2):
                    texts = {hit.passage.text for hit in each.search("canary", here.embedder, scope=Scope(version))[1]}
                    assert texts <= {"The boat."}
            assert canary.encode() not in b"".join(p.read_bytes() for p in base.folder.rglob("*") if p.is_file())
            _raises(KnowledgeError, lambda: purge(base, ["a.txt"]))
            here.sync(n="New.")
            (first,) = base.connection.execute("SELECT max(id) FROM contents").fetchone()
            assert first > newest
            here.check()

    def test_another_embedder_takes_over_at_once(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="The ferry.", b="The boat.")
            version, embedded = reembed(here.base, smaller := HashEmbedder(32))
            assert (version, embedded) == (2, 2)
            here.embedder = smaller
            assert len(here.reopened().search("ferry", smaller)[1]) == 2
            here.check()

    def test_a_row_that_is_not_what_was_stored_is_never_read(self) -> None:
        for sql, parameters in (
            ("UPDATE contents SET text = ?", ("The fairy.",)),
            ("UPDATE passages SET headings = ?", ('["Other"]',)),
            ("UPDATE embeddings SET vector = ?", (bytes(2 * HashEmbedder().identity.dimensions),)),
        ):
            with _files(self.make_place()) as here:
                here.sync(a="The ferry.")
                with closing(here.base.store.connect_to_write()) as connection:
                    connection.execute(sql, parameters)
                shutil.rmtree(here.base.folder / "index")
                _raises(KnowledgeBaseDamaged, lambda: here.reopened().search("ferry", here.embedder))
                assert check(here.base).damaged

    def test_no_text_of_a_caller_is_an_error_of_the_store(self) -> None:
        with _files(self.make_place()) as here:
            here.sync(a="A 100 % 'quoted' text? :name %s \U0001f6a2", b="", c="\ufeffx\x00y\x07\n")
            for text in ("a\x00b", "\ud800", "%s", "'; --", ":name ?", "x" * 10_000):
                assert here.base.passage(text, Scope()) is None
                assert text == "\ud800" or here.base.text(text) is None  # which no path of a document holds
                here.base.search(text, here.embedder)
            assert [hit.passage.document for hit in here.base.search("quoted", here.embedder, 1)[1]] == [
                f"{here.root}/a.txt"
            ]
            here.check()


@dataclass(slots=True)
class _Files:
    """A folder that is synced into a knowledge base."""

    base: KnowledgeBase
    root: Path
    embedder: HashEmbedder

    def sync(self, options: RunOptions | None = None, /, **texts: str) -> None:
        for path in self.root.glob("*.txt"):
            if path.stem not in texts:
                path.unlink()
        for name, text in texts.items():
            (self.root / f"{name}.txt").write_text(text, encoding="utf-8")
        sync(self.base, self.root, self.embedder, options=options or RunOptions())

    def names(self, scope: Scope | None = None) -> set[str]:
        return {PurePath(path).stem for path in self.base.documents(scope)}

    def reopened(self) -> KnowledgeBase:
        return KnowledgeBase.open(self.base.store.place, self.embedder.identity)

    def check(self) -> None:
        with closing(self.reopened()) as base:
            found = check(base)
        assert (found.damaged, found.index_problems) == ((), ())


@contextmanager
def _files(place: Place) -> Iterator[_Files]:
    embedder = HashEmbedder()
    with tempfile.TemporaryDirectory() as folder, closing(KnowledgeBase.ensure(place, embedder.identity)) as base:
        root = Path(folder).resolve() / "docs"
        root.mkdir()
        yield _Files(base, root, embedder)
