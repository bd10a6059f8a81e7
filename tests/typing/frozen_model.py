"""Checked by mypy, never run: each line must be an error, or `warn_unused_ignores` fails the check.

So adding `train()` or a setter to FrozenModel breaks the build here.
"""

from __future__ import annotations

from openbook.inference import FrozenModel


def nothing_here_may_type_check(model: FrozenModel) -> None:
    model.train()  # type: ignore[attr-defined]
    model.fit()  # type: ignore[attr-defined]
    model.parameters()  # type: ignore[attr-defined]
    model.state_dict()  # type: ignore[attr-defined]
    model.engine = model.engine  # type: ignore[misc]
    model.identity = model.identity  # type: ignore[misc]


class Trainable(FrozenModel):  # type: ignore[misc]
    pass
