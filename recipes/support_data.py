"""Writes the training pairs of a support head: whether a passage says what a sentence says, in answer to a question.

    python recipes/support_data.py --entailment FOLDER --reading FOLDER --out FILE.jsonl.gz [--pairs 40000]

A row has `question` (often empty), `sentence`, `passage`, `label`, `source` and `held_out`. Half of the pairs were judged by
people (`--entailment`); half are made from questions with answers (`--reading`), of the kinds that judged sets lack: the
true sentence that answers another question, the neighbouring cell of a table, a no for a yes, a number or unit that is off,
an added detail, the right document without its answer. `refuted` is what the passage contradicts, `neither` what it does not
say or what does not answer the question, `not` one of the two. A tenth of the documents is held out, by their title or
text, and all pairs of one document with it. The same folders and seed give the same bytes. Patterns make training data
here; nothing that answers uses them.

Read by eye with the passage, while the recipe took shape: of about 50 supported pairs 3 labels were not true (two of them of
policies, whose questions no longer stand with such pairs), of about 55 refuted one (a swapped name that also holds), of about
40 neither none. Of the recipe as it is, 24 were read: one refuted was wrong. Some statements are stiff ("The Site of
October 23 is ..."), and some wrong values are of another kind than the right one.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Pair: TypeAlias = dict[str, Any]
WORDS = 220  # of a passage of a made pair
JUDGED_WORDS = 320  # of a judged one, which stays whole: nobody knows which part of it was judged
CAPS = {"tabfact": 3_000, "snli": 3_000, "infotabs": 4_000}
SHARES = {  # of the made pairs
    "supported": {"statement": 0.20, "own-question": 0.10, "cell": 0.06, "yes-no": 0.05, "copy": 0.04},
    "refuted": {"swap": 0.09, "number": 0.05, "unit": 0.02, "negation": 0.04, "yes-no": 0.05, "cell": 0.04},
    "neither": {"wrong-question": 0.10, "left-out": 0.05, "added": 0.04, "wrong-passage": 0.03, "wrong-span": 0.03, "cell": 0.01},
}  # fmt: skip
PREFIXES = (
    "According to the excerpts, ",
    "Based on the passage, ",
    "The text says that ",
    "According to the document, ",
)
UNITS = [("million", "billion"), ("thousand", "million"), ("days", "weeks"), ("months", "years"), ("hours", "days"),
         ("minutes", "hours"), ("miles", "metres"), ("km", "metres"), ("kilometres", "metres"), ("feet", "miles"),
         ("kg", "tonnes"), ("seconds", "minutes"), ("centuries", "decades"), ("inches", "feet")]  # fmt: skip
PAST = dict(pair.split() for pair in """write wrote,win won,begin began,become became,take took,make made,give gave,get got,
    find found,buy bought,build built,say said,see saw,go went,come came,lead led,leave left,lose lost,hold held,sing sang,
    send sent,sell sold,speak spoke,think thought,mean meant,bring brought,spend spent,run ran,rise rose,pay paid,meet met,
    know knew,keep kept,grow grew,feel felt,fall fell,eat ate,draw drew,drive drove,choose chose,teach taught,tell told,
    fight fought,put put,cut cut,set set,let let,hit hit,beat beat,read read,cost cost,wear wore,fly flew,serve served,
    receive received,die died""".replace("\n", "").split(","))  # fmt: skip

_SENTENCE = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z0-9\"'(])|\n+")
_NUMBER = re.compile(r"(?<![\w.,/-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/-]|[.,]\d)")
_NAME = re.compile(r"(?<![\w'-])[a-z]+,? ([A-Z][\w'-]+(?: (?:of |the |de )?[A-Z][\w'-]+){0,3})")
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DONE = r"\w+(?:ed|en|wn|ilt|eld|orn|ade|ought|aught|und|ung|ent|ost|ut)"
_PLACED = re.compile(r"(in|on|at|by|since|from|after|before|during|until|about|around|between|to|near|within|through)\b", re.I)  # fmt: skip
_STRANDED = re.compile(r" (of|to|in|on|at|by|for|from|with|about|as|into|do|be|like|\w+ing|" + _DONE + ")$", re.I)
_NOT_ONE = re.compile(r"\b(name|one|an? example|examples|some|another|other|besides|not|maybe|might|could)\b", re.I)
_YES_NO = re.compile(r"(is|are|was|were|do|does|did|can|could|will|would|has|have|had|should|may|might|if)\b", re.I)
_BE = re.compile(r"^((?:The|A|An|(?!Who|What|How|Why|When|Where|Which)[A-Z][\w'-]+)(?: [\w'-]+){0,6}?) (is|are|was|were|can|will) (?!not\b|no\b|never\b|only\b|also\b|what\b|why\b|there\b)")  # fmt: skip


@dataclass
class Item:
    """A question on a passage, with its answers and the one sentence that holds the first of them."""

    set: str
    document: str
    passage: str
    question: str
    answers: list[str]
    table: bool = False
    sentence: str = ""
    others: list[Item] = field(default_factory=list)  # on the same passage
    around: list[str] = field(default_factory=list)  # other passages of the same document


# Sentences from questions and answers.


def statement(question: str, answer: str) -> str:  # noqa: C901
    """The question as a statement with the answer in it, where a plain pattern fits; else nothing."""
    body = re.sub(r"\s+", " ", question).strip(" ?!.")
    end = _STRANDED.search(body)
    if m := re.fullmatch(
        rf"(when|where|(?:in )?(?:what|which) year) (was|were|is|are) (.+) ({_DONE}|located)", body, re.I
    ):
        where = placed(answer, m[1])
        return where and f"{m[3]} {m[2]} {m[4]} {where}"
    if m := re.fullmatch(r"where (is|are|was|were) ((?:the )?(?:[A-Z][\w'-]+ ?)+)", body):
        where = placed(answer, "where")
        return where and f"{m[2].strip()} {m[1]} {where}"
    if m := re.fullmatch(r"(what|who|where|when|how many [\w ]+?) (does|do|did) (.+) ([a-z]{3,})", body, re.I):
        wh, auxiliary, subject, verb = m[1].lower(), m[2].lower(), m[3], m[4]
        unsafe = _STRANDED.search(" " + verb) or re.search(
            r"(ly|s|ed|er|ion|place|have|happen|up|out)$| (to|and|for|in|of)$", f"{subject} {verb}"
        )
        tail = placed(answer, wh) if wh in ("when", "where") else counted(wh, answer) if "how many" in wh else answer
        if unsafe or re.search(r" (to|have|in|when|for|that|and) ", subject + " ") or not tail:
            return ""
        return f"{subject} {verb if auxiliary == 'do' else inflected(verb, auxiliary)} {tail}"
    if m := re.fullmatch(r"how many (.+?) (are|were) there\b ?(.*)", body, re.I):
        return f"There {m[2]} {counted('how many ' + m[1], answer)} {m[3]}"
    if m := re.fullmatch(
        r"how many ([\w ]+?) ((?:are|were|have|had|won|took|scored|finished) (?!the |he |she |it |they |you |there |[A-Z]).+)",
        body,
    ):
        return (
            ""
            if re.search(r"\b(did|do|does|is|was|has|can)\b", m[1]) or end
            else f"{counted('how many ' + m[1], answer)} {m[2]}"
        )
    if m := re.fullmatch(r"who (is|was|are|were) (.+)", body, re.I):
        if re.fullmatch(r"([A-Z][\w'-]+ ?)+", m[2]):
            return f"{m[2]} {m[1]} {answer}"
        return "" if end or not re.match(r"(the|an?)\b|" + _DONE, m[2]) else f"{answer} {m[1]} {m[2]}"
    if m := re.fullmatch(
        r"who ((?!did|do|does|has|have|had|can|could|will|would|should|else|all)[a-z]+ .+)", body, re.I
    ):
        return f"{answer} {m[1]}"
    if m := re.fullmatch(r"what (is|was|are|were) (.+) (called|named|known as)", body, re.I):
        return f"{m[2]} {m[1]} {m[3]} {answer}"
    if m := re.fullmatch(r"(?:what|which) (is|was|are|were) ((?:the|his|her|their|its|this) .+)", body, re.I):
        return "" if end or re.search(r"\w+ing\b", m[2]) else f"{m[2]} {m[1]} {answer}"
    if m := re.fullmatch(rf"(?:what|which) (?!is|was|are|were|do|does|did|has|have|happen|would|will|can|should)[\w'-]+(?: [\w'-]+){{0,2}}? ((?:is|was|were|are|has|had|have) (?:{_DONE} |the (?:most|first|only|last)).+)", body, re.I):  # fmt: skip
        return "" if _STRANDED.search(m[1].replace("ed", "")) else f"{answer} {m[1]}"
    return ""


def placed(answer: str, asked: str) -> str:
    """The answer with a preposition of time or place; nothing where none is sure."""
    if _PLACED.match(answer):
        return answer
    if asked.lower() == "where":
        return f"in {answer}" if re.fullmatch(r"(the )?[A-Z][\w'-]+(,? (of |the )?[A-Z][\w'-]+){0,4}", answer) else ""
    if re.search(rf"{_MONTH} \d{{1,2}}\b(?!\d)|\b\d{{1,2}} {_MONTH}", answer):
        return f"on {answer}"
    return f"in {answer}" if re.fullmatch(rf"({_MONTH} )?(the )?(\d{{4}}s?|\d+th century)", answer) else ""


def counted(asked: str, answer: str) -> str:
    noun = re.sub(r"^how many ", "", asked, flags=re.I)
    return answer if noun.split()[-1].lower()[:4] in answer.lower() else f"{answer} {noun}"


def inflected(verb: str, auxiliary: str) -> str:
    if auxiliary == "did":
        return PAST.get(verb) or re.sub(r"(?<=[^aeiou])y$", "i", verb).removesuffix("e") + "ed"
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + ("es" if re.search(r"(s|sh|ch|x|o)$", verb) else "s")


def answered(item: Item, rng: random.Random, answer: str = "", full: bool = False) -> str:
    """An answer as a model may write it, around `answer` instead of the true one where it is given."""
    true, chance = item.answers[0], rng.random()
    answer = answer or true
    said = "" if _YES_NO.match(item.question) else statement(item.question, answer) if len(answer.split()) <= 14 else ""
    held = item.sentence if len(item.sentence.split()) <= 45 else ""
    if answer != true:
        held = replaced(held, true, answer)
    if said and chance < 0.65:
        return said
    if held and (chance > 0.75 or full):
        cut = re.match(r"(.{30,}?), (?:which|who|where|while|although|but) ", held)
        return cut[1] if cut and answer in cut[1] and chance > 0.85 else held
    if full or _YES_NO.match(item.question):
        return said or ("" if full else held)
    if len(answer.split()) > 25:
        return held or (answer if len(answer.split()) < 80 else "")
    return rng.choice((answer, answer, f"The answer is {answer}", f"It is {answer}", f'"{answer}"'))


def dressed(sentence: str, passage: str, rng: random.Random) -> str:
    """In the case, with the stop and the prefix that one answer or another has."""
    text = re.sub(r"\s+", " ", sentence).strip()
    if not text.endswith((".", "!", "?", '"')) and rng.random() < 0.85:
        text += "."
    elif text.endswith(".") and rng.random() < 0.15:
        text = text[:-1]
    if rng.random() < 0.12 and len(text.split()) > 4:
        return rng.choice(PREFIXES) + lowered(text, passage + " the a an in it")
    return text if rng.random() < 0.06 else text[:1].upper() + text[1:]


def lowered(text: str, passage: str) -> str:
    """With a small first letter, if the passage writes this word so."""
    word = text.split()[0]
    return text[0].lower() + text[1:] if re.search(rf"\b{re.escape(word[0].lower() + word[1:])}\b", passage) else text


def replaced(text: str, old: str, new: str) -> str:
    """Nothing where `old` does not stand once in the text."""
    found = list(re.finditer(rf"(?<!\w){re.escape(old)}(?!\w)", text))
    return text[: found[0].start()] + new + text[found[0].end() :] if len(found) == 1 else ""


# Values that are wrong.


def altered(number: str, rng: random.Random) -> str:
    """Another number of the same look: a year moves by some years, a count by a little or by a digit."""
    digits = number.replace(",", "")
    if "." in digits:
        return (
            f"{float(digits) + rng.choice((-1, 1)) * rng.choice((0.4, 1.3, 2.5)):.{len(digits.split('.')[1])}f}".lstrip(
                "-"
            )
        )
    value = int(digits)
    if 1500 <= value <= 2100 and "," not in number:
        return str(value + rng.choice((-1, 1)) * rng.choice((1, 2, 4, 7, 10)))
    new = value + rng.choice((1, 2, 3)) if value < 20 else int(value * rng.choice((0.5, 0.9, 1.1, 1.5, 2))) + 1
    return f"{new:,}" if "," in number else str(new)


def other_value(item: Item, rng: random.Random) -> str:
    """Another value of the kind of the answer, from the same passage and a sentence other than the answer's."""
    true = item.answers[0]
    known = {w for text in (*item.answers, item.question) for w in words(text)}
    elsewhere = " ".join(s for s in sentences(item.passage) if s != item.sentence and true not in s)
    if item.table and (grid := [row for row in cells(item.passage) if true in row]):
        column = [row[grid[0].index(true)] for row in cells(item.passage)[2:]]
        column = [c for c in column if re.search(r"\w", c) and len(c.split()) < 8 and not known & words(c)]
        return rng.choice(column) if column else ""
    if _NUMBER.fullmatch(true):
        year = 1500 <= float(true.replace(",", "")) <= 2100
        found = [
            n
            for n in _NUMBER.findall(item.passage)
            if n not in known and (1500 <= float(n.replace(",", "") or 0) <= 2100) == year
        ]
        return str(rng.choice(found or [altered(true, rng)]))
    if number := _NUMBER.search(true):
        return true[: number.start()] + altered(number[0], rng) + true[number.end() :]
    first = item.question.lower().split()[0]
    alike = [
        o.answers[0]
        for o in item.others
        if o.question.lower().split()[0] == first
        and o.answers[0] not in (item.sentence or true)
        and not _NUMBER.search(o.answers[0])
    ]
    if re.fullmatch(r"(the )?[A-Z][\w'-]+( [\w'-]+){0,4}", true) and true.split()[-1][0].isupper():
        alike = [a for a in alike if a[:1].isupper()] + _NAME.findall(elsewhere)
    found = [a for a in alike if abs(len(a.split()) - len(true.split())) < 4 and not known & words(a)]
    return rng.choice(found) if found else ""


def negated(sentence: str) -> str:
    """With a "not" in its only plain main clause, or without the one it has."""
    if (
        len(re.findall(r" (?:is|are|was|were|do|does|did|can) not (?!only|just|necessarily)", sentence)) == 1
        and "," not in sentence
    ):
        text = re.sub(r" (is|are|was|were|can) not ", r" \1 ", sentence)
        return text if text != sentence else ""
    m = _BE.match(sentence)
    if (
        not m
        or re.search(
            r"\b(that|which|who|if|when|and|whose|what|how)\b|\bnot?\b|n't|never",
            m[1] + sentence[m.end() :][:60].split(",")[0],
        )
        or len(sentence.split()) > 30
    ):
        return ""
    return f"{m[1]} {m[2]} not {sentence[m.end() :]}"


# What pairs are made of.


def words(text: str) -> set[str]:
    return {w for w in re.findall(r"\w+", text.lower()) if len(w) > 2 or w.isdigit()}


@functools.cache
def sentences(passage: str) -> tuple[str, ...]:
    return tuple(s.strip() for s in _SENTENCE.split(passage) if s.strip())


def holds(text: str, answers: Iterable[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(a.lower())}(?!\w)", text.lower()) for a in answers)


def window(passage: str, keep: str, rng: random.Random) -> str:
    """At most `WORDS` words of whole sentences or rows, with the part that holds `keep`."""
    parts = [p for p in re.split(r"(?<=[.!?])(?=\s)|(?=\n)", passage) if p.strip()]
    if len(passage.split()) <= WORDS:
        return passage
    at = next((i for i, p in enumerate(parts) if keep.lower() in p.lower()), rng.randrange(len(parts)))
    low = high = at
    while True:
        more = [s for s in ((low - 1, high), (low, high + 1)) if s[0] >= 0 and s[1] < len(parts)]
        more = [s for s in more if len("".join(parts[s[0] : s[1] + 1]).split()) <= WORDS]
        if not more:
            return (
                " ".join("".join(parts[low : high + 1]).split()[:WORDS])
                if low == high
                else "".join(parts[low : high + 1]).strip()
            )
        low, high = rng.choice(more)


def untokenised(text: str) -> str:
    """Without the spaces that a tokeniser put around marks."""
    text = re.sub(r" ([,.;:?!%)\]]|'s\b|n't\b)", r"\1", text.replace("`` ", '"').replace(" ''", '"'))
    return re.sub(r"([(\[$]) ", r"\1", text).replace(" - ", "-").replace(" -- ", " – ")


def rows(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [*map(json.loads, stream)]


def items(folder: Path) -> Iterator[Item]:
    """The questions of all sets that have texts, with what else is asked of the same passage."""
    for name in (
        "squadshifts_new_wiki",
        "squadshifts_reddit",
        "policyqa_dev",
        "qed_dev",
        "clapnq_part",
        "tatqa_dev",
        "wikitablequestions_train",
    ):
        lines = rows(folder / f"{name}.jsonl.gz")
        by_title = defaultdict(list)
        for row in lines:
            row["passage"] = untokenised(row["passage"]) if name in ("qed_dev", "clapnq_part") else row["passage"]
            row["title"] = (
                row["title"] if name in ("squadshifts_new_wiki", "policyqa_dev", "qed_dev", "clapnq_part") else ""
            )
            by_title[row["title"]].append(row["passage"])
        for row in lines:
            of_passage = []
            for each in row["questions"]:
                question, answers = (
                    " ".join(each["question"].split()),
                    [untokenised(a).strip() for a in each["answers"] if a.strip()],
                )
                if name == "policyqa_dev" and (
                    min(len(a.split()) for a in answers) < 4
                    or not re.match(r"(what types? of|why|for what purpose|who) ", question, re.I)
                ):
                    continue  # to other questions of this set the spans are no answers by themselves
                if name != "policyqa_dev" and not all(words(answers[0]) & words(a) for a in answers[1:]):
                    continue  # people did not agree
                if name == "tatqa_dev" and (each["type"] != "span" or each["from"] != "text"):
                    continue
                if name == "wikitablequestions_train" and (
                    row["rows"] > 14
                    or len(words_in(row["passage"])) > WORDS
                    or _NOT_ONE.search(question)
                    or question.endswith(".")
                ):
                    continue
                item = Item(
                    name,
                    row["title"] or row["passage"],
                    row["passage"],
                    question,
                    answers,
                    name == "wikitablequestions_train",
                )
                held = [s for s in sentences(item.passage) if answers and answers[0] in s]
                if (
                    len(held) == 1
                    and not item.table
                    and len(held[0].split()) > 4
                    and held[0].rstrip("\"')")[-1] in ".!?"
                ):
                    item.sentence = held[0]
                of_passage.append(item)
            for item in of_passage:
                item.others = [o for o in of_passage if o is not item]
                if row["title"]:
                    item.around = [p for p in by_title[row["title"]] if p != item.passage]
                yield item


def lone_sentences(folder: Path) -> Iterator[Item]:
    """Questions whose sentence is known, but no passage: it is put together from sentences on like matters."""
    found = json.loads(gzip.decompress((folder / "squad_train_sentences.json.gz").read_bytes()))
    texts = [" ".join(a.split()) for a in found["answers"]]
    having = defaultdict(list)
    for i, text in enumerate(texts):
        for word in words(text):
            having[word].append(i)
    for question, text in zip(found["questions"], texts, strict=True):
        near: Counter[int] = Counter()
        for word in sorted(words(text)):
            if len(having[word]) < 60:
                near.update({j: 1 / len(having[word]) for j in having[word] if texts[j] != text})
        others = [j for j, _ in near.most_common(4)]
        passage = " ".join(
            sorted({text, *(texts[j] for j in others)}, key=lambda t: hashlib.sha256(t.encode()).digest())
        )
        if text.endswith((".", "!", "?")) and len(text.split()) > 5:
            item = Item("squad_train_sentences", text, passage, " ".join(question.split()), [text], sentence=text)
            item.others = [
                Item(item.set, text, passage, found["questions"][j], [texts[j]], sentence=texts[j]) for j in others
            ]
            yield item


def pairs_of(  # noqa: C901
    item: Item, rng: random.Random, details: dict[str, list[tuple[str, str]]]
) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(label, kind, question, sentence, passage, what the passage has to keep) of one question."""
    if not item.answers:
        names = [n for n in _NAME.findall(item.passage) if not words(n) & words(item.question)]
        if item.sentence or names:
            yield (
                "neither",
                "wrong-span",
                item.question,
                rng.choice([f"The answer is {rng.choice(names)}", statement(item.question, names[0]) or names[0]]),
                item.passage,
                "",
            )
        for sentence in sorted(sentences(item.passage), key=lambda s: -len(words(s) & words(item.question)))[:2]:
            yield "neither", "wrong-span", item.question, sentence, item.passage, sentence
        return
    true, asked, passage = item.answers[0], item.question, item.passage
    lone = item.set == "squad_train_sentences"
    place = "" if item.table or len(passage.split()) <= WORDS else item.sentence or true
    if item.around and len(passage.split()) < 120 and rng.random() < 0.5:  # a longer part of the document
        passage = "\n\n".join(rng.sample([passage, rng.choice(item.around)], 2))
    said = answered(item, rng)
    if item.set == "policyqa_dev":
        said = ""  # which question a sentence of a policy answers is rarely sure
    if said and not lone:
        yield "supported", "statement", asked, said, passage, place
    if item.sentence:
        yield "supported", "copy", "", item.sentence, passage, item.sentence
        yield from of_wording(item, passage, rng)
    one = (
        not _NOT_ONE.search(asked)
        and not _YES_NO.match(asked)
        and (item.table or len(true.split()) < 8)
        and ", " not in true
    )
    wrong = other_value(item, rng) if one and not lone else ""
    differs = wrong and not holds(wrong, [true]) and not holds(true, [wrong])
    if differs and (sentence := answered(item, rng, wrong)):
        kind = "number" if _NUMBER.search(true) else "swap"
        yield "refuted", kind, asked, sentence, passage, place
    full = answered(item, rng, full=True)
    if not full:
        return
    for other in item.others if item.set != "policyqa_dev" else ():
        apart = len(words(other.question) & words(asked)) < 0.5 * len(words(asked) | words(other.question))
        if item.set == "squadshifts_reddit" and not re.match(
            r"(who|when|where|how \w+|which|what (?!is|are|was|does|do|did)\w+) ", other.question, re.I
        ):
            continue
        kept = other.sentence and other.sentence != item.sentence and not _YES_NO.match(other.question)
        if kept and apart and not holds(full, other.answers) and not _NOT_ONE.search(other.question):
            yield "supported", "own-question", asked, full, passage, place
            yield "neither", "wrong-question", other.question, full, passage, place
            break
    document, detail = rng.choice(details.get(item.set) or details["squadshifts_new_wiki"])
    own = [
        t for p in item.around for t in sentences(p) if 5 < len(t.split()) < 18 and t.endswith(".") and t not in passage
    ]
    document, detail = ("", rng.choice(own)) if own and item.set != "policyqa_dev" else (document, detail)
    if document != item.document and len(full.split()) < 25:
        tail = re.search(r" (?:in|on|at|by|for|with|after|since|during) [^,.]{4,40}(?=\.$)", detail)
        tail = tail if tail and not words(tail[0]) & words(passage) else None
        more = (
            tail[0]
            if tail
            else rng.choice(
                (
                    f", and {lowered(detail, 'the a an in it this these such they there most his he she on at for as some')}",
                    f". {detail}",
                )
            )
        )
        yield "neither", "added", asked, full.rstrip(" .") + more, passage, place
    if item.table or lone or len(true) < 4 or item.set == "policyqa_dev":
        return
    without = re.sub(r"\s+", " ", passage.replace(item.sentence, "")) if item.sentence else ""
    if without and not holds(without, item.answers) and len(without.split()) > 25:
        yield "neither", "left-out", asked, said, without.strip(), ""
    near = [p for p in item.around if not holds(p, item.answers)]
    if near:
        near_one = max(rng.sample(near, min(6, len(near))), key=lambda p: len(words(p) & words(asked)))
        yield "neither", "wrong-passage", asked, said, near_one, ""
        names = [
            n
            for n in (_NUMBER if _NUMBER.search(true) else _NAME).findall(near_one)
            if not words(n) & words(f"{asked} {true}")
        ]
        if names and (sentence := answered(item, rng, rng.choice(names))):
            yield "neither", "wrong-span", asked, sentence, near_one, ""


def of_wording(item: Item, passage: str, rng: random.Random) -> Iterator[tuple[str, str, str, str, str, str]]:
    """What a sentence of the passage becomes by a not, a yes or a no, another unit or number."""
    sentence, asked = item.sentence, rng.choice((item.question, ""))
    if text := negated(sentence):
        yield "refuted", "negation", asked, text, passage, sentence
        m = _BE.match(sentence)
        if m and len(sentence.split()) < 25:
            subject = lowered(m[1], "the a an it he she they this these there we his her its our such most in some")
            question = f"{m[2].capitalize()} {subject} {sentence[m.end() :].rstrip('.')}?"
            yield (
                "supported",
                "yes-no",
                question,
                rng.choice(("Yes", f"Yes, {subject} {m[2]} {sentence[m.end() :]}")),
                passage,
                sentence,
            )
            yield (
                "refuted",
                "yes-no",
                question,
                rng.choice(("No", f"No, {subject} {m[2]} not {sentence[m.end() :]}")),
                passage,
                sentence,
            )
    for pair in UNITS:
        for old, new in (pair, pair[::-1]):
            text = replaced(sentence, old, new) if re.search(rf"\d (?:\w+ )?{old}\b", sentence) else ""
            if text:
                yield "refuted", "unit", asked, text, passage, sentence
                return
    numbers = _NUMBER.findall(sentence)
    if numbers:
        number = rng.choice(numbers)
        new = altered(number, rng)
        if not holds(sentence, [new]) and (text := replaced(sentence, number, new)):
            yield "refuted", "number", asked if number in item.answers[0] else "", text, passage, sentence


def of_yes_and_no(row: Any, rng: random.Random) -> Iterator[tuple[str, str, str, str, str, str]]:
    """PubMedQA: what was found stands at the end of the passage. "Maybe" supports neither answer."""
    each = row["questions"][0]
    question, reason = each["question"], sentences(each["long"])[0]
    reason, decision = reason if len(reason.split()) < 40 else "", each["answers"][0]
    keep = sentences(row["passage"])[-1]
    m = re.match(r"Do (.*)", question)
    own = f", {m[1].strip(' ?')}" if m and ":" not in question else ""
    yes = rng.choice(("Yes", "Yes" + own))
    reason = rng.choice((f"Yes. {reason}", reason)) if decision == "yes" else f"No. {reason}"
    if decision == "maybe":
        yield "neither", "yes-no", question, rng.choice((yes, "No")), row["passage"], keep
        return
    label = {"yes": "supported", "no": "refuted"}
    flipped = {"yes": "refuted", "no": "supported"}
    yield label[decision], "yes-no", question, yes, row["passage"], keep
    yield flipped[decision], "yes-no", question, "No", row["passage"], keep
    yield "supported", "yes-no", question, reason, row["passage"], keep


def of_cells(table: str, rng: random.Random) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Statements on the cells of a table, right ones and those of a neighbour, on the rows around."""
    lines, grid = [line for line in table.split("\n") if line.startswith("|")], cells(table)
    head, body, texts = grid[0], grid[2:], lines[2:]
    if len(body) < 3 or len(set(head)) < len(head) or not all(head[1:]) or len({*map(len, grid)}) > 1:
        return
    keys = [
        c
        for c in range(min(3, len(head)))
        if len({row[c] for row in body}) == len(body) and all(row[c] for row in body)
    ]
    keys = [c for c in keys if sum(bool(re.search("[a-zA-Z]{3}", row[c])) for row in body) > 0.8 * len(body)] or keys[
        :0
    ]
    if not keys:
        return
    key = keys[0]
    for r in rng.sample(range(len(body)), min(4, len(body))):
        low = max(0, min(r - rng.randrange(12), len(body) - 12))
        near = range(low, min(len(body), low + 12))
        passage = "\n".join((*lines[:2], *(texts[i] for i in near)))
        without = "\n".join((*lines[:2], *(texts[i] for i in near if i != r)))
        usable = [
            c
            for c in range(len(head))
            if c != key
            and re.search(r"\w", body[r][c])
            and not re.match(r"FY|\(", body[r][c])
            and len(body[r][c].split()) < 9
        ]
        if len(usable) < 2 or len(words_in(passage)) > WORDS:
            continue
        c, other = rng.sample(usable, 2)
        who, column, value = body[r][key], head[c], body[r][c]
        form = rng.choice(
            (
                "The {c} of {w} is {v}",
                "{w}'s {c} is {v}",
                "For {w}, the {c} is {v}",
                "The {c} for {w} was {v}",
                "{v}",
                "{w}: {c} {v}",
                "The answer is {v}",
            )
        )
        dated = re.match(rf"(FY|fiscal)? ?\d|{_MONTH}|year", column, re.I)
        if dated:
            form = rng.choice(
                ("{w} in {c} was {v}", "In {c}, {w} was {v}", "{v}", "The answer is {v}", "The {w} for {c} is {v}")
            )
        question = (
            rng.choice(("What was {w} in {c}?", "How much was {w} in {c}?"))
            if dated
            else rng.choice(("What is the {c} of {w}?", "what was the {c} for {w}?", "Which {c} does {w} have?"))
        )
        question = question.format(c=column, w=who)
        asked = question if "{w}" not in form or rng.random() < 0.7 else ""
        yield "supported", "cell", asked, form.format(c=column, w=who, v=value), passage, ""
        wrongs = [body[i][c] for i in near if i != r and re.search(r"\w", body[i][c])]
        wrongs = [
            w
            for w in (rng.choice(wrongs or [""]), body[r][other])
            if w and not words(w) & words(value) and not holds(w, [value]) and not holds(value, [w])
        ]
        if wrongs:
            yield "refuted", "cell", asked, form.format(c=column, w=who, v=rng.choice(wrongs)), passage, ""
        if "{w}" in form:
            full = form.format(c=column, w=who, v=value)
            yield "neither", "wrong-question", question.replace(column, head[other]), full, passage, ""
            yield "supported", "own-question", question, full, passage, ""
            if who not in without:
                yield "neither", "cell", asked, full, without, ""


def cells(table: str) -> list[list[str]]:
    return [
        [c.strip() for c in line.strip().removeprefix("|").removesuffix("|").split("|")]
        for line in table.split("\n")
        if line.startswith("|")
    ]


def words_in(text: str) -> list[str]:
    return re.findall(r"[^\s|]+", text.replace("---", ""))


def made(folder: Path, count: int, rng: random.Random) -> list[Pair]:
    """Pairs of each kind by their shares, from the sets in turn; what a kind lacks, the others of its label give."""
    pools: dict[tuple[str, str], dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))

    def put(name: str, document: str, found: Iterable[tuple[str, str, str, str, str, str]]) -> None:
        for label, kind, question, sentence, passage, keep in found:
            text = passage if passage.startswith("|") else window(passage, keep, rng)
            if sentence and (not keep or keep.lower() in text.lower()):
                question = question.lower().rstrip("?") if rng.random() < 0.08 else question
                row = pair(question, dressed(sentence, passage, rng), text, label, f"{name}:{kind}", document)
                pools[label, kind][name].append(row)

    asked = [*items(folder), *lone_sentences(folder)]
    details = defaultdict(list)
    for item in asked:
        if 5 < len(item.sentence.split()) < 18:
            details[item.set].append((item.document, item.sentence))
    for item in asked:
        put(item.set, item.document, pairs_of(item, rng, details))
    for row in rows(folder / "pubmedqa.jsonl.gz"):
        put("pubmedqa", row["passage"], of_yes_and_no(row, rng))
    for name in ("wikitablequestions_train", "tatqa_dev"):
        for row in rows(folder / f"{name}.jsonl.gz"):
            put(name, row["passage"], of_cells(row.get("table") or row["passage"], rng))
    chosen = []
    for label, shares in SHARES.items():
        rest: list[Pair] = []
        taken = 0
        for kind, share in shares.items():
            most = round(share * count)
            row_of = in_turn(pools[label, kind], rng)
            chosen += row_of[:most]
            taken += len(row_of[:most])
            rest += row_of[most:]
        rng.shuffle(rest)
        chosen += rest[: round(sum(shares.values()) * count) - taken]
    return chosen


def in_turn(pool: dict[str, list[Pair]], rng: random.Random) -> list[Pair]:
    """The pairs of all sets mixed evenly, in the order of a random number that grows with the place in its set."""
    placed_rows = []
    for name in sorted(pool):
        rng.shuffle(pool[name])
        placed_rows += [(i, rng.random(), row) for i, row in enumerate(pool[name])]
    return [row for _, _, row in sorted(placed_rows, key=lambda each: each[:2])]


def judged(folder: Path, count: int, rng: random.Random) -> list[Pair]:
    """Pairs that people judged: of each set by the root of its size, at most its cap; "partly" is neither."""
    sets = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        whole = [row for row in rows(path) if len(row["passage"].split()) <= JUDGED_WORDS]
        rng.shuffle(whole)
        sets[path.name.removesuffix(".jsonl.gz")] = whole
    low, high = 0.0, 1e4
    while high - low > 1e-6 * high:  # the factor that gives as many as are asked for
        factor = (low + high) / 2
        take = {n: min(len(s), CAPS.get(n, 10**6), int(factor * math.sqrt(len(s)))) for n, s in sets.items()}
        low, high = (factor, high) if sum(take.values()) < count else (low, factor)
    take = {n: min(len(s), CAPS.get(n, 10**6), int(high * math.sqrt(len(s)))) for n, s in sets.items()}
    return [
        pair(row.get("question", ""), row["claim"], row["passage"], "neither" if row["label"] == "partly" else row["label"], name, row["passage"])
        for name, rows_of in sets.items()
        for row in rows_of[: take[name]]
    ]  # fmt: skip


def pair(question: str, sentence: str, passage: str, label: str, source: str, document: str) -> Pair:
    held_out = hashlib.sha256(document.encode()).digest()[0] < 256 / 10
    return {
        "question": question,
        "sentence": sentence,
        "passage": passage,
        "label": label,
        "source": source,
        "held_out": held_out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entailment", type=Path, required=True)
    parser.add_argument("--reading", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--seed", default="support")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    chosen = made(args.reading, args.pairs // 2, rng)
    chosen += judged(args.entailment, args.pairs - len(chosen), rng)[: args.pairs - len(chosen)]
    rng.shuffle(chosen)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
    args.out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    labels = ("supported", "refuted", "neither", "not")
    counts = Counter((row["source"], row["label"]) for row in chosen)
    print(f"{'':42}" + "".join(f"{label:>11}" for label in labels))
    for source in sorted({row["source"] for row in chosen}):
        print(f"{source:42}" + "".join(f"{counts[source, label]:11,}" for label in labels))
    print(f"{len(chosen):,} pairs, {sum(row['held_out'] for row in chosen):,} held out")


if __name__ == "__main__":
    main()
