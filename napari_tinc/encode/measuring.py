"""Decode what a file holds, and measure it against the original: PSNR of the whole, quality of every octant."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.encode.original import Original
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import slices_of
from napari_tinc.layers import Item, ItemDecoder
from napari_tinc.limits import LIMITS
from napari_tinc.measures import metrics
from napari_tinc.progress import Progress
from napari_tinc.quality import Quality, pack_quality, threshold_value
from napari_tinc.system.threads import side_by_side

Array = npt.NDArray[Any]


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
        threshold = threshold_value(code, limits.minimum, limits.maximum)
        total, decoder = metrics.OctantErrors(edges, threshold), decoders(index)
        errors_of = partial(_errors, decoder, item, edges, threshold)
        for number, errors in enumerate(side_by_side(errors_of, pieces)):
            yield Progress.unmeasured("measuring", index * len(pieces) + number, len(original.items) * len(pieces))
            total.merge(errors)
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
        weights = None if original.weights is None else partial(original.voxel_weights, index)
        squares_of = partial(_squares, decoders(index), item, limits.scale, weights)
        for number, part in enumerate(side_by_side(squares_of, pieces)):
            yield Progress.unmeasured("measuring", index * len(pieces) + number, len(original.items) * len(pieces))
            total += part
    return total


def _errors(
    decoder: Item, item: Array, edges: Sequence[npt.NDArray[np.int64]], threshold: float, box: Bounds
) -> metrics.OctantErrors:
    """Decode a box and compare it."""
    errors = metrics.OctantErrors(edges, threshold)
    errors.add(item[slices_of(box)], _decoded(decoder, box, item.dtype), box)
    return errors


def _squares(
    decoder: Item, item: Array, scale: float, weights: Callable[[Bounds], npt.NDArray[np.float32]] | None, box: Bounds
) -> float:
    """Decode a box and sum its weighted squared errors."""
    errors = np.subtract(item[slices_of(box)], _decoded(decoder, box, item.dtype), dtype=np.float64)
    errors /= scale
    np.square(errors, out=errors)
    return float((errors if weights is None else errors * weights(box)).sum())


def _decoded(decoder: Item, box: Bounds, dtype: np.dtype[Any]) -> Array:
    voxels = np.empty([b - a for a, b in box], dtype)
    decoder.decode(box, 1.0, voxels)
    return voxels


__all__ = ["Measured", "measure", "squared_error"]
