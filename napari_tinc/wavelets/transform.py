"""The wavelet transform of CDF 9/7 filters by lifting, on any length, whole or region by region.

Lifting after Daubechies & Sweldens, *Factoring wavelet transforms into lifting steps* (1998), with mirrored ends as in
JPEG 2000, so that a signal of any length gives as many coefficients. Low- and high-pass are scaled so that the
transform is nearly orthonormal: a squared error of the coefficients is about that of the voxels.
"""

from __future__ import annotations

import math
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
# Which samples a step is about. Not plain numbers, which would have numba compile what takes them once for each.
_EVENS, _ODDS = np.int64(0), np.int64(1)
_ONE = np.uint64(1)
# Floats of a row that are worked on at a time, so that ten of them stay in the cache.
_COLUMNS = 512
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


def band_of(volume: Floats32, orientation: int, axes: Axes) -> Floats32:
    """Place of a band in the volume that :func:`merge` makes of all bands, as :func:`dequantise` fills it.

    Bands alternate along z and y, plane by plane and row by row; along x the high-pass follows the low-pass.
    """
    place = [slice(orientation >> axis & 1, None, 2) if axis in axes else slice(None) for axis in range(2)]
    low = (volume.shape[2] + 1) // 2
    last = (slice(low, None) if orientation & 4 else slice(low)) if 2 in axes else slice(None)
    return volume[(*place, last)]


def merge(volume: Floats32, axes: Axes) -> None:
    """Invert :func:`forward` in place; the bands lie where :func:`band_of` says."""
    depth, height, width = volume.shape
    even, odd = np.empty((width + 1) // 2, np.float32), np.empty(width // 2, np.float32)
    if 1 in axes or 2 in axes:
        _merge(volume, 1 in axes, 2 in axes, even, odd)
    if 0 in axes:
        _merge(volume.reshape(1, depth, height * width), True, False, even, odd)


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
def _lift(row: Any, factor: Any, first: Any) -> None:
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
        _lift(rows[o], _ALPHA, _ODDS)
        _lift(rows[o], _BETA, _EVENS)
        _lift(rows[o], _GAMMA, _ODDS)
        _lift(rows[o], _DELTA, _EVENS)


@part()
def _add_both(rows: Any, i: Any, factor: Any, start: Any, stop: Any) -> None:
    """Add ``factor`` times both neighbours, mirrored at the ends, to a row, if there is such a row."""
    if i < 0 or i >= rows.shape[0]:
        return
    left, right = i - 1, i + 1
    if left < 0:
        left = right
    if right >= rows.shape[0]:
        right = left
    row, one, other = rows[i, start:stop], rows[left, start:stop], rows[right, start:stop]
    for k in range(row.size):  # from 0 on, or indices are looked at for being negative
        row[k] += factor * (one[k] + other[k])


@part()
def _gain(rows: Any, i: Any, factor: Any, start: Any, stop: Any) -> None:
    if i < rows.shape[0]:
        row = rows[i, start:stop]
        for k in range(row.size):
            row[k] *= factor


@compiled
def _merge(volume: Any, split_rows: Any, split_lines: Any, even: Any, odd: Any) -> None:
    """Invert the split of the last axis, and then that of the one before, of every plane."""
    for z in range(volume.shape[0]):
        rows = volume[z]
        if split_lines:
            for y in range(rows.shape[0]):
                _merge_line(rows[y], even, odd)
        if split_rows:
            # Some columns at a time and row by row: each is done with while it is in the cache.
            for start in range(0, rows.shape[1], _COLUMNS):
                stop = min(start + _COLUMNS, rows.shape[1])
                for i in range(0, rows.shape[0] + 4, 2):
                    _gain(rows, i, _GAIN, start, stop)
                    _gain(rows, i + 1, _LOSS, start, stop)
                    _add_both(rows, i, -_DELTA, start, stop)
                    _add_both(rows, i - 1, -_GAMMA, start, stop)
                    _add_both(rows, i - 2, -_BETA, start, stop)
                    _add_both(rows, i - 3, -_ALPHA, start, stop)


# Along the last axis every second sample would be a scalar by itself: there halves lie apart, and lines are added.


@part()
def _lift_line(own: Any, other: Any, factor: Any, first: Any) -> None:
    """Add to samples ``first``, ``first`` + 2, … of a line, which are ``own``, as :func:`_lift` does."""
    before = 1 - first  # whether the first of them is an end
    inside = min(own.size, other.size - first)
    middle, left, right = own[before:inside], other[before + first - 1 :], other[before + first :]
    for i in range(middle.size):
        middle[i] += factor * (left[i] + right[i])
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
        _lift_line(odd, even, _ALPHA, _ODDS)
        _lift_line(even, odd, _BETA, _EVENS)
        _lift_line(odd, even, _GAMMA, _ODDS)
        _lift_line(even, odd, _DELTA, _EVENS)
        for i in range(even.size):
            low[o, i] = even[i] * _LOSS
        for i in range(odd.size):
            high[o, i] = odd[i] * _GAIN


@part()
def _merge_line(line: Any, even: Any, odd: Any) -> None:
    for i in range(even.size):
        even[i] = line[i] * _GAIN
    high = line[even.size :]
    for i in range(odd.size):
        odd[i] = high[i] * _LOSS
    _lift_line(even, odd, -_DELTA, _EVENS)
    _lift_line(odd, even, -_GAMMA, _ODDS)
    _lift_line(even, odd, -_BETA, _EVENS)
    _lift_line(odd, even, -_ALPHA, _ODDS)
    for i in range(odd.size):
        place = np.uint64(i) << _ONE  # an index that may be negative is looked at for it
        line[place] = even[i]
        line[place + _ONE] = odd[i]
    if even.size > odd.size:
        line[2 * odd.size] = even[odd.size]


__all__ = [
    "GAINS",
    "MARGIN",
    "REACH",
    "UNDOING",
    "Axes",
    "Bands",
    "band_of",
    "forward",
    "merge",
    "needed",
    "orientations",
]
