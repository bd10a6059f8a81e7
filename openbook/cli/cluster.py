"""`openbook cluster up, status, env, down, move`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import click

from openbook.answers import opening
from openbook.cli import context, display
from openbook.cli.options import JSON, KB, PLACE, YES, cluster_option
from openbook.core.errors import ClusterError, ConfigError, KnowledgeBaseMissing, OpenBookError

if TYPE_CHECKING:
    from openbook.cluster.local import ClusterRecord, RunningCluster
    from openbook.cluster.status import BaseStatus, RayStatus
    from openbook.core.config import Place, Settings

T = TypeVar("T")


@click.group()
def cluster() -> None:
    """Try a cluster on this machine. For machines of your own: docs/cluster.md"""


@cluster.command()
@click.option(
    "--local", "workers", type=click.IntRange(1, 64), required=True, help="How many workers, each with one CPU."
)
@JSON
def up(workers: int, as_json: bool) -> None:
    """Start a cluster on this machine, or its missing parts."""
    from openbook.cluster import local

    found = local.start(context.read_settings().home, workers, display.note)
    about = {"kb": found.state.kb, "ray": found.state.ray, "environment": found.state.environment}
    value = {**about, "folder": found.state.folder, "services": found.services, "workers": found.workers}
    display.show(as_json, value, _print_started, found)


@cluster.command()
@KB
@cluster_option("Also show the nodes of")
@JSON
def status(kb: Place | None, cluster: str | None, as_json: bool) -> None:
    """Show what runs, what can be reached, and what is behind. Exits with 7 when something is missing or behind.

    Without --cluster, the nodes are those of the cluster that `up` started.
    """
    from openbook.cluster import local

    settings = context.read_settings(kb=kb)
    state = local.read_state(settings.home)
    running = local.running(state) if state else None
    if state and settings.kb is None:
        settings = context.read_settings(kb=state.kb)
    base, of_base = _try(lambda: _base_status(settings))
    address = cluster
    if state and address in (None, state.ray):
        address = state.ray
        os.environ.update({name: value for name, value in state.environment.items() if name.startswith("RAY_")})
    ray, of_ray = _try(lambda: _ray_status(address)) if address else (None, "")
    problems = [each for each in (of_base, of_ray) if each]
    problems += [f"{name} does not run." for name, found in running.services.items() if not found] if running else []
    if state and running and len(running.workers) < state.workers:
        missing = display.count(state.workers - len(running.workers), "worker")
        problems.append(f"{missing} missing. To start again: openbook cluster up --local {state.workers}")
    problems += base.behind if base else ()
    value = {"local": running, "knowledge_base": str(settings.kb_place), "base": base, "ray": ray, "problems": problems}
    display.show(as_json, value, _print_status, running, "" if of_base else str(settings.kb_place), base, ray)
    if problems:
        raise ClusterError(" ".join(problems))


def _try(find: Callable[[], T]) -> tuple[T | None, str]:
    """(result, ""), or (None, the error's sentence)."""
    try:
        return find(), ""
    except OpenBookError as error:
        return None, str(error)


def _base_status(settings: Settings) -> BaseStatus | None:
    """None without a knowledge base."""
    from openbook.cluster.status import status_of_base

    try:
        with closing(context.library(settings).base) as base:
            return status_of_base(base)
    except KnowledgeBaseMissing:
        return None


def _ray_status(address: str) -> RayStatus:
    from openbook.cluster.status import status_of_ray

    with context.joined(address):
        return status_of_ray()


def _print_status(running: RunningCluster | None, place: str, base: BaseStatus | None, ray: RayStatus | None) -> None:
    if running:
        _print_running(running)
    if base:
        held = f"{display.count(base.documents, 'document')}, {display.count(base.passages, 'passage')}"
        display.say(f"{'documents':<13} version {base.version}, {held}")
        display.say(place, "dim", indent=14)
        display.say(f"{'behind':<13} {' '.join(base.behind) or 'nothing'}", "red" if base.behind else "")
    elif place:
        display.say(f"{'documents':<13} none: there is no knowledge base yet")
        display.say(place, "dim", indent=14)
    if ray:
        display.say(f"{'Ray nodes':<13} {ray.nodes} alive with {ray.cpus:g} CPUs, {ray.dead_nodes} died")


@cluster.command()
def env() -> None:
    """Print the variables that make a shell use this cluster.

    \b
    eval "$(openbook cluster env)"
    """  # noqa: D301  click keeps the lines after this control character as they are
    for name, value in _known().environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@cluster.command()
@click.option("--delete", is_flag=True, help="Also delete the database.")
@YES
@JSON
def down(delete: bool, yes: bool, as_json: bool) -> None:
    """Stop the cluster on this machine. Its data is kept; `up` resumes."""
    from openbook.cluster import local

    home = context.read_settings().home
    state = _known()
    if delete:
        display.confirm(f"Delete the database in {state.folder}?", yes=yes)
    local.stop(home, delete=delete)
    kept = "Its data is deleted." if delete else f"Its data stays in {state.folder}."
    value = {"stopped": True, "deleted": delete, "folder": state.folder}
    display.show(as_json, value, display.say, f"The cluster is stopped. {kept}")


@cluster.command()
@click.argument("source", type=PLACE)
@click.argument("target", type=PLACE)
@JSON
def move(source: Place, target: Place, as_json: bool) -> None:
    """Copy a knowledge base to another place, as it is.

    A place is a folder, or postgresql://host/name. All versions, tags, labels and vectors come along, so receipts
    replay. The source stays; from then on, write to one of the two.
    """
    from openbook.cluster.move import move as move_base
    from openbook.knowledge import KnowledgeBase

    settings = context.read_settings()
    with display.stages() as progress:
        moved = move_base(source, target, progress)
    with closing(KnowledgeBase.open(target)) as base:
        opening.remember_place(settings, base)
    versions, documents = display.count(moved.versions, "version"), display.count(moved.documents, "document")
    said = f"{versions}, {documents} and {display.count(moved.passages, 'passage')} are in {target}, equal row by row."
    stays = f"{source} stays as it is. Write to one of the two only, and delete the other: a purge does not reach it."
    display.show(
        as_json, {"source": str(source), "target": str(target), **asdict(moved)}, display.say_each, [said, stays]
    )


def _known() -> ClusterRecord:
    """Raises ConfigError when no cluster was started here."""
    from openbook.cluster import local

    state = local.read_state(context.read_settings().home)
    if state is None:
        raise ConfigError("No cluster was started on this machine. Start one with: openbook cluster up --local 2")
    return state


def _print_started(found: RunningCluster) -> None:
    display.say("The cluster runs.\n")
    _print_running(found)
    display.say(f"\nKnowledge base: --kb '{found.state.kb}'")
    display.say("\nNext:")
    for line in ('eval "$(openbook cluster env)"', "openbook sync FOLDER --cluster auto", 'openbook ask "QUESTION"'):
        display.say(line, indent=2)


def _print_running(found: RunningCluster) -> None:
    rows = [
        (name, f"process {', '.join(map(str, numbers))}" if numbers else "does not run")
        for name, numbers in found.services.items()
    ]
    for number, process in enumerate(found.workers, start=1):
        rows.append((f"worker {number}", f"process {process} (to test its failure: kill -9 {process})"))
    display.say_each(display.table([*rows, ("data", found.state.folder)]))
