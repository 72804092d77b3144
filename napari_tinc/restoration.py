"""The restoration filter: what coarse quantisation does to neighbours, undone as far as it is the same everywhere.

A decoded voxel is moved by a weighted sum of how its neighbours along the axes differ from it. The weights depend on
how much they differ in all (the voxel's *activity*), and on whether they are brighter or darker; the encoder finds
them by least squares against the original, and they are in the file. After the adaptive loop filter of video coding
(Tsai et al., *Adaptive Loop Filtering for Video Coding*, 2013), here outside of any loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds
from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import integer
from napari_tinc.kernels import compiled, part
from napari_tinc.lanes import FEATURES, LANES, RADIUS, SEEN, look, restore
from napari_tinc.system.forks import with_fresh_locks
from napari_tinc.system.threads import block_threads

Floats32 = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]
Triple = tuple[int, int, int]

MAX_BINS = 16
# Weights in 64ths; activities in quarters of an octave, in units of the model's output.
WEIGHT_STEP = 1 / 64
_PER_OCTAVE, _ONE, EDGES = 4, 128, 256
# Quarters of an octave by the first 7 bits of a float's fraction.
_QUARTERS = np.array([math.floor(4 * math.log2(1 + (i + 0.5) / 128)) for i in range(128)], np.int32)
_RIDGE = 1e-5
_PART_VOXELS = 2**18


class Surrounded(NamedTuple):
    """Voxels with their neighbours, as far as there are any: beyond the end of a volume its last ones are repeated.

    However a region was cut out of another, kernels are compiled for this alone.
    """

    memory: Floats32
    """All from the first value to the last."""
    steps: tuple[int, int]
    """By how much the next value along z and y is farther on there; along x it is the next one."""
    shape: Triple
    """Values along z, y, x: in a row at least as many as there are lanes."""
    begin: Triple
    """Where the voxels begin in them."""
    sides: Triple

    @classmethod
    def of(cls, values: Floats32, bounds: Bounds, grown: Bounds) -> Surrounded:
        """Take the voxels of a region from those of a larger one; an image has one plane."""
        flat = 3 - values.ndim
        pairs = zip(bounds, grown, strict=True)
        z, y, x = *[(0, 1)] * flat, *((a - lo, b - a) for (a, b), (lo, _) in pairs)
        values = values.reshape((1,) * flat + values.shape)
        lacking = LANES - x[1]
        if lacking > 0:
            values = np.pad(values, [(0, 0), (0, 0), (0, lacking)], mode="edge")
        elif values.strides[2] != values.itemsize:
            values = np.ascontiguousarray(values)
        (depth, height, width), size = values.shape, values.itemsize
        plane, row, _ = (stride // size for stride in values.strides)
        reach = (depth - 1) * plane + (height - 1) * row + width
        memory = np.lib.stride_tricks.as_strided(values, (reach,), (size,))
        return cls(memory, (plane, row), (depth, height, width), (z[0], y[0], x[0]), (z[1], y[1], x[1]))

    def planes(self, start: int, stop: int) -> Surrounded:
        """Some planes of the voxels."""
        z, y, x = self.begin
        return self._replace(begin=(z + start, y, x), sides=(stop - start, *self.sides[1:]))


class Mapping(NamedTuple):
    """What becomes of filtered values: they are scaled, moved, rounded if they are to be integers, and clipped."""

    scale: np.float32
    offset: np.float32
    minimum: np.float32
    maximum: np.float32
    integers: bool


_UNCHANGED = Mapping(np.float32(1), np.float32(0), np.float32(-np.inf), np.float32(np.inf), False)


@with_fresh_locks
@dataclass(frozen=True, eq=False)
class Restoration:
    """A filter of one item.

    Parameters
    ----------
    edges : tuple of int
        Ascending, 1 … 255; voxels of an activity of at least ``2 ** ((edge - 128) / 4)`` belong to the next bin.
    weights : ndarray of int8, shape (len(edges) + 1, 2, 6)
        In 64ths, by bin and by whether the features add up to more than 0.
    """

    edges: tuple[int, ...]
    weights: npt.NDArray[np.int8]

    def apply(self, voxels: Surrounded, mapping: Mapping | None = None) -> Floats32:
        """Filter voxels.

        Parameters
        ----------
        voxels : Surrounded
        mapping : Mapping, optional
            What is done with them afterwards.

        Returns
        -------
        ndarray of float32, shape (z, y, x)
        """
        depth, height, width = voxels.sides
        thresholds, rows = self._rows
        out = np.empty((depth, height, max(width, LANES)), np.float32)
        mapped = _UNCHANGED if mapping is None else mapping

        def restored(part: tuple[int, int]) -> None:
            _restore(*voxels[:4], thresholds, rows, *mapped, out, *part)

        for _ in block_threads().map(restored, _parts(out.shape)):
            pass
        return out[:, :, :width]

    @cached_property
    def _rows(self) -> tuple[Floats32, Floats32]:
        """Return what :meth:`tables` does, by bin and by sign a row of lanes."""
        thresholds, weights = self.tables()
        rows = np.zeros((2 * len(weights), LANES), np.float32)
        rows[:, :FEATURES] = weights.reshape(-1, FEATURES)
        return thresholds, rows

    def tables(self) -> tuple[Floats32, Floats32]:
        """Activities where bins begin, but for the first, and the weights, shape (len(edges) + 1, 2, 6)."""
        thresholds = np.array([2 ** ((edge - _ONE) / _PER_OCTAVE) for edge in self.edges], np.float32)
        return thresholds, self.weights.astype(np.float32) * np.float32(WEIGHT_STEP)


class Moments:
    """Sums over voxels from which the best weights of any bins follow."""

    def __init__(self) -> None:
        self._products = np.zeros((EDGES, 2, FEATURES, FEATURES))
        self._targets = np.zeros((EDGES, 2, FEATURES))

    def add(self, voxels: Surrounded, wanted: Floats32, importance: Floats32) -> None:
        """Take a part of a volume into account.

        Parameters
        ----------
        voxels : Surrounded
        wanted : ndarray of float32, shape (z, y, x)
            What the filter should make of them.
        importance : ndarray of float32, shape (z, y, x) or (1, 1, 1)
            Weights of the squared errors.
        """

        def seen(part: tuple[int, int]) -> tuple[Sums, Sums]:
            products, targets = np.zeros_like(self._products), np.zeros_like(self._targets)
            _gather(*voxels[:4], wanted, importance, products, targets, *part)
            return products, targets

        # In this order, so that a sum is the same whoever was first.
        for products, targets in block_threads().map(seen, _parts(wanted.shape)):
            self._products += products + np.tril(products, -1).swapaxes(-1, -2)
            self._targets += targets

    def best(self, most: int, price: float) -> tuple[Restoration | None, float]:
        """Choose the bins, by dynamic programming, and their weights.

        Parameters
        ----------
        most : int
            Bins there may be.
        price : float
            Squared error that a bin has to save.

        Returns
        -------
        restoration : Restoration or None
            None if no bin is worth its price.
        saved : float
            By how much the sum of squared errors falls.
        """
        used = np.flatnonzero(self._products.any((1, 2, 3)))
        if most < 1 or not used.size:
            return None, 0.0
        first = max(1, int(used[0]))  # edges below and above say nothing
        bounds = np.array([0, *range(first, int(used[-1]) + 1), EDGES])
        weights, gains = self._intervals(bounds)
        value = gains[0].copy()  # of the best bins that end at an edge; all in one bin
        came: list[npt.NDArray[np.int64]] = []
        totals = [value[-1]]
        for _ in range(1, min(most, MAX_BINS, len(bounds) - 1)):
            sums = value[:, None] + gains
            came.append(sums.argmax(0))
            value = sums.max(0)
            totals.append(value[-1])
        number = int(np.argmax([total - price * (i + 1) for i, total in enumerate(totals)])) + 1
        saved = float(totals[number - 1])
        if saved <= price * number:
            return None, 0.0
        cuts = [len(bounds) - 1]
        for origin in came[: number - 1][::-1]:
            cuts.append(int(origin[cuts[-1]]))
        cuts = [0, *reversed(cuts)]
        chosen = np.stack([weights[a, b] for a, b in pairwise(cuts)])
        return Restoration(tuple(int(bounds[cut]) for cut in cuts[1:-1]), chosen.astype(np.int8)), saved

    def _intervals(self, bounds: npt.NDArray[np.int64]) -> tuple[Sums, Sums]:
        """Weights in 64ths, and the error they save, of a bin from one bound to another; -inf if there is none."""
        products, targets = (
            np.concatenate([np.zeros((1, *sums.shape[1:])), np.cumsum(sums, 0)])[bounds]
            for sums in (self._products, self._targets)
        )
        inner, wanted = products[None] - products[:, None], targets[None] - targets[:, None]
        scale = np.trace(inner, axis1=-2, axis2=-1)[..., None, None]
        regular = inner + (_RIDGE * np.abs(scale) + np.finfo(np.float64).tiny) * np.eye(FEATURES)
        upper = np.triu(np.ones((len(bounds), len(bounds)), bool), 1)
        weights = np.zeros_like(wanted)
        weights[upper] = np.linalg.solve(regular[upper], wanted[upper][..., None])[..., 0]
        weights = np.clip(np.rint(np.nan_to_num(weights) / WEIGHT_STEP), -128, 127)
        used = weights * WEIGHT_STEP
        gains = 2 * (used * wanted).sum(-1) - np.einsum("...i,...ij,...j", used, inner, used)
        weights[gains <= 0] = 0
        return weights, np.where(upper, np.maximum(gains, 0).sum(-1), -np.inf)


def around(bounds: Bounds, shape: tuple[int, ...], reach: int = RADIUS) -> tuple[Bounds, list[tuple[int, int]]]:
    """Return the bounds of a region with its neighbours, and how many of these lie beyond the volume on every side."""
    grown = tuple((max(0, a - reach), min(n, b + reach)) for (a, b), n in zip(bounds, shape, strict=True))
    beyond = [(reach - a + lo, reach - hi + b) for (a, b), (lo, hi) in zip(bounds, grown, strict=True)]
    return grown, beyond


def _parts(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cut the rows of a volume, counted along the first two axes, into parts of some work each."""
    rows = shape[0] * shape[1]
    count = min(rows, max(1, math.prod(shape) // _PART_VOXELS))
    return list(pairwise(round(rows * i / count) for i in range(count + 1)))


@part(forceinline=True)
def _at(steps, shape, z, y):  # type: ignore[no-untyped-def]
    """Say where a row begins in memory; of planes and rows beyond the end it is the last one."""
    return min(max(z, 0), shape[0] - 1) * steps[0] + min(max(y, 0), shape[1] - 1) * steps[1]


@part(forceinline=True)
def _around(steps, shape, z, y, x):  # type: ignore[no-untyped-def]
    """Say where the rows before and behind begin, as :func:`napari_tinc.lanes.look` needs them."""
    return (
        _at(steps, shape, z - 1, y) + x, _at(steps, shape, z + 1, y) + x,
        _at(steps, shape, z - 2, y) + x, _at(steps, shape, z + 2, y) + x,
        _at(steps, shape, z, y - 1) + x, _at(steps, shape, z, y + 1) + x,
        _at(steps, shape, z, y - 2) + x, _at(steps, shape, z, y + 2) + x,
    )  # fmt: skip


@part()
def _copy_row(memory, steps, shape, z, y, x0, line):  # type: ignore[no-untyped-def]
    """Copy a row from a voxel on, with its neighbours."""
    row = memory[_at(steps, shape, z, y) :]
    first, stop = max(0, RADIUS - x0), min(line.size, shape[2] - x0 + RADIUS)
    inner, source = line[first:stop], row[x0 + first - RADIUS :]
    for x in range(inner.size):
        inner[x] = source[x]
    for x in range(first):
        line[x] = row[0]
    for x in range(stop, line.size):
        line[x] = row[shape[2] - 1]


@compiled
def _restore(  # type: ignore[no-untyped-def]
    memory, steps, shape, begin, thresholds, weights, scale, offset, minimum, maximum, integers, out, start, stop
):  # fmt: skip
    """Filter some rows."""
    width, x0 = out.shape[2], begin[2]
    line = np.empty(width + 2 * RADIUS, np.float32)
    for row in range(start, stop):
        z, y = row // out.shape[1], row % out.shape[1]
        moved = out[z, y]
        z, y = z + begin[0], y + begin[1]
        _copy_row(memory, steps, shape, z, y, x0, line)
        places = _around(steps, shape, z, y, x0)
        for x in range(0, width, LANES):
            restore(  # type: ignore[call-arg]
                line, memory, places, min(x, width - LANES), thresholds, weights, scale, offset, minimum, maximum,
                integers, moved,
            )  # fmt: skip


@compiled
def _gather(  # type: ignore[no-untyped-def]
    memory, steps, shape, begin, wanted, importance, products, targets, start, stop
):  # fmt: skip
    width, x0 = wanted.shape[2], begin[2]
    line, seen = np.empty(max(width, LANES) + 2 * RADIUS, np.float32), np.empty((SEEN, LANES), np.float32)
    activity, total = seen[FEATURES], seen[FEATURES + 1]
    bits = activity.view(np.int32)
    one = importance.size == 1
    for row in range(start, stop):
        z, y = row // wanted.shape[1], row % wanted.shape[1]
        _copy_row(memory, steps, shape, begin[0] + z, begin[1] + y, x0, line)
        places = _around(steps, shape, begin[0] + z, begin[1] + y, x0)
        first = 0
        for x in range(width):
            if x % LANES == 0:
                first = max(0, min(x, width - LANES))
                look(line, memory, places, first, seen)  # type: ignore[call-arg]
            lane = x - first
            if activity[lane] == 0:
                continue
            number = min(
                max(_PER_OCTAVE * ((bits[lane] >> 23) - 127) + _QUARTERS[bits[lane] >> 16 & 127] + _ONE, 0), EDGES - 1
            )
            sign = 1 if total[lane] > 0 else 0
            error = wanted[z, y, x] - line[x + RADIUS]
            weight = importance[0, 0, 0] if one else importance[z, y, x]
            for i in range(FEATURES):
                scaled = weight * seen[i, lane]
                targets[number, sign, i] += scaled * error
                for j in range(i + 1):
                    products[number, sign, i, j] += scaled * seen[j, lane]


def bins_of(restoration: Restoration) -> int:
    """Bins of a filter."""
    return len(restoration.edges) + 1


def restoration_size(bins: int) -> int:
    """Bytes of a restoration segment."""
    return bins * (1 + 2 * FEATURES) - 1


def pack_restoration(restoration: Restoration) -> bytes:
    """Store a restoration filter: the edges of its bins, then its weights."""
    return bytes(restoration.edges) + restoration.weights.tobytes()


def parse_restoration(payload: bytes) -> Restoration:
    """Invert :func:`pack_restoration`.

    Raises
    ------
    FormatError
        If the payload is not a restoration filter.
    """
    bins = (len(payload) + 1) // (1 + 2 * FEATURES)
    integer("bins of a restoration filter", bins, 1, MAX_BINS)
    if len(payload) != restoration_size(bins):
        raise FormatError(f"expected {restoration_size(bins)} bytes of {bins} bins, got {len(payload)}: damaged file")
    edges = tuple(payload[: bins - 1])
    if any(a >= b for a, b in pairwise((0, *edges))):
        raise FormatError(f"expected ascending edges of bins, got {edges}: damaged file")
    return Restoration(edges, np.frombuffer(payload, np.int8, offset=bins - 1).reshape(bins, 2, FEATURES))


__all__ = [
    "MAX_BINS",
    "RADIUS",
    "Mapping",
    "Moments",
    "Restoration",
    "Surrounded",
    "around",
    "bins_of",
    "pack_restoration",
    "parse_restoration",
    "restoration_size",
]
