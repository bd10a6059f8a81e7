"""What a document says about its own edition: version, dates, status, what it replaces and what replaced it.

Read from its metadata, its name and folder, its title, and its first lines. What could be read in two ways is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from openbook.knowledge.sentences import sentence_spans
from openbook.parsers.metadata import key_name, normalised
from openbook.records import Metadata

BEGINNING_CHARS = 600

_ENDED = {
    "archived": "archived", "superseded": "superseded", "replaced": "superseded", "obsolete": "obsolete",
    "obsoleted": "obsolete", "withdrawn": "withdrawn", "retired": "withdrawn", "revoked": "withdrawn",
    "expired": "expired", "deprecated": "deprecated", "outdated": "out of date", "out of date": "out of date",
    "out-of-date": "out of date", "no longer valid": "no longer valid", "no longer in force": "no longer valid",
    "no longer current": "no longer valid", "no longer applicable": "no longer valid",
    "no longer applies": "no longer valid", "no longer maintained": "no longer maintained",
    "no longer supported": "no longer supported",
}  # fmt: skip
_PROPOSED = {
    "draft": "draft", "proposed": "draft", "proposal": "draft", "pending": "draft", "in review": "draft",
    "under review": "draft", "rejected": "rejected", "deferred": "deferred", "provisional": "draft",
}  # fmt: skip
PROPOSALS = frozenset(_PROPOSED.values())
_CURRENT = frozenset({"current", "active", "in force", "supported", "maintained", "lts", "valid"})

_KEYS = {
    "status": "status state",
    "replaced_by": "superseded_by replaced_by obsoleted_by",
    "replaces": "replaces supersedes obsoletes",
    "version": "version revision edition",
    "until": "valid_until valid_to in_force_until effective_until expires expiry_date expired",
    "since": "valid_from in_force_from in_force_since effective effective_date effective_from",
    "date": "updated last_updated last_changed last_modified revised last_reviewed date issued published",
}
_NOTHING = ("", "none", "n/a")
_IDENTIFIERS = frozenset("pep rfc id number document document_id doc_id reference code identifier policy".split())
# Two documents that differ in one of these are about different things.
_MATTERS = frozenset(
    "country region site location language product vessel model department audience applies_to scope platform customer".split()
)
_TEXT_TYPES = frozenset(
    {"md", "markdown", "txt", "rst", "adoc", "html", "htm"}
)  # others date the file, not what it says

_ARCHIVES = frozenset("archive archives archived old obsolete superseded deprecated".split())
_OLD = frozenset("old archived archive obsolete superseded deprecated outdated".split())
_DRAFTS = frozenset({"draft", "proposal"})
_NUMBERING = frozenset("version edition revision rev ver ed v".split())
_EDITION_WORDS = frozenset({*_OLD, *_DRAFTS, *_NUMBERING, "final", "new", "current", "latest", "copy"})  # at the end
_EDITION_NUMBER = re.compile(r"v?\d+(?:\.\d+)+|(?:v|ver|ed|rev)\d+|(?:19|20)\d\d")
# Each of these is about its own time: a later one does not replace an earlier one.
_RECORDS = frozenset(
    "report reports review reviews minutes meeting memo newsletter incident incidents postmortem postmortems changelog notes log diary "
    "blog posts post news invoice invoices results budget accounts survey agenda journal summary retrospective audit".split()
)

_FIELD = re.compile(r"[\s>*_#|:+\-]*(?P<key>[A-Za-z][A-Za-z _-]{1,30}?)[\s*_]*[:|][\s*_|:]*(?P<value>[^|\n]+)")
_WORD = re.compile(r"[^\W_]+(?:\.\d+)*")
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_NUMBERED = re.compile(r"\b(?:version|edition|revision|rev|ver|ed|v)[ .]{0,2}(\d+(?:\.\d+)*)\b", re.IGNORECASE)
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    rf"(?<!\d)\d{{4}}-\d\d(?:-\d\d)?(?!\d)|\b\d{{1,2}} {_MONTH} \d{{4}}\b|\b{_MONTH} \d{{1,2}}, \d{{4}}\b|\b{_MONTH} \d{{4}}\b"
    r"|(?<![\d.])(?:19|20)\d\d(?![\d.])",
    re.IGNORECASE,
)
_UNTIL = re.compile(
    r"\b(?:valid|in force|effective|applie[sd])\b[^.\n]{0,60}?\b(?:to|until|through)\s+(?P<date>[^.\n]{4,20})",
    re.IGNORECASE,
)

_END = "|".join(sorted(map(re.escape, _ENDED), key=len, reverse=True))
_KIND = (
    r"(?:document|page|policy|guide|guideline|version|edition|revision|manual|handbook|runbook|procedure|article|price list|tariff|"
    r"api|endpoint|specification|spec|standard|copy|text|list|note|file|readme|plan|form|directive|rules?|regulation|pep|rfc|process)"
)
_NOTICE = r"(?:(?:please )?(?:note|notice|warning|important|attention|caution)\b[\s:!.*]*(?:that )?)?"
_MARKED = re.compile(  # a line that begins with the mark and says no more, or by what, when or why
    rf"{_NOTICE}(?P<mark>{_END})(?=\s*(?:$|[.:!,;*)\]|–—]|(?:by|on|since|as of|in)\b))", re.IGNORECASE
)
_STATED = re.compile(
    rf"{_NOTICE}(?:this|the present) (?:[\w-]+ ){{0,2}}?{_KIND}(?: \([^)\n]*\))? (?:(?:is|was|has been|are|were) (?:now |since |hereby )?)?(?P<mark>{_END})\b",
    re.IGNORECASE,
)
_REPLACED_BY = re.compile(
    r"\b(?:superseded|replaced|obsoleted)\b(?: on [^.;]{4,20}?)? by (?P<what>[^\n]{2,120})", re.IGNORECASE
)
_REPLACES = re.compile(
    rf"(?:(?:this|the present) (?:[\w-]+ ){{0,2}}?{_KIND} |it |they )?(?:replaces?|supersedes?|obsoletes?) (?P<what>[^\n]{{2,160}})",
    re.IGNORECASE,
)
_PARTLY = re.compile(
    r"\b(?:part|parts|partly|partially|sections?|chapters?|clauses?|annex|appendix|paragraphs?)\b", re.IGNORECASE
)
_STILL = re.compile(
    r"\b(?:remains?|still|continues? to be|stays?) (?:fully )?(?:valid|supported|in force|maintained|current|available)\b"
    r"|\bboth (?:[\w-]+ ){0,2}(?:are|remain|stay) (?:\w+ )?(?:supported|valid|maintained|current|in force)\b|\balongside\b|\bin addition to the\b",
    re.IGNORECASE,
)
_OF_OTHERS = re.compile(r"replac|supersed|requir|since|needs|previous|works with|compatible", re.IGNORECASE)
_DECORATION = " \t>*#_!|[](){}=~-–—\"'`.:"


@dataclass(frozen=True, slots=True)
class DocumentHead:
    """What is known of a document before it is read. `beginning`: its text up to `BEGINNING_CHARS` characters or a little more."""

    path: str
    title: str
    metadata: Metadata
    beginning: str


@dataclass(frozen=True, slots=True)
class Imprint:
    """`status`: how it ended, or that it is a proposal; empty when it says neither. `current`: it says that it is in force.

    `name`, `subject`: the words of its file name and of its title that do not tell editions apart. `folder` is without archives.
    `dates` are ISO 8601, perhaps without day or month; `years` stand in its name or title.
    """

    path: str
    title: str
    name: tuple[str, ...]
    subject: tuple[str, ...]
    folder: tuple[str, ...]
    status: str = ""
    current: bool = False
    in_archive: bool = False  # in an archive's folder, or `_old` in its name
    version: tuple[int, ...] = ()
    years: frozenset[str] = frozenset()
    date: str = ""
    until: str = ""
    replaced_by: str = ""
    replaces: str = ""
    identifiers: Mapping[str, str] = field(default_factory=dict)
    matter: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_record(self) -> bool:
        """Whether it records a time of its own, as a report does.

        The last word of its name, title or folder says so, or a name that begins with a date, or `minutes` anywhere in the name.
        """
        folder = tuple(self.folder[-1].split()) if self.folder else ()
        last = {word for words in (self.name, self.subject, folder) for word in words[-1:]}
        dated = re.match(r"\d{4}-?\d\d-?\d\d(?!\d)", PurePosixPath(self.path).name)
        return bool(_RECORDS & last) or "minutes" in self.name or dated is not None


def imprint(head: DocumentHead) -> Imprint:
    path = PurePosixPath(head.path)
    fields = {
        key: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in head.metadata
    }
    lines = head.beginning[:BEGINNING_CHARS].splitlines()
    for line in lines:
        if found := _FIELD.match(line):
            fields.setdefault(key_name(found["key"]), found["value"].strip(" \t*_"))
    if fields.get("type") not in _TEXT_TYPES:
        fields.pop("date", None)
    meant: dict[str, str] = {}
    for meaning, keys in _KEYS.items():
        given = (fields.get(key, "") for key in keys.split())
        meant[meaning] = next((value for value in given if value.strip(" -").casefold() not in _NOTHING), "")

    title = head.title if head.title and head.title != path.stem else ""
    statements = list(_plain_sentences(head.beginning))
    replaced_by = meant["replaced_by"] or _first(_REPLACED_BY.search(s) for s in statements if _ended(s))
    replaces = meant["replaces"] or _first(map(_REPLACES.match, statements))
    stem, subject = _words(path.stem), _words(title)
    bracketed = {*_words(" ".join(re.findall(r"[(\[]([^)\]]+)[)\]]", title)))}
    status = (
        _status(meant["status"])
        or ("superseded" if meant["replaced_by"] else "")
        or next(filter(None, map(_ended, statements)), "")
        or ("archived" if {"archived", "superseded", "obsolete"} & bracketed else "")
        or ("draft" if _DRAFTS & {*stem[-1:], *bracketed} else "")
    )
    version = (
        _version(meant["version"], bare=True)
        or _version(path.stem, dotted=True)
        or _version(title)
        or _version(_title_lines(lines))
        or next(filter(None, (_version(part, dotted=True) for part in reversed(path.parent.parts))), ())
    )
    return Imprint(
        path=head.path,
        title=title or path.name,
        name=_plain(stem),
        subject=_plain(subject),
        folder=tuple(" ".join(plain) for part in path.parent.parts if (plain := _plain(_words(part)))),
        status=status,
        current=meant["status"].casefold() in _CURRENT or any(map(_STILL.search, statements)),
        in_archive=bool(_ARCHIVES & {part.casefold() for part in path.parent.parts} or _OLD & {*stem[-1:]}),
        version=version,
        years=frozenset(YEAR.findall(f"{path.stem} {title}")),
        date=date_in(meant["since"]) or date_in(meant["date"]),
        until=date_in(meant["until"]) or date_in(_first(map(_UNTIL.search, [head.beginning]), "date")),
        replaced_by="" if _PARTLY.search(replaced_by) else replaced_by,
        replaces="" if _PARTLY.search(replaces) else replaces,
        identifiers={key: fields[key].casefold() for key in sorted(_IDENTIFIERS & set(fields))},
        matter={key: fields[key].casefold() for key in sorted(_MATTERS & set(fields))},
    )


def is_named(text: str, one: Imprint, by: Imprint) -> bool:
    """Whether `text`, in the document `by`, names the document `one` as what it replaces or is replaced by."""
    if not text or one.path == by.path:
        return False
    plain, path = text.casefold(), PurePosixPath(one.path)
    if re.search(rf"(?<![\w-]){re.escape(path.name.casefold())}(?![\w-])", plain):
        return True
    telling = len(path.stem) >= 4 and re.search(r"[\W\d_]", path.stem)  # `copy` may be a word of the sentence
    if telling and re.search(rf"(?<![\w.-]){re.escape(path.stem.casefold())}(?![\w-])", plain):
        return path.stem != PurePosixPath(by.path).stem
    numbers = re.findall(r"\d+", text)
    alone = set(re.findall(r"[^\W\d_]+", plain))  # the words beside the numbers
    numbers_told = {_version(text), *((int(n),) for n in numbers if not alone)} - {()}
    agrees = one.version in numbers_told or bool(one.years & {*YEAR.findall(text)})
    contradicts = bool(numbers_told and one.version) and not agrees
    for key, identifier in one.identifiers.items():
        if by.identifiers.get(key) == identifier or not re.search(r"\d", identifier):
            continue
        if identifier.isdigit():
            if key in by.identifiers and identifier in numbers and alone <= {key, f"{key}s", "and"}:
                return True
        elif re.search(rf"(?<![\w-]){re.escape(identifier)}(?![\w-])", plain):
            return not contradicts
    title = one.title.casefold()
    if len(title.split()) > 1 and title != by.title.casefold() and re.search(rf"\b{re.escape(title)}(?!\w)", plain):
        return not contradicts
    return agrees and same_matter(one, by)


def same_matter(a: Imprint, b: Imprint) -> bool:
    """Whether two documents can be editions of one: names or titles that differ in nothing but version, year and the like."""
    if a.path == b.path or a.is_record or b.is_record:
        return False
    if any(a.matter[key] != b.matter[key] for key in a.matter.keys() & b.matter.keys()) or not _folders_agree(a, b):
        return False
    alike = bool(a.name) and a.name == b.name
    if not (a.subject and b.subject):
        return alike
    if alike:  # one name over two titles may be chance
        return 2 * len({*a.subject} & {*b.subject}) >= max(len(a.subject), len(b.subject))
    return a.subject == b.subject and len(a.subject) > 1


def date_in(text: str) -> str:
    """The first date in `text` as ISO 8601, perhaps without day or month, or nothing."""
    found = _DATE.search(text)
    if not found:
        return ""
    written = " ".join(part.capitalize() for part in found[0].split())
    no_day = written[0].isalpha() and "," not in written  # June 2024
    iso = str(dict(normalised({"date": f"1 {written}" if no_day else written})).get("date", ""))
    return (iso[:7] if no_day else iso) if re.fullmatch(r"\d{4}(-\d\d){0,2}", iso) else ""


def _first(found: Iterable[re.Match[str] | None], group: str = "what") -> str:
    return next((match[group] for match in found if match), "")


def _plain_sentences(text: str) -> Iterator[str]:
    """Sentences without decoration: `*** OUT OF DATE ***`. What is indented speaks of a part.

    So may a directive of reStructuredText (`.. deprecated:: 3.2`), which stands at functions as well as at whole pages.
    """
    for start, end in sentence_spans(text, 0, len(text)):
        if not (text.startswith("..", start) or text[text.rfind("\n", 0, start) + 1 : start].isspace()):
            yield text[start:end].strip(_DECORATION)


def _status(text: str) -> str:
    """A status field begins with the status, and may say more: `Superseded by version 3`."""
    plain = text.strip(_DECORATION).casefold()
    for known in (_ENDED, _PROPOSED):
        for mark in sorted(known, key=len, reverse=True):
            if re.match(rf"{re.escape(mark)}\b", plain):
                return known[mark]
    return ""


def _ended(statement: str) -> str:
    """How the document ended, if this statement in its first lines says so."""
    found = _MARKED.match(statement) or _STATED.match(statement)
    if not found or _PARTLY.match(statement, found.end() + 1) or re.match(r" in part\b", statement[found.end() :]):
        return ""
    return _ENDED[found["mark"].casefold()]


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _plain(words: Iterable[str]) -> tuple[str, ...]:
    """Without what tells editions apart: `leave policy 2023 v2 old` is `leave policy`, `old town` stays."""
    found: list[str] = []
    numbered = False  # after `version` or a year: 2023-24, 2023-06-01
    for word in words:
        if _EDITION_NUMBER.fullmatch(word) or (numbered and word.isdigit()):
            numbered = True
            if found[-1:] and found[-1] in _NUMBERING:
                found.pop()
        else:
            numbered = word in _NUMBERING
            found.append(word)
    while found and found[-1] in _EDITION_WORDS:
        found.pop()
    return tuple(found)


def _version(text: str, *, bare: bool = False, dotted: bool = False) -> tuple[int, ...]:
    """`version 2.30` and `v2.30` as (2, 30); with `bare` also a number alone, with `dotted` any number with a dot."""
    plain = re.sub(r"[_-]", " ", text)
    found = _NUMBERED.search(plain)
    if not found and bare:
        found = re.match(r"\s*v?(\d+(?:\.\d+)*)(?![\w-])", text)
    if not found and dotted:
        found = re.search(r"(?<![\w.])(\d+(?:\.\d+)+)(?![\w.])", plain)
    return tuple(int(part[:9]) for part in found[1].split(".")) if found else ()


def _title_lines(lines: Sequence[str]) -> str:
    """The first lines, as far as they are titles and not sentences about other documents."""
    shown = [line.strip(_DECORATION) for line in lines if line.strip(_DECORATION)][:3]
    return "\n".join(line for line in shown if len(line) <= 80 and not _OF_OTHERS.search(line))


def _folders_agree(a: Imprint, b: Imprint) -> bool:
    """The same folder, or one of them was put away into the archive of a folder above."""
    if a.folder == b.folder:
        return True
    above, below = sorted((a, b), key=lambda one: len(one.folder))
    return above.in_archive and not below.in_archive and below.folder[: len(above.folder)] == above.folder
