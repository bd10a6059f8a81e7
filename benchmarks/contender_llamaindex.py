"""LlamaIndex in the comparison: its own vector store and docstore, and BM25 (bm25s), fused by reciprocal rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contender_openbook import CountedEmbedder, counted_embedder

if TYPE_CHECKING:
    from benchmarks.contender_child import Job

PASSAGE_TOKENS = 110  # about 450 characters of English prose
_BM25 = "bm25"


class LlamaIndex:
    """`candidates`: passages that each of the two retrievers hands to the fusion; 0 for as many as are wanted."""

    def __init__(self, embedder: str, model: str, candidates: int = 0) -> None:
        from llama_index.core import Settings
        from llama_index.core.llms import MockLLM
        from llama_index.core.node_parser import SentenceSplitter
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        Settings.llm = MockLLM()
        Settings.tokenizer = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        self._split = SentenceSplitter(chunk_size=PASSAGE_TOKENS, chunk_overlap=0, tokenizer=Settings.tokenizer)
        self._counted = counted_embedder() if embedder == "openbook" else None
        self._model = plugged(self._counted) if self._counted else _documented(model)
        self._model.get_text_embedding("Loaded and warm.")
        self._candidates = candidates
        self._index: Any = None
        self._bm25: Any = None

    def ingest(self, documents: Path, store: Path) -> int:
        from llama_index.core import VectorStoreIndex

        self._index = VectorStoreIndex.from_documents(
            _read(documents), transformations=[self._split], embed_model=self._model
        )
        self._save(store)
        return len(self._index.docstore.docs)

    def _save(self, store: Path) -> None:
        from llama_index.retrievers.bm25 import BM25Retriever

        self._index.storage_context.persist(str(store))
        # It has no way to change what it holds, so it is rebuilt each time.
        self._bm25 = BM25Retriever.from_defaults(docstore=self._index.docstore)
        self._bm25.persist(str(store / _BM25))

    def open(self, store: Path) -> None:
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.retrievers.bm25 import BM25Retriever

        context = StorageContext.from_defaults(persist_dir=str(store))
        self._index = load_index_from_storage(context, embed_model=self._model, transformations=[self._split])
        self._bm25 = BM25Retriever.from_persist_dir(str(store / _BM25))

    def refresh(self, documents: Path, store: Path) -> bool:
        if any(self._index.refresh_ref_docs(_read(documents))):
            self._save(store)
        return True

    def update(self, documents: Path, store: Path, changed: Path) -> None:
        if any(self._index.refresh_ref_docs(_read(documents, [changed]))):
            self._save(store)

    def texts(self, query: str, limit: int) -> Sequence[str]:
        return [str(found.node.get_content()) for found in self._found(query, limit)]

    def index(self, units: Mapping[str, tuple[str, str]], store: Path) -> None:
        from llama_index.core import VectorStoreIndex
        from llama_index.core.schema import TextNode

        nodes = [
            TextNode(id_=key, text=f"{title}\n\n{text}" if title else text) for key, (title, text) in units.items()
        ]
        self._index = VectorStoreIndex(nodes, embed_model=self._model)
        self._save(store)

    def rank(self, query: str, limit: int) -> Sequence[str]:
        return [str(found.node.node_id) for found in self._found(query, limit)]

    def _found(self, query: str, limit: int) -> Sequence[Any]:
        from llama_index.core.retrievers import QueryFusionRetriever

        candidates = self._candidates or limit
        self._bm25.similarity_top_k = min(candidates, len(self._index.docstore.docs))
        vectors = self._index.as_retriever(similarity_top_k=candidates)
        fused = QueryFusionRetriever(
            [vectors, self._bm25],
            mode="reciprocal_rerank",
            similarity_top_k=limit,
            num_queries=1,
            use_async=False,
        )
        found: Sequence[Any] = fused.retrieve(query)
        return found

    def embedding_s(self) -> float | None:
        return self._counted.seconds if self._counted else None

    def versions(self) -> dict[str, str]:
        names = ("llama-index-core", "llama-index-retrievers-bm25", "bm25s", "sentence-transformers", "torch")
        return {name: version(name) for name in names}


def _read(documents: Path, files: Sequence[Path] = ()) -> Any:
    from llama_index.core import SimpleDirectoryReader

    # Without metadata: it would be embedded, and a passage would be so much smaller.
    chosen = {"input_files": files} if files else {"input_dir": documents, "recursive": True}
    return SimpleDirectoryReader(**chosen, filename_as_id=True, file_metadata=lambda path: {}).load_data()


def _documented(model: str) -> Any:
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    return HuggingFaceEmbedding(model_name=model, device="cpu")


def plugged(embedder: CountedEmbedder) -> Any:
    """A custom embedding, as its documentation describes one."""
    from llama_index.core.embeddings import BaseEmbedding

    class Plugged(BaseEmbedding):  # type: ignore[misc]
        def _get_query_embedding(self, query: str) -> list[float]:
            vector: list[float] = embedder.embed_query(query).tolist()
            return vector

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

        def _get_text_embedding(self, text: str) -> list[float]:
            return self._get_text_embeddings([text])[0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            vectors: list[list[float]] = embedder.embed_passages(texts).tolist()
            return vectors

    return Plugged(embed_batch_size=64)  # as many as OpenBook gives it at once


def open_contender(job: Job) -> LlamaIndex:
    candidates = 100 if "100" in job.contender else 0
    return LlamaIndex(job.embedder, job.model, candidates)
