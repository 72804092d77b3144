"""One chunk of an array as one frame, whatever is in it."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc.arrays.axes import item_count
from napari_tinc.arrays.metadata import MAX_ITEMS, Metadata
from napari_tinc.encode import framing
from napari_tinc.encode.compression import fill_steps, quantise
from napari_tinc.encode.original import Original
from napari_tinc.errors import BudgetError, FormatError, InputError
from napari_tinc.settings import Settings
from napari_tinc.system.forks import after_fork
from napari_tinc.system.steps import complete
from napari_tinc.target import Target
from napari_tinc.volume import CompressedVolume

Array = npt.NDArray[Any]
Region = tuple[slice, ...]

KINDS = "biuf"
# Without provenance: what an array's chunks have in common is said once, in the array's metadata.
SETTINGS = Settings(provenance=False)
# Lossy files of smaller chunks are mostly header, and of larger ones rarely beyond this share of the voxels' bytes.
_SMALL, _SHARE = 2**11, 0.4
# Voxels of the chunks that are kept open: each keeps the blocks that it has decoded.
_OPEN_VOXELS = 2**26


def encode_chunk(
    voxels: Array, axes: str | None, target: Target, fill: Any = None, settings: Settings = SETTINGS
) -> bytes:
    """Return the frame of a chunk.

    Parameters
    ----------
    voxels : ndarray
        Of any shape; booleans, integers or floats, with any values.
    axes : str or None
        One letter of ``tczyx`` per axis; by default the last ones of ``tczyx``.
    target : Target
    fill : scalar, optional
        Value of the voxels beyond the end of the array, which are left out; by default there are none.
    settings : Settings

    Returns
    -------
    bytes
        A lossy frame; an exact one where no lossy one can be made, or it would be no smaller: of booleans, integers of
        64 bits, values that are not finite, a few voxels, or a target out of reach.
    """
    if fill is not None and frame_shape(voxels.shape, axes)[0] == voxels.shape:
        voxels = _without_end(voxels, fill)
    arranged, metadata = _arranged(voxels, axes)
    if arranged.dtype.str[1:] in frames.EXACT_DTYPES or not _is_finite(arranged):
        return framing.exact(arranged, metadata)
    try:
        lossy = complete(fill_steps(Original.prepare(arranged, metadata, None), target, settings)).to_bytes()
    except (BudgetError, InputError):  # too few bytes, a PSNR out of reach, a range that float32 cannot hold
        return framing.exact(arranged, metadata)
    if voxels.nbytes <= _SMALL or len(lossy) > _SHARE * voxels.nbytes:
        return min(lossy, framing.exact(arranged, metadata), key=len)
    return lossy


def code_chunk(voxels: Array, axes: str | None, step: float, settings: Settings = SETTINGS) -> tuple[bytes, Array]:
    """Return the frame of a chunk at a step, and what it decodes to; settings ask for wavelets alone.

    Parameters
    ----------
    voxels, axes, step
        As for :func:`encode_chunk`; of an image's axes.

    Returns
    -------
    bytes
    ndarray
        The very voxels where the frame is exact.
    """
    arranged, metadata = _arranged(voxels, axes)
    if not _is_finite(arranged):
        return framing.exact(arranged, metadata), voxels
    original = Original.prepare(arranged, metadata, None)
    if original.is_constant:
        return framing.constant(original, settings.provenance), voxels
    data, decode = complete(quantise(original, settings, step))
    if voxels.nbytes <= _SMALL or len(data) > _SHARE * voxels.nbytes:
        exact = framing.exact(arranged, metadata)
        if len(exact) < len(data):
            return exact, voxels
    return data, decode()


def _without_end(voxels: Array, fill: Any) -> Array:
    """Leave out the last planes of every axis that hold nothing but ``fill``; one stays."""
    for axis in range(voxels.ndim):
        others = tuple(i for i in range(voxels.ndim) if i != axis)
        if (voxels.take(-1, axis) == fill).all():
            used = np.flatnonzero((voxels != fill).any(axis=others))
            voxels = voxels[(slice(None),) * axis + (slice(int(used[-1]) + 1 if used.size else 1),)]
    return voxels


def _is_finite(voxels: Array) -> bool:
    return voxels.dtype.kind != "f" or bool(np.isfinite(voxels).all())


def _arranged(voxels: Array, axes: str | None) -> tuple[Array, Metadata]:
    """Give an array of any rank the axes of a frame, in the machine's byte order."""
    shape, letters = frame_shape(voxels.shape, axes)
    native = np.ascontiguousarray(voxels).astype(voxels.dtype.newbyteorder("="), copy=False).reshape(shape)
    return native, Metadata(letters, (1.0,) * len(letters), ("",) * len(letters))


def frame_shape(shape: tuple[int, ...], axes: str | None) -> tuple[tuple[int, ...], str]:
    """Return the shape and the axes of a chunk's frame.

    An array of fewer than two axes gets more, of length 1; one that has more axes, or more channels and time points
    than a frame, is a pile of rows.
    """
    if len(shape) < 2:
        shape, axes = (1,) * (2 - len(shape)) + shape, "yx"
    letters = axes or "tczyx"[-len(shape) :]
    if len(letters) != len(shape) or item_count(letters, shape) > MAX_ITEMS:
        return (math.prod(shape[:-1]), shape[-1]), "yx"
    return shape, letters


def decode_chunk(
    data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], axes: str | None, fill: Any, region: Region
) -> Array:
    """Decode a region of a chunk.

    Parameters
    ----------
    data : bytes
        A frame.
    shape : tuple of int
        Of the chunk.
    dtype : dtype
        Of the array.
    axes : str or None
        As when it was encoded.
    fill : scalar
        Value of the voxels of the chunk beyond the frame: at the array's end a frame may be smaller.
    region : tuple of slice
        One per axis, of step 1, inside the chunk.

    Raises
    ------
    FormatError
        The frame is damaged, or is not one of such a chunk.
    """
    volume = _opened(data)
    whole, letters = frame_shape(shape, axes)
    fits = len(volume.shape) == len(whole) and all(n <= most for n, most in zip(volume.shape, whole, strict=True))
    if volume.dtype != dtype.newbyteorder("=") or volume.metadata.axes != letters or not fits:
        raise FormatError(
            f"expected a chunk of {dtype} voxels of shape {whole} and axes {letters!r}, got a frame of {volume.dtype} "
            f"voxels of shape {volume.shape} and axes {volume.metadata.axes!r}: it belongs to another array"
        )
    if whole != shape:  # a pile of rows, or a single one: no region of the chunk is one of the frame
        return _padded(volume.decode(), whole, fill).reshape(shape)[region]
    inside = tuple(slice(min(r.start, n), min(r.stop, n)) for r, n in zip(region, volume.shape, strict=True))
    return _padded(volume.decode(inside), tuple(r.stop - r.start for r in region), fill)


def _padded(voxels: Array, shape: tuple[int, ...], fill: Any) -> Array:
    """Fill up what lies beyond the end of the array."""
    if voxels.shape == shape:
        return voxels
    full = np.full(shape, fill, voxels.dtype)
    full[tuple(slice(n) for n in voxels.shape)] = voxels
    return full


class _OpenVolumes:
    """Chunks that were opened last: a viewer that goes from plane to plane asks for the same ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._volumes: OrderedDict[bytes, CompressedVolume] = OrderedDict()
        self._voxels = 0

    def __call__(self, data: bytes) -> CompressedVolume:
        with self._lock:
            volume = self._volumes.get(data)
            if volume is not None:
                self._volumes.move_to_end(data)
                return volume
        volume = CompressedVolume(data)
        with self._lock:
            if self._volumes.setdefault(data, volume) is volume:
                self._voxels += math.prod(volume.shape)
            while self._voxels > _OPEN_VOXELS and len(self._volumes) > 1:
                self._voxels -= math.prod(self._volumes.popitem(last=False)[1].shape)
        return volume


_opened = _OpenVolumes()


def _begin_anew() -> None:
    global _opened
    _opened = _OpenVolumes()  # another thread of the parent may have held the lock


after_fork(_begin_anew)


__all__ = ["KINDS", "SETTINGS", "code_chunk", "decode_chunk", "encode_chunk", "frame_shape"]
