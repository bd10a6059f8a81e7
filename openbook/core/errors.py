"""The error tree. Every error a user can cause is one of these; its text says what was wrong and what to do.

* OpenBookError
  - ConfigError            an unknown setting, or an invalid value
  - QuestionError          an empty or oversized question
  - NotCertainEnough       an answer below the requested certainty
  + ModelError
    - UnknownModel         not in the store or the catalogue
    - PullError            a file could not be fetched, or does not match the catalogue
    - InvalidModelFile     not a model OpenBook can read
    - ModelNotVerified     a stored model does not match its manifest
    - EngineError          the engine could not load or evaluate the model
    - ContextOverflow      a prompt does not fit into the context
  + KnowledgeError
    - KnowledgeBaseMissing no knowledge base there
    + KnowledgeBaseInvalid not a knowledge base, or one of another format or embedder
      - KnowledgeBaseDamaged  a stored row fails its digest check
    - KnowledgeBaseBusy    another process writes to it
    - UnknownVersion       no such number, tag or time, or the version was pruned
    - FilesFailed          some files failed; the others went in
    - TextIsElsewhere      another document holds the text to be purged
    + UnreadableFile       a file that cannot become a document (it gets a verdict; the others go in)
      - NotReadNow         the machine could not read it this time; the next run tries again
      - NoSuchPage         a readable file without a page of that number
    - NoPicture            a page that cannot be shown as a picture
  - ReceiptError           not a receipt or a log of receipts, or altered
  - ProofError             not a signed document, altered, or signed by another key
  - SourceError            a web site, mailbox or other source could not be listed
  - TrainingError          a training run that cannot continue
  - StorageError           the disk refused: full, read-only, no permission
  - ClusterError           machines cannot be reached, or do not fit together

The command line prints them without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

NoPictureCode: TypeAlias = Literal["not_a_pdf", "page_not_found", "file_unreadable", "file_changed", "page_not_drawn"]

_NEAR, _NEAR_FROM_ANOTHER_LETTER = 0.65, 0.8  # of difflib's ratio; the first letter is seldom the wrong one


class OpenBookError(Exception):
    exit_code = 1


class ConfigError(OpenBookError):
    exit_code = 2


class QuestionError(OpenBookError):
    exit_code = 2


class NotCertainEnough(OpenBookError):
    pass


class ModelError(OpenBookError):
    exit_code = 3


class UnknownModel(ModelError):
    pass


class PullError(ModelError):
    pass


class InvalidModelFile(ModelError):
    pass


class ModelNotVerified(ModelError):
    pass


class EngineError(ModelError):
    pass


class ContextOverflow(ModelError):
    pass


class KnowledgeError(OpenBookError):
    exit_code = 4


class KnowledgeBaseMissing(KnowledgeError):
    pass


class KnowledgeBaseInvalid(KnowledgeError):
    pass


class KnowledgeBaseDamaged(KnowledgeBaseInvalid):
    pass


class KnowledgeBaseBusy(KnowledgeError):
    pass


class UnknownVersion(KnowledgeError):
    pass


class TextIsElsewhere(KnowledgeError):
    pass


class FilesFailed(KnowledgeError):
    """The rest was taken in."""

    exit_code = 8


class UnreadableFile(KnowledgeError):
    pass


class NotReadNow(UnreadableFile):
    """The next run tries again, even if the file is unchanged."""


class NoSuchPage(UnreadableFile):
    """The file can be read and has no page of that number."""


class NoPicture(KnowledgeError):
    """`code`: the reason, for programs."""

    def __init__(self, message: str, code: NoPictureCode) -> None:
        super().__init__(message)
        self.code = code


class ReceiptError(OpenBookError):
    exit_code = 2


class ProofError(OpenBookError):
    exit_code = 2


class SourceError(OpenBookError):
    """Says what was wrong with which address, and what to do. Never holds a credential."""

    exit_code = 4


class TrainingError(OpenBookError):
    exit_code = 6


class StorageError(OpenBookError):
    exit_code = 5


class ClusterError(OpenBookError):
    exit_code = 7


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """For imports that may fail: `what` needs an optional extra of OpenBook. Raises ConfigError."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("openbook"):
            raise
        is_missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{error.name} is not installed" if is_missing else first_line(error)
        raise _extra_needed(what, extra, why) from error


def extra_missing(what: str, extra: str, package: str) -> ConfigError:
    return _extra_needed(what, extra, f"{package} is not installed")


def _extra_needed(what: str, extra: str, why: str) -> ConfigError:
    return ConfigError(f"{what} needs the extra {extra!r} ({why}): pip install 'openbook[{extra}]'")


def first_line(error: BaseException) -> str:
    """The first line of another library's error message; the error's type if empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the first of `known` that begins with `word`, is near it, or has it at a word's start.

    Else empty. Case does not count, nor does an equal ending such as `.md` make names near.
    """
    names = {name.lower(): name for name in sorted(known)}
    word = word.lower()
    stem, _, ending = word.rpartition(".")

    def is_near(name: str) -> bool:
        other, _, its_ending = name.rpartition(".")
        first, second = (stem, other) if ending == its_ending else (word, name)
        least = _NEAR if first[:1] == second[:1] else _NEAR_FROM_ANOTHER_LETTER
        return difflib.SequenceMatcher(None, first, second).ratio() >= least

    part = rf"(?<![^\W_]){re.escape(word)}"
    close = [n for n in names if len(word) > 2 and n.startswith(word)]
    close = close or [n for n in difflib.get_close_matches(word, names, n=3, cutoff=_NEAR) if is_near(n)]
    close = close or [n for n in names if len(word) > 2 and re.search(part, n)]
    return f" Did you mean {names[close[0]]!r}?" if close else ""
