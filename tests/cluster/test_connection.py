from __future__ import annotations

import signal
import socket
import sys

import pytest

from openbook.cluster import connection
from openbook.errors import ClusterError, ConfigError


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is in no cluster, whatever other tests have joined."""
    monkeypatch.setattr(connection.ray_module(), "is_initialized", lambda: False)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    "address", ["head", "head:", "head:0", "head:65536", "http://head:1", "ray://head", "a b:1", ""]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"is no address of a cluster\. Give host:port"):
        connection.connect(address)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nobody_listens_is_refused_at_once(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"^The Ray cluster at {address} cannot be reached: Connection refused"):
            connection.connect(address)


@pytest.mark.usefixtures("outside")
def test_auto_is_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "no address")
    with pytest.raises(ConfigError, match="'no address' is no address"):
        connection.connect("auto")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'openbook\[cluster\]'"):
        connection.connect("auto")


@pytest.mark.usefixtures("ray_session")
def test_a_process_in_a_cluster_stays_in_it() -> None:
    ray = connection.ray_module()
    before = signal.getsignal(signal.SIGTERM)
    connection.connect("local")
    connection.disconnect()
    assert ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == before
    assert ray.cluster_resources()["CPU"] == 2
