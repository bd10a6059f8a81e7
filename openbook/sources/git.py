"""Files of a git repository at one revision, by the command `git`: no hooks, submodules, checkouts or prompts; of LFS no contents."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import msgspec

from openbook.errors import SourceError
from openbook.records import Verdict
from openbook.sources import Item, KnownItem
from openbook.sources.files import PIECE_BYTES, is_left_out

_FETCH_S = 3600
_ADDRESS = re.compile(  # what begins with a dash would be an option
    r"git\+(?P<repository>(?P<protocol>https|ssh|file)://(?!-)(?:(?P<user>[^/@\s]+)@)?(?!-)[^/@\s]*/[^@#\s]+)"
    r"(?:@(?P<revision>[^-#:*?^~+\s][^#:*?^~\s]*))?(?:#(?P<folder>.*))?"
)
_SETTINGS = f"""protocol.allow=never core.hooksPath={os.devnull} http.followRedirects=false http.lowSpeedLimit=1 http.lowSpeedTime=60
    fetch.negotiationAlgorithm=noop maintenance.auto=false gc.auto=0""".split()
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
            raise SourceError(
                f"{self.url!r} names no repository: write git+https://HOST/REPOSITORY.git@REVISION#FOLDER."
            )
        if parts["user"] and parts["protocol"] == "https":
            raise SourceError(
                "Leave user and token out of a repository's address; give them to git: ~/.netrc, or a credential helper."
            )
        folder = f"{(parts['folder'] or '').strip('/')}/".lstrip("/")
        with tempfile.TemporaryDirectory(prefix="openbook-git-") as directory:
            settings = (*_SETTINGS, f"protocol.{parts['protocol']}.allow=always")
            command = ["git", f"--git-dir={directory}", *(word for setting in settings for word in ("-c", setting))]
            git = partial(self._git, command)
            git("init", "--quiet", "--bare", "--template=")
            git("config", "remote.origin.url", parts["repository"])
            git(*_FETCH, "--depth=1", "origin", parts["revision"] or "HEAD")
            changed = git("log", "-1", "--format=%cI", "FETCH_HEAD").decode().strip()
            there = git("rev-list", "--objects", "--missing=print", "--max-count=1", "FETCH_HEAD").decode(
                errors="replace"
            )
            lacking = set(re.findall(r"^\?(\w+)", there, re.MULTILINE)) - {each.fingerprint for each in known.values()}
            files, by_suffix = [], defaultdict(list)
            for line in git("ls-tree", "-r", "-z", "--full-tree", f"FETCH_HEAD:{folder}").split(b"\0")[:-1]:
                about, _, path = line.partition(b"\t")
                mode, kind, digest = about.decode().split()
                below = path.decode(errors="backslashreplace")
                name, suffix = f"{self.url.partition('#')[0]}#{folder}{below}", PurePosixPath(below).suffix
                if is_left_out(below):
                    continue
                if kind != "blob" or mode == "120000":
                    yield Verdict(name, "skipped", "a link" if kind == "blob" else "another repository (a submodule)")
                    continue
                files.append((name, digest, suffix))
                if digest in lacking:
                    by_suffix[suffix].append(digest)
            with subprocess.Popen(
                [*command, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **_alone()
            ) as process:
                wanted: set[str] = set()
                for name, digest, suffix in files:
                    if (
                        suffix in wanted and suffix in by_suffix
                    ):  # as the first of them was read, fetch the others at once
                        git(
                            *_FETCH,
                            "--no-write-fetch-head",
                            "--stdin",
                            "origin",
                            data="\n".join(by_suffix.pop(suffix)).encode(),
                        )
                    yield Item(
                        name, digest, partial(_read, process, digest, suffix, wanted), metadata={"modified": changed}
                    )

    def _git(self, command: list[str], *arguments: str, data: bytes = b"") -> bytes:
        try:
            done = subprocess.run(
                [*command, *arguments], input=data, capture_output=True, timeout=_FETCH_S, check=False, **_alone()
            )
        except FileNotFoundError as error:
            raise SourceError(
                f"{self.url} needs git: install it, for instance with `apt install git` or `brew install git`."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{self.url} was not fetched within {_FETCH_S} s. Try again later.") from error
        if done.returncode:
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("fatal: ")]
            raise SourceError(
                f"git cannot read {self.url} ({ascii(' '.join(said))[1:300]}). Check the address and your access to it."
            )
        return done.stdout


def _alone() -> dict[str, Any]:
    """For a process that cannot ask anybody: without a terminal and programs for passwords."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
    return {"env": environment, "start_new_session": True}


def _read(process: subprocess.Popen[bytes], digest: str, suffix: str, wanted: set[str]) -> Iterator[bytes]:
    asked, answer = process.stdin, process.stdout
    assert asked
    assert answer
    wanted.add(suffix)
    asked.write(f"{digest}\n".encode())
    asked.flush()
    header = answer.readline().split()
    if len(header) != 3:
        raise SourceError(f"git cannot read the object {digest}")
    left = int(header[2])
    try:
        while left and (piece := answer.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            if len(piece) <= _LFS_POINTER_BYTES and piece.startswith(_LFS_POINTER):
                raise SourceError("its contents are in Git LFS, not in the repository")
            yield piece
    finally:  # the reader may have stopped early
        while left and (piece := answer.read(min(left, PIECE_BYTES))):
            left -= len(piece)
        answer.read(1)
