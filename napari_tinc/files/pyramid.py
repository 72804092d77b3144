"""The resolutions of an OME-Zarr image: how many there are, and how each is made from the one before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from skimage.measure import block_reduce

from napari_tinc.arrays.metadata import SPATIAL
from napari_tinc.arrays.scratch import ArrayLike, blocks
from napari_tinc.system.threads import usable_cores

# A viewer draws the coarsest level at once, and in 3-D draws it alone.
COARSEST_SIDE = 256
# Each holds what a chunk is the mean of, eight times its voxels.
_MOST_THREADS = 8

Region = tuple[slice, ...]


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


def write_level(level: zarr.Array[Any], read: Callable[[Region], NDArray[Any]]) -> None:
    """Write a level chunk by chunk, in threads.

    Left to zarr, chunks would still be on their way to the disk after one of them has failed, or Ctrl-C, and come back
    when all were removed.

    Parameters
    ----------
    level : zarr.Array
    read : callable
        Gives the voxels of a region.
    """

    def write(region: Region) -> None:
        level[region] = read(region)

    with ThreadPoolExecutor(min(usable_cores(), _MOST_THREADS), thread_name_prefix="tinc-blocks") as pool:
        for _ in pool.map(write, blocks(level, 1)[0]):
            pass


def coarser(fine: ArrayLike, shape: tuple[int, ...]) -> Callable[[Region], NDArray[Any]]:
    """Tell what the regions of a level are, from the level one finer.

    Parameters
    ----------
    fine : ndarray or zarr.Array
    shape : tuple of int
        Of the coarser level: axes of another length are halved.

    Returns
    -------
    callable
        Gives the voxels of a region: means of the two, four or eight that each covers. Integers are rounded to the
        nearest, halves to even.
    """
    factors = tuple(2 if many != few else 1 for many, few in zip(fine.shape, shape, strict=True))

    def read(region: Region) -> NDArray[Any]:
        covered = tuple(slice(f * part.start, f * part.stop) for f, part in zip(factors, region, strict=True))
        return means(np.asarray(fine[covered]), factors)

    return read


def means(voxels: NDArray[Any], factors: tuple[int, ...]) -> NDArray[Any]:
    """Return the means of so many voxels along every axis, in their dtype; what is left over at an end counts whole."""
    # What is left over at the end is repeated, and so is the mean of itself.
    whole = np.pad(voxels, [(0, -side % factor) for side, factor in zip(voxels.shape, factors, strict=True)], "edge")
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities
        means: NDArray[Any] = block_reduce(  # type: ignore[no-untyped-call]
            whole, factors, np.mean, func_kwargs={"dtype": np.float64}
        )
    return (np.rint(means) if voxels.dtype.kind in "iu" else means).astype(voxels.dtype)
