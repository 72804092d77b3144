"""What the wavelet layer has to code, and its wavelet transform: read and made box by box, never all in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from napari_tinc.arrays import scratch
from napari_tinc.limits import LIMITS
from napari_tinc.system.threads import side_by_side
from napari_tinc.wavelets import transform as wavelet
from napari_tinc.wavelets.transform import Axes, Floats32

Read = Callable[[scratch.Bounds], Floats32]


@dataclass(frozen=True, eq=False)
class Residual:
    """What is to be coded of an item, read piece by piece.

    Parameters
    ----------
    shape : tuple of int
        Voxels along z, y, x.
    read : callable
        Return the box of these bounds as float32, finite.
    weights : callable or None
        Likewise the weights of the voxels' squared errors, mean 1 over the item; None if all weigh the same.
    """

    shape: tuple[int, int, int]
    read: Read
    weights: Read | None = None

    def squared_error(self) -> float:
        """Weighted sum of squares."""
        total = 0.0
        for box in scratch.boxes(tuple((0, n) for n in self.shape), LIMITS.voxels):
            values = self.read(box)
            total += float(np.vdot(values, values if self.weights is None else self.weights(box) * values))
        return total

    def middle(self, voxels: int) -> Residual:
        """Return the middle of about so many voxels, of the same proportions."""
        bounds = scratch.middle(self.shape, min(1.0, voxels / math.prod(self.shape)))

        def shifted(read: Read) -> Read:
            return lambda box: read(tuple((a + o, b + o) for (a, b), (o, _) in zip(box, bounds, strict=True)))

        z, y, x = (stop - start for start, stop in bounds)
        return Residual((z, y, x), shifted(self.read), None if self.weights is None else shifted(self.weights))


def split(
    read: Read, shape: tuple[int, ...], axes: Axes, orientations: Sequence[int]
) -> Generator[None, None, tuple[Floats32, Floats32]]:
    """Split a volume: its low-pass, and all its high-pass bands in one array; there is a step after every box."""
    halves = tuple((n + 1) // 2 if axis in axes else n for axis, n in enumerate(shape))
    low, bands = scratch.zeros(halves, np.float32), scratch.zeros((len(orientations), *halves), np.float32)
    into = {0: low} | dict(zip(orientations, bands, strict=True))

    def transformed(box: scratch.Bounds) -> None:
        around = tuple(
            (max(0, 2 * a - wavelet.REACH), min(n, 2 * b + wavelet.REACH)) if axis in axes else (a, b)
            for axis, ((a, b), n) in enumerate(zip(box, shape, strict=True))
        )
        begins = [
            a - lo // 2 if axis in axes else 0 for axis, ((a, _), (lo, _)) in enumerate(zip(box, around, strict=True))
        ]
        for orientation, part in wavelet.forward(read(around), axes).items():
            inner = part[tuple(slice(first, first + b - a) for first, (a, b) in zip(begins, box, strict=True))]
            place = tuple(slice(a, a + n) for (a, _), n in zip(box, inner.shape, strict=True))
            into[orientation][place] = inner

    for _ in side_by_side(transformed, scratch.boxes(tuple((0, n) for n in halves), LIMITS.voxels // 2 ** len(axes))):
        yield
    return low, bands


def halved(read: Read, shape: tuple[int, ...], axes: Axes) -> Floats32:
    """Weights of the coefficients of one octave, from those one octave finer."""
    halves = tuple((n + 1) // 2 if axis in axes else n for axis, n in enumerate(shape))
    weights = scratch.zeros(halves, np.float32)
    for box in scratch.boxes(tuple((0, n) for n in halves), LIMITS.voxels // 2 ** len(axes)):
        part = read(
            tuple(
                (2 * a, min(n, 2 * b)) if axis in axes else (a, b)
                for axis, ((a, b), n) in enumerate(zip(box, shape, strict=True))
            )
        )
        for axis in axes:
            part = _halve(part, axis)
        weights[tuple(slice(a, b) for a, b in box)] = part
    return weights


def reader(array: Floats32) -> Read:
    """Read the boxes of an array."""
    return lambda box: array[tuple(slice(a, b) for a, b in box)]


def _halve(weights: Floats32, axis: int) -> Floats32:
    """Mean of every two planes; a last single one stays."""
    even, odd = (np.take(weights, range(first, weights.shape[axis], 2), axis) for first in (0, 1))
    halved = even.copy()
    paired = halved[tuple(slice(0, n) for n in odd.shape)]
    paired += odd
    paired /= 2
    return halved


__all__ = ["Read", "Residual", "halved", "reader", "split"]
