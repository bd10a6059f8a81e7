"""Questions without an answer: an accepted question asked of another thing of the same kind, of which no passage tells it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from openbook.diagnosis.judging import content
from openbook.knowledge.values import MONTHS, WEEKDAYS
from openbook.knowledge.words import Vocabulary, query_terms
from openbook.records import Hit

MOST_NAMES = 5_000
MOST_OTHERS = 3  # that one question is asked of
ALIKE = 0.5  # share of the ways in which two names are used that they have in common
_WORD = r"[A-ZÀ-ÖØ-Þ][\w’'-]*[a-zß-ÿ]"
_AFTER = (
    r"(?=[,.;:)]|$| (?:is|are|was|were|has|had|will|must|may|can|and|or|in|on|at|to|from|with|for|by|of|when|where|which|who|if|"
    r"\w+ed|\w+s)\b)"
)
_NAME = re.compile(
    rf"(?<![\w.])(?P<before>(?i:of the|on the|at the|the|at|in|from|to|of|for|by)) (?P<name>{_WORD}(?: {_WORD})*){_AFTER}"
)
_NO_NAME = frozenset({*MONTHS, *WEEKDAYS})


@dataclass(slots=True)
class Names:
    """Names by how they are used: `on the Isolde Marr` and `on the Petra Lindqvist` are of one kind, `at Kilverry` is not."""

    seen: dict[str, Counter[str]] = field(default_factory=dict)  # name -> how often after each of the words before it

    def read(self, text: str) -> None:
        for match in _NAME.finditer(" ".join(text.split())):
            name, before = match["name"], match["before"].lower()
            one_word = " " not in name
            if (one_word and before.endswith("the")) or name.lower() in _NO_NAME:  # one capital after `the`: any noun
                continue
            if name in self.seen or len(self.seen) < MOST_NAMES:
                self.seen.setdefault(name, Counter())[before] += 1

    def others(self, name: str) -> list[str]:
        """Names of as many words that are used at least three times and much as `name` is, likest first."""
        ways = self.seen[name].keys()
        found = []
        for other, used in self.seen.items():
            shared = len(ways & used.keys())
            alike = shared / len(ways | used.keys())
            same_length = other != name and other.count(" ") == name.count(" ")
            if same_length and used.total() >= 3 and shared >= 2 and alike >= ALIKE:
                found.append((-alike, -used.total(), other))
        return [other for _, _, other in sorted(found)[:MOST_OTHERS]]


def swapped(question: str, names: Names) -> Iterator[tuple[str, str]]:
    """(the question about another, the name of that one)."""
    for match in re.finditer(rf"(?<=[a-z] )(?<!and )(?<!or )({_WORD}(?: {_WORD})*)(?![\w/-]| [A-Z\d])", question):
        name = match[0].removesuffix("'s").removesuffix("’s")
        before = question[: match.start()].split()[-1]
        if before.islower() and name in names.seen and names.seen[name].total() >= 3:
            for other in names.others(name):
                if other not in question:
                    yield question[: match.start()] + other + question[match.start() + len(name) :], other
            return


def may_be_answered(question: str, name: str, hits: Iterable[Hit]) -> bool:
    """Whether some passage that was found names `name` and has half of the other words of the question."""
    of_name = set(query_terms(name))
    asked = set(query_terms(" ".join(content(question)))) - of_name
    for hit in hits:
        words = Vocabulary()
        words.numbers(" ".join([hit.passage.text, hit.passage.title, *hit.passage.headings]))
        held = set(words.terms().tolist())
        if of_name <= held and 2 * len(asked & held) >= len(asked):
            return True
    return False
