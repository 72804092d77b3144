"""The wavelet transform of CDF 9/7 filters by lifting, on any length, whole or region by region.

Lifting after Daubechies & Sweldens, *Factoring wavelet transforms into lifting steps* (1998), with mirrored ends as in
JPEG 2000, so that a signal of any length gives as many coefficients. Low- and high-pass are scaled so that the
transform is nearly orthonormal: a squared error of the coefficients is about that of the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.kernels import compiled, part

Floats32 = npt.NDArray[np.float32]
Axes = tuple[int, ...]
Bands = dict[int, Floats32]

_ALPHA, _BETA = np.float32(-1.586134342059924), np.float32(-0.052980118572961)
_GAMMA, _DELTA = np.float32(0.882911075530934), np.float32(0.443506852043971)
_GAIN, _LOSS = np.float32(1.230174104914001 / math.sqrt(2)), np.float32(math.sqrt(2) / 1.230174104914001)
# For who inverts the transform elsewhere: its steps, of which every second begins with odd samples, and what the low-
# and the high-pass are multiplied by before.
UNDOING = (-_DELTA, -_GAMMA, -_BETA, -_ALPHA)
GAINS = (_GAIN, _LOSS)
# A sample depends on coefficients this far to either side and no further; a coefficient on samples.
MARGIN, REACH = 3, 4


def forward(volume: Floats32, axes: Axes) -> Bands:
    """Split a volume into bands along some axes.

    Parameters
    ----------
    volume : ndarray of float32
    axes : tuple of int
        Axes to split; each has at least two samples.

    Returns
    -------
    dict of int to ndarray
        By orientation: bit *i* is set where the band is high-pass along axis *i*; 0 is the low-pass. Low-pass sides
        are ``ceil(n / 2)``, high-pass sides ``floor(n / 2)``.
    """
    bands = {0: volume}
    for axis in axes:
        halves: Bands = {}
        for orientation, band in bands.items():
            halves[orientation], halves[orientation | 1 << axis] = _split(band, axis)
        bands = halves
    return bands


def join(low: Floats32, high: Floats32, axis: int) -> Floats32:
    """Invert the split of one axis."""
    outer, side = math.prod(low.shape[:axis]), low.shape[axis] + high.shape[axis]
    evens, odds = low.reshape(outer, low.shape[axis], -1), high.reshape(outer, high.shape[axis], -1)
    rows = np.empty((outer, side, evens.shape[2]), np.float32)
    if rows.shape[2] == 1:
        _join_lines(np.ascontiguousarray(evens[:, :, 0]), np.ascontiguousarray(odds[:, :, 0]), rows[:, :, 0])
    else:
        _lift_inverse(np.ascontiguousarray(evens), np.ascontiguousarray(odds), rows)
    return rows.reshape(*low.shape[:axis], side, *low.shape[axis + 1 :])


def inverse(bands: dict[int, Any], axes: Axes, joined: Callable[[Any, Any, int], Any] = join) -> Any:
    """Invert :func:`forward`, with :func:`join` or with what does the same to arrays of another kind."""
    for axis in reversed(axes):
        bit = 1 << axis
        bands = {o: joined(band, bands[o | bit], axis) for o, band in bands.items() if not o & bit}
    return bands[0]


def orientations(axes: Axes) -> tuple[int, ...]:
    """Orientations of the high-pass bands of a split, those with fewer high-pass axes first."""
    found = [sum(1 << axis for axis, high in zip(axes, bits, strict=True) if high)
             for bits in product((0, 1), repeat=len(axes)) if any(bits)]  # fmt: skip
    return tuple(sorted(found, key=lambda orientation: (orientation.bit_count(), orientation)))


def needed(start: int, stop: int, samples: int) -> tuple[int, int]:
    """Low-pass coefficients that the samples ``start … stop - 1`` of an axis of ``samples`` depend on."""
    return max(0, start // 2 - MARGIN), min((samples + 1) // 2, (stop + 1) // 2 + MARGIN)


def _split(volume: Floats32, axis: int) -> tuple[Floats32, Floats32]:
    side, before, after = volume.shape[axis], volume.shape[:axis], volume.shape[axis + 1 :]
    rows = np.array(volume, np.float32, order="C").reshape(math.prod(before), side, -1)
    if rows.shape[2] == 1:
        low, high = (np.empty((len(rows), n), np.float32) for n in ((side + 1) // 2, side // 2))
        _split_lines(rows[:, :, 0], low, high)
        return low.reshape(*before, -1, *after), high.reshape(*before, -1, *after)
    _lift_forward(rows)
    return tuple(  # type: ignore[return-value]
        (rows[:, parity::2] * factor).reshape(*before, -1, *after) for parity, factor in ((0, _LOSS), (1, _GAIN))
    )


@part()
def _lift(row: Any, factor: Any, first: int) -> None:
    """Add ``factor`` times both neighbours, mirrored at the ends, to every second sample from ``first`` on."""
    length, inner = row.shape
    for i in range(first, length, 2):
        left, right = i - 1, i + 1
        if left < 0:
            left = right
        if right >= length:
            right = left
        for k in range(inner):
            row[i, k] += factor * (row[left, k] + row[right, k])


@compiled
def _lift_forward(rows: Any) -> None:
    for o in range(rows.shape[0]):
        _lift(rows[o], _ALPHA, 1)
        _lift(rows[o], _BETA, 0)
        _lift(rows[o], _GAMMA, 1)
        _lift(rows[o], _DELTA, 0)


@compiled
def _lift_inverse(low: Any, high: Any, rows: Any) -> None:
    inner = rows.shape[2]
    for o in range(rows.shape[0]):  # one after the other, so that a row stays in the cache
        for i in range(low.shape[1]):
            for k in range(inner):
                rows[o, 2 * i, k] = low[o, i, k] * _GAIN
        for i in range(high.shape[1]):
            for k in range(inner):
                rows[o, 2 * i + 1, k] = high[o, i, k] * _LOSS
        _lift(rows[o], -_DELTA, 0)
        _lift(rows[o], -_GAMMA, 1)
        _lift(rows[o], -_BETA, 0)
        _lift(rows[o], -_ALPHA, 1)


# Along the last axis every second sample would be a scalar by itself: there halves lie apart, and lines are added.


@part()
def _lift_line(own: Any, other: Any, factor: Any, first: int) -> None:
    """Add to samples ``first``, ``first`` + 2, … of a line, which are ``own``, as :func:`_lift` does."""
    before = 1 - first  # whether the first of them is an end
    inside = min(own.size, other.size - first)
    for i in range(before, inside):
        own[i] += factor * (other[i - 1 + first] + other[i + first])
    if before:
        own[0] += factor * (other[0] + other[0])
    for i in range(max(before, inside), own.size):
        own[i] += factor * (other[i - 1 + first] + other[i - 1 + first])


@compiled
def _split_lines(rows: Any, low: Any, high: Any) -> None:
    even, odd = np.empty(low.shape[1], np.float32), np.empty(high.shape[1], np.float32)
    for o in range(rows.shape[0]):
        for i in range(even.size):
            even[i] = rows[o, 2 * i]
        for i in range(odd.size):
            odd[i] = rows[o, 2 * i + 1]
        _lift_line(odd, even, _ALPHA, 1)
        _lift_line(even, odd, _BETA, 0)
        _lift_line(odd, even, _GAMMA, 1)
        _lift_line(even, odd, _DELTA, 0)
        for i in range(even.size):
            low[o, i] = even[i] * _LOSS
        for i in range(odd.size):
            high[o, i] = odd[i] * _GAIN


@compiled
def _join_lines(low: Any, high: Any, rows: Any) -> None:
    even, odd = np.empty(low.shape[1], np.float32), np.empty(high.shape[1], np.float32)
    for o in range(rows.shape[0]):
        for i in range(even.size):
            even[i] = low[o, i] * _GAIN
        for i in range(odd.size):
            odd[i] = high[o, i] * _LOSS
        _lift_line(even, odd, -_DELTA, 0)
        _lift_line(odd, even, -_GAMMA, 1)
        _lift_line(even, odd, -_BETA, 0)
        _lift_line(odd, even, -_ALPHA, 1)
        for i in range(odd.size):
            rows[o, 2 * i] = even[i]
            rows[o, 2 * i + 1] = odd[i]
        if even.size > odd.size:
            rows[o, 2 * odd.size] = even[odd.size]


__all__ = [
    "GAINS",
    "MARGIN",
    "REACH",
    "UNDOING",
    "Axes",
    "Bands",
    "forward",
    "inverse",
    "join",
    "needed",
    "orientations",
]
