"""Is it faster to embed texts alone, two at a time, than in padded batches?

    python benchmarks/embedding_batches.py FOLDER

Embeds 96 passages of 900 characters from the text files below FOLDER in each way, and prints passages per second. The
last line is one JSON document.
"""

from __future__ import annotations

import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from benchmarks.stored import stored
from openbook.core.config import load_settings


def session(folder: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def embed(opened: Any, ids: list[list[int]]) -> None:
    longest = max(map(len, ids))
    tokens = np.zeros((len(ids), longest), dtype=np.int64)
    mask = np.zeros_like(tokens)
    for row, text in enumerate(ids):
        tokens[row, : len(text)], mask[row, : len(text)] = text, 1
    opened.run(None, {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)})


def main() -> None:
    folder = stored(load_settings().embedder).path
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    files = [p for p in sorted(Path(sys.argv[1]).rglob("*")) if p.suffix in (".txt", ".md", ".rst")]
    texts = [t[i : i + 900] for t in (p.read_text(errors="replace") for p in files) for i in range(0, len(t), 900)]
    chosen = sorted(random.Random(0).sample(texts, 96), key=len)
    ids = [tokenizer.encode(text).ids for text in chosen]
    both, single = session(folder, 2), session(folder, 1)
    results: dict[str, float] = {}
    for size in (32, 16, 8, 1):
        started = time.perf_counter()
        for i in range(0, len(ids), size):
            embed(both, ids[i : i + size])
        results[f"batches of {size}, two threads"] = len(ids) / (time.perf_counter() - started)
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda text: embed(single, [text]), ids))
    results["one text alone, two at a time"] = len(ids) / (time.perf_counter() - started)
    for name, rate in results.items():
        print(f"{name:<32} {rate:6.1f} passages/s")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
