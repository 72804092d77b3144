"""The delta rate of the tables in ``docs/benchmarks.md``."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

LAB = Path(__file__).parents[1] / "benchmarks" / "lab"


@pytest.fixture
def bd_rate(monkeypatch):
    monkeypatch.syspath_prepend(str(LAB))
    from bd_rate import bd_rate

    return bd_rate


ANCHOR = [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)]
OTHER = [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)]


def test_it_agrees_with_the_reference_implementation(bd_rate):
    """Package bjontegaard 1.3.0 of FAU Erlangen, ``bd_rate(..., method="pchip")``."""
    assert bd_rate(ANCHOR, OTHER) == pytest.approx(31.379878, abs=1e-5)


def test_a_codec_that_always_needs_a_quarter_more_is_told_so_in_any_order_of_points(bd_rate):
    more = [(1.25 * rate, quality) for rate, quality in reversed(ANCHOR)]
    assert bd_rate(ANCHOR, more) == pytest.approx(25)
    assert bd_rate(more, ANCHOR) == pytest.approx(-20)


def test_only_what_both_reach_counts(bd_rate):
    """Straight lines in log rate, 12 % apart, over ranges that overlap in part."""

    def line(qualities: np.ndarray, factor: float) -> list[tuple[float, float]]:
        return [(factor * 2 ** (quality / 6), quality) for quality in qualities]

    assert bd_rate(line(np.arange(20, 40, 5), 1.0), line(np.arange(31, 60, 5), 1.12)) == pytest.approx(12)
    assert math.isnan(bd_rate(line(np.arange(20, 40, 5), 1.0), line(np.arange(50, 70, 5), 1.0)))


def test_a_larger_file_that_is_no_better_does_not_count(bd_rate):
    wasteful = [*OTHER, (900.0, 40.39), (500.0, 36.0)]
    assert bd_rate(ANCHOR, wasteful) == bd_rate(ANCHOR, OTHER)


def test_two_points_are_too_few(bd_rate):
    assert not math.isnan(bd_rate(ANCHOR[:3], OTHER))
    assert math.isnan(bd_rate(ANCHOR[:2], OTHER))
