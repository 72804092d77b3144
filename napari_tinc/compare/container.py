"""The file of a peer: what its decoder must know besides the codec's own bytes, and nothing else.

One byte each for the codec, the dtype and the number of axes; four for every side, one for which axes are channels
and time; then for every spatial volume its smallest and largest value in the volume's dtype, the length of the codec's
bytes in four bytes, and these bytes. A spatial volume of one value has none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_tinc.arrays.axes import item_count, items_first, items_last, spatial_shape
from napari_tinc.arrays.inputs import DTYPES

Array = NDArray[Any]

# The order is part of the files; new names go to the end.
CODECS = ("sperr", "sz3", "zfp", "jpeg2000", "jpegxl", "hevc", "av1", "vvc")

_START = struct.Struct("<BBBB")
_SIDE = struct.Struct("<I")


def pack(array: Array, axes: str, codec: str, encode: Callable[[NDArray[np.float32]], bytes]) -> bytes:
    """Make a file of a volume.

    Parameters
    ----------
    array : ndarray
        The volume, of one of ``napari_tinc.arrays.inputs.DTYPES``.
    axes : str
        Letters of ``tczyx``, one per axis of the array.
    codec : str
        One of :data:`CODECS`.
    encode : callable
        Codes one spatial volume (z, y, x) scaled to 0–1; a picture is a volume of one plane.
    """
    leading = sum(1 << i for i, axis in enumerate(axes) if axis in "tc")
    parts = [_START.pack(CODECS.index(codec), DTYPES.index(array.dtype.name), array.ndim, leading)]
    parts += [_SIDE.pack(side) for side in array.shape]
    for item in items_first(array, axes):
        low, high = item.min(), item.max()
        parts.append(np.array([low, high], array.dtype.newbyteorder("<")).tobytes())
        span = float(high) - float(low)
        coded = b"" if span == 0 else encode(((item.astype(np.float64) - float(low)) / span).astype(np.float32)
                                             .reshape(_three(item.shape)))  # fmt: skip
        parts += [_SIDE.pack(len(coded)), coded]
    return b"".join(parts)


def overhead(shape: tuple[int, ...], axes: str, itemsize: int) -> int:
    """Bytes of a file besides the codec's own."""
    return _START.size + _SIDE.size * len(shape) + item_count(axes, shape) * (2 * itemsize + _SIDE.size)


def unpack(data: bytes, decoder: Callable[[str], Callable[[bytes, tuple[int, ...]], Array]]) -> Array:
    """Read the volume back from a file; values are rounded for integers and clipped to the original's range.

    Parameters
    ----------
    data : bytes
        What :func:`pack` made. It is trusted: the only files read are those of our own cache, checked by their hash.
    decoder : callable
        From the codec's name to its decoder.
    """
    codec, kind, ndim, leading = _START.unpack_from(data)
    at = _START.size + _SIDE.size * ndim
    shape = tuple(side for (side,) in _SIDE.iter_unpack(data[_START.size : at]))
    # Any letters do that tell leading axes from spatial ones.
    axes = "".join("t" if leading >> i & 1 else "x" for i in range(ndim))
    spatial = spatial_shape(axes, shape)
    dtype = np.dtype(DTYPES[kind])
    items = np.empty((item_count(axes, shape), *spatial), dtype)
    decode = decoder(CODECS[codec])
    for item in items:
        low, high = np.frombuffer(data, dtype.newbyteorder("<"), 2, at)
        at += 2 * dtype.itemsize
        (length,) = _SIDE.unpack_from(data, at)
        at += _SIDE.size
        item[...] = low
        if length:
            unit = decode(data[at : at + length], _three(spatial)).reshape(spatial)
            item[...] = _restored(unit, float(low), float(high), dtype)
        at += length
    return items_last(items, axes, shape)


def _three(spatial: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (3 - len(spatial)) + spatial


def _restored(unit: Array, low: float, high: float, dtype: np.dtype[Any]) -> Array:
    values = unit.astype(np.float64) * (high - low) + low
    if dtype.kind != "f":
        np.rint(values, out=values)
    return np.clip(values, low, high, out=values).astype(dtype)
