"""The language-modeling objective: every token of documents is learned from those before it.

Data is JSON Lines, `{"text": "..."}`, or a text file, which is one document. A document is cut into sequences; the rests
of several share one sequence, where none sees another and each is read from position 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from openbook.errors import ConfigError
from openbook.inference.tokenizer import PromptTokenizer
from openbook.training.examples import Branch, Tree
from openbook.training.jsonl import Line, checked_content, read_lines
from openbook.training.recipe import Data

MIN_TOKENS = 2  # of one token nothing can be learned
MOST_OPEN = 64  # sequences with room that are looked at for the next rest
_JSON_LINES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")


class DocumentLine(Line):
    text: str = Field(min_length=1)
    title: str = ""


def read_documents(data: Data, folder: Path) -> Iterator[tuple[str, str]]:
    """(where it stands, the document). Raises ConfigError, StorageError."""
    if data.file.lower().endswith(_JSON_LINES):
        for place, line in read_lines(data, folder, DocumentLine):
            yield place, line.text
        return
    name, content = checked_content(data, folder)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text: {error}.") from error
    if not text.strip():
        raise ConfigError(f"{name} holds no text.")
    yield name, text


def document_trees(
    documents: Sequence[tuple[str, str]], tokenizer: PromptTokenizer, sequence_tokens: int
) -> list[Tree]:
    """Sequences of at most so many tokens: whole ones of each document first, then the rests, packed."""
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
    return trees + packed(rests, sequence_tokens)


def packed(rests: Sequence[tuple[str, Branch]], sequence_tokens: int) -> list[Tree]:
    """Several branches a tree: the longest first, each into the first tree that has room for it."""
    bins: list[tuple[int, list[tuple[str, Branch]]]] = []
    open_bins: list[int] = []
    for place, branch in sorted(rests, key=lambda rest: (-len(rest[1].tokens), rest[0], rest[1].tokens)):
        length = len(branch.tokens)
        for i in open_bins:
            used, held = bins[i]
            if used + length <= sequence_tokens:
                bins[i] = (used + length, [*held, (place, branch)])
                break
        else:
            bins.append((length, [(place, branch)]))
            open_bins.append(len(bins) - 1)
        open_bins = [i for i in open_bins if sequence_tokens - bins[i][0] >= MIN_TOKENS][-MOST_OPEN:]
    return [
        Tree((), tuple(branch for _, branch in held), " and ".join(dict.fromkeys(p for p, _ in held)))
        for _, held in bins
    ]
