from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from openbook.core.errors import ConfigError
from openbook.inference.llamacpp import LlamaCppEngine
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.models import ModelReference
from openbook.training.reader_objective import (
    PassageLine,
    Question,
    WordIndex,
    hard_negatives,
    number_passages,
    reader_prompt,
    reader_trees,
)
from openbook.training.recipe import ReaderObjective
from tests.training.examples import Letters

LETTERS: Any = Letters()
LINES = [
    PassageLine(
        title="Ferries",
        passage=f"The ferry to Sandhavn number {i} leaves at {i} o'clock from pier {i + 3}.",
        questions=(
            Question(question=f"When does ferry {i} leave?", answers=(f"{i} o'clock",)),
            Question(question="Who is the captain?"),
        ),
    )
    for i in range(1, 7)
]


def objective(**changes: Any) -> ReaderObjective:
    return ReaderObjective(kind="reader", instruction="answer", abstention="not stated", **changes)


@pytest.mark.model
def test_a_tree_holds_the_tokens_that_the_engine_reads(model_reference: ModelReference, engine: LlamaCppEngine) -> None:
    tokenizer = open_tokenizer(model_reference.main_file)
    (tree,) = reader_trees([("line 1", LINES[0])], objective(), tokenizer, seed=1)
    for branch, question in zip(tree.branches, LINES[0].questions, strict=True):
        blocks = engine.tokenize(reader_prompt("answer", LINES[0].all_passages, question.question))
        read = [token for block in blocks for token in block]
        assert [*tree.beginning, *tree.passages[0], *branch.tokens[: branch.learn_start]] == read
        answer = b"".join(map(tokenizer.model.piece, branch.tokens[branch.learn_start :])).decode()
        assert answer == (question.answers[0] if question.answers else "not stated")
        assert tokenizer.model.ends_generation(branch.tokens[-1])


def test_negatives_share_words_with_the_question_and_hold_no_answer() -> None:
    passages, questions = number_passages(LINES)
    index = WordIndex([passage.text for passage in passages])
    found = hard_negatives(passages, questions, 1.0, 2, index)
    assert len(found) == sum(bool(each.answers) for each in questions)
    for each in found:
        (own,) = next(other.own for other in questions if other.question == each.question)
        assert each.answers == ()
        assert each.own != (own,)
        assert f"at {own + 1} o'clock" not in passages[each.own[0]].text
    assert hard_negatives(passages, questions, 1.0, 2, index) == found


def test_passages_stand_with_similar_ones() -> None:
    def line(question: str, answer: str, *texts: str) -> PassageLine:
        passages = [{"text": text} for text in texts]
        asked = [{"question": question, "answers": [answer]}]
        return PassageLine.model_validate({"passages": passages, "questions": asked})

    lines = [
        ("line 1", line("who at pier", "ann", "pier one")),
        ("line 2", line("who at the pier", "bob", "pier two")),
        ("line 3", line("both at pier", "ann cid", "pier one", "pier three")),
    ]
    needed = {"ann": {"pier one"}, "bob": {"pier two"}, "ann cid": {"pier one", "pier three"}}
    sizes = set()
    for seed in range(20):
        trees, again = (
            reader_trees(lines, objective(passages=3, negatives=1.0), PromptTokenizer(LETTERS), seed) for _ in range(2)
        )
        assert trees == again
        assert sum(branch.kind == "answer" for tree in trees for branch in tree.branches) == 3  # each question once
        for tree in trees:
            for branch in tree.branches:
                read = {spelled(tree.passages[number]) for number in branch.reads}
                assert 1 <= len(read) == len(branch.reads) <= 3
                assert needed.get(spelled(branch.tokens[branch.learn_start : -1]), set()) <= read
                sizes.add(len(read))
    assert sizes == {1, 2, 3}


def spelled(tokens: Sequence[int]) -> str:
    text = b"".join(map(LETTERS.piece, tokens)).decode()
    return " ".join(text.removeprefix("assage").split())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            {"passages": [{"text": "pier one"}, {"text": "pier two"}], "questions": [{"question": "where"}]},
            r"has 2 passages, and objective\.passages is 1\.",
        ),
        (
            {"passage": "from pier four", "questions": [{"question": "where", "answers": ["pier 4"]}]},
            r"has an answer that cannot be learned: .*'pier 4'.*'pier '\.$",
        ),
    ],
)
def test_a_line_that_cannot_be_learned_is_named(line: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"x line 3 {problem}"):
        reader_trees([("x line 3", PassageLine.model_validate(line))], objective(), PromptTokenizer(LETTERS), 1)
