"""What a file says about itself, in one form: author, date (ISO 8601), language."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from openbook.parsers.cleaning import one_line
from openbook.records import Metadata, MetadataValue

_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:[.,]\d+)?\s?(Z|[+-]\d\d:?\d\d)?)?)?)?(?!\d)", re.I
)
_PDF_DATE = re.compile(r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-]\d\d)'?(\d\d)?)?")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8}){0,4}")
_NO_LANGUAGE = frozenset({"und", "zxx", "mul", "mis"})
# What programs enter when nobody gave a name.
_NO_AUTHOR = frozenset({
    "python-docx", "openpyxl", "unknown", "anonymous", "unspecified", "(anonymous)", "(unspecified)", "user", "author",
    "administrator", "admin",
})  # fmt: skip


def stated(
    *,
    authors: Iterable[str] = (),
    dates: Iterable[str] = (),
    language: str = "",
    own: Iterable[tuple[str, MetadataValue]] = (),
) -> Metadata:
    """Sorted metadata; of `dates` the first that is one. Several authors become a tuple."""
    found: dict[str, MetadataValue] = {key: value for key, value in own if value not in {"", ()}}
    names = tuple(dict.fromkeys(name for name in map(one_line, authors) if name and name.lower() not in _NO_AUTHOR))
    if names:
        found["author"] = names[0] if len(names) == 1 else names[:20]
    date = next(filter(None, map(iso_date, dates)), "")
    if date:
        found["date"] = date
    tag = _LANGUAGE.fullmatch(language.strip())
    if tag and tag[0].lower() not in _NO_LANGUAGE:
        found["language"] = tag[0].replace("_", "-")
    return tuple(sorted(found.items()))


def iso_date(text: str) -> str:
    """`text` as a valid ISO 8601 date, date and time, month or year, else an empty string. Idempotent."""
    found = _DATE.match(text.strip()[:40])
    if not found:
        return ""
    year, month, day, clock, seconds, zone = found.groups()
    date = "-".join(filter(None, (year, month, day)))
    if clock:
        # 23:59:60 is a valid time that `datetime` does not know; it is too rare to matter.
        date += f"T{clock}{seconds or ':00'}" + (_zone(zone) if zone else "")
    return date if _exists(year, month or "01", day or "01", date) else ""


def _zone(zone: str) -> str:
    return "Z" if zone in {"Z", "z"} else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"


def _exists(year: str, month: str, day: str, date: str) -> bool:
    try:
        datetime.fromisoformat(date if "T" in date else f"{year}-{month}-{day}")
    except ValueError:
        return False
    return True


def pdf_date(text: str) -> str:
    """A date as PDF writes it (ISO 32000-1, 7.9.4), such as `D:20240131093000+01'00'`, in ISO 8601; else empty."""
    found = _PDF_DATE.match(text.strip()[:40])
    if not found or text.strip()[4:5] == "-":
        return iso_date(text)
    year, month, day, hour, minute, second, utc, zone, zone_minutes = found.groups()
    date = f"{year}-{month or '01'}-{day or '01'}"
    if hour:
        date += f"T{hour}:{minute or '00'}:{second or '00'}" + (
            utc or (f"{zone}:{zone_minutes or '00'}" if zone else "")
        )
    return iso_date(date)
