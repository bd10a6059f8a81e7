"""What the suites assert with."""

from __future__ import annotations

from collections.abc import Callable


def raises(kind: type[Exception], work: Callable[[], object]) -> None:
    """As `pytest.raises`, without pytest, which is no dependency of the package."""
    try:
        work()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")
