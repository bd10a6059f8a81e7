"""Invented names: of places that are nowhere, of people and of things. A function of the seed, and none comes twice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product

_FIRST = "Vor Kel Tam Ost Bri Nal Dru Sel Hul Mor Fen Gar Lod Pil Rask Tur Ulm Wen Yar Zem".split()
_LAST = "andwick emere olmstad irask ethby unnholm asker ilmouth oveden urrick ergate innock".split()
_KINDS = "Bay Point Sound Hill Cross Mill".split()
_GIVEN = "Ailsa Dragan Ilse Tomas Greta Oskar Ruben Signe Petra Callum Nadia Lorenz Wilma Anton Edda Jonas".split()
_FAMILY = "Brask Tollern Vehmer Oddenby Karsk Lindrup Mossel Quarne Rettig Sandvahl Trube Wexley Yttern Zander".split()
_STEM = "tarrow lumm veshel orrin paddle quill sorrel marl bracken thimble".split()
_END = "root wort leaf berry moss seed".split()


def places(seed: str) -> Iterator[str]:
    return _shuffled(seed, [f"{a}{b} {c}" for a, b, c in product(_FIRST, _LAST, _KINDS)])


def people(seed: str) -> Iterator[str]:
    return _shuffled(seed, [f"{a} {b}" for a, b in product(_GIVEN, _FAMILY)])


def herbs(seed: str) -> Iterator[str]:
    return _shuffled(seed, [a + b for a, b in product(_STEM, _END)])


def numbers(seed: str, low: int, high: int) -> Iterator[str]:
    """From `low` to `high`, both included."""
    return _shuffled(seed, [str(n) for n in range(low, high + 1)])


def _shuffled(seed: str, names: Sequence[str]) -> Iterator[str]:
    order = list(names)
    random.Random(seed).shuffle(order)  # noqa: S311  an order, not a secret
    return iter(order)
