"""`openbook runs`: the training runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from openbook.cli import context, display
from openbook.cli.options import JSON

if TYPE_CHECKING:
    from openbook.runs import RunSummary


@click.group()
def runs() -> None:
    """List, show and compare training runs."""


def _find(names: tuple[str, ...]) -> list[RunSummary]:
    from openbook.runs import find_run

    return [find_run(context.settings().runs_dir, name) for name in names]


@runs.command("list")
@JSON
def list_runs(as_json: bool) -> None:
    """Show every run: its progress and its result."""
    from openbook.runs import list_runs

    found = list_runs(context.settings().runs_dir)
    if as_json:
        whole = [_summary(run) for run in found if not isinstance(run, str)]
        display.print_json({"runs": whole, "damaged": [run for run in found if isinstance(run, str)]})
        return
    if not found:
        display.say("No run yet. Train one: openbook train RECIPE")
    for run in found:
        display.say(run if isinstance(run, str) else f"{run.name:<28} {_progress(run)}")


@runs.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """Show the run NAME: its numbers, evaluation by evaluation, and answers before and after."""
    from openbook.runs import REPORT

    (run,) = _find((name,))
    if as_json:
        display.print_json({**_summary(run), "evaluations": run.evaluations, "samples": run.samples})
        return
    display.say(f"{run.name}: {_progress(run)}")
    for evaluation in run.evaluations:
        numbers = "  ".join(f"{key} {value:.3f}" for key, value in sorted(_numbers(evaluation).items()))
        display.say(f"step {evaluation['step']:>6}  {numbers}", indent=2)
    for sample in run.samples:
        display.say(str(sample["question"]).replace("\n", " "))
        answers = f"before {sample['answer']!r}; after {sample.get('after', '')!r}"
        display.say(f"expected {sample['expected']!r}; {answers}", indent=2)
    display.say(f"recipe {run.recipe_digest}")
    if (run.path / REPORT).is_file():
        display.say(f"report {run.path / REPORT}")


@runs.command()
@click.argument("names", nargs=-1, required=True)
@JSON
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Show where the recipes of two or more runs differ, and the best numbers of each."""
    from openbook.runs import flat

    found = _find(names)
    recipes, best = [flat(run.recipe) for run in found], [_best(run) for run in found]
    keys = sorted({key for each in recipes for key in each})
    recipe = {key: [each.get(key) for each in recipes] for key in keys}
    differing = {key: values for key, values in recipe.items() if len(set(map(str, values))) > 1}
    numbers = {key: [each.get(key) for each in best] for key in sorted({key for each in best for key in each})}
    if as_json:
        display.print_json({"runs": [run.name for run in found], "recipe": differing, "numbers": numbers})
        return
    rounded = {key: ["-" if x is None else f"{x:.3f}" for x in values] for key, values in numbers.items()}
    width = max(len(run.name) for run in found) + 2
    rows: dict[str, list[Any]] = {"": [run.name for run in found], **differing, **rounded}
    for key, values in rows.items():
        display.say(f"{key:<28}" + "".join(f"{value!s:<{width}}" for value in values))


def _summary(run: RunSummary) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "recipe": dict(run.recipe),
        "recipe_digest": run.recipe_digest,
        "steps_done": run.steps[-1]["step"] if run.steps else 0,
        "steps": run.steps[-1]["steps"] if run.steps else None,
        "best": _best(run),
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


def _numbers(evaluation: Any) -> dict[str, float]:
    return {key: value for key, value in evaluation.items() if key not in ("kind", "step")}


def _best(run: RunSummary) -> dict[str, float]:
    """The numbers of the model, or while there is none of the last evaluation."""
    if run.result:
        return dict(run.result["numbers"])
    return _numbers(run.evaluations[-1]) if run.evaluations else {}
