"""The kinds of sources, by the scheme of their addresses."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from openbook.core.codec import convert
from openbook.core.errors import ConfigError, SourceError, did_you_mean, needs_extra
from openbook.sources import Source

_CLASSES = {
    "web:WebSource": "http https",
    "feed:FeedSource": "feed+http feed+https",
    "filesystems:FileSystemSource": "s3 gs az sftp webdav+http webdav+https",
    "archive:ArchiveSource": "zip",
    "git:GitSource": "git+https git+ssh git+file",
    "zotero:ZoteroSource": "zotero",
    "mail:ImapSource": "imaps imap",
    "mail:MaildirSource": "maildir",
    "sql:SqlSource": "sqlite postgresql mysql",
}
SCHEMES = {each: f"openbook.sources.{name}" for name, schemes in _CLASSES.items() for each in schemes.split()}
"""Scheme -> "module:Class"; the module is imported when a source of the scheme is opened."""

ENTRY_POINTS = "openbook.sources"
COMMON = ("labels", "include", "exclude")  # keys of `sources.toml` for every source

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters or more: `C:/` is a folder of Windows
_PASSWORD = re.compile(
    r"[^/]*//(?!(?:\[[^\]]*\]|[^:/?#@]*):\d+[/?#])[^@:]*:[^@]*@"  # a colon before an @, unless a port's
    r"|.*[?&](?:[\w.-]*[_.-])?(?:access_?token|token|sig|signature|\w*passw\w*|pwd|secret|api_?key)=",
    re.IGNORECASE | re.DOTALL,
)


_REVISION = re.compile(r"\A(git\+\w+://[^/]*/[^@#]*)@[^#]*(.*)")


def without_revision(url: str) -> str:
    """What names a source: all revisions of a folder in a repository are one source, which moves from one to the other."""
    return _REVISION.sub(r"\1\2", url)


def is_address(text: str) -> bool:
    """True for `https://...` and the like; what has no scheme is a path."""
    return _ADDRESS.match(text) is not None


def open_source(url: str, options: Mapping[str, Any]) -> Source:
    """The source at `url`; nothing is fetched yet. Raises SourceError or ConfigError."""
    scheme = url.partition("://")[0].lower()
    if _PASSWORD.match(url):
        raise SourceError(
            f"A password or token in an address ({scheme}) would be stored and shown. Leave it out: see docs/sources.md for where it can stand."
        )
    known: Mapping[str, str] = SCHEMES
    if scheme not in known:
        from importlib.metadata import entry_points  # slow, and needed here alone

        known = {**{each.name: each.value for each in entry_points(group=ENTRY_POINTS)}, **known}
    if scheme not in known:
        hint = did_you_mean(scheme, known) or f" There are: {', '.join(sorted(known))}."
        raise SourceError(f"No source has the scheme {scheme!r} (of {url!r}).{hint}")
    module, _, name = known[scheme].partition(":")
    with needs_extra(f"A source {scheme}://", "sources"):
        kind = getattr(importlib.import_module(module), name)
    names = kind.__struct_fields__
    for key in options:
        if key not in names or key == "url":
            raise ConfigError(
                f"{url} has the unknown option {str(key)[:80]!r}.{did_you_mean(str(key), {*names[1:], *COMMON})}"
            )
    source: Source = convert({"url": url, **options}, kind, f"The source {url}", ConfigError)
    return source
