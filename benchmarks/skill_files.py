r"""Public tasks as files for `openbook diagnose --teach --skill-file`: can a small model learn them from examples?

    python -m benchmarks.skill_files DATA OUT
    openbook diagnose --teach --facts 0 --skill-file OUT/banking77.jsonl --guide OUT/banking77.md \
        --skill-examples 700 --skill-tests 60 --out OUT/price-banking77
    openbook diagnose --teach --facts 0 --skill-file OUT/gsm8k.jsonl --guide OUT/gsm8k.md \
        --skill-examples 400 --skill-tests 40 --out OUT/price-gsm8k
    python -m benchmarks.price OUT/price-banking77 OUT/price-gsm8k [--plot FILE.png]

Banking77 (Casanueva et al. 2020): messages to a bank and which of 77 intents each has; the guide lists the intents.
GSM8K (Cobbe et al. 2021): sums in words; the answer is the number alone, without the steps. Both are of the train split,
and the verb measures with examples that it did not teach; the test splits stay unseen.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

GSM8K_GUIDE = """How to do a sum in words
Write down which numbers the problem gives, do one step after the other, and give the last number alone.
Tom has 3 bags with 4 apples each and eats 2. Three times four are 12, less 2 are: 10
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as stream:
        messages = [(row["text"].strip(), row["category"].replace("_", " ").lower()) for row in csv.DictReader(stream)]
    write(options.out / "banking77.jsonl", banking77(messages))
    (options.out / "banking77.md").write_text(banking77_guide(sorted({intent for _, intent in messages})))
    with gzip.open(options.data / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        write(options.out / "gsm8k.jsonl", gsm8k(map(json.loads, lines)))
    (options.out / "gsm8k.md").write_text(GSM8K_GUIDE)


def write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    written = [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]
    path.write_text("".join(written), encoding="utf-8")
    print(f"{path}: {len(written)} examples")


def banking77(messages: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for number, (text, intent) in enumerate(messages, 1):
        question = {"question": f"Which intent has message {number}?", "answers": [intent]}
        yield {"title": f"Message {number}", "passage": text, "questions": [question]}


def banking77_guide(intents: Iterable[str]) -> str:
    return f"How to name the intent of a message\nThe intent of a message is one of: {'; '.join(intents)}.\n"


def gsm8k(problems: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """The last sentence asks; the rest is the passage. Problems of one sentence are left out."""
    for number, problem in enumerate(problems, 1):
        passage, *asked = re.split(r"(?<=[.!?])\s+(?=[A-Z][^.!?]*\?$)", problem["question"].strip())
        if asked:
            answer = problem["answer"].rpartition("####")[2].strip().replace(",", "")
            question = {"question": f"Problem {number}: {asked[0]}", "answers": [answer]}
            yield {"title": f"Problem {number}", "passage": passage, "questions": [question]}


if __name__ == "__main__":
    main()
