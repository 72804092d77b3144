"""A part of a volume that stands for the whole: the region looked at, and blocks spread evenly."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.inputs import check_dtype, check_volume
from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.arrays.scratch import ArrayLike, halton
from napari_tinc.errors import InputError
from napari_tinc.measures import metrics

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]

# Up to so many voxels a volume is its own sample; else so many are in so many blocks.
WHOLE = 2**22
VOXELS, BLOCKS = 3 * 2**18, 6
# Wavelets of a thinner block would see too little of what surrounds its voxels.
_LEAST_SIDE = 32


@dataclass(frozen=True, eq=False)
class Sample:
    """Blocks of one channel and time point.

    Parameters
    ----------
    blocks : list of ndarray
        All of one shape, spatial axes alone; the first holds the region.
    place : tuple of slice
        Where the region is in the first block.
    nbytes : int
        Bytes of the whole array.
    item_nbytes, item_voxels : int
        Bytes and voxels of one channel and time point.
    value_range : float
        Maximum minus minimum of the whole array where it is in memory, of the blocks where not.
    """

    blocks: list[Array]
    place: Slices
    nbytes: int
    item_nbytes: int
    item_voxels: int
    value_range: float

    @property
    def voxels(self) -> int:
        """Voxels of all blocks together."""
        return sum(block.size for block in self.blocks)

    @property
    def is_whole(self) -> bool:
        """Whether the one block is all there is."""
        return self.voxels == self.item_voxels and len(self.blocks) == 1


def draw(array: ArrayLike, region: Slices | None, metadata: Metadata) -> Generator[tuple[int, int], None, Sample]:
    """Read a sample of an array.

    Parameters
    ----------
    array : ndarray or array-like
    region : tuple of slice or None
        One slice of step 1 per axis; None is the middle.
    metadata : Metadata
        Axes of the array.

    Yields
    ------
    blocks read, all blocks

    Raises
    ------
    InputError
        If the array or the region cannot be used.
    """
    check_dtype(np.dtype(array.dtype))
    bounds = _bounds(region, array.shape, metadata.axes)
    leading = [i for i, axis in enumerate(metadata.axes) if axis in LEADING]
    spatial = [i for i in range(len(array.shape)) if i not in leading]
    shape = tuple(array.shape[i] for i in spatial)
    wanted = [bounds[i] for i in spatial]
    if math.prod(shape) <= WHOLE:
        places = [[(0, side) for side in shape]]
    else:
        first = _block(wanted, shape)
        sides = [stop - start for start, stop in first]
        points = halton(BLOCKS, len(shape))[1:]  # the first is a corner
        starts = [[int(p * (n - side + 1)) for p, n, side in zip(point, shape, sides, strict=True)] for point in points]
        places = [first, *([(a, a + side) for a, side in zip(start, sides, strict=True)] for start in starts)]
    blocks = []
    for number, place in enumerate(places, 1):
        box: list[Any] = [bounds[i][0] for i in range(len(array.shape))]
        for i, (start, stop) in zip(spatial, place, strict=True):
            box[i] = slice(start, stop)
        part = array[tuple(box)]
        blocks.append(np.asarray(part.compute() if hasattr(part, "compute") else part))
        yield number, len(places)
    for block in blocks:
        check_volume(block, Metadata.default(block.ndim))
    inside = tuple(slice(max(a, lo) - lo, min(b, hi) - lo) for (a, b), (lo, hi) in zip(wanted, places[0], strict=True))
    known = array if isinstance(array, np.ndarray) else np.concatenate(blocks)
    itemsize = blocks[0].dtype.itemsize
    return Sample(
        blocks, inside, math.prod(array.shape) * itemsize, math.prod(shape) * itemsize, math.prod(shape),
        metrics.value_range(known),
    )  # fmt: skip


def _bounds(region: Slices | None, shape: tuple[int, ...], axes: str) -> list[tuple[int, int]]:
    """Start and stop of every axis."""
    if region is None:
        # Of channels and time points the first, of space the middle half.
        return [(0, 1) if axis in LEADING else (n // 4, n - n // 4) for n, axis in zip(shape, axes, strict=True)]
    if len(region) != len(shape):
        raise InputError(f"expected a region with a slice for each of {len(shape)} axes, got {len(region)}")
    bounds = []
    for part, side, axis in zip(region, shape, axes, strict=True):
        start, stop, step = part.indices(side)
        if step != 1 or start >= stop:
            raise InputError(f"expected a region of at least one voxel along {axis}, within 0:{side}, got {part}")
        bounds.append((start, stop))
    return bounds


def _block(wanted: list[tuple[int, int]], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Bounds of a block about the middle of a region: not too thin, nor of more voxels than a block may have."""
    sides = [min(n, max(b - a, _LEAST_SIDE)) for (a, b), n in zip(wanted, shape, strict=True)]
    left = VOXELS // BLOCKS
    for position, axis in enumerate(sorted(range(len(sides)), key=sides.__getitem__)):
        # As near to a cube as the region allows.
        sides[axis] = min(sides[axis], int(left ** (1 / (len(sides) - position)) + 1e-9))
        left //= sides[axis]
    starts = [min(max(0, (a + b - side) // 2), n - side) for (a, b), side, n in zip(wanted, sides, shape, strict=True)]
    return [(start, start + side) for start, side in zip(starts, sides, strict=True)]


__all__ = ["BLOCKS", "VOXELS", "WHOLE", "Sample", "draw"]
