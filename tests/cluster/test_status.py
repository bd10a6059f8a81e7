"""A cluster that is joined, and what is behind in it, of each kind."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from openbook.cluster import connection
from openbook.cluster.connection import ray_module
from openbook.cluster.status import status_of_base, status_of_ray
from openbook.core.errors import ClusterError, ConfigError
from openbook.knowledge import KnowledgeBase
from tests.cli.conftest import Out


@pytest.fixture
def folder(own_home: Path, docs: Path, fakes: None, out: Out) -> Path:
    out.ok("sync", docs)
    return own_home / "kb"


def test_nothing_is_behind_after_a_sync(folder: Path, out: Out) -> None:
    found = out.json("cluster", "status")
    assert (found["base"]["version"], found["base"]["documents"], found["problems"]) == (1, 6, [])
    assert "behind        nothing" in out.ok("cluster", "status")


def test_what_is_behind_is_named(folder: Path, out: Out) -> None:
    shutil.rmtree(folder / "derived")
    with closing(KnowledgeBase.open(folder)) as base, base.writing(1.0) as connection:
        connection.execute(
            "DELETE FROM embeddings WHERE embedding_key IN (SELECT embedding_key FROM embeddings LIMIT 2)"
        )
        for key in ("purging", "purging_elsewhere", "reembedding"):
            connection.execute("INSERT INTO meta VALUES (?, '')", (key,))
    with closing(KnowledgeBase.open(folder)) as base:
        found = status_of_base(base)
    assert (found.unindexed, found.without_vectors, found.unfinished) == (6, 2, ("purge", "reembed"))
    code, text, err = out("cluster", "status", "--json")
    assert code == ClusterError.exit_code
    assert json.loads(text)["problems"] == list(found.behind)
    assert len(found.behind) == 4
    assert all(each in err for each in found.behind)


@pytest.mark.laws
@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("address", ["head:", "head:0", "head:65536", "http://head:1", "ray://head", "a b:1", ""])
def test_what_is_no_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address or "no address")
    for given in (address, "auto"):
        with pytest.raises(ConfigError, match=r"is not the address of a cluster\. Give host:port"):
            connection.connect(given)


def test_an_empty_address_in_the_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert connection.resolved("auto") == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert connection.resolved("auto") == "head:6379"
    assert connection.resolved("local") == "local"


@pytest.mark.laws
@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_refused_at_once(scheme: str, out: Out) -> None:
    assert "there is no knowledge base yet" in out.ok("cluster", "status")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        said = f"The Ray cluster at {address} cannot be reached: Connection refused"
        code, _, error = out("cluster", "status", "--cluster", address)
        assert (code, said in " ".join(error.split())) == (ClusterError.exit_code, True)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'openbook\[cluster\]'"):
        connection.connect("auto")


@pytest.mark.laws
@pytest.mark.usefixtures("ray_session")
def test_a_process_in_a_cluster_stays_in_it() -> None:
    ray = ray_module()
    before = signal.getsignal(signal.SIGTERM)
    connection.connect("local")
    connection.disconnect()
    assert ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == before
    found = status_of_ray()
    assert (found.nodes, found.dead_nodes, found.cpus) == (1, 0, 2.0)
