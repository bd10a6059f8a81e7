"""Files of a git repository at one revision, by the command `git`: no hooks, submodules, checkouts or prompts; of LFS no contents."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import msgspec

from openbook.core.errors import SourceError
from openbook.core.records import Verdict
from openbook.sources import PIECE_BYTES, Item, KnownItem, is_left_out

_FETCH_S = 3600
_ADDRESS = re.compile(  # what begins with a dash would be an option
    r"git\+(?P<repository>(?P<protocol>https|ssh|file)://(?!-)(?:(?P<user>[^/@\s]+)@)?(?!-)[^/@\s]*/[^@#\s]+)"
    r"(?:@(?P<revision>[^-#:*?^~+\s][^#:*?^~\s]*))?(?:#(?P<folder>.*))?"
)
_SETTINGS = f"""protocol.allow=never core.hooksPath={os.devnull} fetch.negotiationAlgorithm=noop maintenance.auto=false gc.auto=0
    http.followRedirects=false http.lowSpeedLimit=1 http.lowSpeedTime=60""".split()
_NO_PROMPTS = {"GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
_FETCH = "fetch --quiet --no-tags --no-recurse-submodules --filter=blob:none".split()
_LFS_POINTER, _LFS_POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024


class GitSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`git+https://HOST/REPOSITORY.git@REVISION#FOLDER`: the files in a folder (else all) of a branch, tag or commit (else HEAD).

    A run fetches the names of all files, and the contents of those that are read.
    """

    url: str

    def items(self, known: Mapping[str, KnownItem]) -> Iterator[Item | Verdict]:
        parts = _ADDRESS.fullmatch(self.url)
        if not parts:
            raise SourceError(f"{self.url!r} is no repository: write git+https://HOST/REPOSITORY.git@REVISION#FOLDER.")
        if parts["user"] and parts["protocol"] == "https":
            raise SourceError("Give a user or token to git itself (~/.netrc, credential helper), not in an address.")
        with tempfile.TemporaryDirectory(prefix=".git-", dir=getattr(known, "scratch", None)) as directory:
            settings = (*_SETTINGS, f"protocol.{parts['protocol']}.allow=always")
            command = ["git", f"--git-dir={directory}", *(word for each in settings for word in ("-c", each))]
            git = partial(self._git, command)
            git("init", "--quiet", "--bare", "--template=")
            git("config", "remote.origin.url", parts["repository"])
            git(*_FETCH, "--depth=1", "origin", parts["revision"] or "HEAD")
            time = git("log", "-1", "--format=%cI", "FETCH_HEAD").decode().strip()
            objects = git("rev-list", "--objects", "--missing=print", "--max-count=1", "FETCH_HEAD")
            lacking = set(re.findall(rb"^\?(\w+)", objects, re.MULTILINE))
            lacking -= {each.fingerprint.encode() for each in known.values()}
            folder = f"{(parts['folder'] or '').strip('/')}/".lstrip("/")
            tree = git("ls-tree", "-r", "-z", "--full-tree", f"FETCH_HEAD:{folder}")
            entries = [
                (path.decode(errors="backslashreplace"), mode, digest)
                for mode, digest, path in re.findall(rb"(\d+) \w+ (\w+)\t([^\0]+)\0", tree)
            ]
            alike, wanted = defaultdict(list), set[str]()
            for path, _, digest in entries:
                if digest in lacking and not is_left_out(path):
                    alike[PurePosixPath(path).suffix].append(digest)
            for path, mode, digest in entries:
                name, suffix = f"git+{parts['repository']}#{folder}{path}", PurePosixPath(path).suffix
                if is_left_out(path):
                    continue
                if not mode.startswith(b"100"):
                    yield Verdict(name, "skipped", "a link" if mode == b"120000" else "another repository")
                    continue
                if suffix in wanted and suffix in alike:  # the first one was read, so the others will be
                    git(*_FETCH, "--no-write-fetch-head", "--stdin", "origin", data=b"\n".join(alike.pop(suffix)))
                read = partial(_contents, command, digest.decode(), partial(wanted.add, suffix))
                yield Item(name, digest.decode(), read, suffix, {"modified": time})

    def _git(self, command: list[str], *arguments: str, data: bytes = b"") -> bytes:
        try:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                [*command, *arguments], input=data, capture_output=True, check=False, timeout=_FETCH_S, **_alone()
            )
        except FileNotFoundError as error:
            raise SourceError(
                f"{self.url} needs git: `apt install git`, `brew install git`, or git-scm.com."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{self.url} was not fetched within {_FETCH_S} s. Try again later.") from error
        if done.returncode:
            why = " ".join(re.findall("^fatal: .*", done.stderr.decode(errors="replace"), re.MULTILINE))
            raise SourceError(f"git cannot read {self.url} ({why[:300]!a}). Check the address and your access.")
        return done.stdout


def _alone() -> dict[str, Any]:
    """For a process that cannot ask the user: in a session of its own, ssh has no terminal."""
    return {"env": {**os.environ, **_NO_PROMPTS}, "start_new_session": True}


def _contents(command: list[str], digest: str, is_read: Callable[[], None]) -> Iterator[bytes]:
    is_read()
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, **_alone()}
    with subprocess.Popen([*command, "cat-file", "blob", digest], **how) as process:
        assert process.stdout
        while piece := process.stdout.read(PIECE_BYTES):
            if len(piece) <= _LFS_POINTER_BYTES and piece.startswith(_LFS_POINTER):
                raise SourceError("its contents are in Git LFS, not in the repository")
            yield piece
    if process.returncode:
        raise SourceError(f"git cannot read the object {digest}")
