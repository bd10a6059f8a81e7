"""`openbook train`: a new, immutable model from a recipe, trained in a separate process. `openbook runs`: what was trained."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import tomllib
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openbook.cli import context, display
from openbook.cli.options import EXISTING, JSON, KB, PATH
from openbook.core.config import Place
from openbook.core.errors import ConfigError, TrainingError, extra_missing
from openbook.core.files import make_folder, replace_file, storage_errors
from openbook.core.records import canonical_json, sha256_hex
from openbook.models.runs import DOCUMENTS, METRICS, REPORT, RunRequest, RunSummary, find_run, numbers_of
from openbook.models.runs import list_runs as runs_in

if TYPE_CHECKING:
    from openbook.core.config import Settings

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

    RECIPE is a TOML file. --kb implies --from-kb. The base never changes: the result is a new model with its own
    digest and lineage.
    """
    check_installed()
    settings = context.read_settings(kb=kb)
    _fetch_base_model(settings, recipe)
    learned = _documents(settings) if from_kb or kb else None
    # Another recipe or knowledge base is another run.
    name = f"{recipe.stem}-{sha256_hex(recipe.read_bytes())[:8]}" + (f"-{learned[1][:8]}" if learned else "")
    folder = run.absolute() if run else settings.runs_dir / name
    request = RunRequest(str(recipe.absolute()), str(settings.models_dir), str(folder), settings.threads, device)
    request = replace(request, resume=resume, dry_run=dry_run)
    with ExitStack() as scrap:
        if learned:
            if (folder / METRICS).is_file() and not resume and not dry_run:
                raise TrainingError(
                    f"{folder} already holds a run. Continue it with --resume, or choose another folder with --run."
                )
            with storage_errors(f"write to {folder}"):
                place = folder
                if dry_run:  # where a purge finds it
                    make_folder(settings.runs_dir)
                    temporary = tempfile.TemporaryDirectory(prefix=".dry-run-", dir=settings.runs_dir)
                    place = Path(scrap.enter_context(temporary))
                documents, version = place / DOCUMENTS, (place / DOCUMENTS).with_suffix(".version")
                if not (resume and documents.is_file()):  # a resumed run keeps its documents
                    replace_file(version, learned[1].encode())
                    replace_file(documents, learned[0])
                request = replace(request, documents=str(documents), knowledge_base=version.read_text("utf-8"))
        found = _run_apart(request)
        if learned and not dry_run:
            for path in (documents, version):
                path.unlink(missing_ok=True)
    display.show(as_json, found, _print_estimate if dry_run else _print_result, found)


def _run_apart(request: RunRequest) -> dict[str, Any]:
    """The result of a process with PyTorch. Raises Exit after it has reported its failure."""
    # -P: import no modules from the working folder.
    command = [sys.executable, "-P", "-m", "openbook.training", canonical_json(asdict(request)).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        # The child handles Ctrl-C and `kill`: it ends its step and writes a checkpoint first.
        stops = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(each, lambda *_: child.send_signal(signal.SIGINT)) for each in stops]
        try:
            output, _ = child.communicate()
        finally:
            for each, handler in zip(stops, before, strict=True):
                signal.signal(each, handler)
    code = child.returncode
    if code < 0:
        memory = " If you did not stop it, it ran out of memory: lower loop.call_tokens in the recipe, or close other programs."
        said = f"Error: The training process was ended by signal {-code}.{memory if -code == signal.SIGKILL else ''}"
        click.echo(f"{said}{'' if request.dry_run else ' Continue with --resume.'}", err=True)
    if code:
        raise click.exceptions.Exit(code if code > 0 else 128 - code)
    found: dict[str, Any] = json.loads(output)
    return found


def _print_result(found: dict[str, Any]) -> None:
    display.say(f"{found['name']} is here: {found['model']}")
    display.say(f"Report: {Path(found['run']) / REPORT}")
    for sentence in found["missed"]:
        display.say(f"Short of its target: {sentence}.")
    promote = f"openbook models promote {found['name'].removesuffix('-candidate')} {found['model'][:12]}"
    display.say(f"Try it: openbook ask --model {found['name']} ...  Give it a name: {promote}")


def _print_estimate(found: dict[str, float]) -> None:
    rows = {
        "examples": f"{found['examples']:,.0f}, {found['epoch_tokens']:,.0f} tokens in an epoch",
        "learned parameters": f"{found['learned_parameters']:,.0f}",
        "steps": f"{found['steps']:,.0f}",
        "speed": f"{found['tokens_per_second']:,.0f} tokens a second",
        "memory": f"{found['memory_mib']:,.0f} MiB",
        "time, estimated": f"{found['estimated_seconds'] / 60:,.1f} minutes, without evaluations",
    }
    display.say_each(display.table(rows.items()))


def check_installed() -> None:
    """Raise ConfigError without the extra `train`."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise extra_missing("Training", "train", missing[0])


def _fetch_base_model(settings: Settings, recipe: Path) -> None:
    """Pull the recipe's base if only the catalogue has it. Training reports invalid recipes."""
    from openbook.models import CATALOGUE

    try:
        base = tomllib.loads(recipe.read_text(encoding="utf-8-sig")).get("base")
    except (OSError, ValueError):
        return
    name = base.get("model") if isinstance(base, dict) else None
    if isinstance(name, str) and name in CATALOGUE:
        context.ready_model(settings, name)


def _documents(settings: Settings) -> tuple[bytes, str]:
    """(unlabelled texts of the newest version, each once, as JSON Lines; the version)."""
    from openbook.knowledge.index.scope import UNLABELLED

    with closing(context.library(settings).base) as base, base.snapshot():
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
    """List and show training runs."""


@runs.command("list")
@JSON
def list_runs(as_json: bool) -> None:
    """Show every run: its progress and its result."""
    found = runs_in(context.read_settings().runs_dir)
    value: dict[str, list[Any]] = {
        "runs": [_summary(run) for run in found if not isinstance(run, str)],
        "damaged": [run for run in found if isinstance(run, str)],
    }
    lines = display.table((run.name, _progress(run)) for run in found if not isinstance(run, str))
    lines += value["damaged"] if found else ["No run yet. Train one: openbook train RECIPE"]
    display.show(as_json, value, display.say_each, lines)


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
