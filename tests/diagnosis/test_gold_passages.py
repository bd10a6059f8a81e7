"""Which passages count as holding an answer, where the question has no gold."""

from __future__ import annotations

from pathlib import Path

import pytest

from openbook.diagnosis.gold_passages import GoldFinder, documents_named, topic_of
from openbook.diagnosis.questions import Gold, Question
from openbook.knowledge import KnowledgeBase
from openbook.knowledge.index.scope import UNLABELLED
from openbook.testing import HashEmbedder
from tests.conftest import base_with

TEXTS = {
    "docs/town.md": "# Wheatland, Wisconsin\n\nWheatland is a town in Vernon County.\n",
    "docs/player.md": "# Corey Bramlet\n\nHe was born in Wheatland, and played for six years.\n",
    "docs/long.md": "# Players\n\nCorey Bramlet is one of them.\n\n"
    + "Nobody knows why. " * 60
    + "\n\nHis town is Wheatland.\n",
    "docs/changes.md": "# Changes\n\nThe crash on start is gone, see #670. Two quays in North Bay froze.\n",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    return base_with(tmp_path_factory.mktemp("holding"), TEXTS)


@pytest.fixture(scope="module")
def finder(base: KnowledgeBase) -> GoldFinder:
    return GoldFinder(base, HashEmbedder(), UNLABELLED)


CITY, ISSUE, SHIPS = (
    "In what city was {} born?",
    "Which issue did Ada Brandl open?",
    "How many ships does Ada Brandl own?",
)


@pytest.mark.parametrize(
    ("question", "answers", "documents"),
    [
        # The words of an answer count in documents on the topic,
        (CITY.format("Corey Bramlet"), ("Wheatland",), {"player.md", "long.md"}),
        (CITY.format("Adrian Bramlet's sister Corey"), ("Wheatland",), {"player.md", "long.md"}),
        (CITY.format("Miriam Abadie"), ("Wheatland",), set()),
        ("where is the town?", ("Wheatland",), {"town.md", "long.md"}),
        ("Where is Wheatland?", ("Vernon County",), {"town.md"}),
        ("Which towns are there?", ("Wheatland",), {"town.md", "long.md"}),
        # and an answer with a digit, or of several words, on any topic.
        (ISSUE, ("#670",), {"changes.md"}),
        (ISSUE, ("six hundred", "#670"), {"changes.md"}),
        ("Where does Ada Brandl live?", ("North Bay",), {"changes.md"}),
        (SHIPS, ("two",), set()),
        (SHIPS, ("two", "6"), set()),
        (SHIPS, ("two", "671"), set()),
    ],
)
def test_passages_hold_the_words_of_an_answer(
    finder: GoldFinder, question: str, answers: tuple[str, ...], documents: set[str]
) -> None:
    found = finder.find(Question("q", question, answers))
    assert {Path(hit.passage.document).name for hit in found.hits} == documents
    assert found.located == ("answers" if documents else "")
    marked = {hit.passage.text[slice(*span)] for hit in found.hits for span in found.spans_in(hit.passage)}
    assert marked == ({answers[-1]} if documents else set())


def test_a_passage_on_the_topic_comes_before_an_answer_elsewhere(tmp_path: Path) -> None:
    texts = {"arvik.txt": "The ferry to Arvik leaves at 09:40.", "hessay.txt": "The ferry to Hessay leaves at 09:40."}
    finder = GoldFinder(base_with(tmp_path, texts), HashEmbedder(), UNLABELLED)
    gold = finder.find(Question("q", "When does the ferry to Hessay leave?", ("09:40",)))
    assert [Path(hit.passage.document).name for hit in gold.hits] == ["hessay.txt"]


def test_gold_is_found_by_span_quote_and_answers(finder: GoldFinder, base: KnowledgeBase) -> None:
    (document,) = (each for each in base.documents() if each.endswith("docs/town.md"))
    start = (base.text(document) or "").index("town")
    for gold, located in (
        (Gold("docs/town.md", start, start + 4, "town"), "span"),
        (Gold("./docs/town.md", start, start + 4), "span"),
        (Gold("town.md", 0, 5, "town"), "quote"),
        (Gold("", quote="a  town\nin"), "quote"),
        (Gold("other.txt", 0, 5, "no such words"), "answers"),
        (Gold("town.md", 5000, 6000), "answers"),
    ):
        found = finder.find(Question("q", "Where is Wheatland?", ("Vernon County",), gold=gold))
        assert found.located == located, gold
        (passage,) = (hit.passage for hit in found.hits)
        marked = {"answers": "Vernon County"}.get(located, " ".join(gold.quote.split()) or "town")
        assert [passage.text[a:b] for a, b in found.spans_in(passage)] == [marked], gold


def test_a_backslash_in_a_name_separates_folders_or_begins_an_escape() -> None:
    paths = ["/kb/docs/town.md", r"/kb/docs/a\x01b.md"]
    assert documents_named(paths, r"docs\town.md") == documents_named(paths, "./docs/town.md") == paths[:1]
    assert documents_named(paths, r"docs/a\x01b.md") == paths[1:]
    assert documents_named(paths, "") == []


def test_a_quote_is_found_across_passages_and_marked_in_windows(finder: GoldFinder, base: KnowledgeBase) -> None:
    quote = "Corey Bramlet is one of them.\n" + "Nobody knows why. " * 60 + "\n His town is Wheatland."
    found = finder.find(Question("q", "Where does he live?", ("a paraphrase of it",), gold=Gold("", quote=quote)))
    assert found.located == "quote"
    assert {Path(hit.passage.document).name for hit in found.hits} == {"long.md"}
    assert len(found.hits) > 1
    assert all(found.spans_in(hit.passage) for hit in found.hits)
    quote = "Corey Bramlet is one of them."
    found = finder.find(Question("q", "Where does he live?", ("a paraphrase of it",), gold=Gold("", quote=quote)))
    _, hits = base.search("Corey Bramlet's town", HashEmbedder(), windows=True)
    windows = [hit.passage for hit in hits if hit.passage.parts]
    assert {window.text[start:end] for window in windows for start, end in found.spans_in(window)} == {quote}
    assert not any(found.spans_in(hit.passage) for hit in hits if not hit.passage.parts)


@pytest.mark.parametrize(
    ("question", "answer", "text", "is_in"),
    [
        ("What genre is Mission?", "rock", "XMII, or Transmission 4.1, is rock", False),
        ("What genre is Mission?", "rock", "The mission: rock", True),
        ("what religions are there in indonesia?", "Islam", "Victoria: other religions, such as Islam", False),
        ("what religions are there in indonesia?", "Islam", "Religions of Indonesia: Islam and others", True),
        ("法国的首都是哪里？", "巴黎", "", True),
        ("Is it so?", "so", "anything", True),
        ("When does the Ferry to Hessay leave?", "09:40", "to Arvik at 09:40", False),
    ],
)
def test_the_topic_of_a_text(question: str, answer: str, text: str, is_in: bool) -> None:
    assert topic_of(Question("q", question, (answer,)))(text) is is_in
