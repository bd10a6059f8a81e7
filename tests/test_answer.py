from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from openbook.answer import Options, answer_again, ask, checked_question, pack
from openbook.answer_text import says_nothing_found
from openbook.errors import ContextOverflow, QuestionError
from openbook.inference import FrozenModel
from openbook.inference.frozen import Cancelled
from openbook.knowledge import KnowledgeBase, add
from openbook.prompts import ABSTENTION, LOOK_AGAIN, reading_prompt
from openbook.records import Completion, Decoding, Hit, ModelIdentity, Passage, Prompt, ReaderFormat, sha256_hex
from openbook.replay import replay
from openbook.testing import EchoEngine, HashEmbedder, echo_model

PROMPT_TOKENS = EchoEngine().count_prompt_tokens(reading_prompt("", []))  # without passages and question


@pytest.fixture
def base(tmp_path: Path, embedder: HashEmbedder) -> KnowledgeBase:
    (tmp_path / "bridge.txt").write_text(
        "The bridge was opened on 14 March 2026 by mayor Lila Ortega. It has four lanes."
    )
    (tmp_path / "library.md").write_text("# Library\n\nThe library holds 2.3 million books. It is closed on Mondays.")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / "bridge.txt", tmp_path / "library.md"], embedder)
    return base


class Says(EchoEngine):
    """An engine that says what it was told to say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def generate(
        self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = lambda: False
    ) -> Generator[str, None, Completion]:
        text = "Yes" if prompt.question.endswith(LOOK_AGAIN) else self._text
        yield text
        return Completion(text, "end", 1, 1, sha256_hex(b"prompt"), "says")


def test_an_answer_is_cited_verbatim_and_has_a_receipt(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    answer = ask("Who opened the bridge?", echo_model(), base, embedder)
    assert "Lila Ortega" in answer.answer
    assert not answer.abstained
    assert answer.supported
    citation = answer.citations[0]
    text = base.text(citation.document)
    assert text is not None
    assert text[citation.start : citation.end] == citation.quote
    assert citation.passage_id in [h.passage.id for h in answer.passages]
    receipt = answer.receipt
    assert receipt.model == EchoEngine.identity
    assert receipt.embedder == embedder.identity
    assert (receipt.knowledge_base, receipt.knowledge_base_version) == (base.id, 1)
    assert receipt.answer_digest == sha256_hex(answer.answer.encode())
    assert [p.id for p in receipt.passages] == [h.passage.id for h in answer.passages]
    assert all(p.digest == h.passage.digest for p, h in zip(receipt.passages, answer.passages, strict=True))


def test_equal_requests_give_equal_answers_and_receipts(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    first, second = (ask("Who opened the bridge?", echo_model(), base, embedder) for _ in range(2))
    assert (first.answer, first.citations, first.receipt) == (second.answer, second.citations, second.receipt)


def test_what_the_passages_do_not_hold_is_not_invented(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    model = FrozenModel(Says("The passages do not mention the colour of the bridge."))
    answer = ask("What colour has the bridge?", model, base, embedder)
    assert answer.abstained
    assert answer.answer == ABSTENTION
    assert answer.citations == ()


def test_an_answer_without_support_says_so(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    answer = ask("Who opened the bridge?", FrozenModel(Says("Tomas Brandl opened it.")), base, embedder)
    assert not answer.supported
    assert answer.citations == ()
    assert answer.unsupported == ("Tomas Brandl opened it.",)


def test_nothing_near_the_question_is_an_abstention_without_reading(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    model = FrozenModel(Says("I would invent something."))
    answer = ask("xylophone zeppelin", model, base, embedder, Options(min_similarity=0.99))
    assert answer.abstained
    assert answer.passages == ()
    assert answer.receipt.prompt_digest == ""


def test_an_empty_knowledge_base_is_an_abstention(tmp_path: Path, embedder: HashEmbedder) -> None:
    base = KnowledgeBase.ensure(tmp_path / "empty", embedder.identity)
    assert ask("Anything?", echo_model(), base, embedder).abstained


def test_closed_book_reads_nothing_and_says_so() -> None:
    answer = ask("What is the capital of France?", FrozenModel(Says("Paris.")))
    assert answer.answer == "Paris."
    assert (answer.passages, answer.citations) == ((), ())
    assert not answer.supported
    assert answer.receipt.strategy == "closed-book"
    assert answer.receipt.knowledge_base is None
    assert "memory" in answer.notes[0]


def test_a_cancelled_answer_is_no_abstention(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    answer = ask("Who opened the bridge?", echo_model(), base, embedder, cancelled=lambda: True)
    assert not answer.abstained
    assert answer.notes == ("Cancelled before the answer was complete.",)


def test_an_answer_cut_at_its_longest_says_so(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    options = Options(decoding=Decoding(max_tokens=3))
    assert "cut off" in ask("Who opened the bridge?", echo_model(), base, embedder, options).notes[0]


def test_a_knowledge_base_without_its_embedder_is_refused(base: KnowledgeBase) -> None:
    with pytest.raises(TypeError, match="embedder"):
        ask("Who opened the bridge?", echo_model(), base)


def test_passages_that_do_not_fit_are_cut_and_counted(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    options = Options(decoding=Decoding(max_tokens=16), min_similarity=-1.0)
    answer = ask("Who opened the bridge?", echo_model(context_tokens=PROMPT_TOKENS + 46), base, embedder, options)
    assert len(answer.passages) == 1
    assert answer.notes[0] == f"1 of 2 passages left out: the context holds {PROMPT_TOKENS + 46} tokens."
    assert len(answer.receipt.passages) == 1


def test_a_context_too_small_for_one_passage_is_an_error() -> None:
    passage = Passage("p", "d", "", 0, 5, None, (), "word " * 500)
    with pytest.raises(ContextOverflow, match="one passage take"):
        pack("Why?", [Hit(passage, 1.0, 1, 1, 0.9)], echo_model(context_tokens=100), Decoding())


@pytest.mark.parametrize("question", ["", "   ", "\n", "???", "\0"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(QuestionError, match="empty"):
        checked_question(question)


def test_a_question_of_a_megabyte_is_refused() -> None:
    with pytest.raises(QuestionError, match="1,000,000 characters; at most 8,000"):
        checked_question("x" * 1_000_000)


def test_undecodable_bytes_in_a_question_do_no_harm() -> None:
    assert checked_question("caf\udce9?\0") == "caf??"


@pytest.mark.parametrize(
    "text",
    [
        "The passages do not say.",
        "The passage does not provide a specific answer to the question.",
        "The text doesn't mention it.",
        "It is not mentioned in the passages.",
        "No information is given in the passage.",
        "I don't know.",
        "There is no information about the colour in the text.",
        "The given context does not explicitly state it.",
        "Not specified.",
        "The provided documents do not contain this information.",
    ],
)
def test_abstentions_in_the_models_words_are_recognised(text: str) -> None:
    assert says_nothing_found(text)


@pytest.mark.parametrize(
    "text",
    [
        "28 days.",
        "The ferry does not sail on Sundays.",
        "Passengers may not take dogs into the saloon.",
        "The document is kept for ten years.",
        "Knowing the code is not enough.",
        "Confidential information is not to be given to third parties.",
        "Personal documents are not included in the insurance.",
        "Staff must not be given the documents before signing.",
        "Unknown callers are sent to the reception.",
        "Work documents do not include private letters.",
        "The text of the contract is kept for ten years.",
    ],
)
def test_answers_are_not_taken_for_abstentions(text: str) -> None:
    assert not says_nothing_found(text)


class LongestFirst:
    identity = ModelIdentity(name="longest", digest=sha256_hex(b"longest first"), evidence="verified")

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        return [float(len(text)) for text in texts]


READER = ReaderFormat("Answer from the passage.", "The passages do not say.")


def test_a_reader_reads_each_passage_alone_and_cites_the_one_it_answers_from(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    options = Options(min_similarity=-1.0)
    answer = ask("Who opened the bridge?", echo_model(reader=READER), base, embedder, options)
    assert "Lila Ortega" in answer.answer
    assert answer.receipt.strategy == "each"
    assert {c.document.rpartition("/")[2] for c in answer.citations} == {"bridge.txt"}
    # Surely held by the first, so the other is not read, and not in the receipt.
    assert [h.passage.id for h in answer.passages] == [p.id for p in answer.receipt.passages]
    assert len(answer.passages) == 1
    together = ask(
        "Who opened the bridge?", echo_model(reader=READER), base, embedder, replace(options, strategy="together")
    )
    assert together.receipt.strategy == "together"
    assert together.receipt.prompt_digest != answer.receipt.prompt_digest


def test_a_reader_that_learned_it_reads_side_by_side(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    options = Options(min_similarity=-1.0)
    model = echo_model(reader=replace(READER, passages=2))
    answer = ask("Who opened the bridge?", model, base, embedder, options)
    assert answer.receipt.strategy == "parallel"
    assert "Lila Ortega" in answer.answer
    assert {c.document.rpartition("/")[2] for c in answer.citations} == {"bridge.txt"}
    assert answer_again(answer.receipt, model, answer.passages)[0] == answer.answer
    few = ask("Who opened the bridge?", model, base, embedder, replace(options, passages=12))
    assert few.passages == answer.passages
    with pytest.raises(QuestionError, match="parallel needs a reader that learned it, and echo did not"):
        ask("Who opened the bridge?", echo_model(reader=READER), base, embedder, replace(options, strategy="parallel"))


def test_of_more_passages_than_a_reader_learned_to_read_the_best_are_read(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    hits = list(ask("Who opened the bridge?", echo_model(), base, embedder, Options(min_similarity=-1.0)).passages)
    assert len(hits) == 2
    model = echo_model(reader=replace(READER, passages=2))
    kept, prompt, notes = pack("Who?", [*hits, *hits], model, Decoding(), parallel=True)
    assert kept == hits
    assert prompt.side_by_side
    assert notes == ["2 of 4 passages read: so many the reader learned to read."]


def test_when_every_passage_is_silent_the_answer_is_an_abstention(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    options = Options(min_similarity=-1.0)
    answer = ask("Which colour has the zeppelin?", echo_model(reader=READER), base, embedder, options)
    assert (answer.answer, answer.abstained, answer.citations) == (ABSTENTION, True, ())
    assert len(answer.receipt.passages) == 2
    assert answer.receipt.prompt_digest


def test_a_passage_that_does_not_fit_alone_is_left_out_and_counted(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    options = Options(decoding=Decoding(max_tokens=16), min_similarity=-1.0)
    answer = ask("Who opened the bridge?", echo_model(reader=READER, context_tokens=42), base, embedder, options)
    assert [h.passage.document.rpartition("/")[2] for h in answer.passages] == ["library.md"]
    assert answer.notes[0] == "1 of 2 passages left out: the context holds 42 tokens."
    with pytest.raises(ContextOverflow, match="one passage take"):
        ask("Who opened the bridge?", echo_model(reader=READER, context_tokens=20), base, embedder, options)


def test_only_a_reader_reads_each_passage_alone(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    with pytest.raises(QuestionError, match="--strategy together"):
        ask("Who opened the bridge?", echo_model(), base, embedder, Options(strategy="each"))
    assert ask("Who opened the bridge?", echo_model(), base, embedder).receipt.strategy == "together"


def test_a_cancelled_reading_is_no_abstention(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    answer = ask("Who opened the bridge?", echo_model(reader=READER), base, embedder, cancelled=lambda: True)
    assert not answer.abstained
    assert answer.notes == ("Cancelled before the answer was complete.",)


def test_a_reranker_orders_what_is_read_and_stands_in_the_receipt(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    options = Options(passages=1)
    plain = ask("Is the library closed on Mondays?", echo_model(), base, embedder, options)
    longest = ask("Is the library closed on Mondays?", echo_model(), base, embedder, options, reranker=LongestFirst())
    assert [h.passage.document.rpartition("/")[2] for h in plain.passages] == ["library.md"]
    assert [h.passage.document.rpartition("/")[2] for h in longest.passages] == ["bridge.txt"]
    assert (plain.receipt.reranker, longest.receipt.reranker) == (None, LongestFirst.identity)


@pytest.mark.parametrize(
    ("question", "said", "confidence"),
    [
        ("Who opened the bridge?", "Mayor Lila Ortega opened the bridge.", "supported"),
        ("Who opened the bridge?", "Tomas Brandl opened the bridge.", "check it"),
        ("Was the bridge opened by Lila Ortega?", "Yes, the bridge was opened by Lila Ortega.", "check it"),
        ("Who opened the bridge?", "The passages do not say.", "not found"),
    ],
)
def test_an_answer_says_how_sure_it_is(
    base: KnowledgeBase, embedder: HashEmbedder, question: str, said: str, confidence: str
) -> None:
    answer = ask(question, FrozenModel(Says(said)), base, embedder, Options(min_similarity=-1.0))
    assert answer.confidence == confidence
    assert bool(answer.closest) == (confidence == "not found")


def test_an_abstention_shows_the_closest_sentences_verbatim(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    model = FrozenModel(Says("The passages do not say."))
    answer = ask("When was the bridge closed?", model, base, embedder, Options(min_similarity=-1.0))
    nearest = answer.closest[0]
    text = base.text(nearest.document)
    assert text is not None
    assert (
        nearest.quote
        == text[nearest.start : nearest.end]
        == "The bridge was opened on 14 March 2026 by mayor Lila Ortega."
    )


def test_marks_of_excerpts_are_not_part_of_the_answer(base: KnowledgeBase, embedder: HashEmbedder) -> None:
    pieces: list[str] = []
    model = FrozenModel(Says("Mayor Lila Ortega opened the bridge [1]."))
    answer = ask("Who opened the bridge?", model, base, embedder, Options(min_similarity=-1.0), on_text=pieces.append)
    assert answer.answer == "Mayor Lila Ortega opened the bridge."
    assert answer.answer.startswith("".join(pieces))
    assert replay(answer.receipt, model, base).identical


def test_an_instruction_stands_behind_the_passages_and_in_the_receipt(
    base: KnowledgeBase, embedder: HashEmbedder
) -> None:
    asked: list[Prompt] = []

    class Noting(EchoEngine):
        def generate(
            self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = lambda: False
        ) -> Generator[str, None, Completion]:
            asked.append(prompt)
            return (yield from super().generate(prompt, decoding, cancelled))

    plain, told = (
        ask("Who opened the bridge?", FrozenModel(Noting()), base, embedder, Options(instruction=wish))
        for wish in ("", "In French, please.")
    )
    assert len({(prompt.system, prompt.passages) for prompt in asked}) == 1
    assert any(prompt.question.endswith("How to answer: In French, please.") for prompt in asked)
    assert (plain.receipt.instruction, told.receipt.instruction) == ("", "In French, please.")
    assert replay(told.receipt, FrozenModel(Noting()), base).identical


def test_the_older_of_two_documents_is_quoted_and_not_read(tmp_path: Path, embedder: HashEmbedder) -> None:
    (tmp_path / "leave-policy-2023.md").write_text(
        "# Leave policy (2023)\n\n> Archived. Replaced by leave-policy.md.\n\nA full-time employee has 24 days of leave a year."
    )
    (tmp_path / "leave-policy.md").write_text("# Leave policy\n\nA full-time employee has 28 days of leave a year.")
    base = KnowledgeBase.ensure(tmp_path / "kb", embedder.identity)
    add(base, [tmp_path / "leave-policy-2023.md", tmp_path / "leave-policy.md"], embedder)
    answer = ask("How many days of leave a year?", echo_model(), base, embedder, Options(min_similarity=-1.0))
    assert "28 days" in answer.answer
    assert {Path(hit.passage.document).name for hit in answer.passages} == {"leave-policy.md"}
    assert "24 days" in answer.notes[0]
    assert "leave-policy-2023.md" in answer.notes[0]


@pytest.mark.parametrize(
    ("says", "likely", "confidence"), [("Yes", 0.9, "supported"), ("Yes", 0.4, "check it"), ("No", 0.9, "check it")]
)
def test_an_answer_that_the_model_does_not_stand_by_is_to_be_checked(
    base: KnowledgeBase, embedder: HashEmbedder, says: str, likely: float, confidence: str
) -> None:
    class Doubting(Says):
        def generate(
            self, prompt: Prompt, decoding: Decoding, cancelled: Cancelled = lambda: False
        ) -> Generator[str, None, Completion]:
            if not prompt.question.endswith(LOOK_AGAIN):
                return (yield from super().generate(prompt, decoding, cancelled))
            yield says
            return Completion(says, "length", 1, 1, "", "says", math.log(likely))

    model = FrozenModel(Doubting("Mayor Lila Ortega opened the bridge."))
    answer = ask("Who opened the bridge?", model, base, embedder, Options(min_similarity=-1.0))
    assert answer.supported
    assert answer.confidence == confidence
