"""Files of a git repository at one revision, by the command `git`: no hooks, submodules, checkouts or prompts; of LFS no contents."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import msgspec

from openbook.errors import SourceError
from openbook.records import Verdict
from openbook.sources import Item, KnownItem
from openbook.sources.files import PIECE_BYTES, is_left_out

_FETCH_S = 600
_NO_DASH = r"(?!-)"  # git would take what begins with one for an option
_ADDRESS = re.compile(
    rf"git\+(?P<repository>(?P<protocol>https|ssh|file)://{_NO_DASH}(?:(?P<user>[^/@\s]+)@)?{_NO_DASH}[^/@\s]*/[^@#\s]+)"
    rf"(?:@{_NO_DASH}(?P<revision>[^#\s]+))?(?:#(?P<folder>.*))?"
)
_SETTINGS = f"""protocol.allow=never core.hooksPath={os.devnull} http.followRedirects=false
    http.lowSpeedLimit=1 http.lowSpeedTime=60""".split()
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
_KEPT = re.compile(r"([0-9a-f]{40,64}) (\d+) (\S+)")  # the object that was fetched, how many files it had, its time
_LFS_POINTER, _LFS_POINTER_BYTES = (
    b"version https://git-lfs.github.com/spec/",
    1024,
)  # its beginning, and its size at most


class GitSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`git+https://HOST/REPOSITORY.git@REVISION#FOLDER`: the files in a folder (else all) of a branch, tag or commit (else HEAD)."""

    url: str

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        parts = _ADDRESS.fullmatch(self.url)
        if not parts:
            raise SourceError(
                f"{self.url!r} names no repository: write git+https://HOST/REPOSITORY.git@REVISION#FOLDER."
            )
        if parts["user"] and parts["protocol"] == "https":
            raise SourceError(
                "Leave user and token out of a repository's address. Give them to git: ~/.netrc, or a credential helper."
            )
        ref, commit = self._resolve(parts)
        kept = {each.kept for each in known.values()}
        same = _KEPT.fullmatch(kept.pop()) if len(kept) == 1 else None
        if same and same[1] == commit and int(same[2]) == len(known):  # all of it was fetched
            for name, each in known.items():
                yield Item(name, each.fingerprint, tuple, metadata={"modified": same[3]}, kept=same[0])
            return
        with tempfile.TemporaryDirectory(prefix="openbook-git-") as folder:
            self._git(parts, "init", "--quiet", "--bare", "--template=", folder)
            how = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
            self._git(parts, f"--git-dir={folder}", "fetch", *how, "--", parts["repository"], ref)
            yield from self._files(parts, folder)

    def _resolve(self, parts: re.Match[str]) -> tuple[str, str]:
        """What to fetch, and the object that it now is."""
        revision, repository = parts["revision"], parts["repository"]
        if revision and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", revision):
            return revision, revision
        names = [f"refs/tags/{revision}", f"refs/heads/{revision}", revision] if revision else ["HEAD"]
        lines = self._git(parts, "ls-remote", "--", repository, *names).decode(errors="replace").splitlines()
        objects = {name: digest for digest, _, name in (line.partition("\t") for line in lines)}
        for name in names:
            if name in objects:
                return name, objects[name]
        raise SourceError(f"{repository} has no branch or tag {revision or 'HEAD'!r}. Give a commit by all its digits.")

    def _files(self, parts: re.Match[str], directory: str) -> Iterator[Item | Verdict]:
        git = partial(self._git, parts, f"--git-dir={directory}")
        commit = git("rev-parse", "FETCH_HEAD").decode().strip()
        modified = git("log", "-1", "--format=%cI", commit).decode().strip()
        folder = f"{(parts['folder'] or '').strip('/')}/".lstrip("/")
        found = []
        with _blobs(directory) as blob:
            for line in git("ls-tree", "-r", "-z", "-l", "--full-tree", f"{commit}:{folder}").split(b"\0")[:-1]:
                about, _, path = line.partition(b"\t")
                mode, kind, digest, size = about.split()
                below = path.decode(errors="backslashreplace")
                name = f"{self.url.partition('#')[0]}#{folder}{below}"
                if is_left_out(below):
                    continue
                if kind != b"blob" or mode == b"120000":
                    yield Verdict(name, "skipped", "a link" if kind == b"blob" else "another repository (a submodule)")
                elif int(size) <= _LFS_POINTER_BYTES and b"".join(blob(digest)).startswith(_LFS_POINTER):
                    yield Verdict(name, "skipped", "its contents are in Git LFS, not in the repository")
                else:
                    found.append((name, digest))
            kept = f"{commit} {len(found)} {modified}"
            for name, digest in found:
                yield Item(name, digest.decode(), partial(blob, digest), metadata={"modified": modified}, kept=kept)

    def _git(self, parts: re.Match[str], *arguments: str) -> bytes:
        settings = [
            word for setting in (*_SETTINGS, f"protocol.{parts['protocol']}.allow=always") for word in ("-c", setting)
        ]
        try:
            # In a session of its own, ssh has no terminal to ask on.
            how = {"env": {**os.environ, **_ENVIRONMENT}, "stdin": subprocess.DEVNULL, "start_new_session": True}
            done = subprocess.run(
                ["git", *settings, *arguments], capture_output=True, timeout=_FETCH_S, check=False, **how
            )
        except FileNotFoundError as error:
            raise SourceError(
                f"{self.url} needs git: install it, for instance with `apt install git` or `brew install git`."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{self.url} was not fetched within {_FETCH_S} s. Try again later.") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
            why = (
                next((line for line in said if line.startswith("fatal:")), said[-1])[:300]
                .encode("unicode_escape")
                .decode()
            )
            raise SourceError(f"git cannot read {self.url} ({why}). Check the address and your access to it.")
        return done.stdout


@contextmanager
def _blobs(directory: str) -> Iterator[Callable[[bytes], Iterator[bytes]]]:
    """Reads blobs, one after the other."""
    command = ["git", f"--git-dir={directory}", "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        asked, answer = process.stdin, process.stdout
        assert asked
        assert answer

        def blob(digest: bytes) -> Iterator[bytes]:
            asked.write(digest + b"\n")
            asked.flush()
            header = answer.readline().split()
            if len(header) != 3:
                raise SourceError(f"git cannot read the object {digest.decode()}. Sync again.")
            left = int(header[2])
            try:
                while left and (piece := answer.read(min(left, PIECE_BYTES))):
                    left -= len(piece)
                    yield piece
            finally:  # the reader may have stopped early
                while left and (piece := answer.read(min(left, PIECE_BYTES))):
                    left -= len(piece)
                answer.read(1)

        yield blob
