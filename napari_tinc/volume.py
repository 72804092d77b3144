"""CompressedVolume: the noun users hold. It owns a parsed frame, decodes regions of it, and knows its octants."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc.arrays.axes import Region
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import check_device_name
from napari_tinc.errors import FormatError, InputError
from napari_tinc.geometry.octree import Box, Octree
from napari_tinc.quality import Decibels, Quality, parse_quality, threshold_value
from napari_tinc.system.forks import after_fork, with_fresh_locks
from napari_tinc.system.remote import RemoteFile, is_url

# What decodes loads numba, and is imported where it is needed: what a file says of itself is there at once.
if TYPE_CHECKING:
    from napari_tinc.decoding import ArrayDecoder
    from napari_tinc.layers import Decoders
    from napari_tinc.partial import Held


@dataclass(frozen=True, eq=False)
class InMemory:
    """The bytes of a file, or of its beginning."""

    data: bytes

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` to ``stop``."""
        return self.data[start:stop]


@dataclass(frozen=True, slots=True)
class Octant:
    """A leaf, as users see it.

    Parameters
    ----------
    box : tuple of slice
        Its voxels on the spatial axes.
    item : int
        Which (t, c) position it belongs to, row-major in the array's axis order.
    level : int
        Depth of the leaf in the tree.
    psnr : float
        PSNR in dB over the item's own range, to half a decibel; infinite if exact.
    max_error : float
        Upper bound of the largest absolute error, in intensity units.
    nbytes : float
        Bytes spent on it: its own segment and its share of its ancestors' segments.
    dice : float
        Dice of its foreground, the voxels from :meth:`CompressedVolume.threshold` on, rounded down to 255ths; 1 where
        neither the original nor the decoded has any.
    """

    box: Box
    item: int
    level: int
    psnr: float
    max_error: float
    nbytes: float
    dice: float


@with_fresh_locks
class CompressedVolume:
    """A compressed volume: the bytes of one frame and what can be read from them.

    Parameters
    ----------
    data : bytes
        A whole frame, the content of a ``.tinc`` file.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``: where it is decoded. Wavelets are on the CPU or on CUDA, there by
        ``"auto"`` only where torch is loaded already; they decode to the same voxels, within one grey level.

    Raises
    ------
    FormatError
        If the bytes are not a valid frame.
    InputError
        If no device has such a name. Whether it is there is asked when something is decoded.

    Notes
    -----
    Decoding is thread-safe: calls from several threads take turns on the device, each with torch's threads but one. A
    forked process decodes with threads of its own, and torch's one.
    """

    def __init__(self, data: bytes, device: str = "auto") -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InputError(f"expected the bytes of a .tinc file, got {type(data).__name__}: read the file first")
        check_device_name(device)
        self._hold(frames.parse(bytes(data)), device, InMemory(bytes(data)))

    def _hold(self, frame: frames.Frame, device: str, origin: InMemory | RemoteFile, held: Held | None = None) -> None:
        self._frame, self._device, self._origin, self._held = frame, device, origin, held
        self._begin()
        _volumes.add(self)

    @classmethod
    def _of(cls, origin: InMemory | RemoteFile, device: str, partial: bool) -> CompressedVolume:
        """Open what is read by ranges: the beginning of a file, or one elsewhere."""
        check_device_name(device)
        if partial:
            from napari_tinc.partial import open_prefix

            frame, held = open_prefix(origin.read, origin.size)
        else:
            header, segments, _ = frames.open_ranged(origin.read, origin.size)
            frame, held = frames.Frame(header, segments), None
        volume = cls.__new__(cls)
        volume._hold(frame, device, origin, held)
        return volume

    def _begin(self) -> None:
        """Forget what was decoded, and who is decoding."""
        self._lock = threading.Lock()
        self.__dict__.pop("_decoders", None)

    @classmethod
    def open(cls, path: str | os.PathLike[str], device: str = "auto", partial: bool = False) -> CompressedVolume:
        """Read a ``.tinc`` file.

        Parameters
        ----------
        path : str or PathLike
            A file; or an address that fsspec knows, such as ``https://…``, of which only the head is read, and later
            what decoding needs. Checksums of blocks that are read one by one cannot be tested.
        device : str
            Where it is decoded.
        partial : bool
            Accept the beginning of a file, which decodes to the best it holds; see :attr:`held`. What it says of its
            quality is left out, since that is of the whole.

        Raises
        ------
        InputError
            If the file cannot be read.
        FormatError
            If it is not a valid frame.
        """
        if is_url(path):
            return cls._of(RemoteFile(str(path)), device, partial)
        data = frames.read(path)
        begun = cls._of(InMemory(data), device, True) if partial else None
        return cls(data, device) if begun is None or begun.held is None else begun

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the frame atomically; an existing file is replaced only if ``overwrite``.

        Raises
        ------
        InputError
            If the target exists, or cannot be written.
        """
        frames.write_atomic(path, self.to_bytes(), overwrite)

    def to_bytes(self) -> bytes:
        """Return the frame: exactly the content of the file, which is fetched if it is elsewhere.

        Raises
        ------
        InputError
            If only the beginning of the file is at hand.
        """
        if self._held is not None:
            raise InputError(f"expected a whole file, got {self._held.text}: fetch the rest, or decode what is there")
        if isinstance(self._origin, InMemory):
            return self._origin.data
        data = self._origin.read(0, self._origin.size)
        frames.parse(data)
        return data

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Copy by the bytes, or the address; a copy, or another process, makes a decoder of its own."""
        if isinstance(self._origin, RemoteFile):
            return CompressedVolume.open, (self._origin.url, self._device, self._held is not None)
        if self._held is not None:
            return CompressedVolume._of, (self._origin, self._device, True)
        return CompressedVolume, (self._origin.data, self._device)

    @property
    def held(self) -> Held | None:
        """How much of the file is at hand; None if nothing is missing."""
        return self._held

    def __repr__(self) -> str:
        return f"CompressedVolume(shape={self.shape}, dtype={self.dtype}, {self.nbytes} bytes, ratio {self.ratio:.1f})"

    @property
    def header(self) -> frames.Header:
        """The parsed header."""
        return self._frame.header

    @property
    def kinds(self) -> list[int]:
        """Kind of every segment at hand."""
        return [segment.kind for segment in self._frame.segments]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, axes in :attr:`metadata` order."""
        return self.header.shape

    @property
    def leading_shape(self) -> tuple[int, ...]:
        """Sizes of the channel and time axes, in the array's order; their product is the number of items."""
        return self.header.leading_shape

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Voxels along every spatial axis, in the array's order."""
        return self.header.spatial_shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of the original and of what :meth:`decode` returns."""
        return np.dtype(self.header.dtype)

    @property
    def metadata(self) -> Metadata:
        """Axes, voxel size, units, channel names and name."""
        return self.header.metadata

    @property
    def provenance(self) -> Mapping[str, str | int | float | bool]:
        """How the file was made: version, preset, seed and PSNR."""
        return self.header.provenance

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes; of a beginning, that of the whole file."""
        return self._origin.size if self._held is None else self._held.whole

    @property
    def raw_nbytes(self) -> int:
        """Size of the original array in bytes."""
        return self.header.raw_nbytes

    @property
    def ratio(self) -> float:
        """``raw_nbytes / nbytes``."""
        return self.raw_nbytes / self.nbytes

    @property
    def has_wide_planes(self) -> bool:
        """Whether a plane needs more than its own samples: a whole row of blocks of coefficients, or its neighbours."""
        from napari_tinc.layers import has_wide_planes

        return has_wide_planes(self._frame)

    @property
    def value_ranges(self) -> tuple[tuple[float, float], ...]:
        """Smallest and largest value of every item of the original."""
        return tuple((item.minimum, item.maximum) for item in self.header.items)

    @cached_property
    def tree(self) -> Octree:
        """The partition of every item's spatial volume."""
        return Octree(self.header.spatial_shape, self.header.splits)

    @cached_property
    def _decoders(self) -> Decoders:
        from napari_tinc.layers import Decoders

        return Decoders(self._frame, self.tree, self._device)

    @property
    def _decoder(self) -> ArrayDecoder:
        from napari_tinc.decoding import ArrayDecoder

        return ArrayDecoder(self.shape, self.dtype, self.metadata.axes, self._decoders.__getitem__)

    @cached_property
    def octants(self) -> tuple[Octant, ...]:
        """All leaves of all items in node order, with the quality that was measured when the file was made."""
        # First: a file is as large as its octants' quality, but a few bytes of header can promise millions of octants.
        qualities = [self._quality(item) for item in range(len(self.header.items))]
        boxes = self.tree.boxes(self.tree.depth)
        octants = []
        for item, (limits, quality) in enumerate(zip(self.header.items, qualities, strict=True)):
            errors = (limits.maximum - limits.minimum) * 10 ** (-quality.peak / 20)
            rows = zip(quality.psnr, errors, self._bytes_spent(item), quality.dice, strict=True)
            octants += [
                Octant(box, item, self.tree.depth, *map(float, row)) for box, row in zip(boxes, rows, strict=True)
            ]
        return tuple(octants)

    @property
    def parts(self) -> tuple[Box, ...]:
        """Boxes that have parameters of a network of their own, the same of every item; none without a network.

        The octants of ``tinc``, the blocks of ``sci``, the whole volume of families that do not divide it.
        """
        return tuple(self._decoders.parts())

    def threshold(self, item: int = 0) -> float:
        """Where the foreground of an item begins, in intensity units: the original's Otsu threshold.

        It is stored in 65535ths of the item's range, and is the smallest value of an item that has but one.
        """
        limits = self.header.items[item]
        return threshold_value(self._quality(item).threshold_code, limits.minimum, limits.maximum)

    def _quality(self, item: int) -> Quality:
        if self.header.model in (frames.MODEL_CONSTANT, frames.MODEL_EXACT):
            exact = np.full(self.tree.leaves, np.inf)
            return Quality(0, exact, exact, np.ones(self.tree.leaves))
        if self._held is not None:  # what is known of any file: no error is larger than the range
            nothing = np.zeros(self.tree.leaves)
            return Quality(0, nothing, nothing, nothing)
        return parse_quality(self._frame.find(frames.KIND_QUALITY, item, 0), self.tree.leaves)

    def _bytes_spent(self, item: int) -> Decibels:
        """Bytes of every leaf."""
        if self.header.model == frames.MODEL_CONSTANT:
            return np.zeros(self.tree.leaves)
        return self._decoders[item].leaf_bytes(self.tree)

    def octant_map(self, item: int = 0) -> Decibels:
        """PSNR of an item's octants on the leaf grid, shape ``tree.counts(tree.depth)``, in dB."""
        return self._quality(item).psnr[self.tree.leaf_of_cell]

    def decode(self, region: Region | None = None, scale: float = 1.0) -> npt.NDArray[np.generic]:
        """Decode the volume, or a region of it, at its own or another resolution.

        Parameters
        ----------
        region : tuple of slice or int, optional
            One entry per leading axis of the array, missing ones are whole; slices have step 1, an int drops its
            axis. Counted in samples at ``scale`` on the spatial axes. The cost is that of the region's own samples, and
            of two more on every side where a file has a restoration filter; above scale 1, of its voxels besides.
        scale : float
            Samples per voxel on the spatial axes. Below 1 a coarser grid is sampled from the network, not averaged, and
            not filtered, and samples on the outline of a mask are half background; above 1 the network interpolates
            between voxels: smooth, and not new information.

        Returns
        -------
        ndarray of :attr:`dtype`
            Integers are rounded; all values are clipped to the original's range. What is too large for memory is kept
            in a file, see :func:`napari_tinc.memory_limit`.

        Raises
        ------
        InputError
            If the region lies outside the volume, the scale is not positive, or there is no room for the result.
        FormatError
            If the parameters do not decode.
        """
        with self._lock:
            return self._decoder.decode(region, scale)

    def decode_item(self, item: int, region: tuple[slice, ...] = (), scale: float = 1.0) -> npt.NDArray[np.generic]:
        """Decode a region of one item, counted as in :attr:`octants`; its axes are the spatial ones."""
        with self._lock:
            return self._decoder.decode_item(item, region, scale)

    def region_bytes(self, region: Region | None = None, scale: float = 1.0) -> int:
        """Bytes of the file's layers that decoding a region needs: its blocks, their ancestors, and shared heads.

        Parameters
        ----------
        region, scale
            As for :meth:`decode`.
        """
        with self._lock:
            return self._decoder.region_bytes(region, scale)

    def scaled_shape(self, scale: float) -> tuple[int, ...]:
        """Shape of the whole array decoded at ``scale``; channels and time points keep their number."""
        return self._decoder.scaled_shape(scale)


_volumes: weakref.WeakSet[CompressedVolume] = weakref.WeakSet()


def _begin_anew() -> None:
    """Let the volumes of a forked process decode: another thread of its parent may have been at it."""
    for volume in _volumes:
        volume._begin()


after_fork(_begin_anew)


__all__ = ["CompressedVolume", "FormatError", "Octant", "Region"]
