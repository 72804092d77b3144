"""The restoration filter: what coarse quantisation does to neighbours, undone as far as it is the same everywhere.

A decoded voxel is moved by a weighted sum of how its neighbours along the axes differ from it. The weights depend on
how much they differ in all (the voxel's *activity*), and on whether they are brighter or darker; the encoder finds
them by least squares against the original, and they are in the file. After the adaptive loop filter of video coding
(Tsai et al., *Adaptive Loop Filtering for Video Coding*, 2013), here outside of any loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds
from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import integer
from napari_tinc.kernels import compiled, part
from napari_tinc.system.threads import block_threads

Floats32 = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]

# Neighbours on either side along every axis.
RADIUS = 2
FEATURES = 3 * RADIUS
MAX_BINS = 16
# Weights in 64ths; activities in quarters of an octave, in units of the model's output.
WEIGHT_STEP = 1 / 64
_PER_OCTAVE, _ONE, EDGES = 4, 128, 256
# Quarters of an octave by the first 7 bits of a float's fraction.
_QUARTERS = np.array([math.floor(4 * math.log2(1 + (i + 0.5) / 128)) for i in range(128)], np.int32)
_RIDGE = 1e-5
_PART_VOXELS = 2**18


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

    def apply(self, values: Floats32) -> Floats32:
        """Filter the inner part of a volume.

        Parameters
        ----------
        values : ndarray of float32, shape (z + 4, y + 4, x + 4)
            With two neighbours on every side; beyond the end of a volume its last voxels are repeated.

        Returns
        -------
        ndarray of float32, shape (z, y, x)
        """
        thresholds, weights = self.tables()
        weights = weights.reshape(-1, FEATURES)
        out = np.empty([side - 2 * RADIUS for side in values.shape], np.float32)
        for _ in block_threads().map(
            lambda part: _restore(values, thresholds, weights, out, part[0], part[1]), _parts(out.shape)
        ):
            pass
        return out

    def tables(self) -> tuple[Floats32, Floats32]:
        """Activities where bins begin, but for the first, and the weights, shape (len(edges) + 1, 2, 6)."""
        thresholds = np.array([2 ** ((edge - _ONE) / _PER_OCTAVE) for edge in self.edges], np.float32)
        return thresholds, self.weights.astype(np.float32) * np.float32(WEIGHT_STEP)


class Moments:
    """Sums over voxels from which the best weights of any bins follow."""

    def __init__(self) -> None:
        self._products = np.zeros((EDGES, 2, FEATURES, FEATURES))
        self._targets = np.zeros((EDGES, 2, FEATURES))

    def add(self, values: Floats32, wanted: Floats32, importance: Floats32) -> None:
        """Take a part of a volume into account.

        Parameters
        ----------
        values : ndarray of float32, shape (z + 4, y + 4, x + 4)
            As for :meth:`Restoration.apply`.
        wanted : ndarray of float32, shape (z, y, x)
            What the filter should make of them.
        importance : ndarray of float32, shape (z, y, x) or (1, 1, 1)
            Weights of the squared errors.
        """

        def seen(part: tuple[int, int]) -> tuple[Sums, Sums]:
            products, targets = np.zeros_like(self._products), np.zeros_like(self._targets)
            _gather(values, wanted, importance, products, targets, part[0], part[1])
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


@part()
def _look(values, z, y, features, activity, total):  # type: ignore[no-untyped-def]
    """Fill in the features of a row, its activities and the sums of its features."""
    centre = values[z, y, RADIUS : RADIUS + activity.size]
    for x in range(activity.size):
        activity[x] = total[x] = 0
    for axis in range(3):
        for r in range(RADIUS):
            d = r + 1
            dz, dy, dx = d if axis == 0 else 0, d if axis == 1 else 0, d if axis == 2 else 0
            before = values[z - dz, y - dy, RADIUS - dx : RADIUS - dx + activity.size]
            behind = values[z + dz, y + dy, RADIUS + dx : RADIUS + dx + activity.size]
            feature = features[axis * RADIUS + r]
            for x in range(activity.size):
                low, high = before[x] - centre[x], behind[x] - centre[x]
                feature[x] = np.float32(0.5) * (low + high)
                activity[x] += abs(low) + abs(high)
                total[x] += feature[x]


@compiled
def _restore(values, thresholds, weights, out, start, stop):  # type: ignore[no-untyped-def]
    """Filter some rows, by one simple loop after the other, which the compiler makes vectors of."""
    width = out.shape[2]
    features = np.empty((FEATURES, width), np.float32)
    activity, total = np.empty(width, np.float32), np.empty(width, np.float32)
    chosen = np.empty(width, np.uint32)  # by bin and by the sign of the sum
    for row in range(start, stop):
        z, y = row // out.shape[1], row % out.shape[1]
        _look(values, z + RADIUS, y + RADIUS, features, activity, total)
        for x in range(width):
            chosen[x] = total[x] > 0
        for threshold in thresholds:
            for x in range(width):
                chosen[x] += np.uint32(2) * np.uint32(activity[x] >= threshold)
        centre, moved = values[z + RADIUS, y + RADIUS, RADIUS:], out[z, y]
        one, two, three = features[0], features[1], features[2]
        four, five, six = features[3], features[4], features[5]
        for x in range(width):  # all at once: weights of a voxel lie side by side
            w = weights[chosen[x]]
            moved[x] = (
                centre[x] + w[0] * one[x] + w[1] * two[x] + w[2] * three[x] + w[3] * four[x]
                + w[4] * five[x] + w[5] * six[x]
            )  # fmt: skip


@compiled
def _gather(values, wanted, importance, products, targets, start, stop):  # type: ignore[no-untyped-def]
    width = wanted.shape[2]
    features = np.empty((FEATURES, width), np.float32)
    activity, total = np.empty(width, np.float32), np.empty(width, np.float32)
    bits = activity.view(np.int32)
    one = importance.size == 1
    for row in range(start, stop):
        z, y = row // wanted.shape[1], row % wanted.shape[1]
        _look(values, z + RADIUS, y + RADIUS, features, activity, total)
        for x in range(width):
            if activity[x] == 0:
                continue
            number = min(
                max(_PER_OCTAVE * ((bits[x] >> 23) - 127) + _QUARTERS[bits[x] >> 16 & 127] + _ONE, 0), EDGES - 1
            )
            sign = 1 if total[x] > 0 else 0
            error = wanted[z, y, x] - values[z + RADIUS, y + RADIUS, x + RADIUS]
            weight = importance[0, 0, 0] if one else importance[z, y, x]
            for i in range(FEATURES):
                scaled = weight * features[i, x]
                targets[number, sign, i] += scaled * error
                for j in range(i + 1):
                    products[number, sign, i, j] += scaled * features[j, x]


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
    "Moments",
    "Restoration",
    "around",
    "bins_of",
    "pack_restoration",
    "parse_restoration",
    "restoration_size",
]
