"""How do OpenBook, txtai and LlamaIndex compare as hybrid (dense and BM25) indexes that are kept on disk?

    python -m benchmarks.contenders DATA --python-contenders PYTHON --model FOLDER [--share 0.05] [--rounds 2]

DATA holds kb_django_docs, kb_peps, scifact and squad. PYTHON is that of an environment with txtai[ann], chonkie,
llama-index-core, llama-index-retrievers-bm25, llama-index-embeddings-huggingface and OpenBook's own dependencies; what
is not installed is left out. FOLDER is all-MiniLM-L6-v2 in float32 with its tokenizer.

  ingest     a share of the documents, from files to searchable and saved; then, each in a fresh process that opens what
             was saved, a run with nothing changed and a run after one file has changed, until its new text is found
  scifact    nDCG@10 of 300 claims over 5,183 abstracts, each one passage of title and text
  squad      nDCG@10 of the questions of the development articles over their paragraphs, each one passage

Each contender runs with its documented embedding (`own`: torch, float32) and with OpenBook's embedder plugged in, which
leaves only what is around the embedder to differ. Every run is a process of its own, contenders alternate, and the share
of the machine's time that other programs took meanwhile is shown: a run next to them says little. Ratios are taken
within a round. Intervals are 95 % bootstrap intervals over the questions. With --lines FILE every run is kept in FILE,
runs that are there already are not made again, and the tables are over all of them. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from benchmarks.contender_child import Job
from benchmarks.contender_data import CUTOFF, SETS, interval, ndcg, unpack

Line: TypeAlias = dict[str, Any]  # what a child printed, with `task`, `contender`, `embedder`, `set`, `round`
RESAMPLES = 10_000
INGESTED = (("openbook", "openbook"), *((c, e) for e in ("own", "openbook") for c in ("txtai", "LlamaIndex")))
RANKED = (
    *INGESTED,
    ("openbook, 450 characters", "openbook"),
    ("LlamaIndex, 100 candidates", "openbook"),
)
MODULES = {"openbook": "openbook", "txtai": "txtai", "LlamaIndex": "llama_index.core"}


# --- running ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    data: Path
    work: Path
    model: str
    pythons: dict[str, str]  # first word of the contender -> interpreter
    share: float
    prefix: tuple[str, ...]

    def installed(self, contender: str) -> bool:
        module = MODULES[_family(contender)]
        command = [
            self.pythons[_family(contender)],
            "-c",
            f"import importlib.util as u; u.find_spec({module!r}).loader",
        ]
        return subprocess.run(command, capture_output=True, env=_environment(), check=False).returncode == 0


def _family(contender: str) -> str:
    return contender.partition(",")[0]


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def run(setup: Setup, job: Job) -> Line | None:
    """One child, with the peak of its whole tree of processes and what other programs took of the machine meanwhile."""
    command = [*setup.prefix, setup.pythons[_family(job.contender)], "-m", "benchmarks.contender_child"]
    child = subprocess.Popen(
        [*command, json.dumps(dataclasses.asdict(job))],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = _Watch(child.pid)
    try:
        output, errors = child.communicate()
    finally:
        watch.stop()
    if child.returncode:
        print(f"{job.contender} ({job.task}) failed: {errors.strip().splitlines()[-1:]}", flush=True)
        return None
    value: Line = json.loads(output.strip().splitlines()[-1])
    return {**value, "peak_mb": max(value["peak_mb"], watch.peak_mb), "elsewhere": watch.elsewhere()}


class _Watch:
    """Looks at a process and all below it every 0.3 s, from when it begins to work: waiting for a lock is not counted."""

    def __init__(self, process: int) -> None:
        self.peak_mb = 0.0
        self._process, self._stopped = process, threading.Event()
        self._first: tuple[float, float, float] | None = None
        self._last = (0.0, 0.0, 0.0)
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        ended: dict[int, float] = {}
        while not self._stopped.wait(0.3):
            tree = _tree(self._process)
            ended |= {process: cpu for process, (cpu, _) in tree.items()}
            mine = sum(ended.values())
            self.peak_mb = max(self.peak_mb, sum(mb for _, mb in tree.values()))
            if mine > 0.1:
                self._last = (time.perf_counter(), _machine_cpu_s(), mine)
                self._first = self._first or self._last

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def elsewhere(self) -> float:
        """Share of the machine's processor time, 0 to 1."""
        if self._first is None or self._last[0] == self._first[0]:
            return 0.0
        seconds, machine, mine = (b - a for a, b in zip(self._first, self._last, strict=True))
        return max(0.0, (machine - mine) / (seconds * (os.cpu_count() or 1)))


def _machine_cpu_s() -> float:
    spent = psutil.cpu_times()
    return float(spent.user + spent.nice + spent.system)


def _tree(root: int) -> dict[int, tuple[float, float]]:
    """(CPU seconds, resident MB) of each process at and below `root`."""
    found = {}
    with suppress(psutil.NoSuchProcess):  # it has just ended
        for process in [top := psutil.Process(root), *top.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess), process.oneshot():
                spent = process.cpu_times()
                found[process.pid] = spent.user + spent.system, process.memory_info().rss / 1e6
    return found


def ingest_runs(setup: Setup, contender: str, embedder: str, round_: int) -> Iterator[Line]:
    work = Path(tempfile.mkdtemp(dir=setup.work))
    documents = unpack(setup.data, work / "documents", setup.share)
    for task in ("ingest", "update"):
        job = Job(task, contender, embedder, str(work / "store"), documents=str(work / "documents"), model=setup.model)
        if (result := run(setup, job)) is None:
            break
        disk = sum(path.stat().st_size for path in (work / "store").rglob("*") if path.is_file()) / 1e6
        yield result | {"task": task, "round": round_, "documents": documents, "disk_mb": disk}
    shutil.rmtree(work)


def rank_runs(setup: Setup, contender: str, embedder: str, name: str) -> Iterator[Line]:
    work = Path(tempfile.mkdtemp(dir=setup.work))
    asked = SETS[name](setup.data)
    path = work / "questions.json"
    path.write_text(json.dumps({"units": asked.units, "questions": asked.questions}), encoding="utf-8")
    job = Job("rank", contender, embedder, str(work / "store"), questions=str(path), model=setup.model, limit=CUTOFF)
    if (result := run(setup, job)) is not None:
        rankings = result.pop("rankings")
        scores = [ndcg(rankings[key], asked.relevant[key]) for key in sorted(asked.questions)]
        yield result | {"task": "rank", "set": name, "round": 1, "units": len(asked.units), "scores": scores}
    shutil.rmtree(work)


# --- numbers ----------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Median, with the least and the most when there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    ends = f" ({min(known):,.{digits}f} to {max(known):,.{digits}f})" if len(known) > 1 else ""
    return f"{statistics.median(known):,.{digits}f}{ends}"


def table(header: str, rows: Sequence[Sequence[str]]) -> None:
    columns = header.split(" | ")
    print(f"\n| {header} |\n|---|---|{'---:|' * (len(columns) - 2)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def _pairs(lines: Sequence[Line]) -> list[tuple[str, str]]:
    known = {(line["contender"], line["embedder"]) for line in lines}
    return [pair for pair in RANKED if pair in known]


def _of(lines: Sequence[Line], pair: tuple[str, str]) -> list[Line]:
    return [line for line in lines if (line["contender"], line["embedder"]) == pair]


def _ratios(lines: Sequence[Line], pair: tuple[str, str], value: Callable[[Line], float]) -> list[float]:
    """OpenBook's value by the contender's, round by round."""
    ours = {line["round"]: value(line) for line in _of(lines, INGESTED[0])}
    return [ours[line["round"]] / value(line) for line in _of(lines, pair) if line["round"] in ours]


def show_ingest(lines: Sequence[Line]) -> None:
    def row(pair: tuple[str, str]) -> list[str]:
        runs = _of(lines, pair)
        each = {
            "documents/s": spread([r["documents"] / r["seconds"] for r in runs], 2),
            "passages/s": spread([r["passages"] / r["seconds"] for r in runs], 0),
            "ratio": spread(_ratios(lines, pair, lambda r: r["documents"] / r["seconds"]), 2),
            "passages": f"{runs[0]['passages']:,}",
            "around": spread([None if r["embedding_s"] is None else r["seconds"] - r["embedding_s"] for r in runs]),
            "start": spread([r["start_s"] for r in runs]),
            "peak": spread([r["peak_mb"] for r in runs], 0),
            "disk": f"{runs[0]['disk_mb']:.1f}",
            "elsewhere": spread([100 * r["elsewhere"] for r in runs], 0),
        }
        return [*pair, *each.values()]

    print(f"\nIngest of {lines[0]['documents']} documents")
    table(
        "contender | embedder | documents/s | passages/s | OpenBook is faster by | passages | s outside the embedder | "
        "start, s | peak MB | MB on disk | others' CPU, %",
        [row(pair) for pair in _pairs(lines)],
    )


def show_update(lines: Sequence[Line]) -> None:
    def row(pair: tuple[str, str]) -> list[str]:
        runs = _of(lines, pair)
        names = ("open_s", "unchanged_s", "update_s")
        return [*pair, *(spread([r[name] for r in runs], 2) for name in names), spread([r["peak_mb"] for r in runs], 0)]

    print(f"\nIn a fresh process, of {lines[0]['documents']} documents (- where all is to be ingested again)")
    table(
        "contender | embedder | open, s | nothing changed, s | one file changed, until found, s | peak MB",
        [row(pair) for pair in _pairs(lines)],
    )


def show_ranks(name: str, lines: Sequence[Line]) -> None:
    ours = _of(lines, INGESTED[0])

    def row(pair: tuple[str, str]) -> list[str]:
        line = _of(lines, pair)[-1]
        mean, low, high = interval(line["scores"], RESAMPLES)
        difference = "-"
        if ours and pair != INGESTED[0]:
            d = interval([b - a for a, b in zip(ours[-1]["scores"], line["scores"], strict=True)], RESAMPLES)
            difference = f"{d[0]:+.3f} ({d[1]:+.3f} to {d[2]:+.3f})"
        shown = f"{mean:.3f} ({low:.3f} to {high:.3f})"
        return [*pair, shown, difference, f"{line['index_s']:.0f}", f"{line['search_ms']:.0f}"]

    print(f"\n{name}: {len(lines[0]['scores'])} questions, {lines[0]['units']:,} units")
    table(
        "contender | embedder | nDCG@10 | less OpenBook's | indexing, s | one search, ms",
        [row(p) for p in _pairs(lines)],
    )


def show(lines: Sequence[Line]) -> None:
    versions = {name: version for line in lines for name, version in line["versions"].items()}
    print("\n" + ", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    for task, shows in (("ingest", show_ingest), ("update", show_update)):
        if chosen := [line for line in lines if line["task"] == task]:
            shows(chosen)
    for name in SETS:
        if chosen := [line for line in lines if line.get("set") == name]:
            show_ranks(name, chosen)


# --- the command ------------------------------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--python-contenders", default=sys.executable, help="interpreter that has the others")
    parser.add_argument("--model", required=True, help="folder of the float32 model")
    parser.add_argument("--share", type=float, default=0.05, help="of the documents")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", choices=["ingest", *SETS], default=["ingest", *SETS])
    parser.add_argument("--contenders", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--embedders", nargs="+", choices=["own", "openbook"], default=["own", "openbook"])
    parser.add_argument("--lines", type=Path, help="file to keep every run in")
    parser.add_argument("--prefix", default="", help="words before each child's command, such as: nice")
    return parser.parse_args()


def wanted(arguments: argparse.Namespace, setup: Setup) -> Iterator[tuple[str, str, str, int]]:
    """(task, contender, embedder, round), contenders alternating."""
    chosen = []
    for name in arguments.contenders:
        if setup.installed(name):
            chosen.append(name)
        else:
            print(f"{name} is not installed for {setup.pythons[name]}: left out.", flush=True)
    for task in arguments.tasks:
        pairs = INGESTED if task == "ingest" else RANKED
        for round_ in range(1, 1 + (arguments.rounds if task == "ingest" else 1)):
            for contender, embedder in pairs:
                if _family(contender) in chosen and embedder in arguments.embedders:
                    yield task, contender, embedder, round_


def main() -> None:
    arguments = parsed()
    lines: list[Line] = []
    if arguments.lines and arguments.lines.exists():
        lines = [json.loads(text) for text in arguments.lines.read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        others = dict.fromkeys(MODULES, arguments.python_contenders)
        pythons = others | {"openbook": sys.executable}
        prefix = tuple(arguments.prefix.split())
        model = str(Path(arguments.model).absolute())
        setup = Setup(arguments.data, Path(folder), model, pythons, arguments.share, prefix)
        known = {_key(line) for line in lines}
        for task, contender, embedder, round_ in wanted(arguments, setup):
            if (task, contender, embedder, round_) in known:
                continue
            found = (
                ingest_runs(setup, contender, embedder, round_)
                if task == "ingest"
                else rank_runs(setup, contender, embedder, task)
            )
            for result in found:
                lines.append({"contender": contender, "embedder": embedder, **result})
                _keep(arguments.lines, lines[-1])
    show(lines)
    print("\n" + json.dumps([{k: v for k, v in line.items() if k != "scores"} for line in lines]))


def _key(line: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return str(line.get("set", line["task"])), str(line["contender"]), str(line["embedder"]), int(line["round"])


def _keep(path: Path | None, line: Line) -> None:
    shown = {k: v for k, v in line.items() if k not in ("scores", "versions")}
    print(json.dumps(shown), flush=True)
    if path:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
