"""`openbook runs`: the training runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from openbook.runs import RunSummary


@click.group()
def runs() -> None:
    """List, show and compare training runs."""


@runs.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_runs(as_json: bool) -> None:
    """Show every run: its progress and its result."""
    from openbook import runs as files
    from openbook.cli import display, session

    found = files.list_runs(session.settings().runs_dir)
    if as_json:
        whole = [_summary(run) for run in found if not isinstance(run, str)]
        display.print_json({"runs": whole, "damaged": [run for run in found if isinstance(run, str)]})
        return
    out = display.console()
    if not found:
        display.say(out, "No run yet. Train one: openbook train RECIPE")
    for run in found:
        display.say(out, run if isinstance(run, str) else f"{run.name:<28} {_progress(run)}")


@runs.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(name: str, as_json: bool) -> None:
    """Show the run NAME: its numbers, evaluation by evaluation, and answers before and after."""
    from openbook import runs as files
    from openbook.cli import display, session

    run = files.find_run(session.settings().runs_dir, name)
    if as_json:
        display.print_json(_summary(run) | {"evaluations": list(run.evaluations), "samples": list(run.samples)})
        return
    out = display.console()
    display.say(out, f"{run.name}: {_progress(run)}")
    for evaluation in run.evaluations:
        numbers = "  ".join(f"{key} {value:.3f}" for key, value in sorted(_numbers(evaluation).items()))
        display.say(out, f"step {evaluation['step']:>6}  {numbers}", indent=2)
    for sample in run.samples:
        display.say(out, str(sample["question"]).replace("\n", " "))
        display.say(
            out,
            f"expected {sample['expected']!r}; before {sample['answer']!r}; after {sample.get('after', '')!r}",
            indent=2,
        )
    display.say(out, f"recipe {run.recipe_digest}")
    if (run.path / files.REPORT).is_file():
        display.say(out, f"report {run.path / files.REPORT}")


@runs.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Show where the recipes of two or more runs differ, and the best numbers of each."""
    from openbook import runs as files
    from openbook.cli import display, session

    folder = session.settings().runs_dir
    found = [files.find_run(folder, name) for name in names]
    flat = [files.flat(run.recipe) for run in found]
    keys = sorted({key for each in flat for key in each})
    differing = {
        key: [each.get(key) for each in flat] for key in keys if len({str(each.get(key)) for each in flat}) > 1
    }
    numbers = sorted({key for run in found for key in _best(run)})
    measured = {key: [_best(run).get(key) for run in found] for key in numbers}
    if as_json:
        display.print_json({"runs": [run.name for run in found], "recipe": differing, "numbers": measured})
        return
    out = display.console()
    width = max(len(run.name) for run in found) + 2
    display.say(out, f"{'':<28}" + "".join(f"{run.name:<{width}}" for run in found))
    for key, values in differing.items():
        display.say(out, f"{key:<28}" + "".join(f"{value!s:<{width}}" for value in values))
    for key, figures in measured.items():
        display.say(out, f"{key:<28}" + "".join(f"{'-' if x is None else f'{x:.3f}':<{width}}" for x in figures))


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
