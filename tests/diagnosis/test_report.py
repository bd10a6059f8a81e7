"""The page: one file, no network, and nobody else's words become part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbook.core.errors import ConfigError, StorageError
from openbook.core.records import ModelIdentity
from openbook.diagnosis import report as page
from openbook.diagnosis.report import (
    NUMBERS,
    REPORT,
    marked_pieces,
    observations_path,
    read_outcomes,
    visible,
    write_report,
    write_results,
)
from openbook.diagnosis.run_log import Observation
from openbook.diagnosis.summary import compare, summarise
from openbook.diagnosis.verdicts import QuestionVerdict, verdicts_of
from tests.diagnosis.table_engine import HEADER, logged, observation
from tests.diagnosis.test_summary import mixed

HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x00\x1b[31m\u202e\u2028end"


class Elements(HTMLParser):
    """What a browser would see: tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def written(path: Path, cases: Sequence[Observation], title: str = "Diagnosis") -> str:
    summary = summarise(HEADER, verdicts_of(cases))
    write_report(path, title, [(summary, verdicts_of(cases))])
    return path.read_text(encoding="utf-8")


def inert_page(path: Path, cases: Sequence[Observation], title: str = "Diagnosis") -> str:
    """The page, after a look that what others wrote became no element of it."""
    content = written(path, cases, title)
    tags = Elements(content).tags
    names, attributes = [tag for tag, _ in tags], {name for _, attrs in tags for name in attrs}
    assert (names.count("script"), names.count("style")) == (1, 1)
    assert not {"a", "img", "text", "iframe", "link", "object", "template", "abbr"} & {*names}
    assert not {"href", "src", "action", "style", "srcdoc", "background"} & attributes
    assert not any(name.startswith("on") for name in attributes)
    return content


def hostile_case() -> Observation:
    said = dict.fromkeys(("closed", "opened", "oracle", "document", "text"), HOSTILE)
    return observation(1, question=HOSTILE + "?", answers=(HOSTILE,), tags=(HOSTILE, "[red]x[/red]"), **said)


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    content = inert_page(tmp_path / "r.html", [hostile_case(), observation(2, failure=HOSTILE)], HOSTILE)
    assert not any(c in content for c in "\x00\x1b\u202e\u2028")
    tags = next(attributes["data-tags"] for tag, attributes in Elements(content).tags if tag == "details")
    assert tags is not None
    assert json.loads(tags)[1] == "[red]x[/red]"


def test_a_browser_is_told_to_run_nothing_else(tmp_path: Path) -> None:
    content = written(tmp_path / "r.html", mixed())
    tags = Elements(content).tags
    policy = next(a["content"] for tag, a in tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        assert inside is not None
        assert base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode() in policy
    assert not re.search(r"https?:|//[a-z]|url\(|@import", content)


def test_the_page_says_everything_without_a_script(tmp_path: Path) -> None:
    content = re.sub(r"<script>.*?</script>", "", written(tmp_path / "r.html", mixed()), flags=re.DOTALL)
    seen = Elements(content)
    words = " ".join(seen.words)
    assert "retriever miss 4/12 = 33%" in words
    assert "50% of the misses (4 of 8) are retriever misses" in words
    assert "13 questions, 1 of them failed" in words
    assert words.count("Accepted:") == 13
    assert "The passage that holds the answer stands at rank 9" in words
    assert "The engine fell over." in words
    assert "kb, version 1" in words
    assert sum(tag == "details" for tag, _ in seen.tags) == 13


def test_a_passage_that_another_wording_was_given_is_not_called_ungiven(tmp_path: Path) -> None:
    case = observation(1, found=())
    second = replace(case.asked[0], text="And otherwise?", found=("p0", "p1"))
    both = written(tmp_path / "r.html", [replace(case, asked=(case.asked[0], second))])
    assert "given to the reader as number 2 (wording 2), holds the answer" in both
    assert "not given to the reader" not in both
    assert "not given to the reader, holds the answer" in written(tmp_path / "r.html", [case])
    assert "given to the reader as number 1, holds the answer" in written(tmp_path / "r.html", [observation(1)])


def test_two_that_write_one_page_at_the_same_time_both_write_a_whole_one(tmp_path: Path) -> None:
    path, cases = tmp_path / "r.html", mixed()
    others = []

    def meanwhile() -> Iterator[tuple[Observation, QuestionVerdict]]:
        others.append(written(path, cases, "Another"))
        yield from verdicts_of(cases)

    write_report(path, "Mine", [(summarise(HEADER, verdicts_of(cases)), meanwhile())])
    mine = path.read_text(encoding="utf-8")
    assert mine.replace("Mine", "Another") == others[0]
    assert mine.endswith("</html>\n")
    assert list(tmp_path.iterdir()) == [path]


def test_bars_are_as_wide_as_the_shares(tmp_path: Path) -> None:
    bar = re.findall(r'<svg class="bar".*?</svg>', written(tmp_path / "r.html", mixed()), re.DOTALL)[0]
    assert sum(float(w) for w in re.findall(r' width="([\d.]+)"', bar)) == pytest.approx(1000, abs=0.1)
    assert "<rect" not in written(tmp_path / "r.html", [])


SPANS = st.lists(st.tuples(st.integers(-5, 50), st.integers(-5, 50)), max_size=5)


@given(st.text(max_size=40), SPANS, SPANS)
def test_spans_are_marked_where_they_are_and_no_character_is_lost(
    text: str, gold: list[tuple[int, int]], cited: list[tuple[int, int]]
) -> None:
    assert "".join(piece for _, piece in marked_pieces(text, gold, cited)) == text
    assert len(visible(text)) == len(text)
    pieces = marked_pieces("one two three", [(4, 7)], [(0, 7)])
    assert pieces == [("cited", "one "), ("gold cited", "two"), ("", " three")]


def test_of_very_many_the_first_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_QUESTIONS", 2)
    content = written(tmp_path / "r.html", mixed())
    assert content.count('<details class="q"') == 2 + 2 + 2 + 2 + 1 + 1
    assert "3 more questions are in the JSON" in content


def recorded(folder: Path, name: str, cases: Sequence[Observation]) -> Path:
    return logged(observations_path(folder, ModelIdentity(name, "", "claimed")), *cases)


def test_a_folder_has_numbers_and_a_report(tmp_path: Path) -> None:
    files = [recorded(tmp_path, "one at http://a/../b", mixed()), recorded(tmp_path, "two", mixed()[:5])]
    assert {file.parent for file in files} == {tmp_path}
    summaries, comparisons, written = write_results(tmp_path, "Diagnosis", files)
    assert len(summaries) == 2
    assert comparisons[0].questions == 5
    value = json.loads((tmp_path / NUMBERS).read_text())
    assert (json.loads(json.dumps(written)), value["format"]) == (value, 1)
    assert value["comparisons"][0]["notes"] == list(comparisons[0].notes)
    assert value["models"][0]["overall"]["verdicts"]["retriever_miss"]["count"] == 4
    assert value["models"][0]["advice"][0]["what"].startswith("Right:")
    assert value["models"][0]["header"]["knowledge_base_version"] == 1
    assert "One against the other" in (tmp_path / REPORT).read_text()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".") and not p.name.endswith(".lock")]
    limited, _, _ = write_results(tmp_path, "Diagnosis", files, 3)
    assert limited[0].overall.questions == 3


def test_outcomes_are_read_back(tmp_path: Path) -> None:
    write_results(tmp_path, "Diagnosis", [recorded(tmp_path, "one", mixed())])
    (one,) = read_outcomes(tmp_path / NUMBERS)
    assert one.name == "table"
    assert compare(one, one).questions == 12
    header = json.dumps(json.loads((tmp_path / NUMBERS).read_text())["models"][0]["header"])
    great = f'{{"header": {header}, "outcomes": [{{"id": "a", "verdict": "great", "right": true}}]}}'
    bad = f'{{"format": 1, "models": [{great}]}}'
    for content in ("[]", "{}", '{"format": 2}', '{"format": 1, "models": [{}]}', "x", bad):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ConfigError, match=r"bad\.json"):
            read_outcomes(tmp_path / "bad.json")
    with pytest.raises(StorageError, match="Cannot read"):
        read_outcomes(tmp_path / "missing.json")
