"""The volume to be compressed: items first, measured, normalised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import quality
from napari_tinc.arrays import scratch
from napari_tinc.arrays.axes import items_first
from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.arrays.scratch import Bounds, boxes
from napari_tinc.errors import InputError
from napari_tinc.format import ItemRange
from napari_tinc.geometry.octree import Octree, choose_splits
from napari_tinc.limits import LIMITS
from napari_tinc.masks.mask import CodedMask
from napari_tinc.measures import metrics, signal
from napari_tinc.measures.noise import note_of, sampled_noise
from napari_tinc.system.threads import side_by_side
from napari_tinc.wavelets.residual import Residual

Array = npt.NDArray[Any]

# Squares of a larger range overflow.
_LARGEST_RANGE = 1e150
# The scale of a smaller one is 0, or has lost digits.
_SMALLEST_RANGE = 1e-300
_NOTED = 4  # of so many channels and time points a file says the noise
_SMALLEST_WEIGHT, _LARGEST_WEIGHT = 1e-30, 1e30
# Standard deviation over range that the coarsest scale code stands for.
_LEAST_DEVIATION = 2 ** (-255 / 16)


@dataclass(frozen=True)
class Original:
    """A volume and what compression needs to know of it.

    Parameters
    ----------
    items : ndarray, shape (items, *spatial)
        One spatial volume per channel and time point, row-major in the array's axis order.
    shape : tuple of int
        Shape of the whole array.
    metadata : Metadata
    weights : ndarray, shape (items or 1, *spatial), or None
        Weight of every voxel in the loss.
    ranges : tuple of ItemRange
        Value range and normalisation of every item.
    masks : tuple of CodedMask or None
        One per item, or none at all. With masks ``items`` are what is to be coded, continued beyond the masks, and the
        ``weights`` those of the whole, but 0 outside.
    given_up : float
        Squared error outside of the masks, normalised.
    thresholds : tuple of int
        Where the foreground of every item begins, as files store it, if it is not to be found here.
    """

    items: Array
    shape: tuple[int, ...]
    metadata: Metadata
    weights: Array | None
    ranges: tuple[ItemRange, ...]
    masks: tuple[CodedMask | None, ...] = ()
    given_up: float = 0.0
    thresholds: tuple[int, ...] = ()

    @classmethod
    def prepare(cls, array: Array, metadata: Metadata, weights: Array | None) -> Original:
        """Arrange and measure an array that has passed :func:`napari_tinc.arrays.inputs.check_volume`."""
        items = items_first(array, metadata.axes)
        checked = None if weights is None else _check_weights(weights, array.shape, items, metadata.axes)
        return cls(items, array.shape, metadata, checked, tuple(_item_range(item) for item in items))

    @property
    def spatial(self) -> tuple[int, ...]:
        """Spatial shape."""
        return self.items.shape[1:]

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Spatial shape with three axes: an image has one plane."""
        z, y, x = (1,) * (3 - len(self.spatial)) + self.spatial
        return z, y, x

    @property
    def dtype(self) -> str:
        """Dtype as frames name it."""
        return str(self.items.dtype.str[1:])

    @property
    def is_constant(self) -> bool:
        """Whether every item has one value only."""
        return all(limits.minimum == limits.maximum for limits in self.ranges)

    @property
    def value_range(self) -> float:
        """Maximum minus minimum over the whole array."""
        highest = max(limits.maximum for limits in self.ranges)
        return float(highest) - float(min(limits.minimum for limits in self.ranges))

    @cached_property
    def threshold_codes(self) -> tuple[int, ...]:
        """Otsu threshold of every item, rounded as files store it; 0 for an item of one value."""
        if self.thresholds:
            return self.thresholds
        pairs = zip(self.items, self.ranges, strict=True)
        return tuple(
            quality.threshold_code(metrics.otsu_threshold(item), limits.minimum, limits.maximum)
            if limits.minimum < limits.maximum
            else 0
            for item, limits in pairs
        )

    @cached_property
    def consistency(self) -> float | None:
        """Mean global consistency of the items that have one."""
        splits = choose_splits(self.spatial, 1)
        measured = [signal.global_consistency(item, splits) for item in self.items]
        known = [value for value in measured if value is not None]
        return float(np.mean(known)) if known else None

    @property
    def noise_note(self) -> str:
        """What is found of noise in the first channels and time points, as files hold it."""
        return note_of([sampled_noise(item) for item in self.items[:_NOTED]])

    @cached_property
    def _mean_weights(self) -> tuple[float, ...]:
        assert self.weights is not None
        if self.masks:  # divided before what is outside lost its weight
            return (1.0,) * len(self.weights)
        return tuple(float(weights.mean(dtype=np.float64)) or 1.0 for weights in self.weights)

    def middle(self, voxels: int) -> Original:
        """Return the middle of every item, of about ``voxels`` in all and the same proportions; itself if no larger."""
        if self.items.size <= voxels:
            return self
        bounds = scratch.middle(self.spatial, voxels / self.items.size)
        place = tuple(slice(start, stop) for start, stop in bounds)
        items = self.items[(slice(None), *place)]
        left = (stop - start for start, stop in bounds)
        shape = tuple(
            n if axis in LEADING else next(left) for n, axis in zip(self.shape, self.metadata.axes, strict=True)
        )
        weights = None if self.weights is None else self.weights[(slice(None), *place)]
        return Original(items, shape, self.metadata, weights, tuple(_item_range(item) for item in items))

    def voxel_weights(self, item: int, box: Bounds) -> npt.NDArray[np.float32]:
        """Weight of every voxel in a box of an item, mean 1 over the item; only for a source that has weights."""
        assert self.weights is not None
        row = item % len(self.weights)
        place = tuple(slice(start, stop) for start, stop in box)
        normalised: npt.NDArray[np.float32] = self.weights[row][place] / np.float32(self._mean_weights[row])
        return normalised

    def leaf_measure(self, tree: Octree, within: str) -> npt.NDArray[np.float64]:
        """Claim of every leaf of every item under the strategy within a level."""
        weights = [
            None if self.weights is None else self.weights[i % len(self.weights)] for i in range(len(self.items))
        ]
        return np.concatenate(
            [signal.leaf_measure(item, tree, within, weight) for item, weight in zip(self.items, weights, strict=True)]
        )

    def residual(self, item: int, said: npt.NDArray[np.float32] | None = None) -> Residual | None:
        """Return what is left of an item, normalised, when something was ``said`` of it; None if it has one value.

        Parameters
        ----------
        item : int
        said : ndarray of float32, of the item's shape, optional
            What a network says of it, normalised.
        """
        limits = self.ranges[item]
        if limits.minimum == limits.maximum:
            return None
        voxels = self.items[item].reshape(self.volume_shape)
        wide = np.float64 if voxels.dtype.itemsize > 2 else np.float32

        def read(box: Bounds) -> npt.NDArray[np.float32]:
            place = tuple(slice(a, b) for a, b in box)
            values = np.subtract(voxels[place], limits.offset, dtype=wide)
            narrow: npt.NDArray[np.float32] = np.divide(values, limits.scale, dtype=wide).astype(np.float32, copy=False)
            if said is not None:
                narrow -= said.reshape(voxels.shape)[place]
            return narrow

        def read_weights(box: Bounds) -> npt.NDArray[np.float32]:
            return self.voxel_weights(item, box[3 - len(self.spatial) :]).reshape([b - a for a, b in box])

        return Residual(self.volume_shape, read, None if self.weights is None else read_weights)


def _item_range(item: Array) -> ItemRange:
    """Range of one item, and the codes that bring it near mean 0 and standard deviation 1."""
    low, high = item.min().item(), item.max().item()
    span = float(high) - float(low)
    if not span < _LARGEST_RANGE:
        raise InputError(f"expected a range below {_LARGEST_RANGE:g}, got {low} to {high}: rescale the volume")
    if not span:
        return ItemRange(low, high, 0, 0)
    if span < _SMALLEST_RANGE:
        raise InputError(f"expected a range above {_SMALLEST_RANGE:g}, got {low} to {high}: rescale the volume")
    mean, deviation = _mean_and_deviation(item)
    scale = round(-16 * math.log2(max(deviation / span, _LEAST_DEVIATION)))
    offset = round(65535 * (mean - low) / span)  # beyond the range where a float cannot tell the mean from its ends
    return ItemRange(low, high, min(max(offset, 0), 65535), min(max(scale, 0), 255))


def _mean_and_deviation(item: Array) -> tuple[float, float]:
    """Both in float64, without a copy of the item."""
    pieces = [tuple(slice(a, b) for a, b in box) for box in boxes(tuple((0, n) for n in item.shape), LIMITS.voxels)]
    mean = sum(side_by_side(lambda piece: float(item[piece].sum(dtype=np.float64)), pieces)) / item.size

    def squares(piece: tuple[slice, ...]) -> float:
        difference = np.subtract(item[piece], mean, dtype=np.float64)
        np.square(difference, out=difference)  # not a product, for which BLAS starts its own threads
        return float(difference.sum())

    return mean, math.sqrt(sum(side_by_side(squares, pieces)) / item.size)


def _check_weights(weights: Array, shape: tuple[int, ...], items: Array, axes: str) -> Array:
    """Bring weights to (items or 1, *spatial) or say what is wrong with them."""
    if weights.shape == shape:
        arranged = items_first(weights, axes)
    elif weights.shape == items.shape[1:]:
        arranged = weights[None]
    else:
        raise InputError(f"expected weights of shape {shape} or {items.shape[1:]}, got {weights.shape}")
    if arranged.dtype.kind not in "biuf":
        raise InputError(f"expected weights that are numbers, got {arranged.dtype}: mark what matters with 1")
    low, high = float(arranged.min()), float(arranged.max())
    if not (low >= 0 and _SMALLEST_WEIGHT <= high <= _LARGEST_WEIGHT):
        raise InputError(
            f"expected weights that are not negative, the largest from {_SMALLEST_WEIGHT:g} to {_LARGEST_WEIGHT:g}, "
            f"got {low:g} to {high:g}: mark what matters with 1"
        )
    narrow = scratch.zeros(arranged.shape, np.float32)
    narrow[...] = arranged
    return narrow
