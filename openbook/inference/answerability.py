"""How likely the passages of a prompt state the answer: a linear probe of what a layer gives for the prompt's last token.

Models of this size know more of it in the middle than they say when they are asked (docs/log.md). A probe belongs to the
weights of one model. `recipes/answerability.py` fits one; those here are fixed, as the weights are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openbook.codec import decode
from openbook.errors import EngineError
from openbook.records import Digest, Stated, canonical_json, sha256_hex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from openbook.models import ModelReference

PROBES = Path(__file__).parent / "data" / "answerability.json"


@dataclass(frozen=True, slots=True)
class AnswerabilityProbe:
    """`layer`: counted from 0, the one whose output is looked at. `weights`: one for each of its numbers.

    Limits, chosen for the model that the probe belongs to (docs/log.md): with a probability below `declines_below` the passages hardly state the answer,
    from `supports_from` on they surely do.
    """

    layer: int
    bias: float
    weights: tuple[float, ...]
    declines_below: float
    supports_from: float

    @property
    def digest(self) -> Digest:
        return sha256_hex(canonical_json(asdict(self)))

    def probability(self, state: NDArray[np.float32]) -> float:
        """`state`: float32 [width]."""
        odds = math.fsum(float(x) * w for x, w in zip(state, self.weights, strict=True)) + self.bias
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))

    def stated(self, state: NDArray[np.float32]) -> Stated:
        """`state`: float32 [width]."""
        likely = self.probability(state)
        if likely < self.declines_below:
            return "hardly"
        return "surely" if likely >= self.supports_from else "perhaps"


@cache
def probes() -> Mapping[Digest, AnswerabilityProbe]:
    """By the digest of the file of weights that they belong to."""
    return decode(PROBES.read_bytes(), dict[Digest, AnswerabilityProbe], PROBES.name, EngineError)


def probe_of(reference: ModelReference) -> AnswerabilityProbe | None:
    """The one for a stored model; None for most, and for an adapter."""
    return probes().get(reference.manifest.files[reference.manifest.main_file].sha256)
