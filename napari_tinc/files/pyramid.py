"""The resolutions of an OME-Zarr image: how many there are, and how each is made from the one before."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from skimage.measure import block_reduce

from napari_tinc.arrays.metadata import SPATIAL
from napari_tinc.arrays.scratch import ArrayLike, blocks

# A viewer draws the coarsest level at once, and in 3-D draws it alone.
COARSEST_SIDE = 256
# Written at a time; what it is made of is eight times as much, and is held as float64.
_BLOCK_VOXELS = 2**20


def level_shapes(shape: tuple[int, ...], axes: str) -> list[tuple[int, ...]]:
    """Halve an image until no spatial axis is longer than ``COARSEST_SIDE``.

    Axes that are short enough stay as they are: a viewer that shows a coarse level of a thin stack still finds every
    plane in it.

    Parameters
    ----------
    shape : tuple of int
        Of the finest level.
    axes : str
        One letter per axis.

    Returns
    -------
    list of tuple of int
        The finest first. A voxel that is left over at the end of an axis counts as a half: nothing is cut off.
    """
    shapes = [shape]
    while any(letter in SPATIAL and n > COARSEST_SIDE for letter, n in zip(axes, shapes[-1], strict=True)):
        pairs = zip(axes, shapes[-1], strict=True)
        shapes.append(tuple(-(-n // 2) if letter in SPATIAL and n > COARSEST_SIDE else n for letter, n in pairs))
    return shapes


def fill_level(coarse: zarr.Array[Any], fine: ArrayLike) -> None:
    """Make every voxel of a level the mean of the two, four or eight that it covers one level finer.

    Parameters
    ----------
    coarse : zarr.Array
        Filled block by block, where its chunks meet.
    fine : ndarray or zarr.Array
        Axes of another length than those of ``coarse`` are halved. Integers are rounded to the nearest, halves to even.
    """
    factors = tuple(2 if many != few else 1 for many, few in zip(fine.shape, coarse.shape, strict=True))
    for block in blocks(coarse, _BLOCK_VOXELS)[0]:
        read = tuple(slice(f * part.start, f * part.stop) for f, part in zip(factors, block, strict=True))
        coarse[block] = _means(np.asarray(fine[read]), factors)


def _means(voxels: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    # What is left over at the end is repeated, and so is the mean of itself.
    whole = np.pad(voxels, [(0, -side % factor) for side, factor in zip(voxels.shape, factors, strict=True)], "edge")
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities
        means: NDArray[Any] = block_reduce(  # type: ignore[no-untyped-call]
            whole, factors, np.mean, func_kwargs={"dtype": np.float64}
        )
    return (np.rint(means) if voxels.dtype.kind in "iu" else means).astype(voxels.dtype)
