from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from openbook.cluster.local_object_store import start_object_store, stop_object_store
from openbook.cluster.object_store import open_s3
from openbook.errors import StorageError


def test_a_store_is_started_once_and_has_what_it_took_after_it_was_killed(tmp_path: Path) -> None:
    try:
        url = start_object_store(tmp_path)
        assert start_object_store(tmp_path) == url
        with pytest.raises(StorageError, match="runs on port"):
            start_object_store(tmp_path, port=1)
        large = bytes(range(256)) * (1 << 14)
        open_s3(url).put("small", b"one")
        open_s3(url).put("large", large)
        stop_object_store(tmp_path)
        stop_object_store(tmp_path)
        with pytest.raises(StorageError):
            open_s3(url).get("small")
        assert start_object_store(tmp_path) == url
        assert (open_s3(url).get("small"), open_s3(url).get("large")) == (b"one", large)
    finally:
        stop_object_store(tmp_path)


def test_a_port_that_is_used_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StorageError, match=f"Port {port} is used by another program"):
            start_object_store(tmp_path, port=port)
    stop_object_store(tmp_path)


def test_it_listens_on_the_loopback_interface_alone(object_store_url: str) -> None:
    port = urlsplit(object_store_url).query.rpartition(":")[2]
    others = {address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in others - {"127.0.0.1", "127.0.1.1"}:
        with pytest.raises(OSError, match="refused"), socket.create_connection((str(address), int(port)), timeout=2):
            pass
