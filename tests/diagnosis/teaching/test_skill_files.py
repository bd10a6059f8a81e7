"""Skills of files: what is read, what is left out, and that nothing learned is measured."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openbook.diagnosis.teaching.lessons import skill_lesson
from openbook.diagnosis.teaching.skill_files import MOST_PASSAGE_CHARS, load_skill
from openbook.diagnosis.teaching.tasks import Example, Skill, examples
from openbook.errors import ConfigError, OpenBookError
from openbook.training.reader import PassageLine


def line_of(number: int, *questions: str, answer: str = "lost card") -> dict[str, Any]:
    asked = questions or (f"What is message {number} about?",)
    return {
        "title": f"Message {number}",
        "passage": f"I lost my card number {number}.",
        "questions": [{"question": question, "answers": [answer]} for question in asked],
    }


def write(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_passage_is_read_and_found_with_its_title(tmp_path: Path) -> None:
    found = load_skill(write(tmp_path / "Our Intents!.jsonl", [line_of(1), line_of(2)]))
    assert (found.skill.name, found.skill.guide, found.examples, found.left_out) == ("our-intents", "", 2, 0)
    (learned,), (measured,) = examples(found.skill, 1, 1)
    assert {learned.title, measured.title} == {"Message 1", "Message 2"}
    number = learned.title[-1]
    assert learned == Example(
        f"Message {number}",
        f"Message {number}\nI lost my card number {number}.",
        f"What is message {number} about?",
        ("lost card",),
    )


def test_the_same_file_trains_a_reader(tmp_path: Path) -> None:
    for line in [line_of(1), line_of(2, "One?", "Two?")]:
        PassageLine.model_validate(line)
    skill = load_skill(write(tmp_path / "a.jsonl", [line_of(i) for i in range(9)])).skill
    for learned in skill_lesson("own", examples(skill, 5, 3)[0], 1).lines:
        PassageLine.model_validate(learned)


def test_what_is_compressed_or_marked_is_read(tmp_path: Path) -> None:
    content = "\ufeff" + "".join(json.dumps(line_of(i)) + "\n\n" for i in range(3))
    (tmp_path / "intents.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    assert load_skill(tmp_path / "intents.jsonl.gz").skill.name == "intents"


def test_a_name_that_is_taken_or_empty(tmp_path: Path) -> None:
    lines = [line_of(1), line_of(2)]
    assert load_skill(write(tmp_path / "labelling.jsonl", lines)).skill.name == "own-labelling"
    assert load_skill(write(tmp_path / "ÄÖ.jsonl", lines)).skill.name == "own-"


@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=12),
    measured=st.integers(1, 10),
    learned=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_no_passage_is_learned_and_measured(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], measured: int, learned: int, seed: int
) -> None:
    lines = [line_of(i, *(f"{i}-{j}?" for j in range(size))) for i, size in enumerate(sizes)]
    skill = load_skill(write(tmp_path_factory.mktemp("s") / "a.jsonl", lines)).skill
    assume(measured <= sum(sizes) - max(sizes))
    to_learn, to_measure = examples(skill, learned, measured, seed)
    assert not {e.text for e in to_learn} & {e.text for e in to_measure}
    assert len(to_measure) == measured
    assert 1 <= len(to_learn) <= learned
    assert examples(skill, learned + 1, measured, seed)[1] == to_measure


def test_one_passage_under_several_titles_is_one_passage(tmp_path: Path) -> None:
    lines = [{**line_of(i), "passage": "I lost my card." if i % 2 else f"Where is card {i}?"} for i in range(20)]
    skill = load_skill(write(tmp_path / "a.jsonl", lines)).skill
    for seed in range(5):
        to_learn, to_measure = examples(skill, 20, 4, seed)
        assert ("I lost" in str(to_learn)) != ("I lost" in str(to_measure))


def test_too_few_to_learn_from(tmp_path: Path) -> None:
    skill = load_skill(write(tmp_path / "a.jsonl", [line_of(1), line_of(2, "One?", "Two?")])).skill
    with pytest.raises(ConfigError, match=r"a\.jsonl holds 3 examples; 3 to measure with leave none to learn from"):
        examples(skill, 200, 3)


def test_the_order_of_the_file_does_not_say_what_is_measured(tmp_path: Path) -> None:
    """Files are often sorted by label."""
    lines = [line_of(i, answer="first" if i < 50 else "second") for i in range(100)]
    skill = load_skill(write(tmp_path / "a.jsonl", lines)).skill
    assert {e.answers[0] for e in examples(skill, 50, 20)[1]} == {"first", "second"}
    assert examples(skill, 50, 20, 1)[1] != examples(skill, 50, 20, 2)[1]


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = [line_of(1), line_of(2), line_of(2)]
    lines.append({"passage": "x" * (MOST_PASSAGE_CHARS + 1), "questions": [{"question": "What?", "answers": ["x"]}]})
    lines.append({"passage": "Nothing.", "questions": [{"question": "What?"}, {"question": "Who?", "answers": []}]})
    found = load_skill(write(tmp_path / "a.jsonl", lines))
    assert (found.examples, found.left_out) == (2, 4)


def test_a_question_that_many_passages_answer_is_never_taught_as_unanswered(tmp_path: Path) -> None:
    def shares(skill: Skill) -> float:
        objective = skill_lesson("own", examples(skill, 4, 2)[0], 1).objective
        return float(objective["negatives"])

    assert shares(load_skill(write(tmp_path / "a.jsonl", [line_of(i) for i in range(6)])).skill) > 0
    assert shares(load_skill(write(tmp_path / "b.jsonl", [line_of(i, "Which intent?") for i in range(6)])).skill) == 0


def test_long_passages_get_long_sequences(tmp_path: Path) -> None:
    skill = load_skill(
        write(tmp_path / "a.jsonl", [{**line_of(i), "passage": f"{i} " + "word " * 500} for i in range(4)])
    ).skill
    assert skill_lesson("own", examples(skill, 2, 1)[0], 1).settings["sequence_tokens"] == 2048


def test_a_guide(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [line_of(1), line_of(2)])
    guide = tmp_path / "guide.md"
    guide.write_text("\ufeff# How\nRead it.\n", encoding="utf-8")
    assert load_skill(path, guide).skill.guide == "# How\nRead it."
    for content, message in ((b"", "is empty"), (b"x" * 8001, "more than 8,000"), (b"\xff\xfe", "is not UTF-8")):
        guide.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            load_skill(path, guide)
    with pytest.raises(OpenBookError, match="Cannot read the guide"):
        load_skill(path, tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([1], "line 1: it is no JSON object"),
        ({**line_of(1), "pasage": "x"}, r"unknown key 'pasage'.*Did you mean 'passage'"),
        ({"title": "x", "questions": [{"question": "x", "answers": ["x"]}]}, "line 1: there is no text"),
        ({"passage": "x", "questions": []}, "at least one question"),
        ({"passage": "x", "questions": ["x"]}, "no JSON object"),
        ({"passage": "x", "questions": [{"question": "", "answers": ["x"]}]}, "line 1: '' is no text"),
        ({"passage": "x", "questions": [{"question": "x", "answers": 1}]}, "must be a list of texts"),
        ({"passage": "\ud800", "questions": [{"question": "x", "answers": ["x"]}]}, "half a character"),
        ({"passage": "x", "questions": [{"question": "x", "answers": ["x"], "gold": 1}]}, "unknown key 'gold'"),
        (line_of(1), "holds 1 passages"),
    ],
)
def test_bad_lines_are_refused_with_their_place(line: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_skill(write(tmp_path / "a.jsonl", [line]))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="line 1 is not UTF-8"):
        load_skill(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text("{")
    with pytest.raises(ConfigError, match="line 1 is no valid JSON"):
        load_skill(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(ConfigError, match="holds 0 passages"):
        load_skill(tmp_path / "c.jsonl")
    with pytest.raises(OpenBookError, match="Cannot read"):
        load_skill(tmp_path)
