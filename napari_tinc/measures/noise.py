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

from napari_tinc.arrays.scratch import halton

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
# Of a whole volume a share is looked at, at most so many voxels, in so many blocks.
_LOOKED_AT, _LOOKED_AT_SHARE, _BLOCKS = 2**15, 64, 8
_LEAST_SIDE = 5  # of a block, so that voxels have neighbours two apart
_LONGEST_NOTE = 400
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
    misfit : float
        How far the variances that were measured at the various intensities are from the line, relative to it, in the
        median: how much the estimate is to be trusted. nan without noise.
    """

    gain: float
    base: float
    least: float
    colour: float
    misfit: float

    @property
    def is_none(self) -> bool:
        """Whether there is no noise that could be measured."""
        return self.least == 0 and self.gain == 0

    @property
    def text(self) -> str:
        """The line in words."""
        return _line_text(self.gain, self.base)

    def variance(self, intensity: Array) -> Floats:
        """Variance at intensities free of noise, of the same shape."""
        found: Floats = np.maximum(self.gain * np.asarray(intensity, np.float64) + self.base, self.least)
        return found


def _line_text(gain: float, base: float) -> str:
    return f"{gain:.4g} · intensity {'-' if base < 0 else '+'} {abs(base):.4g}"


NONE = Noise(0.0, 0.0, 0.0, math.nan, math.nan)


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
    usual = _weighted_median(variance, count)
    if usual <= 2 * _ROUNDING * step**2:
        return NONE
    gain, base = _line(intensity, variance, count)
    # The line may fall below 0 in the darkest places; a quarter of the least that was measured is out of doubt.
    least = max(gain * float(near.means.min()) + base, float(variance[variance > 0].min()) / 4)
    far = _differences(images, 2, step)
    spreads = [_variance(cells.sums, cells.rounding) for cells in (near, far)]
    expected = np.maximum(gain * intensity + base, least)
    misfit = _weighted_median(np.abs(variance / expected - 1), count)
    return Noise(gain, base, least, spreads[1] / spreads[0], misfit)


def sampled_noise(image: Array) -> Noise:
    """Estimate the noise of one channel and time point from small blocks, so many that it costs next to nothing.

    Parameters
    ----------
    image : ndarray, 2-D or 3-D
        In memory or in a file; a 64th of it is looked at, and no more than 32768 voxels.
    """
    wanted = min(_LOOKED_AT, image.size // _LOOKED_AT_SHARE) / _BLOCKS
    sides = list(image.shape)
    for number, axis in enumerate(sorted(range(image.ndim), key=image.shape.__getitem__)):
        sides[axis] = min(sides[axis], max(_LEAST_SIDE, int(wanted ** (1 / (image.ndim - number)) + 1e-9)))
        wanted /= sides[axis]
    blocks = []
    for point in halton(_BLOCKS + 1, image.ndim)[1:]:  # the first is a corner
        starts = [int(p * (n - side + 1)) for p, n, side in zip(point, image.shape, sides, strict=True)]
        blocks.append(np.asarray(image[tuple(slice(a, a + n) for a, n in zip(starts, sides, strict=True))]))
    return estimate_noise(blocks)


def note_of(noises: Sequence[Noise]) -> str:
    """Write estimates as a file's provenance holds them: gain, base and misfit of every channel, or ``none``."""
    return "; ".join("none" if n.is_none else f"{n.gain:.4g} {n.base:.4g} {n.misfit:.2g}" for n in noises)


def read_note(note: object) -> list[tuple[float, float, float] | None]:
    """Invert :func:`note_of`; of what is no such note, which a file may hold, nothing is read."""
    if not isinstance(note, str) or not note or len(note) > _LONGEST_NOTE:
        return []
    found: list[tuple[float, float, float] | None] = []
    for part in note.split("; "):
        try:
            gain, base, misfit = (0.0, 0.0, 0.0) if part == "none" else map(float, part.split(" "))
        except ValueError:
            return []
        if not all(map(math.isfinite, (gain, base, misfit))):
            return []
        found.append(None if part == "none" else (gain, base, misfit))
    return found


def note_text(note: object) -> str:
    """Say in words what a file's note says; empty if there is none."""
    read = read_note(note)
    parts = [
        "none found" if one is None else f"variance {_line_text(*one[:2])}, to within {one[2]:.0%}" for one in read
    ]
    return "; ".join(parts)


@dataclass(frozen=True, eq=False)
class _Differences:
    """Means of neighbourhoods, their second differences with the variance of one voxel, and what dither added to it."""

    means: Floats
    sums: Floats
    rounding: float


def _weighted_median(values: Floats, weights: Floats) -> float:
    rising = np.argsort(values)
    return float(values[rising][np.searchsorted(np.cumsum(weights[rising]), weights.sum() / 2)])


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


__all__ = ["NONE", "Noise", "estimate_noise", "note_of", "note_text", "read_note", "sampled_noise"]
