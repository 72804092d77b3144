"""Items that are coded as whole numbers, and corrections of items that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.format import ItemRange
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import BlockCache, overlap, slices_of
from napari_tinc.geometry.sampling import nearest_voxels
from napari_tinc.limits import LIMITS
from napari_tinc.predictive.bins import Bins
from napari_tinc.predictive.blocks import NumberBlocks
from napari_tinc.predictive.payload import Corrections, Predicted
from napari_tinc.system.threads import side_by_side


class Inner(Protocol):
    """An item that is to be corrected."""

    def decode(self, bounds: Bounds, scale: float, out: npt.NDArray[Any]) -> None: ...
    def region_bytes(self, bounds: Bounds, scale: float) -> int: ...
    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, eq=False)
class PredictedItem:
    """Decodes regions of an item whose voxels are bins, predicted from one another.

    Parameters
    ----------
    shape : tuple of int
        Spatial.
    limits : ItemRange
    bins : Bins
    blocks : NumberBlocks
    """

    shape: tuple[int, ...]
    limits: ItemRange
    bins: Bins
    blocks: NumberBlocks

    @classmethod
    def of(
        cls, predicted: Predicted, shape: tuple[int, ...], limits: ItemRange, cache: BlockCache, nbytes: int = 0
    ) -> PredictedItem:
        """Make the decoder of what a segment of so many bytes holds."""
        return cls(shape, limits, predicted.bins, NumberBlocks(predicted.numbers, cache, nbytes))

    def decode(self, bounds: Bounds, scale: float, out: npt.NDArray[Any]) -> None:
        """Fill an array of the shape of the bounds; at other scales than 1 with the nearest voxels."""

        def decoded(box: Bounds) -> None:
            place = overlap(slices_of(box), bounds)
            grids = nearest_voxels(box, scale, self.shape)
            around = _around(grids)
            numbers = self.blocks.region(_in_space(around)).reshape([b - a for a, b in around])
            near = np.ix_(*(grid - first for grid, (first, _) in zip(grids, around, strict=True)))
            out[place] = self.bins.values(numbers[near], self.limits, out.dtype)

        for _ in side_by_side(decoded, boxes(bounds, LIMITS.voxels)):
            pass

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the blocks that a region needs."""
        return self.blocks.region_bytes(_in_space(_around(nearest_voxels(bounds, scale, self.shape))))

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of every leaf."""
        return self.blocks.leaf_bytes(tree)


@dataclass(frozen=True, eq=False)
class CorrectedItem:
    """An item whose voxels are moved by whole multiples of a width, so that none is too far off.

    Parameters
    ----------
    inner : Item
    limits : ItemRange
    width : float
        In intensity units; a whole number for integers.
    blocks : NumberBlocks
    """

    inner: Inner
    limits: ItemRange
    width: float
    blocks: NumberBlocks

    @classmethod
    def of(
        cls, corrections: Corrections, inner: Inner, limits: ItemRange, cache: BlockCache, nbytes: int = 0
    ) -> CorrectedItem:
        """Make the decoder of what a segment of so many bytes corrects."""
        return cls(inner, limits, corrections.width, NumberBlocks(corrections.numbers, cache, nbytes))

    def decode(self, bounds: Bounds, scale: float, out: npt.NDArray[Any]) -> None:
        """Fill an array of the shape of the bounds; other scales than 1 are not corrected."""
        self.inner.decode(bounds, scale, out)
        if scale != 1:
            return
        for box in boxes(bounds, LIMITS.voxels):
            place = overlap(slices_of(box), bounds)
            numbers = self.blocks.region(_in_space(box)).reshape([b - a for a, b in box])
            moved = np.nonzero(numbers)
            part = out[place]
            part[moved] = corrected(part[moved], numbers[moved], self.width, self.limits)

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of what is corrected, and of the blocks of corrections that a region needs."""
        corrections = self.blocks.region_bytes(_in_space(bounds)) if scale == 1 else 0
        return self.inner.region_bytes(bounds, scale) + corrections

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of every leaf."""
        return self.inner.leaf_bytes(tree) + self.blocks.leaf_bytes(tree)


def corrected(
    voxels: npt.NDArray[Any], numbers: npt.NDArray[np.int64], width: float, limits: ItemRange
) -> npt.NDArray[Any]:
    """Return voxels moved by multiples of a width, clipped to the item's range."""
    if voxels.dtype.kind == "f":
        moved: npt.NDArray[Any] = voxels.astype(np.float64) + numbers * width
    else:
        moved = voxels.astype(np.int64) + numbers * int(width)
    clipped: npt.NDArray[Any] = np.clip(moved, limits.minimum, limits.maximum)
    return clipped.astype(voxels.dtype)


def _around(grids: list[npt.NDArray[np.intp]]) -> Bounds:
    return tuple((int(grid.min()), int(grid.max()) + 1) for grid in grids)


def _in_space(bounds: Bounds) -> Bounds:
    """Bounds along z, y, x: an image has one plane."""
    return ((0, 1),) * (3 - len(bounds)) + tuple(bounds)


__all__ = ["CorrectedItem", "PredictedItem", "corrected"]
