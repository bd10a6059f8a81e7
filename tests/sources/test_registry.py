"""Addresses lead to sources, options are checked, and nothing shows a password."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from openbook.core.errors import ConfigError, OpenBookError
from openbook.knowledge.synced_folders import SOURCES_FILE, declared_sources
from openbook.sources import Item, registry
from openbook.testing import FakeSource, check_source
from openbook.testing.sources import FAKE
from tests.conftest import ROOT

STORED = "would be stored and shown"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCHEMES, "fake", FAKE)


def test_an_address_has_a_scheme_of_two_letters_or_more() -> None:
    addresses = ("https://a", "git+ssh://git@host/x.git", "HTTPS://a")
    assert [registry.is_address(each) for each in addresses] == [True] * 3
    paths = ("docs", "/docs", "C:/docs", "c://docs", "https:/a", "//host/docs", "", "1a://b")
    assert [registry.is_address(each) for each in paths] == [False] * 8


def test_a_source_gets_its_options() -> None:
    found: object = registry.open_source("fake://x", {"pause_s": 1.5})
    assert found == FakeSource("fake://x", 1.5)


REFUSED = [
    ("faek://x", {}, "No source has the scheme 'faek' .*Did you mean 'fake'"),
    ("docs\nftp://a/b\ngit+ext://sh/-c", {}, "No source has the scheme"),
    ("fake://x", {"paus_s": 1.0}, "fake://x has the unknown option 'paus_s'. Did you mean 'pause_s'"),
    ("fake://x", {"pause_s": "long"}, "fake://x: pause_s must be a number, not 'long'"),
    ("https://example.org/", {"depht": 3}, "unknown option 'depht'"),
    ("s3://b", {"endpont": "http://x"}, "endpont.*Did you mean 'endpoint'"),
    ("https://example.org/", {"delay_s": -1}, "delay_s must be 0 to 60 seconds, not -1"),
    ("https://\nhttp:///x\nhttp://[::1/", {}, "is not a web address"),
    ("http://127.0.0.1:99999999999/", {}, "could not be fetched"),
    ("https://S3cret@example.org/", {}, "OPENBOOK_WEB_TOKEN"),
    ("zip://f.zip", {}, "^zip://f.zip must be zip:// and an absolute path"),
    ("zotero://Zotero", {}, "^zotero://Zotero must be zotero:// and an absolute path"),
    ("git+https://example.org\ngit+https://-oProxyCommand=x/repo.git\ngit+ssh://-oProxyCommand=x@host/repo.git", {}, "is no repository: write git"),
    ("git+ssh://git@-oProxyCommand=x/repo.git\ngit+https://example.org/repo.git@--upload-pack=x", {}, "is no repository: write git"),
    ("git+https://example.org/re po.git", {}, "is no repository: write git"),
    ("git+https://ghp_S3cret@example.org/repo.git", {}, "Give a user or token to git itself"),
    ("gs://b", {"endpoint": "http://x"}, r"^gs://b takes no endpoint 'http://x': only s3:// does\.$"),
    ("s3://\ns3:///x", {}, r"names no bucket or server: write s3://NAME/PATH\.$"),
    ("sftp:///x", {}, r"names no bucket or server: write sftp://NAME/PATH\.$"),
    ("webdav+https:///x", {}, r"names no bucket or server: write webdav\+https://NAME/PATH\.$"),
    ("imaps://h/INBOX\nimaps://u@h/\nimaps://u@h\nimaps://u@/INBOX\nimaps://u%0Ax@h/INBOX\nimaps://u@h/a%0D%0Ab", {},
     "is not the address of a mailbox: write imaps://user@host/INBOX"),
    ("imaps://u@h/INBOX", {"since": "May"}, "such as 2026-01-31, not 'May'"),
    ("maildir://host/path", {}, "write maildir:///path/of/Maildir"),
    ("postgresql://h:port/db\nsqlite://\npostgresql://h", {"query": "SELECT 1"}, "database"),
    ("sqlite:////nowhere/x.db", {"query": "SELECT 1"}, "unable to open database file"),
    ("postgresql://ann@127.0.0.1:1/db\nmysql://ann@127.0.0.1:1/db", {"query": "SELECT 1"}, "cannot be read: .*onnect"),
    ("fake://u:S3cret@h/x\nfake://:S3cret@h\nfake://u:a/S3cret@h\nfaek://u:S3cret@[::1]:80/x\nfake://h/?PASSWD=S3cret\nfake://h/f?token=S3cret", {}, STORED),
    ("fake://h/?a=1&X-Amz-Signature=S3cret\nfake://h/?api_key=S3cret\nmysql://h/db?password=S3cret\nhttps://ann:S3cret@h/", {}, STORED),
]  # fmt: skip


@pytest.mark.parametrize(("urls", "options", "says"), REFUSED)
def test_what_is_wrong_is_said_and_no_password_is_shown(
    urls: str, options: dict[str, object], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBOOK_SQL_PASSWORD", "S3cret")
    for url in urls.splitlines():
        with pytest.raises(OpenBookError, match=says) as refused:
            list(registry.open_source(url, options).items({}))
        assert "S3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["fake://user@h/x", "fake://h:8080/x.git@v1.2", "fake://[::1]:80/a:b", "fake://h/?tokenizer=a&author=b&design=c"]
)  # fmt: skip
def test_what_only_looks_like_a_password_is_none(url: str) -> None:
    assert registry.open_source(url, {}).url == url


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("other://x", "absent"),
        ("sftp://host/x", "paramiko"),
        ("webdav+https://host/x", "webdav4"),
        ("s3://b", "fsspec"),
    ],
)
def test_a_missing_package_names_the_extra(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCHEMES, "other", "absent:Source")
    for name in (package, *(name for name in sys.modules if name.startswith(f"{package}."))):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"needs the extra 'sources' .*: pip install 'openbook\[sources\]'"):
        list(registry.open_source(url, {}).items({}))


def test_the_fake_does_as_a_source_must(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("a.txt", "b.txt"):
        (docs / name).write_text(f"This is {name}.")

    def change() -> str:
        (docs / "a.txt").write_text("Something else.")
        return f"fake://{docs}/a.txt"

    check_source(lambda: FakeSource(f"fake://{docs}"), change, lambda: docs.rename(tmp_path / "gone"), ["S3cret"])


def test_the_sources_on_the_page_are_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
    (tmp_path / SOURCES_FILE).write_text("".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)))
    assert len(declared_sources(tmp_path)) == 2
    begin = (
        "from __future__ import annotations\nimport msgspec\nfrom types import SimpleNamespace\n"
        "from openbook.sources import Item\n"
        "def list_notes(url): return [SimpleNamespace(id=7, changed='today', pieces=lambda: [b'A note.'])]\n"
    )
    (tmp_path / "notes_of_mine.py").write_text(begin + page.partition("```python\n")[2].partition("```")[0])
    package = tmp_path / "notes-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: notes\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[openbook.sources]\nnotes = notes_of_mine:Notes\n")
    monkeypatch.syspath_prepend(tmp_path)
    (item,) = registry.open_source("notes://mine", {}).items({})
    assert isinstance(item, Item)
    assert (item.name, item.suffix, b"".join(item.read())) == ("notes://mine/7", ".md", b"A note.")
