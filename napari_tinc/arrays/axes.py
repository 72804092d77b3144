"""An array as a pile of spatial volumes, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from napari_tinc.arrays.metadata import LEADING

Array = npt.NDArray[Any]
# A slice or a number for every axis.
Region = tuple[slice | int, ...]


def items_first(array: Array, axes: str) -> Array:
    """View an array as (items, *spatial): one spatial volume per channel and time point, row-major."""
    order = _order(axes)
    spatial = [array.shape[i] for i, axis in enumerate(axes) if axis not in LEADING]
    return array.transpose(order).reshape(-1, *spatial)


def items_last(items: Array, axes: str, shape: tuple[int, ...]) -> Array:
    """Undo :func:`items_first`: an array of ``shape`` with its own order of axes."""
    order = _order(axes)
    arranged = items.reshape([shape[i] for i in order])
    return arranged.transpose([order.index(i) for i in range(len(axes))])


def item_count(axes: str, shape: tuple[int, ...]) -> int:
    """Channels times time points of an array."""
    return math.prod(side for side, axis in zip(shape, axes, strict=True) if axis in LEADING)


def spatial_shape(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of every item of an array."""
    return tuple(side for side, axis in zip(shape, axes, strict=True) if axis not in LEADING)


def _order(axes: str) -> list[int]:
    """Positions of the axes, channel and time first, each group in the array's own order."""
    return sorted(range(len(axes)), key=lambda i: axes[i] not in LEADING)
