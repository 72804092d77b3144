"""Voxels kept as they are: what no lossy model can take, such as labels of 64 bits, infinities, or a few voxels.

An item is the differences of consecutive voxels, its bytes sorted by significance, deflated. That is all a lossless
file is for here: whoever wants small lossless files of images is served better by a codec made for it.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays.scratch import Bounds
from napari_tinc.errors import FormatError
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.sampling import nearest_voxels
from napari_tinc.system.forks import with_fresh_locks

_RAW_DEFLATE = -15
_LEVEL = 6


def pack_exact(item: npt.NDArray[Any]) -> bytes:
    """Return the segment of an item.

    Parameters
    ----------
    item : ndarray
        Spatial axes only; a dtype of the frame.
    """
    bits = _bits(item.dtype)
    numbers = np.ascontiguousarray(item).view(bits).ravel().astype(bits.newbyteorder("<"), copy=False)
    differences = np.diff(numbers, prepend=numbers.dtype.type(0))
    planes = np.ascontiguousarray(
        differences.astype(bits.newbyteorder("<")).view(np.uint8).reshape(-1, bits.itemsize).T
    )
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    return packer.compress(planes.tobytes()) + packer.flush()


def parse_exact(payload: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the voxels of a segment.

    Parameters
    ----------
    payload : bytes
    dtype : dtype
    shape : tuple of int
        Spatial; a frame's header bounds what it takes.

    Raises
    ------
    FormatError
        It is not a deflate stream of exactly these voxels.
    """
    bits = _bits(dtype)
    count = math.prod(shape)
    unpacker = zlib.decompressobj(_RAW_DEFLATE)
    try:
        planes = unpacker.decompress(payload, count * bits.itemsize + 1)
    except zlib.error as error:
        raise FormatError(f"exact voxels: expected a deflate stream, got {error}: the file is damaged") from error
    if len(planes) != count * bits.itemsize or not unpacker.eof or unpacker.unused_data:
        raise FormatError(
            f"exact voxels: expected {count * bits.itemsize} bytes and then the end, got {len(planes)} or more: "
            "the file is damaged"
        )
    little = np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(bits.itemsize, count).T)
    differences = little.view(bits.newbyteorder("<")).ravel().astype(bits, copy=False)
    numbers = np.cumsum(differences, dtype=bits)
    if dtype.kind == "b" and numbers.size and numbers.max() > 1:
        raise FormatError("exact voxels: expected 0 and 1 for booleans, got others: the file is damaged")
    return numbers.view(dtype).reshape(shape)


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Unsigned integers as wide as a dtype, whose differences wrap around and lose nothing."""
    return np.dtype(f"u{dtype.itemsize}")


@with_fresh_locks
@dataclass(frozen=True, eq=False)
class ExactItem:
    """Decodes regions of an item that is kept as it is; the whole of it, once, when it is first asked for.

    Parameters
    ----------
    payload : bytes
    dtype : dtype
    shape : tuple of int
        Spatial.
    """

    payload: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @cached_property
    def _voxels(self) -> npt.NDArray[Any]:
        return parse_exact(self.payload, self.dtype, self.shape)

    def decode(self, bounds: Bounds, scale: float, out: npt.NDArray[Any]) -> None:
        """Fill an array of the shape of the bounds; at other scales than 1 with the nearest voxels."""
        out[...] = self._voxels[np.ix_(*nearest_voxels(bounds, scale, self.shape))]

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes that any region needs: all."""
        return len(self.payload)

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of every leaf: an even share."""
        return np.full(tree.leaves, len(self.payload) / tree.leaves)


__all__ = ["ExactItem", "pack_exact", "parse_exact"]
