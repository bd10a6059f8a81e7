"""Does the check for support accept a right sentence and refuse an altered one?

python -m benchmarks.support                       the development half
python -m benchmarks.support --half reporting      the other half; `confirmation`: 40 more, written last
python -m benchmarks.support --wrong               also prints what is judged wrongly

`support_pairs.jsonl`: sentences as language models write them about public passages, each right or altered in one place;
its first line names the licences. A sentence is judged among six passages, its own and five others of the same half and
source; the judge knows the question. Timed: answers of six of the sentences.

Until December 2026 rules over words found another value, a denial or an opposite: right 76 %, altered 83 % (reporting) and 70 %, 70 %
(confirmation) at the first look. Words, numbers and nearness do not see what such rules saw; research/log.md says why they went.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from openbook.core.records import Passage, Vectors, sha256_hex
from openbook.diagnosis.scoring import interval
from openbook.inference import load_embedder
from openbook.knowledge.cite.quotes import cite_sentences
from openbook.models import ModelStore, ensure

HERE = Path(__file__).parent
AMONG = 6
Embed = Callable[[Sequence[str]], Vectors] | None


def pairs(half: str) -> list[dict[str, str]]:
    rows = (HERE / "support_pairs.jsonl").read_text(encoding="utf-8").splitlines()[1:]  # the first holds the licences
    return [pair for pair in map(json.loads, rows) if pair["half"] == half]


def windows(pair: dict[str, str], every: Sequence[dict[str, str]]) -> list[Passage]:
    """Its own passage among the next ones of its source, at a place that differs from pair to pair."""
    family = pair["source"].split()[0]
    texts = list(dict.fromkeys(p["passage"] for p in every if p["source"].split()[0] == family))
    texts += [t for t in dict.fromkeys(p["passage"] for p in every) if t not in texts]
    own = texts.index(pair["passage"])
    others = [*texts[own + 1 :], *texts[:own]][: AMONG - 1]
    place = int(sha256_hex(pair["question"].encode())[:8], 16) % AMONG
    chosen = [*others[:place], pair["passage"], *others[place:]]
    return [Passage(f"p{i}", f"{i}.txt", "", 0, len(t), None, (), t) for i, t in enumerate(chosen)]


def judged(half: str, embed: Embed) -> Iterator[tuple[dict[str, str], bool]]:
    every = pairs(half)
    for pair in every:
        found = cite_sentences(pair["sentence"], pair["question"], windows(pair, every), embed=embed)
        yield pair, all(sentence.support == "backed" for sentence in found.sentences)


def seconds(half: str, embed: Embed) -> float:
    """The median time for an answer of six sentences over six passages."""
    every = pairs(half)
    times = []
    for at in range(0, len(every) - 6, 12):
        answer = " ".join(pair["sentence"] for pair in every[at : at + 6])
        start = time.perf_counter()
        cite_sentences(answer, every[at]["question"], windows(every[at], every), embed=embed)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=("development", "reporting", "confirmation"), default="development")
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--home", type=Path, default=HERE.parent / ".cache" / "test-home")
    arguments = parser.parse_args()
    embedder = load_embedder(ensure(ModelStore(arguments.home / "models"), "minilm-l6-int8"))
    summary: dict[str, Any] = {"half": arguments.half}
    for name, embed in (("words alone", None), ("with embedder", embedder.embed_passages)):
        results = list(judged(arguments.half, embed))
        took = seconds(arguments.half, embed)
        print(f"\n{name}: {1000 * took:.0f} ms for six sentences over {AMONG} passages (median)")
        for label, goal in (("right", True), ("altered", False)):
            of = [(pair, supported == goal) for pair, supported in results if pair["label"] == label]
            verb = "accepted" if goal else "refused"
            overall = interval([float(good) for _, good in of])
            summary[f"{name}, {label} {verb}"] = [overall.mean, overall.low, overall.high]
            print(f"{label:8} {verb:9} {overall}  of {overall.n}")
            for kind in sorted({pair["kind"] for pair, _ in of}):
                scores = [float(good) for pair, good in of if pair["kind"] == kind]
                print(f"    {kind:14} {int(sum(scores)):3} of {len(scores):3}  {interval(scores)}")
            for pair, good in of:
                if arguments.wrong and not good:
                    print(f"    ! {pair['kind']}: {pair['sentence']}  [{pair['question']}]")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
