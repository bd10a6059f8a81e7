"""`openbook train`: a new, immutable model from a recipe. The work is done in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.cli import context
from openbook.cli.options import JSON, KB, PATH
from openbook.errors import ConfigError, TrainingError
from openbook.files import make_folder, replace_file, storage_errors
from openbook.records import sha256_hex
from openbook.runs import DOCUMENTS, METRICS

if TYPE_CHECKING:
    from openbook.config import Settings

NEEDED = ("torch", "transformers", "peft", "safetensors", "pydantic", "gguf")


@click.command()
@click.argument("recipe", type=PATH)
@click.option("--run", type=PATH, help="The run's folder (default: in your home folder, by recipe).")
@click.option("--from-kb", is_flag=True, help="Also learn from the documents of your knowledge base.")
@KB
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="auto: a GPU if there is one."
)
@click.option("--resume", is_flag=True, help="Continue the run in this folder where it stopped.")
@click.option("--dry-run", is_flag=True, help="Count tokens, measure a few steps, estimate time; write nothing.")
@JSON
def train(
    recipe: Path,
    run: Path | None,
    from_kb: bool,
    kb: Path | None,
    device: str,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the model that RECIPE (a TOML file) describes, and store it. --kb implies --from-kb.

    The base is never changed: what comes out is a new model with its own digest and its lineage.
    """
    from openbook.knowledge.discovery import check_exists

    check_exists(recipe)
    check_installed()
    current = context.settings(kb=kb)
    # By name and content of the recipe file: another recipe is another run.
    folder = run.absolute() if run else current.runs_dir / f"{recipe.stem}-{sha256_hex(recipe.read_bytes())[:8]}"
    _fetch_base(current, recipe)
    command = [sys.executable, "-m", "openbook.training", str(recipe), "--store", str(current.models_dir)]
    documents: Path | None = None
    if from_kb or kb:
        content, version = _documents(current)
        if not run:  # another version is another run
            folder = folder.with_name(f"{folder.name}-{sha256_hex(version.encode())[:8]}")
        documents = folder / DOCUMENTS
        if dry_run:
            current.runs_dir.mkdir(parents=True, exist_ok=True)
            scrap = tempfile.TemporaryDirectory(prefix=".dry-run-", dir=current.runs_dir)  # where a purge finds it
            documents = Path(scrap.name) / DOCUMENTS
        elif (folder / METRICS).is_file() and not resume:
            raise TrainingError(
                f"{folder} already holds a run. Continue it with --resume, or choose another folder with --run."
            )
        with storage_errors(f"write to {folder}"):
            make_folder(documents.parent)
            if not documents.is_file():  # of a run that goes on: what it began with
                replace_file(documents.with_suffix(".version"), version.encode())
                replace_file(documents, content)
            version = documents.with_suffix(".version").read_text(encoding="utf-8")
        command += ["--documents", str(documents), "--knowledge-base", version]
    command += ["--folder", str(folder), "--threads", str(current.threads), "--device", device]
    command += [flag for flag, wanted in (("--resume", resume), ("--dry-run", dry_run), ("--json", as_json)) if wanted]
    with subprocess.Popen(command) as child:
        # Ctrl-C belongs to the child, which ends its step and writes a checkpoint first.
        before = signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    if documents is not None and not code:  # a run that goes on needs them
        for path in (documents, documents.with_suffix(".version")):
            path.unlink(missing_ok=True)
    if code < 0:
        click.echo(f"Error: {ended_by(-code)} Go on with --resume.", err=True)
    if code:
        raise click.exceptions.Exit(code if code > 0 else 128 - code)


def ended_by(number: int) -> str:
    """What became of a training process, and what to do, when the signal says more than that."""
    said = f"The training process was ended by signal {number}."
    if number != signal.SIGKILL:
        return said
    return f"{said} If nobody killed it, it ran out of memory: lower loop.call_tokens in the recipe, or close other programs."


def check_installed() -> None:
    """Raises ConfigError unless the packages of the extra `train` are there."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"This needs packages that are not installed ({', '.join(missing)}). Install them with: "
            f"{sys.executable} -m pip install 'openbook[train]'"
        )


def _fetch_base(current: Settings, recipe: Path) -> None:
    """Pull the base that a recipe names, when only the catalogue has it. What is wrong with a recipe, training says."""
    from openbook.models import CATALOGUE

    try:
        base = tomllib.loads(recipe.read_text(encoding="utf-8")).get("base")
    except (OSError, ValueError):
        return
    name = base.get("model") if isinstance(base, dict) else None
    if isinstance(name, str) and name in CATALOGUE:
        context.ready_model(current, name)


def _documents(current: Settings) -> tuple[bytes, str]:
    """The texts of the newest version, each once, as JSON Lines; and which version that is. Labelled ones stay out."""
    from openbook.knowledge.scope import EVERYTHING

    base = context.open_base(current)
    texts = {base.text(path): path for path in reversed(base.documents(EVERYTHING))}
    lines = [
        json.dumps({"title": path, "text": text}, ensure_ascii=False) + "\n"
        for text, path in texts.items()
        if text and text.strip()
    ]
    found = f"{base.id}@{base.version}"
    base.close()
    if not lines:
        raise ConfigError(f"The knowledge base {current.default_kb} holds no text that may be learned.")
    return "".join(sorted(lines)).encode(), found
