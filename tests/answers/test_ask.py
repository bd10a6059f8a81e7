from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openbook.answers import certainty
from openbook.answers.ask import answer_again, ask, ask_with_fallback
from openbook.answers.certainty import CertaintyLimits, Fit
from openbook.answers.prompts import ABSTENTION, open_book_prompt
from openbook.answers.reading import pack
from openbook.answers.retrieval import Corpus, Options
from openbook.core.config import Strategy
from openbook.core.errors import ContextOverflow, QuestionError
from openbook.core.parallel import Cancelled, Listener, never
from openbook.core.records import Answer, Completion, Decoding, Hit, Prompt, ReaderFormat, sha256_hex
from openbook.inference import FrozenModel, connect_model
from openbook.inference.frozen import SIDE_BY_SIDE
from openbook.knowledge import KnowledgeBase, remove
from openbook.proofs.replay import replay
from openbook.testing import EchoEngine, HashEmbedder, echo_model
from tests.conftest import base_with, named_model
from tests.diagnosis.table_engine import PROMPT_TOKENS, Keeps

READER = ReaderFormat("Answer from the passage.", ABSTENTION)
ALL = Options(min_similarity=-1.0)
OPENED = "Who opened the bridge?"
DECLINES_BELOW = 0.3
SERVED = connect_model("served", base_url="http://127.0.0.1:9/v1")  # nothing is there; it is asked for nothing


@pytest.fixture
def base(tmp_path: Path) -> KnowledgeBase:
    texts = {
        "bridge.txt": "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes.",
        "library.md": "# Library\n\nThe library holds 2.3 million books. It is closed on Mondays.",
    }
    return base_with(tmp_path, texts)


@pytest.fixture
def asked(base: KnowledgeBase, embedder: HashEmbedder) -> partial[Answer]:
    return partial(ask, corpus=Corpus(base, embedder))


@pytest.fixture(autouse=True)
def fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the quote backs, and by the probe where there is one."""
    plain = Fit(-2.0, {"backed": 4.0}, supported_from=0.5, likely_from=0.4)
    probed = Fit(-4.5, {"backed": 4.0, "stated": 4.0}, supported_from=0.6, likely_from=0.2)
    monkeypatch.setattr(certainty, "fits", lambda: {"probed": probed, "other": plain})


class Says(EchoEngine):
    """Says what it was told to say, and notes what it was asked. With `stated` it is one with a probe, which says so."""

    def __init__(self, text: str, stated: float | None = None) -> None:
        super().__init__()
        self._text, self._stated = text, stated
        self.prompts: list[Prompt] = []

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = never
    ) -> Generator[str, None, Completion]:
        self.prompts.append(prompt)
        declined = self._stated is not None and self._stated < DECLINES_BELOW and prompt.declines
        text = "" if declined else self._text
        yield text
        return Completion(text, "end", 1, 1, sha256_hex(b"prompt"), "says", -0.1, self._stated)


@pytest.mark.parametrize("strategy", ["checked", "parallel", "each"])
def test_the_passages_that_fit_are_shown_before_they_are_read(asked: partial[Answer], strategy: Strategy) -> None:
    told: list[Any] = []

    def found(searched: str, hits: Sequence[Hit]) -> None:
        told.append((searched, tuple(hits)))

    reader = READER if strategy == "each" else None
    tight = FrozenModel(EchoEngine(context_tokens=125), reader)
    listener = Listener(told.append, found)
    options = replace(ALL, strategy=strategy, decoding=Decoding(max_tokens=40))
    answer = asked("Which zeppelin?", tight, options=options, listener=listener)
    assert told[0] == ("Which zeppelin?", answer.passages)
    assert (len(answer.passages) == 1) is (strategy != "each")  # both fit alone
    assert [each for each in told[1:] if not isinstance(each, str)] == []


def names(answer: Answer) -> list[str]:
    return [Path(hit.passage.document).name for hit in answer.passages]


def test_a_purge_during_the_search_counts_as_later(
    asked: partial[Answer], base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Keeps()

    def then_purged(method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        found = method(*given, **named)
        engine.purged += 1
        return found

    for method in ("search", "passage"):
        monkeypatch.setattr(base, method, partial(then_purged, getattr(base, method)))
    answer = asked(OPENED, FrozenModel(engine), options=Options(passages=1))
    assert (set(engine.marks), engine.purged) == ({"0"}, 1)
    engine.marks.clear()
    assert replay(answer.receipt, FrozenModel(engine), base).identical
    assert (set(engine.marks), engine.purged) == ({"1"}, 2)


def test_an_answer_is_cited_verbatim_and_has_a_receipt(
    asked: partial[Answer], base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    answer = asked(OPENED, echo_model())
    assert "Lila Ortega" in answer.answer
    assert (answer.declined, [each.support for each in answer.sentences]) == (False, ["backed"])
    citation = answer.citations[0]
    assert (base.text(citation.document) or "")[citation.start : citation.end] == citation.quote
    assert citation.passage_id in [h.passage.id for h in answer.passages]
    receipt = answer.receipt
    assert (receipt.model, receipt.embedder) == (EchoEngine.identity, embedder.identity)
    assert (receipt.knowledge_base, receipt.knowledge_base_version) == (base.id, 1)
    assert receipt.answer_digest == sha256_hex(answer.answer.encode())
    passages = [(h.passage.id, h.passage.digest, h.passage.document) for h in answer.passages]
    assert [(p.id, p.digest, p.document) for p in receipt.passages] == passages
    again = asked(OPENED, echo_model())
    assert (again.answer, again.citations, again.receipt) == (answer.answer, answer.citations, receipt)


@pytest.mark.parametrize(
    ("question", "text", "confidence", "shown"),
    [
        (OPENED, "Mayor Lila Ortega opened the bridge.", "supported", None),
        (OPENED, "Tomas Brandl opened the bridge.", "check it", None),
        ("Which zeppelin?", "Mayor Lila Ortega opened the bridge.", "likely", None),
        (OPENED, "Mayor Lila Ortega opened the bridge [1].", "supported", "Mayor Lila Ortega opened the bridge."),
        (OPENED, "The excerpts state that mayor Lila Ortega opened the bridge.", "supported", None),
        (OPENED, "Mayor Lila Ortega opened the bridge. Zebras graze.", "check it", None),
        (OPENED, "Mayor Lila Ortega opened the bridge:", "check it", None),  # the list it announces does not come
        ("What colour is it?", "The passages do not mention the colour of the bridge.", "not found", ABSTENTION),
    ],
)
def test_an_answer_says_how_sure_it_is(
    asked: partial[Answer], base: KnowledgeBase, question: str, text: str, confidence: str, shown: str | None
) -> None:
    pieces: list[str] = []
    answer = asked(question, FrozenModel(Says(text)), options=ALL, listener=Listener(pieces.append))
    assert (answer.answer, answer.confidence) == (shown or text, confidence)
    assert (answer.receipt.certainty, answer.receipt.confidence) == (answer.certainty, answer.confidence)
    assert answer.declined == bool(answer.closest) == (confidence == "not found")
    assert (answer.certainty is None) == (answer.declined or text.endswith(":"))
    assert bool(answer.citations) == ("bridge" in answer.answer)
    for each in answer.sentences:
        assert (each.citation is None) == (each.support == "none") == ("Zebras" in answer.answer[each.start : each.end])
    assert all((base.text(near.document) or "")[near.start : near.end] == near.quote for near in answer.closest)
    if not answer.declined:
        assert answer.answer.startswith("".join(pieces))
    assert replay(answer.receipt, FrozenModel(Says(text)), base).identical


def test_own_limits_give_another_word_and_the_same_answer(asked: partial[Answer]) -> None:
    model = FrozenModel(Says("Mayor Lila Ortega opened the bridge."))
    own = [CertaintyLimits(1.0, 1.0), CertaintyLimits(1.0), CertaintyLimits(0.0, 0.0)]
    answers = [asked(OPENED, model, options=replace(ALL, limits=limits)) for limits in own]
    assert [each.confidence for each in answers] == ["check it", "likely", "supported"]
    assert len({(each.answer, each.certainty) for each in answers}) == 1


@pytest.mark.parametrize(("stated", "confidence"), [(0.95, "supported"), (0.4, "likely"), (0.1, "not found")])
@pytest.mark.parametrize("strategy", ["checked", "parallel"])
def test_a_model_with_a_probe_declines_what_is_hardly_stated_and_is_asked_once(
    asked: partial[Answer], base: KnowledgeBase, strategy: Strategy, stated: float, confidence: str
) -> None:
    engine = Says("Mayor Lila Ortega opened the bridge.", stated)
    answer = asked(OPENED, FrozenModel(engine), options=replace(ALL, strategy=strategy))
    declined = confidence == "not found"
    assert (answer.confidence, answer.declined, bool(answer.closest)) == (confidence, declined, declined)
    assert len(engine.prompts) == 1
    assert replay(answer.receipt, FrozenModel(engine), base).identical
    forced = asked(OPENED, FrozenModel(engine), options=replace(ALL, strategy="together"))
    assert not forced.declined


def test_nothing_near_the_question_is_an_abstention_without_reading(
    asked: partial[Answer], base: KnowledgeBase, tmp_path: Path, embedder: HashEmbedder
) -> None:
    inventing = FrozenModel(Says("I would invent something."))
    answer = asked("xylophone zeppelin", inventing, options=Options(min_similarity=0.99))
    assert (answer.declined, answer.passages, answer.receipt.prompt_digest) == (True, (), "")
    empty = KnowledgeBase.ensure(tmp_path / "empty", embedder.identity)
    assert ask("Anything?", inventing, Corpus(empty, embedder)).declined


def test_closed_book_reads_nothing_and_says_so() -> None:
    answer = ask("What is the capital of France?", FrozenModel(Says("Paris.")))
    assert (answer.answer, answer.passages, answer.citations) == ("Paris.", (), ())
    assert (answer.certainty, answer.declined, answer.confidence) == (None, False, "check it")
    assert (answer.receipt.strategy, answer.receipt.knowledge_base) == ("closed-book", None)
    assert "memory" in answer.notes[0]


@pytest.mark.parametrize("reader", [None, READER])
def test_an_answer_that_is_not_whole_is_no_abstention_and_says_so(
    asked: partial[Answer], reader: ReaderFormat | None
) -> None:
    cancelled = asked(OPENED, echo_model(reader=reader), options=ALL, listener=Listener(cancelled=lambda: True))
    assert (cancelled.declined, cancelled.notes) == (False, ("Cancelled before the answer was complete.",))
    cut = asked(OPENED, echo_model(reader=reader), options=replace(ALL, decoding=Decoding(max_tokens=3)))
    assert "cut off" in cut.notes[0]


def test_passages_that_do_not_fit_are_left_out_and_counted(asked: partial[Answer]) -> None:
    options = replace(ALL, decoding=Decoding(max_tokens=16))
    answer = asked(OPENED, echo_model(context_tokens=PROMPT_TOKENS + 46), options=options)
    assert len(answer.passages) == len(answer.receipt.passages) == 1
    assert answer.notes[0] == f"1 of 2 passages left out: the context holds {PROMPT_TOKENS + 46} tokens."
    alone = asked(OPENED, echo_model(reader=READER, context_tokens=42), options=options)
    assert names(alone) == ["library.md"]
    assert alone.notes[0] == "1 of 2 passages left out: the context holds 42 tokens."
    for reader in (None, READER):
        with pytest.raises(ContextOverflow, match="one passage take"):
            asked(OPENED, echo_model(reader=reader, context_tokens=20), options=options)


def test_an_empty_or_too_long_question_is_refused_and_undecodable_bytes_do_no_harm() -> None:
    for empty in ("", "   ", "\n", "???", "\0"):
        with pytest.raises(QuestionError, match="empty"):
            ask(empty, echo_model())
    with pytest.raises(QuestionError, match="1,000,000 characters; at most 12,000"):
        ask("x" * 1_000_000, echo_model())
    assert ask("caf\udce9?\0", echo_model()).question == "caf??"


def test_a_reader_reads_each_passage_alone_and_cites_the_one_it_answers_from(asked: partial[Answer]) -> None:
    answer = asked(OPENED, echo_model(reader=READER), options=ALL)
    assert "Lila Ortega" in answer.answer
    assert answer.receipt.strategy == "each"
    assert {Path(c.document).name for c in answer.citations} == {"bridge.txt"}
    # The first surely holds the answer, so the other is not read, and not in the receipt.
    assert len(answer.passages) == len(answer.receipt.passages) == 1
    together = asked(OPENED, echo_model(reader=READER), options=replace(ALL, strategy="together"))
    assert together.receipt.strategy == "together"
    assert together.receipt.prompt_digest != answer.receipt.prompt_digest
    silent = asked("Which colour has the zeppelin?", echo_model(reader=READER), options=ALL)
    assert (silent.answer, silent.declined, silent.citations) == (ABSTENTION, True, ())
    assert len(silent.receipt.passages) == 2
    assert silent.receipt.prompt_digest


def test_passages_are_read_side_by_side_by_a_reader_that_learned_it_and_by_untrained_models(
    asked: partial[Answer],
) -> None:
    model = echo_model(reader=replace(READER, passages=2))
    answer = asked(OPENED, model, options=ALL)
    assert answer.receipt.strategy == "parallel"
    assert "Lila Ortega" in answer.answer
    assert {Path(c.document).name for c in answer.citations} == {"bridge.txt"}
    assert answer_again(answer.receipt, model, answer.passages)[0] == answer.answer
    assert asked(OPENED, model, options=replace(ALL, passages=12)).passages == answer.passages
    hits = list(answer.passages)
    kept, prompt, notes = pack("Who?", [*hits, *hits], model, Decoding(), parallel=True)
    assert (kept, prompt.side_by_side) == (hits, True)
    assert notes == ["2 of 4 passages read: no more can lie side by side."]

    engine = Says("Mayor Lila Ortega opened the bridge.")
    answer = asked(OPENED, FrozenModel(engine), options=replace(ALL, strategy="parallel"))
    prompt = engine.prompts[0]  # each window is read as if it were the only one
    assert (answer.receipt.strategy, prompt.side_by_side, len(prompt.passages)) == ("parallel", True, 2)
    assert [open_book_prompt(OPENED, [hit.passage]).passages[0] for hit in answer.passages] == list(prompt.passages)
    kept, _, notes = pack("Who?", list(answer.passages) * SIDE_BY_SIDE, FrozenModel(engine), Decoding(), parallel=True)
    assert (len(kept), notes) == (SIDE_BY_SIDE, ["8 of 16 passages read: no more can lie side by side."])


@pytest.mark.parametrize(
    ("model", "options", "match"),
    [
        (echo_model(reader=READER), replace(ALL, strategy="parallel"), "cannot read passages side by side"),
        (SERVED, replace(ALL, strategy="parallel"), "needs the local engine"),
        (echo_model(), replace(ALL, strategy="each"), "Use the strategy 'together'"),
        (echo_model(), replace(ALL, decoding=Decoding(quote=True)), "Only a trained reader"),
    ],
)
def test_a_strategy_that_the_model_lacks_is_refused(
    asked: partial[Answer], model: FrozenModel, options: Options, match: str
) -> None:
    with pytest.raises(QuestionError, match=match):
        asked(OPENED, model, options=options)


def test_an_instruction_follows_the_passages_and_is_in_the_receipt(asked: partial[Answer], base: KnowledgeBase) -> None:
    engine = Says("Mayor Lila Ortega opened the bridge.")
    for wish in ("", "In French, please."):
        answer = asked(OPENED, FrozenModel(engine), options=Options(instruction=wish))
        assert answer.receipt.instruction == wish
        assert replay(answer.receipt, FrozenModel(engine), base).identical
    assert len({(prompt.system, prompt.passages) for prompt in engine.prompts}) == 1
    assert any(prompt.question.endswith("How to answer: In French, please.") for prompt in engine.prompts)


def test_the_older_of_two_documents_is_named_and_not_read(tmp_path: Path, embedder: HashEmbedder) -> None:
    declared = "---\nsuperseded-by: leave-policy.md\n---\n"
    texts = {
        "leave-policy-2023.md": f"{declared}# Leave policy (2023)\n\nA full-time employee has 24 days of leave a year.",
        "leave-policy.md": "# Leave policy\n\nA full-time employee has 28 days of leave a year.",
    }
    answer = ask("How many days of leave a year?", echo_model(), Corpus(base_with(tmp_path, texts), embedder), ALL)
    assert "28 days" in answer.answer
    assert set(names(answer)) == {"leave-policy.md"}
    assert answer.notes[0] == 'Left out: "Leave policy (2023)", superseded by "Leave policy".'
    # A newer document of which nothing near enough was found does not count.
    texts["leave-policy.md"] = "# Leave policy\n\nSee the intranet."
    base = base_with(tmp_path / "far", texts)
    answer = ask(
        "How many days of leave a year has a full-time employee?", echo_model(), Corpus(base, embedder), Options()
    )
    assert set(names(answer)) == {"leave-policy-2023.md"}
    assert answer.notes[0] == 'Cited: "Leave policy (2023)", superseded by "leave-policy.md".'


# --- a fallback model -------------------------------------------------------------------------------------------------

RIGHT, WRONG, LESS_WRONG = "Mayor Lila Ortega opened the bridge.", "Zebras graze.", "Tomas Brandl opened the bridge."


def never_opened() -> FrozenModel:
    pytest.fail("The fallback model was opened.")


def test_a_likely_answer_and_one_without_documents_need_no_fallback(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    corpus, model = Corpus(base, embedder), FrozenModel(Says(RIGHT))
    answer = ask_with_fallback(OPENED, model, never_opened, corpus, ALL)
    assert (answer.receipt, answer.notes) == (ask(OPENED, model, corpus, ALL).receipt, ())
    pieces: list[str] = []
    unsure = FrozenModel(Says(WRONG))
    assert ask_with_fallback(OPENED, unsure, never_opened, None, ALL, Listener(pieces.append)).answer == WRONG
    assert "".join(pieces) == WRONG.removesuffix(".")
    overview = ask_with_fallback("summarize bridge.txt", unsure, never_opened, corpus, ALL)
    assert (overview.receipt.strategy, overview.certainty) == ("summary", None)


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (WRONG, RIGHT, "large"),
        (WRONG, LESS_WRONG, "large"),
        (LESS_WRONG, WRONG, "small"),
        (WRONG, WRONG, "small"),
        (WRONG, ABSTENTION, "small"),
        (ABSTENTION, WRONG, "small"),
        (ABSTENTION, RIGHT, "large"),
        (ABSTENTION, ABSTENTION, "small"),
    ],
)
def test_of_two_answers_the_more_certain_one_is_shown_with_the_receipt_of_its_model(
    base: KnowledgeBase, embedder: HashEmbedder, first: str, second: str, shown: str
) -> None:
    corpus, pieces = Corpus(base, embedder), list[str]()
    models = {"small": named_model("small", Says(first), READER), "large": named_model("large", Says(second))}
    alone = {name: ask(OPENED, model, corpus, ALL) for name, model in models.items()}
    options = replace(ALL, strategy="each")  # which only the reader can
    listener = Listener(pieces.append)
    answer = ask_with_fallback(OPENED, models["small"], lambda: models["large"], corpus, options, listener)
    assert (answer.answer, answer.receipt, pieces) == (alone[shown].answer, alone[shown].receipt, [])
    assert replay(answer.receipt, models[shown], base).identical
    for name, each in alone.items():
        number = "" if each.certainty is None else f", {each.certainty:.2f}"
        assert f"{name} ({each.confidence}{number})" in answer.notes[-1]
    assert answer.notes[-1].endswith(f"This is the answer of {shown}.")


def test_if_the_fallback_cannot_read_the_first_answer_stays_and_says_why(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    small, corpus = named_model("small", EchoEngine(otherwise=WRONG), READER), Corpus(base, embedder)
    quote = replace(ALL, decoding=Decoding(quote=True))
    cases: list[tuple[EchoEngine, Options, str]] = [
        (Says(RIGHT), quote, "Only a trained reader"),
        (EchoEngine(context_tokens=20), ALL, "one passage take"),
    ]
    for engine, options, why in cases:
        answer = ask_with_fallback("Which zeppelin?", small, partial(named_model, "large", engine), corpus, options)
        assert answer.receipt == ask("Which zeppelin?", small, corpus, options).receipt
        assert answer.notes[-1].startswith("large could not answer too: ")
        assert why in answer.notes[-1]


def test_both_models_read_one_version_and_a_cancelled_answer_is_neither(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    corpus, small = Corpus(base, embedder), named_model("small", Says(WRONG))

    def opened() -> FrozenModel:
        remove(base, ["bridge.txt"])
        return named_model("large", Says(RIGHT))

    answer = ask_with_fallback(OPENED, small, opened, corpus, ALL)
    assert (answer.answer, answer.receipt.knowledge_base_version, base.version) == (RIGHT, 1, 2)

    ended, echo = threading.Event(), [named_model(name, EchoEngine(otherwise=WRONG)) for name in ("small", "large")]

    def cancelled() -> FrozenModel:
        ended.set()
        return echo[1]

    listener = Listener(cancelled=ended.is_set)
    for fallback, model in ((cancelled, echo[1]), (never_opened, echo[0])):  # the second ends before it begins
        answer = ask_with_fallback("Which zeppelin?", echo[0], fallback, corpus, ALL, listener)
        assert (answer.finish_reason, answer.receipt.model) == ("cancelled", model.identity)
