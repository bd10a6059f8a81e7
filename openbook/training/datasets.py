"""Data files, and documents and conversations as trees. `reader_objective` does the same for passages with questions.

A file is JSON Lines, plain or gzip-compressed, with the digest that the recipe states. Documents are lines
`{"text": "..."}`, or a text file, which is one document. A conversation is one of

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}
    {"prompt": "...", "completion": "..."}
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from openbook.core.errors import ConfigError, EngineError, StorageError
from openbook.inference.tokenizer import PromptTokenizer
from openbook.training.recipe import Data
from openbook.training.trees import Branch, Tree

MAX_DATA_BYTES = 4 << 30
MIN_TOKENS = 2  # one token alone teaches nothing
MAX_OPEN_BINS = 64  # sequences with room that `pack` considers
JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DocumentLine(Line):
    text: str = Field(min_length=1)
    title: str = ""


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


Record = TypeVar("Record", bound=Line)


def read_lines(data: Data, folder: Path, record: type[Record]) -> Iterator[tuple[str, Record]]:
    """Yield (location, record) for each non-empty line. Raises ConfigError with the line number."""
    name, content = _read_file(data, folder)
    empty = True
    for number, raw in enumerate(io.BytesIO(content.removeprefix(codecs.BOM_UTF8)), 1):
        place = f"{name} line {number}"
        if not raw.strip():
            continue
        try:
            line = record.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the line"
            raise ConfigError(f"{place} is not a valid example: {key}: {first['msg'].lower()}.") from error
        empty = False
        yield place, line
    if empty:
        raise ConfigError(f"{name} holds no examples.")


def read_documents(data: Data, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (location, text). Raises ConfigError, StorageError."""
    if data.file.lower().endswith(JSON_LINES):
        yield from ((place, line.text) for place, line in read_lines(data, folder, DocumentLine))
        return
    name, content = _read_file(data, folder)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text: {error}.") from error
    if not text.strip():
        raise ConfigError(f"{name} holds no text.")
    yield name, text


def _read_file(data: Data, folder: Path) -> tuple[str, bytes]:
    """Return (name, decompressed content), if the digest matches."""
    path = folder / data.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Cannot read the training data {path}: {error.strerror or error}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != data.sha256:
        raise ConfigError(
            f"{data.file} is not the data that the recipe names: its SHA-256 is {found}, the recipe says {data.sha256}. "
            "Restore the file, or state the new digest in the recipe."
        )
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(MAX_DATA_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{data.file} is not a valid gzip file: {error}.") from error
    if len(content) > MAX_DATA_BYTES:
        raise ConfigError(f"{data.file} has more than {MAX_DATA_BYTES:,} bytes. Split it into several files.")
    return path.name, content


def document_trees(
    documents: Sequence[tuple[str, str]], tokenizer: PromptTokenizer, sequence_tokens: int
) -> list[Tree]:
    """Cut documents into sequences of `sequence_tokens` tokens, and pack their remainders."""
    model = tokenizer.model
    end = (model.end_token,) if model.end_token >= 0 else ()
    bos = (model.bos_token,) if model.adds_bos else ()
    room = sequence_tokens - len(bos)
    trees: list[Tree] = []
    rests: list[tuple[str, Branch]] = []
    for place, text in documents:
        tokens = (*model.tokenize(text, control=False), *end)
        for start in range(0, len(tokens), room):
            branch = Branch((*bos, *tokens[start : start + room]), 0)
            if len(branch.tokens) == sequence_tokens:
                trees.append(Tree((), (branch,), place))
            elif len(branch.tokens) >= MIN_TOKENS:
                rests.append((place, branch))
    return trees + pack(rests, sequence_tokens)


def pack(rests: Sequence[tuple[str, Branch]], sequence_tokens: int) -> list[Tree]:
    """Put several branches into a tree: longest first, each into the first tree with room. No branch sees another."""
    bins: list[list[tuple[str, Branch]]] = []
    room: dict[int, int] = {}  # of the open bins
    for place, branch in sorted(rests, key=lambda rest: (-len(rest[1].tokens), rest[0], rest[1].tokens)):
        length = len(branch.tokens)
        chosen = next((i for i, tokens in room.items() if tokens >= length), len(bins))
        if chosen == len(bins):
            bins.append([])
        bins[chosen].append((place, branch))
        room[chosen] = room.get(chosen, sequence_tokens) - length
        room = dict([(i, tokens) for i, tokens in room.items() if tokens >= MIN_TOKENS][-MAX_OPEN_BINS:])
    return [
        Tree((), tuple(branch for _, branch in each), " and ".join(dict.fromkeys(place for place, _ in each)))
        for each in bins
    ]


def conversation_trees(lines: Sequence[tuple[str, ConversationLine]], tokenizer: PromptTokenizer) -> list[Tree]:
    """One tree per conversation. Raises ConfigError with the line number."""
    trees = []
    for place, line in lines:
        try:
            trees.append(Tree((), (conversation_branch(line.turns, tokenizer),), place))
        except EngineError as error:
            raise ConfigError(f"{place} cannot be learned: {error}") from error
    return trees


def conversation_branch(turns: Sequence[Message], tokenizer: PromptTokenizer) -> Branch:
    """The conversation in the model's chat template, up to the assistant's last turn.

    The assistant's text and its end token are learned. Messages cannot become control tokens, because the template only sees
    placeholders. Raises EngineError if the template or vocabulary cannot write the conversation.
    """
    last = max(i for i, turn in enumerate(turns) if turn.role == "assistant")
    turns = turns[: last + 1]
    control, contents = tokenizer.conversation([(turn.role, turn.content) for turn in turns])
    tokens = list(control[0])
    learned: list[tuple[int, int]] = []
    for number, turn in enumerate(turns):
        start = len(tokens)
        tokens += contents[number]
        after = control[number + 1]
        if turn.role == "assistant":
            tokenizer.spelling(turn.content)
            end = _through_end(after, tokenizer)
            tokens += end
            learned.append((start, len(tokens)))
            if number == last:
                break
            # If the template writes no end token, all it writes follows the answer.
            after = after[len(end) :] if after[: len(end)] == end else after
        tokens += after
    skipped = tuple((end, start) for (_, end), (start, _) in itertools.pairwise(learned))
    return Branch(tuple(tokens), learned[0][0], skipped=skipped)


def _through_end(control: list[int], tokenizer: PromptTokenizer) -> list[int]:
    """The template's text after an answer, through the end token, or the end token alone."""
    for i, token in enumerate(control):
        if tokenizer.model.ends_generation(token):
            return control[: i + 1]
    end = tokenizer.model.end_token
    return [end] if end >= 0 else []
