"""`openbook train`: a new, immutable model from a recipe, in a process of its own. `openbook runs`: what became of it."""

from __future__ import annotations

import glob
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import tomllib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli import context, display
from openbook.cli.options import EXISTING, JSON, KB, PATH
from openbook.config import Place
from openbook.errors import ConfigError, TrainingError, extra_missing
from openbook.files import make_folder, replace_file, storage_errors
from openbook.records import sha256_hex
from openbook.runs import DOCUMENTS, METRICS, REPORT, RunSummary, find_run, flat, numbers_of
from openbook.runs import list_runs as runs_in

if TYPE_CHECKING:
    from openbook.config import Settings

_MAX_CHARS = 40  # of a value in a comparison
NEEDED = ("torch", "transformers", "peft", "safetensors", "pydantic", "gguf")


@click.command()
@click.argument("recipe", type=EXISTING)
@click.option("--run", type=PATH, help="The run's folder (default: in your home folder, by recipe).")
@click.option("--from-kb", is_flag=True, help="Also learn from the documents of your knowledge base.")
@KB
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto takes a GPU if there is one."
)
@click.option("--resume", is_flag=True, help="Continue the run in this folder where it stopped.")
@click.option("--dry-run", is_flag=True, help="Count tokens, measure a few steps, estimate time; write nothing.")
@JSON
def train(
    recipe: Path,
    run: Path | None,
    from_kb: bool,
    kb: Place | None,
    device: str,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the model that RECIPE describes, and store it.

    RECIPE is a TOML file. --kb implies --from-kb. The base is never changed: what comes out is a new model with its own
    digest and its lineage.
    """
    check_installed()
    settings = context.read_settings(kb=kb)
    # By name and content of the recipe file: another recipe is another run.
    own = f"{recipe.stem}-{sha256_hex(recipe.read_bytes())[:8]}"
    folder = run.absolute() if run else settings.runs_dir / own
    _fetch_base_model(settings, recipe)
    # -P: no module is taken from the folder that this is started in.
    command = [sys.executable, "-P", "-m", "openbook.training", str(recipe.absolute())]
    command += ["--store", str(settings.models_dir)]
    documents: Path | None = None
    if from_kb or kb:
        content, version = _documents(settings)
        if not run:  # another version is another run
            folder = folder.with_name(f"{folder.name}-{sha256_hex(version.encode())[:8]}")
        documents = folder / DOCUMENTS
        if dry_run:
            settings.runs_dir.mkdir(parents=True, exist_ok=True)
            scrap = tempfile.TemporaryDirectory(prefix=".dry-run-", dir=settings.runs_dir)  # where a purge finds it
            documents = Path(scrap.name) / DOCUMENTS
        elif (folder / METRICS).is_file() and not resume:
            raise TrainingError(
                f"{folder} already holds a run. Continue it with --resume, or choose another folder with --run."
            )
        elif resume and not run and not documents.is_file() and (begun := _begun_on_others(settings, own)):
            raise TrainingError(
                f"{folder} holds no run: the documents changed after the run began. To continue it with its own documents: --run {begun}"
            )
        with storage_errors(f"write to {folder}"):
            make_folder(documents.parent)
            if not (resume and documents.is_file()):  # a run that goes on keeps those that it began with
                replace_file(documents.with_suffix(".version"), version.encode())
                replace_file(documents, content)
            version = documents.with_suffix(".version").read_text(encoding="utf-8")
        command += ["--documents", str(documents), "--knowledge-base", version]
    command += ["--folder", str(folder), "--threads", str(settings.threads), "--device", device]
    command += [flag for flag, wanted in (("--resume", resume), ("--dry-run", dry_run), ("--json", as_json)) if wanted]
    with subprocess.Popen(command) as child:
        # Ctrl-C, or a plain `kill`, belongs to the child, which ends its step and writes a checkpoint first.
        stops = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(each, lambda *_: child.send_signal(signal.SIGINT)) for each in stops]
        try:
            code = child.wait()
        finally:
            for each, handler in zip(stops, before, strict=True):
                signal.signal(each, handler)
    if documents is not None and not code:  # a run that goes on needs them
        for path in (documents, documents.with_suffix(".version")):
            path.unlink(missing_ok=True)
    if code < 0:
        click.echo(f"Error: {ended_by(-code)}{'' if dry_run else ' Go on with --resume.'}", err=True)
    if code:
        raise click.exceptions.Exit(code if code > 0 else 128 - code)


def _begun_on_others(settings: Settings, name: str) -> Path | None:
    """The newest unfinished run of the recipe on another version of the documents."""
    found = settings.runs_dir.glob(f"{glob.escape(name)}-*/{DOCUMENTS}")
    return max((each.parent for each in found), key=lambda each: each.stat().st_mtime, default=None)


def ended_by(number: int) -> str:
    """Which signal ended a training process and, where the signal tells, what to do."""
    memory = (
        " If nobody killed it, it ran out of memory: lower loop.call_tokens in the recipe, or close other programs."
    )
    return f"The training process was ended by signal {number}.{memory if number == signal.SIGKILL else ''}"


def check_installed() -> None:
    """Raises ConfigError unless the packages of the extra `train` are there."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise extra_missing("Training", "train", missing[0])


def _fetch_base_model(settings: Settings, recipe: Path) -> None:
    """Pull the base that a recipe names, if only the catalogue has it. A recipe that is wrong is left for training to report."""
    from openbook.models import CATALOGUE

    try:
        base = tomllib.loads(recipe.read_text(encoding="utf-8-sig")).get("base")
    except (OSError, ValueError):
        return
    name = base.get("model") if isinstance(base, dict) else None
    if isinstance(name, str) and name in CATALOGUE:
        context.ready_model(settings, name)


def _documents(settings: Settings) -> tuple[bytes, str]:
    """The texts of the newest version, each once, as JSON Lines; and which version that is. Labelled ones stay out."""
    from openbook.knowledge.scope import UNLABELLED

    with closing(context.open_base(settings)) as base, base.snapshot():
        texts = {base.text(path): path for path in reversed(base.documents(UNLABELLED))}
        found = f"{base.id}@{base.version}"
    lines = [
        json.dumps({"title": path, "text": text}, ensure_ascii=False) + "\n"
        for text, path in texts.items()
        if text and text.strip()
    ]
    if not lines:
        raise ConfigError(f"The knowledge base {settings.kb_place} holds no text that may be learned.")
    return "".join(sorted(lines)).encode(), found


# --- runs -------------------------------------------------------------------------------------------------------------


@click.group()
def runs() -> None:
    """List, show and compare training runs."""


@runs.command("list")
@JSON
def list_runs(as_json: bool) -> None:
    """Show every run: its progress and its result."""
    found = runs_in(context.read_settings().runs_dir)
    value = {
        "runs": [_summary(run) for run in found if not isinstance(run, str)],
        "damaged": [run for run in found if isinstance(run, str)],
    }
    display.show(as_json, value, _print_runs, found)


def _print_runs(found: list[RunSummary | str]) -> None:
    for run in found:
        display.say(run if isinstance(run, str) else f"{run.name:<28} {_progress(run)}")
    if not found:
        display.say("No run yet. Train one: openbook train RECIPE")


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


@runs.command()
@click.argument("names", nargs=-1, required=True)
@JSON
def compare(names: tuple[str, ...], as_json: bool) -> None:
    """Show where runs differ, in their recipes and newest numbers."""
    if len(names) < 2:
        raise ConfigError("There is only one run to compare. Give two or more.")
    found = [find_run(context.read_settings().runs_dir, name) for name in names]
    recipe = _side_by_side([flat(run.recipe) for run in found])
    differing = {key: values for key, values in recipe.items() if len(set(map(str, values))) > 1}
    numbers = _side_by_side([_latest(run) for run in found])
    shown = [run.name for run in found]
    value = {"runs": shown, "recipe": differing, "numbers": numbers}
    display.show(as_json, value, _print_comparison, shown, differing, numbers)


def _side_by_side(each: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """By key the values of all, None where one has none."""
    return {key: [values.get(key) for values in each] for key in sorted({key for values in each for key in values})}


def _print_comparison(names: list[str], recipe: dict[str, list[Any]], numbers: dict[str, list[Any]]) -> None:
    rounded = {key: ["-" if x is None else f"{x:.3f}" for x in values] for key, values in numbers.items()}
    table = [["", *names], *([key, *map(_cut, values)] for key, values in {**recipe, **rounded}.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        display.say("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _cut(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MAX_CHARS else text[: _MAX_CHARS - 1] + "…"


def _summary(run: RunSummary) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "recipe": dict(run.recipe),
        "recipe_digest": run.recipe_digest,
        "steps_done": run.steps[-1]["step"] if run.steps else 0,
        "steps": run.steps[-1]["steps"] if run.steps else None,
        "best": _latest(run),
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


def _latest(run: RunSummary) -> dict[str, float]:
    """The numbers of the finished model; until there is one, those of the last evaluation."""
    if run.result:
        return dict(run.result["numbers"])
    return numbers_of(run.evaluations[-1]) if run.evaluations else {}
