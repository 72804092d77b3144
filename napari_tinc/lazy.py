"""A compressed volume as dask arrays that decode what is looked at, when it is looked at, at every resolution."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.array.slicing import normalize_index

from napari_tinc.arrays import scratch
from napari_tinc.arrays.metadata import LEADING, Metadata
from napari_tinc.errors import InputError
from napari_tinc.geometry.octree import Box
from napari_tinc.volume import Octant, Region

# Side of a chunk of a plane: it costs few decoder calls, each of which evaluates the tree's trunk again, and panning
# reuses whole tiles. A chunk of a thick region has half of it on every axis.
CHUNK_SIDE = 512
# napari shows the coarsest level in 3-D: the finest one that decodes within seconds on two cores.
MAX_COARSE_VOXELS = 2**23
_MAX_COARSE_PIXELS = 2**20
# An array lists all of its chunks: those of a volume so large that they would be more have longer sides.
_MAX_CHUNKS = 2**13

Index = tuple[slice | int, ...]


class Cells(Protocol):
    """How the spatial axes of a compressed volume are cut into octants, or chunks."""

    @property
    def depth(self) -> int: ...  # noqa: D102
    @property
    def leaves(self) -> int: ...  # noqa: D102
    @property
    def leaf_of_cell(self) -> npt.NDArray[np.int64]: ...  # noqa: D102
    def edges(self, level: int) -> tuple[npt.NDArray[np.int64], ...]: ...  # noqa: D102
    def boxes(self, level: int) -> list[Box]: ...  # noqa: D102


class Compressed(Protocol):
    """A compressed volume as viewers need it: a file, or an array of chunks.

    Its members are those of :class:`napari_tinc.volume.CompressedVolume`.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def leading_shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def spatial_shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype[np.generic]: ...  # noqa: D102
    @property
    def metadata(self) -> Metadata: ...  # noqa: D102
    @property
    def provenance(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    @property
    def raw_nbytes(self) -> int: ...  # noqa: D102
    @property
    def ratio(self) -> float: ...  # noqa: D102
    @property
    def has_wide_planes(self) -> bool: ...  # noqa: D102
    @property
    def value_ranges(self) -> tuple[tuple[float, float], ...]: ...  # noqa: D102
    @property
    def tree(self) -> Cells: ...  # noqa: D102
    @property
    def octants(self) -> tuple[Octant, ...]: ...  # noqa: D102
    @property
    def parts(self) -> tuple[Box, ...]: ...  # noqa: D102
    def scaled_shape(self, scale: float) -> tuple[int, ...]: ...  # noqa: D102
    def decode(self, region: Region | None = None, scale: float = 1.0) -> npt.NDArray[np.generic]: ...  # noqa: D102
    def save(self, path: str | Path, overwrite: bool = False) -> None: ...  # noqa: D102


class Source(Protocol):
    """What a lazy array reads from."""

    @property
    def name(self) -> str:
        """Starts the key of every chunk; no two sources share one, so that no cache mixes them up."""
        ...

    @property
    def axes(self) -> str:
        """One letter per axis."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Samples of every axis."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of what :meth:`read` returns."""
        ...

    def version(self, bounds: Index) -> int:
        """Part of the key of a chunk: another number when :meth:`read` has something else to return."""
        ...

    def read(self, bounds: Index) -> npt.NDArray[np.generic]:
        """Return a region: a slice or a number per axis, numbers drop theirs."""
        ...


class LazyArray(da.Array):
    """A dask array whose slices read the samples they show, not the whole chunks under them.

    A common dask array computes every chunk that a slice touches: with chunks one plane thick, a slice across the
    planes would decode the whole volume. Here a slice is again a lazy array on the same source, with its own chunks.
    """

    source: Source
    _bounds: Index

    def __new__(cls, source: Source, bounds: Index | None = None) -> LazyArray:
        """Cover a region of a source, by default all of it."""
        bounds = tuple(slice(0, side) for side in source.shape) if bounds is None else bounds
        cuts = _cuts(source, bounds)
        pieces = {}
        for block in product(*(range(len(cut)) for cut in cuts)):
            spans = iter([cut[i] for cut, i in zip(cuts, block, strict=True)])
            chunk = tuple(bound if isinstance(bound, int) else next(spans) for bound in bounds)
            pieces[block] = chunk, source.version(chunk)
        name = "-".join(map(str, _key(source, bounds, sum(version for _, version in pieces.values()))))
        graph: dict[Any, Any] = {}
        for block, (chunk, version) in pieces.items():
            # Two tasks, so that slices which overlap find each other's chunks in a cache.
            graph[_key(source, chunk, version)] = (partial(source.read, chunk),)
            graph[(name, *block)] = _key(source, chunk, version)
        chunks = tuple(tuple(span.stop - span.start for span in cut) for cut in cuts)
        self: LazyArray = super().__new__(  # type: ignore[no-untyped-call]
            cls, graph, name, chunks, dtype=source.dtype
        )
        self.source, self._bounds = source, bounds
        return self

    def __getitem__(self, index: Any) -> Any:
        """Slice lazily; indices other than numbers and slices of step 1 are left to dask."""
        entries = index if isinstance(index, tuple) else (index,)
        if not all(_is_basic(entry) for entry in entries):
            return super().__getitem__(index)  # type: ignore[no-untyped-call]
        remaining = iter(normalize_index(entries, self.shape))  # type: ignore[no-untyped-call]
        return LazyArray(self.source, tuple(_compose(bound, remaining) for bound in self._bounds))

    def __reduce__(self) -> tuple[type[LazyArray], tuple[Source, Index]]:
        return LazyArray, (self.source, self._bounds)

    def copy(self) -> LazyArray:
        """Return the same view; napari copies a layer's data when the user duplicates the layer."""
        return LazyArray(self.source, self._bounds)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """A volume (channel ``None``), or one channel of it, at one resolution."""

    volume: Compressed
    channel: int | None
    scale: float
    name: str

    @property
    def axes(self) -> str:
        axes = self.volume.metadata.axes
        return axes if self.channel is None else axes.replace("c", "")

    @property
    def shape(self) -> tuple[int, ...]:
        sides = zip(self.volume.metadata.axes, self.volume.scaled_shape(self.scale), strict=True)
        return tuple(side for axis, side in sides if axis in self.axes)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.volume.dtype

    def version(self, bounds: Index) -> int:
        return 0

    def read(self, bounds: Index) -> npt.NDArray[np.generic]:
        region = list(bounds)
        if self.channel is not None:
            region.insert(self.volume.metadata.axes.index("c"), self.channel)
        return self.volume.decode(tuple(region), self.scale)


@dataclass(frozen=True, eq=False)
class _Difference:
    """Original minus decoded, at every ``step``-th voxel; ``step`` is odd, so that the samples are voxels of both."""

    original: Any
    decoded: _Decoded
    step: int

    @property
    def name(self) -> str:
        return self.decoded.name

    @property
    def axes(self) -> str:
        return self.decoded.axes

    @property
    def shape(self) -> tuple[int, ...]:
        # Without the rest at the end: its sample would lie in the middle of the rest, between voxels perhaps.
        pairs = zip(self.original.shape, self.axes, strict=True)
        return tuple(n if a in LEADING else max(1, n // self.step) for n, a in pairs)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        exact = self.decoded.dtype.itemsize < 4 or self.decoded.dtype == np.float32
        return np.dtype(np.float32 if exact else np.float64)

    def version(self, bounds: Index) -> int:
        return 0

    def read(self, bounds: Index) -> npt.NDArray[np.generic]:
        region = tuple(self._voxels(axis, bound) for axis, bound in enumerate(bounds))
        return np.asarray(self.original[region]).astype(self.dtype) - self._decode(region).astype(self.dtype)

    def _decode(self, region: Index) -> npt.NDArray[np.generic]:
        """Decode every ``step``-th voxel as it is at full resolution: a coarser level is smoother, and would differ."""
        voxels = replace(self.decoded, scale=1.0)
        strided = [axis for axis, bound in enumerate(region) if isinstance(bound, slice) and bound.step != 1]
        if not strided:
            return voxels.read(region)
        axis, span = strided[0], region[strided[0]]
        assert isinstance(span, slice)
        planes = []
        for position in range(span.start, min(span.stop, self.original.shape[axis]), span.step):
            plane = [slice(b.start, b.stop) if isinstance(b, slice) else b for b in region]
            plane[axis] = position
            thin = [b for a, b in enumerate(region) if isinstance(b, slice) and a != axis]
            planes.append(voxels.read(tuple(plane))[tuple(slice(None, None, b.step) for b in thin)])
        return np.stack(planes, axis=sum(isinstance(bound, slice) for bound in region[:axis]))

    def _voxels(self, axis: int, bound: slice | int) -> slice | int:
        """Which voxels of the original the samples of an axis are; an axis shorter than a step has one."""
        step = 1 if self.axes[axis] in LEADING else self.step
        first = int(min(step, self.original.shape[axis]) - 1) // 2
        if isinstance(bound, int):
            return first + bound * step
        return slice(first + bound.start * step, first + bound.stop * step, step)


def lazy_levels(volume: Compressed, channel: int | None = None, max_voxels: int = MAX_COARSE_VOXELS) -> list[LazyArray]:
    """Show a compressed volume, or one of its channels, as dask arrays of falling resolution.

    Nothing is decoded here. Each level is decoded at its own resolution, 1, 1/2, 1/4, … on all
    spatial axes, and costs its own samples. Keys are new with every call, so that no cache mixes up two volumes.

    Parameters
    ----------
    volume : Compressed
    channel : int, optional
        Which channel: the arrays then lack the channel axis. By default they have all axes of the volume.
    max_voxels : int
        The coarsest level is the finest one with at most so many voxels at a time point: napari shows it in 3-D.

    Returns
    -------
    list of LazyArray
        At least one, the finest first; axes as in ``volume.metadata.axes``.

    Raises
    ------
    InputError
        If the channel is not there.
    """
    return [LazyArray(source) for source in _pyramid(volume, channel, max_voxels, 2)]


def lazy_difference(
    original: Any, volume: Compressed, channel: int | None = None, max_voxels: int = MAX_COARSE_VOXELS
) -> list[LazyArray]:
    """Show original minus decoded as dask arrays, computed where it is looked at.

    Parameters
    ----------
    original : array-like
        The original: numpy, dask, zarr, … of the shape of ``lazy_levels(...)[0]``.
    volume, channel, max_voxels
        As in :func:`lazy_levels`.

    Returns
    -------
    list of LazyArray of float32 (float64 for types that float32 does not hold)
        Level ``k`` holds every ``3**k``-th voxel of the difference: unlike halves, thirds have voxels at their centres.

    Raises
    ------
    InputError
        If the shapes differ, or the channel is not there.
    """
    sources = _pyramid(volume, channel, max_voxels, 3)
    if tuple(original.shape) != sources[0].shape:
        raise InputError(f"expected an original of shape {sources[0].shape}, got {tuple(original.shape)}")
    return [LazyArray(_Difference(original, source, 3**level)) for level, source in enumerate(sources)]


def _pyramid(volume: Compressed, channel: int | None, max_voxels: int, factor: int) -> list[_Decoded]:
    """Coarsen until a time point fits."""
    axes = volume.metadata.axes
    channels = volume.shape[axes.index("c")] if "c" in axes else 0
    if channel is not None and not 0 <= channel < channels:
        raise InputError(f"expected one of {channels} channels, got {channel}: give a number below, or none")
    limit = max_voxels if len(volume.spatial_shape) == 3 else min(max_voxels, _MAX_COARSE_PIXELS)
    items = math.prod(volume.leading_shape)
    name = f"tinc-{uuid.uuid4().hex}"
    scale, sources = 1.0, [_Decoded(volume, channel, 1.0, f"{name}-0")]
    while math.prod(volume.scaled_shape(scale)) // items > max(limit, 1):
        scale = 1 / factor ** len(sources)
        sources.append(_Decoded(volume, channel, scale, f"{name}-{len(sources)}"))
    return sources


def _key(source: Source, bounds: Index, version: int) -> tuple[str | int, ...]:
    """Name a chunk by what is in it."""
    ends = [(bound, -1) if isinstance(bound, int) else (bound.start, bound.stop) for bound in bounds]
    return (source.name, version, *(end for pair in ends for end in pair))


def _cuts(source: Source, bounds: Index) -> list[list[slice]]:
    """Cut the spans of a region at the multiples of the chunk side; time points are chunks of their own."""
    kept = [(bound, axis) for bound, axis in zip(bounds, source.axes, strict=True) if isinstance(bound, slice)]
    wide = sum(bound.stop - bound.start > 1 for bound, axis in kept if axis not in LEADING)
    side = CHUNK_SIDE if wide <= 2 else CHUNK_SIDE // 2
    items = math.prod(bound.stop - bound.start for bound, axis in kept if axis in LEADING)
    sides = [bound.stop - bound.start for bound, axis in kept if axis not in LEADING]
    while side < max(sides, default=1) and items * math.prod(-(-n // side) for n in sides) > _MAX_CHUNKS:
        side *= 2
    return [
        [slice(*span) for span in scratch.spans(bound.start, bound.stop, 1 if axis in LEADING else side)]
        for bound, axis in kept
    ]


def _is_basic(entry: object) -> bool:
    if isinstance(entry, slice):
        return entry.step in (None, 1)
    return entry is Ellipsis or (isinstance(entry, int | np.integer) and not isinstance(entry, bool))


def _compose(bound: slice | int, remaining: Iterator[slice | int]) -> slice | int:
    """Apply the next index to a span; an axis that was dropped before takes none."""
    if isinstance(bound, int):
        return bound
    entry = next(remaining)
    if not isinstance(entry, slice):
        return int(bound.start) + int(entry)
    start, stop, _ = entry.indices(bound.stop - bound.start)
    return slice(bound.start + start, bound.start + max(start, stop))


__all__ = [
    "CHUNK_SIDE",
    "MAX_COARSE_VOXELS",
    "Cells",
    "Compressed",
    "Index",
    "LazyArray",
    "Source",
    "lazy_difference",
    "lazy_levels",
]
