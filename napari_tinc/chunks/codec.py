"""The codec for Zarr 3: a chunk's bytes are a frame, the same as a ``.tinc`` file.

zarr finds it by the entry point ``napari-tinc.frame``, so that a program which reads such an array imports zarr only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from napari_tinc import format as frames
from napari_tinc.arrays.inputs import check_axes
from napari_tinc.chunks.frames import KINDS, decode_chunk, encode_chunk
from napari_tinc.errors import InputError
from napari_tinc.target import Target

NAME = "napari-tinc.frame"
VERSION = 1
_TARGETS = ("step", "psnr", "ratio", "max_error")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TincCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Lossy compression of 2-D and 3-D images in the chunks of a Zarr array.

    Give one of ``step``, ``psnr``, ``ratio`` and ``max_error``. With ``zarr.create_array``, pass it as ``serializer``
    and no ``compressors``: frames are compressed.

    Parameters
    ----------
    step : float, optional
        Of the quantiser, in intensity units: the same fidelity everywhere, at the price of chunks of all sizes. The
        root mean squared error of a chunk is about a third of it where there is detail or noise, and at most half.
    psnr : float, optional
        In dB over the range of every chunk: chunks of little contrast are kept as faithfully as others.
    ratio : float, optional
        Of every chunk's voxels to its frame: chunks of one size, of all fidelities.
    max_error : float, optional
        That no voxel exceeds, in intensity units; 0 loses nothing.
    axes : str, optional
        One letter of ``tczyx`` per axis of the array; by default the last ones of ``tczyx``. Channels and time points
        are coded by themselves. For arrays of two to five axes.

    Raises
    ------
    InputError
        If not exactly one of them is given, or one cannot be used.

    Notes
    -----
    A chunk that no lossy frame can hold is kept as it is, in an exact frame: of booleans, integers of 64 bits, values
    that are not finite, a few voxels, or a target out of reach. Chunks hold at most 1 GiB.
    """

    is_fixed_size = False

    step: float | None = None
    psnr: float | None = None
    ratio: float | None = None
    max_error: float | None = None
    axes: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in _TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"expected one of {', '.join(_TARGETS)} for codec {NAME}, got {' and '.join(given) or 'none'}: give one"
            )
        target = Target(given[0], getattr(self, given[0]))
        object.__setattr__(self, given[0], float(target.value))  # JSON has no numbers of numpy's
        object.__setattr__(self, "_target", target)
        if self.axes is not None:
            if not isinstance(self.axes, str):
                raise InputError(f"expected axes such as 'zyx', got {self.axes!r}")
            check_axes(self.axes, len(self.axes))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the codec of an array's metadata.

        Raises
        ------
        InputError
            It is of a later version, or says what this one does not know.
        """
        fields = dict(data.get("configuration") or {})
        version = fields.pop("version", VERSION)
        if version != VERSION:
            raise InputError(
                f"expected version {VERSION} of codec {NAME}, got {version!r}; update napari-tinc to read this array"
            )
        unknown = set(fields) - {*_TARGETS, "axes"}
        if unknown:
            raise InputError(
                f"expected {', '.join(_TARGETS)} and axes for codec {NAME}, got {', '.join(sorted(unknown))}: "
                "correct it, or update napari-tinc to read this array"
            )
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """Write the codec for an array's metadata."""
        fields = {name: getattr(self, name) for name in (*_TARGETS, "axes") if getattr(self, name) is not None}
        return {"name": NAME, "configuration": {"version": VERSION} | fields}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Refuse an array that no chunk of can be coded; zarr asks this of codecs inside shards, too.

        Raises
        ------
        InputError
            Its voxels are no real numbers, or the axes do not fit.
        """
        native = array_spec.dtype.to_native_dtype()
        if native.kind not in KINDS or native.itemsize > 8:
            raise InputError(
                f"expected booleans, integers or floats of up to 64 bits for codec {NAME}, got {native}: "
                "convert the array, or take another codec"
            )
        if self.axes is not None and len(self.axes) != array_spec.ndim:
            raise InputError(
                f"expected an axis letter for each of {array_spec.ndim} dimensions, got {self.axes!r}: name all, "
                "such as 'zyx'"
            )
        return self

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse an array of chunks that are too large.

        Raises
        ------
        InputError
            A chunk has more than 1 GiB.
        """
        _check_size(getattr(chunk_grid, "chunk_shape", ()), dtype.to_native_dtype())

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Refuse: it depends on the voxels."""
        raise NotImplementedError

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        voxels, target = chunk_array.as_numpy_array(), self._target  # type: ignore[attr-defined]
        _check_size(voxels.shape, voxels.dtype)  # of chunks inside shards zarr does not ask before
        data = await asyncio.to_thread(encode_chunk, voxels, self.axes, target, chunk_spec.fill_value)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        whole = tuple(slice(0, n) for n in chunk_spec.shape)
        return await self._decoded(chunk_bytes, chunk_spec, whole)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        data = await byte_getter.get(prototype=chunk_spec.prototype)
        if data is None:
            return None
        entries = selection if isinstance(selection, tuple) else (selection,)
        around = [_around(entry, n) for entry, n in zip(entries, chunk_spec.shape, strict=True)]
        decoded = await self._decoded(data, chunk_spec, tuple(box for box, _ in around))
        return decoded[tuple(entry for _, entry in around)]

    async def _decoded(self, data: Buffer, spec: ArraySpec, region: tuple[slice, ...]) -> NDBuffer:
        dtype, fill = spec.dtype.to_native_dtype(), spec.fill_value
        voxels = await asyncio.to_thread(decode_chunk, data.to_bytes(), spec.shape, dtype, self.axes, fill, region)
        return spec.prototype.nd_buffer.from_numpy_array(voxels.astype(dtype, copy=False))


def _check_size(chunk: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if math.prod(chunk) * dtype.itemsize > frames.MAX_EXACT_BYTES:
        raise InputError(
            f"expected chunks of at most {frames.MAX_EXACT_BYTES} bytes for codec {NAME}, got chunks of shape {chunk}: "
            "make them smaller, such as 128 voxels a side"
        )


def _around(entry: Any, side: int) -> tuple[slice, Any]:
    """Return the smallest part of an axis that holds what is selected of it, and the selection counted from there."""
    if isinstance(entry, slice):
        chosen = range(side)[entry]
        if len(chosen) and chosen.step > 0:
            return slice(chosen.start, chosen[-1] + 1), slice(0, chosen[-1] + 1 - chosen.start, chosen.step)
    elif isinstance(entry, int | np.integer):
        return slice(int(entry), int(entry) + 1), 0
    elif isinstance(entry, np.ndarray) and entry.dtype.kind in "iu" and entry.size and entry.min() >= 0:
        first = int(entry.min())
        return slice(first, int(entry.max()) + 1), entry - first
    return slice(0, side), entry


__all__ = ["NAME", "TincCodec"]
