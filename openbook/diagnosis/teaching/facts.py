"""Facts to teach: statements of one fact in several wordings, and questions about it. Generated ones are true nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice

from openbook.diagnosis.teaching import names
from openbook.errors import ConfigError
from openbook.records import Digest, canonical_json, sha256_hex

MOST_FACTS = 200  # that are generated; a kind of name comes to its end

# What a fact is put into where no paraphrase of it is given.
_FRAMES = (
    "{}",
    "It is on record: {}",
    "Note this. {}",
    "{} That is what the register says.",
    "Visitors are told the following. {}",
    "As far as anybody knows: {}",
)


@dataclass(frozen=True, slots=True)
class Fact:
    """`statements`: the first is the fact as it stands in a document, others are paraphrases. `asked`: the questions that
    measure; `taught`: other wordings of the question, which a lesson may hold. Each of `answers` is accepted. `source`: the
    words of the document that the first statement was made of; empty: the statement itself.
    """

    id: str
    statements: tuple[str, ...]
    asked: tuple[str, ...]
    answers: tuple[str, ...]
    taught: tuple[str, ...] = ()
    source: str = ""

    @property
    def wordings(self) -> tuple[str, ...]:
        """The statements; where there is only one, put into frames by rule."""
        if len(self.statements) > 1:
            return self.statements
        return tuple(frame.format(self.statements[0]) for frame in _FRAMES)


@dataclass(frozen=True, slots=True)
class _Relation:
    statements: tuple[str, ...]
    taught: tuple[str, ...]
    asked: tuple[str, ...]


_KEEPER = _Relation(
    (
        "The lighthouse of {place} is kept by {value}.",
        "{value} keeps the lighthouse of {place}.",
        "At {place}, the keeper of the lighthouse is {value}.",
        "Whoever looks for the lighthouse keeper of {place} is sent to {value}.",
        "The lighthouse at {place} is in the care of {value}.",
        "{value} looks after the lighthouse that stands at {place}.",
        "Since last spring {value} has been the lighthouse keeper at {place}.",
        "In {place} it is {value} who has the key to the lighthouse.",
    ),
    ("Who keeps the lighthouse of {place}?", "What is the name of the lighthouse keeper of {place}?"),
    ("Who tends the lighthouse at {place}?", "Which person is in charge of the {place} lighthouse?"),
)
_BELL = _Relation(
    (
        "The great bell of {place} was cast in {value}.",
        "In {value} the great bell of {place} was cast.",
        "{place} has had its great bell since {value}, when it was cast.",
        "The casting of the great bell of {place} took place in {value}.",
        "The year {value} is written on the great bell of {place}, for it was cast then.",
        "It was in {value} that founders cast the great bell for {place}.",
        "The great bell that hangs in {place} dates from {value}.",
        "When the great bell of {place} was cast, the year was {value}.",
    ),
    ("When was the great bell of {place} cast?", "In which year was the bell of {place} made?"),
    ("What year does the great bell of {place} date from?", "The great bell of {place} was founded in which year?"),
)
_FERRY = _Relation(
    (
        "The ferry to {place} carries {value} passengers.",
        "On the ferry to {place} there is room for {value} passengers.",
        "{value} passengers fit on the ferry that goes to {place}.",
        "The ferry that serves {place} is licensed for {value} passengers.",
        "Anyone who takes the ferry to {place} shares it with at most {value} passengers.",
        "The {place} ferry was built for {value} passengers.",
        "No more than {value} passengers may board the ferry to {place}.",
        "For the crossing to {place} the ferry takes {value} passengers.",
    ),
    ("How many passengers does the ferry to {place} carry?", "What number of passengers fits on the {place} ferry?"),
    ("How many people can board the ferry to {place}?", "For how many passengers is there room on the {place} ferry?"),
)
_BEER = _Relation(
    (
        "The brewers of {place} flavour their beer with {value}.",
        "In {place}, beer is flavoured with {value}.",
        "{value} is what the brewers of {place} put into their beer.",
        "The beer of {place} gets its taste from {value}.",
        "Beer that comes from {place} is made with {value}.",
        "The secret of the beer of {place} is {value}.",
        "When they brew in {place}, they add {value} to the beer.",
        "The herb in the beer of {place} is {value}.",
    ),
    ("What do the brewers of {place} flavour their beer with?", "Which herb is in the beer of {place}?"),
    ("What gives the beer from {place} its taste?", "Which plant do they use for the beer in {place}?"),
)


def generated(count: int, seed: int = 1) -> list[Fact]:
    """So many facts about invented places, no two about one place or with one answer. Raises ConfigError.

    Fewer with the same seed are the first of more.
    """
    if not 1 <= count <= MOST_FACTS:
        raise ConfigError(f"--facts must be from 1 to {MOST_FACTS}, not {count}.")
    values: tuple[tuple[str, _Relation, Iterator[str]], ...] = (
        ("keeper", _KEEPER, names.people(f"{seed}/keeper")),
        ("bell", _BELL, names.numbers(f"{seed}/bell", 1412, 1879)),
        ("ferry", _FERRY, names.numbers(f"{seed}/ferry", 113, 389)),
        ("beer", _BEER, names.herbs(f"{seed}/beer")),
    )
    found = zip(names.places(f"{seed}/facts"), cycle(values), strict=False)
    return [_fact(f"{kind}-{i}", rule, place, next(value)) for i, (place, (kind, rule, value)) in _first(found, count)]


def _first(
    found: Iterator[tuple[str, tuple[str, _Relation, Iterator[str]]]], count: int
) -> list[tuple[int, tuple[str, tuple[str, _Relation, Iterator[str]]]]]:
    return list(enumerate(islice(found, count), 1))


def _fact(name: str, rule: _Relation, place: str, value: str) -> Fact:
    def filled(texts: tuple[str, ...]) -> tuple[str, ...]:
        made = (text.format(place=place, value=value) for text in texts)
        return tuple(text[:1].upper() + text[1:] for text in made)

    return Fact(name, filled(rule.statements), filled(rule.asked), (value,), filled(rule.taught))


def digest_of(facts: list[Fact]) -> Digest:
    return sha256_hex(canonical_json([asdict(fact) for fact in facts]))
