"""Does a small model that reads a sentence and a passage together tell whether the passage supports the sentence?

    python -m benchmarks.support_head --encoder FOLDER --data FOLDER [--pairs 20000] [--minutes 40] [--out FILE.pt]

A trial, not a part of OpenBook: the upper half of a sentence encoder (Hugging Face files of a BERT or MPNet, below `--encoder`)
becomes a cross-encoder of three classes: supported, refuted, not said. It learns from judged pairs of passage and claim (`*.jsonl.gz`
below `--data`: passage, claim, label, sometimes question); a label "not" is anything but supported. Each tenth passage of each set is
held out. In batches whose lengths are alike, the question, if there is one, stands before the claim.

Prints, for the held-out pairs of each set and for `support_pairs.jsonl` by half, the area under the curve for "supported", and for the
halves also the shares of right sentences kept and altered ones refused where the limit is the development half's best one. A sentence of
that file is judged by the best of its six windows. Last line: one JSON document.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.support import pairs, windows
from openbook.records import sha256_hex

MAX_TOKENS, BATCH_TOKENS, LEARNING_RATE, WARM_UP = 256, 2048, 2e-4, 0.05
SUPPORTED, REFUTED, NOT_SAID, NOT_SUPPORTED = range(4)
CLASSES = {"supported": SUPPORTED, "refuted": REFUTED, "neither": NOT_SAID, "partly": NOT_SAID, "not": NOT_SUPPORTED}
HALVES = ("development", "reporting", "confirmation")


class Pair(NamedTuple):
    source: str
    claim: str
    passage: str
    label: int


def judged_pairs(folder: Path) -> Iterator[tuple[Pair, bool]]:
    """(a pair, whether it is held out: by its passage)."""
    for file in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        for row in rows:
            claim = f"{row.get('question') or ''} {row['claim']}".strip()
            is_held_out = int(sha256_hex(row["passage"].encode())[:8], 16) % 10 == 0
            yield Pair(file.name.partition(".")[0], claim, row["passage"], CLASSES[row["label"]]), is_held_out


def balanced(found: Sequence[Pair], count: int, chance: random.Random) -> list[Pair]:
    """At most `count`, with the square root of each set's size as its weight."""
    by_source = defaultdict[str, list[Pair]](list)
    for each in found:
        by_source[each.source].append(each)
    weights = {source: len(all_of) ** 0.5 for source, all_of in by_source.items()}
    whole = sum(weights.values())
    return [
        each
        for source, all_of in by_source.items()
        for each in chance.sample(all_of, min(len(all_of), round(count * weights[source] / whole)))
    ]


def batches(tokenizer: Any, found: Sequence[Pair], chance: random.Random | None) -> Iterator[tuple[list[int], Any]]:
    """(which pairs, their tokens), in batches of about BATCH_TOKENS; in random order with `chance`."""
    coded = [tokenizer(p.claim, p.passage, truncation="only_second", max_length=MAX_TOKENS) for p in found]
    order = sorted(range(len(found)), key=lambda i: len(coded[i]["input_ids"]))
    groups: list[list[int]] = [[]]
    for i in order:
        if (len(groups[-1]) + 1) * len(coded[i]["input_ids"]) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(i)
    if chance is not None:
        chance.shuffle(groups)
    for group in groups:
        yield group, tokenizer.pad([coded[i] for i in group], return_tensors="pt")


def loss_of(logits: Any, labels: Any) -> Any:
    """Cross entropy; for NOT_SUPPORTED that of all but SUPPORTED."""
    logs = torch.log_softmax(logits, dim=-1)
    known = logs.gather(1, labels.clamp(max=NOT_SAID)[:, None])[:, 0]
    return -torch.where(labels == NOT_SUPPORTED, torch.logsumexp(logs[:, REFUTED:], dim=-1), known).mean()


def trained(model: Any, tokenizer: Any, found: Sequence[Pair], minutes: float) -> int:
    """Train for one pass or so long. Returns how many pairs were learned."""
    layers = next(module for name, module in model.named_modules() if name.endswith("encoder.layer"))
    frozen = [module for name, module in model.named_modules() if name.endswith("embeddings")]
    for each in (*frozen, *layers[: len(layers) // 2]):
        each.requires_grad_(requires_grad=False)
    learned, began = 0, time.monotonic()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.01
    )
    model.train()
    for group, inputs in batches(tokenizer, found, random.Random(0)):
        done = max((time.monotonic() - began) / (60 * minutes), learned / len(found))
        if done >= 1:
            break
        for each in optimizer.param_groups:
            each["lr"] = LEARNING_RATE * min(1.0, 0.01 + done / WARM_UP) * (1 - done)
        loss = loss_of(model(**inputs).logits, torch.tensor([found[i].label for i in group]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        learned += len(group)
        if learned // 500 > (learned - len(group)) // 500:
            print(f"{learned:>7,} pairs, {time.monotonic() - began:,.0f} s, loss {loss.item():.3f}", flush=True)
    return learned


@torch.inference_mode()
def supports(model: Any, tokenizer: Any, found: Sequence[Pair]) -> list[float]:
    """How likely each passage supports its claim, 0 to 1."""
    model.eval()
    scores = [0.0] * len(found)
    for group, inputs in batches(tokenizer, found, None):
        for i, score in zip(group, model(**inputs).logits.softmax(dim=-1)[:, SUPPORTED].tolist(), strict=True):
            scores[i] = score
    return scores


def area(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Under the curve: how often a right one has a higher score than a wrong one."""
    if not right or not wrong:
        return None
    return sum((r > w) + 0.5 * (r == w) for r in right for w in wrong) / len(right) / len(wrong)


def support_scores(model: Any, tokenizer: Any, half: str) -> tuple[list[float], list[float]]:
    """Of the right and of the altered sentences of a half, each by the best of its windows."""
    every = pairs(half)
    asked = [
        Pair(str(i), f"{pair['question']} {pair['sentence']}", window.text, 0)
        for i, pair in enumerate(every)
        for window in windows(pair, every)
    ]
    best = [0.0] * len(every)
    for each, score in zip(asked, supports(model, tokenizer, asked), strict=True):
        best[int(each.source)] = max(best[int(each.source)], score)
    is_right = [pair["label"] == "right" for pair in every]
    return [s for s, r in zip(best, is_right, strict=True) if r], [
        s for s, r in zip(best, is_right, strict=True) if not r
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--out", type=Path, help="write the weights here")
    options = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.encoder)
    model = AutoModelForSequenceClassification.from_pretrained(options.encoder, num_labels=3)
    there = list(judged_pairs(options.data))
    learn = balanced([pair for pair, held_out in there if not held_out], options.pairs, random.Random(0))
    learned = trained(model, tokenizer, learn, options.minutes)
    if options.out:
        torch.save(model.state_dict(), options.out)
    result: dict[str, Any] = {"encoder": options.encoder.name, "learned": learned, "held_out": {}, "support": {}}
    held_out = balanced([pair for pair, is_held_out in there if is_held_out], 3_000, random.Random(1))
    scores = supports(model, tokenizer, held_out)
    for source in sorted({pair.source for pair in held_out}):
        of = [
            (pair.label == SUPPORTED, score)
            for pair, score in zip(held_out, scores, strict=True)
            if pair.source == source
        ]
        found = area([score for right, score in of if right], [score for right, score in of if not right])
        result["held_out"][source] = [len(of), found]
        print(f"{source:<18} {len(of):>5} pairs  area {'no data' if found is None else f'{found:.3f}'}")
    limit = 0.0
    for half in HALVES:
        right, altered = support_scores(model, tokenizer, half)
        if half == "development":
            limit = max(
                [*right, *altered],
                key=lambda at: sum(s >= at for s in right) / len(right) + sum(s < at for s in altered) / len(altered),
            )
        kept, refused = sum(s >= limit for s in right) / len(right), sum(s < limit for s in altered) / len(altered)
        result["support"][half] = [area(right, altered), kept, refused]
        print(
            f"{half:<18} area {area(right, altered):.3f}, right kept {kept:.0%}, altered refused {refused:.0%} (limit {limit:.3f})"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
