"""Writes `gate-reading.jsonl.gz`, the questions on passages that the gate asks by default, into the package.

    python recipes/gate_data.py

They come from the reader's dev data (SQuAD, CC BY-SA 4.0): of each passage at most `EACH` with and without an answer.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

SOURCE = Path(__file__).parent / "data" / "reader-dev.jsonl.gz"
TARGET = Path(__file__).parent.parent / "openbook" / "models" / "data" / "gate-reading.jsonl.gz"
PASSAGES, EACH = 100, 2


def main() -> None:
    rng = random.Random("gate")
    lines = [json.loads(line) for line in gzip.decompress(SOURCE.read_bytes()).decode().splitlines()]
    text, asked = "", 0
    for i in sorted(rng.sample(range(len(lines)), PASSAGES)):
        line, questions = lines[i], []
        for answered in (True, False):
            kind = [q for q in line["questions"] if bool(q["answers"]) == answered]
            for q in rng.sample(kind, min(EACH, len(kind))):
                questions.append({"question": q["question"], "answers": list(dict.fromkeys(q["answers"]))})
        row = {"title": line["title"], "passage": line["passage"], "questions": questions}
        text += json.dumps(row, ensure_ascii=False) + "\n"
        asked += len(questions)
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{asked} questions on {PASSAGES} passages")


if __name__ == "__main__":
    main()
