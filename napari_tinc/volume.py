"""CompressedVolume: the noun users hold. It owns a parsed frame, decodes regions of it, and knows its octants."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from napari_tinc import format as frames
from napari_tinc import segments
from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.arrays.scratch import Bounds, boxes, zeros
from napari_tinc.errors import FormatError, InputError
from napari_tinc.geometry.octree import Box, Octree
from napari_tinc.geometry.sampling import (
    Floats32,
    interpolate,
    neighbours,
    sample_positions,
    sample_region,
    scaled_side,
)
from napari_tinc.networks.device import one_core_free, resolve_device
from napari_tinc.networks.evaluation import Decoder
from napari_tinc.networks.quantization import Layout
from napari_tinc.restoration import RADIUS, Restoration, around
from napari_tinc.system.forks import after_fork, with_fresh_locks
from napari_tinc.wavelets.blocks import BlockCache, DetailReader, detail_bytes

Region = tuple[slice | int, ...]

# A network may overshoot a float32 volume's range by far before it is clipped: leave room below float32's largest.
_LARGEST_NARROW_RANGE = 1e30
_BOX_VOXELS = 2**21


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
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``: where it is decoded.

    Raises
    ------
    FormatError
        If the bytes are not a valid frame.
    InputError
        If the device is not there.

    Notes
    -----
    Decoding is thread-safe: calls from several threads take turns on the device, each with torch's threads but one. A
    forked process decodes with threads of its own, and torch's one.
    """

    def __init__(self, data: bytes, device: str = "auto") -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InputError(f"expected the bytes of a .tinc file, got {type(data).__name__}: read the file first")
        resolve_device(device)
        self._data = bytes(data)
        self._device = device
        self._frame = frames.parse(self._data)
        self._begin()
        _volumes.add(self)

    def _begin(self) -> None:
        """Forget what was decoded, and who is decoding."""
        self._lock = threading.Lock()
        self._details: dict[int, DetailReader | None] = {}
        self._restorations: dict[int, Restoration | None] = {}
        self._blocks = BlockCache()

    @classmethod
    def open(cls, path: str | os.PathLike[str], device: str = "auto") -> CompressedVolume:
        """Read a ``.tinc`` file.

        Raises
        ------
        InputError
            If the file cannot be read.
        FormatError
            If it is not a valid frame.
        """
        return cls(frames.read(path), device)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the frame atomically; an existing file is replaced only if ``overwrite``.

        Raises
        ------
        InputError
            If the target exists, or cannot be written.
        """
        frames.write_atomic(path, self._data, overwrite)

    def to_bytes(self) -> bytes:
        """Return the frame: exactly the content of the file."""
        return self._data

    def __reduce__(self) -> tuple[type[CompressedVolume], tuple[bytes, str]]:
        """Copy by the bytes; a copy, or another process, makes a decoder of its own."""
        return CompressedVolume, (self._data, self._device)

    def __repr__(self) -> str:
        return f"CompressedVolume(shape={self.shape}, dtype={self.dtype}, {self.nbytes} bytes, ratio {self.ratio:.1f})"

    @property
    def header(self) -> frames.Header:
        """The parsed header."""
        return self._frame.header

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, axes in :attr:`metadata` order."""
        return self.header.shape

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
        """Size of the file in bytes."""
        return len(self._data)

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
        wide = (frames.KIND_DETAIL, frames.KIND_RESTORATION)
        return any(segment.kind in wide for segment in self._frame.segments)

    @property
    def value_ranges(self) -> tuple[tuple[float, float], ...]:
        """Smallest and largest value of every item of the original."""
        return tuple((item.minimum, item.maximum) for item in self.header.items)

    @cached_property
    def tree(self) -> Octree:
        """The partition of every item's spatial volume."""
        return Octree(self.header.spatial_shape, self.header.splits)

    @cached_property
    def _layout(self) -> Layout:
        sizes = [len(s.payload) for s in self._frame.segments if s.kind == frames.KIND_PARAMETERS]
        network = segments.parse_plan(self.header.plan, self.tree, len(self.header.items), sum(sizes))
        return Layout(network, len(self.header.items))

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

    def threshold(self, item: int = 0) -> float:
        """Where the foreground of an item begins, in intensity units: the original's Otsu threshold.

        It is stored in 65535ths of the item's range, and is the smallest value of an item that has but one.
        """
        limits = self.header.items[item]
        return segments.threshold_value(self._quality(item).threshold_code, limits.minimum, limits.maximum)

    def _quality(self, item: int) -> segments.Quality:
        if self.header.model == frames.MODEL_CONSTANT:
            exact = np.full(self.tree.leaves, np.inf)
            return segments.Quality(0, exact, exact, np.ones(self.tree.leaves))
        return segments.parse_quality(self._frame.find(frames.KIND_QUALITY, item, 0), self.tree.leaves)

    def _bytes_spent(self, item: int) -> segments.Floats:
        """Bytes of every leaf: each segment is divided by parameters among its nodes, each node among its leaves."""
        spent = np.zeros(self.tree.leaves)
        if self.header.model == frames.MODEL_CONSTANT:
            return spent
        if (detail := self._detail(item)) is not None:
            spent += detail_bytes(detail, self.tree, len(self._frame.find(frames.KIND_DETAIL, item, 0)))
        if (restoration := self._frame.get(frames.KIND_RESTORATION, item, 0)) is not None:
            spent += len(restoration) / self.tree.leaves
        for level in range(self.tree.depth + 1) if self.header.model == frames.MODEL_TINC else ():
            nodes = self.tree.nodes(level)
            counts = self._layout.network.node_parameters(level)[item * nodes : (item + 1) * nodes]
            size = len(self._frame.find(frames.KIND_PARAMETERS, item, level))
            below = self.tree.leaves // nodes
            spent += np.repeat(size * counts / counts.sum() / below, below)
        return spent

    def octant_map(self, item: int = 0) -> segments.Floats:
        """PSNR of an item's octants on the leaf grid, shape ``tree.counts(tree.depth)``, in dB."""
        return self._quality(item).psnr[self.tree.leaf_of_cell]

    @cached_property
    def _decoder(self) -> Decoder:
        """Parameters, entropy-decoded once and where they are needed, on the device."""
        layout = self._layout
        found = [(s.level, s.payload) for s in self._frame.segments if s.kind == frames.KIND_PARAMETERS]
        segments.check_tables(layout, found)

        @cache
        def coded(item: int, level: int) -> segments.CodedLevel:
            payload = self._frame.find(frames.KIND_PARAMETERS, item, level)
            return segments.parse_parameters(layout, item, level, payload)

        return Decoder(layout, self.tree, lambda item, level, block: coded(item, level).decode(block), self._device)

    def _detail(self, item: int) -> DetailReader | None:
        """Detail layer of an item, parsed once; ``None`` if it has none."""
        if item not in self._details:
            payload = self._frame.get(frames.KIND_DETAIL, item, 0)
            if payload is None and self.header.model == frames.MODEL_DETAIL:
                limits = self.header.items[item]
                if limits.minimum != limits.maximum:
                    raise FormatError(f"expected a detail segment for item {item}, got none: damaged file")
            parsed = None if payload is None else segments.parse_detail(payload, self.tree.shape)
            self._details[item] = None if parsed is None else DetailReader(parsed, self._blocks)
        return self._details[item]

    def _restoration(self, item: int) -> Restoration | None:
        """Restoration filter of an item; ``None`` if it has none."""
        if item not in self._restorations:
            payload = self._frame.get(frames.KIND_RESTORATION, item, 0)
            self._restorations[item] = None if payload is None else segments.parse_restoration(payload)
        return self._restorations[item]

    def attach(self, decoder: Decoder) -> None:
        """Decode with other parameters than the file's own: what a preview of a running training shows."""
        self._decoder = decoder

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
            not filtered; above 1 the network interpolates between voxels: smooth, and not new information.

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
        shape = self.scaled_shape(scale)
        bounds, squeezed = _resolve(region, shape)
        axes = self.metadata.axes
        spatial = tuple(bound for bound, axis in zip(bounds, axes, strict=True) if axis not in LEADING)
        leading = [bound for bound, axis in zip(bounds, axes, strict=True) if axis in LEADING]
        items = np.arange(len(self.header.items)).reshape(self.header.leading_shape)
        items = items[tuple(slice(*bound) for bound in leading)]
        extent = tuple(stop - start for start, stop in spatial)
        decoded = zeros((items.size, *extent), self.dtype)
        for row, item in zip(decoded, items.ravel().tolist(), strict=True):
            self._decode_into(item, spatial, scale, row)
        return self._arrange(decoded, items.shape, extent, squeezed)

    def decode_item(self, item: int, region: tuple[slice, ...] = (), scale: float = 1.0) -> npt.NDArray[np.generic]:
        """Decode a region of one item, counted as in :attr:`octants`; its axes are the spatial ones."""
        if not 0 <= item < len(self.header.items):
            raise InputError(f"expected an item below {len(self.header.items)}, got {item}: count channels from 0")
        shape = tuple(scaled_side(side, scale) for side in self.tree.shape)
        bounds, _ = _resolve(region, shape)
        out = zeros(tuple(stop - start for start, stop in bounds), self.dtype)
        self._decode_into(item, tuple(bounds), scale, out)
        return out

    def scaled_shape(self, scale: float) -> tuple[int, ...]:
        """Shape of the whole array decoded at ``scale``; channels and time points keep their number."""
        if not (isinstance(scale, Real) and 0 < scale <= 64):
            raise InputError(f"expected a scale above 0 and at most 64, got {scale!r}: 1 is the original's resolution")
        pairs = zip(self.shape, self.metadata.axes, strict=True)
        return tuple(side if axis in LEADING else scaled_side(side, scale) for side, axis in pairs)

    def _decode_into(
        self, item: int, bounds: tuple[tuple[int, int], ...], scale: float, out: npt.NDArray[np.generic]
    ) -> None:
        limits = self.header.items[item]
        if out.size == 0:
            return
        if limits.minimum == limits.maximum:
            out[...] = limits.minimum
            return
        narrow = self.dtype.itemsize < 4 or (self.dtype == np.float32 and limits.span < _LARGEST_NARROW_RANGE)
        wide = np.float32 if narrow else np.float64
        to_intensities = _Denormaliser(
            limits.offset, limits.scale, limits.minimum, limits.maximum, np.dtype(wide), self.dtype
        )
        with self._lock, one_core_free():
            # What is decoded at a time fits in caches and little memory, and is nearly a cube: it has least surface,
            # beyond which wavelets reach.
            for box in boxes(bounds, _BOX_VOXELS):
                place = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(box, bounds, strict=True))
                out[place] = to_intensities(self._normalised(item, box, scale))

    def _normalised(self, item: int, bounds: Bounds, scale: float) -> Floats32:
        """What the file says in a region, before the mapping to intensities.

        The restoration filter is left out of samples coarser than voxels, and interpolated between them.
        """
        restoration = self._restoration(item)
        if restoration is None or scale < 1:
            return self._unrestored(item, bounds, scale)
        if scale == 1:
            restored = restoration.apply(self._surrounded(item, bounds))
            return restored.reshape([stop - start for start, stop in bounds])
        positions = self._positions(bounds, scale)
        grids = [np.clip(p, 0, n - 1) for p, n in zip(positions, self.tree.shape, strict=True)]
        near = neighbours(grids, self.tree.shape)
        voxels = self._surrounded(item, near)
        moved = restoration.apply(voxels) - voxels[(slice(RADIUS, -RADIUS),) * 3]
        moved = moved.reshape([stop - start for start, stop in near])
        return self._unrestored(item, bounds, scale) + interpolate(moved, near, grids)

    def _surrounded(self, item: int, bounds: Bounds) -> Floats32:
        """Decode a region of voxels and what surrounds it."""
        grown, beyond = around(bounds, self.tree.shape)
        flat = 3 - len(bounds)
        values = self._unrestored(item, grown, 1.0)
        values = values.reshape((1,) * flat + values.shape)
        return np.pad(values, [(RADIUS, RADIUS)] * flat + beyond, mode="edge")

    def _unrestored(self, item: int, bounds: Bounds, scale: float) -> Floats32:
        """Network and detail layer together."""
        values = np.zeros([stop - start for start, stop in bounds], np.float32)
        if self.header.model == frames.MODEL_TINC:
            sample_region(self.tree, bounds, scale, partial(self._decoder.evaluate, item), values)
        if (detail := self._detail(item)) is not None:
            positions = self._positions(bounds, scale)
            flat = [np.zeros(1)] * (3 - len(positions))
            values += detail.sample((*flat, *positions), scale).reshape(values.shape)
        return values

    def _positions(self, bounds: Bounds, scale: float) -> list[npt.NDArray[np.float64]]:
        """Where the samples of a region are, in voxels, along every spatial axis."""
        sides = zip(bounds, self.tree.shape, strict=True)
        return [sample_positions(start, stop, scale, side) for (start, stop), side in sides]

    def surrounded(self, item: int, bounds: Bounds) -> Floats32:
        """Decode voxels of an item as the encoder needs them to find its filter.

        Parameters
        ----------
        item : int
            Counted as in :attr:`octants`.
        bounds : tuple of (int, int)
            Start and stop of every spatial axis.

        Returns
        -------
        ndarray of float32, shape (z + 4, y + 4, x + 4)
            Normalised, not filtered, with two neighbours on every side, see
            :meth:`napari_tinc.restoration.Restoration.apply`; z is 1 for an image.
        """
        with self._lock, one_core_free():
            return self._surrounded(item, bounds)

    def evaluate_network(self, item: int) -> Floats32:
        """What the network alone says of an item, normalised: shape of the item, float32."""
        bounds = tuple((0, side) for side in self.tree.shape)
        values = np.empty(self.tree.shape, np.float32)
        with self._lock, one_core_free():
            sample_region(self.tree, bounds, 1.0, partial(self._decoder.evaluate, item), values)
        return values

    def _arrange(
        self,
        decoded: npt.NDArray[np.generic],
        leading: tuple[int, ...],
        extent: tuple[int, ...],
        squeezed: tuple[int, ...],
    ) -> npt.NDArray[np.generic]:
        """Bring (items, spatial) back to the array's axis order and drop the axes given by a number."""
        axes = self.metadata.axes
        order = [a for a in axes if a in LEADING] + [a for a in axes if a not in LEADING]
        arranged = decoded.reshape(*leading, *extent).transpose([order.index(a) for a in axes])
        return arranged.squeeze(squeezed) if squeezed else arranged


_volumes: weakref.WeakSet[CompressedVolume] = weakref.WeakSet()


def _begin_anew() -> None:
    """Let the volumes of a forked process decode: another thread of its parent may have been at it."""
    for volume in _volumes:
        volume._begin()


after_fork(_begin_anew)


@dataclass(frozen=True)
class _Denormaliser:
    """Map the network's output to intensities: rounded for integers, clipped to the original's range."""

    offset: float
    factor: float
    minimum: float
    maximum: float
    wide: np.dtype[np.generic]
    dtype: np.dtype[np.generic]

    def __call__(self, values: Floats32) -> npt.NDArray[np.generic]:
        result = values.astype(self.wide, copy=False)
        with np.errstate(over="ignore"):  # only what a hostile file says: clipped like everything beyond the range
            result *= self.factor
            result += self.offset
        if self.dtype.kind != "f":
            np.rint(result, out=result)
        return np.clip(result, self.minimum, self.maximum, out=result).astype(self.dtype)


def _resolve(region: Region | None, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """Start and stop of every axis, and which axes were given by a number."""
    if region is not None and not isinstance(region, list | tuple):
        raise InputError(f"expected a region as a tuple with an entry per axis, got {region!r}: such as (slice(0, 8),)")
    entries = () if region is None else tuple(region)
    if len(entries) > len(shape):
        raise InputError(f"expected at most {len(shape)} entries in a region, got {len(entries)}")
    bounds: list[tuple[int, int]] = []
    squeezed: list[int] = []
    for axis, side in enumerate(shape):
        entry = entries[axis] if axis < len(entries) else slice(None)
        if not isinstance(entry, slice | Integral):
            raise InputError(f"expected a slice or a whole number on axis {axis}, got {entry!r}")
        if isinstance(entry, slice):
            try:
                start, stop, step = entry.indices(side)
            except (TypeError, ValueError) as error:
                raise InputError(f"expected a slice of whole numbers on axis {axis}, got {entry!r}") from error
            if step != 1:
                raise InputError(f"expected slices of step 1, got step {step} on axis {axis}: use scale to skip voxels")
            bounds.append((start, max(start, stop)))
            continue
        index = int(entry) + side if int(entry) < 0 else int(entry)
        if not 0 <= index < side:
            raise InputError(f"expected an index below {side} on axis {axis}, got {entry}")
        bounds.append((index, index + 1))
        squeezed.append(axis)
    return bounds, tuple(squeezed)


__all__ = ["CompressedVolume", "FormatError", "Octant", "Region"]
