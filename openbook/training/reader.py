"""The reader's objective: answers in the words of a passage, or an abstention when it does not hold them.

A line of data is a passage with its questions; `answers` empty means that the passage does not hold the answer:

    {"title": "Warsaw", "passage": "...", "questions": [{"question": "...", "answers": ["1611"]}, ...]}

Hard negatives are found by BM25 among the passages of the same data: passages that share many words with a question
and hold none of its answers. Each becomes one more branch on a passage that is read anyway.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from openbook.errors import ConfigError, EngineError
from openbook.inference.prompting import passage_block, question_block
from openbook.inference.tokenizing import PromptTokenizer
from openbook.knowledge.bm25 import K1, B
from openbook.knowledge.words import Vocabulary, query_terms
from openbook.records import Prompt
from openbook.training.examples import Branch, Tree
from openbook.training.jsonl import Line
from openbook.training.recipe import ReaderObjective

CANDIDATES = 8  # passages that the retriever ranks highest, from which negatives are taken


class Question(Line):
    question: str = Field(min_length=1)
    answers: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class PassageLine(Line):
    passage: str = Field(min_length=1)
    title: str = ""
    questions: tuple[Question, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on one passage, numbered from 0; no answers: the passage does not hold any."""

    passage: int
    question: str
    answers: tuple[str, ...]


def asked_of(lines: Sequence[PassageLine]) -> list[Asked]:
    return [Asked(i, q.question, q.answers) for i, line in enumerate(lines) for q in line.questions]


def reader_trees(
    lines: Sequence[tuple[str, PassageLine]],
    objective: ReaderObjective,
    tokenizer: PromptTokenizer,
    seed: int,
    *,
    every_answer: bool = False,
) -> list[Tree]:
    """One tree for each group of passages that are read together; to measure, each passage is read alone.

    `every_answer`: to measure, with a branch for each accepted answer; else there is one for the most usual.
    """
    passages = [line for _, line in lines]
    asked = asked_of(passages)
    asked += negatives(passages, asked, objective.negatives, seed)
    end = _end_of_answer(tokenizer)
    by_passage: dict[int, list[Asked]] = {}
    for each in asked:
        by_passage.setdefault(each.passage, []).append(each)
    trees = []
    for group in groups(passages, 1 if every_answer else objective.passages, seed):
        beginning: tuple[int, ...] = ()
        branches: list[Branch] = []
        read = [passages[i] for i in group]
        for i in group:
            for number, each in enumerate(by_passage[i]):
                if not each.answers and _answered_elsewhere(each, i, group, passages):
                    continue
                *before, question = tokenizer.blocks(reader_prompt(objective.instruction, read, each.question))
                beginning = tuple(token for block in before for token in block)
                for answer in _answers(each, objective.abstention, every=every_answer):
                    tokens = (*question, *_spelling(answer, tokenizer, lines[i][0]), *end)
                    kind = "answer" if each.answers else "abstention"
                    branches.append(Branch(tokens, len(question), kind, f"{i}/{number}"))
        if branches:
            trees.append(Tree(beginning, tuple(branches), " and ".join(lines[i][0] for i in group)))
    return trees


def _spelling(answer: str, tokenizer: PromptTokenizer, place: str) -> list[int]:
    """Raises ConfigError, with the place of the line, for an answer that the model can never give."""
    try:
        return tokenizer.spelling(answer)
    except EngineError as error:
        raise ConfigError(f"{place} has an answer that cannot be learned: {error}.") from error


def groups(lines: Sequence[PassageLine], passages: int, seed: int) -> list[tuple[int, ...]]:
    """The lines in groups of 1 to `passages`, all of one title, in an order by chance; every line is in one group."""
    if passages == 1:
        return [(i,) for i in range(len(lines))]
    chance = random.Random(f"{seed}/groups")  # noqa: S311  an order, not a secret
    titles: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        titles.setdefault(line.title, []).append(i)
    found: list[tuple[int, ...]] = []
    for members in titles.values():
        chance.shuffle(members)
        while members:
            size = chance.randint(1, passages)
            found.append(tuple(members[:size]))
            members = members[size:]
    return found


def _answered_elsewhere(asked: Asked, own: int, group: Sequence[int], lines: Sequence[PassageLine]) -> bool:
    """Whether another passage of the group belongs to the same question, which is then not without an answer."""
    others = [lines[i] for i in group if i != own]
    return any(asked.question == q.question and q.answers for line in others for q in line.questions)


def reader_prompt(instruction: str, lines: Sequence[PassageLine], question: str) -> Prompt:
    passages = tuple(passage_block(line.title, line.passage) for line in lines)
    return Prompt(instruction, passages, question_block(question))


def _answers(asked: Asked, abstention: str, *, every: bool) -> tuple[str, ...]:
    if not asked.answers:
        return (abstention,)
    if every:
        return tuple(dict.fromkeys(asked.answers))
    # The answer that most annotators gave; of equals the shortest, then the first.
    counts = Counter(asked.answers)
    return (min(counts, key=lambda answer: (-counts[answer], len(answer))),)


def _end_of_answer(tokenizer: PromptTokenizer) -> tuple[int, ...]:
    end = tokenizer.model.end_token
    return (end,) if end >= 0 else ()


def negatives(lines: Sequence[PassageLine], asked: Sequence[Asked], share: float, seed: int) -> list[Asked]:
    """For each answered question `share` passages (in the mean) that look right and hold none of its answers."""
    if share <= 0:
        return []
    chance = random.Random(f"{seed}/negatives")  # noqa: S311  a choice, not a secret
    index = _WordIndex([line.passage for line in lines])
    texts = [_plain(line.passage) for line in lines]
    found: list[Asked] = []
    for each in asked:
        wanted = int(share) + (chance.random() < share % 1)
        if not each.answers or not wanted:
            continue
        near = index.best(each.question, CANDIDATES)
        wrong = [i for i in near if i != each.passage and not any(_plain(a) in texts[i] for a in each.answers)]
        # Mostly the nearest: it is what a reader meets when the retriever errs.
        chosen = wrong[:1] if wanted == 1 and chance.random() < 0.5 else chance.sample(wrong, min(wanted, len(wrong)))
        found += [Asked(i, each.question, ()) for i in chosen]
    return found


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


class _WordIndex:
    """BM25 over a list of texts, by the same words and formula as the knowledge base's."""

    def __init__(self, texts: Sequence[str]) -> None:
        vocabulary = Vocabulary()
        numbers = [vocabulary.numbers(text) for text in texts]
        term_of = vocabulary.terms().tolist()
        counted = [Counter(term_of[n] for n in each) for each in numbers]
        lengths = [sum(terms.values()) for terms in counted]
        average = max(1.0, sum(lengths) / max(1, len(lengths)))
        frequency = Counter(term for terms in counted for term in terms)
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for i, terms in enumerate(counted):
            norm = K1 * (1.0 - B + B * lengths[i] / average)
            for term, count in terms.items():
                idf = math.log(1.0 + (len(texts) - frequency[term] + 0.5) / (frequency[term] + 0.5))
                self._postings.setdefault(term, []).append((i, idf * count / (count + norm)))

    def best(self, query: str, limit: int) -> list[int]:
        scores: dict[int, float] = {}
        for term, times in query_terms(query).items():
            for i, score in self._postings.get(term, ()):
                scores[i] = scores.get(i, 0.0) + times * score
        return sorted(scores, key=lambda i: (-scores[i], i))[:limit]
