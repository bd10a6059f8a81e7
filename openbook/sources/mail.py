r"""Mailboxes: IMAP (RFC 3501, 9051) and Maildir. A message is a document. Nothing in a mailbox is changed, not even `\Seen`.

A message at a server is named by folder, UIDVALIDITY and UID: they are unique and the server's own. A Message-ID is the
sender's, so a stranger's message could take the name of another, and copies share it. A message that moves to another
folder is a renamed document.
"""

from __future__ import annotations

import base64
import errno
import functools
import imaplib
import itertools
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

import msgspec

from openbook.core.errors import ConfigError, SourceError, did_you_mean
from openbook.core.records import Verdict
from openbook.sources import Item, KnownItem, password

TIMEOUT_S = 45  # without a byte
MAX_COMMAND_S = 600
MAX_REPLY_BYTES = 8_000_000
MAX_LINE_BYTES = 2_000_000  # 100,000 UIDs are at most 1.1 MB
PIECE_BYTES = 1_000_000  # of a message, with one command
HEADER_BYTES = 16_000
HEADER_BATCH = 200
_HEADER = f"BODY.PEEK[HEADER.FIELDS (REFERENCES IN-REPLY-TO MESSAGE-ID)]<0.{HEADER_BYTES}>"
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_LISTED = re.compile(rb'\(([^)]*)\) (?:"(?:[^"\\]|\\.)*"|NIL) (?:"((?:[^"\\]|\\.)*)"|(.*))', re.DOTALL)
_UNREADABLE = (imaplib.IMAP4.error, OSError, ValueError)


class ImapSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url`: `imaps://user@host/INBOX`, with `*` for all folders; `imap://` begins with STARTTLS, except on this machine.

    The password: OPENBOOK_IMAP_PASSWORD, or the keyring's. `since`: no messages from before this date (2026-01-31).
    """

    url: str
    since: str = ""

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if not (address.username and address.hostname and address.path[1:] and unquote(self.url).isprintable()):
            raise ConfigError(
                f"{self.url!r} is not the address of a mailbox: write imaps://user@host/INBOX, or * for all folders."
            )
        if self.since:
            _since(self.since)

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        address = urlsplit(self.url)
        user, host, wanted = unquote(address.username or ""), address.hostname or "", unquote(address.path[1:])
        secret = password("OPENBOOK_IMAP_PASSWORD", host, user)
        if not secret:
            raise SourceError(
                f"There is no password for {self.url}: set OPENBOOK_IMAP_PASSWORD, or store one with: keyring set {host} {user}"
            )
        place = f"{address.scheme}://{quote(user, safe='')}@{address.netloc.rpartition('@')[2].lower()}"
        with _errors(self.url, secret), _connected(self.url, user, secret) as imap:
            folders = imap.folders()
            chosen = [each for each in folders if wanted in {"*", each} or each.upper() == wanted.upper() == "INBOX"]
            if not chosen:
                raise SourceError(
                    f"{self.url} cannot be read: there is no folder {wanted!r}.{did_you_mean(wanted, folders)}"
                )
            for folder in chosen:
                prefix = f"{place}/{quote(folder, errors='replace')}/"
                if not folder.isprintable():  # a line break would begin a command
                    yield Verdict(prefix, "failed", "the folder's name has control characters")
                elif validity := imap.examine(folders[folder]):
                    yield from self._messages(imap, prefix, validity, known, secret)
                else:
                    yield Verdict(prefix, "failed", "the server does not open the folder")

    def _messages(
        self, imap: _Imap, folder: str, validity: str, known: Mapping[str, KnownItem], secret: str
    ) -> Iterator[Item | Verdict]:
        def read(uid: int) -> Iterator[bytes]:
            with _errors(self.url, secret):
                yield from imap.message(uid)

        uids = imap.uids(*(("SINCE", _since(self.since)) if self.since else ("ALL",)))
        for start in range(0, len(uids), HEADER_BATCH):
            names = {uid: f"{folder}{validity}/{uid}.eml" for uid in uids[start : start + HEADER_BATCH]}
            headers = imap.fetch_parts([uid for uid, name in names.items() if name not in known], _HEADER)
            for uid, name in names.items():
                if name in known or uid in headers:  # else it was deleted a moment ago
                    thread = known[name].kept if name in known else _thread(headers[uid])
                    yield _item(name, f"{validity}/{uid}", functools.partial(read, uid), thread)


class MaildirSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`url`: `maildir:///path`; its subfolders are read too, in either layout. Flags are no part of a message's name."""

    url: str

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.netloc or not address.path:
            raise ConfigError(f"{self.url!r} is not the address of a Maildir: write maildir:///path/of/Maildir.")

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        def read(folder: str, base: str, path: str) -> Iterator[bytes]:
            with _errors(self.url, ""), _open(folder, base, path) as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece

        is_maildir = False
        with _errors(self.url, ""):
            for folder, inner, _ in os.walk(unquote(urlsplit(self.url).path), onerror=_fail):
                is_maildir |= "cur" in inner
                for base, path in _files(folder) if "cur" in inner else ():
                    name = f"maildir://{quote(os.fsencode(folder))}/{quote(os.fsencode(base))}.eml"
                    with suppress(FileNotFoundError), _open(folder, base, path) as file:
                        found, before = os.fstat(file.fileno()), known.get(name)
                        fingerprint = f"{found.st_size}-{found.st_mtime_ns}"
                        is_known = before is not None and before.fingerprint == fingerprint
                        thread = before.kept if before and is_known else _thread(file.read(HEADER_BYTES))
                        yield _item(name, fingerprint, functools.partial(read, folder, base, path), thread)
                inner[:] = sorted(set(inner) - {"cur", "new", "tmp"})
        if not is_maildir:
            raise SourceError(f"{self.url} is not a Maildir: it has no folder 'cur'.")


def _item(name: str, fingerprint: str, read: Callable[[], Iterable[bytes]], thread: str) -> Item:
    return Item(name, fingerprint, read, ".eml", {"thread": thread} if thread else {}, kept=thread)


def _thread(header: bytes) -> str:
    """The Message-ID of the first message of the conversation; empty if unknown."""
    fields = BytesHeaderParser().parsebytes(header)
    keys = ("References", "In-Reply-To", "Message-ID")
    found = (re.search(r"<([^<>\s]{1,250})>", str(fields.get(key, ""))) for key in keys)
    return next((each[1] for each in found if each), "")


@contextmanager
def _errors(url: str, secret: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise SourceError(f"{url} cannot be read: {_shown(error, secret)}.") from None


def _shown(error: Exception, secret: str) -> str:
    """What the server or the system said, without the password, which a server can send back in any form."""
    said = error.args[0] if error.args and isinstance(error.args[0], bytes) else str(error)
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    forms = (secret, repr(secret)[1:-1], repr(secret.encode())[2:-1], base64.b64encode(secret.encode()).decode())
    for form in forms if secret else ():
        text = text.replace(form, "***")
    return "".join(c if c.isprintable() else " " for c in text).strip().rstrip(".")[:200] or type(error).__name__


# --- IMAP -------------------------------------------------------------------------------------------------------------


class _Imap(imaplib.IMAP4):
    """The standard library's client, with limits on the time and the bytes of a server's reply to a command."""

    _buffer, _socket, _bytes_left, _end = bytearray(), None, MAX_REPLY_BYTES, 0.0

    def send(self, data: Any) -> None:
        self._bytes_left, self._end = MAX_REPLY_BYTES, time.monotonic() + MAX_COMMAND_S
        super().send(data)

    def read(self, size: int) -> bytes:
        if size > self._bytes_left + len(self._buffer):
            raise self.abort(f"the server announces {size:,} bytes")
        while len(self._buffer) < size and self._receive():
            pass
        return self._take(size)

    def readline(self) -> bytes:
        if self._socket is not self.sock:  # what came before TLS is not to be trusted
            self._socket, self._buffer = self.sock, bytearray()
        while b"\n" not in self._buffer and len(self._buffer) < MAX_LINE_BYTES and self._receive():
            pass
        return self._take(self._buffer.find(b"\n") + 1)  # empty: the end, or too long a line

    def _receive(self) -> bool:
        self._end = self._end or time.monotonic() + MAX_COMMAND_S  # of the greeting
        seconds = self._end - time.monotonic()
        if seconds <= 0 or self._bytes_left <= 0:
            raise self.abort("the server's reply does not end")
        self.sock.settimeout(min(TIMEOUT_S, seconds))
        data = self.sock.recv(65_536)
        self._bytes_left -= len(data)
        self._buffer += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def folders(self) -> dict[str, bytes]:
        """Name -> the name as the server writes it (modified UTF-7), of the folders that hold messages."""
        found: dict[str, bytes] = {}
        for part in self._data(self.list('""', "*")):
            whole = part[0].rpartition(b"{")[0] + b'"' + _escaped(part[1]) + b'"' if isinstance(part, tuple) else part
            if (listed := _LISTED.match(whole or b"")) and not re.search(rb"(?i)\\(noselect|nonexistent)", listed[1]):
                raw = listed[3] if listed[2] is None else re.sub(rb"\\(.)", rb"\1", listed[2], flags=re.DOTALL)
                found.setdefault(_folder_name(raw), raw)
        return found

    def examine(self, folder: bytes) -> str:
        """Open a folder to read. Returns its UIDVALIDITY, or an empty text if the server does not open it."""
        status, _ = self.select(b'"' + _escaped(folder) + b'"', readonly=True)  # type: ignore[arg-type]  # it sends bytes as they are
        validity = self.response("UIDVALIDITY")[1][0]
        is_number = isinstance(validity, bytes) and re.fullmatch(rb"[1-9]\d{0,9}", validity)
        return validity.decode() if status == "OK" and is_number else ""

    def uids(self, *criteria: str) -> list[int]:
        found = b" ".join(each for each in self._data(self.uid("SEARCH", *criteria)) if isinstance(each, bytes))
        uids = sorted({int(each) for each in found.split()})
        if uids and not 0 < uids[0] <= uids[-1] < 2**32:
            raise ValueError("the server lists a message whose UID is out of range")
        return uids

    def fetch_parts(self, uids: list[int], part: str) -> dict[int, bytes]:
        """UID -> the part, of the messages that are there."""
        found, text, data = dict[int, bytes](), b"", b""
        for each in self._data(self.uid("FETCH", ",".join(map(str, uids)), f"(UID {part})")) if uids else []:
            if isinstance(each, tuple):
                text, data = text + each[0], each[1]
                continue
            text += each or b""
            if b"BODY[" in text and (uid := re.search(rb"\bUID (\d{1,10})\b", text)):  # else flags that changed
                found[int(uid[1])] = data
            text, data = b"", b""
        return found

    def message(self, uid: int) -> Iterator[bytes]:
        for start in itertools.count(0, PIECE_BYTES):
            piece = self.fetch_parts([uid], f"BODY.PEEK[]<{start}.{PIECE_BYTES}>").get(uid, b"")
            if len(piece) > PIECE_BYTES or not (piece or start):
                raise self.error(f"the server sends {len(piece):,} bytes of message {uid}")
            yield piece
            if len(piece) < PIECE_BYTES:
                return

    def _data(self, reply: tuple[str, list[Any]]) -> list[Any]:
        if reply[0] != "OK":
            raise self.error(reply[1][-1])
        return reply[1]


class _ImapTls(_Imap, imaplib.IMAP4_SSL):
    pass


@contextmanager
def _connected(url: str, user: str, secret: str) -> Iterator[_Imap]:
    address = urlsplit(url)
    host, context = address.hostname or "", ssl.create_default_context()
    if address.scheme == "imaps":
        imap: _Imap = _ImapTls(host, address.port or 993, ssl_context=context, timeout=TIMEOUT_S)
    else:
        imap = _Imap(host, address.port or 143, timeout=TIMEOUT_S)
    try:
        if address.scheme != "imaps" and host not in {"localhost", "127.0.0.1", "::1"}:
            imap.starttls(context)
        _log_in(imap, user, secret)
        yield imap
        imap.logout()
    finally:
        with suppress(OSError):
            imap.shutdown()


def _log_in(imap: _Imap, user: str, secret: str) -> None:
    answers = [f"\0{user}\0{secret}".encode()]

    def plain(_: bytes) -> bytes:
        if not answers:
            raise imap.abort("the server asks for the password again")
        return answers.pop()

    try:
        if "AUTH=PLAIN" in imap.capabilities:
            imap.authenticate("PLAIN", plain)
        else:
            imap.login(f'"{_escaped(user.encode()).decode()}"', secret)
    except imap.abort:
        raise
    except imap.error as error:
        raise SourceError(
            f"{imap.host} refuses the user {user!r} or the password ({_shown(error, secret)}): correct OPENBOOK_IMAP_PASSWORD or the keyring's entry."
        ) from None


def _escaped(text: bytes) -> bytes:
    return re.sub(rb'(["\\])', rb"\\\1", text)


def _folder_name(raw: bytes) -> str:
    """From modified UTF-7 (RFC 3501, 5.1.3), or UTF-8."""

    def decoded(run: re.Match[str]) -> str:
        return f"+{run[1].replace(',', '/')}-".encode().decode("utf-7", "replace") if run[1] else "&"

    return re.sub(r"&([A-Za-z0-9+,]*)-", decoded, raw.decode("utf-8", "replace"))


def _since(text: str) -> str:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"since must be a date such as 2026-01-31, not {text!r}.") from None
    return f"{day.day:02}-{_MONTHS[day.month - 1]}-{day.year}"


# --- Maildir ----------------------------------------------------------------------------------------------------------


def _files(folder: str) -> Iterator[tuple[str, str]]:
    """(name without flags, path) of each message. Files are renamed meanwhile: `cur` is listed twice to miss none."""
    seen = set()
    for part in ("new", "cur", "cur"):
        if (place := Path(folder, part)).is_symlink():
            continue  # it may lead to another's mail
        with suppress(FileNotFoundError), os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                base = entry.name.partition(":")[0]
                if base not in seen and base[:1] != "." and entry.is_file(follow_symlinks=False):
                    seen.add(base)
                    yield base, entry.path


def _open(folder: str, base: str, path: str) -> IO[bytes]:
    """The message, by its new path if its flags have changed."""
    for each in itertools.chain([path], (now for name, now in _files(folder) if name == base)):
        with suppress(FileNotFoundError):
            return os.fdopen(os.open(each, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    raise FileNotFoundError(errno.ENOENT, "the message is gone", path)


def _fail(error: OSError) -> NoReturn:
    raise error
