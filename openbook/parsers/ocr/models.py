"""OCR by the models in the package `rapidocr`: lines of text in a picture, in reading order. One thread, no network."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from openbook.core.errors import UnreadableFile

MAX_PICTURE_PIXELS = 100_000_000  # of an image file
MAX_CPU_S = 120.0  # for one picture; not by the clock, so that a busy machine reads the same text
_MAX_SIDE = 2000  # of what is read; larger pictures are made smaller
_MIN_SIDE = 12
_BATCH = 24  # lines read at once
_PROSE = 10  # line heights: the least width of lines in a column of prose

_Box: TypeAlias = tuple[float, float, float, float, int]  # left, top, right, bottom, its number


def read_picture(grey: Any, progress: Callable[[], None] = lambda: None) -> tuple[str, float]:
    """The text in a picture (height, width), of bytes, and the mean confidence of its characters.

    Empty without text. `progress` is called every few lines. Raises TimeoutError after MAX_CPU_S.
    """
    import cv2

    engine, until = _engine(), time.process_time() + MAX_CPU_S
    if min(grey.shape) < _MIN_SIDE:
        return "", 0.0
    shrink = min(1.0, _MAX_SIDE / max(grey.shape))
    height, width = (max(1, round(side * shrink)) for side in grey.shape)
    picture = cv2.cvtColor(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    crops, boxes = _lines(engine, picture)
    if sum(bottom - top > 1.5 * (right - left) for left, top, right, bottom, _ in boxes) > len(boxes) / 2:
        picture = picture.transpose(1, 0, 2)[::-1].copy()  # scanned sideways
        crops, boxes = _lines(engine, picture)
    if crops and sum(label == "180" for label, _ in engine.cls_and_rotate(crops)[1].cls_res) > len(crops) / 2:
        crops, boxes = _lines(engine, picture[::-1, ::-1].copy())
    rows = list(_rows(boxes))
    order = [number for row in rows for *_, number in row]
    found: dict[int, tuple[str, float]] = {}
    for start in range(0, len(order), _BATCH):
        if time.process_time() > until:
            raise TimeoutError
        progress()
        numbers = order[start : start + _BATCH]
        read = engine.recognize_txt([crops[number] for number in numbers])
        pairs = zip(numbers, zip(read.txts, read.scores, strict=True), strict=True)
        found |= {number: (text, float(score)) for number, (text, score) in pairs if score >= engine.text_score}
    lines = (" ".join(found[number][0] for *_, number in row if number in found) for row in rows)
    chars = sum(len(text) for text, _ in found.values())
    sure = sum(len(text) * score for text, score in found.values()) / chars if chars else 0.0
    return "\n".join(line for line in lines if line), sure


def pictures(data: bytes) -> Iterator[Any]:
    """The pages of an image file, in gray, right side up. Raises UnreadableFile."""
    import numpy as np
    from PIL import Image, ImageOps, ImageSequence

    Image.MAX_IMAGE_PIXELS = None  # checked here, as an error
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP")) as image:
            for frame in ImageSequence.Iterator(image) if image.format == "TIFF" else (image,):
                width, height = frame.size
                if width * height > MAX_PICTURE_PIXELS:
                    limit = f"over the limit of {MAX_PICTURE_PIXELS / 1e6:g} million"
                    raise UnreadableFile(f"an image of {width} by {height} pixels, {limit}")
                frame.draft("L", (2 * _MAX_SIDE, 2 * _MAX_SIDE))  # only JPEG: less to decode
                page = ImageOps.exif_transpose(frame)
                if page.has_transparency_data:
                    page = page.convert("RGBA")
                    page = Image.alpha_composite(Image.new("RGBA", page.size, "white"), page)
                yield np.asarray(page.convert("L"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableFile("a damaged image") from error


@functools.cache
def _engine() -> Any:
    import cv2
    import rapidocr

    cv2.setNumThreads(1)
    models = Path(rapidocr.__file__).parent / "models"  # named, so that none is ever fetched
    threads = {f"EngineConfig.onnxruntime.{each}_op_num_threads": 1 for each in ("intra", "inter")}
    names = {"Det": "PP-OCRv6_det_small", "Rec": "PP-OCRv6_rec_small", "Cls": "ch_ppocr_mobile_v2.0_cls_mobile"}
    paths = {f"{task}.model_path": str(models / f"{name}.onnx") for task, name in names.items()}
    # A smaller picture finds the same lines in a sixth of the time.
    return rapidocr.RapidOCR(
        params={"Global.log_level": "critical", "Det.limit_type": "max", "Det.limit_side_len": 960, **threads, **paths}
    )


def _lines(engine: Any, picture: Any) -> tuple[list[Any], list[_Box]]:
    from rapidocr.main import RapidOCRError

    try:
        crops, found = engine.detect_and_crop(picture, {})
    except RapidOCRError:  # it found none
        return [], []
    edges = (((*box.min(axis=0), *box.max(axis=0)), number) for number, box in enumerate(found.boxes))
    return crops, [(*map(float, box), number) for box, number in edges]  # type: ignore[misc]  # four edges


def _rows(boxes: Sequence[_Box]) -> Iterator[list[_Box]]:
    """Rows in reading order. Columns of prose are read one after the other, tables row by row."""
    if not boxes:
        return
    high = median(bottom - top for _, top, _, bottom, _ in boxes)
    columns = list(_parted(boxes, 0, high))
    if len(columns) == 1 or any(median(box[2] - box[0] for box in each) < _PROSE * high for each in columns):
        columns = list(_parted(boxes, 1, 1.2 * high))
    if len(columns) > 1:
        for part in columns:
            yield from _rows(part)
        return
    row: list[_Box] = []
    for box in sorted(boxes, key=lambda box: box[1] + box[3]):
        if row and (box[1] + box[3] - row[0][1] - row[0][3]) > high:  # the middles are half a line apart
            yield sorted(row)
            row = []
        row.append(box)
    yield sorted(row)


def _parted(boxes: Sequence[_Box], axis: int, gap: float) -> Iterator[list[_Box]]:
    """Groups with an empty strip wider than `gap` between them, along an axis (0: from the left, 1: from the top)."""
    group: list[_Box] = []
    end = 0.0
    for box in sorted(boxes, key=lambda box: box[axis]):
        if group and box[axis] > end + gap:
            yield group
            group = []
        end = max(end, box[axis + 2]) if group else box[axis + 2]
        group.append(box)
    yield group
