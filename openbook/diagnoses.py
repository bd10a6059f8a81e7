"""The folder of a diagnosis, as files: what `openbook diagnose` writes, and a purge looks through (docs/formats/diagnosis.md).

<folder>/observations-<model>.jsonl   what each model answered (see `diagnosis.run_log`)
         diagnosis.json               the numbers, and the verdict of each question
         report.html                  the same to look at
         probes-<model>.jsonl         what its probes saw, if they were asked for (see `diagnosis.probes`)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

NUMBERS, REPORT = "diagnosis.json", "report.html"
OBSERVATIONS, PROBES = "observations-", "probes-"  # how the names begin of files that grow by lines
_MAX_NUMBERS_BYTES = 1 << 27  # some 500,000 questions of two models; what is larger is not looked through


def diagnoses_showing(folder: Path, texts: Sequence[str]) -> list[Path]:
    """The diagnoses (their folders) in `folder` that may show a passage of one of the texts."""
    return [diagnosis for diagnosis in sorted(folder.glob("[!.]*")) if _may_show(diagnosis, texts)]


def _may_show(diagnosis: Path, texts: Sequence[str]) -> bool:
    """Whether it shows a passage of one of the texts, has probes, or cannot be read.

    Answers to probes may come from any passage, and do not say from which.
    """
    try:
        numbers = diagnosis / NUMBERS
        if numbers.exists() and numbers.stat().st_size > _MAX_NUMBERS_BYTES:
            return True
        if numbers.exists() and any(model.get("probes") for model in json.loads(numbers.read_bytes())["models"]):
            return True
        for path in diagnosis.glob("*.jsonl"):
            with path.open("rb") as stream:
                next(stream, b"")  # the header
                lines = (json.loads(line) for line in stream if line.endswith(b"\n"))
                if any(each["text"] in text for line in lines for each in line["passages"] for text in texts):
                    return True
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True
    return False
