"""The entries of a feed (RSS or Atom), each a document."""

from __future__ import annotations

import calendar
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import feedparser
import jinja2
import msgspec
from lxml import etree

from openbook.core.errors import SourceError
from openbook.core.records import Verdict
from openbook.sources import Item, KnownItem
from openbook.sources.site import Answer, FetchError, PageRecord, Site

_PAGE = jinja2.Template(
    '<!doctype html>\n<meta charset="utf-8">\n<title>{{ title }}</title>\n<h1>{{ title }}</h1>\n'
    "{% if is_html %}{{ content | safe }}{% else %}<pre>{{ content }}</pre>{% endif %}\n",
    autoescape=True,
)
_LINK = re.compile(r"https?://[^/?#@\s]+(?:[/?#]|$)")
_LAST = "9999"  # after every date


class FeedSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Entries that are older than all in the feed stay: a feed holds only the newest."""

    url: str

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        kept = {name: PageRecord.of(item) for name, item in known.items()}
        sizes = Counter((each.etag, each.modified) for each in kept.values())
        # A killed run may have kept only some entries of an answer: its marks would hide the others.
        whole = (each for each in kept.values() if each.via and sizes[each.etag, each.modified] == each.entries)
        conditions = {each.via: each for each in whole}
        oldest, present = _LAST, set[str]()
        with closing(Site(re.sub(r"^feed\+", "", self.url, flags=re.IGNORECASE), 0.0)) as site:
            try:
                with site.get(site.start, conditions) as answer:
                    if answer.status not in (200, 304):
                        raise FetchError(answer.address, answer.reason)
                    feed = _parse(answer) if answer.status == 200 else None
            except FetchError as error:
                raise SourceError(f"{error.address} {error}. Check the address, or try again later.") from error
        for item in _entries(site.start, feed, answer) if feed else ():
            present.add(item.name)
            yield item
            oldest = min(oldest, str(item.metadata.get("modified", _LAST)))
        is_broken = feed is None or (
            feed.bozo and not isinstance(feed.bozo_exception, feedparser.exceptions.ThingsNobodyCaresAboutButMe)
        )
        for name, old in known.items():
            before = kept[name]
            if name not in present and (is_broken or str(before.metadata.get("modified", "")) < oldest):
                read = partial(map, Path.read_bytes, [old.file])
                yield Item(name, old.fingerprint, read, ".html", before.metadata, kept=old.kept)


def _parse(answer: Answer) -> Any:
    """Raises FetchError."""
    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, huge_tree=False)
    with suppress(etree.LxmlError):
        etree.fromstring(answer.head, parser)
    if not answer.is_whole or any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log):
        raise FetchError(answer.address, "is too large or too deep for a feed")
    headers = {"content-type": answer.headers.get("content-type", ""), "content-location": answer.address}
    feed = feedparser.parse(io.BytesIO(answer.head), response_headers=headers)  # bytes alone could be taken for a path
    if not feed.get("version"):
        raise FetchError(answer.address, "is not a feed (RSS or Atom)")
    return feed


def _entries(start: str, feed: Any, answer: Answer) -> Iterator[Item]:
    links = Counter(entry.get("link", "") for entry in feed.entries)
    named: dict[str, Any] = {}
    for entry in feed.entries:
        link = entry.get("link", "")
        own = entry.get("id") or entry.get("title")
        if _LINK.match(link) and links[link] == 1:
            named[link] = entry
        elif own:
            named.setdefault(f"{start}#{own}", entry)
    for name, entry in named.items():
        title = " ".join(entry.get("title", "").split())
        bodies = [*entry.get("content", ()), entry.get("summary_detail") or {}]
        body = max(bodies, key=lambda each: len(each.get("value", "")))
        page = _PAGE.render(
            title=title or name, content=body.get("value", ""), is_html=body.get("type") != "text/plain"
        )
        data = page.encode("utf-8", "replace")
        tags = [tag["term"] for tag in entry.get("tags", ()) if tag.get("term")]
        said = {"title": title, "author": entry.get("author", ""), "url": entry.get("link", ""), "tags": tags}
        metadata: dict[str, str | list[str]] = {key: value for key, value in said.items() if value}
        with suppress(KeyError, TypeError, ValueError, OverflowError):
            when = entry["updated_parsed" if "updated_parsed" in entry else "published_parsed"]
            metadata["modified"] = datetime.fromtimestamp(calendar.timegm(when), UTC).isoformat()
        new = PageRecord(**answer.marks, via=answer.address, metadata=metadata, entries=len(named))
        yield Item(name, hashlib.sha256(data).hexdigest(), partial(iter, [data]), ".html", metadata, kept=new.text())
