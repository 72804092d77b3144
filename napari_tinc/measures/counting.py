"""Passes over all voxels of a box, compiled: one instead of the twenty that numpy takes, and without Python's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.kernels import compiled

Array = npt.NDArray[Any]


@compiled
def _add_errors(reference, decoded, rows, starts, threshold, squares, largest, both, either):  # type: ignore[no-untyped-def]
    planes, lines = rows
    for z in range(reference.shape[0]):
        for y in range(reference.shape[1]):
            for part in range(starts.size - 1):
                total, most, common, marked = 0.0, 0.0, 0, 0
                for x in range(starts[part], starts[part + 1]):
                    first, second = float(reference[z, y, x]), float(decoded[z, y, x])
                    difference = first - second
                    total += difference * difference
                    most = max(most, abs(difference))
                    truth, found = first >= threshold, second >= threshold
                    common += truth & found
                    marked += truth + found
                octant = planes[z], lines[y], part
                squares[octant] += total
                largest[octant] = max(largest[octant], most)
                both[octant] += common
                either[octant] += marked


@compiled
def _count(values, low, counts):  # type: ignore[no-untyped-def]
    # By turns, for equal values that follow one another would wait for each other.
    for line in range(values.shape[0]):
        for x in range(values.shape[1]):
            counts[x & 1, int(values[line, x]) - low] += 1


def add_errors(
    reference: Array, decoded: Array, inner: Sequence[npt.NDArray[np.int64]], threshold: float, sums: Sequence[Array]
) -> None:
    """Add up by octants how far a decoded box is from its original.

    Parameters
    ----------
    reference, decoded : ndarray
        Real voxels of the box, of one shape of up to three axes.
    inner : sequence of ndarray of int64
        Where the octants begin along every axis, counted from the box's start.
    threshold : float
        Lowest value of the foreground.
    sums : sequence of ndarray, one entry per octant that the box meets
        Sums of squared differences, and the largest ones (float64); voxels that are foreground in both boxes, and the
        sum of those in one and those in the other (int64).
    """
    starts = [np.zeros(1, np.int64)] * (3 - reference.ndim) + list(inner)
    first, second = _in_three_axes(_known(reference)), _in_three_axes(_known(decoded))
    edges = [np.append(start, side) for start, side in zip(starts, first.shape, strict=True)]
    rows = tuple(np.repeat(np.arange(len(edge) - 1), np.diff(edge)) for edge in edges[:2])
    _add_errors(first, second, rows, edges[2], threshold, *map(_in_three_axes, sums))


def count_values(values: Array, low: int, bins: int) -> npt.NDArray[np.int64]:
    """Count how often ``low`` and the whole numbers after it are among values; there are no others."""
    counts = np.zeros((2, bins), np.int64)
    _count(_known(values).reshape(-1, values.shape[-1]), low, counts)
    total: npt.NDArray[np.int64] = counts[0] + counts[1]
    return total


def _in_three_axes(voxels: Array) -> Array:
    return voxels[(None,) * (3 - voxels.ndim)]


def _known(voxels: Array) -> Array:
    """Return voxels in a dtype that numba knows and that holds all of them."""
    dtype = voxels.dtype.newbyteorder("=")
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    elif dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return voxels.astype(dtype, copy=False)


__all__ = ["add_errors", "count_values"]
