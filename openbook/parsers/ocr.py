"""Text in pictures, read by the program Tesseract where it is installed: scanned pages of PDFs, and image files.

Pages are drawn by PDFium and handed over through a pipe, so that nothing is written to a disk.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

from openbook.errors import UnreadableFile
from openbook.parsers.characters import clean, title_from_name
from openbook.parsers.pdf import join_pages, parse_pdf
from openbook.records import Content

PAGE_TIMEOUT_S = 60.0
DOTS_PER_INCH = 300
MOST_PIXELS = 40_000_000  # of a page as drawn; A4 has 9 million

_LANGUAGES = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,30}(?:\+[A-Za-z][A-Za-z0-9_]{1,30}){0,9}")
_MISSING = "needs OCR, and Tesseract is not installed (on Debian or Ubuntu: apt install tesseract-ocr)"
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"), (b"RIFF", "image/webp"),
)  # fmt: skip


def ocr_pdf(data: bytes, name: str, languages: str) -> Content:
    """As `parse_pdf`, with the text in the pictures of its scanned pages. `languages`: Tesseract's, such as `eng+deu`.

    Raises:
        UnreadableFile: no page has text and Tesseract is missing, has no data for a language, or found nothing.

    """
    return parse_pdf(data, name, _Tesseract(languages).page)


def ocr_image(data: bytes, name: str, languages: str) -> Content:
    """The text in an image file; of a TIFF with several pages each page."""
    media_type = next((kind for start, kind in _IMAGES if data.startswith(start)), "")
    if not media_type:
        raise UnreadableFile("not an image that OCR can read")
    pages = [clean(page).strip() for page in _Tesseract(languages).read(data).split("\f")]
    while pages and not pages[-1]:
        pages.pop()
    if not any(pages):
        raise UnreadableFile("an image without text that OCR can read")
    text, spans = join_pages(pages)
    return Content(text, media_type, title_from_name(name), spans if len(spans) > 1 else (), source_chars=len(text))


def available(languages: str) -> str:
    """What OCR in `languages` depends on besides the file: they, and which of them Tesseract has data for here; empty without."""
    if not languages:
        return ""
    try:
        command = [shutil.which("tesseract") or "tesseract", "--list-langs"]
        done = subprocess.run(command, capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
        listed = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    except (OSError, subprocess.TimeoutExpired):
        listed = []
    return f"{languages} of which {'+'.join(each for each in languages.split('+') if each in listed)}"


class _Tesseract:
    def __init__(self, languages: str) -> None:
        if not _LANGUAGES.fullmatch(languages):
            raise UnreadableFile(f"{languages[:60]!a} names no languages for OCR, such as eng+deu")
        self._languages = languages
        self._program = shutil.which("tesseract") or ""

    def page(self, page: Any) -> str:
        """The text of a page of PDFium; empty where it takes too long, which costs that page only."""
        try:
            return self._read(_drawn(page))
        except subprocess.TimeoutExpired:
            return ""

    def read(self, image: bytes) -> str:
        """The text in an image; pages of a TIFF are divided by form feeds."""
        try:
            return self._read(image)
        except subprocess.TimeoutExpired as error:
            raise UnreadableFile(f"OCR took longer than {PAGE_TIMEOUT_S:g} s") from error

    def _read(self, image: bytes) -> str:
        if not self._program:
            raise UnreadableFile(_MISSING)
        # Page segmentation 1 also turns pages that were scanned sideways.
        command = [self._program, "stdin", "stdout", "-l", self._languages, "--psm", "1"]
        try:
            done = subprocess.run(command, input=image, capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
        except OSError as error:
            raise UnreadableFile(_MISSING) from error
        if done.returncode:
            raise UnreadableFile(_reason(done.stderr.decode("utf-8", "replace"), self._languages))
        return done.stdout.decode("utf-8", "replace")


def _reason(errors: str, languages: str) -> str:
    if "traineddata" in errors or "loading any languages" in errors:
        return f"OCR has no data for the languages {languages}: install them, such as tesseract-ocr-deu"
    lines = errors.strip().splitlines()
    return "OCR failed" + (f": {' '.join(clean(lines[-1]).split())[:200]}" if lines else "")


def _drawn(page: Any) -> bytes:
    """A page in grey as PNM, which needs no library to write."""
    width, height = page.get_size()
    scale = DOTS_PER_INCH / 72
    if width * height * scale**2 > MOST_PIXELS:
        scale = (MOST_PIXELS / (width * height)) ** 0.5
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        rows = bitmap.to_numpy()
        grey = rows[:, :, 0] if rows.ndim == 3 else rows
        head = f"P5\n{bitmap.width} {bitmap.height}\n255\n".encode()
        return head + bytes(grey[:, : bitmap.width].tobytes())
    finally:
        bitmap.close()
