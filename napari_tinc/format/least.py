"""How small the file of a volume can be at all."""

from __future__ import annotations

import math
from functools import lru_cache

from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.format.frame import Frame, pack
from napari_tinc.format.header import MODEL_CONSTANT, MODEL_WAVELETS, Header, ItemRange, sizes_of
from napari_tinc.format.table import KIND_QUALITY, KIND_WAVELETS, Segment

_PROVENANCE: dict[str, str | int | float | bool] = {
    "version": "0",
    "psnr": 0,
}  # what every file of ours says of its making, as short as can be
_BYTE = b"\0"


@lru_cache(maxsize=64)
def least_bytes(shape: tuple[int, ...], dtype: str, metadata: Metadata, varied: bool) -> int:
    """Return a number of bytes that no file of a volume is smaller than, whatever its voxels are.

    It is that of a frame with nothing in it: the header, and where the voxels differ a byte in every segment that a
    file has then. A real file says more.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
        One of `DTYPES`.
    metadata : Metadata
    varied : bool
        Whether it is known that not all voxels are equal.
    """
    items = math.prod(sizes_of(metadata.axes, shape, LEADING))
    nothing, something = (0.0, 1.0) if dtype.startswith("f") else (0, 1)
    first, others = ItemRange(nothing, something if varied else nothing, 0, 0), ItemRange(nothing, nothing, 0, 0)
    ranges = (first, *(others,) * (items - 1))
    quality = [Segment(KIND_QUALITY, item, 0, _BYTE) for item in range(items)]
    segments = (*quality, Segment(KIND_WAVELETS, 0, 0, _BYTE)) if varied else ()
    model = MODEL_WAVELETS if varied else MODEL_CONSTANT
    header = Header(shape, dtype, metadata, ranges, (), model, b"", 0, 0, _PROVENANCE)
    return len(pack(Frame(header, segments)))


__all__ = ["least_bytes"]
