"""How often one caller may ask: a bucket of requests for each, which fills again while it does not ask."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from openbook.serving.refusals import Refusal


class Rates:
    """`per_minute` requests at once, and from then on as many in each minute, for every caller; 0: no bound.

    Callers are those who have a key, and one for all without, so there are no more buckets than that. Used from one event
    loop. `clock`: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # (requests left, as of when)

    def take(self, caller: str) -> None:
        """Count a request of the caller with this id. Raises Refusal (429) when it has none left; that costs it nothing."""
        if not self._most:
            return
        now, per_second = self._clock(), self._most / 60
        left, before = self._buckets.get(caller, (float(self._most), now))
        left = min(self._most, left + (now - before) * per_second)
        if left < 1:
            message = f"Each key may send {self._most} requests a minute here, and this one has. Try again in a moment."
            wait_s = max(1, math.ceil((1 - left) / per_second))
            raise Refusal(429, message, code="rate_limit_exceeded", retry_after_s=wait_s)
        self._buckets[caller] = left - 1, now
