"""`openbook train`: a new, immutable model from a recipe. The work is done in a process of its own."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.config import Settings

NEEDED = ("torch", "transformers", "peft", "safetensors", "pydantic", "gguf")


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--run", type=click.Path(path_type=Path), help="The run's folder (default: of your own, by the recipe).")
@click.option("--from-kb", is_flag=True, help="Learn also from the documents of your knowledge base.")
@click.option("--kb", type=click.Path(path_type=Path), help="The same with this knowledge base.")
@click.option("--resume", is_flag=True, help="Go on where the run in this folder stopped.")
@click.option("--dry-run", is_flag=True, help="Count tokens, measure a few steps, estimate time; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def train(
    recipe: Path, run: Path | None, from_kb: bool, kb: Path | None, resume: bool, dry_run: bool, as_json: bool
) -> None:
    """Train the model that RECIPE (a TOML file) describes, and store it.

    The base is never changed: what comes out is a new model with its own digest and its lineage.
    """
    from openbook.cli import session
    from openbook.knowledge.discovery import check_exists
    from openbook.models.durable import storage_errors

    check_exists(recipe)
    check_installed()
    current = session.settings(kb=kb)
    folder = run.absolute() if run else current.runs_dir / _default_run(recipe)
    session.ready_base(current, recipe)
    command = [sys.executable, "-m", "openbook.training", str(recipe), "--store", str(current.models_dir)]
    command += ["--folder", str(folder), "--threads", str(current.threads)]
    documents = folder / "knowledge-base.jsonl" if from_kb or kb else None
    if documents is not None:
        content, version = _documents(current)
        with storage_errors(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            documents.write_bytes(content)
        command += ["--documents", str(documents), "--knowledge-base", version]
    command += [flag for flag, wanted in (("--resume", resume), ("--dry-run", dry_run), ("--json", as_json)) if wanted]
    with subprocess.Popen(command) as child:
        # Ctrl-C belongs to the child, which ends its step and writes a checkpoint first.
        before = signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    if documents is not None and (dry_run or not code):  # else a run that goes on needs them
        documents.unlink(missing_ok=True)
    if code:
        raise click.exceptions.Exit(code if code > 0 else 128 - code)


def check_installed() -> None:
    """Raises ConfigError unless the packages of the extra `train` are there."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"This needs packages that are not installed ({', '.join(missing)}). Install them with: "
            f"{sys.executable} -m pip install 'openbook[train]'"
        )


def _documents(current: Settings) -> tuple[bytes, str]:
    """The texts of the newest version, each once, as JSON Lines; and which version that is. Labelled ones stay out."""
    import json

    from openbook.knowledge import KnowledgeBase
    from openbook.knowledge.scope import EVERYTHING

    base = KnowledgeBase.open(current.default_kb)
    texts = {base.text(path): path for path in reversed(base.documents(EVERYTHING))}
    lines = [json.dumps({"title": path, "text": text}) + "\n" for text, path in texts.items() if text and text.strip()]
    found = f"{base.id}@{base.version}"
    base.close()
    if not lines:
        raise ConfigError(f"The knowledge base {current.default_kb} holds no text that may be learned.")
    return "".join(sorted(lines)).encode(), found


def _default_run(recipe: Path) -> str:
    """By name and content of the recipe file: another recipe is another run."""
    import hashlib

    return f"{recipe.stem}-{hashlib.sha256(recipe.read_bytes()).hexdigest()[:8]}"
