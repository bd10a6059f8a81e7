"""Metadata of a document: facts of its file, fields in the file, fields of a sidecar.

A sidecar is `report.pdf.meta.toml` or `report.pdf.meta.json`. It wins over the file's fields; neither can change a fact
of the file (`SYSTEM_KEYS`). The key `access_labels` is reserved: a document is visible to a query only if the query has
all its labels. So unreadable labels are always an error: ignoring them would show the document to everyone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path, PurePosixPath

from openbook.core.codec import unique_keys
from openbook.core.errors import UnreadableFile
from openbook.core.records import Metadata, MetadataValue, canonical_json
from openbook.parsers.files import file_bytes

MAX_KEYS = 64
MAX_VALUE_CHARS = 1000
MAX_LIST_ITEMS = 64
MAX_KEY_CHARS = 64
MAX_SIDECAR_BYTES = 64_000
SYSTEM_KEYS = frozenset({"path", "name", "type", "bytes", "modified"})
LABEL_KEY = "access_labels"
# Fields that say a document is not in force, or what replaced it (`openbook.knowledge.cite.editions`).
EDITION_KEYS = frozenset({"status", "superseded_by", "replaced_by", "supersedes", "replaces", "valid_until"})
LABEL = re.compile(r"[a-z0-9][a-z0-9_.:-]{0,63}")

_SIDECAR_ENDS = (".meta.toml", ".meta.json")
_DATE_KEY = re.compile(r"(?:.*_)?(?:date|created|modified|updated|published)")
IN_SIDECAR = "its sidecar "  # prefix of the reason when a sidecar is wrong
_PDF_DATE = re.compile(r"D:(\d{8})(\d{6})")  # `D:20240105103000+01'00'`
_PARTIAL_DATE = re.compile(r"\d{4}(?:-\d\d)?")
_WRITTEN_DATES = ("%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%B %d, %Y", "%b %d, %Y", "%Y/%m/%d", "%d.%m.%Y")
_INT64 = 2**63


def merged(system: Metadata, file: Metadata, sidecar: Metadata) -> Metadata:
    """The sidecar wins over the file, and facts of the file win over both."""
    return tuple(sorted({**dict(file), **dict(sidecar), **dict(system)}.items()))


def system_metadata(path: str, size_bytes: int, modified_ns: int) -> Metadata:
    """`type`: suffix without its dot, lower-case. `modified`: UTC, to the second."""
    file = PurePosixPath(path)
    suffix = file.suffix[1:].lower()
    facts: dict[str, MetadataValue] = {"bytes": size_bytes, "name": file.name, "path": path, "type": suffix}
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a file date no calendar has
        facts["modified"] = datetime.fromtimestamp(modified_ns // 10**9, UTC).isoformat()
    return tuple(sorted(facts.items()))


def not_a_label(text: str) -> str:
    return f"{text!r} is not an access label: a label is 1 to 64 of a-z, 0-9, '_', '.', ':' and '-', and begins with a letter or digit"


def labels_of(*parts: Metadata) -> frozenset[str]:
    """All access labels in `parts`: no part can take away a label of another."""
    stated = [value for part in parts for key, value in part if key == LABEL_KEY]
    return frozenset(label for value in stated for label in _labels(value))


# --- sidecars ---------------------------------------------------------------------------------------------------------


def is_sidecar(name: str) -> bool:
    return any(name.endswith(end) and name != end for end in _SIDECAR_ENDS)


def sidecar_of(path: Path) -> Path | None:
    """The sidecar, readable or not. Raises UnreadableFile if there are two."""
    found = [side for side in (path.with_name(path.name + end) for end in _SIDECAR_ENDS) if os.path.lexists(side)]
    if len(found) > 1:
        raise UnreadableFile(f"has two sidecars, {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None


def read_sidecar(path: Path) -> Metadata:
    """A link is not followed: it may lead outside the folder. Raises UnreadableFile."""
    kind = "TOML" if path.suffix == ".toml" else "JSON"
    try:
        text = file_bytes(path, MAX_SIDECAR_BYTES, follow=False).decode("utf-8-sig")
        found = tomllib.loads(text) if kind == "TOML" else json.loads(text, object_pairs_hook=unique_keys)
        if not isinstance(found, dict):
            raise UnreadableFile("must hold one object, { ... }")
        said = normalised(found, strict=True)
        for key, _ in said:
            if key in SYSTEM_KEYS:
                raise UnreadableFile(f"{key!r} is a fact of the file and cannot be set")
    except UnreadableFile as error:
        raise UnreadableFile(f"{IN_SIDECAR}{path.name}: {error}") from error
    except RecursionError as error:
        raise UnreadableFile(f"{IN_SIDECAR}{path.name} is nested too deeply") from error
    except ValueError as error:
        raise UnreadableFile(f"{IN_SIDECAR}{path.name} is not valid {kind}: {error}") from error
    return said


def normalised(said: Mapping[str, object], *, strict: bool = False) -> Metadata:
    """Any mapping as metadata: keys as lower-case identifiers, dates as ISO 8601 (UTC if they name a zone).

    Text is in Unicode's form C without control characters; numbers keep 15 digits, as every JSON reader does. A value
    that does not fit raises UnreadableFile if `strict`, otherwise it is dropped or cut. Labels are always strict. Law:
    `normalised(dict(normalised(x))) == normalised(x)`.
    """
    kept: dict[str, MetadataValue] = {}
    for raw_key, raw in said.items():
        key = key_name(str(raw_key))
        if key != LABEL_KEY and (raw is None or (isinstance(raw, str) and not clean_text(raw))):
            continue  # an empty field
        try:
            if not key:
                raise UnreadableFile(f"{str(raw_key)[:40]!r} is not a key; use letters, digits and _")
            if key in kept:
                raise UnreadableFile(f"the key {key!r} appears twice")
            if len(kept) >= MAX_KEYS and key != LABEL_KEY:
                raise UnreadableFile(f"more than {MAX_KEYS} keys")
            kept[key] = _labels(raw) if key == LABEL_KEY else _value(key, raw, strict=strict)
        except UnreadableFile:
            if strict or key == LABEL_KEY:
                raise
    return tuple(sorted(kept.items()))


def key_name(raw: str) -> str:
    """`last_updated` for `Last-Updated`; may be empty. Idempotent."""
    word = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", raw).casefold())
    word = "".join(c if f"a{c}".isidentifier() else " " for c in word)
    word = re.sub(r"\W+", "_", word).strip("_")
    word = f"n{word}" if word[:1].isnumeric() else word
    return word[:MAX_KEY_CHARS].strip("_")


def to_json(metadata: Metadata) -> str:
    """Law: `from_json(to_json(x)) == x`."""
    return canonical_json(dict(metadata)).decode()


def from_json(text: str) -> Metadata:
    found = json.loads(text)
    return tuple(sorted((key, tuple(v) if isinstance(v, list) else v) for key, v in found.items()))


def rounded(number: float) -> float:
    """15 significant digits, on which SQLite, Python and JSON agree."""
    return float(f"{number:.15g}")


def clean_text(text: str) -> str:
    """One line, without control characters and lone surrogates, in Unicode's form C."""
    if not (text.isascii() and text.isprintable()):
        shown = "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp"} else c for c in text)
        text = unicodedata.normalize("NFC", shown.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"))
    return " ".join(text.split())


def _value(key: str, raw: object, *, strict: bool) -> MetadataValue:
    if isinstance(raw, datetime | date | time):
        return _iso(raw)
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float):
        return _number(key, raw)
    if isinstance(raw, str):
        text = _bounded(key, clean_text(raw), strict=strict)
        return (_date_text(text) or text) if _DATE_KEY.fullmatch(key) else text
    if isinstance(raw, list | tuple | set):
        items = sorted(raw, key=str) if isinstance(raw, set) else list(raw)
        if strict and len(items) > MAX_LIST_ITEMS:
            raise UnreadableFile(f"{key!r} has {len(items)} items, the limit is {MAX_LIST_ITEMS}")
        texts = (_item(key, item, strict=strict) for item in items[:MAX_LIST_ITEMS])
        return tuple(text for text in texts if text)
    raise UnreadableFile(f"{key!r} must be a text, a number, true, false or a list of texts")


def _item(key: str, raw: object, *, strict: bool) -> str:
    if isinstance(raw, str):
        return _bounded(key, clean_text(raw), strict=strict)
    if isinstance(raw, int | float | date | time):
        value = _value(key, raw, strict=strict)
        text = json.dumps(value) if isinstance(value, bool | int | float) else str(value)
        return _bounded(key, text, strict=strict)
    if strict:
        raise UnreadableFile(f"{key!r} must be a list of texts")
    return ""


def _bounded(key: str, text: str, *, strict: bool) -> str:
    if strict and len(text) > MAX_VALUE_CHARS:
        raise UnreadableFile(f"{key!r} has {len(text)} characters, the limit is {MAX_VALUE_CHARS}")
    return text[:MAX_VALUE_CHARS].rstrip()


def _number(key: str, raw: float) -> MetadataValue:
    if not isinstance(raw, int):
        if not math.isfinite(raw):
            raise UnreadableFile(f"{key!r} is not a finite number")
        if not 1e-300 < abs(raw or 1) < 1e300:
            raise UnreadableFile(f"{key!r} is a number too large or too close to 0 to keep; write it as a text")
        return rounded(raw)
    if _DATE_KEY.fullmatch(key) and 1000 <= raw <= 9999:
        return str(raw)  # `date: 2025`
    if not -_INT64 <= raw < _INT64:
        raise UnreadableFile(f"{key!r} is a number too large to keep; write it as a text")
    return raw


def _labels(raw: object) -> tuple[str, ...]:
    words: Iterable[object] = raw if isinstance(raw, list | tuple | set) else (raw,)
    labels = set()
    for word in words:
        if not isinstance(word, str) or not LABEL.fullmatch(word):
            raise UnreadableFile(not_a_label(str(word)[:40]))
        labels.add(word)
    if len(labels) > MAX_LIST_ITEMS:
        raise UnreadableFile(f"has {len(labels)} labels, the limit is {MAX_LIST_ITEMS}")
    return tuple(sorted(labels))


def _iso(moment: datetime | date | time) -> str:
    """ISO 8601 to the second, in UTC if the moment has a zone."""
    if isinstance(moment, datetime):
        if moment.tzinfo is not None:
            try:
                moment = moment.astimezone(UTC)
            except OverflowError:  # within a day of the calendar's ends
                moment = moment.replace(tzinfo=UTC)
        return moment.isoformat(timespec="seconds")
    return moment.isoformat()


def _date_text(text: str) -> str:
    """ISO 8601; empty if `text` is not a date."""
    from email.utils import parsedate_to_datetime

    if _PARTIAL_DATE.fullmatch(text):
        return text
    if text.startswith("D:"):
        text = _PDF_DATE.sub(r"\1T\2", text).removeprefix("D:").replace("'", "")
    forms: list[Callable[[str], date]] = [date.fromisoformat if len(text) <= 10 else datetime.fromisoformat]
    forms += [functools.partial(_written, form) for form in _WRITTEN_DATES]
    for form in [*forms, parsedate_to_datetime]:
        with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
            return _iso(form(text))
    return ""


def _written(form: str, text: str) -> date:
    return datetime.strptime(text, form).date()  # noqa: DTZ007  a day, in no zone
