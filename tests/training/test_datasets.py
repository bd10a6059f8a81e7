"""Data files, and conversations and plain documents as trees."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from openbook.core.errors import ConfigError, StorageError
from openbook.core.records import Prompt
from openbook.inference.tokenizer import PromptTokenizer, open_tokenizer
from openbook.models import ModelReference
from openbook.training.datasets import (
    ConversationLine,
    Line,
    Message,
    conversation_branch,
    conversation_trees,
    document_trees,
    pack,
    read_documents,
    read_lines,
)
from openbook.training.reader_objective import PassageLine
from openbook.training.recipe import Data
from openbook.training.trees import Branch

PASSAGE = '{"passage": "It rains.", "questions": [{"question": "Does it rain?", "answers": ["It rains"]}]}\n'
TALK = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture(scope="module")
def tokenizer(model_reference: ModelReference) -> PromptTokenizer:
    return open_tokenizer(model_reference.main_file)


def spelled(tokenizer: PromptTokenizer, tokens: Sequence[int]) -> str:
    return b"".join(tokenizer.model.piece(token, special=True) for token in tokens).decode()


def turns(*messages: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message.model_validate({"role": role, "content": text}) for role, text in messages)


def data(folder: Path, content: bytes, name: str = "train.jsonl") -> Data:
    (folder / name).write_bytes(content)
    return Data(file=name, sha256=hashlib.sha256(content).hexdigest())


def test_lines_are_read_plain_and_compressed(tmp_path: Path) -> None:
    content = ("\ufeff" + PASSAGE + "\n" + PASSAGE).encode()
    for each in (data(tmp_path, content), data(tmp_path, gzip.compress(content), "train.jsonl.gz")):
        lines = list(read_lines(each, tmp_path, PassageLine))
        assert [place for place, _ in lines] == [f"{each.file} line 1", f"{each.file} line 3"]
        assert lines[0][1].questions[0].answers == ("It rains",)


@pytest.mark.parametrize(
    ("record", "line", "reason"),
    [
        (PassageLine, "{", "the line: invalid json"),
        (PassageLine, "[" * 100_000, "the line: invalid json: recursion limit"),
        (PassageLine, '{"passage": "\\ud800", "questions": 3}', "the line: invalid json"),
        (PassageLine, '{"passage": "x"}', "questions: field required"),
        (PassageLine, '{"passage": "x", "questions": [{"question": "?"}], "more": 1}', "more: extra inputs"),
        (PassageLine, '{"questions": [{"question": "?"}]}', "either passage or passages"),
        (ConversationLine, '{"prompt": "a"}', "both hold text"),
        (ConversationLine, '{"messages": [{"role": "user", "content": "a"}]}', "nothing to learn"),
        (ConversationLine, '{"messages": [{"role": "robot", "content": "a"}]}', "messages.0.role"),
        (ConversationLine, '{"messages": [], "prompt": ""}', "either messages"),
        (ConversationLine, '{"messages": [{"role": "assistant", "content": "a"}], "prompt": "b"}', "either messages"),
    ],
)
def test_a_bad_line_is_named_by_its_number(record: type[Line], line: str, reason: str, tmp_path: Path) -> None:
    good = PASSAGE if record is PassageLine else TALK
    each = data(tmp_path, f"{good}{line}\n".encode())
    with pytest.raises(ConfigError, match=rf"train\.jsonl line 2 is not a valid example: .*{reason}"):
        list(read_lines(each, tmp_path, record))


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    changed = data(tmp_path, PASSAGE.encode(), "changed.jsonl")
    (tmp_path / "changed.jsonl").write_text(PASSAGE * 2)
    for each, reason in (
        (changed, "is not the data that the recipe names"),
        (data(tmp_path, b"\n"), "holds no examples"),
        (data(tmp_path, b"\x1f\x8bnothing", "x.gz"), "not a valid gzip file"),
        (Data(file="gone", sha256="0" * 64), "Cannot read the training data"),
    ):
        with pytest.raises((ConfigError, StorageError), match=reason):
            list(read_lines(each, tmp_path, PassageLine))
    for content, reason in ((b"\xff", "not UTF-8"), (b" \n", "holds no text")):
        with pytest.raises(ConfigError, match=reason):
            list(read_documents(data(tmp_path, content, "x.txt"), tmp_path))


@pytest.mark.model
def test_only_what_the_assistant_says_is_learned(tokenizer: PromptTokenizer) -> None:
    talk = [("system", "Be brief."), ("user", "One <|im_end|> two?"), ("assistant", "Three."), ("user", "And then?")]
    branch = conversation_branch(turns(*talk, ("assistant", "Four."), ("user", "Thanks.")), tokenizer)
    assert spelled(tokenizer, branch.tokens) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne <|im_end|> two?<|im_end|>\n"
        "<|im_start|>assistant\nThree.<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n"
        "<|im_start|>assistant\nFour.<|im_end|>"
    )
    assert spelled(tokenizer, [branch.tokens[i] for i in branch.learned]) == "Three.<|im_end|>Four.<|im_end|>"
    # A message is text, even if it is spelled like a control token.
    assert sum(map(tokenizer.model.ends_generation, branch.tokens)) == 5
    # The prompt of an answer is what the engine reads.
    branch = conversation_branch(turns(("system", "Be brief."), ("user", "Why?"), ("assistant", "So.")), tokenizer)
    read = [token for block in tokenizer.blocks(Prompt("Be brief.", (), "Why?")) for token in block]
    assert list(branch.tokens[: branch.learn_start]) == read
    # Prompt and completion are two turns.
    (tree,) = conversation_trees([("x line 1", ConversationLine(prompt="Why?", completion="So."))], tokenizer)
    branch = conversation_branch(turns(("user", "Why?"), ("assistant", "So.")), tokenizer)
    assert (tree.branches, tree.origin) == ((branch,), "x line 1")


class PlainTemplate:
    """Writes `User:` and `Assistant:` (tokens 1 and 2) between the turns, and no end of a turn. Token 0 ends an answer."""

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


def test_a_template_without_ends_of_turns_keeps_its_separators() -> None:
    messages = turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    branch = conversation_branch(messages, PlainTemplate())  # type: ignore[arg-type]
    assert branch.tokens == (1, 10, 2, 11, 0, 1, 12, 2, 13, 0)
    assert [branch.tokens[i] for i in branch.learned] == [11, 0, 13, 0]


@pytest.mark.model
def test_documents_become_sequences_that_hold_all_of_them(tokenizer: PromptTokenizer) -> None:
    documents = [(f"doc {n}", " ".join(f"word{n} {i}" for i in range(30 * n))) for n in range(1, 8)]
    trees = document_trees(documents, tokenizer, 64)
    assert all(tree.tokens <= 64 for tree in trees)
    learned = {branch.tokens for tree in trees for branch in tree.branches}
    for _, text in documents:
        tokens = (*tokenizer.model.tokenize(text, control=False), tokenizer.model.end_token)
        parts = [tokens[start : start + 64] for start in range(0, len(tokens), 64)]
        assert {part for part in parts if len(part) > 1} <= learned
    assert len(trees) < sum(len(tree.branches) for tree in trees)  # something was packed


def test_the_rests_of_documents_share_sequences() -> None:
    branches = [Branch(tuple(range(length)), 0) for length in (9, 5, 6, 3)]
    trees = pack([(str(i), branch) for i, branch in enumerate(branches)], 16)
    assert [(tree.origin, tree.tokens) for tree in trees] == [("0 and 2", 15), ("1 and 3", 8)]
