"""What helps for a file that was not read. The command line and the server say the same."""

from __future__ import annotations

import shlex
import sys

from openbook.core.config import MEMORY_PER_FILE, Place
from openbook.knowledge.ingest.discovery import IGNORE_FILE, LEFT_OUT_BY, LINK_OUTSIDE
from openbook.parsers import files
from openbook.parsers.formats.packages import LARGE_PART
from openbook.parsers.metadata import IN_SIDECAR
from openbook.parsers.ocr import NO_LANGUAGE, NO_TESSERACT
from openbook.parsers.sandbox.pool import TOOK_TOO_LONG
from openbook.sources.registry import is_address

# By a part of the reason, as it is made.
_REMEDIES = {
    IN_SIDECAR: "Correct or delete the sidecar, then: {add}",
    files.NEEDS_OCR: "To have this read from now on: {python} -m pip install 'openbook[ocr]'",
    NO_TESSERACT: "To install Tesseract on Debian or Ubuntu: apt install tesseract-ocr. Then: {add} --ocr eng",
    NO_LANGUAGE: "To install a language on Debian or Ubuntu, such as German: apt install tesseract-ocr-deu. Then: {add} --ocr deu",
    LARGE_PART: "Divide it into smaller files, then: {add_other}",
    files.OVER_FILE_LIMIT: "To take larger files, in MB: OPENBOOK_MAX_FILE_MB=1000 {add} (or set max_file_mb)",
    files.NEEDS_MEMORY: f"To allow more memory, {MEMORY_PER_FILE} times this many MB: OPENBOOK_MAX_FILE_MB=1000 {{add}} (or set max_file_mb)",
    TOOK_TOO_LONG: "To allow more seconds: OPENBOOK_READ_TIMEOUT_S=600 {add} (or set read_timeout_s)",
    files.ENCRYPTED: "Save a copy without a password in the program that opens it, then: {add_other}",
    files.NO_PERMISSION: "Let the user that runs OpenBook read it: chmod u+rX {file} (its owner can), then: {add}",
    files.LEGACY_OFFICE: "After that: {add_other}",
    files.ARCHIVE: "After that: {add_other}",
    files.AUDIO: "Add its transcript instead, as .vtt, .srt or text: {add_other}",
    files.VIDEO: "Add its transcript instead, as .vtt, .srt or text: {add_other}",
    files.NOT_TEXT: "No parser reads this format. Save it as PDF, HTML or text, then: {add_other}",
    LINK_OUTSIDE: "Links are not followed. To add what it leads to: {add_other}",
    f"{LEFT_OUT_BY}{IGNORE_FILE}": f"To take it in, change the {IGNORE_FILE} in its folder or above, then: openbook sync{{kb}}",
    LEFT_OUT_BY: "To take it in, sync its folder with other globs, or with none: openbook sync FOLDER --reset{kb}",
}


def remedy(reason: str, file: str = "FILE", place: Place | None = None) -> str:
    """A sentence with the command that helps against this reason of a verdict; empty if none is known.

    `file`: its path, or a word for several. `place`: the knowledge base; None: the user's own.
    """
    kb = _option(place) if place else ""
    found = next((said for part, said in _REMEDIES.items() if part in reason), "")
    add, file = f"openbook add{kb}", file if file == "FILE" else shlex.quote(file)
    add, add_other = (f"{add} {file}", f"{add} COPY") if not is_address(file) else (f"openbook sync ADDRESS{kb}",) * 2
    values = {"add": add, "add_other": add_other, "file": file, "kb": kb, "python": shlex.quote(sys.executable)}
    return f"{found}.".format(**values) if found else ""


def sync_command(place: Place) -> str:
    """The command that keeps a folder up to date in the knowledge base at `place`."""
    return f"openbook sync FOLDER{_option(place)}"


def _option(place: Place) -> str:
    return f" --kb {shlex.quote(str(place))}"
