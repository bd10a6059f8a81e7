from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from openbook.answers import opening
from openbook.core.errors import SourceError
from openbook.core.records import Verdict
from openbook.sources import Item, KnownItems
from openbook.sources.git import GitSource
from openbook.sources.registry import open_source
from openbook.testing import HashEmbedder, check_source
from tests.cli.conftest import Out
from tests.sources.conftest import fetch

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Runs git in a repository at `repo`, with no settings but these."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (home / ".gitconfig").write_text("[user]\nname = A\nemail = a@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2024-02-29T12:00:00+00:00")

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path / "repo", capture_output=True, check=True)
        return done.stdout.decode().strip()

    (tmp_path / "repo").mkdir()
    run("init", "-q")
    return run


@pytest.fixture
def repo(git: Git, tmp_path: Path) -> Path:
    """A repository with one commit, tagged v1."""
    repo = tmp_path / "repo"
    (repo / "docs" / ".hidden").mkdir(parents=True)
    (repo / "README.md").write_text("# First")
    (repo / "docs" / "a b.txt").write_bytes(b"long " * 1_000_000)
    (repo / "docs" / "ü.txt").write_text("text")
    (repo / "docs" / ".hidden" / "c.txt").write_text("hidden")
    git("add", "-A")
    git("commit", "-qm", "first")
    git("tag", "-am", "first", "v1")
    return repo


@pytest.mark.parametrize("partial", ["true", "false"])
def test_only_what_changed_is_read(partial: str, git: Git, repo: Path) -> None:
    """`partial`: whether the server can leave out contents."""
    for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        git("config", setting, partial)
    url = f"git+file://{repo}"
    source = open_source(url, {})
    first = fetch(source)
    assert first.read == {
        f"{url}#README.md": b"# First",
        f"{url}#docs/a b.txt": b"long " * 1_000_000,
        f"{url}#docs/ü.txt": b"text",
    }
    item = first.items[f"{url}#README.md"]
    assert item.metadata == {"modified": "2024-02-29T12:00:00Z"}
    assert item.fingerprint == git("rev-parse", "HEAD:README.md")

    def change() -> str:
        (repo / "README.md").write_text("# Other")
        git("commit", "-qam", "other")
        return f"{url}#README.md"

    check_source(lambda: source, change, lambda: repo.rename(repo.with_name("away")))
    assert not list((repo.parent / "scratch").iterdir())


def test_a_reader_may_stop_early_and_its_folder_lies_where_a_killed_run_is_cleared(repo: Path, tmp_path: Path) -> None:
    known, texts = KnownItems(), {}
    known.scratch = tmp_path / "mirror"
    known.scratch.mkdir()
    for item in GitSource(f"git+file://{repo}").items(known):
        texts[item.name[-5:]] = next(iter(item.read()))[:4]  # type: ignore[union-attr]
        assert list(known.scratch.iterdir())
    assert texts == {"ME.md": b"# Fi", "b.txt": b"long", "ü.txt": b"text"}
    assert not list((tmp_path / "scratch").iterdir())


def test_contents_are_fetched_when_they_are_read(git: Git, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two requests for each kind of files that is read, and none for the others."""
    git("config", "uploadpack.allowFilter", "true")
    for n in range(5):
        (repo / "docs" / f"{n}.png").write_bytes(bytes([n]) * 1000)
        (repo / "docs" / f"{n}.txt").write_text(f"text {n}")
    git("add", "-A")
    git("commit", "-qm", "pictures")
    trace = repo.parent / "trace"
    monkeypatch.setenv("GIT_TRACE", str(trace))
    texts = {}
    for item in GitSource(f"git+file://{repo}#docs").items({}):
        assert isinstance(item, Item)
        if item.name.endswith(".txt"):
            texts[item.name[-5:]] = b"".join(item.read())
    new = {f"{n}.txt": f"text {n}".encode() for n in range(5)}
    assert texts == {**new, "b.txt": b"long " * 1_000_000, "ü.txt": b"text"}
    assert trace.read_text().count("built-in: git fetch") == 3


def test_revisions_and_folders(git: Git, repo: Path) -> None:
    commit = git("rev-parse", "HEAD")
    git("checkout", "-qb", "feature/x")
    (repo / "docs" / "new.txt").write_text("new")
    git("add", "-A")
    git("commit", "-qm", "new")
    git("checkout", "-q", "main")
    for revision in ("v1", "main", commit, "refs/heads/main"):
        assert len(fetch(GitSource(f"git+file://{repo}@{revision}")).read) == 3
    url = f"git+file://{repo}#docs"
    found = fetch(GitSource(f"git+file://{repo}@feature/x#docs/")).read
    assert set(found) == {f"{url}/a b.txt", f"{url}/new.txt", f"{url}/ü.txt"}
    for where, says in (
        ("@v2", "couldn't find remote ref v2"),
        ("#nofolder", r"git cannot read .*nofolder"),
        ("/none", "does not appear to be a git repository"),
    ):
        with pytest.raises(SourceError, match=says):
            fetch(GitSource(f"git+file://{repo}{where}"))


@pytest.mark.laws
def test_each_tag_becomes_a_version(
    git: Git, repo: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/sources.md has it: the revision is no part of a source's name, so the next one replaces it."""
    monkeypatch.setattr(opening, "open_embedder", lambda *_, **__: HashEmbedder())
    openbook, url = Out(capsys), f"git+file://{repo}"
    git("mv", "README.md", "GUIDE.md")
    (repo / "docs" / "ü.txt").write_text("other")
    git("commit", "-qam", "second")
    git("tag", "v2")
    for tag in ("v1", "v2"):
        openbook.ok("sync", f"{url}@{tag}", "--exclude", "docs/a*")
        openbook.ok("tag", tag)
    for tag, text in (("v1", "text"), ("v2", "other")):
        assert text in openbook.ok("read", f"{url}#docs/ü.txt", "--as-of", tag)
    assert openbook.json("diff", "v1", "v2")["changed"] == [f"{url}#docs/ü.txt"]
    assert openbook.json("find", "*", "--as-of", "v1") == [f"{url}#README.md", f"{url}#docs/ü.txt"]
    assert "2 unchanged" in openbook.ok("sync")  # at v2, which it was synced at last
    assert "1 updated" in openbook.ok("sync", f"{url}@v1")
    openbook.ok("sync", f"{url}@v2", "--forget")


def test_links_submodules_and_contents_in_lfs_are_not_read(git: Git, repo: Path) -> None:
    (repo / "link.txt").symlink_to("/etc/passwd")
    (repo / "docs" / "large.pdf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    git("add", "-A")
    git("update-index", "--add", "--cacheinfo", f"160000,{git('rev-parse', 'HEAD')},other")
    git("commit", "-qm", "links")
    found = list(GitSource(f"git+file://{repo}").items({}))
    verdicts = {each.path.partition("#")[2]: each.reason for each in found if isinstance(each, Verdict)}
    assert verdicts == {"link.txt": "a link", "other": "another repository"}
    (large,) = (each for each in found if isinstance(each, Item) and each.suffix == ".pdf")
    again = (each for each in GitSource(f"git+file://{repo}").items({}) if isinstance(each, Item))
    with pytest.raises(SourceError, match="its contents are in Git LFS, not in the repository"):
        next(list(each.read()) for each in again if each.name == large.name)


def test_ssh_is_a_transport(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side of ssh is this machine."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o700)
    monkeypatch.setenv("GIT_SSH", str(ssh))
    url = f"git+ssh://git@example.org{repo}"
    assert set(fetch(GitSource(f"{url}@main")).read) == {f"{url}#README.md", f"{url}#docs/a b.txt", f"{url}#docs/ü.txt"}


def test_settings_of_the_user_run_no_command(repo: Path, tmp_path: Path) -> None:
    """They may lead an address to another transport, and name hooks."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("reference-transaction", "post-checkout", "post-merge"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (hooks / name).chmod(0o700)
    led = f'[url "ext::touch {tmp_path}/ran "]\ninsteadOf = https://example.org/\n[protocol]\nallow = always\n'
    (tmp_path / "home" / ".gitconfig").write_text(f"{led}[core]\nhooksPath = {hooks}\n")
    assert fetch(GitSource(f"git+file://{repo}")).read
    with pytest.raises(SourceError, match="transport 'ext' not allowed"):
        fetch(GitSource("git+https://example.org/x.git"))
    assert not (tmp_path / "ran").exists()


def test_without_git(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match="needs git: `apt install git`"):
        fetch(GitSource(f"git+file://{repo}"))
