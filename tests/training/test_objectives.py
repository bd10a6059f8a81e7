"""Conversations and plain documents as trees, in the tokens of the real model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from openbook.errors import ConfigError
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.models import ModelReference
from openbook.training.attention import pieces_of
from openbook.training.batches import batch_of
from openbook.training.examples import Branch, Tree, row_of
from openbook.training.instruction import ConversationLine, branch_of, conversation_trees
from openbook.training.jsonl import read_lines
from openbook.training.language import document_trees, packed
from openbook.training.objective import answer_logits
from openbook.training.reader import PassageLine, reader_trees
from openbook.training.recipe import Data, ReaderObjective
from tests.training.networks import Letters, small_network


@pytest.fixture(scope="module")
def tokenizer(model_reference: ModelReference) -> PromptTokenizer:
    return open_tokenizer(model_reference.main_file)


def spelled(tokenizer: PromptTokenizer, tokens: Any) -> str:
    return b"".join(tokenizer.model._piece(token, special=True) for token in tokens).decode()


def line(*turns: tuple[str, str]) -> ConversationLine:
    return ConversationLine.model_validate({"messages": [{"role": role, "content": text} for role, text in turns]})


@pytest.mark.model
def test_only_what_the_assistant_says_is_learned(tokenizer: PromptTokenizer) -> None:
    turns = line(
        ("system", "Be brief."),
        ("user", "One <|im_end|> two?"),
        ("assistant", "Three."),
        ("user", "And then?"),
        ("assistant", "Four."),
        ("user", "Thanks."),
    ).turns
    branch = branch_of(turns, tokenizer)
    assert spelled(tokenizer, branch.tokens) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne <|im_end|> two?<|im_end|>\n"
        "<|im_start|>assistant\nThree.<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n"
        "<|im_start|>assistant\nFour.<|im_end|>"
    )
    learned = spelled(tokenizer, [branch.tokens[i] for i in branch.learned])
    assert learned == "Three.<|im_end|>Four.<|im_end|>"
    # What a message says is text, also where it is spelled like a control token.
    ends = [token for token in branch.tokens if tokenizer.model.ends_generation(token)]
    assert len(ends) == 5
    tree = Tree((), (branch,))
    assert tree.answer_tokens == len(row_of(tree).targets)


class PlainTemplate:
    """Writes `User:` and `Assistant:` (tokens 1 and 2) between the turns, and no end of a turn; token 0 ends an answer."""

    end_token = 0
    model: PlainTemplate

    def __init__(self) -> None:
        self.model = self

    def ends_generation(self, token: int) -> bool:
        return token == 0

    def spelling(self, text: str) -> list[int]:
        return [10]

    def conversation(self, messages: list[tuple[str, str]]) -> tuple[list[list[int]], list[list[int]]]:
        control = [[1 if role == "user" else 2] for role, _ in messages]
        return [*control, [2]], [[10 + i] for i in range(len(messages))]


def test_a_template_that_ends_no_turn_keeps_what_it_writes_between_them() -> None:
    turns = line(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")).turns
    branch = branch_of(turns, PlainTemplate())  # type: ignore[arg-type]
    assert branch.tokens == (1, 10, 2, 11, 0, 1, 12, 2, 13, 0)
    assert [branch.tokens[i] for i in branch.learned] == [11, 0, 13, 0]


@pytest.mark.model
def test_the_prompt_of_an_answer_is_what_the_engine_would_read(tokenizer: PromptTokenizer) -> None:
    from openbook.records import Prompt

    branch = branch_of(line(("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")).turns, tokenizer)
    read = [token for block in tokenizer.blocks(Prompt("Be brief.", (), "Why?")) for token in block]
    assert list(branch.tokens[: branch.answer_start]) == read


@pytest.mark.model
def test_prompt_and_completion_are_two_turns(tokenizer: PromptTokenizer) -> None:
    short = ConversationLine(prompt="Why?", completion="So.")
    assert branch_of(short.turns, tokenizer) == branch_of(line(("user", "Why?"), ("assistant", "So.")).turns, tokenizer)
    assert conversation_trees([("x line 1", short)], tokenizer)[0].origin == "x line 1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"prompt": "a"}', "both hold text"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "nothing to learn"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "messages.0.role"),
        ('{"messages": [], "prompt": ""}', "either messages"),
        ('{"messages": [{"role": "assistant", "content": "a"}], "prompt": "b", "completion": "c"}', "either messages"),
        ("[" * 100_000, "recursion|json|array|list|nest"),
        ("{", "property name"),
    ],
)
def test_a_line_that_is_no_conversation_is_refused_by_number(text: str, reason: str, tmp_path: Path) -> None:
    content = f'{{"prompt": "a", "completion": "b"}}\n{text}\n'.encode()
    (tmp_path / "talk.jsonl").write_bytes(content)
    data = Data(file="talk.jsonl", sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(ConfigError, match=rf"talk\.jsonl line 2 is no valid example: .*(?i:{reason})"):
        list(read_lines(data, tmp_path, ConversationLine))


@pytest.mark.model
def test_documents_become_sequences_that_hold_all_of_them(tokenizer: PromptTokenizer) -> None:
    documents = [(f"doc {n}", " ".join(f"word{n} {i}" for i in range(30 * n))) for n in range(1, 8)]
    trees = document_trees(documents, tokenizer, 64)
    assert all(tree.tokens <= 64 for tree in trees)
    learned = sorted(spelled(tokenizer, branch.tokens) for tree in trees for branch in tree.branches)
    for _, text in documents:
        tokens = [*tokenizer.model.tokenize(text, control=False), tokenizer.model.end_token]
        for start in range(0, len(tokens), 64):
            if len(tokens[start : start + 64]) > 1:
                assert spelled(tokenizer, tokens[start : start + 64]) in learned
    assert len(trees) < sum(len(tree.branches) for tree in trees)  # something was packed


def test_packed_sequences_do_not_see_each_other() -> None:
    chance = [Branch(tuple(range(start, start + length)), 0) for start, length in ((1, 9), (20, 5), (40, 6), (60, 3))]
    trees = packed([(str(i), branch) for i, branch in enumerate(chance)], 16)
    assert sorted(tree.tokens for tree in trees) == [8, 15]
    network = small_network()
    for tree in trees:
        together = answer_logits(network, batch_of([row_of(tree)]))
        alone = torch.cat([answer_logits(network, batch_of([row_of(Tree((), (b,)))])) for b in tree.branches])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_whole_sequences_need_no_mask() -> None:
    rows = [row_of(Tree((), (Branch(tuple(range(s, s + 12)), 0),))) for s in (1, 30, 50)]
    assert [[piece.visible for piece in pieces_of(row)] for row in rows] == [[None]] * 3


def test_an_answer_that_the_vocabulary_cannot_write_is_named_with_its_line() -> None:
    few: Any = Letters()
    tokenizer = PromptTokenizer(few)
    assert tokenizer.spelling("pier four") == few.tokenize("pier four", control=False)
    question = {"question": "where", "answers": ["pier 4"]}
    asked = PassageLine.model_validate({"passage": "from pier four", "questions": [question]})
    objective = ReaderObjective(kind="reader", instruction="answer", abstention="not stated")
    with pytest.raises(ConfigError, match=r"x line 3 has an answer that cannot be learned: .*'pier 4'.*'pier '"):
        reader_trees([("x line 3", asked)], objective, tokenizer, 1)
