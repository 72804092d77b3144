"""One chunk of an array as one frame, whatever is in it."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc.arrays.axes import item_count
from napari_tinc.arrays.metadata import MAX_ITEMS, Metadata
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
# Bytes of the voxels in chunks that are kept open: each keeps the blocks that it has decoded, which take about as much.
_OPEN_BYTES = 2**27


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
    return code_chunk(voxels, axes, target, settings)[0]


def code_chunk(
    voxels: Array, axes: str | None, target: Target, settings: Settings = SETTINGS
) -> tuple[bytes, Callable[[], Array] | None]:
    """Return the frame of a chunk, see :func:`encode_chunk`, and what decodes it, in the frame's shape.

    Returns
    -------
    bytes
    callable or None
        None where the frame loses nothing: it is exact, or of one value.
    """
    from napari_tinc.encode import framing  # here and not above: a program that only reads starts a fifth sooner

    whole, metadata = _arranged(voxels, axes)
    lossy = _lossy(whole, metadata, target, settings)
    if lossy is None or voxels.nbytes <= _SMALL or len(lossy[0]) > _SHARE * voxels.nbytes:
        exact = framing.exact(whole, metadata)
        if lossy is None or len(exact) < len(lossy[0]):
            return exact, None
    return lossy


def _lossy(
    voxels: Array, metadata: Metadata, target: Target, settings: Settings
) -> tuple[bytes, Callable[[], Array] | None] | None:
    """Return the lossy frame of a chunk and what decodes it, None if there can be none."""
    from napari_tinc.encode.bounding import bounded
    from napari_tinc.encode.compression import fill_steps, quantise
    from napari_tinc.encode.original import Original

    if voxels.dtype.str[1:] in frames.EXACT_DTYPES or not _is_finite(voxels):
        return None
    if target.kind == "max_error" and voxels.dtype.itemsize > 4:  # which only an exact frame keeps to
        return None
    try:
        original = Original.prepare(voxels, metadata, None)
    except InputError:  # a range whose squares no float holds
        return None
    try:
        make = {"step": quantise, "max_error": bounded}.get(target.kind)
        if make is not None and settings.is_wavelets_alone and not original.is_constant:
            return complete(make(original, settings, target.value))  # what is decoded there serves twice
        volume = complete(fill_steps(original, target, settings))
    except BudgetError:  # too few bytes, or a PSNR or a step out of reach
        return None
    return volume.to_bytes(), None if original.is_constant else volume.decode


def _without_end(voxels: Array, fill: Any) -> Array:
    """Leave out the last planes of every axis that hold nothing but ``fill``; one stays."""
    for axis in range(voxels.ndim):
        if _is_filled(voxels.take(-1, axis), fill).all():
            others = tuple(i for i in range(voxels.ndim) if i != axis)
            used = np.flatnonzero(~_is_filled(voxels, fill).all(axis=others))
            voxels = voxels[(slice(None),) * axis + (slice(int(used[-1]) + 1 if used.size else 1),)]
    return voxels


def _is_filled(voxels: Array, fill: Any) -> Array:
    """Tell the voxels that are ``fill`` bit by bit: NaN is, and 0 is not -0."""
    bits = f"u{voxels.itemsize}"
    same: Array = voxels.view(bits) == np.asarray(fill, voxels.dtype).view(bits)
    return same


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
        self._nbytes = 0

    def __call__(self, data: bytes) -> CompressedVolume:
        with self._lock:
            volume = self._volumes.get(data)
            if volume is not None:
                self._volumes.move_to_end(data)
                return volume
        volume = CompressedVolume(data)
        with self._lock:
            if self._volumes.setdefault(data, volume) is volume:
                self._nbytes += volume.raw_nbytes
            while self._nbytes > _OPEN_BYTES and len(self._volumes) > 1:
                self._nbytes -= self._volumes.popitem(last=False)[1].raw_nbytes
        return volume


_opened = _OpenVolumes()


def _begin_anew() -> None:
    global _opened
    _opened = _OpenVolumes()  # another thread of the parent may have held the lock


after_fork(_begin_anew)


__all__ = ["KINDS", "SETTINGS", "code_chunk", "decode_chunk", "encode_chunk", "frame_shape"]
