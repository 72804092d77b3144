"""How noisy an image is: the variance of its noise against its intensity, from the image alone.

Cameras add noise whose variance grows linearly with intensity, ``gain · intensity + base`` (Foi, Trimeche, Katkovnik
and Egiazarian, *Practical Poissonian–Gaussian noise modeling and fitting for single-image raw-data*, 2008). Second
differences along all axes at once hold that noise and next to nothing of smooth structure (J. Immerkær, *Fast noise
variance estimation*, 1996); their median absolute deviation is not moved by the few edges left in them (Donoho and
Johnstone 1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# A normal distribution's standard deviation over its median absolute deviation.
_DEVIATIONS = 1.4826
_BINS = 24
_LEAST_IN_BIN = 100
_ROUNDS = 20
# Rounding to multiples of a step is an error of this many squared steps by itself.
_ROUNDING = 1 / 12
_SAMPLED = 2**16
# Standard deviation of 1, -2 and 1 times white noise.
_SECOND = math.sqrt(6)


@dataclass(frozen=True, slots=True)
class Noise:
    """Variance of an image's noise: ``gain · intensity + base``, and never below ``least``.

    Parameters
    ----------
    gain : float
        Variance per intensity, not negative; 0 if the noise is the same everywhere.
    base : float
        Variance at intensity 0; negative where a camera's offset makes it so.
    least : float
        Variance in the darkest places. 0 without noise.
    colour : float
        Variance between voxels two apart over that between neighbours; 1 for white noise, more if neighbours are alike
        or if what was measured is fine structure. nan without noise.
    """

    gain: float
    base: float
    least: float
    colour: float

    @property
    def is_none(self) -> bool:
        """Whether there is no noise that could be measured."""
        return self.least == 0 and self.gain == 0

    @property
    def text(self) -> str:
        """The line in words."""
        sign = "-" if self.base < 0 else "+"
        return f"{self.gain:.4g} · intensity {sign} {abs(self.base):.4g}"

    def variance(self, intensity: Array) -> Floats:
        """Variance at intensities free of noise, of the same shape."""
        found: Floats = np.maximum(self.gain * np.asarray(intensity, np.float64) + self.base, self.least)
        return found


NONE = Noise(0.0, 0.0, 0.0, float("nan"))


def estimate_noise(images: Sequence[Array]) -> Noise:
    """Estimate the noise of images of one kind, such as blocks of one volume.

    Parameters
    ----------
    images : sequence of ndarray
        Each of 2 or 3 axes, z, y, x. Axes shorter than 3 are not looked along.

    Returns
    -------
    Noise
        None where what is measured at the usual intensity is no more than twice what rounding the values makes.
    """
    step = _granularity(images)
    near = _differences(images, 1, step)
    bins = _by_intensity(near)
    if not bins:
        return NONE
    intensity, variance, count = (np.array(column) for column in zip(*bins, strict=True))
    rising = np.argsort(variance)
    usual = variance[rising][np.searchsorted(np.cumsum(count[rising]), count.sum() / 2)]
    if usual <= 2 * _ROUNDING * step**2:
        return NONE
    gain, base = _line(intensity, variance, count)
    # The line may fall below 0 in the darkest places; a quarter of the least that was measured is out of doubt.
    least = max(gain * float(near.means.min()) + base, float(variance[variance > 0].min()) / 4)
    far = _differences(images, 2, step)
    spreads = [_variance(cells.sums, cells.rounding) for cells in (near, far)]
    return Noise(gain, base, least, spreads[1] / spreads[0])


@dataclass(frozen=True, eq=False)
class _Differences:
    """Means of neighbourhoods, their second differences with the variance of one voxel, and what dither added to it."""

    means: Floats
    sums: Floats
    rounding: float


def _granularity(images: Sequence[Array]) -> float:
    """Smallest difference between two values: 1 of most integers, next to nothing of measured floats."""
    some = np.concatenate([image.ravel()[:: max(1, image.size // _SAMPLED)] for image in images])
    gaps = np.diff(np.unique(some).astype(np.float64))
    return float(gaps.min(initial=np.inf)) if gaps.size else 0.0


def _differences(images: Sequence[Array], apart: int, step: float) -> _Differences:
    """Look at every voxel with its neighbours on both sides, so far apart, along each axis.

    Where all of them are equal, as in what was masked or is saturated, they are left out. Rounded values make sums that
    take few values, whose median says little: a dither spreads them.
    """
    means, sums, scale = [], [], 1.0
    for image in images:
        axes = [axis for axis, side in enumerate(image.shape) if side > 2 * apart]
        scale = _SECOND ** len(axes)
        mean = total = lowest = highest = image.astype(np.float64)
        for axis in axes:
            before, at, behind = (_shifted(total, axis, shift, apart) for shift in range(3))
            total = before - 2 * at + behind
            mean = np.mean([_shifted(mean, axis, shift, apart) for shift in range(3)], 0)
            lowest = np.minimum.reduce([_shifted(lowest, axis, shift, apart) for shift in range(3)])
            highest = np.maximum.reduce([_shifted(highest, axis, shift, apart) for shift in range(3)])
        varied = lowest < highest
        means.append(mean[varied])
        sums.append(total[varied] / scale)
    spread = step / scale
    joined = np.concatenate(sums)
    joined += np.random.default_rng(0).uniform(-spread / 2, spread / 2, joined.size)
    return _Differences(np.concatenate(means), joined, _ROUNDING * spread**2)


def _shifted(values: Floats, axis: int, shift: int, apart: int) -> Floats:
    """Leave out what has no neighbours on both sides, and step to the first, the voxel itself or the second."""
    place = [slice(None)] * values.ndim
    place[axis] = slice(shift * apart, values.shape[axis] - (2 - shift) * apart)
    return values[tuple(place)]


def _variance(sums: Floats, rounding: float) -> float:
    """Variance of a normal distribution with the sums' median absolute deviation, without that of the dither."""
    return max(0.0, (_DEVIATIONS * float(np.median(np.abs(sums)))) ** 2 - rounding)


def _by_intensity(cells: _Differences) -> list[tuple[float, float, int]]:
    """Mean intensity, variance and number of cells of every bin, equally full ones but for both ends."""
    size = cells.means.size
    if size < _LEAST_IN_BIN:
        return []
    order = np.argsort(cells.means, kind="stable")
    # The darkest and the brightest are few and say most about the line: their bins halve again and again.
    cuts = {round(size * i / _BINS) for i in range(_BINS + 1)}
    tail = size // _BINS // 2
    while tail >= _LEAST_IN_BIN:
        cuts |= {tail, size - tail}
        tail //= 2
    found = []
    for first, last in pairwise(sorted(cuts)):
        some = order[first:last]
        found.append((float(cells.means[some].mean()), _variance(cells.sums[some], cells.rounding), int(some.size)))
    return found


def _line(intensity: Floats, variance: Floats, count: Floats) -> tuple[float, float]:
    """Fit gain and base by least absolute relative deviations: bins full of edges do not count."""
    weights = np.sqrt(count)
    gain, base = 0.0, float(np.average(variance, weights=count))
    for _ in range(_ROUNDS):
        expected = np.maximum(gain * intensity + base, variance[variance > 0].min(initial=np.inf))
        off = np.abs(variance - expected) / expected
        # Iteratively reweighted least squares for the sum of absolute deviations.
        used = weights / expected / np.sqrt(np.maximum(off, 0.01))
        columns = np.stack([intensity, np.ones_like(intensity)], 1)
        gain, base = np.linalg.lstsq(columns * used[:, None], variance * used, rcond=None)[0]
        if gain < 0:
            gain, base = 0.0, float(np.average(variance, weights=used**2))
    return float(gain), float(base)


__all__ = ["NONE", "Noise", "estimate_noise"]
