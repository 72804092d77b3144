"""How many more bytes one codec needs than another for the same quality, over all that both reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

LEAST_POINTS = 3


def bd_rate(anchor: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """Bjøntegaard's delta rate.

    The logarithm of the rate is interpolated over quality, piecewise cubic and monotone (PCHIP), and the mean
    difference taken over the qualities that both curves reach (Bjøntegaard, VCEG-M33, 2001; with PCHIP as in the common
    test conditions of JVET).

    Parameters
    ----------
    anchor, other : sequence of (rate, quality)
        Points of two curves in any order: bytes, or anything in proportion, and decibels.

    Returns
    -------
    float
        By how many percent the rate of ``other`` is above that of ``anchor``; below 0 if it needs less. Not a number
        if a curve has fewer than three points, or no quality is reached by both. A point that costs more than another
        without being better does not count.
    """
    anchor, other = _worthwhile(anchor), _worthwhile(other)
    if min(len(anchor), len(other)) < LEAST_POINTS:
        return math.nan
    low, high = max(anchor[0][1], other[0][1]), min(anchor[-1][1], other[-1][1])
    if low >= high:
        return math.nan
    areas = [_log_rate(points).integrate(low, high) for points in (anchor, other)]
    return 100 * math.expm1(float(areas[1] - areas[0]) / (high - low))


def _worthwhile(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points in the order of their rate, each better than all before it."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or quality > kept[-1][1]:
            kept.append((rate, quality))
    return kept


def _log_rate(points: list[tuple[float, float]]) -> PchipInterpolator:
    """Natural logarithm of the rate as a function of quality."""
    rates, qualities = np.array(points).T
    return PchipInterpolator(qualities, np.log(rates))
