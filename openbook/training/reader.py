"""The reader's objective: answers in the words of passages, or an abstention when they do not hold them.

A line of data is a passage, or several that belong together, with questions; `answers` empty means that they do not hold
the answer:

    {"title": "Warsaw", "passage": "...", "questions": [{"question": "...", "answers": ["1611"]}, ...]}
    {"passages": [{"title": "Warsaw", "text": "..."}, ...], "questions": [...]}

Hard negatives are found by BM25 among the passages of the same data: passages that share many words with a question
and hold none of its answers. Each becomes one more branch on passages that are read anyway.
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

from openbook.errors import ConfigError, EngineError
from openbook.inference.tokenizer import PromptTokenizer
from openbook.knowledge.bm25 import K1, B
from openbook.knowledge.words import Vocabulary, query_terms
from openbook.prompts import passage_block, question_block
from openbook.records import Prompt
from openbook.training.examples import Branch, Tree
from openbook.training.jsonl import Line
from openbook.training.recipe import ReaderObjective

CANDIDATES = 8  # passages that the retriever ranks highest, from which negatives are taken


class Question(Line):
    question: str = Field(min_length=1)
    answers: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Text(Line):
    text: str = Field(min_length=1)
    title: str = ""


class PassageLine(Line):
    passage: str = ""
    title: str = ""
    passages: tuple[Text, ...] = ()
    kind: str = ""  # of text and question: for who measures, training does not use it
    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_form(self) -> PassageLine:
        if bool(self.passage) == bool(self.passages):
            raise ValueError("give either passage or passages")
        return self

    @property
    def texts(self) -> tuple[Text, ...]:
        return self.passages or (Text(text=self.passage, title=self.title),)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on the passages numbered `own`; no answers: they do not hold any, other passages hold those `elsewhere`."""

    own: tuple[int, ...]
    question: str
    answers: tuple[str, ...]
    elsewhere: tuple[str, ...] = ()


def asked_of(lines: Sequence[PassageLine]) -> tuple[list[Text], list[Asked]]:
    """The different passages of all lines, and what is asked about them."""
    numbers: dict[Text, int] = {}
    asked = []
    for line in lines:
        own = tuple(numbers.setdefault(text, len(numbers)) for text in line.texts)
        asked += [Asked(own, each.question, each.answers) for each in line.questions]
    return list(numbers), asked


def reader_trees(
    lines: Sequence[tuple[str, PassageLine]],
    objective: ReaderObjective,
    tokenizer: PromptTokenizer,
    seed: int,
    *,
    every_answer: bool = False,
) -> list[Tree]:
    """One tree for each group of passages that lie side by side.

    `every_answer`: to measure, with a branch for each accepted answer; else there is one for the most usual.
    """
    texts, asked = asked_of([line for _, line in lines])
    places = {text: place for place, line in reversed(lines) for text in line.texts}
    index = WordIndex([text.text for text in texts])
    asked += negatives(texts, asked, objective.negatives, seed, index)
    by_passage: dict[int, list[Asked]] = {}
    for each in asked:
        by_passage.setdefault(each.own[0], []).append(each)
    end = _end_of_answer(tokenizer)
    chance = random.Random(f"{seed}/reads")  # noqa: S311  a choice, not a secret
    plain = [_plain(text.text) for text in texts]
    answered = {(number, each.question) for each in asked if each.answers for number in each.own}
    trees = []
    for members, beside in groups(by_passage, objective.passages, seed, index):
        place = dict.fromkeys(members)  # the passages of the tree, in the order in which they are first read
        branches: list[Branch] = []
        for i in members:
            for number, each in enumerate(by_passage[i]):
                others = [
                    other
                    for other in (*members, *beside)
                    if other not in each.own
                    and (each.answers or (other, each.question) not in answered)
                    and not any(_plain(answer) in plain[other] for answer in each.elsewhere)
                ]
                most = min(len(others), objective.passages - len(each.own))
                reads = [*each.own, *chance.sample(others, chance.randint(0, max(0, most)))]
                place |= dict.fromkeys(reads)
                read = tuple(list(place).index(other) for other in reads)
                *_, question = tokenizer.blocks(reader_prompt(objective.instruction, (), each.question))
                for answer in _answers(each, objective.abstention, every=every_answer):
                    tokens = (*question, *_spelling(answer, tokenizer, places[texts[i]]), *end)
                    kind = "answer" if each.answers else "abstention"
                    branches.append(Branch(tokens, len(question), kind, f"{i}/{number}", reads=read))
        prompt = reader_prompt(objective.instruction, [texts[i] for i in place], "")
        beginning, *passages, _ = (tuple(block) for block in tokenizer.blocks(prompt))
        origin = " and ".join(dict.fromkeys(places[texts[i]] for i in members))
        trees.append(Tree(beginning, tuple(branches), origin, tuple(passages)).with_branches(branches))
    return trees


def _spelling(answer: str, tokenizer: PromptTokenizer, place: str) -> list[int]:
    """Raises ConfigError, with the place of the line, for an answer that the model can never give."""
    try:
        return tokenizer.spelling(answer)
    except EngineError as error:
        raise ConfigError(f"{place} has an answer that cannot be learned: {error}.") from error


def groups(
    by_passage: Mapping[int, Sequence[Asked]], passages: int, seed: int, index: WordIndex
) -> list[tuple[list[int], list[int]]]:
    """Passages that lie side by side, 1 to `passages`: (those whose questions are asked here, others that are like them).

    Each passage with questions is in one group, with those that the retriever finds for its questions.
    """
    chance = random.Random(f"{seed}/groups")  # noqa: S311  an order, not a secret
    order = list(by_passage)
    chance.shuffle(order)
    left = dict.fromkeys(order)
    found: list[tuple[list[int], list[int]]] = []
    while left:
        first = next(iter(left))
        size = chance.randint(1, passages)
        asked = " ".join(each.question for each in by_passage[first])
        near = [i for i in index.best(asked, CANDIDATES * passages) if i != first] if size > 1 else []
        members = [first, *(i for i in near if i in left)][:size]
        beside = [i for i in near if i not in members][: size - len(members)]
        found.append((members, beside))
        for i in members:
            del left[i]
    return found


def reader_prompt(instruction: str, texts: Sequence[Text], question: str) -> Prompt:
    return Prompt(instruction, tuple(passage_block(text.title, text.text) for text in texts), question_block(question))


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


def negatives(texts: Sequence[Text], asked: Sequence[Asked], share: float, seed: int, index: WordIndex) -> list[Asked]:
    """For each answered question `share` passages (in the mean) that look right and hold none of its answers."""
    if share <= 0:
        return []
    chance = random.Random(f"{seed}/negatives")  # noqa: S311  a choice, not a secret
    plain = [_plain(text.text) for text in texts]
    found: list[Asked] = []
    for each in asked:
        wanted = int(share) + (chance.random() < share % 1)
        if not each.answers or not wanted:
            continue
        near = index.best(each.question, CANDIDATES)
        wrong = [i for i in near if i not in each.own and not any(_plain(a) in plain[i] for a in each.answers)]
        # Mostly the nearest: it is what a reader meets when the retriever errs.
        chosen = wrong[:1] if wanted == 1 and chance.random() < 0.5 else chance.sample(wrong, min(wanted, len(wrong)))
        found += [Asked((i,), each.question, (), each.answers) for i in chosen]
    return found


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


class WordIndex:
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
