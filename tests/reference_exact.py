"""A second decoder of exact segments, written from ``docs/format.md`` alone, slowly and in plain numbers."""

from __future__ import annotations

import math
import zlib

import numpy as np
import numpy.typing as npt


def exact_output(payload: bytes, spatial: tuple[int, ...], dtype: str) -> npt.NDArray[np.generic]:
    """Return the voxels of a segment."""
    stream = zlib.decompressobj(-15)
    planes = stream.decompress(payload)
    assert stream.eof
    assert not stream.unused_data
    width, count = int(dtype[1]), math.prod(spatial)
    assert len(planes) == width * count
    before, voxels = 0, []
    for i in range(count):
        difference = sum(planes[plane * count + i] << 8 * plane for plane in range(width))
        before = (before + difference) % 2 ** (8 * width)
        voxels.append(before.to_bytes(width, "little"))
    return np.frombuffer(b"".join(voxels), np.dtype(dtype).newbyteorder("<")).reshape(spatial).astype(dtype)
