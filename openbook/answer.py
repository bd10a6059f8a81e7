"""The core flow: retrieve, rank, read, cite. Plain functions, read from top to bottom.

`ask` is the whole of it. Nothing is kept between two calls: the answer is a function of the question, the knowledge
base's version, the model and the options, and the receipt in it names them all.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypedDict, TypeVar

from openbook import __version__
from openbook.answer_text import ABSTENTION, TextPreview, says_nothing_found, tidied, tidy
from openbook.errors import ContextOverflow, QuestionError
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.inference.prompting import (
    excerpt_block,
    look_again,
    passage_block,
    question_about_excerpts,
    question_block,
)
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.editions import Editions, editions
from openbook.knowledge.quotes import Quoted, closest, is_sure, quote
from openbook.knowledge.scope import EVERYTHING, Scope
from openbook.overview import KINDS, Kind, overview_of, read_overview, windows_of
from openbook.records import (
    Answer,
    Citation,
    Completion,
    Decoding,
    Embedder,
    FinishReason,
    Hit,
    Passage,
    PassageReference,
    Prompt,
    ReaderFormat,
    Receipt,
    Reranker,
    Timings,
    sha256_hex,
)

_Result = TypeVar("_Result")
Progress: TypeAlias = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    pass


MAX_QUESTION_CHARS = 8_000
RECEIPT_FORMAT = 3

Strategy: TypeAlias = Literal["auto", "each", "parallel", "together"]
STRATEGIES: tuple[Strategy, ...] = ("auto", "each", "parallel", "together")
PASSAGES = {"each": 4, "parallel": 4, "together": 4}  # of all but "each" these are windows
READER_TOKENS = 160  # a trained reader answers in one line

FOUND = 12  # passages or windows among which the older of two documents is told from the one that took its place

OPEN_BOOK = (
    "You answer questions about a user's documents from numbered excerpts, which were found by a search. Use only the "
    "excerpts. Answer directly and completely, in one to three sentences, or as a list where the question asks for steps or "
    "several items. Keep exact names, numbers and code."
)
# For large models alone: small ones copy the excerpts when they are to name them, and decline what is there (docs/log.md).
CITING = f" End each sentence with the number of its excerpt, like [1]. If no excerpt holds the answer, say only: {ABSTENTION}"
SAYS_YES = 0.65  # how likely the "yes" must be

CLOSED_BOOK = "Answer the question directly and completely, in one to three sentences."


@dataclass(frozen=True, slots=True)
class Options:
    """`passages`: how many the model reads at most; 0: as many as suit the strategy. `min_similarity`: below it, none counts as found.

    `strategy`: "each" reads passages on their own, until one surely holds the answer, and answers from the surest;
    "parallel" reads the windows around them on their own and answers from all of them; "together" reads these in one prompt;
    "auto" is the way in which a trained reader learned to read, and else "together".
    `instruction`: how whoever asks wishes to be answered, for models that are not trained readers.
    """

    passages: int = 0
    strategy: Strategy = "auto"
    decoding: Decoding = field(default_factory=Decoding)
    min_similarity: float = 0.2
    instruction: str = ""


def ask(
    question: str,
    model: FrozenModel,
    base: KnowledgeBase | None = None,
    embedder: Embedder | None = None,
    options: Options = Options(),
    *,
    query: str = "",
    scope: Scope = EVERYTHING,
    reranker: Reranker | None = None,
    on_text: Callable[[str], None] = lambda piece: None,
    progress: Progress = no_progress,
    cancelled: Cancelled = never,
) -> Answer:
    """Answer `question` from what `scope` sees of `base` (which needs its `embedder`), or from the model alone without `base`.

    `query` is searched for instead of the question, when that does not stand alone. The answer still is a function of the
    passages that the receipt names. "Summarise FILE" and "compare FILE with FILE" are answered from whole documents, with
    `progress` for the parts read.

    Raises QuestionError, ContextOverflow, EngineError, KnowledgeError.
    """
    question = checked_question(question)
    started = time.perf_counter()
    if base is None:
        return _closed_book(question, model, options, started, on_text, cancelled)

    if embedder is None:
        raise TypeError("A knowledge base is searched with its embedder: ask(question, model, base, embedder).")
    # 1) Retrieve and rank: the best passages by meaning and by words, if anything is near the question.
    strategy: str = strategy_of(options.strategy, model, options.decoding)
    overview = None if model.reader else overview_of(question, lambda: base.documents(scope))
    found, parts = None, list[str]()
    if overview is None:
        version, found = retrieve(query or question, base, embedder, options, strategy, scope, reranker)
        hits = near_enough(found.current[: options.passages or PASSAGES[strategy]], options)
    else:
        strategy, version = overview.kind, base.kept_version(scope.as_of)
        hits, parts = windows_of([base.passages(document, version) for document in overview.documents])
    retrieve_s = time.perf_counter() - started

    # 2) Read: as many of the best as fit into the model's context, and say so when some do not.
    decoding = decoding_for(model, options.decoding)
    shown = TextPreview(on_text, [ABSTENTION, *([model.reader.abstention] if model.reader else [])])
    asked = with_instruction(question, options.instruction)
    reading = read_hits(asked, hits, strategy, model, decoding, shown.feed, cancelled, progress)

    # 3) Cite: every sentence of the answer gets a verbatim quote, or the answer says that it has none.
    text, abstained = said(reading, model)
    quoted, nearest = cite(text, question, reading, embedder, abstained=abstained)
    sure = not abstained and is_sure(text, question, quoted)
    sure = sure and (overview is not None or looks_right(text, question, reading, model, cancelled))
    older = found.older_note(quoted.citations) if found else None
    receipt = _receipt(question, model, decoding, reading.completion, text, reading.hits, strategy)
    receipt = replace(
        receipt,
        embedder=base.embedder,
        knowledge_base=base.id,
        knowledge_base_version=version,
        where=scope.where,
        labels=tuple(sorted(scope.labels)),
        instruction=options.instruction,
        reranker=reranker.identity if reranker else None,
    ).sealed()
    timings = replace(reading.timings, retrieve_s=retrieve_s, total_s=time.perf_counter() - started)
    return Answer(
        question=question,
        answer=text,
        abstained=abstained,
        supported=not quoted.unsupported,
        confidence="not found" if abstained else "supported" if sure else "check it",
        citations=quoted.citations,
        closest=nearest,
        passages=tuple(reading.hits),
        receipt=receipt,
        timings=timings,
        unsupported=quoted.unsupported,
        notes=(*([older] if older else []), *reading.notes, *parts, *_cut_short(reading.completion)),
        **_counts(reading.completion),
    )


def retrieve(
    query: str,
    base: KnowledgeBase,
    embedder: Embedder,
    options: Options,
    strategy: str,
    scope: Scope = EVERYTHING,
    reranker: Reranker | None = None,
    at_least: int = FOUND,
) -> tuple[int, Editions[Hit]]:
    """(version, best first): passages for a model that reads each alone, the windows around them for one that reads all.

    Those that a newer one took the place of are told apart.
    """
    limit = max(options.passages or PASSAGES[strategy], at_least)
    search = base.search if strategy == "each" else base.search_windows
    version, hits = search(query, embedder, limit, scope, reranker)
    documents = {path for hit in hits for path in (hit.passage.document, *hit.passage.also_in)}
    return version, editions(query, hits, base.heads(documents, replace(scope, as_of=version)))


def decoding_for(model: FrozenModel, decoding: Decoding) -> Decoding:
    """A trained reader ends its answer with the line, as it learned."""
    if model.reader is None:
        return decoding
    stops = tuple(dict.fromkeys(("\n", *decoding.stop)))
    return replace(decoding, stop=stops, max_tokens=min(decoding.max_tokens, READER_TOKENS))


def near_enough(hits: Sequence[Hit], options: Options) -> list[Hit]:
    return [h for h in hits if h.similarity is None or h.similarity >= options.min_similarity]


def read_hits(
    question: str,
    hits: Sequence[Hit],
    strategy: str,
    model: FrozenModel,
    decoding: Decoding,
    on_text: Callable[[str], None] = lambda piece: None,
    cancelled: Cancelled = never,
    progress: Progress = no_progress,
) -> Reading:
    """Raises ContextOverflow when not even one passage fits, EngineError."""
    if not hits:
        return Reading([], None, [], [], Timings())
    if strategy in KINDS:
        return _read_overview(strategy, question, hits, model, decoding, on_text, cancelled, progress)
    if strategy == "each":
        return _read_each(question, hits, model, decoding, on_text, cancelled)
    return _read_together(question, hits, model, decoding, on_text, cancelled, parallel=strategy == "parallel")


def said(reading: Reading, model: FrozenModel) -> tuple[str, bool]:
    """(the answer as it is shown, whether it is an abstention)."""
    text = tidy(reading.completion.text) if reading.completion else ""
    abstained = says_nothing_found(text, model.reader) or not (text or _cut_short(reading.completion))
    return (ABSTENTION if abstained else text), abstained


def cite(
    text: str, question: str, reading: Reading, embedder: Embedder, *, abstained: bool
) -> tuple[Quoted, tuple[Citation, ...]]:
    """(a quote for each sentence of the answer that has one, the sentences nearest to a question that got none)."""
    if abstained:
        return Quoted(), closest(question, [hit.passage for hit in reading.hits], embedder.embed_passages)
    marks = tidied(reading.completion.text)[1] if reading.completion else []
    sources = [hit.passage for hit in reading.sources]
    return quote(text, question, sources, embed=embedder.embed_passages, marks=marks), ()


def looks_right(text: str, question: str, reading: Reading, model: FrozenModel, cancelled: Cancelled) -> bool:
    """Whether the model, shown its answer beside the excerpts, says that it is right, and is sure of that.

    What it read is kept, so that this costs the answer's tokens. A trained reader was not taught it, and a server would read all
    of it again: they are not asked.
    """
    if model.reader is not None or model.identity.evidence == "claimed":
        return True
    prompt = open_book_prompt(question, [hit.passage for hit in reading.hits])
    prompt = replace(prompt, question=look_again(question, text))
    if model.count_prompt_tokens(prompt) >= model.context_tokens:
        return False
    said = model.complete(prompt, Decoding(max_tokens=1), cancelled)
    sure = said.mean_logprob is None or said.mean_logprob >= math.log(SAYS_YES)
    return sure and said.text.strip().lower().startswith("yes")


def answer_again(
    receipt: Receipt, model: FrozenModel, hits: Sequence[Hit], cancelled: Cancelled = never
) -> tuple[str, Completion | None]:
    """Do what the receipt says, from its passages: the answer, and what the model wrote, if it was asked.

    Once it was `cancelled`, the answer may be the beginning of one. Raises QuestionError, ContextOverflow, EngineError.
    """
    question, completion = with_instruction(checked_question(receipt.question), receipt.instruction), None
    if receipt.strategy == "closed-book":
        completion = model.complete(closed_book_prompt(question), receipt.decoding, cancelled)
        text = tidy(completion.text)
    else:
        known = (*STRATEGIES[1:], *KINDS)
        if receipt.strategy not in known:
            raise QuestionError(f"The receipt's strategy {receipt.strategy!r} is none of {', '.join(known)}.")
        strategy = receipt.strategy
        if strategy not in KINDS:
            strategy = strategy_of(STRATEGIES[STRATEGIES.index(strategy)], model, receipt.decoding)
        reading = read_hits(question, hits, strategy, model, receipt.decoding, cancelled=cancelled)
        completion = reading.completion
        text, _ = said(reading, model)
    return text, completion


def strategy_of(wanted: Strategy, model: FrozenModel, decoding: Decoding) -> Literal["each", "parallel", "together"]:
    """Raises QuestionError when the model cannot read that way."""
    if decoding.quote and (wanted == "together" or not model.reads_each):
        raise QuestionError("Only a trained reader that reads each passage on its own can quote; use --model reader.")
    if wanted == "auto":
        return "parallel" if model.reads_parallel else "each" if model.reads_each else "together"
    if wanted == "each" and not model.reads_each:
        raise QuestionError(
            f"The strategy each needs a trained reader in the local engine, and {model.identity.name} is none. "
            "Use --strategy together, or --model reader."
        )
    if wanted == "parallel" and not model.reads_parallel:
        raise QuestionError(
            f"The strategy parallel needs a reader that learned it, and {model.identity.name} did not. "
            "Use --strategy together."
        )
    return wanted


def checked_question(question: str) -> str:
    """The question without surrounding whitespace. Raises QuestionError when it is empty or too long."""
    if len(question) > MAX_QUESTION_CHARS:
        raise QuestionError(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION_CHARS:,} are allowed. Long texts belong "
            "into the knowledge base: openbook add FILE."
        )
    # Lone surrogates (undecodable bytes of a command line) and NULs have no meaning in a question.
    question = question.encode("utf-8", "replace").decode().replace("\0", " ").strip()
    if not re.search(r"\w", question):
        raise QuestionError('The question is empty. Ask one, for instance: openbook ask "Who signs travel expenses?"')
    return question


def with_instruction(question: str, instruction: str) -> str:
    """What the model is asked. The instruction stands behind the passages, so that what was read of them serves any."""
    return f"{question}\n\nHow to answer: {instruction.strip()}" if instruction.strip() else question


def open_book_prompt(
    question: str, passages: Sequence[Passage], reader: ReaderFormat | None = None, *, citing: bool = False
) -> Prompt:
    places = [" > ".join(dict.fromkeys(part for part in (p.title, *p.headings) if part)) for p in passages]
    texts = [_SOFT_BREAK.sub(r"\1 ", f"\n{p.text.strip()}")[1:] for p in passages]
    texts = [f"{p.header}\n{text}" if p.header else text for p, text in zip(passages, texts, strict=True)]
    prompt = reading_prompt(question, list(zip(places, texts, strict=True)), reader, citing=citing)
    labels = sorted({label for p in passages for label in p.labels})
    return replace(prompt, origins=tuple(p.origins for p in passages), labels=tuple(labels))


def reading_prompt(
    question: str, passages: Sequence[tuple[str, str]], reader: ReaderFormat | None = None, *, citing: bool = False
) -> Prompt:
    """The prompt for (place, text) of each passage. A trained reader is asked as it was trained; `citing`: with marks."""
    if reader:
        blocks = tuple(passage_block(place, text) for place, text in passages)
        return Prompt(reader.instruction, blocks, question_block(question))
    blocks = tuple(excerpt_block(number, place, text) for number, (place, text) in enumerate(passages, 1))
    return Prompt(OPEN_BOOK + (CITING if citing else ""), blocks, question_about_excerpts(question))


def closed_book_prompt(question: str) -> Prompt:
    return Prompt(CLOSED_BOOK, (), question)


# A line of prose that was broken for width alone: it is long and the next one goes on in lower case. A model takes the end
# of such a line for the end. Rows of tables and lines of code are shorter, hold `|` or begin otherwise.
_SOFT_BREAK = re.compile(r"(?<=\n)([^\n|]{40,}[\w,;)`'])[ \t]*\n[ \t]*(?=[a-z(`'])")


@dataclass(frozen=True, slots=True)
class Reading:
    """`hits`: what was read; `sources`: those of it that the answer may be cited from."""

    hits: list[Hit]
    completion: Completion | None
    sources: list[Hit]
    notes: list[str]
    timings: Timings


def _read_together(
    question: str,
    hits: Sequence[Hit],
    model: FrozenModel,
    decoding: Decoding,
    on_text: Callable[[str], None],
    cancelled: Cancelled,
    *,
    parallel: bool,
) -> Reading:
    kept, prompt, notes = pack(question, hits, model, decoding, parallel=parallel)
    completion, timings = _streamed(model.stream(prompt, decoding, cancelled), on_text)
    return Reading(kept, completion, kept, notes, timings)


def _read_each(
    question: str,
    hits: Sequence[Hit],
    model: FrozenModel,
    decoding: Decoding,
    on_text: Callable[[str], None],
    cancelled: Cancelled,
) -> Reading:
    prompts = [open_book_prompt(question, [hit.passage], model.reader) for hit in hits]
    sizes = [model.count_prompt_tokens(prompt) for prompt in prompts]
    fits = [i for i, tokens in enumerate(sizes) if tokens + decoding.max_tokens <= model.context_tokens]
    if not fits:
        raise _too_long(sizes[0], model, decoding)
    kept = [hits[i] for i in fits]
    stream = model.stream_each([prompts[i] for i in fits], decoding, cancelled)
    read, timings = _streamed(stream, on_text)
    sources = [] if read.chosen is None else [kept[read.chosen]]
    return Reading(kept[: read.read], read.completion, sources, _left_out(hits, kept, model), timings)


def _read_overview(
    kind: Kind,
    question: str,
    hits: Sequence[Hit],
    model: FrozenModel,
    decoding: Decoding,
    on_text: Callable[[str], None],
    cancelled: Cancelled,
    progress: Progress,
) -> Reading:
    timings: list[Timings] = []

    def streamed(prompt: Prompt, decoding: Decoding) -> Completion:
        completion, taken = _streamed(model.stream(prompt, decoding, cancelled), on_text)
        timings.append(taken)
        return completion

    completion = read_overview(kind, question, hits, model, decoding, streamed, progress, cancelled)
    return Reading(list(hits), completion, list(hits), [], timings[0])


def pack(
    question: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding, *, parallel: bool = False
) -> tuple[list[Hit], Prompt, list[str]]:
    """The longest run of best hits whose prompt fits, its prompt, and a note if it is not all of them.

    `parallel`: for passages that are read on their own and all seen by the question; of those at most as many as the reader
    learned. Raises ContextOverflow when not even one passage fits.
    """
    most = model.reader.passages if parallel and model.reader else len(hits)
    learned = [f"{most} of {len(hits)} passages read: so many the reader learned to read."] if most < len(hits) else []
    hits = hits[:most]
    kept = list(hits)
    while True:
        citing = model.identity.evidence == "claimed"  # a server's; what runs here is small
        prompt = open_book_prompt(question, [h.passage for h in kept], model.reader, citing=citing)
        prompt = replace(prompt, side_by_side=parallel)
        tokens = model.count_prompt_tokens(prompt)
        if tokens + decoding.max_tokens <= model.context_tokens:
            return kept, prompt, [*learned, *_left_out(hits, kept, model)]
        if len(kept) <= 1:
            raise _too_long(tokens, model, decoding)
        kept.pop()


def _too_long(tokens: int, model: FrozenModel, decoding: Decoding) -> ContextOverflow:
    return ContextOverflow(
        f"The question and one passage take {tokens} tokens and the answer up to {decoding.max_tokens}, but the "
        f"context holds {model.context_tokens}. Raise context_tokens, lower max_tokens or ask a shorter question."
    )


def _left_out(hits: Sequence[Hit], kept: Sequence[Hit], model: FrozenModel) -> list[str]:
    count = len(hits) - len(kept)
    note = f"{count} of {len(hits)} passages left out: the context holds {model.context_tokens} tokens."
    return [note] if count else []


def _cut_short(completion: Completion | None) -> tuple[str, ...]:
    """A note when the model did not end its answer itself."""
    if completion is None or completion.finish_reason in ("end", "stop"):
        return ()
    if completion.finish_reason == "cancelled":
        return ("Cancelled before the answer was complete.",)
    return ("The answer was cut off at the longest length allowed (max_tokens).",)


class _Counts(TypedDict, total=False):
    finish_reason: FinishReason
    prompt_tokens: int | None
    answer_tokens: int | None


def _counts(completion: Completion | None) -> _Counts:
    if completion is None:  # nothing was read
        return _Counts()
    return _Counts(
        finish_reason=completion.finish_reason,
        prompt_tokens=completion.prompt_tokens,
        answer_tokens=completion.answer_tokens,
    )


def _closed_book(
    question: str,
    model: FrozenModel,
    options: Options,
    started: float,
    on_text: Callable[[str], None],
    cancelled: Cancelled,
) -> Answer:
    if options.decoding.quote:
        raise QuestionError("Without passages there is nothing to quote; ask without --quote.")
    prompt = closed_book_prompt(with_instruction(question, options.instruction))
    decoding = decoding_for(model, options.decoding)
    completion, timings = _streamed(model.stream(prompt, decoding, cancelled), TextPreview(on_text).feed)
    text = tidy(completion.text)
    receipt = _receipt(question, model, decoding, completion, text, (), "closed-book")
    receipt = replace(receipt, instruction=options.instruction).sealed()
    timings = replace(timings, total_s=time.perf_counter() - started)
    return Answer(
        question=question,
        answer=text,
        abstained=False,
        supported=False,
        citations=(),
        passages=(),
        receipt=receipt,
        timings=timings,
        notes=("From the model's memory alone; no document was read.", *_cut_short(completion)),
        **_counts(completion),
    )


def _streamed(stream: Generator[str, None, _Result], on_text: Callable[[str], None]) -> tuple[_Result, Timings]:
    """What the stream returns, after every piece of it was shown."""
    started = time.perf_counter()
    first_token_s: float | None = None
    with closing(stream):  # also when on_text raises
        while True:
            try:
                piece = next(stream)
            except StopIteration as done:
                result: _Result = done.value
                return result, Timings(first_token_s=first_token_s, read_s=time.perf_counter() - started)
            if first_token_s is None:
                first_token_s = time.perf_counter() - started
            on_text(piece)


def _receipt(
    question: str,
    model: FrozenModel,
    decoding: Decoding,
    completion: Completion | None,
    text: str,
    hits: Sequence[Hit],
    strategy: str,
) -> Receipt:
    return Receipt(
        format=RECEIPT_FORMAT,
        openbook_version=__version__,
        model=model.identity,
        numeric_class=completion.numeric_class if completion else "",
        embedder=None,
        knowledge_base=None,
        knowledge_base_version=None,
        question=question,
        question_digest=sha256_hex(question.encode()),
        strategy=strategy,
        passages=tuple(PassageReference(h.passage.id, h.passage.digest, h.passage.document) for h in hits),
        prompt_digest=completion.prompt_digest if completion else "",
        decoding=decoding,
        answer_digest=sha256_hex(text.encode()),
    )
