"""A question that refers back to what was asked before: what to search for.

Pure functions of the turns. Nothing of a conversation is kept here: whoever asks brings it along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from openbook.answer import MAX_QUESTION_CHARS

MOST_EARLIER = 2  # turns of the user that a follow-up may refer back to
FEW_WORDS = 3

_WORD = re.compile(r"\w+")
# Words by which a question refers to something said before, in English and German.
_REFERS = frozenset(
    "it its he him his she her hers they them their theirs this that these those one ones there then former latter same "
    "er sein seine ihm ihn sie ihr ihre ihnen dies diese dieser dieses das dort dann davon dazu damit daran".split()
)
_GOES_ON = frozenset("and or but so also und oder aber auch".split())


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
