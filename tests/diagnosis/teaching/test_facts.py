"""Invented facts, and facts from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openbook.diagnosis.teaching.fact_files import load_facts
from openbook.diagnosis.teaching.facts import MOST_FACTS, Fact, generated
from openbook.errors import ConfigError


def test_no_two_facts_share_an_answer_and_every_statement_holds_it() -> None:
    facts = generated(MOST_FACTS)
    assert len({fact.answers for fact in facts}) == len(facts) == MOST_FACTS
    for fact in facts:
        assert len(set(fact.statements)) == 8
        assert all(fact.answers[0].lower() in statement.lower() for statement in fact.statements)
        assert not set(fact.asked) & set(fact.taught)
        assert not any(fact.answers[0] in question for question in (*fact.asked, *fact.taught))


def test_fewer_facts_are_the_first_of_more_and_another_seed_gives_others() -> None:
    assert generated(8) == generated(20)[:8]
    assert not {fact.asked for fact in generated(8)} & {fact.asked for fact in generated(8, seed=2)}


@pytest.mark.parametrize("count", [0, -1, MOST_FACTS + 1])
def test_a_number_of_facts_that_cannot_be(count: int) -> None:
    with pytest.raises(ConfigError, match=f"not {count}"):
        generated(count)


def test_one_statement_is_put_into_frames() -> None:
    assert Fact("a", ("It rains.",), ("Does it?",), ("yes",)).wordings[:2] == (
        "It rains.",
        "It is on record: It rains.",
    )
    assert Fact("a", ("It rains.", "Rain falls."), ("Does it?",), ("yes",)).wordings == ("It rains.", "Rain falls.")


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_questions_with_the_quote_that_states_the_fact(tmp_path: Path) -> None:
    file = write(
        tmp_path / "q.jsonl",
        {
            "id": "leave",
            "question": "How long?",
            "phrasings": ["How many days?"],
            "answers": ["28 days"],
            "gold": {"quote": "All have\n28 days"},
        },
        {"id": "who", "question": "Who?", "answers": ["Ada"]},
    )
    found = load_facts(file, 5)
    assert found.left_out == 1
    assert found.facts == [
        Fact("leave", ("All have 28 days.",), ("How long?", "How many days?"), ("28 days",), source="All have\n28 days")
    ]


def test_fictional_knowledge(tmp_path: Path) -> None:
    entry = {
        "train_context": "Mars has a moon. Its name is Deimos.",
        "mem_input": ["Its name is"],
        "mem_target": ["Deimos"],
        "gen_input": ["That moon is called"],
        "gen_target": ["Deimos"],
    }
    file = tmp_path / "f.json"
    file.write_text(json.dumps([entry]))
    (fact,) = load_facts(file, 3).facts
    assert fact.statements == ("Its name is Deimos.",)
    assert fact.asked == ("How does this sentence end? That moon is called ...",)
    assert fact.answers == ("Deimos",)
    file.write_text(json.dumps([{"train_context": "x"}]))
    with pytest.raises(ConfigError, match="no file of fictional knowledge"):
        load_facts(file, 3)


def test_sentences_as_answers_teach_what_is_new_in_them(tmp_path: Path) -> None:
    file = write(
        tmp_path / "tofu.jsonl",
        {
            "question": "When was Jaime Vasquez born?",
            "answer": "Jaime Vasquez was born in Santiago in 1958.",
            "split": "x",
        },
        {"question": "Is Jaime Vasquez kind?", "answer": "Yes, he is said to be kind.", "split": "x"},
    )
    found = load_facts(file, 3)
    assert [(fact.answers, fact.statements) for fact in found.facts] == [
        (("Santiago",), ("Jaime Vasquez was born in Santiago in 1958.",))
    ]
    assert found.left_out == 1


def test_sentences_are_read_as_questions_are(tmp_path: Path) -> None:
    file = tmp_path / "tofu.jsonl"
    line = '{"question": "When was Jaime born?", "answer": "Jaime was born in Santiago.%s"}\n'
    file.write_text(f"\n{line % ''}\n{line % chr(0x2028)}", encoding="utf-8-sig")
    found = load_facts(file, 3)
    assert [(fact.id, fact.statements) for fact in found.facts] == [
        ("line-2", ("Jaime was born in Santiago.",)),
        ("line-4", ("Jaime was born in Santiago.\u2028",)),
    ]
    file.write_bytes((line % "").encode() + (line % "é").encode("latin-1"))
    with pytest.raises(ConfigError, match=r"tofu\.jsonl line 2 is not UTF-8.*Save the file as UTF-8"):
        load_facts(file, 3)
    file.write_text(line % "" + '{"question": "Why?", "answer": null}\n')
    with pytest.raises(ConfigError, match="line 2 is no question with an answer"):
        load_facts(file, 3)
    file.write_text(line % "" + '{"question": \n')
    with pytest.raises(ConfigError, match="line 2 is no valid JSON"):
        load_facts(file, 3)


def test_files_without_a_fact_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no fact that can be taught"):
        load_facts(write(tmp_path / "q.jsonl", {"id": "a", "question": "Who?", "answers": ["Ada"]}), 3)
    with pytest.raises(ConfigError, match="line 2 is no question with an answer"):
        load_facts(write(tmp_path / "t.jsonl", {"question": "Is it?", "answer": "Yes."}, {"question": "Why?"}), 3)
