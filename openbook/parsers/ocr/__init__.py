"""OCR of scanned pages of PDFs and of image files: by the models of `openbook[ocr]`, or by the program Tesseract.

PDFium draws the pages, and a pipe carries them to Tesseract: nothing is written to disk.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import groupby
from operator import itemgetter
from typing import Any

from openbook.core.errors import UnreadableFile
from openbook.core.records import Content
from openbook.parsers.blocks import Blocks
from openbook.parsers.characters import one_line, title_from_name
from openbook.parsers.files import NO_TEXT_IN_IMAGE
from openbook.parsers.formats.pdf import confidence_of, parse_pdf
from openbook.parsers.ocr.models import pictures, read_picture

MAX_PAGES = 500  # of one file
PAGE_TIMEOUT_S = 40.0  # of Tesseract; less than the time for a file, which begins again after each page
MAX_PIXELS = 40_000_000  # of a page as drawn; A4 has 9 million
NO_OCR = "none"  # the setting that turns OCR off
NO_TESSERACT = "needs OCR, and Tesseract is not installed"
NO_LANGUAGE = "OCR has no data for the languages "

_LANGUAGES = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,30}(?:\+[A-Za-z][A-Za-z0-9_]{1,30}){0,9}")
_MODELS, _TESSERACT = "rapidocr ", "tesseract "  # prefixes of an engine
_DOTS_PER_INCH = {_MODELS: 200, _TESSERACT: 300}
_MOST_LANGUAGES = 3  # of Tesseract at once, if none are given: each costs time and takes letters for its own
_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"), (b"RIFF", "image/webp"),
)  # fmt: skip


def ocr_engine(setting: str) -> str:
    """What reads scanned pages here, with all that its text depends on; empty: nothing does.

    `setting`: empty for `best_engine`, Tesseract's languages (`eng+deu`), or NO_OCR.
    """
    if setting in ("", NO_OCR):
        return "" if setting else best_engine()
    listed = _tesseract_languages()
    return f"{_TESSERACT}{setting} of which {'+'.join(each for each in setting.split('+') if each in listed)}"


def best_engine() -> str:
    """The models of `openbook[ocr]`, otherwise Tesseract with the languages it has; see research/dependencies.md."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"{_MODELS}{importlib.metadata.version('rapidocr')}"
    here = [each for each in _tesseract_languages() if re.fullmatch(r"[a-z]{3}(?:_\w+)?", each) and each != "osd"]
    if len(here) > _MOST_LANGUAGES:
        here = ["eng"] if "eng" in here else []
    return ocr_engine("+".join(here)) if here else ""


def _tesseract_languages() -> list[str]:
    try:
        command = [shutil.which("tesseract") or "tesseract", "--list-langs"]
        done = subprocess.run(command, capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted((done.stdout + done.stderr).decode("utf-8", "replace").splitlines())


def ocr_pdf(data: bytes, name: str, engine: str, progress: Callable[[], None]) -> Content:
    """As `parse_pdf`, with the text of scanned pages. `progress` is called during OCR.

    Raises UnreadableFile if there is a scanned page and Tesseract is missing, lacks a language, or fails; or if no page
    has text.
    """
    left = iter(range(MAX_PAGES))

    def recognise(page: Any) -> tuple[str, float]:
        if next(left, None) is None:
            return "", 0.0
        try:
            if engine.startswith(_MODELS):
                return read_picture(_drawn(page, _MODELS), progress)
            grey = _drawn(page, _TESSERACT)
            image = f"P5\n{grey.shape[1]} {grey.shape[0]}\n255\n".encode() + grey.tobytes()  # PNM needs no library
            return next(_recognised(image, engine), ("", 0.0))
        except (TimeoutError, subprocess.TimeoutExpired):
            return "", 0.0  # costs this page only
        finally:
            progress()

    return parse_pdf(data, name, recognise)


def ocr_image(data: bytes, name: str, engine: str, progress: Callable[[], None]) -> Content:
    """The text in an image file, of all pages of a TIFF."""
    media_type = next((kind for start, kind in _IMAGES if data.startswith(start)), "")
    if not media_type:
        raise UnreadableFile("not an image that OCR can read")
    out, read = Blocks(), []
    try:
        if engine.startswith(_MODELS):
            for _, picture in zip(range(MAX_PAGES), pictures(data), strict=False):
                read.append(read_picture(picture, progress))
        else:
            read += _recognised(data, engine)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise UnreadableFile(f"OCR took longer than {PAGE_TIMEOUT_S:g} s") from error
    for page, _ in read:
        out.paragraph(page)
        if len(read) > 1:
            out.end_page()
    if not out.length:
        raise UnreadableFile(NO_TEXT_IN_IMAGE)
    out.chars = out.length
    return out.content(media_type, title_from_name(name), name, confidence_of(read))


def _recognised(image: bytes, engine: str) -> Iterator[tuple[str, float]]:
    """Text and confidence of each page, by Tesseract. Raises TimeoutExpired, UnreadableFile."""
    languages = engine.removeprefix(_TESSERACT).partition(" ")[0]
    if not _LANGUAGES.fullmatch(languages):
        raise UnreadableFile(f"{languages[:60]!a} names no languages for OCR, such as eng+deu")
    program = shutil.which("tesseract")
    if program is None:
        raise UnreadableFile(NO_TESSERACT)
    # Page segmentation 1 also turns pages that were scanned sideways.
    command = [program, "stdin", "stdout", "-l", languages, "--psm", "1", "tsv"]
    done = subprocess.run(command, input=image, capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
    errors = done.stderr.decode("utf-8", "replace")
    if done.returncode and ("traineddata" in errors or "loading any languages" in errors):
        raise UnreadableFile(f"{NO_LANGUAGE}{languages}")
    if done.returncode:
        last = one_line(errors.strip().rpartition("\n")[2])
        raise UnreadableFile(f"OCR failed: {last}" if last else "OCR failed")
    # A row: level, page, block, paragraph, line, word, four edges, confidence in percent, text (level 5 is a word).
    rows = [line.split("\t") for line in done.stdout.decode("utf-8", "replace").splitlines()]
    for _, page in groupby((row for row in rows if row[0] in {"1", "5"} and len(row) == 12), itemgetter(1)):
        words = [row for row in page if row[0] == "5"]
        lines = ((at, " ".join(row[11] for row in line)) for at, line in groupby(words, itemgetter(2, 3, 4)))
        paragraphs = ("\n".join(text for _, text in group) for _, group in groupby(lines, lambda line: line[0][:2]))
        chars = sum(len(row[11]) for row in words)
        sure = sum(len(row[11]) * float(row[10]) for row in words) / 100 / chars if chars else 0.0
        yield "\n\n".join(paragraphs), sure


def _drawn(page: Any, engine: str) -> Any:
    """A page in gray (height, width)."""
    width, height = page.get_size()
    scale = _DOTS_PER_INCH[engine] / 72
    if width * height * scale**2 > MAX_PIXELS:
        scale = (MAX_PIXELS / (width * height)) ** 0.5
    with closing(page.render(scale=scale, grayscale=True)) as bitmap:
        return bitmap.to_numpy().reshape(bitmap.height, -1)[:, : bitmap.width].copy()
