"""Plain English statements taken apart: subject, verb, the rest. By closed lists of words, without a parser.

What does not fit the lists is no clause. A missed sentence costs a question, a wrong one costs the reviewer's time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from openbook.knowledge.values import NUMBER_WORDS

_MARKUP = re.compile(r"\*\*[^*\n]{1,80}[.:]\*\*[ \n]+(?=[A-Z0-9])|[*`]+|(?<!\w)_+|_+(?!\w)")
_LEAD = re.compile(
    r"(?:[>\s]*(?:[-*+•‣◦▪–—·][ \t]+|\(?\d{1,3}[.)][ \t]+|\d{1,3}(?:\.\d{1,3})+\.?[ \t]+|\.\.[ ]+)+|[>\s]+)?(?:[A-Z]{4,20}: +)?"
)


@dataclass(frozen=True, slots=True)
class Plain:
    """A sentence on one line without markup. Character i of `text` stands at `at[i]` of the document's text."""

    text: str
    at: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where `text[start:end]` stands in the document, for a span that is not empty."""
        return self.at[start], self.at[end - 1] + 1


def plain(text: str, start: int, end: int) -> Plain:
    """The sentence at `text[start:end]`, without list marks, numbering and emphasis."""
    drop = bytearray(end - start)
    for match in _MARKUP.finditer(text, start, end):
        drop[match.start() - start : match.end() - start] = b"\1" * (match.end() - match.start())
    lead = _LEAD.match(text, start, end)
    begin = lead.end() if lead else start
    letters: list[str] = []
    at: list[int] = []
    for i in range(begin, end):
        if drop[i - start]:
            continue
        letter = " " if text[i].isspace() else text[i]
        if letter == " " and (not letters or letters[-1] == " "):
            continue
        letters.append(letter)
        at.append(i)
    while letters and letters[-1] == " ":
        letters.pop()
        at.pop()
    return Plain("".join(letters), tuple(at))


AUXILIARIES = frozenset(
    "is are was were has have had will must may can should could would might shall do does did".split()
)
MODALS = frozenset("will must may can should could would might shall".split())
_REGULAR = (
    "cost take last need hold carry serve pay get receive charge contain include begin start end open close leave arrive "
    "run apply continue lapse expire follow weigh measure cover seat employ reach give spend earn lose win produce sell buy "
    "use own lie stand hang live work answer sign approve lead command decide write report order send bring keep become join "
    "build move grant offer require allow enter visit travel sail fly drive land drop fall rise grow increase decrease "
    "remain stay return belong consist supply deliver publish release launch discover invent design create establish "
    "win receive defeat marry die play record direct attend teach study represent govern rule replace promise issue invoice "
    "brew make meet repair check inform burn bill book borrow mark fit fail total refill wear see show trip train "
    "operate manage organise organize host seize capture conquer introduce adopt complete finish act store process support "
    "generate print ship reply respond repeat clean sink feed fill provide accept accommodate attract comprise occupy stretch"
).split()
_IRREGULAR = {
    "have": ("had", "had"), "take": ("took", "taken"), "hold": ("held", "held"), "pay": ("paid", "paid"),
    "get": ("got", "got"), "begin": ("began", "begun"), "leave": ("left", "left"), "run": ("ran", "run"),
    "give": ("gave", "given"), "spend": ("spent", "spent"), "lose": ("lost", "lost"), "win": ("won", "won"),
    "sell": ("sold", "sold"), "buy": ("bought", "bought"), "lie": ("lay", "lain"), "stand": ("stood", "stood"),
    "hang": ("hung", "hung"), "lead": ("led", "led"), "write": ("wrote", "written"), "send": ("sent", "sent"),
    "bring": ("brought", "brought"), "keep": ("kept", "kept"), "become": ("became", "become"),
    "build": ("built", "built"), "fly": ("flew", "flown"), "drive": ("drove", "driven"), "fall": ("fell", "fallen"),
    "rise": ("rose", "risen"), "grow": ("grew", "grown"), "teach": ("taught", "taught"), "make": ("made", "made"),
    "meet": ("met", "met"), "wear": ("wore", "worn"), "see": ("saw", "seen"), "show": ("showed", "shown"),
    "cost": ("cost", "cost"), "sink": ("sank", "sunk"), "feed": ("fed", "fed"), "burn": ("burned", "burned"),
    "fit": ("fitted", "fitted"), "draw": ("drew", "drawn"), "know": ("knew", "known"), "find": ("found", "found"),
    "bear": ("bore", "born"), "say": ("said", "said"),
    "tell": ("told", "told"), "throw": ("threw", "thrown"), "choose": ("chose", "chosen"), "come": ("came", "come"),
    "go": ("went", "gone"), "ring": ("rang", "rung"), "speak": ("spoke", "spoken"), "think": ("thought", "thought"),
    "break": ("broke", "broken"), "eat": ("ate", "eaten"), "steal": ("stole", "stolen"), "lay": ("laid", "laid"),
}  # fmt: skip
_DOUBLING = {"drop": "dropped", "ship": "shipped", "trip": "tripped", "refit": "refitted"}


def _third(base: str) -> str:
    if base == "have":
        return "has"
    if re.search(r"(?:s|sh|ch|x|z|o)$", base):
        return base + "es"
    return base[:-1] + "ies" if re.search(r"[^aeiou]y$", base) else base + "s"


def _past(base: str) -> str:
    if base in _DOUBLING:
        return _DOUBLING[base]
    if base.endswith("e"):
        return base + "d"
    return base[:-1] + "ied" if re.search(r"[^aeiou]y$", base) else base + "ed"


_BASES = dict.fromkeys([*_REGULAR, "have", "find", "come", "go", "say", "tell", "draw"])
_THIRD = {_third(base): base for base in _BASES}
_PAST = {(_IRREGULAR[base][0] if base in _IRREGULAR else _past(base)): base for base in _BASES}
_PARTICIPLES = frozenset(
    {participle for _, participle in _IRREGULAR.values()} | {_past(b) for b in _BASES if b not in _IRREGULAR}
)
_PAST["founded"] = "found"

_SUBORDINATE = frozenset(
    "who which that whoever whom whose if when whenever while because since although though where wherever what how unless "
    "until than whether".split()
)
PREPOSITIONS = frozenset(
    "in on at to from of for by with between within after before during until till over under above below behind near into "
    "onto through without about against among around across along since as per towards upon beside next".split()
)
DETERMINERS = frozenset(
    "the a an this these those each every all some any both most our your my his her its their no one two".split()
)
_PLURALS = frozenset("we you they i people staff children crew men women members police who vegetarians".split())
_PRONOUNS = frozenset("it they he she we i you him them us one ones".split())
_NO_SUBJECT = frozenset(
    "it this these they she he that those such there here what who which when where how why nobody nothing none one both "
    "another other others anybody anything everything something somebody whoever whatever neither either i me not no so".split()
)


def participle(word: str) -> bool:
    return word in _PARTICIPLES or (len(word) > 4 and word.endswith("ed"))


@dataclass(frozen=True, slots=True)
class Clause:
    """Subject and rest are spans of the plain sentence; what stands between them is the verb.

    A question begins with `auxiliary`, and `base` follows the subject: `Samples are kept` has `are` and nothing (`kept` is
    the rest), `A bicycle costs` has `does` and `cost`. `fronted`: a phrase of time before the subject, such as `in October`.
    """

    plain: Plain
    fronted: str
    subject: tuple[int, int]
    auxiliary: str
    base: str
    rest: tuple[int, int]

    @property
    def subject_text(self) -> str:
        return self.plain.text[self.subject[0] : self.subject[1]]

    @property
    def rest_text(self) -> str:
        return self.plain.text[self.rest[0] : self.rest[1]]


_TOKEN = re.compile(r"[^\s\w]?\d[\d.,:]*\d[^\s,;:()\"“”]*|[^\s,;:()\"“”]+|[,;:()\"“”]")
_FRONTED = re.compile(
    r"(?P<time>(?:In|On|By|Since|From|Until|During) (?:(?:early|late|mid|the year|spring|summer|autumn|winter) )?"
    r"(?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November|December|\d{4})\b"
    r"(?: \d{4}| \d{1,2}, \d{4})?),? (?=\S)"
)


def clause(sentence: Plain) -> Clause | None:
    """The main clause of a statement, or None."""
    text = sentence.text.rstrip("!")
    quoted = text.count('"') % 2 or text.count("“") != text.count("”")
    if not text or text.endswith(("?", ":")) or len(text) > 400 or quoted:
        return None
    front = _FRONTED.match(text)
    start = front.end() if front else 0
    tokens = list(_TOKEN.finditer(text, start))
    words = [t[0].lower().rstrip(".") for t in tokens]
    at = _verb(words)
    if at is None or (not text[start].isupper() and not text[start].isdigit() and not front):
        return None
    subject = (tokens[0].start(), tokens[at - 1].end())
    if not (_may_be_subject(words[:at]) or (tokens[0][0] == "IT" and at > 1)):  # the department
        return None
    auxiliary, base = _kind(words[at], words[at + 1 : at + 2])
    rest_start = tokens[at + 1].start() if at + 1 < len(tokens) else len(text)
    end = _end_of_rest(text, tokens[at + 1 :], words[at + 1 :])
    if end <= rest_start or words[at + 1] == "that":
        return None
    time = front["time"][0].lower() + front["time"][1:] if front else ""
    return Clause(sentence, time, subject, auxiliary, base, (rest_start, end))


def _may_be_subject(words: Sequence[str]) -> bool:
    carried_over = len(words) > 2 and participle(words[-2]) and words[-1] != "to"
    if words[-1] in DETERMINERS or (words[-1] in PREPOSITIONS and not carried_over):
        return False
    if not 1 <= len(words) <= 12 or words[0] in _NO_SUBJECT or words[0] in PREPOSITIONS or words[0] in _SUBORDINATE:
        return False
    if (
        len(words) > 1
        and words[0] == "the"
        and words[1] in ("other", "same", "former", "latter", "first", "second", "rest")
    ):
        return len(words) > 2 and words[2] not in PREPOSITIONS
    if len(words) == 2 and words[0] == "the" and words[1].endswith("est"):  # the longest: of what?
        return False
    return (
        not any(w in _SUBORDINATE or w in _PRONOUNS or w in ',;:()"“”' for w in words[1:])
        and words[0] not in ',;:()"“”'
    )


def _verb(words: Sequence[str]) -> int | None:
    """Where the finite verb is."""
    many = False  # of the days carried over: the noun before a participle is a plural
    for i in range(1, min(len(words), 14)):
        word, before = words[i], words[i - 1]
        if word in ',;:()"“”' or word in _SUBORDINATE:
            return None
        if word in AUXILIARIES:
            return i
        if (before in PREPOSITIONS and not (many and participle(words[i - 2]))) or before in DETERMINERS:
            continue
        after = words[i + 1] if i + 1 < len(words) else ""
        if after in AUXILIARIES or after in _THIRD:
            continue
        plural = (
            many or before in _PLURALS or (before.endswith("s") and not before.endswith(("ss", "us", "is", "'s", "’s")))
        )
        if word in _THIRD and not (plural and i > 1 and words[0] not in DETERMINERS):
            return i
        if word in _PAST:
            if not _finite_later(words, i + 1, plural=plural):
                return i
            many = plural
            continue
        if word in _BASES and plural:
            return i
    return None


def _finite_later(words: Sequence[str], start: int, *, plural: bool) -> bool:
    """Whether a past form is only a participle: the finite verb comes later in the same clause."""
    for i in range(start, min(len(words), start + 12)):
        if words[i] in ",;:()" or words[i] in _SUBORDINATE or words[i] in ("and", "but", "or"):
            return False
        other = words[i] in _PAST or (words[i].endswith("ed") and words[i - 1] not in DETERMINERS | PREPOSITIONS)
        if words[i] in AUXILIARIES or other or (plural and words[i] in _BASES and words[i - 1] not in DETERMINERS):
            return True
    return False


def _kind(word: str, following: Sequence[str]) -> tuple[str, str]:
    """(auxiliary, base)."""
    if word in ("has", "have", "had") and not (following and (following[0] == "been" or participle(following[0]))):
        return {"has": "does", "have": "do", "had": "did"}[word], "have"
    if word in AUXILIARIES:
        return word, ""
    if word in _THIRD:
        return "does", _THIRD[word]
    return ("did", _PAST[word]) if word in _PAST and word not in _BASES else ("do", word)


_STOPPERS = frozenset("which because since while but although though whereas so who whose".split())


def _end_of_rest(text: str, tokens: Sequence[re.Match[str]], words: Sequence[str]) -> int:
    """Where the first statement ends: before a comma, a further clause or a second verb."""
    end = len(text)
    for i, (token, word) in enumerate(zip(tokens, words, strict=True)):
        stops = word in _STOPPERS and words[i - 1 : i] != ["a"]  # for a while
        cut = word in ",;:()" or stops or (word == "and" and _new_part(words, i))
        if i and token[0] in "–—":
            cut = True
        if cut:
            end = token.start()
            break
    return len(text[:end].rstrip(" .!"))


def _new_part(words: Sequence[str], i: int) -> bool:
    if "between" in words[:i]:
        return "and" in words[words.index("between") : i]
    following = words[i + 1 : i + 6]
    if following and (
        following[0] in DETERMINERS or following[0] in NUMBER_WORDS or re.match(r"[€$£]?\d", following[0])
    ):
        return True
    return any(w in AUXILIARIES or w in _THIRD or w in _PAST for w in following)
