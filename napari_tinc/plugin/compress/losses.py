"""What a compression cost, as a user sees it: the worst octants as pictures, and what became of fine structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tinc.arrays.metadata import LEADING

if TYPE_CHECKING:
    from napari_tinc.lazy import Compressed

Array = np.ndarray[Any, Any]

_WORST = 3
# Skeletons take a second per million voxels; what is measured is taken from the middle.
_VOXELS = 2**20


@dataclass(frozen=True, eq=False)
class Loss:
    """One octant, at the plane of its largest error.

    Parameters
    ----------
    octant : int
        Its number, in item and node order.
    psnr : float
        dB over the range of its channel and time.
    original, decoded : ndarray, 2-D
    voxel : tuple of int
        Centre of the plane, one index per axis of the volume.
    """

    octant: int
    psnr: float
    original: Array
    decoded: Array
    voxel: tuple[int, ...]

    @property
    def error(self) -> Array:
        """Original minus decoded."""
        return self.original.astype(np.float64) - self.decoded.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of the structure is kept, dim parts included, each from 0 to 1; see docs/advise.md.

    Parameters
    ----------
    dice : float
        Of the foreground.
    centreline : float or None
        Centreline Dice: of its course, whatever its thickness; None where it is not thin.
    part : str
        Empty if the whole volume was measured, else what was.
    """

    dice: float
    centreline: float | None
    part: str

    def sentence(self) -> str:
        """Say it in a user's words."""
        where = f", {self.part}" if self.part else ""
        course = "" if self.centreline is None else f" and {self.centreline:.1%} of its course (centreline Dice)"
        said = f"Structure, dim parts included: {self.dice:.1%} of its voxels (Dice){course}"
        return f"{said} are as in the original{where}."


def worst_octants(data: Array, volume: Compressed, count: int = _WORST) -> list[Loss]:
    """Return the octants of the lowest PSNR, worst first.

    Parameters
    ----------
    data : array
        The original; only regions of it are read, and it may be larger than memory.
    volume : Compressed
        With the axes of the original.
    count : int
        At most so many.
    """
    octants = volume.octants
    order = sorted(range(len(octants)), key=lambda number: octants[number].psnr)
    return [_loss(data, volume, number) for number in order[:count] if np.isfinite(octants[number].psnr)]


def _loss(data: Array, volume: Compressed, number: int) -> Loss:
    octant, axes = volume.octants[number], volume.metadata.axes
    item, spatial = iter(np.unravel_index(octant.item, volume.leading_shape)), iter(octant.box)
    region = [int(next(item)) if axis in LEADING else next(spatial) for axis in axes]
    original, decoded = np.asarray(data[tuple(region)]), volume.decode(tuple(region))
    middle = [bound if isinstance(bound, int) else (bound.start + bound.stop - 1) // 2 for bound in region]
    if original.ndim == 3:
        squared = (original.astype(np.float64) - decoded.astype(np.float64)) ** 2
        plane = int(squared.sum((1, 2)).argmax())
        axis = next(i for i, letter in enumerate(axes) if letter not in LEADING)
        middle[axis] = octant.box[0].start + plane
        original, decoded = original[plane], decoded[plane]
    return Loss(number, float(octant.psnr), np.array(original), decoded, tuple(middle))


def kept_structure(data: Array, volume: Compressed) -> Kept | None:
    """Measure what is kept of the structure in the middle of the volume.

    Returns
    -------
    Kept or None
        The mean over channels and times; None if none of them has a foreground.
    """
    from napari_tinc.measures.downstream import Structure

    axes, whole = volume.metadata.axes, True
    dices, courses = [], []
    items = list(np.ndindex(volume.leading_shape))
    for number in range(0, len(items), -(-len(items) // 4)):  # of a long series, a few
        item, spatial = iter(items[number]), volume.spatial_shape
        box = iter(_middle(spatial, _VOXELS // min(4, len(items))))
        region = tuple(int(next(item)) if axis in LEADING else next(box) for axis in axes)
        original = np.asarray(data[region])
        if original.min() == original.max():
            continue
        found = Structure([original], 0.0).kept(volume.decode(region))
        if found is not None:
            dices.append(found[0])
            courses += [] if found[1] is None else [found[1]]
        whole &= original.shape == tuple(spatial)
    if not dices:
        return None
    course = float(np.mean(courses)) if courses else None
    return Kept(float(np.mean(dices)), course, "" if whole and len(items) <= 4 else "in the middle")


def _middle(sides: tuple[int, ...], voxels: int) -> list[slice]:
    """Cut a box out of the middle: the largest with about the volume's proportions, and all of its short sides."""
    left, spans = float(voxels), {}
    for count, axis in enumerate(sorted(range(len(sides)), key=lambda axis: sides[axis])):
        side = min(sides[axis], max(1, int(left ** (1 / (len(sides) - count)))))
        left /= side
        start = (sides[axis] - side) // 2
        spans[axis] = slice(start, start + side)
    return [spans[axis] for axis in range(len(sides))]


__all__ = ["Kept", "Loss", "kept_structure", "worst_octants"]
