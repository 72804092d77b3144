"""Files that nobody would write by accident, with checksums that hold."""

from __future__ import annotations

import math
import random

from napari_tinc.arrays.metadata import Display, Metadata
from napari_tinc.format import (
    KIND_QUALITY,
    KIND_WAVELETS,
    MODEL_CONSTANT,
    MODEL_WAVELETS,
    Frame,
    Header,
    ItemRange,
    Segment,
    pack,
)
from napari_tinc.geometry.pyramid import dyadic_splits
from napari_tinc.quality import quality_size
from napari_tinc.wavelets.blocks import CodedWavelets, Pyramid, WaveletHead
from napari_tinc.wavelets.payload import pack_wavelets


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


def gigavoxel() -> bytes:
    """Return a file of 1024³ voxels whose detail layer has something to say in one block of 16."""
    shape, source = (1024,) * 3, random.Random(0)
    pyramid = Pyramid(shape, dyadic_splits(shape, math.inf), 32)
    streams = tuple(source.randbytes(9) if i % 16 == 0 else b"" for i in range(pyramid.blocks))
    detail = pack_wavelets(CodedWavelets(WaveletHead(pyramid, 8000, (0, 0), 0), source.randbytes(50), streams))
    segments = Segment(KIND_QUALITY, 0, 0, bytes(quality_size(1))), Segment(KIND_WAVELETS, 0, 0, detail)
    limits = (ItemRange(0, 4000, 32768, 32),)
    header = Header(shape, "u2", Metadata.default(3, "large"), limits, (), MODEL_WAVELETS, b"", 0, 0, {})
    return pack(Frame(header, segments))
