"""Decode what a file holds, and measure it against the original: PSNR of the whole, quality of every octant."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.encode.original import Original
from napari_tinc.geometry.octree import Octree
from napari_tinc.layers import Item, ItemDecoder
from napari_tinc.limits import LIMITS
from napari_tinc.measures import metrics
from napari_tinc.progress import Progress
from napari_tinc.quality import Quality, pack_quality, threshold_value
from napari_tinc.system.threads import side_by_side


class Measured(NamedTuple):
    """What a file has lost.

    Parameters
    ----------
    psnr : float
        Over the whole array's own range, in dB.
    quality : list of bytes
        Quality segment of every item, see :func:`napari_tinc.quality.pack_quality`.
    largest : float
        Largest error of a voxel, in intensity units.
    """

    psnr: float
    quality: list[bytes]
    largest: float


def measure(decoders: Callable[[int], Item], original: Original, tree: Octree) -> Generator[Progress, None, Measured]:
    """Decode box by box and compare with the original; yield after every box."""
    edges, order = tree.edges(tree.depth), tuple(tree.grid_index(tree.depth).T)
    pieces = list(boxes(tuple((0, side) for side in tree.shape), LIMITS.voxels))
    squared, largest, quality = 0.0, 0.0, []
    for index, (item, limits) in enumerate(zip(original.items, original.ranges, strict=True)):
        code = original.threshold_codes[index]
        total = metrics.OctantErrors(edges, threshold_value(code, limits.minimum, limits.maximum))
        for number, (box, decoded) in enumerate(_decoded(decoders(index), pieces, original)):
            yield Progress.unmeasured("measuring", index * len(pieces) + number, len(original.items) * len(pieces))
            total.add(item[tuple(slice(a, b) for a, b in box)], decoded, box)
        squared += float(total.squares.sum())
        largest = max(largest, float(total.max_error.max()))
        psnr = metrics.psnr_from_mse(total.mse, limits.span)[order]
        with np.errstate(divide="ignore", invalid="ignore"):
            peak = -20 * np.log10(total.max_error / limits.span)[order] if limits.span else np.full(tree.leaves, np.inf)
        quality.append(pack_quality(Quality(code, psnr, peak, total.dice[order])))
    return Measured(float(metrics.psnr_from_mse(squared / original.items.size, original.value_range)), quality, largest)


def squared_error(decoders: Callable[[int], ItemDecoder], original: Original) -> Generator[Progress, None, float]:
    """Decode box by box and return the sum of all items' weighted squared errors, normalised."""
    pieces = list(boxes(tuple((0, side) for side in original.spatial), LIMITS.voxels))
    total = 0.0
    for index, (item, limits) in enumerate(zip(original.items, original.ranges, strict=True)):
        if not limits.span:
            continue
        for number, (box, decoded) in enumerate(_decoded(decoders(index), pieces, original)):
            yield Progress.unmeasured("measuring", index * len(pieces) + number, len(original.items) * len(pieces))
            errors = np.subtract(item[tuple(slice(a, b) for a, b in box)], decoded, dtype=np.float64)
            errors /= limits.scale
            weights = 1.0 if original.weights is None else original.voxel_weights(index, box)
            total += float(np.vdot(errors * weights, errors))
    return total


def _decoded(item: Item, pieces: list[Bounds], original: Original) -> Iterator[tuple[Bounds, npt.NDArray[Any]]]:
    """Decode pieces of an item, ahead of who measures them."""

    def decoded(box: Bounds) -> tuple[Bounds, npt.NDArray[Any]]:
        voxels = np.empty([b - a for a, b in box], original.items.dtype)
        item.decode(box, 1.0, voxels)
        return box, voxels

    return side_by_side(decoded, pieces)


__all__ = ["Measured", "measure", "squared_error"]
