"""`openbook cluster up, status, env, down, move`: a cluster on this machine, and what is behind in any."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from openbook.cli import context, display
from openbook.cli.options import JSON, YES
from openbook.errors import ConfigError

if TYPE_CHECKING:
    from openbook.cluster.local import Running, State

ENVIRONMENT = 'eval "$(openbook cluster env)"'


@click.group()
def cluster() -> None:
    """Try a cluster on this machine: PostgreSQL, an object store and Ray. For machines of your own: docs/cluster.md"""


@cluster.command()
@click.option("--local", "workers", type=click.IntRange(1, 64), required=True, help="Workers, each with one CPU.")
@JSON
def up(workers: int, as_json: bool) -> None:
    """Start what does not run yet of a cluster on this machine, and print what runs and how to use it."""
    from openbook.cluster import local

    home = context.settings().home
    was = local.read_state(home)
    whole = was is not None and local.running(was).whole and was.workers == workers
    found = local.start(home, workers, display.note)
    display.show(as_json, _as_value(found), _print_started, found, whole)


@cluster.command()
def env() -> None:
    """Print the variables that make `openbook` use the cluster on this machine, for a shell:

    \b
    eval "$(openbook cluster env)"
    """  # noqa: D301  click keeps the lines after this control character as they are
    for name, value in _known().environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@cluster.command()
@click.option("--delete", is_flag=True, help="Also delete the database and all objects in the object store.")
@YES
@JSON
def down(delete: bool, yes: bool, as_json: bool) -> None:
    """Stop the cluster on this machine. Its data stay, and `up` goes on with them."""
    from openbook.cluster import local

    home = context.settings().home
    state = _known()
    if delete and not yes:
        click.confirm(
            f"Delete the database and the objects in {state.postgres} and {state.folder}?", abort=True, err=True
        )
    local.stop(home)
    if delete:
        local.delete(home)
    kept = "Its data are deleted." if delete else f"Its data stay in {state.postgres} and {state.folder}."
    value = {"stopped": True, "deleted": delete, "folders": [state.postgres, state.folder]}
    display.show(as_json, value, display.say, f"The cluster is stopped. {kept}")


def _known() -> State:
    """Raises ConfigError when no cluster was started here."""
    from openbook.cluster import local

    state = local.read_state(context.settings().home)
    if state is None:
        raise ConfigError("No cluster was started on this machine. Start one with: openbook cluster up --local 2")
    return state


def _as_value(found: Running) -> dict[str, object]:
    return {
        "kb": found.state.kb,
        "ray": found.state.ray,
        "services": found.services,
        "workers": found.workers,
        "environment": found.state.environment,
    }


def _print_started(found: Running, ran_before: bool) -> None:
    display.say("The cluster runs already.\n" if ran_before else "The cluster runs.\n")
    _print_running(found)
    display.say(f"\nKnowledge base: --kb '{found.state.kb}'")
    display.say("\nNext:")
    for line in (ENVIRONMENT, "openbook sync FOLDER --cluster auto", 'openbook ask "QUESTION"'):
        display.say(line, indent=2)


def _print_running(found: Running) -> None:
    for service in found.services:
        processes = f"process {', '.join(map(str, service.processes))}" if service.processes else "does not run"
        display.say(f"{service.name:<13} {processes}", "" if service.processes else "red")
        for line in filter(None, (service.url, service.folder)):
            display.say(line, "dim", indent=14)
    for number, process in enumerate(found.workers, start=1):
        display.say(f"{f'worker {number}':<13} process {process} (to see what happens without it: kill -9 {process})")
    if missing := found.state.workers - len(found.workers):
        again = f"openbook cluster up --local {found.state.workers}"
        display.say(f"{display.count(missing, 'worker')} missing. To start again: {again}", "red")
