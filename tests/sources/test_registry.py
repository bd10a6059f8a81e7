"""Addresses lead to sources, options are checked, and nothing shows a password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from openbook.core.errors import ConfigError, OpenBookError, SourceError
from openbook.knowledge.synced_folders import SOURCES_FILE, declared_sources
from openbook.sources import Item, registry
from openbook.testing import FakeSource, check_source
from openbook.testing.sources import FAKE
from tests.conftest import ROOT


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


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("faek://x", {}, "No source has the scheme 'faek' .*Did you mean 'fake'"),
        ("docs", {}, "No source has the scheme"),
        ("fake://x", {"paus_s": 1.0}, "fake://x has the unknown option 'paus_s'. Did you mean 'pause_s'"),
        ("fake://x", {"pause_s": "long"}, "fake://x: pause_s must be a number, not 'long'"),
    ],
)
def test_what_is_wrong_is_said(url: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(OpenBookError, match=says):
        registry.open_source(url, options)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SCHEMES, "other", "a_package_that_is_not_here:Source")
    with pytest.raises(ConfigError, match=r"pip install 'openbook\[sources\]'"):
        registry.open_source("other://x", {})


def test_a_password_in_an_address_is_refused_unseen() -> None:
    for url in (
        "fake://u:S3cret@h/x", "fake://:S3cret@h", "fake://u:a/S3cret@h", "faek://u:S3cret@[::1]:80/x", "fake://h/?PASSWD=S3cret",
        "fake://h/?a=1&X-Amz-Signature=S3cret", "fake://h/f?token=S3cret", "fake://h/?api_key=S3cret",
    ):  # fmt: skip
        with pytest.raises(SourceError) as refused:
            registry.open_source(url, {})
        assert "S3cret" not in str(refused.value)
    for url in (  # what only looks like one
        "fake://user@h/x", "fake://h:8080/x.git@v1.2", "fake://[::1]:80/a:b", "fake://h/?tokenizer=a&author=b&design=c",
    ):  # fmt: skip
        assert registry.open_source(url, {}).url == url


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
