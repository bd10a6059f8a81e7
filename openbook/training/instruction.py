"""The instruction objective: conversations in the model's own chat template, learned where the assistant speaks.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}
    {"prompt": "...", "completion": "..."}

The template is rendered with placeholders, as for answering (`inference/prompting.py`), so what a conversation says can
never become a control token. What is learned of a turn is its text and the token that ends it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from openbook.errors import ConfigError, EngineError
from openbook.inference.tokenizer import PromptTokenizer
from openbook.training.examples import Branch, Tree
from openbook.training.jsonl import Line


class Message(Line):
    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class ConversationLine(Line):
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""

    @model_validator(mode="after")
    def _one_form(self) -> ConversationLine:
        if bool(self.messages) == bool(self.prompt or self.completion):
            raise ValueError("give either messages, or prompt and completion")
        if not self.messages and not (self.prompt and self.completion):
            raise ValueError("prompt and completion must both hold text")
        if self.messages and not any(message.role == "assistant" for message in self.messages):
            raise ValueError("no message is the assistant's, so there is nothing to learn")
        return self

    @property
    def turns(self) -> tuple[Message, ...]:
        if self.messages:
            return self.messages
        return Message(role="user", content=self.prompt), Message(role="assistant", content=self.completion)


def conversation_trees(lines: Sequence[tuple[str, ConversationLine]], tokenizer: PromptTokenizer) -> list[Tree]:
    """One tree with one branch for each conversation. Raises ConfigError with the line's number."""
    trees = []
    for place, line in lines:
        try:
            trees.append(Tree((), (branch_of(line.turns, tokenizer),), place))
        except EngineError as error:
            raise ConfigError(f"{place} cannot be learned: {error}") from error
    return trees


def branch_of(turns: Sequence[Message], tokenizer: PromptTokenizer) -> Branch:
    """The conversation up to the end of the last turn of the assistant.

    Raises EngineError when the template refuses it, or the vocabulary cannot write what the assistant says.
    """
    last = max(i for i, turn in enumerate(turns) if turn.role == "assistant")
    turns = turns[: last + 1]
    control, contents = tokenizer.conversation([(turn.role, turn.content) for turn in turns])
    tokens = list(control[0])
    learned: list[tuple[int, int]] = []
    for number, turn in enumerate(turns):
        if turn.role == "assistant":
            tokenizer.spelling(turn.content)
        start = len(tokens)
        tokens += contents[number]
        after = control[number + 1]
        if turn.role == "assistant":
            ended = _through_end(after, tokenizer)
            tokens += ended
            learned.append((start, len(tokens)))
            written = (
                after[: len(ended)] == ended
            )  # else the template writes no end, and what follows is all still to come
            after = [] if number == last else after[len(ended) :] if written else after
        tokens += after
    skipped = tuple((end, start) for (_, end), (start, _) in itertools.pairwise(learned))
    return Branch(tuple(tokens), learned[0][0], skipped=skipped)


def _through_end(control: list[int], tokenizer: PromptTokenizer) -> list[int]:
    """What the template writes after an answer, up to the token that ends it; that token alone where it writes none."""
    for i, token in enumerate(control):
        if tokenizer.model.ends_generation(token):
            return control[: i + 1]
    end = tokenizer.model.end_token
    return [end] if end >= 0 else []
