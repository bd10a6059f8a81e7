"""The core flow: retrieve, rank, pack, read, cite. Plain functions, read from top to bottom.

`ask` is the whole of it. Nothing is kept between two calls: the answer is a function of the question, the knowledge
base's version, the model and the options, and the receipt in it names them all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from openbook import __version__
from openbook.errors import ContextOverflow, QuestionError
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled, never
from openbook.inference.prompting import passage_block, question_block
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.quoting import Quoted, quote
from openbook.knowledge.scope import EVERYTHING, Scope
from openbook.records import (
    Answer,
    Completion,
    Decoding,
    Embedder,
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

ABSTENTION = "The passages do not say."
MAX_QUESTION_CHARS = 8_000
RECEIPT_FORMAT = 1

OPEN_BOOK = (
    "Answer the question from the passages in one short sentence. If they do not hold the answer, say: " + ABSTENTION
)
CLOSED_BOOK = "Answer the question in one short sentence."

_SOURCE = r"(?:(?:provided|given|above) )?(?:passages?|text|context|excerpts?)|(?:provided|given|above) (?:documents?|information)"
_ABSTAINS = re.compile(
    # "The passage does not mention ...": the sources are the subject.
    rf"\b(?:the|this|these|those)\s+(?:{_SOURCE})\b[^.!?\n]{{0,40}}?\b(?:do|does|did)(?:\s+not|n['\u2019]t)\s+(?:\w+\s+)?"
    r"(?:say|state|mention|hold|provide|contain|specify|include|give|answer|tell|indicate|explain|describe)\b"
    # "It is not stated in the passages", "There is no information in the text about ...".
    rf"|\b(?:not|no)\b[^.!?\n]{{0,40}}\b(?:in|by|from)\s+(?:the|this|these|those)\s+(?:{_SOURCE})\b"
    # The whole answer.
    r"|^\W*(?:i (?:do not|don['\u2019]t) know|unknown|not (?:stated|mentioned|specified|given|available|known))\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Options:
    """`passages`: how many the model reads, 1 or more. `min_similarity`: below it, no passage counts as found."""

    passages: int = 2
    decoding: Decoding = field(default_factory=lambda: Decoding(stop=("\n",)))
    min_similarity: float = 0.2


def ask(
    question: str,
    model: FrozenModel,
    base: KnowledgeBase | None = None,
    embedder: Embedder | None = None,
    options: Options = Options(),
    *,
    scope: Scope = EVERYTHING,
    reranker: Reranker | None = None,
    on_text: Callable[[str], None] = lambda piece: None,
    cancelled: Cancelled = never,
) -> Answer:
    """Answer `question` from what `scope` sees of `base` (which needs its `embedder`), or from the model alone without `base`.

    Raises QuestionError, ContextOverflow, EngineError, KnowledgeError.
    """
    question = checked_question(question)
    started = time.perf_counter()
    if base is None:
        return _closed_book(question, model, options, started, on_text, cancelled)

    if embedder is None:
        raise TypeError("A knowledge base is searched with its embedder: ask(question, model, base, embedder).")

    # 1) Retrieve and rank: the best passages by meaning and by words, if anything is near the question at all.
    version, hits = base.search(question, embedder, options.passages, scope, reranker)
    retrieve_s = time.perf_counter() - started
    hits = [h for h in hits if h.similarity is None or h.similarity >= options.min_similarity]

    # 2) Pack: as many of the best as fit into the model's context, and say so when some do not.
    completion, timings, notes = None, Timings(), list[str]()
    if hits:
        hits, prompt, notes = pack(question, hits, model, options.decoding)

        # 3) Read.
        completion, timings = _read(model, prompt, options.decoding, on_text, cancelled)
    text = tidy(completion.text) if completion else ""
    cut_short = _cut_short(completion)

    # 4) Cite: every sentence of the answer gets a verbatim quote, or the answer says that it has none.
    abstained = says_nothing_found(text, model.reader) or not (text or cut_short)
    text = ABSTENTION if abstained else text
    quoted = Quoted() if abstained else quote(text, question, [h.passage for h in hits])

    receipt = _receipt(question, model, options.decoding, completion, text, hits, "together", base, version, scope)
    receipt = replace(receipt, reranker=reranker.identity if reranker else None)
    timings = replace(timings, retrieve_s=retrieve_s, total_s=time.perf_counter() - started)
    return Answer(
        question=question,
        answer=text,
        abstained=abstained,
        supported=not quoted.unsupported,
        citations=quoted.citations,
        passages=tuple(hits),
        receipt=receipt,
        timings=timings,
        unsupported=quoted.unsupported,
        notes=(*notes, *cut_short),
    )


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


def open_book_prompt(question: str, passages: Sequence[Passage], reader: ReaderFormat | None = None) -> Prompt:
    places = [" > ".join(dict.fromkeys(part for part in (p.title, *p.headings) if part)) for p in passages]
    texts = [_SOFT_BREAK.sub(r"\1 ", f"\n{p.text.strip()}")[1:] for p in passages]
    return reading_prompt(question, list(zip(places, texts, strict=True)), reader)


def reading_prompt(question: str, passages: Sequence[tuple[str, str]], reader: ReaderFormat | None = None) -> Prompt:
    """The prompt for (place, text) of each passage. A trained reader is asked as it was trained."""
    system = reader.instruction if reader else OPEN_BOOK
    return Prompt(system, tuple(passage_block(place, text) for place, text in passages), question_block(question))


def closed_book_prompt(question: str) -> Prompt:
    return Prompt(CLOSED_BOOK, (), question)


# A line of prose that was broken for width alone: it is long and the next one goes on in lower case. A model takes the end
# of such a line for the end. Rows of tables and lines of code are shorter, hold `|` or begin otherwise.
_SOFT_BREAK = re.compile(r"(?<=\n)([^\n|]{40,}[\w,;)`'])[ \t]*\n[ \t]*(?=[a-z(`'])")


def pack(
    question: str, hits: Sequence[Hit], model: FrozenModel, decoding: Decoding
) -> tuple[list[Hit], Prompt, list[str]]:
    """The longest run of best hits whose prompt fits, its prompt, and a note if it is not all of them.

    Raises ContextOverflow when not even one passage fits.
    """
    kept = list(hits)
    while True:
        prompt = open_book_prompt(question, [h.passage for h in kept], model.reader)
        tokens = model.count_prompt_tokens(prompt)
        if tokens + decoding.max_tokens <= model.context_tokens:
            break
        if len(kept) <= 1:
            raise ContextOverflow(
                f"The question and one passage take {tokens} tokens and the answer up to {decoding.max_tokens}, but the "
                f"context holds {model.context_tokens}. Raise context_tokens, lower max_tokens or ask a shorter question."
            )
        kept.pop()
    left_out = len(hits) - len(kept)
    note = f"{left_out} of {len(hits)} passages left out: the context holds {model.context_tokens} tokens."
    return kept, prompt, [note] if left_out else []


def says_nothing_found(text: str, reader: ReaderFormat | None = None) -> bool:
    """Whether an answer in the model's own words says that the passages do not hold the answer."""
    if reader is not None and text == reader.abstention:
        return True
    return _ABSTAINS.search(text) is not None


def tidy(text: str) -> str:
    return re.sub(r"^(answer|a)\s*:\s*", "", text.strip(), flags=re.IGNORECASE).strip()


def _cut_short(completion: Completion | None) -> tuple[str, ...]:
    """A note when the model did not end its answer itself."""
    if completion is None or completion.finish_reason in ("end", "stop"):
        return ()
    if completion.finish_reason == "cancelled":
        return ("Cancelled before the answer was complete.",)
    return ("The answer was cut off at the longest length allowed (max_tokens).",)


def _closed_book(
    question: str,
    model: FrozenModel,
    options: Options,
    started: float,
    on_text: Callable[[str], None],
    cancelled: Cancelled,
) -> Answer:
    prompt = closed_book_prompt(question)
    completion, timings = _read(model, prompt, options.decoding, on_text, cancelled)
    text = tidy(completion.text)
    receipt = _receipt(question, model, options.decoding, completion, text, (), "closed-book", None, None, EVERYTHING)
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
    )


def _read(
    model: FrozenModel, prompt: Prompt, decoding: Decoding, on_text: Callable[[str], None], cancelled: Cancelled
) -> tuple[Completion, Timings]:
    started = time.perf_counter()
    first_token_s: float | None = None
    with closing(model.stream(prompt, decoding, cancelled)) as stream:  # also when on_text raises
        while True:
            try:
                piece = next(stream)
            except StopIteration as done:
                completion: Completion = done.value
                return completion, Timings(first_token_s=first_token_s, read_s=time.perf_counter() - started)
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
    base: KnowledgeBase | None,
    version: int | None,
    scope: Scope,
) -> Receipt:
    return Receipt(
        format=RECEIPT_FORMAT,
        openbook_version=__version__,
        model=model.identity,
        numeric_class=completion.numeric_class if completion else "",
        embedder=base.embedder if base else None,
        knowledge_base=base.id if base else None,
        knowledge_base_version=version,
        where=scope.where,
        labels=tuple(sorted(scope.labels)),
        question=question,
        question_digest=sha256_hex(question.encode()),
        strategy=strategy,
        passages=tuple(PassageReference(h.passage.id, h.passage.digest, h.passage.document) for h in hits),
        prompt_digest=completion.prompt_digest if completion else "",
        decoding=decoding,
        answer_digest=sha256_hex(text.encode()),
    )
