"""Files that nobody would write by accident, with checksums that hold."""

from __future__ import annotations

import math

from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.format import MODEL_CONSTANT, Frame, Header, ItemRange, pack


def constant_frame(
    shape: tuple[int, ...],
    dtype: str = "u1",
    value: float = 7,
    axes: str = "",
    units: tuple[str, ...] = (),
    name: str = "",
    channel_names: tuple[str, ...] = (),
    between: int = 0,
    within: int = 0,
    display: Display | None = None,
) -> bytes:
    """Return a frame whose every voxel is ``value``: a few dozen bytes, whatever the shape."""
    axes = axes or Metadata.default(len(shape)).axes
    metadata = Metadata(
        axes, (1.0,) * len(shape), units or ("",) * len(shape), channel_names, name, display or Display()
    )
    items = math.prod(side for side, axis in zip(shape, axes, strict=True) if axis in "tc")
    limits = (ItemRange(value, value, 0, 0),) * items
    header = Header(shape, dtype, metadata, limits, (), MODEL_CONSTANT, b"", between, within, {})
    return pack(Frame(header, ()))
