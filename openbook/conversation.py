"""A question that refers back to earlier ones: what it asks, and what to search for.

Functions of the turns and a frozen model. No conversation is kept here; the caller brings it along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from openbook.errors import ContextOverflow
from openbook.inference import FrozenModel
from openbook.parallel import Cancelled, never
from openbook.prompts import MAX_QUESTION_CHARS
from openbook.records import Decoding, Prompt

MAX_EARLIER = 2  # turns of the user that a follow-up may refer back to
FEW_WORDS = 3
MAX_REWRITE_CHARS = 300

_WORD = re.compile(r"\w+")
_ENDING = re.compile(r"(?<=[^\W\d]{3})(?:ations?|ions?|ing|ed|es|en|er|ern|s|e|n)$")
# Words by which a question refers to something said before, in English and German.
_REFERS = frozenset(
    "it its he his him she her hers they them their theirs this that these those one ones there then former latter same "
    "er sein seine ihm ihn sie ihr ihre ihnen dies diese dieser dieses das dort dann davon dazu damit daran".split()
)
_GOES_ON = frozenset("and or but so also und oder aber auch".split())
# Words that a rewrite may add or drop: they say nothing of what is asked about.
_EMPTY = _REFERS | _GOES_ON | frozenset(
    "a an the some any all is are was were be been being do does did has have had can could will would shall should may "
    "might must of in on at to for from by with about as into than if not no s t re i me my we us our you your please tell "
    "give know want say mean explain what which how who whom whose when where why while during between after before each "
    "every both other another more most much many else available possible well ok okay yes just only really still too very use used get "
    "der die den dem des ein eine einen einem einer eines ist sind war waren sein werden wird wurde hat haben hatte kann "
    "können darf muss soll von im in am an auf zu zum zur für mit aus bei nach vor über um als wie was wer wem wen wessen "
    "wann wo warum wieso weshalb welche welcher welches welchen wieviel nicht kein keine ich mir mich wir uns sich es man "
    "bitte noch nur mehr sehr viel viele".split()
)  # fmt: skip
_ASKS_FOR = frozenset("who whom whose when where why wer wem wen wessen wann wo warum wieso weshalb".split())

_SYSTEM = "You rewrite questions."
_REWRITE = """\
Earlier questions:
{earlier}

New question: {question}

Rewrite the new question so that it is clear without the earlier ones: put the names in place of words like "it", and add \
what it leaves out. Keep its other words. Write only the new question."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """`question` is what to ask the model and `query` what to search for. `rewritten`: the question is not the user's own."""

    question: str
    query: str
    rewritten: bool = False


def resolve_follow_up(
    model: FrozenModel, earlier: Sequence[str], question: str, cancelled: Cancelled = never
) -> FollowUp:
    """`question` after the user's `earlier` turns (oldest first): rewritten by the model, or by the rules of `condensed`.

    A question that stands alone stays as it is. A rewrite is used only when it is `faithful`.
    """
    if refers_back(earlier, question):
        text = rewrite(model, earlier, question, cancelled)
        if faithful(text, earlier, question):
            return FollowUp(text, text, rewritten=True)
    return FollowUp(question, condensed(earlier, question))


def refers_back(earlier: Sequence[str], question: str) -> bool:
    """Whether the question needs an earlier one: it has a pronoun, begins with a word such as "and", or has few words."""
    words = _words(question)
    return bool(earlier) and (len(words) <= FEW_WORDS or words[0] in _GOES_ON or not _REFERS.isdisjoint(words))


def condensed(earlier: Sequence[str], question: str) -> str:
    """What to search for when `question` follows the user's `earlier` turns (oldest first), by rules alone.

    A question that stands alone is searched for as it is, so that earlier turns cannot change its answer. One that refers
    back is searched for together with the last two turns before it, oldest first, shortened from the front to
    `MAX_QUESTION_CHARS` in all.
    """
    if not refers_back(earlier, question):
        return question
    before = "\n".join(turn.strip() for turn in earlier[-MAX_EARLIER:])
    room = max(0, MAX_QUESTION_CHARS - len(question) - 1)
    return f"{before[-room:]}\n{question}" if room else question


def rewrite(model: FrozenModel, earlier: Sequence[str], question: str, cancelled: Cancelled = never) -> str:
    """The question as the model rewrites it to stand alone, unchecked. For a trained reader its base writes it.

    "" when the question is too long, or the prompt does not fit into the context. Raises EngineError.
    """
    if len(question) > MAX_REWRITE_CHARS:
        return ""
    turns = "\n".join(f"- {' '.join(turn.split())[:MAX_REWRITE_CHARS]}" for turn in earlier[-MAX_EARLIER:])
    prompt = Prompt(_SYSTEM, (), _REWRITE.format(earlier=turns, question=" ".join(question.split())))
    try:
        completion = model.complete(prompt, Decoding(max_tokens=80, stop=("\n",)), cancelled)
    except ContextOverflow:
        return ""
    whole = completion.finish_reason in ("end", "stop")
    return completion.text.strip().removeprefix("New question:").strip(' "') if whole else ""


def faithful(text: str, earlier: Sequence[str], question: str) -> bool:
    """Whether a rewrite asks what `question` asks: it keeps its words and adds only words from `earlier` turns, at least one.

    Words are compared without their endings, numbers as they are. Words such as "the" may come and go.
    """
    if not text or len(text) > MAX_REWRITE_CHARS or "\n" in text or text.count("?") > max(1, question.count("?")):
        return False
    asked, said, now = (content_words(each) for each in (question, "\n".join(earlier[-MAX_EARLIER:]), text))
    added = now - asked
    return asked <= now and bool(added) and added <= said and _asks_for(question) <= _asks_for(text)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def content_words(text: str) -> set[str]:
    """The words that say what a text is about, in lower case and without their endings."""
    return {_ENDING.sub("", word) for word in _words(text) if word not in _EMPTY}


def _asks_for(text: str) -> frozenset[str]:
    return _ASKS_FOR.intersection(_words(text))
