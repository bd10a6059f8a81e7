"""Rebuilds the reader's data from the development sets of SQuAD 1.1 and 2.0.

    python recipes/reader_data.py dev-v1.1.json dev-v2.0.json splits.json

The files may be gzip-compressed. `splits.json` lists the titles of the articles of each split; only `train` and `dev` are
written (`recipes/data/reader-train.jsonl.gz`, `reader-dev.jsonl.gz`), the articles of `test` are kept apart for
measuring. Questions of both versions on one paragraph stand in one line. The same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data"


def main() -> None:
    sources, splits = sys.argv[1:-1], json.loads(Path(sys.argv[-1]).read_text(encoding="utf-8"))
    articles = [article for source in sources for article in _read(Path(source))["data"]]
    for split in ("train", "dev"):
        lines = passages(articles, set(splits[split]))
        target = FOLDER / f"reader-{split}.jsonl.gz"
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        asked = [q for line in lines for q in line["questions"]]
        unanswerable = sum(not q["answers"] for q in asked)
        print(f"{target.name}: {len(lines)} passages, {len(asked)} questions, {unanswerable} of them without an answer")


def passages(articles: list[dict[str, Any]], titles: set[str]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for article in articles:
        if article["title"] not in titles:
            continue
        for paragraph in article["paragraphs"]:
            context = paragraph["context"].strip()
            asked = found.setdefault((article["title"].replace("_", " "), context), {})
            for question in paragraph["qas"]:
                text = " ".join(question["question"].split())
                answers = [answer["text"].strip() for answer in question["answers"]]
                if text and (answers or question.get("is_impossible")):
                    asked.setdefault(text, {"question": text, "answers": answers})
    return [
        {"title": title, "passage": context, "questions": list(asked.values())}
        for (title, context), asked in sorted(found.items())
        if asked
    ]


def _read(path: Path) -> Any:
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


if __name__ == "__main__":
    main()
