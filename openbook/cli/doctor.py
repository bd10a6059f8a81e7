"""`openbook config` and `openbook doctor`: the settings, and whether this machine is fit for them. Nothing uses the network."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.request import getproxies_environment

import click

from openbook.cli import context, display
from openbook.cli.options import JSON
from openbook.core.config import DatabaseUrl, Settings, available_cores, setting_sources, shown_url
from openbook.core.errors import KnowledgeBaseMissing, OpenBookError, UnknownModel

MIN_FREE_GB, MIN_MEMORY_GB = 3.0, 2.0  # the default model is a file of 1.1 GB, which is downloaded and then mapped


@dataclass(frozen=True, slots=True)
class Check:
    """`advice`: what to do about a problem; empty: there is none."""

    name: str
    found: str
    advice: str = ""


@click.command()
@JSON
def config(as_json: bool) -> None:
    """Show every setting, its value and where it comes from."""
    settings, sources = context.read_settings(), setting_sources()
    shown: dict[str, tuple[object, str]] = {
        "home": (settings.home, "OPENBOOK_HOME" if os.environ.get("OPENBOOK_HOME") else "default")
    }
    for field in fields(Settings)[1:]:
        value = settings.kb_place if field.name == "kb" else getattr(settings, field.name)
        if field.name == "base_url" and settings.base_url:
            value = shown_url(settings.base_url)
        shown[field.name] = value, sources.get(field.name, "default")
    listed = [{"name": name, "value": value, "source": source} for name, (value, source) in shown.items()]
    rows = [
        (name, "(none)" if value in ("", None) else value, f"[{source}]") for name, (value, source) in shown.items()
    ]
    display.show(as_json, listed, display.say_each, display.table(rows))


@click.command()
@JSON
def doctor(as_json: bool) -> None:
    """Check this machine, the model and the documents. Exits with 1 if there is a problem."""
    settings = context.read_settings()
    checks = [*_machine(settings), _safely("model file", _model, settings)]
    checks += [_safely("documents", _documents, settings), _ocr(settings), _proxy()]
    rows = [
        (each.name, "problem", f"{each.found}. {each.advice}") if each.advice else (each.name, "ok", each.found)
        for each in checks
    ]
    display.show(as_json, checks, display.say_each, display.table(rows))
    if problems := sum(bool(each.advice) for each in checks):
        raise OpenBookError(f"{display.count(problems, 'problem')} found.")


def _safely(name: str, look: Callable[[Settings], Check], settings: Settings) -> Check:
    try:
        return look(settings)
    except OpenBookError as error:
        return Check(name, "cannot be used", str(error))


def _machine(settings: Settings) -> Iterator[Check]:
    home, cores = settings.home, available_cores()
    yield Check("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    there = next(each for each in (home, *home.parents) if each.exists())
    free = shutil.disk_usage(there).free / 1e9
    advice = "" if free >= MIN_FREE_GB else f"Free some space: a model and its states need {MIN_FREE_GB:g} GB."
    yield Check("disk space", f"{free:,.1f} GB free for {home}", advice)
    with suppress(AttributeError, ValueError, OSError):  # not on every platform
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        advice = "" if memory >= MIN_MEMORY_GB else "Choose a smaller model: openbook models list --available"
        yield Check("memory", f"{memory:,.1f} GB", advice)
    advice = "" if settings.threads <= cores else f"Set OPENBOOK_THREADS to at most {cores}, or to 0."
    yield Check("threads", f"{settings.threads or cores} for {display.count(cores, 'usable core')}", advice)
    yield Check("home", *_permissions(home, there))


def _permissions(home: Path, there: Path) -> tuple[str, str]:
    if not os.access(there, os.W_OK | os.X_OK):
        return f"no permission to write to {there}", "Correct its permissions, or set OPENBOOK_HOME."
    if there == home and os.name == "posix" and home.stat().st_mode & 0o007:
        return f"every user of this machine can enter {home}", f"Close it: chmod o-rwx {home}"
    return str(home) if there == home else f"{home} is made on first use", ""


def _model(settings: Settings) -> Check:
    model, store = settings.model, context.store(settings)
    if settings.base_url:
        return Check("model file", f"{model} at {shown_url(settings.base_url)} (not asked)")
    advice = f"Run openbook models pull {model}; for a file of your own, openbook models import."
    try:
        reference = store.resolve(model)
    except UnknownModel:
        return Check("model file", f"{model} is not stored", advice)
    if found := store.findings(reference):
        return Check("model file", f"{model}: {found[0]}", advice)
    return Check("model file", f"{model} has its digest {reference.digest[:12]}")


def _documents(settings: Settings) -> Check:
    from openbook.knowledge import KnowledgeBase

    place = settings.kb_place
    if isinstance(place, DatabaseUrl):
        return Check("documents", f"{place} (not asked; see: openbook status)")
    try:
        with closing(KnowledgeBase.open(place)) as base:
            return Check("documents", f"{display.count(len(base.documents()), 'document')} in {place}")
    except KnowledgeBaseMissing:
        return Check("documents", f"no knowledge base in {place} yet")


def _ocr(settings: Settings) -> Check:
    from openbook.parsers.ocr import NO_OCR, ocr_engine

    engine = ocr_engine(settings.ocr)
    if settings.ocr not in ("", NO_OCR) and shutil.which("tesseract") is None:
        return Check("OCR", "Tesseract is not installed: scanned pages are not read", "Install it, or unset ocr.")
    return Check("OCR", engine or "none: scanned pages are not read")


def _proxy() -> Check:
    found = [f"{kind}: {shown_url(url)}" for kind, url in getproxies_environment().items() if kind != "no"]
    return Check("network proxy", ", ".join(found) or "none")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  openbook completion bash >> ~/.bashrc
    zsh:   openbook completion zsh >> ~/.zshrc      (after compinit)
    fish:  openbook completion fish > ~/.config/fish/completions/openbook.fish

    Then start a new shell.
    """  # noqa: D301  click keeps the lines after this control character as they are
    from click.shell_completion import shell_complete

    from openbook.cli import COMPLETE, PROGRAM, command

    shell_complete(command, {}, PROGRAM, COMPLETE, f"{shell}_source")
