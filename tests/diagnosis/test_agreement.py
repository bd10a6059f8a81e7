from __future__ import annotations

import pytest

from openbook.diagnosis.agreement import agreement


def test_cohens_kappa_of_an_example_by_hand() -> None:
    # 20 both yes, 5 first yes, 10 second yes, 15 both no: 0.7 agree, 0.5 by chance.
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    found = agreement(pairs)
    assert (found.same.count, found.same.of) == (35, 50)
    assert found.kappa == pytest.approx(0.4)
    assert str(found) == "35/50 = 70% [56, 81], kappa 0.40"


def test_agreement_of_chance_is_0_and_full_agreement_1() -> None:
    assert agreement([("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]).kappa == pytest.approx(0.0)
    assert agreement([("a", "a"), ("b", "b"), ("c", "c")]).kappa == pytest.approx(1.0)
    assert agreement([("a", "b"), ("b", "a")]).kappa == pytest.approx(-1.0)


def test_where_there_is_nothing_to_tell_apart_there_is_no_kappa() -> None:
    assert agreement([("a", "a")] * 9).kappa is None
    assert (agreement([]).kappa, agreement([]).same.share) == (None, None)
    assert agreement([("a", "b")] * 9).kappa == pytest.approx(0.0)
