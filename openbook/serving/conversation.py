"""From the transcript in a request to what the core takes: a question, and what to search for.

The whole conversation comes with each request and is forgotten after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from openbook.answer import MAX_QUESTION_CHARS
from openbook.serving.bodies import Message
from openbook.serving.refusals import Refusal

MOST_EARLIER = 2  # turns of the user that a follow-up may refer back to
FEW_WORDS = 3

_WORD = re.compile(r"\w+")
# Words by which a question refers to something said before, in English and German.
_REFERS = frozenset(
    "it its he him his she her hers they them their theirs this that these those one ones there then former latter same "
    "er sein seine ihm ihn sie ihr ihre ihnen dies diese dieser dieses das dort dann davon dazu damit daran".split()
)
_GOES_ON = frozenset("and or but so also what's how's und oder aber auch".split())


@dataclass(frozen=True, slots=True)
class Asked:
    """`query`: what to search for. `notes` say what of the transcript was not used."""

    question: str
    query: str
    notes: tuple[str, ...]


def asked(messages: Sequence[Message], param: str = "messages", instructions: str | None = None) -> Asked:
    """The last message is the question; `param` is where they stand, `instructions` a system message beside them.

    Raises Refusal when it is not the user's.
    """
    last = messages[-1]
    if last.role != "user":
        message = f"The last message must be of the role 'user', not {last.role!r}: it is the question."
        raise Refusal(400, message, code="invalid_value", param=f"{param}[{len(messages) - 1}].role")
    earlier = [m.text for m in messages[:-1] if m.role == "user" and m.text.strip()]
    told = bool(instructions and instructions.strip()) or any(
        m.role in ("system", "developer") and m.text.strip() for m in messages
    )
    note = "The system message was not used: the model reads passages under the instruction it was made for."
    return Asked(last.text, condensed(earlier, last.text), (note,) if told else ())


def condensed(earlier: Sequence[str], question: str) -> str:
    """What to search for when `question` follows the user's `earlier` turns (oldest first).

    A question that stands alone is searched for as it is, so that what came before cannot change its answer. One that
    refers back (a pronoun, a beginning such as "and", or at most three words) is searched for together with the last two
    turns before it, oldest first; from the front, they are shortened to what may be asked at all. Pure: the same turns
    give the same query.
    """
    words = [word.lower() for word in _WORD.findall(question)]
    refers = len(words) <= FEW_WORDS or words[0] in _GOES_ON or not _REFERS.isdisjoint(words)
    if not (refers and earlier):
        return question
    before = "\n".join(turn.strip() for turn in earlier[-MOST_EARLIER:])
    room = max(0, MAX_QUESTION_CHARS - len(question) - 1)
    return f"{before[-room:]}\n{question}" if room else question
