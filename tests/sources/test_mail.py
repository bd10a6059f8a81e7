"""Mailboxes: real ones (pymap, a Maildir), and servers that lie."""

from __future__ import annotations

import base64
import imaplib
import os
import re
import socket
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from openbook.core.errors import SourceError
from openbook.core.records import Verdict
from openbook.sources import Item, mail
from openbook.sources.mail import ImapSource, MaildirSource
from tests.sources.conftest import Fetched, fetch
from tests.sources.imap_servers import PASSWORD, USER, Reply, certificate, pymap, scripted

HOST = f"{USER.replace('@', '%40')}@127.0.0.1"


def message(text: str, **headers: str) -> bytes:
    made = EmailMessage()
    made["From"], made["Subject"] = "bob@example.org", "Pier"
    for key, value in headers.items():
        made[key.replace("_", "-")] = value
    made.set_content(text)
    return made.as_bytes().replace(b"\n", b"\r\n")


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_IMAP_PASSWORD", PASSWORD)


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with pymap("--no-tls") as port:
        yield port


class Mailbox:
    """An empty one. `url`: the start of its address; `client` may write."""

    def __init__(self, port: int, client: imaplib.IMAP4) -> None:
        self.url, self.client = f"imap://{HOST}:{port}/", client
        client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())
        self.delete("1:*")
        for line in client.list()[1]:
            if isinstance(line, bytes) and b"Noselect" not in line and not line.endswith(b"INBOX"):
                client.delete(line.partition(b'"/" ')[2])  # type: ignore[arg-type]

    def delete(self, numbers: str) -> None:
        self.client.select("INBOX")
        self.client.store(numbers, "+FLAGS", r"(\Deleted)")
        self.client.close()

    def put(self, *messages: bytes, folder: str = "INBOX", date: str = "") -> None:
        for data in messages:
            assert self.client.append(folder, "", date, data)[0] == "OK"

    def fetch(self, folder: str = "INBOX", before: Fetched | None = None, since: str = "") -> Fetched:
        return fetch(ImapSource(self.url + folder, since), before.known if before else None)


@pytest.fixture
def mailbox(server: int) -> Iterator[Mailbox]:
    with imaplib.IMAP4("127.0.0.1", server) as client:
        yield Mailbox(server, client)


def test_messages_are_items_that_stay_unread_and_are_fetched_once(mailbox: Mailbox) -> None:
    sent = [message(f"Pier {n} has {n + 3} lights.", Message_ID=f"<m{n}@x>") for n in range(3)]
    mailbox.put(*sent)
    mailbox.client.create("Archive")
    first = mailbox.fetch("*")
    assert list(first.read.values()) == sent
    assert all(re.fullmatch(re.escape(mailbox.url) + r"INBOX/\d+/\d+\.eml", name) for name in first.items)
    mailbox.client.select("INBOX")
    assert b"Seen" not in b"".join(mailbox.client.fetch("1:*", "(FLAGS)")[1])  # type: ignore[arg-type]
    mailbox.client.copy("2", "Archive")
    mailbox.delete("1:2")
    mailbox.put(message("Pier 3"))
    second = mailbox.fetch("*", first)
    (stays,) = set(second.items) & set(first.items)
    assert second.items[stays].metadata == first.items[stays].metadata == {"thread": "m2@x"}
    assert sorted(name.split("/")[3] for name in second.read) == ["Archive", "INBOX"]
    assert not mailbox.fetch("*", second).read


@pytest.mark.laws
def test_a_conversation_has_the_id_of_its_first_message(mailbox: Mailbox) -> None:
    mailbox.put(
        message("Pier 0", Message_ID="<first@x>"),
        message("Pier 1", Message_ID="<m1@x>", In_Reply_To="<first@x>"),
        message("Pier 2", Message_ID="<m2@x>", In_Reply_To="<m1@x>", References="<first@x> <m1@x>"),
        message("Pier 3"),
    )
    threads = [each.metadata.get("thread") for each in mailbox.fetch().items.values()]
    assert threads == ["first@x"] * 3 + [None]


@pytest.mark.laws
def test_folders_have_names_in_any_script(mailbox: Mailbox) -> None:
    mailbox.client.create('"Entw&APw-rfe &- mehr"')
    mailbox.put(message("Pier 0"), folder='"Entw&APw-rfe &- mehr"')
    mailbox.put(message("Pier 1"))
    for written in ("Entwürfe%20&%20mehr", "Entw%C3%BCrfe%20%26%20mehr"):
        (name,) = mailbox.fetch(written).items
        assert name.startswith(mailbox.url + "Entw%C3%BCrfe%20%26%20mehr/")
    assert [len(mailbox.fetch(each).items) for each in ("*", "inbox")] == [2, 1]
    with pytest.raises(SourceError, match=r"no folder 'INBX'\. Did you mean 'INBOX'"):
        mailbox.fetch("INBX")


@pytest.mark.laws
def test_large_messages_come_in_pieces_and_old_ones_are_left_out(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "PIECE_BYTES", 1000)
    head = message("")
    sent = [head + b"a" * (size - len(head)) for size in (999, 1000, 1001, 3000)]
    mailbox.put(*sent, date='"05-Jan-2020 10:00:00 +0000"')
    mailbox.put(message("Pier 1"))
    assert list(mailbox.fetch(since="2020-01-05").read.values())[:4] == sent
    assert len(mailbox.fetch(since="2020-01-06").items) == 1


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine under another name."""
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda at, *rest: connect(("127.0.0.1", at[1]), *rest))
    return HOST.replace("127.0.0.1", "mail.example.org")


def test_imaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, chain = certificate(tmp_path)
    with scripted({}, chain) as (port, received):
        source = ImapSource(f"imaps://{HOST}:{port}/INBOX")
        with pytest.raises(SourceError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(source)
        assert not received
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert len(fetch(source).read) == 2


@pytest.mark.laws
def test_starttls(elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, chain = certificate(tmp_path, "mail.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with pymap("--cert", str(chain), "--key", str(chain)) as port:
        assert not fetch(ImapSource(f"imap://{elsewhere}:{port}/INBOX")).items


def test_no_password_is_sent_without_tls(elsewhere: str) -> None:
    with scripted({}) as (port, received), pytest.raises(SourceError, match="TLS not supported"):
        fetch(ImapSource(f"imap://{elsewhere}:{port}/INBOX"))
    assert not [line for line in received if b"AUTH" in line or b"LOGIN" in line]
    injected = b"TAG OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nX1 OK injected\r\n"
    able = b"* CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN\r\nTAG OK done\r\n"
    with scripted({"CAPABILITY": able, "STARTTLS": injected}) as (port, received), pytest.raises(SourceError):
        fetch(ImapSource(f"imap://{elsewhere}:{port}/INBOX"))
    assert len(received) < 3 or not received[2].startswith(b"X")


# --- passwords --------------------------------------------------------------------------------------------------------


class Keys(KeyringBackend):
    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        return PASSWORD if (service, username) == ("127.0.0.1", USER) else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


def test_the_password_is_in_the_environment_or_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBOOK_IMAP_PASSWORD", "wrong-one")
    refused = pytest.raises(SourceError, match=r"refuses the user 'ann@example\.org'")
    with scripted({"ANSWER": b"TAG NO wrong\r\n"}) as (port, _), refused as caught:
        fetch(ImapSource(f"imap://{HOST}:{port}/INBOX"))
    assert "wrong-one" not in str(caught.value)
    monkeypatch.delenv("OPENBOOK_IMAP_PASSWORD")
    before = keyring.get_keyring()
    try:
        keyring.set_keyring(Keys())  # type: ignore[no-untyped-call]
        with scripted({}) as (port, received):
            assert len(fetch(ImapSource(f"imap://{HOST}:{port}/INBOX")).items) == 2
        assert base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()) in received
        says = r"OPENBOOK_IMAP_PASSWORD, or store one with: keyring set 127\.0\.0\.1 bob"
        with pytest.raises(SourceError, match=says):
            fetch(ImapSource("imap://bob@127.0.0.1/INBOX"))
    finally:
        keyring.set_keyring(before)


# --- servers that lie -------------------------------------------------------------------------------------------------


ENDLESS = b"* OK still there\r\n" * 20_000
UNSOLICITED = b"* 1 FETCH (UID 9 BODY[] {3}\r\nabc)\r\n* 1 FETCH (FLAGS (\\Seen) UID 1)\r\nTAG OK done\r\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LIST": b"* LIST () {99999999999999}\r\n"}, "announces 99,999,999,999,999 bytes"),
        ({"UID FETCH": b"* 1 FETCH (UID 1 BODY[] {400000}\r\nabc"}, "announces 400,000 bytes"),
        ({"UID SEARCH": ENDLESS}, "does not end"),
        ({"UID SEARCH": b"* SEARCH" + b" 1" * 100_000}, "EOF"),
        ({"UID SEARCH": b"* SEARCH 0\r\nTAG OK done\r\n"}, "out of range"),
        ({"UID SEARCH": b"* SEARCH 4294967296\r\nTAG OK done\r\n"}, "out of range"),
        ({"UID SEARCH": b"* SEARCH 1 one\r\nTAG OK done\r\n"}, "invalid literal"),
        ({"UID SEARCH": b"TAG NO you may not\r\n"}, "you may not"),
        ({"UID SEARCH": None}, "EOF"),
        ({"EXAMINE": b"\x00\xff nonsense\r\n"}, "unexpected response"),
        ({"AUTHENTICATE": b"+ \r\n", "ANSWER": b"+ \r\n"}, "asks for the password again"),
        ({"UID FETCH": b"* 1 FETCH (UID 1 BODY[] {5}\r\nabcdefgh)\r\nTAG OK done\r\n"}, [b"abcde"]),
        ({"UID FETCH": UNSOLICITED}, []),  # a message that was not asked for
        ({}, "does not end"),  # a byte now and then
        ({"UID FETCH": b"* 1 FETCH (UID 1 BODY[] {50}\r\nabc)\r\nTAG OK done\r\n"}, "timed out"),
        ({"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\nTAG OK done\r\n", "LOGIN": b"TAG OK done\r\n"}, "ascii"),
    ],
)
def test_a_server_that_lies_ends_the_listing(
    changes: dict[str, Reply], said: str | list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "MAX_REPLY_BYTES", 300_000)
    monkeypatch.setattr(mail, "MAX_LINE_BYTES", 100_000)
    monkeypatch.setattr(mail, "TIMEOUT_S", 0.3 if said == "timed out" else 60)
    monkeypatch.setattr(mail, "MAX_COMMAND_S", mail.MAX_COMMAND_S if changes else -1)
    with scripted(changes) as (port, _):
        source = ImapSource(f"imap://{HOST}:{port}/INBOX")
        if isinstance(said, list):
            assert list(fetch(source).read.values()) == said
            return
        with pytest.raises(SourceError, match=f"cannot be read: .*{said}"):
            fetch(source)


def test_a_message_that_vanishes_fails_when_it_is_read() -> None:
    answers = iter([b"* 1 FETCH (UID 1 BODY[] {0}\r\n)\r\nTAG OK done\r\n", b"TAG OK done\r\n"])
    with scripted({"UID FETCH": lambda line: next(answers)}) as (port, _):
        listing = ImapSource(f"imap://{HOST}:{port}/INBOX").items({})
        item = next(listing)
        assert isinstance(item, Item)
        with pytest.raises(SourceError, match="0 bytes of message 1"):
            list(item.read())


def test_a_folder_whose_name_is_a_command_is_not_opened() -> None:
    name = b'x"\r\nA1 DELETE INBOX\r\n'
    listed = b'* LIST () "/" {%d}\r\n%s\r\n* LIST () "/" INBOX\r\n* LIST (\\Noselect) "/" "a\\"b"\r\nTAG OK done\r\n'
    with scripted({"LIST": listed % (len(name), name)}) as (port, received):
        found = fetch(ImapSource(f"imap://{HOST}:{port}/*"))
    ((path, verdict),) = found.verdicts.items()
    assert verdict.outcome == "failed"
    assert path == f"imap://{HOST}:{port}/x%22%0D%0AA1%20DELETE%20INBOX%0D%0A/"
    assert len(found.items) == 2
    assert not [line for line in received if b"DELETE" in line]


@pytest.mark.parametrize(
    "reply", [b"TAG NO not today\r\n", b"* OK [UIDVALIDITY 0]\r\nTAG OK done\r\n", b"TAG OK done\r\n"]
)
def test_a_folder_that_is_not_opened_keeps_its_messages(reply: bytes) -> None:
    with scripted({"EXAMINE": reply}) as (port, _):
        (verdict,) = ImapSource(f"imap://{HOST}:{port}/INBOX").items({})
    assert isinstance(verdict, Verdict)
    assert (verdict.path, verdict.outcome) == (f"imap://{HOST}:{port}/INBOX/", "failed")


@pytest.mark.parametrize("wrapped", [lambda secret: secret, base64.b64encode])
@pytest.mark.parametrize("place", ["ANSWER", "UID SEARCH"])
def test_a_password_that_the_server_sends_back_is_not_shown(place: str, wrapped: Callable[[bytes], bytes]) -> None:
    reply = b"TAG NO wrong: " + wrapped(PASSWORD.encode()) + b"\r\n"
    with scripted({place: reply}) as (port, _), pytest.raises(SourceError, match=r"wrong: \*\*\*") as caught:
        fetch(ImapSource(f"imap://{HOST}:{port}/INBOX"))
    assert caught.value.__cause__ is None


# --- Maildir ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    root = tmp_path / "Mail dir"
    for folder in ("", ".Lists", "Work/2026"):
        for part in ("cur", "new", "tmp"):
            (root / folder / part).mkdir(parents=True)
    (root / "cur" / "1.a.host:2,S").write_bytes(message("Pier 1", Message_ID="<m1@x>"))
    (root / "new" / "2.b.host").write_bytes(message("Pier 2", References="<m1@x>"))
    (root / ".Lists" / "cur" / "3.c.host:2,").write_bytes(message("Pier 3"))
    (root / "Work/2026" / "new" / "4.d.host").write_bytes(message("Pier 4"))
    (root / "tmp" / "5.e.host").write_bytes(b"half")
    return root


def test_flags_and_reading_change_neither_name_nor_fingerprint(maildir: Path) -> None:
    source = MaildirSource(f"maildir://{str(maildir).replace(' ', '%20')}")
    first = fetch(source)
    assert {name.rpartition("/Mail%20dir/")[2]: each.metadata for name, each in first.items.items()} == {
        "2.b.host.eml": {"thread": "m1@x"}, "1.a.host.eml": {"thread": "m1@x"}, ".Lists/3.c.host.eml": {}, "Work/2026/4.d.host.eml": {},
    }  # fmt: skip
    late = next(each for name, each in first.items.items() if "2.b" in name)
    (maildir / "new" / "2.b.host").rename(maildir / "cur" / "2.b.host:2,RS")
    assert b"Pier 2" in b"".join(late.read())  # it was renamed after it was listed
    second = fetch(source, first.known)
    assert second.known == first.known
    assert not second.read
    (maildir / "cur" / "2.b.host:2,RS").unlink()
    assert len(fetch(source).items) == 3
    with pytest.raises(SourceError, match="the message is gone"):
        list(late.read())


def test_links_and_odd_names_in_a_maildir(maildir: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("From: a@b\n\nsecret")
    (maildir / "cur" / "6.link").symlink_to(tmp_path / "outside")
    (maildir / ".Linked").symlink_to(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "9.f.host").write_text("From: a@b\n\nsecret")
    (maildir / ".Lists" / "new").rmdir()
    (maildir / ".Lists" / "new").symlink_to(tmp_path / "theirs")
    os.mkfifo(maildir / "cur" / "7.pipe")
    Path(os.fsdecode(os.fsencode(maildir / "cur") + b"/8\n\xff.x")).write_bytes(message("Pier 8"))
    found = fetch(MaildirSource(f"maildir://{maildir}")).items
    assert len(found) == 5
    assert [name for name in found if name.endswith("/8%0A%FF.x.eml")]


def test_what_is_no_maildir_is_an_error(tmp_path: Path) -> None:
    for url, says in ((f"{tmp_path}/none", "No such file"), (f"{tmp_path}", "has no folder 'cur'")):
        with pytest.raises(SourceError, match=says):
            fetch(MaildirSource(f"maildir://{url}"))
