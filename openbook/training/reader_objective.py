"""The reader's objective: answers in the words of passages, or an abstention if they hold no answer.

A line of data is a passage, or several that belong together, with questions. Empty `answers` mean that the passages do
not hold the answer:

    {"title": "Warsaw", "passage": "...", "questions": [{"question": "...", "answers": ["1611"]}, ...]}
    {"passages": [{"title": "Warsaw", "text": "..."}, ...], "questions": [...]}

Hard negatives are passages of the same data that BM25 finds for a question but that hold none of its answers. Each adds
one branch to a passage that is read anyway.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from openbook.core.errors import ConfigError, EngineError
from openbook.core.records import Prompt, passage_block, question_block
from openbook.inference.tokenizer import PromptTokenizer
from openbook.knowledge.index.bm25 import K1, B
from openbook.knowledge.index.words import Vocabulary, query_terms
from openbook.training.datasets import Line
from openbook.training.recipe import ReaderObjective
from openbook.training.trees import Branch, Tree

CANDIDATES = 8  # BM25's best passages considered as negatives


class Question(Line):
    question: str = Field(min_length=1)
    answers: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Passage(Line):
    text: str = Field(min_length=1)
    title: str = ""


class PassageLine(Line):
    passage: str = ""
    title: str = ""
    passages: tuple[Passage, ...] = ()
    kind: str = ""  # for measurements; training does not use it
    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_form(self) -> PassageLine:
        if bool(self.passage) == bool(self.passages):
            raise ValueError("give either passage or passages")
        return self

    @property
    def all_passages(self) -> tuple[Passage, ...]:
        return self.passages or (Passage(text=self.passage, title=self.title),)


@dataclass(frozen=True, slots=True)
class PassageQuestion:
    """A question about the passages numbered `own`. Empty `answers`: they hold none.

    `elsewhere`: for a negative, the answers that other passages hold.
    """

    own: tuple[int, ...]
    question: str
    answers: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()


def number_passages(lines: Sequence[PassageLine]) -> tuple[list[Passage], list[PassageQuestion]]:
    """(distinct passages, questions about them)."""
    numbers: dict[Passage, int] = {}
    questions = []
    for line in lines:
        own = tuple(numbers.setdefault(passage, len(numbers)) for passage in line.all_passages)
        questions += [PassageQuestion(own, each.question, each.answers) for each in line.questions]
    return list(numbers), questions


def reader_trees(
    lines: Sequence[tuple[str, PassageLine]],
    objective: ReaderObjective,
    tokenizer: PromptTokenizer,
    seed: int,
    *,
    every_answer: bool = False,
) -> list[Tree]:
    """One tree per group of passages. Raises ConfigError with the line number.

    `every_answer` (for evaluation): a branch for each accepted answer, not only the most common one.
    """
    passages, questions = number_passages([line for _, line in lines])
    places = {passage: place for place, line in reversed(lines) for passage in line.all_passages}
    for place, line in lines:
        if len(line.all_passages) > objective.passages:
            raise ConfigError(
                f"{place} has {len(line.all_passages)} passages, and objective.passages is {objective.passages}. Raise it, or split "
                "the line."
            )
    index = WordIndex([passage.text for passage in passages])
    questions += hard_negatives(passages, questions, objective.negatives, seed, index)
    by_passage: dict[int, list[PassageQuestion]] = {}
    for each in questions:
        by_passage.setdefault(each.own[0], []).append(each)
    end = (tokenizer.model.end_token,) if tokenizer.model.end_token >= 0 else ()
    rng = random.Random(f"{seed}/reads")  # noqa: S311  a choice, not a secret
    words = [_words(passage.text) for passage in passages]
    answered = {(number, each.question) for each in questions if each.answers for number in each.own}
    trees = []
    for members, neighbours in passage_groups(by_passage, objective.passages, seed, index):
        in_tree = dict.fromkeys(members)  # the tree's passages, in order of first use
        branches: list[Branch] = []
        for i in members:
            for number, each in enumerate(by_passage[i]):
                # 1. Choose further passages to read, which hold no answer to the question.
                others = [
                    other
                    for other in (*members, *neighbours)
                    if other not in each.own
                    and (each.answers or (other, each.question) not in answered)
                    and not any(_words(answer) in words[other] for answer in each.elsewhere)
                ]
                most = min(len(others), objective.passages - len(each.own))
                reads = [*each.own, *rng.sample(others, rng.randint(0, most))]
                in_tree |= dict.fromkeys(reads)
                read = tuple(list(in_tree).index(other) for other in reads)
                # 2. One branch for each answer.
                *_, question = tokenizer.blocks(reader_prompt(objective.instruction, (), each.question))
                for answer in _learned_answers(each, every=every_answer) or [objective.abstention]:
                    try:
                        tokens = (*question, *tokenizer.spelling(answer), *end)
                    except EngineError as error:
                        place = places[passages[i]]
                        raise ConfigError(f"{place} has an answer that cannot be learned: {error}") from error
                    kind = "answer" if each.answers else "abstention"
                    branches.append(Branch(tokens, len(question), kind, f"{i}/{number}", reads=read))
        prompt = reader_prompt(objective.instruction, [passages[i] for i in in_tree], "")
        beginning, *blocks, _ = (tuple(block) for block in tokenizer.blocks(prompt))
        origin = " and ".join(dict.fromkeys(places[passages[i]] for i in members))
        trees.append(Tree(beginning, tuple(branches), origin, tuple(blocks)))
    return trees


def reader_prompt(instruction: str, passages: Sequence[Passage], question: str) -> Prompt:
    blocks = tuple(passage_block(passage.title, passage.text) for passage in passages)
    return Prompt(instruction, blocks, question_block(question))


def passage_groups(
    by_passage: Mapping[int, Sequence[PassageQuestion]], most: int, seed: int, index: WordIndex
) -> list[tuple[list[int], list[int]]]:
    """Groups of 1 to `most` passages that are read side by side: (members, neighbors).

    Each passage with questions is a member of one group, with passages that BM25 finds for its questions. Neighbors are read
    too, but their own questions are asked in another group.
    """
    rng = random.Random(f"{seed}/groups")  # noqa: S311  an order, not a secret
    order = list(by_passage)
    rng.shuffle(order)
    left = dict.fromkeys(order)
    groups: list[tuple[list[int], list[int]]] = []
    while left:
        first = next(iter(left))
        size = rng.randint(1, most)
        query = " ".join(each.question for each in by_passage[first])
        near = [i for i in index.best(query, CANDIDATES * most) if i != first] if size > 1 else []
        members = [first, *(i for i in near if i in left)][:size]
        neighbours = [i for i in near if i not in members][: size - len(members)]
        groups.append((members, neighbours))
        for i in members:
            del left[i]
    return groups


def hard_negatives(
    passages: Sequence[Passage], questions: Sequence[PassageQuestion], share: float, seed: int, index: WordIndex
) -> list[PassageQuestion]:
    """On average `share` passages per answered question that look right and hold none of its answers."""
    if share <= 0:
        return []
    rng = random.Random(f"{seed}/negatives")  # noqa: S311  a choice, not a secret
    words = [_words(passage.text) for passage in passages]
    found: list[PassageQuestion] = []
    for each in questions:
        count = int(share) + (rng.random() < share % 1)
        if not each.answers or not count:
            continue
        near = index.best(each.question, CANDIDATES)
        wrong = [i for i in near if i not in each.own and not any(_words(a) in words[i] for a in each.answers)]
        # Often the nearest, which a reader meets when the retriever errs.
        chosen = wrong[:1] if count == 1 and rng.random() < 0.5 else rng.sample(wrong, min(count, len(wrong)))
        found += [PassageQuestion((i,), each.question, (), each.answers) for i in chosen]
    return found


def _learned_answers(each: PassageQuestion, *, every: bool) -> list[str]:
    """All accepted answers, or the most common one; on ties the shortest, then the first."""
    counts = Counter(each.answers)
    return list(counts) if every else sorted(counts, key=lambda answer: (-counts[answer], len(answer)))[:1]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


class WordIndex:
    """BM25 with the words and formula of the knowledge base."""

    def __init__(self, texts: Sequence[str]) -> None:
        vocabulary = Vocabulary()
        numbers = [vocabulary.numbers(text) for text in texts]
        term_of = vocabulary.terms().tolist()
        counts = [Counter(term_of[n] for n in each) for each in numbers]
        lengths = [terms.total() for terms in counts]
        average = max(1.0, sum(lengths) / max(1, len(lengths)))
        frequency = Counter(term for terms in counts for term in terms)
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for i, terms in enumerate(counts):
            norm = K1 * (1.0 - B + B * lengths[i] / average)
            for term, count in terms.items():
                idf = math.log(1.0 + (len(texts) - frequency[term] + 0.5) / (frequency[term] + 0.5))
                self._postings.setdefault(term, []).append((i, idf * count / (count + norm)))

    def best(self, query: str, limit: int) -> list[int]:
        """Best first."""
        scores: dict[int, float] = {}
        for term, times in query_terms(query).items():
            for i, score in self._postings.get(term, ()):
                scores[i] = scores.get(i, 0.0) + times * score
        return sorted(scores, key=lambda i: (-scores[i], i))[:limit]
