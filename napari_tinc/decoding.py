"""Regions of an array, with its channels and time points, from decoders of its items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.axes import Region, item_count, items_last, spatial_shape
from napari_tinc.arrays.metadata import LEADING
from napari_tinc.arrays.scratch import Bounds, zeros
from napari_tinc.errors import InputError
from napari_tinc.geometry.sampling import scaled_side
from napari_tinc.layers import Item


@dataclass(frozen=True)
class ArrayDecoder:
    """Decodes regions of an array.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    axes : str
        One letter of ``tczyx`` per axis.
    items : callable
        Returns the decoder of an item; items are row-major over channels and time points.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    items: Callable[[int], Item]

    def decode(self, region: Region | None = None, scale: float = 1.0) -> npt.NDArray[Any]:
        """Decode a region, see :meth:`napari_tinc.volume.CompressedVolume.decode`."""
        spatial, numbers, bounds, squeezed = self._parts(region, scale)
        decoded = zeros((numbers.size, *(stop - start for start, stop in spatial)), self.dtype)
        for row, item in zip(decoded, numbers.ravel().tolist(), strict=True):
            if row.size:
                self.items(item).decode(spatial, scale, row)
        arranged = items_last(decoded, self.axes, tuple(stop - start for start, stop in bounds))
        return arranged.squeeze(squeezed) if squeezed else arranged

    def _parts(
        self, region: Region | None, scale: float
    ) -> tuple[Bounds, npt.NDArray[np.int64], list[tuple[int, int]], tuple[int, ...]]:
        """Spatial bounds of a region, its items, the bounds of all axes, and which were given by a number."""
        bounds, squeezed = resolve_region(region, self.scaled_shape(scale))
        leading = [i for i, axis in enumerate(self.axes) if axis in LEADING]
        spatial = tuple(bound for bound, axis in zip(bounds, self.axes, strict=True) if axis not in LEADING)
        numbers = np.arange(item_count(self.axes, self.shape)).reshape([self.shape[i] for i in leading])
        return spatial, numbers[tuple(slice(*bounds[i]) for i in leading)], bounds, squeezed

    def decode_item(self, item: int, region: tuple[slice, ...] = (), scale: float = 1.0) -> npt.NDArray[Any]:
        """Decode a region of one item; its axes are the spatial ones."""
        items = item_count(self.axes, self.shape)
        if not 0 <= item < items:
            raise InputError(f"expected an item below {items}, got {item}: count channels from 0")
        shape = tuple(scaled_side(side, scale) for side in spatial_shape(self.axes, self.shape))
        bounds, _ = resolve_region(region, shape)
        out = zeros(tuple(stop - start for start, stop in bounds), self.dtype)
        if out.size:
            self.items(item).decode(tuple(bounds), scale, out)
        return out

    def region_bytes(self, region: Region | None = None, scale: float = 1.0) -> int:
        """Bytes of layers that a region needs, see :meth:`napari_tinc.volume.CompressedVolume.region_bytes`."""
        bounds, items = self._parts(region, scale)[:2]
        return sum(self.items(item).region_bytes(bounds, scale) for item in items.ravel().tolist())

    def scaled_shape(self, scale: float) -> tuple[int, ...]:
        """Shape of the whole array decoded at ``scale``; channels and time points keep their number."""
        return scaled_shape(self.shape, self.axes, scale)


def scaled_shape(shape: tuple[int, ...], axes: str, scale: float) -> tuple[int, ...]:
    """Shape of an array with these axes at ``scale``; channels and time points keep their number.

    Raises
    ------
    InputError
        If it is no scale.
    """
    if not (isinstance(scale, Real) and 0 < scale <= 64):
        raise InputError(f"expected a scale above 0 and at most 64, got {scale!r}: 1 is the original's resolution")
    pairs = zip(shape, axes, strict=True)
    return tuple(side if axis in LEADING else scaled_side(side, scale) for side, axis in pairs)


def resolve_region(region: Region | None, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """Start and stop of every axis, and which axes were given by a number.

    Raises
    ------
    InputError
        The region lies outside the shape, or has steps.
    """
    if region is not None and not isinstance(region, list | tuple):
        raise InputError(f"expected a region as a tuple with an entry per axis, got {region!r}: such as (slice(0, 8),)")
    entries = () if region is None else tuple(region)
    if len(entries) > len(shape):
        raise InputError(f"expected at most {len(shape)} entries in a region, got {len(entries)}")
    bounds: list[tuple[int, int]] = []
    squeezed: list[int] = []
    for axis, side in enumerate(shape):
        entry = entries[axis] if axis < len(entries) else slice(None)
        if not isinstance(entry, slice | Integral):
            raise InputError(f"expected a slice or a whole number on axis {axis}, got {entry!r}")
        if isinstance(entry, slice):
            try:
                start, stop, step = entry.indices(side)
            except (TypeError, ValueError) as error:
                raise InputError(f"expected a slice of whole numbers on axis {axis}, got {entry!r}") from error
            if step != 1:
                raise InputError(f"expected slices of step 1, got step {step} on axis {axis}: use scale to skip voxels")
            bounds.append((start, max(start, stop)))
            continue
        index = int(entry) + side if int(entry) < 0 else int(entry)
        if not 0 <= index < side:
            raise InputError(f"expected an index below {side} on axis {axis}, got {entry}")
        bounds.append((index, index + 1))
        squeezed.append(axis)
    return bounds, tuple(squeezed)


__all__ = ["ArrayDecoder", "resolve_region", "scaled_shape"]
