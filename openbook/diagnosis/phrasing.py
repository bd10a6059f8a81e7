"""Questions made from English statements by rules: `Found items are kept for 60 days.` asks `For how long are found items kept?`

Each rule looks for one kind of answer in a clause. What it proposes still goes through the filters of `drafting`.
"""

from __future__ import annotations

from collections.abc import Iterator

from openbook.diagnosis.clauses import Plain, clause
from openbook.diagnosis.phrasing_names import by_whom, defined, identified, named, placed, who
from openbook.diagnosis.phrasing_numbers import counted_subject, direct, measured, there_are
from openbook.diagnosis.phrasing_phrases import prepositional
from openbook.diagnosis.proposing import Proposal, Voice


def proposals(sentence: Plain, inside: Voice) -> Iterator[Proposal]:
    """All that the rules find in one sentence, surest first."""
    yield from there_are(sentence)
    found = clause(sentence)
    if found is None:
        return
    for rule in (
        counted_subject,
        direct,
        measured,
        prepositional,
        by_whom,
        named,
        identified,
        defined,
        placed,
        who,
    ):
        yield from rule(found, inside)
