"""OCR by the program Tesseract: scanned pages of PDFs, and image files.

PDFium draws the pages, and a pipe carries them: nothing is written to disk.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import closing
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import one_line, title_from_name
from openbook.parsers.pdf import parse_pdf
from openbook.records import Content

PAGE_TIMEOUT_S = 60.0
DOTS_PER_INCH = 300
MAX_PIXELS = 40_000_000  # of a page as drawn; A4 has 9 million

_LANGUAGES = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,30}(?:\+[A-Za-z][A-Za-z0-9_]{1,30}){0,9}")
NO_TESSERACT = "needs OCR, and Tesseract is not installed"
NO_LANGUAGE = "OCR has no data for the languages "
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"), (b"RIFF", "image/webp"),
)  # fmt: skip


def ocr_pdf(data: bytes, name: str, languages: str) -> Content:
    """As `parse_pdf`, with the text of scanned pages. `languages`: Tesseract's, such as `eng+deu`.

    Raises UnreadableFile if there is a scanned page and Tesseract is missing, lacks a language, or fails; or if no page
    has text.
    """

    def recognise(page: Any) -> str:
        try:
            return _recognised(_drawn(page), languages)
        except subprocess.TimeoutExpired:
            return ""  # costs this page only

    return parse_pdf(data, name, recognise)


def ocr_image(data: bytes, name: str, languages: str) -> Content:
    """The text in an image file, of all pages of a TIFF."""
    media_type = next((kind for start, kind in _IMAGES if data.startswith(start)), "")
    if not media_type:
        raise UnreadableFile("not an image that OCR can read")
    out = Blocks()
    try:
        pages = _recognised(data, languages).removesuffix("\f").split("\f")
    except subprocess.TimeoutExpired as error:
        raise UnreadableFile(f"OCR took longer than {PAGE_TIMEOUT_S:g} s") from error
    for page in pages:
        out.paragraph(page)
        if len(pages) > 1:
            out.end_page()
    if not out.length:
        raise UnreadableFile("an image without text that OCR can read")
    out.chars = out.length
    return out.content(media_type, title_from_name(name), name)


def languages_here(languages: str) -> str:
    """The `languages`, and those that Tesseract has data for: OCR depends on both. Empty without languages."""
    if not languages:
        return ""
    try:
        command = [shutil.which("tesseract") or "tesseract", "--list-langs"]
        done = subprocess.run(command, capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
        listed = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    except (OSError, subprocess.TimeoutExpired):
        listed = []
    return f"{languages} of which {'+'.join(each for each in languages.split('+') if each in listed)}"


def _recognised(image: bytes, languages: str) -> str:
    """Form feeds divide pages of a TIFF. Raises TimeoutExpired, UnreadableFile."""
    if not _LANGUAGES.fullmatch(languages):
        raise UnreadableFile(f"{languages[:60]!a} names no languages for OCR, such as eng+deu")
    program = shutil.which("tesseract")
    if program is None:
        raise UnreadableFile(NO_TESSERACT)
    # Page segmentation 1 also turns pages that were scanned sideways.
    command = [program, "stdin", "stdout", "-l", languages, "--psm", "1"]
    done = subprocess.run(command, input=image, capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
    errors = done.stderr.decode("utf-8", "replace")
    if done.returncode and ("traineddata" in errors or "loading any languages" in errors):
        raise UnreadableFile(f"{NO_LANGUAGE}{languages}")
    if done.returncode:
        last = one_line(errors.strip().rpartition("\n")[2])
        raise UnreadableFile(f"OCR failed: {last}" if last else "OCR failed")
    return done.stdout.decode("utf-8", "replace")


def _drawn(page: Any) -> bytes:
    """A page in gray as PNM, which needs no library to write."""
    width, height = page.get_size()
    scale = DOTS_PER_INCH / 72
    if width * height * scale**2 > MAX_PIXELS:
        scale = (MAX_PIXELS / (width * height)) ** 0.5
    with closing(page.render(scale=scale, grayscale=True)) as bitmap:
        grey: bytes = bitmap.to_numpy().tobytes()
        return f"P5\n{bitmap.width} {bitmap.height}\n255\n".encode() + grey
