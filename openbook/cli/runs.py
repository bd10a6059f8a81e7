"""`openbook runs`: training runs."""

from __future__ import annotations

from typing import Any

import click

from openbook.cli import context, display
from openbook.cli.options import JSON
from openbook.runs import REPORT, RunSummary, find_run, numbers_of
from openbook.runs import list_runs as runs_in


@click.group()
def runs() -> None:
    """List and show training runs."""


@runs.command("list")
@JSON
def list_runs(as_json: bool) -> None:
    """Show every run: its progress and its result."""
    found = runs_in(context.read_settings().runs_dir)
    value = {
        "runs": [_summary(run) for run in found if not isinstance(run, str)],
        "damaged": [run for run in found if isinstance(run, str)],
    }
    lines = [run if isinstance(run, str) else f"{run.name:<28} {_progress(run)}" for run in found]
    display.show(as_json, value, display.say_each, lines or ["No run yet. Train one: openbook train RECIPE"])


@runs.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """Show the numbers of the run NAME, and some answers."""
    run = find_run(context.read_settings().runs_dir, name)
    value = {**_summary(run), "evaluations": run.evaluations, "samples": run.samples}
    display.show(as_json, value, _print_run, run)


def _print_run(run: RunSummary) -> None:
    display.say(f"{run.name}: {_progress(run)}")
    for evaluation in run.evaluations:
        numbers = "  ".join(f"{key} {value:.3f}" for key, value in sorted(numbers_of(evaluation).items()))
        display.say(f"step {evaluation['step']:>6}  {numbers}", indent=2)
    for sample in run.samples:
        display.say(str(sample["question"]).replace("\n", " "))
        answers = f"before {sample['answer']!r}; after {sample.get('after', '')!r}"
        display.say(f"expected {sample['expected']!r}; {answers}", indent=2)
    display.say(f"recipe {run.recipe_digest}")
    if (run.path / REPORT).is_file():
        display.say(f"report {run.path / REPORT}")


def _summary(run: RunSummary) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "recipe": dict(run.recipe),
        "recipe_digest": run.recipe_digest,
        "steps_done": run.steps[-1]["step"] if run.steps else 0,
        "steps": run.steps[-1]["steps"] if run.steps else None,
        "best": dict(run.result["numbers"])
        if run.result
        else numbers_of(run.evaluations[-1])
        if run.evaluations
        else {},
        "result": dict(run.result) if run.result else None,
    }


def _progress(run: RunSummary) -> str:
    if run.result:
        missed = f"; short of its target: {'; '.join(run.result['missed'])}" if run.result["missed"] else ""
        return f"done, model {run.result['model'][:12]}{missed}"
    if not run.steps:
        return "begun"
    last = run.steps[-1]
    return f"step {last['step']} of {last['steps']}, loss {last['loss']:.3f}"
