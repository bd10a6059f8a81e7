"""The page: one file, no network, and other people's words stay text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from openbook.diagnosis.verdicts import verdicts_of
from tests.conftest import ROOT
from tests.diagnosis.table_engine import HEADER, judged_cases, logged, mixed, observation

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
    """The page, checked to hold no element or attribute that its data could have made."""
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


def test_the_page_runs_only_its_own_script_and_says_everything_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(tmp_path / "r.html", mixed())
    seen = Elements(content)
    policy = next(a["content"] for tag, a in seen.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        assert inside is not None
        assert base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode() in policy
    assert not re.search(r"https?:|//[a-z]|url\(|@import", content)
    words = " ".join(Elements(re.sub(r"<script>.*?</script>", "", content, flags=re.DOTALL)).words)
    for text in (
        "retriever miss 4/12 = 33%",
        "50% of the misses (4 of 8) are retriever misses",
        "13 questions, 1 of them failed",
        "The passage that holds the answer stands at rank 9",
        "The engine fell over.",
        "kb, version 1",
    ):
        assert text in words
    assert words.count("Accepted:") == sum(tag == "details" for tag, _ in seen.tags) == 13
    bar = re.findall(r'<svg class="bar".*?</svg>', content, re.DOTALL)[0]
    assert sum(float(w) for w in re.findall(r' width="([\d.]+)"', bar)) == pytest.approx(1000, abs=0.1)
    assert "<rect" not in written(tmp_path / "r.html", [])
    monkeypatch.setattr(page, "MAX_QUESTIONS", 2)
    content = written(tmp_path / "r.html", mixed())
    assert content.count('<details class="q"') == 2 + 2 + 2 + 2 + 1 + 1
    assert "3 more questions are in the JSON" in content


def test_a_passage_that_another_wording_was_given_is_not_called_ungiven(tmp_path: Path) -> None:
    case = observation(1, found=())
    second = replace(case.asked[0], text="And otherwise?", found=("p0", "p1"))
    both = written(tmp_path / "r.html", [replace(case, asked=(case.asked[0], second))])
    assert "given to the reader as number 2 (wording 2), holds the answer" in both
    assert "not given to the reader" not in both
    assert "not given to the reader, holds the answer" in written(tmp_path / "r.html", [case])
    assert "given to the reader as number 1, holds the answer" in written(tmp_path / "r.html", [observation(1)])


SPANS = st.lists(st.tuples(st.integers(-5, 50), st.integers(-5, 50)), max_size=5)


@given(st.text(max_size=40), SPANS, SPANS)
def test_spans_are_marked_where_they_are_and_no_character_is_lost(
    text: str, gold: list[tuple[int, int]], cited: list[tuple[int, int]]
) -> None:
    assert "".join(piece for _, piece in marked_pieces(text, gold, cited)) == text
    assert len(visible(text)) == len(text)
    pieces = marked_pieces("one two three", [(4, 7)], [(0, 7)])
    assert pieces == [("cited", "one "), ("gold cited", "two"), ("", " three")]


def test_the_page_shows_comparisons_and_certainty(tmp_path: Path) -> None:
    cases = judged_cases()
    summary, other = (summarise(each, verdicts_of(cases)) for each in (HEADER, replace(HEADER, knowledge_base="b")))
    found = replace(compare(summary, other), left_out=1234)
    write_report(tmp_path / "r.html", "t", [(summary, [])], [found])
    content = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert summary.calibration.settings
    assert content.count('<path class="certainty"') == len(summary.calibration.parts) == 4
    for text in (
        f"<pre>{summary.calibration.settings}</pre>",
        *("supported", "not found", "40/42 = 95%"),
        *summary.calibration.notes(),
        "They differ in knowledge base: kb and b.",
        "because only one of the two was asked them: 1,234.",
    ):
        assert text in content
    assert "<script>alert" not in content


def recorded(folder: Path, name: str, cases: Sequence[Observation]) -> Path:
    return logged(observations_path(folder, ModelIdentity(name, "", "claimed")), *cases)


def test_the_golden_numbers(tmp_path: Path) -> None:
    """Counts, shares, costs, certainty and the comparison of two small runs; sentences are asserted where they are made."""
    files = [recorded(tmp_path, "one at http://a/../b", mixed()), recorded(tmp_path, "two", judged_cases())]
    assert {file.parent for file in files} == {tmp_path}
    summaries, comparisons, written = write_results(tmp_path, "Diagnosis", files)
    text = (tmp_path / NUMBERS).read_text()
    assert json.loads(json.dumps(written, allow_nan=False)) == json.loads(text)
    numbers = json.loads(text, parse_float=lambda digits: round(float(digits), 9))
    assert all(each.pop("advice")[0]["what"].startswith("Right:") for each in numbers["models"])
    del numbers["openbook_version"]
    assert numbers == json.loads((ROOT / "tests/golden/diagnosis-1.json").read_text())
    assert "One against the other" in (tmp_path / REPORT).read_text()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".") and not p.name.endswith(".lock")]
    one, two = read_outcomes(tmp_path / NUMBERS)
    assert (one.name, one.header, tuple(one.outcomes)) == ("table", HEADER, summaries[0].outcomes)
    assert compare(one, two) == comparisons[0]
    limited, _, _ = write_results(tmp_path, "Diagnosis", files, 3)
    assert limited[0].overall.questions == 3


def test_other_files_are_not_read_as_numbers(tmp_path: Path) -> None:
    outcome = {"id": "a", "verdict": "great", "right": True}
    bad = json.dumps({"format": 1, "models": [{"header": asdict(HEADER), "outcomes": [outcome]}]})
    for content in ("[]", "{}", '{"format": 2}', '{"format": 1, "models": [{}]}', "x", bad):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ConfigError, match=r"bad\.json"):
            read_outcomes(tmp_path / "bad.json")
    with pytest.raises(StorageError, match="Cannot read"):
        read_outcomes(tmp_path / "missing.json")
