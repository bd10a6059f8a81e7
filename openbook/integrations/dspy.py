"""A retriever for DSPy: a module of its own, or what `dspy.Retrieve` asks."""

from __future__ import annotations

from typing import Any

from openbook.integrations import found, needs, view_of

with needs("dspy"):
    import dspy
    from dspy.dsp.utils import dotdict


class OpenBookRM(dspy.Retrieve):
    """The `k` best passages: `long_text` and where it stands. `kb`: a library, a view, or arguments of `openbook.open`."""

    def __init__(self, kb: Any = None, *, k: int = 3, **settings: Any) -> None:
        super().__init__(k=k)
        self._view = view_of(kb, settings)

    def forward(self, query: str, k: int | None = None) -> list[dotdict]:
        hits = found(self._view, query, self.k if k is None else k)
        return [dotdict(long_text=text, **place) for text, place in hits]

    def dump_state(self, **_: Any) -> dict[str, Any]:
        """To save a program. DSPy passes `json_mode`, which its own `Retrieve` refuses."""
        return {"k": self.k}
