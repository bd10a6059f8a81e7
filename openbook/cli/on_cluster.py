"""Models in replicas on a Ray cluster, for a server or one command."""

from __future__ import annotations

import platform
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from openbook.answers import opening
from openbook.cli import context
from openbook.core.config import Settings, available_cores, load_settings
from openbook.core.derived import DerivedFolder
from openbook.core.errors import ConfigError, ModelNotVerified, UnknownModel
from openbook.core.files import storage_errors

if TYPE_CHECKING:
    from openbook.core.records import Digest
    from openbook.inference import FrozenModel

OpenModel: TypeAlias = "Callable[[Settings], FrozenModel]"


@contextmanager
def models(
    settings: Settings, cluster: str | None, bounds: tuple[int, int] | None = None
) -> Iterator[tuple[OpenModel, int]]:
    """(model opener, requests it can use at once). Without `cluster`, in this process."""
    if cluster is None:
        yield lambda own: opening.model_opener(own, partial(context.ready_model, own))(), 1
        return
    with replicas(settings, cluster, bounds) as there:
        yield there


@contextmanager
def replicas(settings: Settings, cluster: str, bounds: tuple[int, int] | None) -> Iterator[tuple[OpenModel, int]]:
    """As `models`, on a Ray cluster. `bounds`: (minimum, maximum); None: fill it. Raises ConfigError, ClusterError."""
    from openbook.cluster.connection import CLIENT, connect, disconnect, resolved
    from openbook.inference import prompt_counter

    if settings.base_url:
        raise ConfigError("--cluster and --base-url exclude each other: the server at --base-url computes the answers.")
    address = resolved(cluster)
    if address.startswith(CLIENT):
        raise ConfigError(
            f"{address}: answers cannot be streamed through Ray's client. Run this on a machine of the cluster, with "
            "--cluster auto."
        )
    connect(cluster)
    # In order, or the replicas would stay.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        from openbook.cluster.replicas import RUNNING, Replicas

        if bounds is None:
            there = Replicas.filling(settings.threads or available_cores())
        else:
            there = Replicas.on_cluster(*bounds, settings.threads)

        def open_model(own: Settings) -> FrozenModel:
            reference = context.ready_model(own, own.model)
            flags = {"context_tokens": own.context_tokens, "threads": there.threads}
            if own.kv_disk == 0:  # not kept here, so not there either
                flags["kv_disk"] = 0
            return there.open(
                partial(open_on_node, reference.name, reference.digest, flags),
                follow_on_node,
                digest=reference.digest,
                count=prompt_counter(reference),
                states=opening.kv_cache(own),
            )

        yield open_model, RUNNING * there.most
    finally:
        disconnect()
        signal.signal(signal.SIGTERM, before)


def replica_bounds(given: tuple[int, int] | None, cluster: str | None) -> tuple[int, int]:
    """(minimum, maximum). Raises ConfigError for --replicas without --cluster."""
    if given and cluster is None:
        raise ConfigError("--replicas needs --cluster; `--cluster local` tries it on this machine.")
    return given or (1, 1)


# --- in the process of a replica --------------------------------------------------------------------------------------


def open_on_node(name: str, digest: Digest, flags: dict[str, int]) -> FrozenModel:
    """Open the model from this machine's home, pulled first if in the catalogue. `flags` override local settings.

    Raises as `ready_model` and `open_stored` do, and ModelNotVerified if `name` means another model here.
    """
    from openbook.inference.trial import check_usable
    from openbook.models import ensure

    own = load_settings(flags=flags)
    store = context.store(own)
    try:
        reference = ensure(store, digest, try_out=check_usable)
    except UnknownModel:
        reference = ensure(store, name, try_out=check_usable)
    if reference.digest != digest:
        raise ModelNotVerified(
            f"{name!r} means {reference.digest[:12]} on {platform.node()}, and {digest[:12]} at the server. Import the model "
            "there, or share the home folder."
        )
    return opening.open_stored(own, replace(reference, name=name), opening.kv_cache(own))


def follow_on_node(purge_mark: str) -> None:
    """Delete what this machine computed before a purge at the server. Raises KnowledgeBaseBusy, StorageError."""
    derived = load_settings().derived_dir
    with storage_errors(f"delete what models computed of purged documents in {derived}"):
        DerivedFolder(derived).follow(purge_mark)
