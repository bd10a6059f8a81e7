"""How many whole answers a second, and how many of them right, once the documents have been asked about before?

    PYTHON -m benchmarks.answers_per_second [--rounds 2] [--limit N]

PYTHON is that of an environment with openbook, xllamacpp (a prebuilt llama.cpp server) and llama-index-core with
llama-index-llms-openai-like. One client asks the 63 answerable and 21 unanswerable example questions on the handbook, one
after the other, retrieval included, at most 48 tokens an answer. Before, it has asked all of them in other words.

  openbook      `ask` with its defaults
  llamaindex    its default engine (2 passages, its own prompt) on llama.cpp's server, prompt caching on, with the base model
  llamaindex+   the same with what OpenBook has: the reader's merged file in the server, its prompt, and 4 passages

All have the texts that OpenBook read from the files, passages of about 450 characters, OpenBook's embedder, and as many
threads. Each run is a process of its own; within a round they follow each other, and ratios are taken
within a round. An answer is right when an accepted one stands in it; an unanswerable question when it abstains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contender_llamaindex import PASSAGE_TOKENS, plugged
from benchmarks.contender_openbook import counted_embedder
from benchmarks.examples_accuracy import holds, share
from benchmarks.processes import result_of
from benchmarks.stored import EXAMPLES, HANDBOOK, base_of, llamacpp_server, merged_reader, opened, stored
from openbook.answers.answer_text import says_nothing_found, tidy
from openbook.answers.ask import ask
from openbook.answers.prompts import reading_prompt
from openbook.answers.retrieval import Corpus, Options
from openbook.core.config import available_cores
from openbook.core.records import Decoding
from openbook.inference.kv_cache import KVCache
from openbook.knowledge import KnowledgeBase
from openbook.models.reader_metadata import reader_of

MAX_TOKENS = 48
NAMES = ("openbook", "llamaindex", "llamaindex+")
Answerer = Callable[[str], str]  # the empty text for an abstention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=int, default=0, help="about so many questions, spread over all")
    parser.add_argument("--child", choices=NAMES)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.child, options.limit)))
        return
    rounds = []
    for number in range(options.rounds):
        names = NAMES if number % 2 == 0 else NAMES[::-1]
        own = partial(result_of, "benchmarks.answers_per_second", "--limit", options.limit, "--child")
        rounds.append({name: own(name) for name in names})
    show(rounds)
    value = {"question": "whole answers a second", "cores": available_cores(), "rounds": rounds}
    print(json.dumps(value))


def measured(name: str, limit: int) -> dict[str, Any]:
    lines = (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [q for q in map(json.loads, lines) if q["kind"] != "closed-book"]
    questions = questions[:: max(1, len(questions) // limit)] if limit else questions
    answering = {"openbook": openbook, "llamaindex": llamaindex, "llamaindex+": llamaindex_with_reader}[name]
    with answering() as answer:
        for q in questions:
            answer(f"Please tell me: {q['question']}")
        seconds, answers = [], []
        for q in questions:
            started = time.perf_counter()
            answers.append(answer(q["question"]))
            seconds.append(time.perf_counter() - started)
    both = list(zip(questions, answers, strict=True))
    return {
        "answers_per_s": len(questions) / sum(seconds),
        "median_s": statistics.median(seconds),
        "right": [holds(text, q["answers"]) for q, text in both if q["answers"]],
        "abstained": [not text for q, text in both if not q["answers"]],
    }


@contextmanager
def documents() -> Iterator[tuple[KnowledgeBase, Any]]:
    embedder = counted_embedder()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(base_of(Path(folder) / "kb", [HANDBOOK], embedder)) as base,
    ):
        yield base, embedder


@contextmanager
def openbook() -> Iterator[Answerer]:
    model = opened("reader", KVCache(None, memory_bytes=1 << 30))
    options = Options(decoding=Decoding(max_tokens=MAX_TOKENS))
    with documents() as (base, embedder):

        def answer(question: str) -> str:
            found = ask(question, model, Corpus(base, embedder), options)
            return "" if found.declined else found.answer

        yield answer
    model.close()


@contextmanager
def llamaindex(parallel: int = 1) -> Iterator[Answerer]:
    with server(trained=False, parallel=parallel) as address, engine(address, passages=2) as query:
        yield lambda question: said(query(question))


@contextmanager
def llamaindex_with_reader(parallel: int = 1) -> Iterator[Answerer]:
    template = import_module("llama_index.core").ChatPromptTemplate
    message = import_module("llama_index.core.llms").ChatMessage
    asked = reader_of(stored("reader").main_file)
    if asked is None:
        raise LookupError("the reader's file does not say how it is asked")
    prompt = reading_prompt("{query_str}", [("", "{context_str}")], asked)
    messages = [
        message(role="system", content=asked.instruction),
        message(role="user", content="".join(prompt.passages) + prompt.question),
    ]
    made = template(messages)
    with server(trained=True, parallel=parallel) as address, engine(address, passages=4, template=made) as query:
        yield lambda question: "" if (text := query(question)) == asked.abstention else said(text)


def said(text: str) -> str:
    text = tidy(text)
    return "" if says_nothing_found(text) else text


@contextmanager
def server(*, trained: bool, parallel: int = 1) -> Iterator[str]:
    file = merged_reader() if trained else stored("reader").needed_base.main_file
    running = llamacpp_server(file, 8192, parallel)
    yield f"{running.listening_address}/v1"


@contextmanager
def engine(address: str, *, passages: int, template: Any = None) -> Iterator[Answerer]:
    """LlamaIndex's query engine over the handbook."""
    core: Any = import_module("llama_index.core")
    splitter = import_module("llama_index.core.node_parser").SentenceSplitter
    model = import_module("llama_index.llms.openai_like").OpenAILike(
        model="local", api_base=address, api_key="none", is_chat_model=True, temperature=0.0, max_tokens=MAX_TOKENS,
        timeout=600.0, context_window=8192,
    )  # fmt: skip
    with documents() as (base, embedder):
        texts = [core.Document(text=base.text(name), doc_id=name) for name in base.documents()]
        index = core.VectorStoreIndex.from_documents(
            texts,
            transformations=[splitter(chunk_size=PASSAGE_TOKENS, chunk_overlap=0)],
            embed_model=plugged(embedder),
        )
        prompt = {"text_qa_template": template} if template else {}
        query = index.as_query_engine(llm=model, similarity_top_k=passages, **prompt)
        yield lambda question: str(query.query(question))


def show(rounds: list[dict[str, Any]]) -> None:
    for name in NAMES:
        runs = [each[name] for each in rounds]
        speed = statistics.median(run["answers_per_s"] for run in runs)
        ratios = [each["openbook"]["answers_per_s"] / each[name]["answers_per_s"] for each in rounds]
        print(
            f"{name:<12} {speed:6.2f} answers/s, median {statistics.median(run['median_s'] for run in runs):.3f} s; "
            f"right {share(runs[0]['right'])}; abstained on unanswerable {share(runs[0]['abstained'])}; "
            f"openbook / this: {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
