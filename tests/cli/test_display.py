"""What a person sees of an answer: its words as they come on a terminal, then its quotes."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from openbook.answers.answer_text import printable
from openbook.answers.certainty import MEANING, UNMEASURED
from openbook.cli import display
from openbook.cli.display import LiveAnswer, _flat, _joined, print_answer, print_problems, print_words
from openbook.core.records import Answer, AnswerSentence, Citation, Confidence, Hit, Passage, Support, Verdict
from openbook.knowledge.word_diff import word_diff
from openbook.proofs.receipts import parse_receipt
from tests.conftest import ROOT

WIDTH = 24
PIECES = st.lists(
    st.sampled_from(["The", " bridge", " was op", "ened", ".", "\n", "- ", "다리는", " ", "\x1b[31m"]), max_size=30
)


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=WIDTH, color_system=None)


def printed(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.file.getvalue())


@given(PIECES)
def test_all_words_are_printed_once_and_no_line_is_too_long(pieces: list[str]) -> None:
    out = terminal()
    words, answer = LiveAnswer(out, None), "".join(pieces)
    for piece in pieces:
        words.show(piece)
    if words.end(answer):
        text = printed(out)
        assert text.split() == printable(answer).split()
        # A wide character takes two columns; what has no white space is not cut.
        assert all(cell_len(line) <= WIDTH or " " not in line.strip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("pieces", "shown", "answer", "last_line"),
    [
        (["It has ", "four"], "It has ", "It has four lanes.", "It has four lanes."),  # goes on where the words end
        (["The text does not say it. "], None, "The passages do not say.", "The passages do not say."),
    ],
)
def test_the_answer_completes_or_replaces_the_streamed_words(
    pieces: list[str], shown: str | None, answer: str, last_line: str
) -> None:
    out = terminal()
    words = LiveAnswer(out, None)
    for piece in pieces:
        words.show(piece)
    assert shown in (None, printed(out))
    assert words.end(answer)
    assert printed(out).splitlines()[-1] == last_line


@pytest.mark.parametrize("pieces", [[], ["One"]])
def test_an_answer_without_streamed_words_is_printed_whole(pieces: list[str]) -> None:
    words = LiveAnswer(terminal(), None)
    for piece in pieces:
        words.show(piece)
    assert not words.end("One")
    assert not LiveAnswer(None, None).end("One")


def test_the_spinner_shows_progress() -> None:
    spinner = terminal().status("Reading...")
    words = LiveAnswer(None, spinner)
    words.progress(3, 40)
    assert spinner.status == "Reading: 3 of 40 tokens..."
    words.found("Who?", [Hit(Passage("p1", "a.txt", "A", 0, 4, 1, (), "Text"))] * 2)
    assert spinner.status == "Reading 2 passages..."
    words.progress(512, 1431)
    assert spinner.status == "Reading 2 passages: 512 of 1,431 tokens..."


TEXT = "One sentence. Another one. A third, far away from the others. The last."


def cited(start: int, end: int, passage_id: str = "p1") -> Citation:
    return Citation("a.txt", 1, 100 + start, 100 + end, TEXT[start:end], passage_id)


def test_touching_quotes_are_joined_and_rules_are_left_out() -> None:
    passage = Passage("p1", "a.txt", "A", 100, 100 + len(TEXT), 1, (), TEXT)
    passages = {"p1": Hit(passage, 1.0, 1, 1, 0.9)}
    quotes = [cited(14, 26), cited(0, 13), cited(0, 26), cited(62, 71), cited(0, 5, "p2")]
    shown = [(c.passage_id, c.quote) for c in _joined(quotes, passages)]
    assert shown == [("p1", "One sentence. Another one."), ("p1", "The last."), ("p2", "One s")]
    assert _flat("=====\nTitle\n=====\n\n| a |\n+---+\nb --- c").split() == "Title | a | b --- c".split()


def answered(*sentences: tuple[str, Support], strategy: str = "checked", **changes: Any) -> Answer:
    """With a quote for every sentence of TEXT that an answer's sentence is about, the first for the first."""
    spans = [(0, 13), (14, 26), (27, 61), (62, 71)][: len(sentences)]
    receipt = replace(parse_receipt((ROOT / "tests/golden/receipt-5.json").read_bytes()), strategy=strategy)
    told, start = list[AnswerSentence](), 0
    for number, (sentence, support) in enumerate(sentences):
        told.append(AnswerSentence(start, start + len(sentence), None if support == "none" else number, support))
        start += len(sentence) + 1
    passage = Passage("p1", "a.txt", "A", 100, 100 + len(TEXT), 1, (), TEXT)
    answer = Answer(
        question="How many?",
        answer=" ".join(sentence for sentence, _ in sentences),
        declined=False,
        citations=tuple(cited(*span) for span, each in zip(spans, told, strict=True) if each.citation is not None),
        passages=(Hit(passage, 1.0, 1, 1, 0.9),),
        receipt=receipt,
        timings=None,
        sentences=tuple(told),
    )
    return replace(answer, **changes)


def shown(answer: Answer, capsys: pytest.CaptureFixture[str]) -> str:
    print_answer(answer)
    return capsys.readouterr().out


@pytest.mark.parametrize("confidence", MEANING)
def test_an_answer_ends_with_its_confidence(confidence: Confidence, capsys: pytest.CaptureFixture[str]) -> None:
    declined = confidence == "not found"
    for certainty, told in ((0.257, " (26%)"), (None, "")):
        answer = answered(("One.", "backed"), confidence=confidence, certainty=certainty, declined=declined)
        last = shown(answer, capsys).rstrip().split("\n\n")[-2]
        meaning = MEANING[confidence] if told or declined else UNMEASURED
        assert last == f"{confidence.capitalize()}{told}: {meaning}"


def test_a_quote_that_supports_no_sentence_is_only_near(capsys: pytest.CaptureFixture[str]) -> None:
    two = answered(("One.", "backed"), ("Last.", "near"))
    far = replace(two, citations=(cited(0, 13), cited(62, 71)))
    assert re.findall(r"\[\d\] (.*)", shown(far, capsys)) == [
        "a.txt · page 1 · characters 100–113",
        "a.txt · page 1 · characters 162–171, only near",
    ]
    assert "only near" not in shown(two, capsys)  # its quotes touch, so they are one


def test_an_uncited_answer_shows_the_passages_read(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(answered(("Zeppelins.", "none")), capsys)
    assert text.startswith("Zeppelins.\n\nCould not be matched with a passage: Zeppelins.\n\nRead, but not cited:\n")


def test_changed_words_are_colored_or_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    far = "The harbour is blue. " * 20
    pieces = word_diff(f"{far}Ferries leave at nine.\x1b[31m", f"{far}Ferries leave at ten.\x1b[31m")
    print_words(pieces)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"    \.\.\. \d+ characters \.\.\.", first)
    assert second.endswith("Ferries leave at [-nine. [31m-]{+ten. [31m+}")
    out = Console(file=io.StringIO(), force_terminal=True, width=80, color_system="standard", no_color=False)
    monkeypatch.setattr(display, "console", lambda: out)
    print_words(pieces)
    assert isinstance(out.file, io.StringIO)
    assert re.search(r"\x1b\[9;31mnine.*\x1b\[32mten", out.file.getvalue().replace("\n", " "))
    assert "[-" not in printed(out)


def test_problems_are_shown_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    print_problems([Verdict(f"{n}.png", "skipped", "an image: needs OCR") for n in range(2)])
    assert capsys.readouterr().err.count("pip install") == 1
    many = [Verdict(f"{n}.mp4", "skipped", "video is not read: transcribe it first") for n in range(23)]
    print_problems(many, Path("my kb"))
    told = capsys.readouterr().err
    assert "... and 3 more; all are listed by: openbook status --kb 'my kb'\n" in told
    assert told.endswith("openbook add --kb 'my kb' COPY.\n")
    print_problems(many)  # of --docs, which no status lists
    assert "... and 3 more\n" in capsys.readouterr().err


def test_without_a_terminal_progress_is_rare_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> list[str]:
        display.error_console.cache_clear()
        with display.stages() as show:
            show("fetch", 3_000_000, 1_100_000_000)
            show("embed", 10, 2_000)
            show("embed", 20, 0)
        return capsys.readouterr().err.splitlines()

    assert shown() == []
    monkeypatch.setattr(display, "LINE_S", 0.0)
    assert shown() == ["Fetching: 3 of 1,100 MB", "Embedding passages: 10 of 2,000", "Embedding passages: 20"]
    clock = iter(range(0, 1_000, 20))
    monkeypatch.setattr(display, "LINE_S", 30.0)
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    assert len(shown()) == 1
