"""How many connections and requests there are at a time, so that one client cannot leave the others without a place.

A client is known by its address only, before its key is looked at. Many may share one: all that come through a proxy, or
from this machine. So the oldest of those that have not sent everything gives way, and nobody is turned away for them.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable

from openbook.serving.refusals import Refusal

RETRY_AFTER_S = 2

Close = Callable[[], None]


def network(host: str) -> str:
    """What is counted as one address: in IPv6 a /64, which is what one client is given."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))


class Crowd:
    """Those that wait for something of their client, in the order of their coming: of each its network, and how it is closed."""

    def __init__(self) -> None:
        self._members: dict[object, tuple[str, Close]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: object, network: str, close: Close) -> None:
        self._members[member] = network, close

    def discard(self, member: object) -> None:
        self._members.pop(member, None)

    def close_oldest(self, of: str | None = None) -> object | None:
        """Close the oldest of a network (None: of the one with the most), and remove it. None: there is nothing to close."""
        counts = Counter(network for network, _ in self._members.values())
        wanted = max(counts, key=lambda each: counts[each], default=None) if of is None else of
        for member, (network, close) in self._members.items():
            if network == wanted:
                del self._members[member]
                close()
                return member
        return None


class Idle:
    """Connections without a request under way: its head has not come, or its answer is not taken.

    When one more comes than there may be, the oldest is closed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._crowd = Crowd()

    def add(self, connection: object, host: str, close: Close) -> None:
        self._crowd.discard(connection)
        if len(self._crowd) >= self._most:
            self._crowd.close_oldest()
        self._crowd.add(connection, network(host), close)

    def discard(self, connection: object) -> None:
        self._crowd.discard(connection)


class Requests:
    """Requests whose head has come: at most `most`, and of one address three quarters of that, so that others find a place.

    Where there is no place, the oldest whose body has not come gives way.
    """

    def __init__(self, most: int) -> None:
        self._most, self._share = most, max(1, most * 3 // 4)
        self._here: dict[object, str] = {}
        self._incomplete = Crowd()

    def enter(self, request: object, host: str, close: Close) -> None:
        """Raises Refusal."""
        address = network(host)
        of_address = sum(each == address for each in self._here.values())
        if of_address >= self._share:
            self._make_room(address)
        elif len(self._here) >= self._most:
            self._make_room(None)
        self._here[request] = address
        self._incomplete.add(request, address, close)

    def is_complete(self, request: object) -> None:
        """Its body is complete, so it no longer gives way."""
        self._incomplete.discard(request)

    def leave(self, request: object) -> None:
        self._incomplete.discard(request)
        self._here.pop(request, None)

    def _make_room(self, address: str | None) -> None:
        gone = self._incomplete.close_oldest(address)
        if gone is None:
            raise no_place()
        del self._here[gone]


def no_place() -> Refusal:
    message = "The server has too many connections. Try again in a moment."
    return Refusal(503, message, code="too_many_connections", retry_after_s=RETRY_AFTER_S)
