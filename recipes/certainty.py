"""Fits how certain an answer is, from judged answers and what showed of them.

    python -m recipes.certainty [FILE.jsonl.gz ...] [--diagram FILE.png]

The files, `recipes/data/answers-*.jsonl.gz` by default, are what `recipes/answer_records.py` writes: for each answer the signals of
`openbook.answers.certainty`, whether it was right, and of what context or document it is. Answers about whole documents (`natural`) are right less
often than those about short texts with equal signals; the fit has an odds of its own for each, and what is written is that of whole
documents. Prints the area under the curve of each signal and of the fit, and how far the fit is from calibrated (the mean difference of ten
equal parts, weighted), parts of the contexts held out.
An answer is called supported from the least certainty on from which at least `SUPPORTED` of the held-out answers are right, also of those
about whole documents alone, and likely from that on from which at least `LIKELY` of the others are. Then the same of the answers in `REPORTING`,
to which nothing was fitted. Writes `openbook/data/certainty.json` and, with `--diagram`, the diagram of reliability.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import zlib
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openbook.answers.certainty import FITS, MEANING, Fit, Signals, certainty
from openbook.diagnosis.calibration import LIKELY, SUPPORTED, area, calibration_error, limit

DATA = Path(__file__).parent / "data"
REPORTING = DATA / "reporting-natural.jsonl.gz"
TEXT = ("backed", "asked")
SIGNALS = {"probed": (*TEXT, "stated", "least_logprob"), "other": TEXT}
PARTS, PENALTY, STEPS = 5, 1.0, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(DATA.glob("answers-*.jsonl.gz")))
    parser.add_argument("--diagram", type=Path)
    options = parser.parse_args()
    lines = [(file.name, line) for file in options.files for line in gzip.decompress(file.read_bytes()).splitlines()]
    rows = [json.loads(line) | {"file": name} for name, line in lines]
    right = np.array([row["right"] for row in rows])
    whole = np.array(["natural" in row["file"] for row in rows])
    part = np.array([zlib.crc32(str(row["context"]).encode()) % PARTS for row in rows])
    fits: dict[str, dict[str, Any]] = {}
    for name, signals in SIGNALS.items():
        x = np.column_stack([[[row[signal] for signal in signals] for row in rows], whole])
        likely = np.empty(len(rows))
        for number in range(PARTS):
            weights, bias = fitted(x[part != number], right[part != number])
            likely[part == number] = probability(x[part == number] @ weights + bias)
        weights, bias = fitted(x, right)
        bias += float(weights[-1])
        surest = limit_of(likely, right, whole, SUPPORTED)
        others = likely < surest
        limits = [surest, limit_of(likely[others], right[others], whole[others], LIKELY)]
        fits[name] = asdict(
            Fit(round(bias, 4), dict(zip(signals, weights[:-1].round(4).tolist(), strict=True)), *limits)
        )
        print(f"\n{name}: {len(rows)} answers, {right.sum()} right; area {area(likely, right):.3f}", end="")
        print(f", calibration error {calibration_error(likely, right):.3f}")
        for file in options.files:
            of = np.array([row["file"] == file.name for row in rows])
            print(f"  {file.name}: {of.sum()} answers, {right[of].sum()} right", end="")
            print(
                f", area {area(likely[of], right[of]):.3f}, calibration error {calibration_error(likely[of], right[of]):.3f}"
            )
        for i, signal in enumerate(signals):
            print(f"  {signal:<14} area {area(x[:, i], right):.3f}, weight {weights[i]:+.2f}")
        for word, low, high in (
            ("supported", limits[0], 2),
            ("likely", limits[1], limits[0]),
            ("check it", 0, limits[1]),
        ):
            called = (likely >= low) & (likely < high)
            print(f"  {word:<14} from {low:.3f}: {right[called].sum()} of {called.sum()} right, ", end="")
            print(f"of them about whole documents {right[called & whole].sum()} of {(called & whole).sum()}")
        if options.diagram and name == "probed":
            draw(likely, right, options.diagram)
    FITS.write_text(json.dumps(fits, indent=1) + "\n", encoding="utf-8")
    report([json.loads(line) for line in gzip.decompress(REPORTING.read_bytes()).splitlines()])


def report(rows: list[dict[str, Any]]) -> None:
    """How often each word was right, by the fit that was written."""
    told = [certainty(Signals(*(row[signal] for signal in SIGNALS["probed"]))) for row in rows]
    likely, right = np.array([sure for sure, _ in told]), np.array([row["right"] for row in rows])
    print(f"\n{REPORTING.name}: {len(rows)} answers, {right.sum()} right; area {area(likely, right):.3f}", end="")
    print(f", calibration error {calibration_error(likely, right):.3f}")
    for word in MEANING:
        if (called := np.array([each == word for _, each in told])).any():
            print(f"  {word:<14} {right[called].sum()} of {called.sum()} right")
    backed, falsely = (sum(row[key] for row in rows) for key in ("backed_sentences", "backed_falsely"))
    print(f"  of {backed} backed sentences {falsely} have a quote that says something else")


def probability(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def fitted(x: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Logistic regression by Newton's method, with a penalty on the squares of the weights of standardised signals: (weights, bias)."""
    middle, scale = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.column_stack([(x - middle) / scale, np.ones(len(x))])
    weights, penalty = np.zeros(z.shape[1]), np.diag([PENALTY] * x.shape[1] + [1e-8])
    for _ in range(STEPS):
        likely = probability(z @ weights)
        slope = z.T @ (likely - right) + penalty @ weights
        weights -= np.linalg.solve((z * (likely * (1 - likely))[:, None]).T @ z + penalty, slope)
    found = weights[:-1] / scale
    return found, float(weights[-1] - found @ middle)


def limit_of(likely: NDArray[np.float64], right: NDArray[np.bool_], whole: NDArray[np.bool_], share: float) -> float:
    """The least certainty from which on that share is right, of at least `FEWEST` answers and of those about `whole` documents; 1.01
    where there is none.
    """

    def holds(surer: NDArray[np.bool_]) -> bool:
        return right[surer].mean() >= share and (not (surer & whole).any() or right[surer & whole].mean() >= share)

    found = limit(likely, holds)
    return 1.01 if found is None else round(found, 3)


def draw(likely: NDArray[np.float64], right: NDArray[np.bool_], file: Path) -> None:
    import_module("matplotlib").use("Agg")
    figure = import_module("matplotlib.pyplot").figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for low, high in itertools.pairwise(np.linspace(0, 1, 11)):
        inside = (likely >= low) & (likely < high)
        if n := int(inside.sum()):
            share = right[inside].mean()
            spread = 1.96 * np.sqrt(share * (1 - share) / n + 0.25 / n**2)
            axes.errorbar(likely[inside].mean(), share, yerr=spread, fmt="o", color="#1f5fa8", capsize=3)
            axes.annotate(str(n), (likely[inside].mean(), share), textcoords="offset points", xytext=(6, 4))
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="certainty",
        ylabel="share of answers that are right",
        title="Certainty on answers held out",
    )
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
